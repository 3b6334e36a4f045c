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
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, NamedTuple, Protocol

import asyncpg
import structlog
from prometheus_client import Counter, Gauge

from gateway import introspection
from gateway.introspection import FIRST, Rows
from gateway.journal import NotDurable
from gateway.machine import CatalogView
from gateway.masking import changes, knowledge
from gateway.masking.comments import NONE, Comments
from gateway.masking.knowledge import Knowledge
from gateway.policy import catalog as model
from gateway.policy.catalog import EMPTY
from gateway.policy.resolve import Resolver
from gateway.veils import Veils
from schemas import codec
from schemas.events import ClassificationChange, TargetClassification
from schemas.masking.applied import document
from schemas.masking.masks import SEVERITY, of_audit_copy
from schemas.settings import SettingsError, Target

_FAILED = Counter("gatebook_catalog_failures_total", "Catalog reads that failed.", ["target"])

_COMMENTS = Gauge(
    "gatebook_classifying_comments",
    "Comments `gatebook:…`: counted, faulty (they count, and mask in full) or ignored.",
    ["target", "outcome"],
)

log = structlog.get_logger("catalog")

_READ_S: Final = 30.0
_SOON_S: Final = 1.0
_RETRY_S: Final = 0.25
_FAILURES: Final = (
    OSError,
    TimeoutError,
    NotDurable,
    SettingsError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
)
# A statement that is done may not be committed yet.
_COMMITTING: Final = (0.005, 0.02, 0.1)


class _Everything(frozenset[str]):
    """Contains any name: before the catalog is known, everything may be classified."""

    def __contains__(self, item: object) -> bool:
        return True

    def __bool__(self) -> bool:
        return True


class Contents(NamedTuple):
    """A catalog as policies, the record and masking see it, of one and the same reading.

    `knowledge` is None where nothing is to be masked, and before anything is known.
    """

    resolve: Resolver
    view: CatalogView
    knowledge: Knowledge | None
    comments: Comments = NONE


class Change(NamedTuple):
    """A target's classification is another from now on. `digests` are the SHA-256 of what is
    classified, before and now.
    """

    target: str
    version: str
    digests: tuple[bytes, bytes]
    changes: list[ClassificationChange]


class Report(Protocol):
    """Where a catalog's changes go."""

    async def publish(self, digest: bytes, value: bytes) -> None:
        """A record of gatebook.classifications; done once it is durable. Raises NotDurable."""

    def changed(self, change: Change) -> None:
        """Recorded before anything is that it applies to."""


def declared(target: Target) -> TargetClassification:
    """What the configuration says is classified at a target."""
    return document(target.name, _columns(target))


def _columns(target: Target) -> dict[str, tuple[str, str]]:
    return {
        source: (column.classification, column.mask) for source, column in target.classified.items()
    }


def contents(rows: Rows, veils: Veils) -> Contents:
    """What was read of a target."""
    known = knowledge.known(rows) if veils.hides else None
    comments = veils.comments(known)
    return Contents(
        Resolver(model.build(rows)),
        build(rows, frozenset(veils.columns(comments))),
        known,
        comments,
    )


def build(rows: Rows, classified: frozenset[str]) -> CatalogView:
    """A view from the catalog's rows.

    A child table's column is classified as its parent's column of the same name, and is named
    as the parent's, so that one declaration covers all partitions.
    """
    full = {oid: f"{schema}.{name}" for oid, schema, name, *_ in rows.relations}
    columns = [
        (oid, number, f"{full[oid]}.{column}")
        for oid, of_it, numbers, *_ in rows.columns
        if oid >= FIRST and oid in full
        for column, number in zip(of_it, numbers, strict=True)
    ]
    names = {oid: full[oid] for oid, _, _ in columns}
    tables = {column.rpartition(".")[0] for column in classified}
    roots = {oid: name for oid, name in names.items() if name in tables}
    reach = dict.fromkeys(roots, True)
    parents: dict[int, str] = {}
    changed = True
    while changed:
        changed = False
        for child, source in rows.derived:
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
    places = {(oid, column.rpartition(".")[2]): number for oid, number, column in columns}
    above: dict[int, set[int]] = {}
    for child, parent in rows.inherits:
        above.setdefault(child, set()).add(parent)
    ahead = [(oid, column) for oid, _, column in columns if column in classified and oid in above]
    while ahead:
        # A parent shows its children's rows.
        oid, column = ahead.pop()
        for upper in above.get(oid, ()):
            place = places.get((upper, column.rpartition(".")[2]))
            if place is not None and known[upper, place] not in classified:
                known[upper, place] = column
                reached.add(names[upper])
                ahead.append((upper, column))
    bare = {name.rpartition(".")[2] for name in reached | tables}
    return CatalogView(known, frozenset(names), frozenset(reached | tables | bare))


