"""What the gateway knows of a target's relations, read from its system catalog.

Used to name the origin of returned columns and to tell which relations lead to classified
columns: the tables that the configuration names, their partitions and children, and every view
on one of them. Read again every `catalog_refresh_s`; until the first read succeeds everything
of a target with classified columns counts as classified.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import ssl
from pathlib import Path
from typing import Any, Final

import asyncpg
import structlog
from prometheus_client import Counter

from gateway.machine import CatalogView
from schemas.settings import Target

_FAILED = Counter("gatebook_catalog_failures_total", "Catalog reads that failed.", ["target"])

log = structlog.get_logger("catalog")

_COLUMNS: Final = """
SELECT c.oid::int8, a.attnum::int4, n.nspname || '.' || c.relname || '.' || a.attname
  FROM pg_catalog.pg_class c
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid
 WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND a.attnum > 0 AND NOT a.attisdropped
   AND c.oid >= 16384
"""
# (relation, the relation it takes its rows from): views by their rules, children by inheritance.
_DERIVED: Final = """
SELECT r.ev_class::int8, d.refobjid::int8
  FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_rewrite r ON r.oid = d.objid
 WHERE d.classid = 'pg_catalog.pg_rewrite'::regclass
   AND d.refclassid = 'pg_catalog.pg_class'::regclass AND r.ev_class <> d.refobjid
UNION
SELECT inhrelid::int8, inhparent::int8 FROM pg_catalog.pg_inherits
"""


class _Everything(frozenset[str]):
    """Contains any name: before the catalog is known, everything may be classified."""

    def __contains__(self, item: object) -> bool:
        return True

    def __bool__(self) -> bool:
        return True


def build(
    columns: list[tuple[int, int, str]],
    derived: list[tuple[int, int]],
    classified: frozenset[str],
) -> CatalogView:
    """A view from the catalog's rows; `classified` are `schema.table.column` names.

    A child table's column is classified as its parent's column of the same name, and is named
    as the parent's, so that one declaration covers all partitions.
    """
    names: dict[int, str] = {}
    for oid, _, column in columns:
        names[oid] = column.rpartition(".")[0]
    tables = {column.rpartition(".")[0] for column in classified}
    roots = {oid: name for oid, name in names.items() if name in tables}
    reach = dict.fromkeys(roots, True)
    parents: dict[int, str] = {}
    changed = True
    while changed:
        changed = False
        for child, source in derived:
            if source in reach and child not in reach:
                reach[child] = changed = True
                parents[child] = roots.get(source) or parents.get(source, "")
    known = {}
    for oid, number, column in columns:
        parent = parents.get(oid)
        inherited = f"{parent}.{column.rpartition('.')[2]}" if parent else ""
        if inherited in classified:
            known[oid, number] = inherited
        elif parent is not None and column not in classified:
            # A view may rename or compute: `ssn AS note` has no name to go by.
            known[oid, number] = "?"
        else:
            known[oid, number] = column
    reached = {names[oid] for oid in reach if oid in names}
    bare = {name.rpartition(".")[2] for name in reached | tables}
    return CatalogView(known, frozenset(names), frozenset(reached | tables | bare))


class Catalog:
    """One target's view, kept fresh."""

    def __init__(self, target: Target, refresh_s: float) -> None:
        self._target = target
        self._refresh_s = refresh_s
        self._classified = frozenset(target.classified)
        everything = _Everything() if self._classified else frozenset[str]()
        self.view = CatalogView({}, frozenset(), everything)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to read; the target need not be there yet."""
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Stop."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        pause = 0.5
        while True:
            try:
                self.view = await self._read()
                pause = self._refresh_s
            except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                _FAILED.labels(self._target.name).inc()
                log.warning("catalog_failed", target=self._target.name, error=type(error).__name__)
                pause = min(pause * 2, self._refresh_s)
            await asyncio.sleep(pause)

    async def _read(self) -> CatalogView:
        target = self._target
        connection: Any = await asyncpg.connect(
            host=target.host,
            port=target.port,
            user=target.user,
            password=target.password.read(),
            database=target.database,
            ssl=tls_context(target) or False,
            timeout=5,
            command_timeout=10,
            server_settings={"application_name": "gatebook-catalog"},
        )
        try:
            columns = await connection.fetch(_COLUMNS)
            derived = await connection.fetch(_DERIVED)
        finally:
            with contextlib.suppress(OSError, TimeoutError, asyncpg.InterfaceError):
                await connection.close(timeout=2)
        return await asyncio.to_thread(
            build,
            [tuple(row) for row in columns],
            [tuple(row) for row in derived],
            self._classified,
        )


def tls_context(target: Target) -> ssl.SSLContext | None:
    """TLS to a target, as its `sslmode` says; of its `ca_file` as it is now. Raises OSError."""
    if target.sslmode == "disable":
        return None
    changed = target.ca_file.stat().st_mtime_ns if target.ca_file else 0
    return _tls_context(target.ca_file, target.sslmode != "require", changed)


@functools.lru_cache(maxsize=64)
def _tls_context(ca_file: Path | None, verified: bool, changed: int) -> ssl.SSLContext:
    # Reading a system's authorities takes tens of milliseconds, in which nobody else is served.
    del changed
    context = ssl.create_default_context(cafile=str(ca_file) if ca_file else None)
    if not verified:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
