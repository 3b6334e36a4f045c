"""Builds images that are missing or out of date."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from infra.images.docker import Docker
from infra.images.recipes import RECIPES


def build(
    docker: Docker,
    base: str,
    say: Callable[[str], None],
    names: Iterable[str] = tuple(RECIPES),
    tag: str = "latest",
) -> dict[str, str]:
    """Image of each recipe, `gatebook/NAME:TAG`, built on the local image `base`.

    Raises CannotInstall, DockerFailed, JarsUnavailable or OSError.
    """
    images = {name: f"gatebook/{name}:{tag}" for name in names}
    foundation = docker.id(base)
    for name, image in images.items():
        recipe = RECIPES[name]
        digest = recipe.digest(foundation)
        if docker.content(image) == digest:
            continue
        say(f"building {image} on {base}")
        with tempfile.TemporaryDirectory(prefix="gatebook-image-") as work:
            recipe.prepare(Path(work))
            docker.build(Path(work), base, image, digest)
    return images
