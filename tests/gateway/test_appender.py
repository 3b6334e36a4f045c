"""The journal's produce requests, against a real broker."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError, LeaderNotAvailableError, OutOfOrderSequenceNumber

from gateway.appender import Appender

pytestmark = pytest.mark.integration


@pytest.fixture
async def topic(kafka: str) -> AsyncIterator[str]:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    name = f"appended-{uuid4()}"
    await admin.create_topics([NewTopic(name, 2, 1, topic_configs={"max.message.bytes": "5000"})])
    yield name
    await admin.delete_topics([name])
    await admin.close()


@pytest.fixture
async def client(kafka: str, topic: str) -> AsyncIterator[Any]:
    producer = AIOKafkaProducer(bootstrap_servers=kafka, acks="all", enable_idempotence=True)
    await producer.start()
    await producer.partitions_for(topic)
    yield producer.client
    await producer.stop()


async def started(client: Any, topic: str, timeout_s: float = 10.0) -> Appender:
    appender = Appender(client, topic, 1, timeout_s=timeout_s, batch_bytes=1024 * 1024)
    await appender.start()
    return appender


def batch(appender: Appender, *values: bytes) -> bytes:
    made = appender.batch()
    for number, value in enumerate(values):
        assert made.append(number, 1_700_000_000_000, b"key", value, []) is not None
    return bytes(made.build())


async def stored(kafka: str, topic: str) -> list[bytes]:
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka, auto_offset_reset="earliest")
    await consumer.start()
    partition = TopicPartition(topic, 1)
    consumer.assign([partition])
    end = (await consumer.end_offsets([partition]))[partition]
    values: list[bytes] = []
    while len(values) < end:
        found = await consumer.getmany(partition, timeout_ms=1000)
        values += [record.value for record in found.get(partition, [])]
    await consumer.stop()
    return values


async def test_batches_follow_one_another(client: Any, topic: str, kafka: str) -> None:
    appender = await started(client, topic)
    assert await appender.send(batch(appender, b"a", b"b"), 2) == 0
    assert await appender.send(batch(appender, b"c"), 1) == 2
    assert await stored(kafka, topic) == [b"a", b"b", b"c"]


async def test_a_batch_that_is_sent_again_is_in_the_log_once(
    client: Any, topic: str, kafka: str
) -> None:
    appender = await started(client, topic)
    records = batch(appender, b"a", b"b")
    assert await appender.send(records, 2) == await appender.send(records, 2) == 0
    assert await stored(kafka, topic) == [b"a", b"b"]


async def test_a_batch_after_one_that_is_missing_is_refused(
    client: Any, topic: str, kafka: str
) -> None:
    appender = await started(client, topic)
    await appender.send(batch(appender, b"a"), 1)
    appender._sequence += 1
    with pytest.raises(OutOfOrderSequenceNumber):
        await appender.send(batch(appender, b"c"), 1)
    assert await stored(kafka, topic) == [b"a"]


async def test_what_will_never_be_taken_is_said_at_once(client: Any, topic: str) -> None:
    appender = await started(client, topic, timeout_s=3600)
    with pytest.raises(KafkaError, match="MessageSizeTooLarge"):
        await appender.send(batch(appender, bytes(10_000)), 1)


async def test_what_may_be_taken_later_is_tried_until_the_time_is_up(client: Any) -> None:
    nowhere = Appender(client, f"no-{uuid4()}", 0, timeout_s=0.2, batch_bytes=1024)
    await nowhere.start()
    with pytest.raises(LeaderNotAvailableError):
        await nowhere.send(batch(nowhere, b"a"), 1)
