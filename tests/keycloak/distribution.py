"""Keycloak's own distribution, pinned by its hash, fetched and built once per user."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
import zipfile
from pathlib import Path

from jgo.maven import MavenContext

from infra.kafka.jars import cache_root
from infra.kafka.java import find

VERSION = "26.7.3"
SHA256 = "27a6535553c3cdcd083872ba40629efafb3475e3b758e0c6f691395561dd0f1f"
# Building bakes these in, which takes 25 s; a start without them would build again.
BUILD_OPTIONS = ["--db=dev-mem", "--cache=local"]


def environment() -> dict[str, str]:
    """For kc.sh: the same Java as the broker's, and little memory."""
    return {**os.environ, "JAVA": str(find().executable), "JAVA_OPTS_APPEND": "-Xmx512m"}


def distribution() -> Path:
    """Folder of the built distribution; nothing in it is ever written again."""
    recipe = hashlib.sha256(f"{SHA256} {BUILD_OPTIONS}".encode()).hexdigest()[:12]
    folder = cache_root() / f"keycloak-{VERSION}-{recipe}"
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as work:
        home = _unpack(_fetch(Path(work) / "repository"), Path(work))
        subprocess.run(
            [home / "bin" / "kc.sh", "build", *BUILD_OPTIONS],
            env=environment(),
            check=True,
            capture_output=True,
            timeout=240,
        )
        try:
            home.rename(folder)
        except OSError:
            # Another run was faster.
            assert folder.is_dir()
    return folder


def copy_to(home: Path) -> None:
    """A copy to run: the distribution keeps its data and its logs within itself."""
    shutil.copytree(distribution(), home)


def _fetch(repository: Path) -> Path:
    context = MavenContext(repo_cache=repository, timeout=60)
    component = context.project("org.keycloak", "keycloak-quarkus-dist").at_version(VERSION)
    path = Path(component.artifact(packaging="zip").resolve())
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    assert digest == SHA256, f"Keycloak {VERSION} has SHA-256 {digest}, not the pinned one"
    return path


def _unpack(archive: Path, folder: Path) -> Path:
    with zipfile.ZipFile(archive) as file:
        file.extractall(folder)
    home = folder / f"keycloak-{VERSION}"
    for script in (home / "bin").glob("*.sh"):
        script.chmod(0o755)
    return home
