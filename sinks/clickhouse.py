"""The ClickHouse sink: ranges of gatebook.masked -> rows of audit_events."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import structlog

from schemas.settings import ClickHouseSink as Settings
from sinks.metrics import Metrics
from sinks.ranges import Range
from sinks.rows import Decoder, Poison, Rows, table
from sinks.runner import SinkUnavailable
from sinks.store import Store, StoreUnavailable

log = structlog.get_logger(__name__)

T = TypeVar("T")


class ClickHouse:
    """A `Sink` (sinks/runner.py). All its work is done in one thread: the embedded engine's
    writing handle takes one call at a time, and the event loop stays free for Kafka's heartbeats.
    """

    def __init__(self, store: Store, thread: ThreadPoolExecutor, topic: str, metrics: Metrics):
        self.store = store
        self._thread = thread
        self._topic = topic
        self._metrics = metrics
        self._decoder = Decoder()
        self._high_water: dict[int, dict[str, int]] = {}

    @classmethod
    async def open(cls, settings: Settings, topic: str, metrics: Metrics) -> ClickHouse:
        """Raises StoreError, MigrationError."""
        thread = ThreadPoolExecutor(1, thread_name_prefix="clickhouse")
        loop = asyncio.get_running_loop()
        store = await loop.run_in_executor(thread, Store.open, settings)
        return cls(store, thread, topic, metrics)

    async def begin(self, partition: int, topic_id: bytes) -> None:
        """Learn which events of this partition are already stored. Raises SinkUnavailable."""

        def learn() -> None:
            self._high_water[partition] = self.store.high_water(topic_id, partition)

        await self.call(learn)

    async def write(self, batch: Range, topic_id: bytes, token: str) -> list[Poison]:
        """Insert a range; returns the records that cannot be decoded. Raises SinkUnavailable."""
        return await self.call(lambda: self._write(batch, topic_id, token))

    async def close(self) -> None:
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._thread, self.store.close)
        self._thread.shutdown()

    async def call(self, work: Callable[[], T]) -> T:
        """`work` in the thread that has the engine. Raises SinkUnavailable."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except StoreUnavailable as error:
            raise SinkUnavailable(str(error)) from None

    def _write(self, batch: Range, topic_id: bytes, token: str) -> list[Poison]:
        rows, poison = self._decoder.decode(
            (record.offset, record.value) for record in batch.records
        )
        rows, high_water = self._first_time(rows, batch, topic_id)
        if len(rows):
            self.store.insert(table(rows, self._topic, topic_id, batch.partition), token)
        self._high_water[batch.partition] = high_water
        return poison

    def _first_time(self, rows: Rows, batch: Range, topic_id: bytes) -> tuple[Rows, dict[str, int]]:
        """Without the events that are stored already, and the high-water marks after them.

        The mask processor publishes an event again when it was killed before its commit. Within
        a partition the events of a stream come in order, so that one whose seq is not above the
        stream's high-water mark is a repetition, or a dead letter that was sent in again: the
        history itself decides. Rows of the range itself do not count, so that a replay
        writes the same rows as the first attempt.
        """
        high_water = dict(self._high_water.get(batch.partition, {}))
        suspects = []
        for position, (stream, seq) in enumerate(rows.links()):
            if seq > high_water.get(stream, -1):
                high_water[stream] = seq
            else:
                suspects.append(position)
        if not suspects:
            return rows, high_water
        event_ids, times = rows.event_ids(), rows.times()
        stored = self.store.existing(
            [event_ids[position] for position in suspects],
            [times[position] for position in suspects],
            (topic_id, batch.partition, batch.first, batch.last),
        )
        fresh = set(range(len(rows))).difference(suspects)
        stored.update(event_ids[position] for position in fresh)
        repeated = set()
        for position in suspects:
            if event_ids[position] in stored:
                repeated.add(position)
            stored.add(event_ids[position])
        if repeated:
            self._metrics.duplicates(len(repeated))
            log.info("dropped repetitions", partition=batch.partition, events=len(repeated))
        return rows.without(repeated), high_water
