"""Data keys: the wraps of topic gatebook.keys on disk, the opened ones in memory.

The file only saves reading the topic again after a restart. It holds nothing that the topic does
not, opened keys least of all; deleting it, or killing the process at any moment, loses nothing.
"""

from __future__ import annotations

import sqlite3
import zlib
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import structlog
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from processors.compacted import CompactedTopic
from schemas import topics
from schemas.codec import Archive
from schemas.sealing import Opener, unwrap

log = structlog.get_logger()

RECIPIENT: Final = "mask"
"""The name that data keys are wrapped to for this processor."""

_LAYOUT: Final = "1"
_OPENED: Final = 20_000


class MissingKey(Exception):
    """The topic holds no wrap of this key: it was never written, or it was erased."""

    def __init__(self, key_id: bytes) -> None:
        super().__init__(f"no key {key_id.hex()} in {topics.KEYS}")
        self.key_id = key_id


class WrapStore:
    """Wraps by key id, and how far the topic has been read, in one SQLite file."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._file = folder / "wraps.sqlite"
        try:
            self._open()
        except sqlite3.DatabaseError as error:
            log.warning("cannot read the cache of wrapped keys; rebuilding", error=str(error))
            self.close()
            for name in (self._file, Path(f"{self._file}-wal"), Path(f"{self._file}-shm")):
                name.unlink(missing_ok=True)
            self._open()

    def _open(self) -> None:
        self._database = sqlite3.connect(self._file, isolation_level=None, timeout=30)
        # After a power cut the file may be behind or broken: both are cured from the topic.
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute("PRAGMA synchronous=OFF")
        # What was erased must not survive in a page that is free.
        self._database.execute("PRAGMA secure_delete=ON")
        self._database.execute(
            "CREATE TABLE IF NOT EXISTS wraps (key_id BLOB PRIMARY KEY, value BLOB)"
        )
        self._database.execute("CREATE TABLE IF NOT EXISTS state (name TEXT PRIMARY KEY, value)")
        problems = self._database.execute("PRAGMA quick_check(1)").fetchone()[0]
        if problems != "ok":
            raise sqlite3.DatabaseError("quick_check failed")
        if self._state("layout", "") != _LAYOUT:
            self.clear()

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def _state(self, name: str, default: Any) -> Any:
        row = self._database.execute("SELECT value FROM state WHERE name = ?", (name,)).fetchone()
        return row[0] if row else default

    def _set(self, **values: Any) -> None:
        self._database.executemany("INSERT OR REPLACE INTO state VALUES (?, ?)", values.items())

    @property
    def cluster(self) -> str:
        """The cluster the wraps are of, or empty."""
        return str(self._state("cluster", ""))

    @cluster.setter
    def cluster(self, value: str) -> None:
        self._set(cluster=value)

    @property
    def last(self) -> tuple[int, int]:
        """(offset, checksum) of the last record applied; offset -1 when there is none."""
        return int(self._state("offset", -1)), int(self._state("checksum", 0))

    def clear(self) -> None:
        """Forget everything."""
        self._database.execute("BEGIN IMMEDIATE")
        self._database.execute("DELETE FROM wraps")
        self._database.execute("DELETE FROM state")
        self._set(layout=_LAYOUT)
        self._database.execute("COMMIT")

    def apply(self, records: Sequence[Any]) -> None:
        """Take in records; one without a value erases its key."""
        self._database.execute("BEGIN IMMEDIATE")
        self._database.executemany(
            "INSERT OR REPLACE INTO wraps VALUES (?, ?)",
            [(record.key, record.value) for record in records],
        )
        # In their order: a key may be written, erased and written again.
        self._database.execute("DELETE FROM wraps WHERE value IS NULL")
        last = records[-1]
        self._set(offset=last.offset, checksum=checksum(last))
        self._database.execute("COMMIT")
        if any(record.value is None for record in records):
            # Nor in the log of the pages as they were before.
            self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def get(self, key_id: bytes) -> bytes | None:
        """A gatebook.keys value."""
        row = self._database.execute(
            "SELECT value FROM wraps WHERE key_id = ?", (key_id,)
        ).fetchone()
        return bytes(row[0]) if row else None

    def __len__(self) -> int:
        return int(self._database.execute("SELECT count(*) FROM wraps").fetchone()[0])


def checksum(record: Any) -> int:
    """Tells the record at an offset from one that a recreated topic holds there."""
    return zlib.crc32(record.value or b"", zlib.crc32(record.key or b"", record.timestamp))


class Keyring:
    """Opens data keys with the processor's private key."""

    def __init__(
        self,
        store: WrapStore,
        archive: Archive,
        private: X25519PrivateKey,
        client: dict[str, Any],
    ) -> None:
        self._store = store
        self._archive = archive
        self._private = private
        self._topic = CompactedTopic(topics.KEYS, client, self._apply)
        self._opened: OrderedDict[bytes, Opener] = OrderedDict()
        self._check: tuple[int, int] | None = None
        self._complete = False
        """Whether this process has read the topic from its beginning."""

    async def start(self, cluster: str) -> None:
        """Read the topic to its end, from where the file has got to if it is of this topic."""
        end = await self._topic.start()
        last, _ = self._store.last
        if self._store.cluster != cluster or last >= end:
            self._forget()
            self._store.cluster = cluster
        else:
            self._check = self._store.last
            # Once more the last record: is it still the one that was read?
            self._topic.seek(max(last, 0))
            self._complete = last < 0
        await self._topic.catch_up()

    async def stop(self) -> None:
        """Disconnect, and close the file."""
        await self._topic.stop()
        self._store.close()

    async def catch_up(self) -> None:
        """Read what has been added to the topic."""
        await self._topic.catch_up()

    async def verify(self) -> None:
        """Read the whole topic once in a process's life: what is missing then is not there.

        The file may be of an earlier topic of that name, which nothing showed so far.
        """
        if not self._complete:
            cluster = self._store.cluster
            self._forget()
            self._store.cluster = cluster
            await self._topic.catch_up()

    def __contains__(self, key_id: bytes) -> bool:
        return self._store.get(key_id) is not None

    def opener(self, key_id: bytes) -> Opener:
        """Raises MissingKey, SealingError, CodecError."""
        opener = self._opened.get(key_id)
        if opener is None:
            value = self._store.get(key_id)
            if value is None:
                raise MissingKey(key_id)
            key = unwrap(self._archive.decode_wraps(value), RECIPIENT, self._private)
            opener = self._opened[key_id] = Opener(key)
            if len(self._opened) > _OPENED:
                self._opened.popitem(last=False)
        return opener

    def __len__(self) -> int:
        return len(self._store)

    def _forget(self) -> None:
        self._store.clear()
        self._opened.clear()
        self._check = None
        self._topic.seek(0)
        self._complete = True

    def _apply(self, records: Sequence[Any]) -> None:
        if self._check is not None:
            offset, known = self._check
            self._check = None
            if records[0].offset == offset and checksum(records[0]) != known:
                log.warning("topic was recreated; reading it from its beginning", topic=topics.KEYS)
                cluster = self._store.cluster
                self._forget()
                self._store.cluster = cluster
                return
        self._store.apply(records)
        for record in records:
            if record.value is None:
                self._opened.pop(record.key, None)
