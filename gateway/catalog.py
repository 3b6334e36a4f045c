"""What the gateway knows of a target, read from its system catalog.

Used to say what a statement does (gateway/policy/resolve.py), to name the origin of returned
columns and to tell which relations lead to classified columns: the tables that the configuration
names, their partitions and children, and every view on one of them.

A cheap fingerprint tells whether anything changed: it is looked at every `catalog_refresh_s`, and
at once after a statement of one of our sessions that may have changed it. Until the first read
succeeds nothing is known, and everything of a target with classified columns counts as classified.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import ssl
import time
from pathlib import Path
from typing import Any, Final, NamedTuple

import asyncpg
import structlog
from prometheus_client import Counter

from gateway import veils
from gateway.machine import CatalogView
from gateway.masking.knowledge import Knowledge
from gateway.policy import catalog as model
from gateway.policy.catalog import EMPTY
from gateway.policy.resolve import Resolver
from schemas.settings import Target

_FAILED = Counter("gatebook_catalog_failures_total", "Catalog reads that failed.", ["target"])

log = structlog.get_logger("catalog")

_FIRST: Final = 16384
"""The first OID that is not PostgreSQL's own."""
_READ_S: Final = 30.0
_SOON_S: Final = 1.0
# A statement that is done may not be committed yet.
_COMMITTING: Final = (0.005, 0.02, 0.1)

