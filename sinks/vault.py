"""The vault: gatebook.events -> vault_boxes, gatebook.keys -> vault_wraps.

Two more `Sink`s (sinks/runner.py) beside the history's, in its thread. An event has one place in
the log, so that the token of a range is all it takes to write its box once.
"""

from __future__ import annotations

from schemas.codec import Archive
from sinks.clickhouse import ClickHouse
from sinks.ranges import Range
from sinks.rows import Poison
from sinks.sealed import boxes, wraps


class _Kept:
    """A `Sink` of what a range holds of one kind."""

    def __init__(self, clickhouse: ClickHouse) -> None:
        self._clickhouse = clickhouse
        self._archive = Archive()

    async def begin(self, partition: int, topic_id: bytes) -> None:
        """Nothing to learn."""

    async def write(self, batch: Range, topic_id: bytes, token: str) -> list[Poison]:
        """Write a range. Raises SinkUnavailable."""
        return await self._clickhouse.call(lambda: self._write(batch, token))

    def _write(self, batch: Range, token: str) -> list[Poison]:
        """In the engine's thread."""
        raise NotImplementedError


class Boxes(_Kept):
    """Keeps every event that has a box."""

    def _write(self, batch: Range, token: str) -> list[Poison]:
        rows, poison = boxes(self._archive, batch.records)
        if len(rows):
            self._clickhouse.store.insert_boxes(rows, token)
        return poison


class Wraps(_Kept):
    """Keeps every wrapped data key until its tombstone, and remembers that for good."""

    def _write(self, batch: Range, token: str) -> list[Poison]:
        found, poison = wraps(self._archive, batch.records)
        kept = found.without(self._clickhouse.store.erased(found.keys()))
        if len(kept):
            self._clickhouse.store.insert_wraps(kept, token)
        if found.erased:
            self._clickhouse.store.destroy_wraps(found.erased, token)
        return poison
