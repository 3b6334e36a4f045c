"""The loop that carries gatebook.masked into a sink, exactly once.

    fetch -> cut into ranges -> persist the ranges -> write -> commit

(sinks/ranges.py says why.) A sink that is unavailable is retried with nothing committed. A
record that cannot be decoded goes to gatebook.dead-letters. Any other error stops the process;
its supervisor starts it again, and the persisted ranges make the repetition harmless.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Protocol

import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import (
    CommitFailedError,
    IllegalStateError,
    KafkaError,
    UnknownTopicOrPartitionError,
)

from schemas.topics import DEAD_LETTERS, MAX_RECORD_BYTES
from sinks.kafka import topic_identity
from sinks.metrics import Metrics
from sinks.ranges import Note, Pending, Range
from sinks.rows import Poison
from sinks.soundness import assigned_all, check

log = structlog.get_logger(__name__)

_FIRST_RETRY_S: Final = 0.1
_LAST_RETRY_S: Final = 5.0
_IDLE_S: Final = 0.5
_BATCH_BYTES: Final = 32 * 1024 * 1024
"""Bytes of one insert at most: 10,000 chunks of rows would be gigabytes."""
_FETCH_BYTES: Final = 8 * 1024 * 1024
_STOP_S: Final = 60.0
"""More than a request to Kafka may take (40 s)."""


class SinkUnavailable(Exception):
    """The sink cannot write now; the same write may succeed later."""


class TopicChanged(Exception):
    """The topic was deleted and created anew while we read it. Start again."""


class Sink(Protocol):
    """An idempotent write."""

    async def begin(self, partition: int, topic_id: bytes) -> None:
        """A partition was assigned. Raises SinkUnavailable."""
        ...

    async def write(self, batch: Range, topic_id: bytes, token: str) -> list[Poison]:
        """Write `batch` once per `token`; returns what cannot be decoded. Raises SinkUnavailable,
        after which the same call is made again."""
        ...


class Runner(ConsumerRebalanceListener):  # type: ignore[misc] # aiokafka ships no types
    """Reads one topic in one consumer group."""

    def __init__(
        self,
        sink: Sink,
        metrics: Metrics,
        *,
        kafka: dict[str, Any],
        topic: str,
        group_id: str,
        batch_rows: int,
        linger_s: float,
        instance: str | None = None,
    ) -> None:
        """`instance` names the only process that may run under it: when it was killed, its
        successor takes its partitions at once, not after the session's timeout.
        """
        self._sink = sink
        self._metrics = metrics
        self._topic = topic
        self._group_id = group_id
        self._alone = instance is not None
        self._linger_s = linger_s
        self._batch_rows = batch_rows
        self._pending = Pending(batch_rows, _BATCH_BYTES)
        self._consumer = AIOKafkaConsumer(
            **kafka,
            group_id=group_id,
            group_instance_id=instance,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            max_partition_fetch_bytes=_FETCH_BYTES,
        )
        self._producer = AIOKafkaProducer(
            **kafka, acks="all", enable_idempotence=True, max_request_size=2 * MAX_RECORD_BYTES
        )
        self._admin = AIOKafkaAdminClient(**kafka)
        self._cluster = ""
        self._topic_id = b""
        # Held while ranges are written: a rebalance waits until they are, or until the sink
        # turned out to be unavailable.
        self._writing = asyncio.Lock()
        self._rebalancing = False
        # aiokafka hands out records of new partitions while `on_partitions_assigned` still runs,
        # and swallows what that raises: nothing is read before it has ended.
        self._assigned = asyncio.Event()
        self._failure: Exception | None = None
        self._generation = self._reading = 0
        self._starts: dict[TopicPartition, tuple[int | None, tuple[int, int] | None]] = {}
        self._stopping = asyncio.Event()
        self._first_at: float | None = None

    def stop(self) -> None:
        """Finish what is being written, then end."""
        self._stopping.set()
        self._assigned.set()

    async def run(self) -> None:
        """Until `stop`. Raises whatever is no mere unavailability of the sink."""
        try:
            await self._admin.start()
            await self._producer.start()
            if not await self._topic_exists():
                return
            self._consumer.subscribe([self._topic], listener=self)
            await self._consumer.start()
            while not self._stopping.is_set():
                await self._step()
        finally:
            self._metrics.ready(False)
            for stop in (self._consumer.stop, self._producer.stop, self._admin.close):
                await _stopped(stop)

    async def _step(self) -> None:
        check(self._consumer)
        if not await _within(self._assigned, _IDLE_S):
            return
        if self._failure is not None:
            raise self._failure
        if self._reading != self._generation and not await self._start_reading():
            await self._stopped_within(_FIRST_RETRY_S)
            return
        wait = _IDLE_S
        if self._first_at is not None:
            wait = max(0.0, self._first_at + self._linger_s - time.monotonic())
        if wait and not self._pending.full:
            fetched = await self._consumer.getmany(
                timeout_ms=int(wait * 1000) + 1, max_records=4 * self._batch_rows
            )
            if self._reading != self._generation or not self._assigned.is_set():
                # Whether they were fetched before a rebalance or after it, nobody can say.
                return
            for partition, records in fetched.items():
                self._pending.add(partition.partition, records)
            if fetched and self._first_at is None:
                self._first_at = time.monotonic()
        due = self._first_at is not None and time.monotonic() >= self._first_at + self._linger_s
        if due or self._pending.full:
            async with self._writing:
                await self._flush()

    async def _flush(self) -> None:
        try:
            positions = await self._positions()
            ranges = self._pending.take(positions)
            self._first_at = None if self._pending.empty else time.monotonic()
            if not ranges:
                return
            # Between fetching and here the topic may have been created anew.
            if (await self._identity())[1] != self._topic_id:
                raise TopicChanged(self._topic)
            intents = {
                self._partition(batch.partition): (
                    batch.first,
                    Note(self._topic_id, batch.last).text(),
                )
                for batch in ranges
                if not batch.replayed
            }
            if intents:
                await self._consumer.commit(intents)
            for batch in ranges:
                if not await self._write(batch):
                    return
            done = Note(self._topic_id).text()
            await self._consumer.commit(
                {self._partition(batch.partition): (batch.last + 1, done) for batch in ranges}
            )
        except (CommitFailedError, IllegalStateError):
            # The partitions are another member's now. What was persisted, it replays under the
            # same names; what was not persisted was not written.
            log.info("partitions lost while writing")
            self._forget()
            return
        for batch in ranges:
            self._metrics.written(batch.partition, len(batch.records), batch.replayed)
            self._observe_lag(batch)

    async def _write(self, batch: Range) -> bool:
        """False when the range was given up because the partitions are being taken away."""
        token = batch.token(self._cluster, self._topic_id)
        delay = _FIRST_RETRY_S
        while True:
            try:
                poison = await self._sink.write(batch, self._topic_id, token)
                break
            except SinkUnavailable as error:
                self._metrics.unavailable()
                log.warning("sink unavailable", error=str(error), retry_in_s=delay)
            if self._rebalancing or await self._stopped_within(delay):
                self._forget()
                return False
            delay = min(2 * delay, _LAST_RETRY_S)
        self._metrics.ready(True)
        if poison:
            await self._bury(batch, poison)
        return True

    async def _bury(self, batch: Range, poison: Sequence[Poison]) -> None:
        """Dead letters before the commit: written again after a crash, but never lost."""
        records = {record.offset: record for record in batch.records}
        for item in poison:
            record = records[item.offset]
            await self._producer.send_and_wait(
                DEAD_LETTERS,
                record.value,
                key=f"{self._topic}/{batch.partition}/{item.offset}".encode(),
                timestamp_ms=record.timestamp,
                headers=[
                    ("gatebook-stage", b"clickhouse"),
                    ("gatebook-error", b"CodecError"),
                    ("gatebook-reason", item.reason.encode()),
                    ("gatebook-topic", self._topic.encode()),
                    ("gatebook-partition", str(batch.partition).encode()),
                    ("gatebook-offset", str(item.offset).encode()),
                ],
            )
            self._metrics.buried()
            log.error(
                "dead letter", partition=batch.partition, offset=item.offset, error=item.reason
            )

    async def _start_reading(self) -> bool:
        """Read the partitions of now from what is committed, whatever was fetched of them before.

        False when they were taken away meanwhile.
        """
        generation = self._generation
        self._forget()
        for partition, (offset, replay) in self._starts.items():
            try:
                if offset is None:
                    await self._consumer.seek_to_beginning(partition)
                else:
                    self._consumer.seek(partition, offset)
            except IllegalStateError:
                return False
            self._pending.assign(partition.partition, replay)
        self._reading = generation
        return True

    def _forget(self) -> None:
        self._pending.clear()
        self._first_at = None

    async def _stopped_within(self, seconds: float) -> bool:
        return await _within(self._stopping, seconds)

    def _partition(self, number: int) -> TopicPartition:
        return TopicPartition(self._topic, number)

    async def _topic_exists(self) -> bool:
        """Wait for the topic; False when stopped before it was created."""
        delay = _FIRST_RETRY_S
        while True:
            try:
                self._cluster, self._topic_id = await self._identity()
                return True
            except UnknownTopicOrPartitionError:
                log.warning("no such topic yet", topic=self._topic, retry_in_s=delay)
            if await self._stopped_within(delay):
                return False
            delay = min(2 * delay, _LAST_RETRY_S)

    async def _identity(self) -> tuple[str, bytes]:
        return await topic_identity(self._admin, self._topic)

    async def _positions(self) -> dict[int, int]:
        return {
            partition.partition: await self._consumer.position(partition)
            for partition in self._consumer.assignment()
        }

    def _observe_lag(self, batch: Range) -> None:
        end = self._consumer.highwater(self._partition(batch.partition))
        if end is not None:
            self._metrics.lag(batch.partition, max(0, end - batch.last - 1))

    # ConsumerRebalanceListener

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        """Wait for what is being written; drop what is not."""
        self._rebalancing = True
        self._assigned.clear()
        async with self._writing:
            self._forget()
        self._metrics.ready(False)

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        """Take up the ranges that were persisted and not committed."""
        self._rebalancing = False
        try:
            await self._take_up(assigned)
        except Exception as error:
            self._failure = error
        self._generation += 1
        self._assigned.set()

    async def _take_up(self, assigned: set[TopicPartition]) -> None:
        committed = await self._committed()
        replayed = 0
        self._starts = {}
        for partition in sorted(assigned):
            offset, note = committed.get(partition, (None, None))
            replay = None
            if note is not None and note.topic_id != self._topic_id:
                # Offsets of a topic that is no more.
                offset = None
            elif offset is not None and note is not None and note.last is not None:
                replay = (offset, note.last)
                replayed += 1
            self._starts[partition] = (offset, replay)
            await self._begin(partition.partition)
        numbers = {partition.partition for partition in assigned}
        log.info("assigned", topic=self._topic, partitions=sorted(numbers), replayed=replayed)
        if self._alone and not await assigned_all(self._consumer, self._topic, numbers):
            log.warning("not all partitions: joining anew", topic=self._topic)
            await self._stopped_within(_FIRST_RETRY_S)
            return
        self._metrics.ready(True)

    async def _begin(self, partition: int) -> None:
        delay = _FIRST_RETRY_S
        while True:
            try:
                await self._sink.begin(partition, self._topic_id)
                return
            except SinkUnavailable as error:
                self._metrics.unavailable()
                log.warning("sink unavailable", error=str(error), retry_in_s=delay)
            if await self._stopped_within(delay):
                return
            delay = min(2 * delay, _LAST_RETRY_S)

    async def _committed(self) -> dict[TopicPartition, tuple[int, Note | None]]:
        delay = _FIRST_RETRY_S
        while True:
            try:
                found = await self._admin.list_consumer_group_offsets(self._group_id)
                break
            except KafkaError as error:
                # A new cluster's first group waits for the offsets topic.
                if not error.retriable:
                    raise
            await asyncio.sleep(delay)
            delay = min(2 * delay, _LAST_RETRY_S)
        return {
            partition: (entry.offset, Note.parse(entry.metadata))
            for partition, entry in found.items()
            if partition.topic == self._topic
        }


async def _within(event: asyncio.Event, seconds: float) -> bool:
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return False
    return True


async def _stopped(stop: Callable[[], Awaitable[object]]) -> None:
    try:
        # One whose tasks wait for each other must not keep its successor from starting.
        async with asyncio.timeout(_STOP_S):
            await stop()
    except (KafkaError, OSError) as error:
        log.info("a client did not stop cleanly", error=type(error).__name__)
    except asyncio.CancelledError:
        # aiokafka cancels tasks of its own and lets that out; the error that ended the run is
        # the one to report, and an outage must not end the process.
        if (task := asyncio.current_task()) and task.cancelling():
            raise
