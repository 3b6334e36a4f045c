"""The targets of this process: what is offered, and how one set of them takes another's place.

Whoever has been offered a set keeps to it: a connection never sees one target's settings and
another's catalog. What is over says so (`Served.over`), and nothing more is decided by it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple, Protocol

import structlog
from prometheus_client import Counter, Gauge

from gateway.catalog import Audited, Catalog, Report
from gateway.estimates import Estimates
from gateway.journal import NotDurable
from gateway.target_files import Difference, Known, Load, between, digest
from schemas.settings import SettingsError, Target

_FAILURES = Counter(
    "gatebook_targets_reload_failures_total", "Sets of targets that could not be used."
)
_AGE = Gauge("gatebook_targets_age_seconds", "Since the targets in force were loaded.")
_CURRENT = Gauge("gatebook_targets_current", "Whether they are the files'.")
_NONE: Final = Difference((), (), ())

log = structlog.get_logger("targets")


class Served:
    """A target as it is offered: its settings, its catalog, and what its planner expects."""

    def __init__(
        self, target: Target, refresh_s: float, report: Report, audited: Audited | None = None
    ) -> None:
        """Raises SettingsError."""
        self.target = target
        self.catalog = Catalog(target, refresh_s, report, audited)
        self.estimates = Estimates(target, self.catalog)
        self.over = ""
        """Why it is offered no longer, in words; empty while it is."""

    @property
    def known(self) -> Known:
        """What it was made of."""
        return Known(self.target, self.catalog.veils.token_key)

    def end(self, successor: Served | None) -> None:
        """Offer it no longer, at once."""
        self.over = "has changed: connect again" if successor else "is not offered any more"
        self.catalog.retire(successor.catalog if successor else None)
        self.estimates.close()

    async def close(self) -> None:
        """Stop what it does."""
        self.estimates.close()
        await self.catalog.close()


class Said(NamedTuple):
    """A set of targets was loaded, or not: `digest` and `number` are of the one in force now."""

    digest: str
    number: int
    difference: Difference = _NONE
    reason: str = ""


class House(Report, Protocol):
    """Whose targets they are."""

    @property
    def durable(self) -> bool:
        """Whether the journal answers."""

    def record(self, said: Said) -> bool:
        """Whether it will be in the book before anything that is recorded after it."""

    def tell(self) -> None:
        """Some are over: end the sessions that are at one."""


class Targets:
    """Those in force: `now`, by name, is replaced and never changed."""

    def __init__(self, given: Iterable[Target], refresh_s: float, house: House) -> None:
        """Raises SettingsError."""
        self._refresh_s = refresh_s
        self._house = house
        self.now: Mapping[str, Served] = {
            target.name: Served(target, refresh_s, house) for target in given
        }
        # Of each there ever was: a classification only grows within a process.
        self._audited = {name: served.catalog.audited for name, served in self.now.items()}
        self._said = self._saying(self.now)
        self._others: tuple[str, ...] = ()
        self._ending: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Begin; the targets need not be there yet."""
        self._house.record(self._said)
        self._loaded(_NONE)
        for served in self.now.values():
            served.catalog.start()

    async def close(self) -> None:
        """Stop."""
        for served in self.now.values():
            await served.close()
        await asyncio.gather(*self._ending, return_exceptions=True)

    def documents(self) -> list[tuple[bytes, bytes]]:
        """(SHA-256, record) of all that events may name as what is classified."""
        return [audited.document() for audited in self._audited.values() if audited.classification]

    async def take(self, load: Load) -> bool:
        """Offer what was loaded, whole or not at all: once what it classifies is in the book, and
        before anything is that it applies to. False where the journal does not take that now.
        """
        if load.targets is None:
            return self._refuse(load.reason)
        before = {name: served.known for name, served in self.now.items()}
        difference = between(before, load.targets)
        try:
            made = {
                name: self._make(load.targets[name].target)
                for name in (*difference.added, *difference.changed)
            }
            for served in made.values():
                await served.catalog.declare()
        except SettingsError as error:
            return self._refuse(str(error))
        except NotDurable:
            return self._wait()
        offered = {name: made.get(name) or self.now[name] for name in load.targets}
        said = self._saying(offered, difference)
        self._warn(load.others)
        if said == self._said:
            return True
        if not (self._house.durable and self._house.record(said)):
            return self._wait()
        # Nothing is awaited from here on: who asks next asks of what is offered now.
        old, self.now, self._said = self.now, offered, said._replace(difference=_NONE)
        for name in (*difference.changed, *difference.removed):
            old[name].end(made.get(name))
            self._later(old[name])
        for served in made.values():
            served.catalog.start()
        self._loaded(difference)
        self._house.tell()
        return True

    def _make(self, target: Target) -> Served:
        audited = self._audited.setdefault(target.name, Audited(target.name))
        return Served(target, self._refresh_s, self._house, audited)

    def _saying(self, offered: Mapping[str, Served], difference: Difference = _NONE) -> Said:
        return Said(digest(each.target for each in offered.values()), len(offered), difference)

    def _loaded(self, difference: Difference) -> None:
        began = time.monotonic()
        _AGE.set_function(lambda: time.monotonic() - began)
        _CURRENT.set(1)
        log.info("targets_loaded", digest=self._said.digest, **difference._asdict())

    def _refuse(self, reason: str) -> bool:
        """What is in force stays."""
        said = self._said._replace(reason=reason)
        if said == self._said:
            return True
        _CURRENT.set(0)
        if not self._house.record(said):
            return self._wait()
        self._said = said
        _FAILURES.inc()
        log.error("targets_unusable", error=reason)
        return True

    def _wait(self) -> bool:
        _CURRENT.set(0)
        log.warning("targets_wait_for_the_journal")
        return False

    def _warn(self, others: tuple[str, ...]) -> None:
        if others != self._others:
            self._others = others
            if others:
                log.warning("settings_need_a_restart", settings=others)

    def _later(self, served: Served) -> None:
        task = asyncio.create_task(served.close())
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)
