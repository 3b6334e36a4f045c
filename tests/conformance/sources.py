"""Other projects' sources, from their registries' own clients, pinned and kept in the cache."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from infra.kafka.jars import cache_root

LOCKS = Path(__file__).with_name("locks")


class Unavailable(Exception):
    """A suite cannot be fetched or made here. Says why."""


def cache() -> Path:
    """Where suites and what they need are kept between runs."""
    return cache_root() / "conformance"


@contextmanager
def _made_once(folder: Path) -> Iterator[Path | None]:
    """A scratch folder that becomes `folder`, or None when that is there already.

    Only what is complete gets the name; two runs that start at once do not both make it.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if folder.is_dir():
            yield None
            return
        partial = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
        try:
            yield partial
            partial.rename(folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def made(name: str, make: Callable[[Path], None]) -> Path:
    """The cached folder `name`, filled by `make` the first time. Raises Unavailable."""
    folder = cache() / name
    with _made_once(folder) as partial:
        if partial is not None:
            make(partial)
    return folder


def run(*command: str | Path, cwd: Path | None = None, log: Path | None = None) -> None:
    """A command whose failure makes a suite unavailable; `log` keeps what it prints."""
    try:
        done = subprocess.run(
            command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
        )
    except OSError as error:
        raise Unavailable(f"{command[0]} cannot be started: {error.strerror}") from error
    if log is not None:
        log.write_bytes(done.stdout)
    if done.returncode != 0:
        # What a registry's client says may name hosts and holds nothing a reader can act on.
        kept = f"; see {log}" if log is not None else ""
        raise Unavailable(f"{Path(command[0]).name} ended with {done.returncode}{kept}")


def _checked(archive: Path, sha256: str) -> None:
    with archive.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        raise Unavailable(f"{archive.name} has SHA-256 {found}, not {sha256}")


def _unpacked(archive: Path, folder: Path) -> None:
    """The single folder in `archive`, as `folder`."""
    inner = folder / "unpacking"
    with tarfile.open(archive) as tar:
        tar.extractall(inner, filter="data")
    [top] = inner.iterdir()
    for entry in top.iterdir():
        entry.rename(folder / entry.name)
    shutil.rmtree(inner)


@dataclass(frozen=True, slots=True)
class Sdist:
    """A source distribution on PyPI."""

    name: str
    version: str
    sha256: str

    def folder(self) -> Path:
        """Its content. Raises Unavailable."""
        return made(f"{self.name}-{self.version}", self._make)

    def _make(self, folder: Path) -> None:
        wanted = folder / "requirements.txt"
        wanted.write_text(f"{self.name}=={self.version} --hash=sha256:{self.sha256}\n")
        run(
            *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"),
            *("--no-deps", "--no-binary", self.name, "--require-hashes", "-r", wanted),
            *("--dest", folder / "download"),
        )
        [archive] = (folder / "download").iterdir()
        _checked(archive, self.sha256)
        _unpacked(archive, folder)
        shutil.rmtree(folder / "download")


@dataclass(frozen=True, slots=True)
class DebianSource:
    """The upstream tarball of a Debian source package."""

    package: str
    version: str
    archive: str
    sha256: str

    def unpack(self, folder: Path) -> None:
        """Fetch it and unpack it into `folder`. Raises Unavailable."""
        apt = folder / "apt"
        sources = apt / "sources"
        for part in (sources, apt / "lists" / "partial", apt / "archives" / "partial"):
            part.mkdir(parents=True)
        _source_entries(sources)
        # State of its own: the machine's package lists are neither needed nor changed.
        options = [
            *("-o", "Dir::Etc::sourcelist=/dev/null"),
            *("-o", f"Dir::Etc::sourceparts={sources}"),
            *("-o", f"Dir::State::lists={apt / 'lists'}"),
            *("-o", f"Dir::Cache={apt}"),
            *("-o", "APT::Sandbox::User="),
        ]
        run("apt-get", "--quiet", *options, "update")
        run(
            *("apt-get", "--quiet", *options, "source", "--download-only"),
            f"{self.package}={self.version}",
            cwd=apt,
        )
        _checked(apt / self.archive, self.sha256)
        _unpacked(apt / self.archive, folder)
        shutil.rmtree(apt)


def _source_entries(folder: Path) -> None:
    """The machine's own package sources, asked for source packages instead."""
    etc = Path("/etc/apt")
    found = 0
    for path in sorted(etc.glob("sources.list.d/*.sources")):
        text = path.read_text()
        if "debian" in text:
            lines = [
                "Types: deb-src" if line.startswith("Types:") else line
                for line in text.splitlines()
            ]
            (folder / path.name).write_text("\n".join(lines) + "\n")
            found += 1
    for path in (etc / "sources.list", *sorted(etc.glob("sources.list.d/*.list"))):
        lines = path.read_text().splitlines() if path.exists() else []
        own = [line.replace("deb ", "deb-src ", 1) for line in lines if line.startswith("deb ")]
        own = [line for line in own if "debian" in line]
        if own:
            (folder / f"{path.stem}.list").write_text("\n".join(own) + "\n")
            found += 1
    if not found:
        raise Unavailable("this machine has no Debian package sources")


def python(lock: str) -> Path:
    """The Python of an environment with exactly what `locks/LOCK.lock` lists. Raises Unavailable.

    A suite's own pytest and plugins are not ours: it may need others.
    """
    file = LOCKS / f"{lock}.lock"
    digest = hashlib.sha256(file.read_bytes()).hexdigest()[:12]
    name = f"{lock}-python{sys.version_info.major}.{sys.version_info.minor}-{digest}"
    folder = cache() / name
    uv = Path(sys.executable).with_name("uv")
    with _made_once(folder.with_name(f"{name}.made")) as partial:
        if partial is not None:
            # In its place from the start: an environment's scripts know where they are.
            shutil.rmtree(folder, ignore_errors=True)
            run(uv, "venv", "--quiet", "--python", sys.executable, folder)
            run(
                *(uv, "pip", "sync", "--quiet", "--python", folder / "bin" / "python"),
                *("--require-hashes", file),
            )
    return folder / "bin" / "python"


def environment(**variables: str) -> dict[str, str]:
    """Ours without what would lead a suite elsewhere."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PG", "GATEBOOK_", "PYTEST_", "PYTHON"))
    }
    return {**kept, **variables}
