"""How many rows a target's planner expects of statements: asked aside, within bounds, remembered.

Nobody's session waits long for it, and no target is asked more than one thing at a time: what is
not answered in time is not known, and rules must say what that means.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from typing import Any, Final

import asyncpg
import structlog
from prometheus_client import Counter

from gateway.catalog import Catalog, connect
from gateway.machine import Request
from gateway.policy.estimating import EXPLAIN, NAME, PREPARE, question, rows_of
from schemas.settings import SettingsError, Target

_ASKED = Counter("gatebook_row_estimates_total", "Plans asked of targets.", ["target", "known"])

_PATIENCE_S: Final = 1.0
_STATEMENT_MS: Final = 500
_WAITING: Final = 32
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


class Estimates:
    """One target's."""

    def __init__(self, target: Target, catalog: Catalog) -> None:
        self._target = target
        self._catalog = catalog
        self._connection: Any = None
        self._one = asyncio.Lock()
        self._waiting = 0
        self._of: object = None
        self._known: OrderedDict[bytes, tuple[float, int]] = OrderedDict()

    async def rows(self, request: Request) -> int:
        """How many rows it returns or changes; -1 where that is not known."""
        asked = question(request, self._catalog.now.resolve.snapshot)
        if not asked:
            return -1
        known = self._remembered(asked)
        if known is not None:
            return known
        if self._waiting >= _WAITING:
            return -1
        self._waiting += 1
        try:
            async with asyncio.timeout(_PATIENCE_S), self._one:
                known = self._remembered(asked)
                return await self._ask(asked) if known is None else known
        except TimeoutError:
            return -1
        finally:
            self._waiting -= 1

    def close(self) -> None:
        """Stop."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()

    def _remembered(self, asked: str) -> int | None:
        contents = self._catalog.now
        if self._of is not contents:
            self._of = contents
            self._known.clear()
        known = self._known.get(_digest(asked))
        now = asyncio.get_running_loop().time()
        return known[1] if known is not None and now - known[0] < _KEPT_S else None

    async def _ask(self, asked: str) -> int:
        contents, usable = self._catalog.now, False
        try:
            connection = await self._connected()
            # Whatever a plan needs, it changes nothing.
            async with connection.transaction(readonly=True):
                rows = rows_of(await _planned(connection, asked))
            usable = True
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, SettingsError) as error:
            log.info("not_estimated", target=self._target.name, error=type(error).__name__)
            rows = -1
            usable = isinstance(error, asyncpg.PostgresError) and not asked.startswith(PREPARE)
        finally:
            if not usable:
                # It was given up in the middle of an answer, has a statement left, or is gone.
                self.close()
        _ASKED.labels(self._target.name, str(rows >= 0).lower()).inc()
        if contents is self._catalog.now:
            self._known[_digest(asked)] = asyncio.get_running_loop().time(), rows
            if len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        return rows

    async def _connected(self) -> Any:
        if self._connection is None or self._connection.is_closed():
            self._connection = await connect(
                self._target,
                timeout=_PATIENCE_S,
                server_settings={
                    "application_name": "gatebook-estimates",
                    "statement_timeout": str(_STATEMENT_MS),
                    "lock_timeout": str(_STATEMENT_MS),
                    "default_transaction_read_only": "on",
                },
                statement_cache_size=0,
            )
        return self._connection
