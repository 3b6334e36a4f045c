"""Kafka -> ClickHouse with both of them real."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from schemas.events import Masked
from schemas.settings import ClickHouseSink
from schemas.topics import DEAD_LETTERS
from sinks.clickhouse import ClickHouse
from sinks.metrics import Metrics
from sinks.ranges import Note, Range
from sinks.rows import Poison
from sinks.runner import Runner, SinkUnavailable, TopicChanged, _stopped
from tests.sinks.recorded import Stream, context, encode, many

pytestmark = pytest.mark.integration

PARTITIONS = 3


class Bench:
    """A topic of its own, a sink on it, and what a test does to them."""

    def __init__(self, kafka: str, chosen: ClickHouseSink) -> None:
        self.kafka = kafka
        self.chosen = chosen
        self.topic = f"masked-{uuid4()}"
        self.group = f"group-{uuid4()}"
        self.admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
        self.metrics = Metrics("clickhouse")

    async def create(self) -> None:
        await self.admin.create_topics([NewTopic(self.topic, PARTITIONS, 1)])

    async def publish(self, values: Iterable[bytes], partition: int | None = None) -> None:
        """Values to the partitions in turn, or all to one."""
        producer = AIOKafkaProducer(
            bootstrap_servers=self.kafka, linger_ms=5, max_request_size=8_000_000
        )
        await producer.start()
        sent = [
            await producer.send(
                self.topic, value, partition=number % PARTITIONS if partition is None else partition
            )
            for number, value in enumerate(values)
        ]
        await asyncio.gather(*sent)
        await producer.stop()

    async def events(self, events: Iterable[Masked], partition: int | None = None) -> None:
        await self.publish([encode(event) for event in events], partition)

    @asynccontextmanager
    async def sink(self) -> AsyncIterator[ClickHouse]:
        sink = await ClickHouse.open(self.chosen, self.topic, self.metrics)
        try:
            yield sink
        finally:
            await sink.close()

    def runner(self, sink: Any, **changes: Any) -> Runner:
        return Runner(
            sink,
            self.metrics,
            kafka={"bootstrap_servers": self.kafka},
            topic=self.topic,
            group_id=self.group,
            **{"batch_rows": 500, "linger_s": 0.05, **changes},
        )

    async def committed(self) -> dict[int, tuple[int, str]]:
        found = await self.admin.list_consumer_group_offsets(self.group)
        return {
            partition.partition: (entry.offset, entry.metadata)
            for partition, entry in found.items()
        }

    def ready(self) -> bool:
        return all(self.metrics._ready.values())


@pytest.fixture
async def bench(kafka: str, chosen: ClickHouseSink) -> AsyncIterator[Bench]:
    made = Bench(kafka, chosen)
    await made.admin.start()
    await made.create()
    yield made
    await made.admin.close()


async def ask(sink: ClickHouse, sql: str) -> list[tuple[Any, ...]]:
    def query() -> list[tuple[Any, ...]]:
        return list(sink.store._client.query(sql).result_rows)

    return await asyncio.get_running_loop().run_in_executor(sink._thread, query)


async def until(holds: Callable[[], Awaitable[bool]], task: asyncio.Task[None]) -> None:
    """Wait for a condition while `task` runs; a task that ended first is an error."""
    async with asyncio.timeout(60):
        while not await holds():
            if task.done():
                await task
                raise AssertionError("the runner ended")
            await asyncio.sleep(0.02)


async def run_until(runner: Runner, holds: Callable[[], Awaitable[bool]]) -> None:
    """Run until the condition holds, then stop in order."""
    task = asyncio.create_task(runner.run())
    try:
        await until(holds, task)
    finally:
        runner.stop()
    await task


def counted(sink: ClickHouse, count: int) -> Callable[[], Awaitable[bool]]:
    async def holds() -> bool:
        return await ask(sink, "SELECT count() FROM audit_events") == [(count,)]

    return holds


async def exactly(sink: ClickHouse, count: int) -> None:
    counts = "SELECT count(), uniqExact(event_id) FROM audit_events"
    assert await ask(sink, counts) == [(count, count)]
    assert await ask(sink, "SELECT sum(missing), sum(dup) FROM offset_gaps") == [(0, 0)]


async def test_everything_is_stored_once_and_committed(bench: Bench) -> None:
    await bench.events(many(1000, "gateway-1/a/0"))
    async with bench.sink() as sink:
        runner = bench.runner(sink)
        await run_until(runner, counted(sink, 4000))
        await exactly(sink, 4000)
    committed = await bench.committed()
    assert sum(offset for offset, _ in committed.values()) == 4000
    notes = [Note.parse(metadata) for _, metadata in committed.values()]
    assert all(note is not None and note.last is None for note in notes)


async def test_a_second_run_goes_on_where_the_first_ended(bench: Bench) -> None:
    await bench.events(many(50, "gateway-1/a/0"))
    async with bench.sink() as sink:
        await run_until(bench.runner(sink), counted(sink, 200))
        await bench.events(many(50, "gateway-1/b/0"))
        await run_until(bench.runner(sink), counted(sink, 400))
        await exactly(sink, 400)


class Killed(Exception):
    """Stands for the process ending at this point."""


class Dying:
    """The real sink, and a process that dies at its nth write: before it or after it."""

    def __init__(self, sink: ClickHouse, at: int, *, after: bool) -> None:
        self._sink, self._left, self._after = sink, at, after
        self.begin = sink.begin

    async def write(self, batch: Range, topic_id: bytes, token: str) -> list[Poison]:
        self._left -= 1
        if self._left == 0:
            if self._after:
                await self._sink.write(batch, topic_id, token)
            raise Killed
        return await self._sink.write(batch, topic_id, token)


@pytest.mark.parametrize("after", [False, True])
async def test_a_range_that_a_crash_interrupted_is_written_under_its_old_name(
    bench: Bench, after: bool
) -> None:
    await bench.events(many(500, "gateway-1/a/0"))
    async with bench.sink() as sink:
        for at in (1, 2, 3):
            with pytest.raises(Killed):
                await bench.runner(Dying(sink, at, after=after), batch_rows=100 * at).run()
        pending = [Note.parse(metadata) for _, metadata in (await bench.committed()).values()]
        assert any(note is not None and note.last is not None for note in pending)
        # Other limits, and more records than there were: the old ranges stay what they were.
        await bench.events(many(500, "gateway-1/b/0"))
        await run_until(bench.runner(sink, batch_rows=37), counted(sink, 4000))
        await exactly(sink, 4000)


async def test_events_that_the_processor_publishes_again_are_stored_once(bench: Bench) -> None:
    events = many(200, "gateway-1/a/0")
    async with bench.sink() as sink:
        await bench.events(events[:600], partition=0)
        await run_until(bench.runner(sink), counted(sink, 600))
        # It was killed before its commit: the same events, and then new ones.
        await bench.events([*events[400:], *events[700:]], partition=0)
        await run_until(bench.runner(sink), counted(sink, 800))
        counts = "SELECT count(), uniqExact(event_id) FROM audit_events"
        assert await ask(sink, counts) == [(800, 800)]
        assert await ask(sink, "SELECT missing, duplicates FROM chain_gaps") == [(0, 0)]


async def test_a_repetition_in_one_batch_is_stored_once(bench: Bench) -> None:
    events = many(20, "gateway-1/a/0")
    await bench.events([*events, *events[40:], *events], partition=1)
    async with bench.sink() as sink:
        await run_until(bench.runner(sink), counted(sink, 80))
        counts = "SELECT count(), uniqExact(event_id) FROM audit_events"
        assert await ask(sink, counts) == [(80, 80)]


async def test_an_event_that_comes_late_is_stored(bench: Bench) -> None:
    # A dead letter of the processor, repaired and sent in again.
    events = many(20, "gateway-1/a/0")
    async with bench.sink() as sink:
        await bench.events([event for event in events if event.seq != 7], partition=0)
        await run_until(bench.runner(sink), counted(sink, 79))
        await bench.events([events[7]], partition=0)
        await run_until(bench.runner(sink), counted(sink, 80))
        assert await ask(sink, "SELECT missing, duplicates FROM chain_gaps") == [(0, 0)]


async def test_poison_goes_to_the_dead_letters_with_its_bytes(bench: Bench) -> None:
    good = encode(Stream().event("Requested", context()))
    garbage = [b"garbage", good + b"\0", b""]
    await bench.publish([good, *garbage, good], partition=0)
    consumer = AIOKafkaConsumer(bootstrap_servers=bench.kafka)
    await consumer.start()
    letters = TopicPartition(DEAD_LETTERS, 0)
    consumer.assign([letters])
    await consumer.seek_to_end(letters)
    async with bench.sink() as sink:
        await run_until(bench.runner(sink), lambda: done(bench, 5))
        assert await ask(sink, "SELECT count() FROM audit_events") == [(1,)]
    found = [await asyncio.wait_for(consumer.getone(), 20) for _ in garbage]
    await consumer.stop()
    assert [record.value for record in found] == garbage
    assert [record.key for record in found] == [
        f"{bench.topic}/0/{offset}".encode() for offset in (1, 2, 3)
    ]
    headers = dict(found[0].headers)
    assert headers["gatebook-stage"] == b"clickhouse"
    assert headers["gatebook-topic"] == bench.topic.encode()
    assert headers["gatebook-offset"] == b"1"


async def done(bench: Bench, offsets: int) -> bool:
    return sum(
        offset
        for offset, metadata in (await bench.committed()).values()
        if metadata.endswith(" -")
    ) == offsets  # fmt: skip


class Down:
    """The real sink behind a ClickHouse that refuses a number of calls."""

    def __init__(self, sink: ClickHouse, refusals: int) -> None:
        self._sink, self.refusals = sink, refusals
        self.begin = sink.begin

    async def write(self, batch: Range, topic_id: bytes, token: str) -> list[Poison]:
        if self.refusals:
            self.refusals -= 1
            raise SinkUnavailable("down")
        return await self._sink.write(batch, topic_id, token)


async def test_while_clickhouse_is_down_nothing_is_committed_and_it_says_so(bench: Bench) -> None:
    await bench.events(many(50, "gateway-1/a/0"))
    async with bench.sink() as sink:
        down = Down(sink, 1_000_000)
        runner = bench.runner(down)
        task = asyncio.create_task(runner.run())

        async def refused() -> bool:
            return down.refusals < 1_000_000

        await until(refused, task)
        assert not bench.ready()
        assert not await done(bench, 200)
        down.refusals = 0
        await until(counted(sink, 200), task)
        assert bench.ready()
        runner.stop()
        await task
        await exactly(sink, 200)


async def test_it_stops_while_clickhouse_is_down(bench: Bench) -> None:
    await bench.events(many(50, "gateway-1/a/0"))
    async with bench.sink() as sink:
        down = Down(sink, 1_000_000)
        runner = bench.runner(down)
        task = asyncio.create_task(runner.run())

        async def refused() -> bool:
            return down.refusals < 999_998

        await until(refused, task)
        runner.stop()
        await asyncio.wait_for(task, 20)
        await run_until(bench.runner(sink), counted(sink, 200))
        await exactly(sink, 200)


async def test_a_topic_that_is_created_anew_is_read_from_its_beginning(bench: Bench) -> None:
    await bench.events(many(50, "gateway-1/a/0"))
    async with bench.sink() as sink:
        await run_until(bench.runner(sink), counted(sink, 200))
        before = await bench.committed()
        await bench.admin.delete_topics([bench.topic])
        await recreate(bench)
        # The same offsets of the new topic hold other events.
        await bench.events(many(60, "gateway-1/b/0"))
        await put_back(bench, before)
        await run_until(bench.runner(sink), counted(sink, 440))
        counts = "SELECT count(), uniqExact(event_id), uniqExact(topic_id) FROM audit_events"
        assert await ask(sink, counts) == [(440, 440, 2)]


async def test_a_topic_that_is_filled_again_with_the_same_events_adds_nothing(
    bench: Bench,
) -> None:
    events = many(50, "gateway-1/a/0")
    await bench.events(events)
    async with bench.sink() as sink:
        await run_until(bench.runner(sink), counted(sink, 200))
        await bench.admin.delete_topics([bench.topic])
        await recreate(bench)
        # The mask processor starts from the first event again.
        await bench.events([*events, *many(5, "gateway-1/b/0")])
        await run_until(bench.runner(sink), counted(sink, 220))
        counts = "SELECT count(), uniqExact(event_id) FROM audit_events"
        assert await ask(sink, counts) == [(220, 220)]


async def test_a_topic_that_changes_under_way_stops_the_runner(bench: Bench) -> None:
    await bench.events(many(50, "gateway-1/a/0"))
    async with bench.sink() as sink:
        runner = bench.runner(sink)
        identity = runner._identity
        asked = 0

        async def another_each_time() -> tuple[str, bytes]:
            nonlocal asked
            asked += 1
            return (await identity())[0], bytes(15) + bytes([asked])

        runner._identity = another_each_time  # type: ignore[method-assign]
        with pytest.raises(TopicChanged):
            await asyncio.wait_for(runner.run(), 60)
        assert await ask(sink, "SELECT count() FROM audit_events") == [(0,)]


async def recreate(bench: Bench) -> None:
    from aiokafka.errors import TopicAlreadyExistsError, for_code

    while True:
        response = await bench.admin.create_topics([NewTopic(bench.topic, PARTITIONS, 1)])
        code = response.topic_errors[0][1]
        if code == 0:
            return
        assert for_code(code) is TopicAlreadyExistsError
        await asyncio.sleep(0.02)


async def put_back(bench: Bench, offsets: dict[int, tuple[int, str]]) -> None:
    """Commit the old topic's offsets in the new one, as a broker does that did not forget them."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bench.kafka, group_id=bench.group, enable_auto_commit=False
    )
    consumer.subscribe([bench.topic])
    await consumer.start()
    while len(consumer.assignment()) < PARTITIONS:
        await consumer.getmany(timeout_ms=100)
    await consumer.commit({TopicPartition(bench.topic, p): entry for p, entry in offsets.items()})
    await consumer.stop()