# Rows of system objects never change but by an upgrade. OIDs are those of ordinary objects.
_FINGERPRINT: Final = """
SELECT md5(string_agg(part, ',')) FROM (
  SELECT 'c' || count(*) || ':' || coalesce(sum(hashtextextended(oid || ':' || xmin, 0)), 0)
         AS part FROM pg_catalog.pg_class WHERE oid >= 16384
  UNION ALL SELECT 'a' || count(*) || ':'
         || coalesce(sum(hashtextextended(attrelid || ':' || attnum || ':' || xmin, 0)), 0)
    FROM pg_catalog.pg_attribute WHERE attrelid >= 16384
  UNION ALL SELECT 'p' || count(*) || ':'
         || coalesce(sum(hashtextextended(oid || ':' || xmin, 0)), 0)
    FROM pg_catalog.pg_proc WHERE oid >= 16384
  UNION ALL SELECT 'r' || count(*) || ':'
         || coalesce(sum(hashtextextended(oid || ':' || xmin, 0)), 0)
    FROM pg_catalog.pg_rewrite WHERE oid >= 16384
  UNION ALL SELECT 'i' || count(*) || ':'
         || coalesce(sum(hashtextextended(inhrelid || ':' || inhparent, 0)), 0)
    FROM pg_catalog.pg_inherits
  UNION ALL SELECT 't' || count(*) || ':'
         || coalesce(sum(hashtextextended(oid || ':' || xmin, 0)), 0)
    FROM pg_catalog.pg_trigger WHERE oid >= 16384
  UNION ALL SELECT 'k' || count(*) || ':'
         || coalesce(sum(hashtextextended(oid || ':' || xmin, 0)), 0)
    FROM pg_catalog.pg_constraint WHERE oid >= 16384
  UNION ALL SELECT 'o' || count(*) || ':'
         || coalesce(sum(hashtextextended(oid || ':' || xmin, 0)), 0)
    FROM pg_catalog.pg_operator WHERE oid >= 16384
  UNION ALL SELECT 'n' || count(*) || ':'
         || coalesce(sum(hashtextextended(oid || ':' || xmin, 0)), 0) FROM pg_catalog.pg_namespace
  UNION ALL SELECT 's' || count(*) || ':'
         || coalesce(sum(hashtextextended(setdatabase || ':' || setrole || ':' || xmin, 0)), 0)
    FROM pg_catalog.pg_db_role_setting
) parts
"""
_PATH: Final = "SELECT pg_catalog.current_schemas(true)::text[]"
_RELATIONS: Final = """
SELECT c.oid::int8, n.nspname::text, c.relname::text, c.relkind::text, c.relpersistence::text,
       pg_catalog.pg_get_userbyid(c.relowner)::text,
       CASE WHEN c.relkind IN ('v', 'm') AND c.oid >= 16384
            THEN pg_catalog.pg_get_viewdef(c.oid) END
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S', 'i', 'I') AND n.nspname <> 'pg_toast'
   AND n.nspname NOT LIKE 'pg\\_toast\\_temp\\_%' AND c.oid::int8 >= $1
 ORDER BY 1
"""
_COLUMNS: Final = """
SELECT a.attrelid::int8, array_agg(a.attname::text ORDER BY a.attnum),
       array_agg(a.attnum::int4 ORDER BY a.attnum),
       array_agg(pg_catalog.format_type(a.atttypid, a.atttypmod) ORDER BY a.attnum),
       array_agg(a.attnotnull ORDER BY a.attnum)
  FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
 WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND c.relnamespace <> 'pg_toast'::regnamespace
   AND a.attnum > 0 AND NOT a.attisdropped AND a.attrelid::int8 >= $1
 GROUP BY 1 ORDER BY 1
"""
_INHERITS: Final = """
SELECT inhrelid::int8, inhparent::int8 FROM pg_catalog.pg_inherits ORDER BY inhrelid, inhseqno
"""
_RULES: Final = """
SELECT ev_class::int8, pg_catalog.pg_get_ruledef(oid) FROM pg_catalog.pg_rewrite
 WHERE rulename <> '_RETURN' AND oid >= 16384 ORDER BY 1, rulename
"""
_TRIGGERS: Final = """
SELECT tgrelid::int8, tgfoid::int8 FROM pg_catalog.pg_trigger
 WHERE NOT tgisinternal AND tgenabled <> 'D' ORDER BY 1, tgname
"""
_REFERENCES: Final = """
SELECT conrelid::int8, confrelid::int8, confdeltype::text, confupdtype::text
  FROM pg_catalog.pg_constraint WHERE contype = 'f' ORDER BY oid
"""
_FUNCTIONS: Final = """
SELECT p.oid::int8, n.nspname::text, p.proname::text, p.provolatile::text, l.lanname::text,
       p.prosecdef, (p.pronargs - p.pronargdefaults - (p.provariadic <> 0)::int)::int4,
       CASE WHEN p.provariadic <> 0 THEN 100 ELSE p.pronargs END::int4,
       CASE WHEN p.oid >= 16384 AND p.prokind IN ('f', 'p') AND l.lanname IN ('sql', 'plpgsql')
            THEN pg_catalog.pg_get_functiondef(p.oid) END,
       CASE WHEN p.oid >= 16384 THEN (
            SELECT array_remove(ARRAY[a.aggtransfn::oid::int8, a.aggfinalfn::oid::int8,
                   a.aggcombinefn::oid::int8, a.aggmtransfn::oid::int8], 0)
              FROM pg_catalog.pg_aggregate a WHERE a.aggfnoid = p.oid) END
  FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
  JOIN pg_catalog.pg_language l ON l.oid = p.prolang
 WHERE p.oid::int8 >= $1
 ORDER BY 1
"""
_OPERATORS: Final = """
SELECT n.nspname::text, o.oprname::text, o.oprcode::oid::int8
  FROM pg_catalog.pg_operator o JOIN pg_catalog.pg_namespace n ON n.oid = o.oprnamespace
 WHERE o.oid >= 16384 AND o.oprcode <> 0 ORDER BY o.oid
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
    derived: list[tuple[Any, ...]],
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
    """One target's view and resolver, kept fresh."""

    def __init__(self, target: Target, refresh_s: float) -> None:
        self._target = target
        self._refresh_s = refresh_s
        self._classified = frozenset(target.classified)
        everything = _Everything() if self._classified else frozenset[str]()
        self.view = CatalogView({}, frozenset(), everything)
        self.resolve = Resolver(EMPTY)
        self._fingerprint = ""
        self._connection: Any = None
        # PostgreSQL's own objects: they change with its version alone, and so with a restart.
        self._builtin: _Builtin | None = None
        self.knowledge: Knowledge | None = None
        self._task: asyncio.Task[None] | None = None
        self._wanted = asyncio.Event()
        self._waiting: list[asyncio.Future[None]] = []
        self._looked = 0.0

    @property
    def known(self) -> bool:
        """Whether it has been read."""
        return self.resolve.snapshot.known

    def start(self) -> None:
        """Begin to read; the target need not be there yet."""
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Stop."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._disconnect()
        self._told()

    def look(self) -> asyncio.Future[None]:
        """Something may have changed. Done once that has been read, or could not be."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        self._wanted.set()
        return future

    def look_soon(self) -> None:
        """Something unknown was asked for; it may be new. Nobody waits for this."""
        if time.monotonic() - self._looked >= _SOON_S:
            self._wanted.set()

    async def _run(self) -> None:
        pause = 0.5
        while True:
            self._wanted.clear()
            waiting, self._waiting = self._waiting, []
            try:
                async with asyncio.timeout(_READ_S):
                    await self._read(bool(waiting))
                pause = self._refresh_s
            except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                _FAILED.labels(self._target.name).inc()
                log.warning("catalog_failed", target=self._target.name, error=type(error).__name__)
                await self._disconnect()
                pause = min(pause * 2, self._refresh_s)
            finally:
                self._looked = time.monotonic()
                self._told(waiting)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._wanted.wait()

    def _told(self, waiting: list[asyncio.Future[None]] | None = None) -> None:
        for future in self._waiting if waiting is None else waiting:
            if not future.done():
                future.set_result(None)

    async def _connected(self) -> Any:
        """The connection that catalogs are read by. A new one may be to another server."""
        if self._connection is None or self._connection.is_closed():
            self._builtin, self._fingerprint = None, ""
            self._connection = await connect(
                self._target,
                timeout=5,
                command_timeout=10,
                server_settings={"application_name": "gatebook-catalog"},
            )
        return self._connection

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(OSError, TimeoutError, asyncpg.InterfaceError):
                await connection.close(timeout=2)

    async def _read(self, expected: bool) -> None:
        """Read what changed. `expected`: something did, and may not be committed yet."""
        connection = await self._connected()
        fingerprint = await connection.fetchval(_FINGERPRINT)
        for pause in _COMMITTING if expected else ():
            if fingerprint != self._fingerprint:
                break
            await asyncio.sleep(pause)
            fingerprint = await connection.fetchval(_FINGERPRINT)
        if fingerprint == self._fingerprint:
            return
        rows, derived = await _rows(connection, self._builtin)
        self._builtin = _Builtin.of(rows)
        if self._classified:
            self.knowledge = await veils.read(connection)
        names = {oid: f"{schema}.{name}" for oid, schema, name, *_ in rows.relations}
        columns = [
            (oid, number, f"{names[oid]}.{column}")
            for oid, of_it, numbers, *_ in rows.columns
            if oid >= _FIRST and oid in names
            for column, number in zip(of_it, numbers, strict=True)
        ]
        snapshot, view = await asyncio.to_thread(
            lambda: (model.build(rows, fingerprint), build(columns, derived, self._classified))
        )
        self.view, self.resolve = view, Resolver(snapshot)
        self._fingerprint = fingerprint


async def read(connection: Any) -> model.Snapshot:
    """The catalog of a target, once, by an asyncpg connection of the gateway's role."""
    version = await connection.fetchval(_FINGERPRINT)
    rows, _ = await _rows(connection, None)
    return model.build(rows, version)


