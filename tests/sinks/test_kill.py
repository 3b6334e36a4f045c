"""The sink is killed in the middle of a load, again and again."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from uuid import uuid4

import pytest
from aiokafka import AIOKafkaProducer

from schemas.topics import MASKED
from tests.sinks.process import Sink, wait
from tests.sinks.recorded import encode, many

pytestmark = [pytest.mark.integration, pytest.mark.faults]

KILLS = 5
STATEMENTS = 5_000


async def publish(kafka: str, stream: str) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=kafka, linger_ms=5)
    await producer.start()
    sent = [
        await producer.send(MASKED, encode(event), key=event.context.session_id)
        for event in many(STATEMENTS, stream, sessions=16)
    ]
    await asyncio.gather(*sent)
    await producer.stop()


def test_every_event_is_stored_exactly_once(kafka: str, tmp_path: Path) -> None:
    stream = f"gateway-1/{uuid4()}/0"
    asyncio.run(publish(kafka, stream))
    # Small batches, so that there are many moments in which to die.
    sink = Sink(tmp_path, kafka, f"group-{uuid4()}", batch_rows=100, linger_s=0.01)
    moment = random.Random(20261124)
    progress = []
    for _ in range(KILLS):
        sink.start()
        goal = moment.randrange(100, 2500)
        wait(lambda goal=goal: sink.written() >= goal, sink)
        sink.kill()
        progress.append(goal)
    sink.start()
    mine = f"FROM audit_events WHERE stream = '{stream}'"
    expected = f"{4 * STATEMENTS}"
    wait(lambda: sink.ask(f"SELECT count() {mine}") == expected, sink)
    assert sink.ask(f"SELECT count(), uniqExact(event_id) {mine}") == f"{expected}\t{expected}"
    assert sink.ask("SELECT sum(dup) FROM offset_gaps") == "0"
    gaps = f"SELECT events, missing, duplicates FROM chain_gaps WHERE stream = '{stream}'"
    assert sink.ask(gaps) == f"{expected}\t0\t0"
    assert sink.ask(
        f"SELECT count() FROM queries WHERE statement_id IN (SELECT statement_id {mine})"
    ) == str(STATEMENTS)
    assert sink.stop() == 0
    assert len(progress) == KILLS
    log = sink.log.read_text()
    assert '"replayed": 0, "event": "assigned"' in log
    # What it is all about: at least one of the deaths came between a range and its commit.
    replays = [
        line for line in log.splitlines() if '"assigned"' in line and '"replayed": 0' not in line
    ]
    assert replays, "no death came in the middle of an insert: nothing was shown"
