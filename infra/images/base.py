"""The base image: one from a registry, or a Debian made here where nothing can be pulled."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from infra.images import debian
from infra.images.docker import Docker, DockerFailed
from infra.kafka.jars import cache_root

PUBLIC = "python:3.11-slim-bookworm"
LOCAL = f"gatebook-base:{debian.SUITE}"
_PULL_TIMEOUT_S = 60


class NoBase(Exception):
    """There is no base image and none can be made. Says what to do."""


def ensure(docker: Docker, say: Callable[[str], None], pull: bool = True) -> str:
    """Name of a local base image; `pull` of False asks no registry. Raises NoBase."""
    for image in (PUBLIC, LOCAL):
        if docker.content(image) is not None:
            return image
    refusal = "no registry was asked"
    if pull:
        say(f"pulling {PUBLIC}")
        try:
            docker.pull(PUBLIC, _PULL_TIMEOUT_S)
            return PUBLIC
        except DockerFailed as error:
            refusal = str(error)
    if os.geteuid() != 0:
        raise NoBase(
            f"{PUBLIC} cannot be had ({refusal}), and only root can make a base: "
            "name an image with Python 3.11 with --base"
        )
    say(f"making {LOCAL} with debootstrap (once, half a minute)")
    try:
        with tempfile.TemporaryDirectory(prefix="gatebook-base-") as work:
            root = Path(work) / "root"
            debian.root_file_system(
                root, cache_root() / "debootstrap", ("ca-certificates", "python3")
            )
            docker.load(root, LOCAL)
    except (debian.NoDebian, DockerFailed) as error:
        raise NoBase(f"{PUBLIC} cannot be had ({refusal}), nor {LOCAL} made: {error}") from error
    return LOCAL