class Audited:
    """What is classified at a target as the audit copy is to know it, and what was said of that.

    Within one process it only grows, whichever catalogs of the target come and go: what began
    before a change may still come to be recorded after it. `classification` is its SHA-256, empty
    where nothing is classified.
    """

    def __init__(self, name: str, columns: Mapping[str, tuple[str, str]] = MappingProxyType({})):
        """`columns` are those whose record is published before anything is recorded."""
        self._name = name
        self._columns = dict(columns)
        self._growing = asyncio.Lock()
        self.classification = self.document()[0] if columns else b""
        self.said: changes.Said = {}
        self.reported = b""

    def document(self) -> tuple[bytes, bytes]:
        """(SHA-256, record)."""
        return self._document(self._columns)

    def _document(self, columns: dict[str, tuple[str, str]]) -> tuple[bytes, bytes]:
        return codec.encode_classification(document(self._name, columns))

    async def grow(
        self, columns: Mapping[str, tuple[str, str]], report: Report | None = None
    ) -> None:
        """These are classified, too, from when that is in the book on. Raises NotDurable."""
        async with self._growing:
            grown = dict(self._columns)
            for source, (classification, mask) in columns.items():
                known = grown.get(source)
                if known is None or _severity(mask) > _severity(known[1]):
                    grown[source] = classification, mask
            if grown != self._columns:
                digest, value = self._document(grown)
                if report is not None:
                    await report.publish(digest, value)
                self._columns, self.classification = grown, digest


