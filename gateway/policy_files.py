"""A folder of policies: `*.cedar`, and beside them `*.tests.yaml` with cases."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog
from prometheus_client import Counter, Gauge

from gateway.policy.check import errors, findings
from gateway.policy.decide import Policies, PolicyError, checked
from gateway.watch import Watch

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


class PolicyWatch:
    """Loads the folder at the start and whenever it has changed (see gateway.watch). `take` is told
    of every attempt; after one that failed, what was in force stays.
    """

    def __init__(self, folder: Path | None, every_s: float, take: Callable[[Load], None]) -> None:
        self._folder = folder
        self._take = take
        self._watch = Watch(every_s, self._files, lambda: load(folder), self._taken)

    def start(self) -> None:
        """Load, and go on looking."""
        _AGE.set(-1)
        self._tell(self._watch.first())
        if self._folder is not None:
            self._watch.start()

    async def close(self) -> None:
        """Stop looking."""
        await self._watch.close()

    def _files(self) -> list[Path]:
        return sorted(self._folder.glob("*.cedar")) if self._folder is not None else []

    async def _taken(self, loaded: Load) -> bool:
        self._tell(loaded)
        return True

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
