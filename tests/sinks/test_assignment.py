"""Taking up partitions: nothing is read before it is done, and its failure is not hidden."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from sinks.metrics import Metrics
from sinks.ranges import Range
from sinks.rows import Poison
from sinks.runner import Runner

pytestmark = pytest.mark.integration

PARTITIONS = 3
RECORDS = 300


class SlowToBegin:
    """Notes what it is given. Looking up what the history holds takes it a while."""

    def __init__(self, error: Exception | None = None) -> None:
        self._error = error
        self.written: list[tuple[int, int]] = []
        self.enough = asyncio.Event()

    async def begin(self, partition: int, topic_id: bytes) -> None:
        await asyncio.sleep(0.3)
        if self._error is not None:
            raise self._error

    async def write(self, batch: Range, topic_id: bytes, token: str) -> list[Poison]:
        self.written += [(batch.partition, record.offset) for record in batch.records]
        if len(self.written) >= RECORDS:
            self.enough.set()
        return []


@pytest.fixture
async def topic(kafka: str) -> AsyncIterator[str]:
    name = f"masked-{uuid4()}"
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    await admin.create_topics([NewTopic(name, PARTITIONS, 1)])
    producer = AIOKafkaProducer(bootstrap_servers=kafka)
    await producer.start()
    await asyncio.gather(
        *[await producer.send(name, b"x", partition=n % PARTITIONS) for n in range(RECORDS)]
    )
    await producer.stop()
    yield name
    await admin.delete_topics([name])
    await admin.close()


def runner(kafka: str, topic: str, sink: SlowToBegin) -> Runner:
    return Runner(
        sink,
        Metrics("clickhouse"),
        kafka={"bootstrap_servers": kafka},
        topic=topic,
        group_id=f"group-{uuid4()}",
        batch_rows=1000,
        linger_s=0.05,
    )


async def test_no_record_is_passed_over_while_partitions_are_taken_up(
    kafka: str, topic: str
) -> None:
    sink = SlowToBegin()
    made = runner(kafka, topic, sink)
    running = asyncio.create_task(made.run())
    async with asyncio.timeout(30):
        await sink.enough.wait()
    made.stop()
    await running
    every = [(p, offset) for p in range(PARTITIONS) for offset in range(RECORDS // PARTITIONS)]
    assert sorted(sink.written) == every


async def test_an_error_while_partitions_are_taken_up_ends_the_process(
    kafka: str, topic: str
) -> None:
    async with asyncio.timeout(30):
        with pytest.raises(ValueError, match="a fault of ours"):
            await runner(kafka, topic, SlowToBegin(ValueError("a fault of ours"))).run()