class Catalog:
    """One target's view and resolver, kept fresh.

    One that comes after another of the same name goes on with its `audited`, and is used after
    `declare`.
    """

    def __init__(
        self,
        target: Target,
        refresh_s: float,
        report: Report | None = None,
        audited: Audited | None = None,
    ) -> None:
        self._target = target
        self._refresh_s = refresh_s
        self._report = report
        self.veils = Veils(target)
        self._declared = _columns(target)
        self.audited = Audited(target.name, self._declared) if audited is None else audited
        self._retired = False
        self._successor: Catalog | None = None
        everything = _Everything() if self.veils.hides else frozenset[str]()
        self.now = Contents(Resolver(EMPTY), CatalogView({}, frozenset(), everything), None)
        self._stale = self._expected = False
        self.settling: asyncio.Future[None] | None = None
        self._version = ""
        self._connection: Any = None
        # PostgreSQL's own objects: they change with its version alone, and so with a restart.
        self._builtin: Rows | None = None
        self._task: asyncio.Task[None] | None = None
        self._wanted = asyncio.Event()
        self._waiting: list[asyncio.Future[None]] = []
        self._looked = 0.0

    @property
    def known(self) -> bool:
        """Whether it has been read."""
        return self.now.resolve.snapshot.known

    @property
    def comments_unread(self) -> bool:
        """Whether comments may classify anything that has not been read yet."""
        return self.veils.by_comments and not self.known

    @property
    def knowledge(self) -> Knowledge | None:
        """What masking needs to know; None while it is known to be out of date."""
        return None if self._stale else self.now.knowledge

    @property
    def classification(self) -> bytes:
        """SHA-256 of what is classified as the audit copy is to know it."""
        return self.audited.classification

    async def declare(self) -> None:
        """Have what the configuration classifies in the book. Raises NotDurable."""
        await self.audited.grow(self._declared, self._report)

    def start(self) -> None:
        """Begin to read; the target need not be there yet."""
        self._task = asyncio.create_task(self._run())

    def retire(self, successor: Catalog | None) -> None:
        """Read no more, at once. What is still done by it may concern a successor."""
        self._retired, self._successor = True, successor
        if self._task is not None:
            self._task.cancel()

    async def close(self) -> None:
        """Stop."""
        self._retired = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._disconnect()
        self._told()

    def look(self, for_all: bool = True, committed: bool = True) -> asyncio.Future[None]:
        """Something may have changed. Done once that has been read, or could not be.

        Until then it is `settling`, unless only the session that asks is concerned. What is not
        `committed` is expected to be in a moment.
        """
        if self._successor is not None:
            return self._successor.look(for_all, committed)
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._retired:
            future.set_result(None)
            return future
        self._waiting.append(future)
        self._expected = self._expected or not committed
        if for_all:
            self.settling = future
        self._wanted.set()
        return future

    def look_soon(self) -> None:
        """Something unknown was asked for; it may be new. Nobody waits for this."""
        if time.monotonic() - self._looked >= _SOON_S:
            self._wanted.set()

    async def _run(self) -> None:
        retry_s = _RETRY_S
        while True:
            self._wanted.clear()
            waiting, self._waiting = self._waiting, []
            expected, self._expected = self._expected, False
            try:
                async with asyncio.timeout(_READ_S):
                    await self._read(expected)
                pause, retry_s = self._refresh_s, _RETRY_S
                self._stale = False
            except _FAILURES as error:
                # Something was done that may have changed what is classified.
                self._stale = self._stale or bool(waiting)
                _FAILED.labels(self._target.name).inc()
                log.warning("catalog_failed", target=self._target.name, error=type(error).__name__)
                await self._disconnect()
                pause = retry_s = min(retry_s * 2, self._refresh_s)
            finally:
                self._looked = time.monotonic()
                self._told(waiting)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._wanted.wait()

    def _told(self, waiting: list[asyncio.Future[None]] | None = None) -> None:
        for future in self._waiting if waiting is None else waiting:
            if future is self.settling:
                self.settling = None
            if not future.done():
                future.set_result(None)

    async def _connected(self) -> Any:
        """The connection that catalogs are read by. A new one may be to another server."""
        if self._connection is None or self._connection.is_closed():
            self._builtin, self._version = None, ""
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
        version = await introspection.fingerprint(connection)
        for pause in _COMMITTING if expected else ():
            if version != self._version:
                break
            await asyncio.sleep(pause)
            version = await introspection.fingerprint(connection)
        if version == self._version:
            return
        rows = await introspection.read(connection, self._builtin)
        self._builtin = rows.builtin()
        made = await asyncio.to_thread(contents, rows, self.veils)
        await self._adopt(made, rows.version)

    async def _adopt(self, made: Contents, version: str) -> None:
        """Use it, once what it says is classified is in the book."""
        told = changes.said(self._declared, made.comments)
        audited = self.audited
        masks = made.comments.masks.items()
        columns = {source: (mask.classification, mask.name) for source, mask in masks}
        await audited.grow(columns, self._report)
        found = changes.between(audited.said, told)
        self.now, audited.said, self._version = made, told, version
        self._count(made.comments)
        if found and self._report is not None:
            # Nothing is awaited in between: it is recorded before anything that it applies to.
            digest = audited.classification
            digests, audited.reported = (audited.reported, digest), digest
            self._report.changed(Change(self._target.name, version, digests, found))
        for each in found:
            if each.reason:
                log.warning(
                    "classifying_comment",
                    target=self._target.name,
                    column=each.column,
                    change=each.change,
                    reason=each.reason,
                )

    def _count(self, comments: Comments) -> None:
        counts = {"ignored": len(comments.ignored), "faulty": len(comments.faults)}
        counts["counted"] = len(comments.masks) - counts["faulty"]
        for outcome, number in counts.items():
            _COMMENTS.labels(self._target.name, outcome).set(number)


def _severity(mask: str) -> int:
    return SEVERITY[of_audit_copy(mask)]


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
