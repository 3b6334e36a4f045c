"""The ClickHouse sink: rows per second of CPU, against inserting ready-made columns.

Both run in this process, alternating, into the same table and with the same batches: the sink
reads gatebook.masked, decodes, inserts and commits; the plain client only inserts Arrow tables
that were made before. Needs a broker: GATEBOOK_BENCH_KAFKA, or one is started.
"""

from __future__ import annotations

import asyncio
import gc
import os
import tempfile
import time
from pathlib import Path
from typing import Any
from uuid import uuid4

import uvloop
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from schemas.settings import ClickHouseSink
from sinks.clickhouse import ClickHouse
from sinks.metrics import Metrics
from sinks.ranges import Range
from sinks.rows import Decoder, Poison, table
from sinks.runner import Runner
from tests.sinks.recorded import encode, many

STATEMENTS = 25_000
PARTITIONS = 4
BATCH = 10_000
ROUNDS = 3
RESPONSE = (
    "["
    + ", ".join(
        f'{{"id": {n}, "name": "Ann Smith", "email": "x***@example.com", "city": "Paris"}}'
        for n in range(5)
    )
    + "]"
)


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
    with tempfile.TemporaryDirectory() as folder:
        settings = ClickHouseSink.model_validate({"path": Path(folder, "ch")})
        topic = f"bench-{uuid4()}"
        sink = await ClickHouse.open(settings, topic, Metrics("clickhouse"))
        stored: list[float] = []
        plain: list[float] = []
        for number in range(ROUNDS):
            values = [
                encode(event)
                for event in many(STATEMENTS, f"gateway-1/{number}/0", 64, response=RESPONSE)
            ]
            ready = _ready_made(values)
            await _publish(bootstrap, f"{topic}-{number}", values)
            size = sum(map(len, values)) / len(values)
            del values
            gc.collect()
            gc.freeze()
            plain.append(await _plain(sink, ready, f"plain-{number}"))
            stored.append(await _sunk(bootstrap, f"{topic}-{number}", sink))
        await sink.close()
    best_plain, best_stored = min(plain), min(stored)
    print(
        f"clickhouse sink: {1 / best_stored:,.0f} rows per second of CPU"
        f" ({best_stored * 1e6:.1f} us each, {size:.0f} B records);"
        f" inserting ready-made columns: {1 / best_plain:,.0f} ({best_plain * 1e6:.1f} us each);"
        f" ratio {best_plain / best_stored:.2f}"
    )


def _ready_made(values: list[bytes]) -> list[Any]:
    decoder = Decoder()
    tables = []
    for start in range(0, len(values), BATCH):
        rows, poison = decoder.decode(enumerate(values[start : start + BATCH], start))
        assert not poison
        tables.append(table(rows, "plain", bytes(16), 0))
    return tables


async def _publish(bootstrap: str, topic: str, values: list[bytes]) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(topic, PARTITIONS, 1)])
    await admin.close()
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, linger_ms=5, max_batch_size=1 << 18)
    await producer.start()
    sent = [
        # A statement's events share a partition, as their session's id sees to.
        await producer.send(topic, value, partition=number // 4 % PARTITIONS)
        for number, value in enumerate(values)
    ]
    await asyncio.gather(*sent)
    await producer.stop()


async def _plain(sink: ClickHouse, tables: list[Any], token: str) -> float:
    """CPU seconds of this process per row."""
    store = sink._store

    def insert() -> None:
        for number, columns in enumerate(tables):
            store.insert(columns, f"{token}-{number}")

    began = time.process_time()
    await asyncio.get_running_loop().run_in_executor(sink._thread, insert)
    rows: int = sum(columns.num_rows for columns in tables)
    return (time.process_time() - began) / rows


class _Counting:
    """The sink, with the clock started by its first write and the end noticed."""

    def __init__(self, sink: ClickHouse) -> None:
        self._sink = sink
        self.begin = sink.begin
        self.rows = 0
        self.done = asyncio.Event()

    async def write(self, batch: Range, topic_id: bytes, token: str) -> list[Poison]:
        poison = await self._sink.write(batch, topic_id, token)
        self.rows += len(batch.records)
        if self.rows == 4 * STATEMENTS:
            self.done.set()
        return poison


async def _sunk(bootstrap: str, topic: str, sink: ClickHouse) -> float:
    """CPU seconds of this process per row, joining the group included."""
    counting = _Counting(sink)
    runner = Runner(
        counting,
        Metrics("clickhouse"),
        kafka={"bootstrap_servers": bootstrap},
        topic=topic,
        group_id=topic,
        batch_rows=BATCH,
        linger_s=0.25,
        instance=topic,
    )
    began = time.process_time()
    running = asyncio.create_task(runner.run())
    await counting.done.wait()
    runner.stop()
    await running
    return (time.process_time() - began) / counting.rows


if __name__ == "__main__":
    main()
