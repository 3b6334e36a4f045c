"""Apache Kafka's jars: exactly those of jars.lock, fetched once per user.

The lock pins each artifact by SHA-256. jgo's own transitive resolution is not used: it
picks another kafka-clients than the broker was built with.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

LOCK = Path(__file__).with_name("jars.lock")
VERSION = "4.3.1"
ATTEMPTS = 4


class JarsUnavailable(Exception):
    """The jars cannot be fetched or are not what the lock names."""


@dataclass(frozen=True, slots=True)
class Jar:
    """One line of the lock."""

    group: str
    artifact: str
    version: str
    sha256: str

    @property
    def file_name(self) -> str:
        """Name of the jar in the cache folder."""
        return f"{self.artifact}-{self.version}.jar"


def read_lock(text: str) -> tuple[Jar, ...]:
    """Jars of a lock file's text, lines `group:artifact:version sha256:HEX`."""
    jars = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        coordinates, _, digest = line.partition(" sha256:")
        parts = coordinates.split(":")
        if len(parts) != 3 or len(digest) != 64:
            raise JarsUnavailable(
                f"jars.lock line {number} is not `group:artifact:version sha256:HEX`"
            )
        jars.append(Jar(parts[0], parts[1], parts[2], digest))
    return tuple(jars)


def cache_root() -> Path:
    """Per-user cache folder of the stack (XDG_CACHE_HOME, else ~/.cache)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gatebook"


def libs() -> Path:
    """Folder of the broker's jars: KAFKA_HOME's when set, else the cache (see `ensure`)."""
    home = os.environ.get("KAFKA_HOME")
    if home:
        return Path(home) / "libs"
    # The lock's digest is in the name, so that a changed lock never meets an old cache.
    digest = hashlib.sha256(LOCK.read_bytes()).hexdigest()
    return cache_root() / f"kafka-{VERSION}-{digest[:12]}"


def ensure(say: Callable[[str], None] = lambda _: None) -> None:
    """Make `libs()` complete: fetch and verify what the lock names, once per user.

    Two processes may do so at once. Raises JarsUnavailable.
    """
    folder = libs()
    if os.environ.get("KAFKA_HOME"):
        if not any(folder.glob("kafka_*.jar")):
            raise JarsUnavailable(f"KAFKA_HOME is set, but {folder} holds no Kafka")
    elif not folder.is_dir():
        say(f"fetching Apache Kafka {VERSION} (once, 54 MB)")
        _fill(read_lock(LOCK.read_text()), folder)


def _fill(jars: tuple[Jar, ...], folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as work:
        complete = Path(work) / "libs"
        complete.mkdir(mode=0o755)
        with ThreadPoolExecutor(8) as threads:
            for jar, content in zip(
                jars,
                threads.map(lambda jar: _fetch(jar, Path(work) / "repository"), jars),
                strict=True,
            ):
                shutil.copyfile(content, complete / jar.file_name)
        try:
            complete.rename(folder)
        except OSError:
            # Another process was faster; what it put there passed the same checks.
            if not folder.is_dir():
                raise


def _fetch(jar: Jar, repository: Path) -> Path:
    from jgo.maven import MavenContext

    failure = "never tried"
    for attempt in range(ATTEMPTS):
        # A fresh folder per attempt: jgo would take a half-written file for the artifact.
        context = MavenContext(repo_cache=repository / str(attempt), timeout=30)
        try:
            path = (
                context.project(jar.group, jar.artifact)
                .at_version(jar.version)
                .artifact()
                .resolve()
            )
            digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()
        except Exception as error:  # (jgo raises requests' errors and RuntimeError alike)
            failure = type(error).__name__
            continue
        if digest == jar.sha256:
            return Path(path)
        failure = f"its SHA-256 is {digest}, jars.lock says {jar.sha256}"
    raise JarsUnavailable(
        f"cannot fetch {jar.group}:{jar.artifact}:{jar.version}: {failure} "
        "(set KAFKA_HOME to an installed Kafka, or use --kafka host:port)"
    )
