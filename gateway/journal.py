"""The strict journal: nothing passes before Kafka has it (acks=all, idempotent).

Group commit: everything appended while one batch is in flight goes into the next, one batch in
flight, so that a thousand sessions share a round trip. An event gets its number and hash when its
batch is built; until then it can be withdrawn without a gap.

When Kafka does not answer within the deadline, waiting sessions are told so; what they asked
stays queued, within `max_bytes`, and is written when Kafka answers again. When the producer
itself fails (aiokafka cannot always go on, see docs/decisions/0004), the tail of the partition
is read back to learn what was written, and the rest goes on in a new stream.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import takewhile
from typing import Any, Final

import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError
from prometheus_client import Counter, Gauge, Histogram

from gateway.appender import Appender
from gateway.machine import Receipt
from schemas import chain, codec, topics
from schemas.chain import Chain
from schemas.codec import CodecError
from schemas.kafka import options
from schemas.settings import Journal as JournalSettings
from schemas.settings import Kafka

_BATCH_BYTES: Final = 1024 * 1024
_BATCH_EVENTS: Final = 5000
# Of an event in a batch: its envelope (schemas/chain.py) and Kafka's own fields, generously.
_OVERHEAD: Final = 512
_LARGEST: Final = topics.MAX_RECORD_BYTES - 64 * 1024
_RETRY_S: Final = (0.2, 0.5, 1.0, 2.0)
_STOP_S: Final = 1.0
_REQUEST_TIMEOUT_S: Final = 10.0

_EVENTS = Counter("gatebook_journal_events_total", "Events made durable.")
_BYTES = Counter("gatebook_journal_bytes_total", "Bytes of events made durable.")
_REJECTED = Counter("gatebook_journal_rejected_total", "Appends refused: the journal is full.")
_EXPIRED = Counter("gatebook_journal_expired_total", "Appends not durable within the deadline.")
_QUEUED = Gauge("gatebook_journal_queued_bytes", "Bytes not yet durable.")
_INCARNATIONS = Counter("gatebook_journal_streams_total", "Streams begun by this process.")
_COMMIT = Histogram(
    "gatebook_journal_commit_seconds",
    "From sending a batch to its acknowledgement.",
    buckets=(0.0005, 0.001, 0.002, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5),
)

log = structlog.get_logger("journal")

Encoded = tuple[bytes, bytes]
"""(schema SHA-256, payload) of one event."""


class NotDurable(Exception):
    """Kafka did not acknowledge in time."""


class Entry:
    """Events that become durable together, and whom to tell. `before` are its earlier parts."""

    __slots__ = ("before", "deadline", "events", "largest", "size", "state", "tell")

    def __init__(
        self,
        events: Sequence[Encoded],
        tell: Callable[[Receipt | None], None] | None,
        deadline: float,
    ) -> None:
        self.events = events
        self.tell = tell
        self.deadline = deadline
        size = largest = 0
        for _, payload in events:
            length = len(payload)
            size += length
            largest = max(largest, length)
        self.size = size
        self.largest = largest
        self.state = "queued"
        self.before: list[Entry] = []

    @property
    def accepted(self) -> bool:
        """Whether it is, or will be, in the book before all that is appended after it."""
        return self.state != "withdrawn"

    def withdraw(self) -> None:
        """Do not write it, unless it is on its way already."""
        self.tell = None
        if self.state == "queued":
            self.state = "withdrawn"
        for part in self.before:
            part.withdraw()


class Journal:
    """Appends events to one stream at a time, in one partition of gatebook.events.

    `prepare` runs with each new producer before anything else is written: it publishes schemas
    and keys. `first_event` makes the first event of each stream from the name of the stream that it
    continues, or nothing. Runs on one event loop.
    """

    def __init__(
        self,
        kafka: Kafka,
        settings: JournalSettings,
        gateway: str,
        prepare: Callable[[Journal], Any],
        first_event: Callable[[str], Encoded],
    ) -> None:
        self._options = options(kafka)
        self._settings = settings
        self._gateway = gateway
        self._prepare = prepare
        self._producer: AIOKafkaProducer | None = None
        self._appender: Appender | None = None
        self._starting: AIOKafkaProducer | None = None
        self._first_event = first_event
        self._chain = self._new_chain()
        # Made now: what this process records before Kafka answers comes after its start.
        self._first = first_event("")
        self._partition = 0
        self._queue: deque[Entry] = deque()
        self._flying: list[Entry] = []
        self._unresolved: tuple[str, int, list[tuple[Entry, int]]] | None = None
        self._tail_offset = 0
        self._bytes = 0
        self._wake = asyncio.Event()
        self._wake.set()
        self._up = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._began_ms = time.time_ns() // 1_000_000
        self._closing = False
        self._tasks: list[asyncio.Task[None]] = []
        self._last_ack = 0.0
        self._receipt = Receipt()

    @property
    def healthy(self) -> bool:
        """Kafka acknowledges: the producer is up, and nothing has waited past the deadline."""
        if self._producer is None:
            return False
        waiting = self._flying or self._queue
        return not waiting or waiting[0].deadline > time.monotonic()

    def start(self) -> None:
        """Begin; Kafka need not be there yet."""
        self._tasks = [asyncio.create_task(self._run()), asyncio.create_task(self._watch())]

    async def close(self, timeout_s: float = 10.0) -> None:
        """Write what is queued, for at most `timeout_s`, then stop."""
        self._closing = True
        self._wake.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._drop_producer()

    def append(
        self, events: Sequence[Encoded], tell: Callable[[Receipt | None], None] | None
    ) -> Entry:
        """Queue events. `tell` is called once: with a Receipt, or None when not durable in time.

        A full journal says so at once (None, from within this call), and so does one that is
        given an event too large for any record: it would be refused for ever, and everything
        after it with it.
        """
        deadline = time.monotonic() + self._settings.deadline_s
        entry = Entry(events, tell, deadline)
        if self._bytes + entry.size > self._settings.max_bytes or entry.largest > _LARGEST:
            _REJECTED.inc()
            entry.state = "withdrawn"
            if tell is not None:
                tell(None)
            return entry
        if entry.size + _OVERHEAD * len(events) > _BATCH_BYTES:
            # The last part is durable when all are: they are written in order.
            *before, last = _parts(events)
            entry = Entry(last, tell, deadline)
            entry.before = [Entry(part, None, deadline) for part in before]
        for part in (*entry.before, entry):
            self._bytes += part.size
            self._queue.append(part)
        self._idle.clear()
        self._wake.set()
        return entry

    async def publish(self, topic: str, key: bytes, value: bytes | None) -> None:
        """A record (None: a tombstone) outside the stream, acknowledged.

        Raises NotDurable after the deadline.
        """
        try:
            async with asyncio.timeout(self._settings.deadline_s):
                await self._up.wait()
                if self._producer is None:
                    raise NotDurable(topic)
                await self._producer.send_and_wait(topic, value, key=key)
        except (TimeoutError, KafkaError) as error:
            raise NotDurable(topic) from error

    async def publish_now(self, topic: str, key: bytes, value: bytes) -> None:
        """As `publish`, for `prepare`: the producer is up, and its errors are the caller's."""
        assert self._starting is not None  # noqa: S101 (narrowing)
        await self._starting.send_and_wait(topic, value, key=key)

    def _new_chain(self) -> Chain:
        _INCARNATIONS.inc()
        return Chain(f"{self._gateway}/{os.urandom(8).hex()}/0")

    # --- writing ---

    async def _run(self) -> None:
        failures = 0
        while True:
            try:
                if self._producer is None:
                    await self._connect()
                    failures = 0
                    log.info("journal_ready", stream=self._chain.stream, partition=self._partition)
                await self._wake.wait()
                self._wake.clear()
                while self._queue or self._chain.seq == 0:
                    await self._commit()
                self._idle.set()
            except Exception as error:
                # Whatever it was, a journal that has ended without a word would refuse everyone
                # for ever; what was in flight is resolved by reading it back.
                expected = isinstance(error, (KafkaError, OSError, NotDurable))
                tell = log.warning if expected else log.error
                tell("journal_interrupted", error=type(error).__name__)
                await self._drop_producer()
                self._wake.set()
                await asyncio.sleep(_RETRY_S[min(failures, len(_RETRY_S) - 1)])
                failures += 1

    async def _connect(self) -> None:
        producer = AIOKafkaProducer(
            **self._options,
            acks="all",
            enable_idempotence=True,
            max_batch_size=topics.MAX_RECORD_BYTES,
            max_request_size=topics.MAX_RECORD_BYTES + 1024 * 1024,
            request_timeout_ms=int(_REQUEST_TIMEOUT_S * 1000),
            retry_backoff_ms=50,
            metadata_max_age_ms=60_000,
        )
        try:
            await producer.start()
            self._starting = producer
            partitions = await producer.partitions_for(topics.EVENTS)
            if not partitions:
                raise NotDurable(topics.EVENTS)
            await self._prepare(self)
            if self._unresolved is not None:
                await self._resolve()
            self._partition = zlib.crc32(self._gateway.encode()) % len(partitions)
            appender = Appender(
                producer.client,
                topics.EVENTS,
                self._partition,
                timeout_s=_REQUEST_TIMEOUT_S,
                batch_bytes=topics.MAX_RECORD_BYTES,
            )
            await appender.start()
        except BaseException:
            await stopped(producer)
            raise
        self._producer, self._appender = producer, appender
        self._up.set()

    async def _drop_producer(self) -> None:
        producer, self._producer, self._appender = self._producer, None, None
        self._up.clear()
        if producer is not None:
            await stopped(producer)

    async def _commit(self) -> None:
        """Build one batch of what is queued, send it, and tell everyone."""
        assert self._appender is not None  # noqa: S101 (narrowing)
        stream, seq = self._chain.stream, self._chain.seq
        key = stream.encode()
        batch = self._appender.batch()
        append, link = batch.append, self._chain.append
        flying: list[Entry] = []
        ends: list[tuple[Entry, int]] = []
        size = number = 0
        queue = self._queue
        now = time.time_ns() // 1_000_000
        if seq == 0:
            append(number, now, key, link(*self._first), [])
            size, number = len(self._first[1]), 1
        while queue:
            entry = queue[0]
            if entry.state == "withdrawn":
                queue.popleft()
                self._bytes -= entry.size
                continue
            if flying and (size + entry.size > _BATCH_BYTES or number >= _BATCH_EVENTS):
                break
            queue.popleft()
            entry.state = "flying"
            for schema, payload in entry.events:
                added = append(number, now, key, link(schema, payload), [])
                # A batch that is full says so by returning nothing, and the event would be lost.
                assert added is not None, "an entry does not fit in a batch"  # noqa: S101
                number += 1
            size += entry.size
            flying.append(entry)
            ends.append((entry, self._chain.seq))
        if not number:
            return
        self._flying = flying
        self._unresolved = (stream, seq, ends)
        started = time.monotonic()
        offset = await self._appender.send(bytes(batch.build()), number)
        self._tail_offset = offset + number
        self._unresolved = None
        _COMMIT.observe(time.monotonic() - started)
        _EVENTS.inc(number)
        _BYTES.inc(size)
        self._landed(flying)

    def _landed(self, entries: list[Entry]) -> None:
        self._flying = []
        for entry in entries:
            self._bytes -= entry.size
            entry.state = "durable"
            tell, entry.tell = entry.tell, None
            if tell is not None:
                tell(self._receipt)

    async def _resolve(self) -> None:
        """After a failed producer: which events of the last batch are in the log?

        They are counted by reading the partition from the last acknowledged offset. What is not
        there is queued again, in a new stream; the old one ends without a gap.
        """
        assert self._unresolved is not None  # noqa: S101 (narrowing)
        stream, first, ends = self._unresolved
        last = await self._last_written(stream, first)
        landed = [entry for entry, end in ends if end <= last + 1]
        lost = [entry for entry, end in ends if end > last + 1]
        log.warning("journal_new_stream", old=stream, written=len(landed), again=len(lost))
        self._chain = self._new_chain()
        if last >= 0:
            self._first = self._first_event(stream)
        # Else nothing of the old stream is in the book, and the new one begins in its place.
        self._unresolved = None
        self._landed(landed)
        for entry in reversed(lost):
            entry.state = "queued"
            self._queue.appendleft(entry)

    async def _last_written(self, stream: str, first: int) -> int:
        """Highest seq of `stream` in the log, or first - 1."""
        partition = TopicPartition(topics.EVENTS, self._partition)
        consumer = AIOKafkaConsumer(
            **self._options,
            enable_auto_commit=False,
            # Assigning begins a reset in the background that may overtake the seek below; then
            # it must err towards reading too much.
            auto_offset_reset="earliest",
            max_partition_fetch_bytes=topics.MAX_RECORD_BYTES,
        )
        last = first - 1
        try:
            await consumer.start()
            consumer.assign([partition])
            end = (await consumer.end_offsets([partition]))[partition]
            start = self._tail_offset
            if start == 0:
                found = await consumer.offsets_for_times({partition: self._began_ms - 60_000})
                start = found[partition].offset if found[partition] else end
            consumer.seek(partition, min(start, end))
            while await consumer.position(partition) < end:
                batch = await consumer.getmany(partition, timeout_ms=1000)
                for record in batch.get(partition, []):
                    with contextlib.suppress(CodecError):
                        envelope = chain.read(record.value)
                        if envelope.stream == stream:
                            last = max(last, envelope.seq)
        finally:
            await stopped(consumer)
        return last

    # --- deadlines ---

    async def _watch(self) -> None:
        """Tell those whose deadline has passed. Entries wait in order, so the first are oldest."""
        while True:
            await asyncio.sleep(0.05)
            _QUEUED.set(self._bytes)
            now = time.monotonic()
            for waiting in (self._flying, self._queue):
                # Telling may append to the queue, so who is late is found out first.
                for entry in _late(waiting, now):
                    tell, entry.tell = entry.tell, None
                    if tell is not None:
                        _EXPIRED.inc()
                        tell(None)


