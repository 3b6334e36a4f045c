"""A tombstone in a topic laid out like gatebook.keys removes what was wrapped from Kafka."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import replace

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from infra.kafka.admin import create_topics
from schemas.topics import KEYS, TOPICS

pytestmark = pytest.mark.integration


async def _records(kafka: str, topic: str) -> list[tuple[bytes, bytes | None]]:
    consumer = AIOKafkaConsumer(
        topic, bootstrap_servers=kafka, group_id=None, auto_offset_reset="earliest"
    )
    await consumer.start()
    try:
        found: list[tuple[bytes, bytes | None]] = []
        ends = await consumer.end_offsets(list(consumer.assignment()))
        while any([await consumer.position(p) < end for p, end in ends.items()]):
            for batch in (await consumer.getmany(timeout_ms=200)).values():
                found += [(record.key, record.value) for record in batch]
        return found
    finally:
        await consumer.stop()


async def test_what_was_erased_leaves_the_log(kafka: str) -> None:
    (keys,) = (topic for topic in TOPICS if topic.name == KEYS)
    # As the topic is, only sooner.
    soon = replace(
        keys, name=f"keys-{os.urandom(4).hex()}", extra={**keys.extra, "max.compaction.lag.ms": "1"}
    )
    await create_topics(kafka, topics=(soon,))
    producer = AIOKafkaProducer(bootstrap_servers=kafka, acks="all")
    await producer.start()
    try:
        for key, value in ((b"gone", b"wrap"), (b"kept", b"wrap"), (b"gone", None)):
            await producer.send_and_wait(soon.name, value, key=key)
        assert (b"gone", b"wrap") in await _records(kafka, soon.name)
        deadline = time.monotonic() + 120
        while (b"gone", b"wrap") in await _records(kafka, soon.name):
            assert time.monotonic() < deadline
            # The segment being written is never compacted; other sessions go on and roll it.
            await producer.send_and_wait(soon.name, b"wrap", key=os.urandom(16))
            await asyncio.sleep(1)
        assert (b"kept", b"wrap") in await _records(kafka, soon.name)
    finally:
        await producer.stop()
