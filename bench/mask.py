"""Masking a pgbench-like mix: events per second of CPU, against a loop that only moves bytes.

Both loops run in this process, alternating, on the same records: read a batch from Kafka, write
as many records, wait for the acknowledgements, commit. Needs a broker: GATEBOOK_BENCH_KAFKA, or
one is started.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import uvloop
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from processors.mask_service import MaskService, Outbox
from schemas import codec, topics
from schemas.sealing import Recipients
from schemas.settings import Settings
from tests.processors.recording import Pen, private_pem

STATEMENTS = 10_000
ROUNDS = 3
SHOP = {
    "name": "shop",
    "host": "unused",
    "database": "shop",
    "user": "unused",
    "password": {"env": "UNUSED"},
    "classified": {
        "public.customers.ssn": {"class": "pii"},
        "public.customers.email": {"class": "pii", "mask": "email"},
    },
}


def main() -> None:
    """Print the figures."""
    bootstrap = os.environ.get("GATEBOOK_BENCH_KAFKA")
    if bootstrap:
        uvloop.run(_measure(bootstrap))
        return
    from infra.devstack.plan import Options
    from tests.conftest import running

    with tempfile.TemporaryDirectory() as folder:
        for document in running(Path(folder), Options(only=("kafka",))):
            uvloop.run(_measure(document["kafka"]["bootstrap_servers"]))


async def _measure(bootstrap: str) -> None:
    private = X25519PrivateKey.generate()
    starts = await _write(bootstrap, Recipients((("mask", private.public_key()),)))
    with tempfile.TemporaryDirectory() as folder:
        key = Path(folder, "mask.pem")
        key.write_bytes(private_pem(private))
        settings = Settings.model_validate(
            {
                "kafka": {"bootstrap_servers": bootstrap},
                "targets": [SHOP],
                "mask": {
                    "private_key": {"file": key},
                    "state_dir": Path(folder, "state"),
                    "group_id": f"bench-{os.getpid()}",
                },
            }
        )
        service = MaskService(settings)
        await service._start()
        await _assigned(service)
        moved: list[float] = []
        masked: list[float] = []
        for _ in range(ROUNDS):
            moved.append(await _round(service, starts, _move(service)))
            masked.append(await _round(service, starts, service._process))
        await service._stop()
    best_moved, best_masked = min(moved), min(masked)
    print(
        f"mask processor: {1 / best_masked:,.0f} events per second of CPU"
        f" ({best_masked * 1e6:.1f} us each); moving the same records without masking:"
        f" {1 / best_moved:,.0f} ({best_moved * 1e6:.1f} us each);"
        f" ratio {best_moved / best_masked:.2f}"
    )


async def _write(bootstrap: str, recipients: Recipients) -> dict[TopicPartition, int]:
    """The load; returns where in each partition it begins."""
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", linger_ms=5)
    reader = AIOKafkaConsumer(bootstrap_servers=bootstrap)
    await producer.start()
    await reader.start()
    partitions = [TopicPartition(topics.EVENTS, number) for number in range(8)]
    starts = await reader.end_offsets(partitions)
    await reader.stop()
    await fill(producer, recipients, STATEMENTS)
    await producer.stop()
    return dict(starts)


async def fill(producer: AIOKafkaProducer, recipients: Recipients, statements: int) -> None:
    """Write a pgbench-like mix to the eight partitions of gatebook.events."""
    pens = [Pen(recipients) for _ in range(8)]
    sessions = [pen.session() for pen in pens for _ in range(2)]
    for session in sessions:
        await producer.send_and_wait(
            topics.KEYS, codec.encode_wraps(session.wraps), key=session.context.key_id
        )
    for number in range(statements):
        lane = number % len(pens)
        for value in pens[lane].pgbench(sessions[2 * lane + number // 8 % 2], number * 37):
            await producer.send(topics.EVENTS, value, partition=lane)


async def _assigned(service: MaskService) -> None:
    while len(service._consumer.assignment()) < 8:
        await service._consumer.getmany(timeout_ms=50)


def _move(service: MaskService) -> Callable[[Any], Awaitable[None]]:
    async def process(batches: Any) -> None:
        outbox = Outbox(service._producer, service._partitions)
        for records in batches.values():
            for record in records:
                outbox.add(record.value[:16], record.value, record.timestamp)
        await outbox.flush()
        await service._consumer.commit(
            {partition: records[-1].offset + 1 for partition, records in batches.items()}
        )

    return process


async def _round(
    service: MaskService,
    starts: dict[TopicPartition, int],
    process: Callable[[Any], Awaitable[None]],
) -> float:
    """CPU seconds of this process per event."""
    for partition, offset in starts.items():
        service._consumer.seek(partition, offset)
    done, began = 0, time.process_time()
    while done < 4 * STATEMENTS:
        batches = await service._consumer.getmany(timeout_ms=200, max_records=2_000)
        if batches:
            await process(batches)
        done += sum(len(records) for records in batches.values())
    return (time.process_time() - began) / done


if __name__ == "__main__":
    main()