def _parts(events: Sequence[Encoded]) -> list[list[Encoded]]:
    """Cut into runs that each fit in a batch, in order."""
    parts: list[list[Encoded]] = [[]]
    size = 0
    for event in events:
        size += len(event[1]) + _OVERHEAD
        if parts[-1] and size > _BATCH_BYTES:
            parts.append([])
            size = len(event[1]) + _OVERHEAD
        parts[-1].append(event)
    return parts


def _late(entries: Iterable[Entry], now: float) -> list[Entry]:
    return list(takewhile(lambda entry: entry.deadline <= now, entries))


async def stopped(client: AIOKafkaProducer | AIOKafkaConsumer) -> None:
    """Stop an aiokafka client, without waiting for a broker that does not answer."""
    try:
        async with asyncio.timeout(_STOP_S):
            await client.stop()
    except (KafkaError, OSError, TimeoutError):
        log.info("client_not_stopped_cleanly")
    except asyncio.CancelledError:
        # aiokafka cancels tasks of its own and lets that out: taken for ours, it would end
        # whoever waits for Kafka to come back.
        if (task := asyncio.current_task()) and task.cancelling():
            raise


async def publish_schemas(journal: Journal) -> None:
    """Every schema this process writes, by its SHA-256."""
    for schema in codec.CURRENT.values():
        await journal.publish_now(topics.SCHEMAS, schema.sha256, schema.text.encode())
