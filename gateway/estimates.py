"""How many rows a target's planner expects of statements: asked aside, within bounds, remembered.

Nobody's session waits long for it, and no target is asked more than three things at a time: what
is not answered in time is not known, and rules must say what that means. Each person is asked for
once at a time; whose plans took too long keeps to a connection that all of these share, so that
they make nobody else's unknown.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections import OrderedDict
from collections.abc import AsyncIterator
from typing import Any, Final

import asyncpg
import structlog
from prometheus_client import Counter

from gateway.catalog import Catalog, connect
from gateway.machine import Request
from gateway.policy.estimating import EXPLAIN, NAME, PREPARE, question, rows_of
from schemas.settings import SettingsError, Target

_ASKED = Counter("gatebook_row_estimates_total", "Plans asked of targets.", ["target", "known"])

_SLOW = Counter(
    "gatebook_slow_row_estimates_total", "Plans that took long enough to be kept apart.", ["target"]
)

_PATIENCE_S: Final = 1.0
_STATEMENT_MS: Final = 500
_SLOW_S: Final = 0.2
_QUICK: Final = 2
_MOST_OF_ONE: Final = 8
_SLOW_FOR_S: Final = 60.0
"""How long those of whom a plan took too long keep to themselves."""
_REMEMBERED: Final = 4096
_KEPT_S: Final = 60.0
"""Statistics change without the catalog, and what could not be planned may be soon."""

log = structlog.get_logger("estimates")


_PARAMETERS: Final = "SELECT parameter_types FROM pg_catalog.pg_prepared_statements WHERE name = $1"


async def _planned(connection: Any, asked: str) -> Any:
    """The plan. Of what has parameters the one that holds for any, before 12 there is no asking."""
    if not asked.startswith(PREPARE):
        return await connection.fetchval(asked)
    await connection.execute("SET LOCAL plan_cache_mode = force_generic_plan")
    await connection.execute(asked)
    number = len(await connection.fetchval(_PARAMETERS, NAME))
    values = f"({', '.join(['NULL'] * number)})" if number else ""
    plan = await connection.fetchval(f"{EXPLAIN} EXECUTE {NAME}{values}")
    await connection.execute(f"DEALLOCATE {NAME}")
    return plan


def _digest(asked: str) -> bytes:
    # Texts would be a quarter of a gigabyte, and hold what people typed.
    return hashlib.sha256(asked.encode()).digest()


class _Line:
    """Side connections of one target, so many of them; whoever comes first goes first."""

    def __init__(self, target: Target, most: int) -> None:
        self._target = target
        self._free = asyncio.Semaphore(most)
        self._connections: list[Any] = []
        self._lent: set[Any] = set()
        self._closed = False

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncIterator[Any]:
        """One of them. It is given up if what is done with it fails: it may be in the middle of
        an answer, or have a statement left.
        """
        async with self._free:
            connection = self._connections.pop() if self._connections else None
            if connection is None or connection.is_closed():
                connection = await _connect(self._target)
            self._lent.add(connection)
            usable = False
            try:
                yield connection
                usable = True
            finally:
                self._lent.discard(connection)
                if usable and not self._closed:
                    self._connections.append(connection)
                else:
                    connection.terminate()

    def close(self) -> None:
        """Stop."""
        self._closed = True
        for connection in (*self._connections, *self._lent):
            connection.terminate()
        self._connections.clear()


async def _connect(target: Target) -> Any:
    return await connect(
        target,
        timeout=_PATIENCE_S,
        server_settings={
            "application_name": "gatebook-estimates",
            "statement_timeout": str(_STATEMENT_MS),
            "lock_timeout": str(_STATEMENT_MS),
            "default_transaction_read_only": "on",
        },
        statement_cache_size=0,
    )


class Estimates:
    """One target's."""

    def __init__(self, target: Target, catalog: Catalog) -> None:
        self._target = target
        self._catalog = catalog
        self._quick, self._slow = _Line(target, _QUICK), _Line(target, 1)
        # Of whom something is asked or to be asked, and of whom a plan took too long, until when.
        self._turns: dict[str, tuple[asyncio.Lock, int]] = {}
        self._slow_until: OrderedDict[str, float] = OrderedDict()
        self._closed = False
        self._of: object = None
        self._known: OrderedDict[bytes, tuple[float, int]] = OrderedDict()

    async def rows(self, request: Request, person: str) -> int:
        """How many rows it returns or changes; -1 where that is not known."""
        asked = question(request, self._catalog.now.resolve.snapshot)
        if not asked or self._closed:
            return -1
        known = self._remembered(asked)
        if known is not None:
            return known
        turn, waiting = self._turns.get(person, (asyncio.Lock(), 0))
        if waiting >= _MOST_OF_ONE:
            return -1
        self._turns[person] = turn, waiting + 1
        try:
            async with asyncio.timeout(_PATIENCE_S), turn:
                known = self._remembered(asked)
                return await self._ask(asked, person) if known is None else known
        except TimeoutError:
            return -1
        finally:
            turn, waiting = self._turns.pop(person)
            if waiting > 1:
                self._turns[person] = turn, waiting - 1

    def close(self) -> None:
        """Stop; nothing is known any more."""
        self._closed = True
        self._quick.close()
        self._slow.close()

    def _remembered(self, asked: str) -> int | None:
        contents = self._catalog.now
        if self._of is not contents:
            self._of = contents
            self._known.clear()
        known = self._known.get(_digest(asked))
        now = asyncio.get_running_loop().time()
        return known[1] if known is not None and now - known[0] < _KEPT_S else None

    def _line_of(self, person: str) -> _Line:
        now = asyncio.get_running_loop().time()
        while self._slow_until and next(iter(self._slow_until.values())) <= now:
            self._slow_until.popitem(last=False)
        return self._slow if person in self._slow_until else self._quick

    def _was_slow(self, person: str) -> None:
        self._slow_until[person] = asyncio.get_running_loop().time() + _SLOW_FOR_S
        self._slow_until.move_to_end(person)

    async def _ask(self, asked: str, person: str) -> int:
        contents, rows, loop = self._catalog.now, -1, asyncio.get_running_loop()
        begun: float | None = None
        try:
            async with self._line_of(person).connection() as connection:
                begun = loop.time()
                rows = await _rows(connection, asked)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, SettingsError) as error:
            log.info("not_estimated", target=self._target.name, error=type(error).__name__)
        finally:
            # However it ends: also where patience does, in the middle of it.
            if begun is not None and loop.time() - begun > _SLOW_S:
                self._was_slow(person)
                _SLOW.labels(self._target.name).inc()
        _ASKED.labels(self._target.name, str(rows >= 0).lower()).inc()
        if contents is self._catalog.now:
            self._known[_digest(asked)] = loop.time(), rows
            if len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        return rows


async def _rows(connection: Any, asked: str) -> int:
    """What the planner says; -1 for what it refuses. Raises what asyncpg raises, where the
    connection can be used no more.
    """
    try:
        # Whatever a plan needs, it changes nothing.
        async with connection.transaction(readonly=True):
            return rows_of(await _planned(connection, asked))
    except asyncpg.PostgresError:
        if asked.startswith(PREPARE):
            raise
        return -1
