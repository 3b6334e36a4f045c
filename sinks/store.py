"""ClickHouse as the sink sees it: migrations, inserts, two look-ups. Blocking.

Embedded chDB by default, a server by URL, through the same client. Calls come from one thread
(sinks/clickhouse.py); readers have their own handles (sinks/reader.py).
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from uuid import UUID
from xml.sax.saxutils import escape

import clickhouse_connect
import pyarrow as pa
from clickhouse_connect.driver.exceptions import (
    ClickHouseError,
    DatabaseError,
    OperationalError,
)

from schemas.settings import ClickHouseSink
from sinks import migrate

TABLE: Final = "audit_events"
BOXES: Final = "vault_boxes"
WRAPS: Final = "vault_wraps"
ERASED: Final = "vault_erased"

VAULT: Final = "vault"
"""The `log_comment` of a connection that sees rows of the vault (`write_grants`)."""

_TRANSIENT: Final = frozenset(
    {
        75,  # CANNOT_WRITE_TO_FILE_DESCRIPTOR: the disk is full, or gone for a while
        159,  # TIMEOUT_EXCEEDED
        202,  # TOO_MANY_SIMULTANEOUS_QUERIES
        209,  # SOCKET_TIMEOUT
        210,  # NETWORK_ERROR
        241,  # MEMORY_LIMIT_EXCEEDED
        242,  # TABLE_IS_READ_ONLY
        243,  # NOT_ENOUGH_SPACE
        252,  # TOO_MANY_PARTS
        279,  # ALL_CONNECTION_TRIES_FAILED
        319,  # UNKNOWN_STATUS_OF_INSERT
        394,  # QUERY_WAS_CANCELLED
        745,  # SERVER_OVERLOADED
        999,  # KEEPER_EXCEPTION
    }
)

_INSERT: Final = {
    "async_insert": 0,  # the default is 1: acknowledged before it is stored
    "insert_deduplicate": 1,
    "deduplicate_blocks_in_dependent_materialized_views": 1,
    # A gateway with a wrong clock must not stop everyone's history.
    "max_partitions_per_insert_block": 0,
}

_IDS_PER_QUERY: Final = 4000  # 39 bytes each; max_query_size is 256 KiB


class StoreError(Exception):
    """ClickHouse refused something that will be refused again. Stops the sink.

    The text is the error's number and name: ClickHouse's own text may quote data.
    """


class StoreUnavailable(StoreError):
    """ClickHouse cannot do it now; the same call may succeed later."""


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except ClickHouseError as error:
        code = getattr(error, "code", None)
        name = getattr(error, "name", None) or type(error).__name__
        # Without a number it is no answer of ClickHouse: a refused connection, a proxy's 502.
        down = code is None and type(error) in (OperationalError, DatabaseError)
        kind = StoreUnavailable if down or code in _TRANSIENT else StoreError
        raise kind(f"ClickHouse: {code or '-'} {name}") from None


class Store:
    """The history's tables."""

    def __init__(self, client: Any, database: str, eraser: Any = None) -> None:
        """`eraser` is a client that may delete wraps, where `client` itself may not."""
        self._client = client
        self._eraser = eraser or client
        quoted = migrate.quoted(database)
        self._table = f"{quoted}.{TABLE}"
        self._boxes = f"{quoted}.{BOXES}"
        self._wraps = f"{quoted}.{WRAPS}"
        self._erased = f"{quoted}.{ERASED}"

    @classmethod
    def open(cls, settings: ClickHouseSink) -> Store:
        """Migrate and connect. Raises StoreError, migrate.MigrationError."""
        with _translated():
            if settings.url is not None:
                client = _server(settings)
                migrate.apply(client, settings.database, migrate.bundled())
                return cls(client, settings.database)
            return cls(*_embedded(settings))

    def insert(self, columns: pa.Table, token: str) -> None:
        """Write rows once per `token`: a repetition that an earlier call stored is dropped.

        Raises StoreUnavailable (whether it was stored is unknown then) or StoreError.
        """
        self._insert(self._table, columns, token)

    def insert_boxes(self, columns: pa.Table, token: str) -> None:
        """As `insert`, into vault_boxes."""
        self._insert(self._boxes, columns, token)

    def insert_wraps(self, columns: pa.Table, token: str) -> None:
        """As `insert`, into vault_wraps."""
        self._insert(self._wraps, columns, token)

    def _insert(self, table: str, columns: pa.Table, token: str) -> None:
        with _translated():
            self._client.insert_arrow(
                table, columns, settings={**_INSERT, "insert_deduplication_token": token}
            )

    def erased(self, keys: Sequence[bytes]) -> dict[bytes, int]:
        """Which of these keys were destroyed, and by which tombstone."""
        found: dict[bytes, int] = {}
        for start in range(0, len(keys), _IDS_PER_QUERY):
            ids = ",".join(f"'{UUID(bytes=key)}'" for key in keys[start : start + _IDS_PER_QUERY])
            with _translated():
                rows = self._client.query(
                    f"SELECT key_id, max(version) FROM {self._erased}"
                    f" WHERE key_id IN ({ids}) GROUP BY key_id"
                ).result_rows
            found.update((UUID(str(key)).bytes, int(version)) for key, version in rows)
        return found

    def destroy_wraps(self, erased: Mapping[bytes, int], token: str) -> None:
        """Delete wraps from the disk: of each key, those older than its tombstone; and remember.

        Returns when they are gone; may be repeated.
        """
        keys = list(erased.items())
        # First what is remembered: a wrap that is written from now on was there before.
        table = pa.table(
            {
                "key_id": pa.array([key for key, _ in keys], pa.binary(16)),
                "version": pa.array([offset for _, offset in keys], pa.uint64()),
            }
        )
        self._insert(self._erased, table, token)
        for start in range(0, len(keys), _IDS_PER_QUERY // 2):
            some = keys[start : start + _IDS_PER_QUERY // 2]
            older = ",".join(f"('{UUID(bytes=key)}',{offset})" for key, offset in some)
            ids = ",".join(f"'{UUID(bytes=key)}'" for key, _ in some)
            with _translated():
                self._eraser.command(
                    f"ALTER TABLE {self._wraps} DELETE WHERE key_id IN ({ids}) AND arrayExists("
                    f"e -> e.1 = key_id AND e.2 > version, [{older}]::Array(Tuple(UUID, UInt64)))",
                    settings={"mutations_sync": 2},
                )

    def high_water(self, topic_id: bytes, partition: int) -> dict[str, int]:
        """Highest seq of each stream that came through this partition, or through a topic
        that has since been created anew."""
        with _translated():
            rows = self._client.query(
                f"SELECT stream, max(seq) FROM {self._table} "
                "WHERE kafka_partition = {partition:UInt16} OR topic_id != {topic_id:UUID} "
                "GROUP BY stream",
                parameters={"partition": partition, "topic_id": str(UUID(bytes=topic_id))},
            ).result_rows
        return {str(stream): int(seq) for stream, seq in rows}

    def existing(
        self,
        event_ids: Sequence[bytes],
        times: Sequence[int],
        outside: tuple[bytes, int, int, int],
    ) -> set[bytes]:
        """Those of `event_ids` that are stored under another offset.

        `times` are the events' (microseconds), `outside` a range (topic id, partition, first,
        last) whose own rows do not count.
        """
        topic_id, partition, first, last = outside
        found: set[bytes] = set()
        for start in range(0, len(event_ids), _IDS_PER_QUERY):
            chunk = slice(start, start + _IDS_PER_QUERY)
            ids = ",".join(f"'{UUID(bytes=event_id)}'" for event_id in event_ids[chunk])
            with _translated():
                rows = self._client.query(
                    f"SELECT event_id FROM {self._table} "
                    f"WHERE ts >= fromUnixTimestamp64Micro({min(times[chunk])}, 'UTC') "
                    f"AND ts <= fromUnixTimestamp64Micro({max(times[chunk])}, 'UTC') "
                    f"AND event_id IN ({ids}) AND NOT (topic_id = '{UUID(bytes=topic_id)}' "
                    f"AND kafka_partition = {partition} "
                    f"AND kafka_offset BETWEEN {first} AND {last})"
                ).result_rows
            found.update(event_id.bytes for (event_id,) in rows)
        return found

    def close(self) -> None:
        if self._eraser is not self._client:
            self._eraser.close()
        self._client.close()


def _server(settings: ClickHouseSink) -> Any:
    # A session would make the server refuse concurrent queries of this client.
    return clickhouse_connect.get_client(
        dsn=settings.url,
        username=settings.username,
        password=settings.password.read() if settings.password else "",
        autogenerate_session_id=False,
    )


def _embedded(settings: ClickHouseSink) -> tuple[Any, str, Any]:
    """Migrate with every right, then open the engine again with almost none.

    Whoever can write the files can still change them: the chain and copies elsewhere detect that.
    """
    data = data_path(settings.path)
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    scratch = settings.path / "tmp"
    shutil.rmtree(scratch, ignore_errors=True)  # what a killed process left
    scratch.mkdir(mode=0o700)
    # clickhouse-connect hands each batch to the engine in a temporary file: keep the audit data
    # out of the machine's shared folder.
    tempfile.tempdir = str(scratch)
    full = clickhouse_connect.get_client(interface="chdb", path=str(data))
    try:
        migrate.apply(full, settings.database, migrate.bundled())
    finally:
        full.close()
    config = str(write_grants(settings.path, settings.database))

    def restricted(**chosen: Any) -> Any:
        return clickhouse_connect.get_client(
            interface="chdb",
            path=str(data),
            database=settings.database,
            chdb_options={"config-file": config},
            settings=chosen,
        )

    # Deleting counts as DDL; what may be deleted, the grants say.
    return restricted(allow_ddl=0), settings.database, restricted(log_comment=VAULT)


def data_path(path: Path) -> Path:
    """The engine's own folder within the sink's."""
    return path / "data"


def write_grants(path: Path, database: str) -> Path:
    """Configuration under which the engine's only user may read, append events and boxes, and
    delete wraps.

    Rows of the vault are there only for connections that say so in `log_comment`, a setting that
    readers cannot choose: the reader chooses it for whoever has the vault's token.
    """
    users, config = path / "users.xml", path / "config.xml"
    name, element = escape(migrate.quoted(database)), database
    users.write_text(
        f"""<clickhouse>
    <profiles><default/></profiles>
    <quotas><default/></quotas>
    <users><default>
        <password/>
        <networks><ip>::1</ip><ip>127.0.0.1</ip></networks>
        <profile>default</profile>
        <quota>default</quota>
        <databases><{element}>
            <{BOXES}><filter>getSetting('log_comment') = '{VAULT}'</filter></{BOXES}>
            <{WRAPS}><filter>getSetting('log_comment') = '{VAULT}'</filter></{WRAPS}>
        </{element}></databases>
        <grants>
            <query>GRANT SHOW ON *.*</query>
            <query>GRANT SELECT ON {name}.*</query>
            <query>GRANT SELECT ON system.*</query>
            <query>GRANT SELECT ON information_schema.*</query>
            <query>GRANT INSERT ON {name}.{TABLE}</query>
            <query>GRANT INSERT ON {name}.{BOXES}</query>
            <query>GRANT INSERT ON {name}.{ERASED}</query>
            <query>GRANT INSERT, ALTER DELETE ON {name}.{WRAPS}</query>
        </grants>
    </default></users>
</clickhouse>
"""
    )
    config.write_text(
        f"""<clickhouse>
    <users_config>{escape(str(users.resolve()))}</users_config>
</clickhouse>
"""
    )
    return config.resolve()