class _Builtin(NamedTuple):
    """Rows of PostgreSQL's own objects, which are most of a catalog."""

    relations: list[tuple[Any, ...]]
    columns: list[tuple[Any, ...]]
    functions: list[tuple[Any, ...]]

    @classmethod
    def of(cls, rows: model.Rows) -> _Builtin:
        """Those of a whole catalog."""
        return cls(
            *(
                [row for row in table if row[0] < _FIRST]
                for table in (rows.relations, rows.columns, rows.functions)
            )
        )


async def _rows(
    connection: Any, builtin: _Builtin | None
) -> tuple[model.Rows, list[tuple[Any, ...]]]:
    """The whole catalog at one moment; `builtin` are rows that need not be read again."""
    first = _FIRST if builtin is not None else 0
    path = await connection.fetchval(_PATH)
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        # Then definitions name every relation with its schema.
        await connection.execute("SET LOCAL search_path = ''")
        tables: list[list[tuple[Any, ...]]] = [
            [
                tuple(row)
                for row in await connection.fetch(query, *((first,) if "$1" in query else ()))
            ]
            for query in (
                _RELATIONS, _COLUMNS, _INHERITS, _RULES, _TRIGGERS, _REFERENCES, _FUNCTIONS,
                _OPERATORS, _DERIVED,
            )
        ]  # fmt: skip
    relations, columns, inherits, rules, triggers, references, functions, operators, derived = (
        tables
    )
    if builtin is not None:
        relations = builtin.relations + relations
        columns = builtin.columns + columns
        functions = builtin.functions + functions
    rows = model.Rows(
        relations,
        columns,
        inherits,
        rules,
        triggers,
        references,
        functions,
        operators,
        tuple(path),
    )
    return rows, derived


async def connect(target: Target, **options: Any) -> Any:
    """A connection of the gateway's role; `options` are asyncpg.connect's, whose errors it raises,
    beside SettingsError for a password that cannot be read.
    """
    return await asyncpg.connect(
        host=target.host,
        port=target.port,
        user=target.user,
        password=target.password.read(),
        database=target.database,
        ssl=tls_context(target) or False,
        **options,
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
