"""A folder of policies: `*.cedar`, and beside them `*.tests.yaml` with cases.

It is looked at again and again, not watched: folders that are mounted over a network or replaced
by a link (as Kubernetes does) tell nobody.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog
from prometheus_client import Counter, Gauge

from gateway.policy.check import errors, findings
from gateway.policy.decide import Policies, PolicyError, checked

_FAILURES = Counter(
    "gatebook_policies_reload_failures_total", "Sets of policies that could not be used."
)
_AGE = Gauge("gatebook_policies_age_seconds", "Since the policies in force were loaded; -1: none.")
_CURRENT = Gauge("gatebook_policies_current", "Whether they are the folder's.")
_REASON_CHARS: Final = 1000

log = structlog.get_logger("policies")

_LARGEST: Final = 64 * 1024 * 1024
TESTS: Final = "*.tests.yaml"
EVERYTHING: Final = (
    "everything.cedar",
    '@id("everything") @unknown("permitted") permit (principal, action, resource);',
)
"""Beside it, what a file forbids is seen alone."""


def read(folder: Path) -> list[tuple[str, str]]:
    """(file name, text) of its Cedar files. Raises PolicyError."""
    files = []
    size = 0
    try:
        for path in sorted(folder.glob("*.cedar")):
            size += path.stat().st_size
            if size > _LARGEST:
                raise PolicyError(f"{folder} holds more than {_LARGEST} bytes")
            files.append((path.name, path.read_text()))
    except (OSError, UnicodeDecodeError) as error:
        raise PolicyError(f"{folder}: {error}") from None
    if not files:
        raise PolicyError(f"{folder} holds no .cedar file")
    return files


@dataclass(frozen=True, slots=True)
class Load:
    """A set to be used, or why there is none (`reason`, by file and line)."""

    policies: Policies | None
    files: int
    reason: str = ""


def load(folder: Path | None) -> Load:
    """What the folder holds now."""
    if folder is None:
        return Load(None, 0, "no policy folder is configured")
    files: list[tuple[str, str]] = []
    try:
        files = read(folder)
        return Load(checked(files), len(files))
    except PolicyError as error:
        # Says file and line; what it does not find is said by whoever refused.
        found = [str(finding) for finding in errors(findings(files))]
        return Load(None, len(files), ("; ".join(found) or str(error))[:_REASON_CHARS])


Stamp = tuple[tuple[str, int, int, int], ...]


def stamp(folder: Path) -> Stamp:
    """Differs whenever a file was written, replaced, added or removed."""
    found = []
    for path in sorted(folder.glob("*.cedar")):
        try:
            about = path.stat()
        except OSError:
            # It is about to be replaced, or leads nowhere; reading it will tell.
            found.append((path.name, -1, -1, -1))
        else:
            found.append((path.name, about.st_ino, about.st_size, about.st_mtime_ns))
    return tuple(found)


class Watch:
    """Loads the folder at the start and whenever it has changed, whole or not at all.

    Somebody who saves three files saves them one after the other: a change is taken once the
    folder has been the same twice, and was so while it was read. `take` is told of every attempt;
    after one that failed, what was in force stays.
    """

    def __init__(self, folder: Path | None, every_s: float, take: Callable[[Load], None]) -> None:
        self._folder = folder
        self._every_s = every_s
        self._take = take
        self._seen: Stamp = ()
        self._taken: Stamp = ()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Load, and go on looking."""
        _AGE.set(-1)
        if self._folder is None:
            self._tell(load(None))
            return
        self._seen = self._taken = stamp(self._folder)
        self._tell(load(self._folder))
        self._task = asyncio.create_task(self._run(self._folder))

    async def close(self) -> None:
        """Stop looking."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self, folder: Path) -> None:
        while True:
            await asyncio.sleep(self._every_s)
            try:
                await self._look(folder)
            except OSError as error:
                log.error("policies_unreadable", folder=str(folder), error=type(error).__name__)

    async def _look(self, folder: Path) -> None:
        # A large set takes long to check, and nobody waits for it.
        before, self._seen = self._seen, await asyncio.to_thread(stamp, folder)
        if self._seen == self._taken or self._seen != before:
            return
        loaded = await asyncio.to_thread(load, folder)
        if await asyncio.to_thread(stamp, folder) != self._seen:
            return
        self._taken = self._seen
        self._tell(loaded)

    def _tell(self, loaded: Load) -> None:
        folder = str(self._folder)
        _CURRENT.set(loaded.policies is not None)
        if loaded.policies is None:
            _FAILURES.inc()
            log.error("policies_unreadable", folder=folder, error=loaded.reason)
        else:
            began = time.monotonic()
            _AGE.set_function(lambda: time.monotonic() - began)
            log.info("policies_loaded", folder=folder, digest=loaded.policies.digest)
        self._take(loaded)