async def test_two_members_share_the_partitions_and_store_everything_once(bench: Bench) -> None:
    async with bench.sink() as sink:
        one, two = bench.runner(sink, batch_rows=50), bench.runner(sink, batch_rows=70)
        first = asyncio.create_task(one.run())
        await bench.events(many(500, "gateway-1/a/0"))
        second = asyncio.create_task(two.run())
        await bench.events(many(500, "gateway-1/b/0"))
        await until(counted(sink, 4000), first)
        two.stop()
        await second
        await bench.events(many(250, "gateway-1/c/0"))
        await until(counted(sink, 5000), first)
        one.stop()
        await first
        await exactly(sink, 5000)


async def test_a_large_response_is_one_row(bench: Bench) -> None:
    stream = Stream()
    rows = '[{"x": "' + "y" * 700_000 + '"}]'
    for _ in range(5):
        stream.event("Responded", context(), response_rows=rows)
    await bench.events(stream.events)
    async with bench.sink() as sink:
        await run_until(bench.runner(sink), counted(sink, 5))
        assert await ask(sink, "SELECT min(length(rows)) FROM responses") == [(len(rows),)]


async def test_light_load_becomes_visible_quickly(bench: Bench) -> None:
    stream = Stream()
    async with bench.sink() as sink:
        runner = bench.runner(sink, linger_s=0.25)
        task = asyncio.create_task(runner.run())
        loop = asyncio.get_running_loop()
        await bench.events([stream.event("SessionOpened", context())], partition=0)
        await until(counted(sink, 1), task)
        delays = []
        for number in range(10):
            event = stream.event("Requested", context())
            await bench.events([event], partition=number % PARTITIONS)
            sent = loop.time()
            await until(counted(sink, number + 2), task)
            delays.append(loop.time() - sent)
        runner.stop()
        await task
        assert max(delays) < 1.5, delays


async def _leaks_a_cancellation() -> None:
    raise asyncio.CancelledError


async def test_a_cancellation_that_a_client_lets_out_ends_nobody() -> None:
    await _stopped(_leaks_a_cancellation)


async def test_ones_own_cancellation_is_heeded() -> None:
    stopping = asyncio.create_task(_stopped(asyncio.Event().wait))
    await asyncio.sleep(0)
    stopping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stopping
