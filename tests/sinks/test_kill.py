"""The sink is killed in the middle of a load, again and again."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from aiokafka import AIOKafkaProducer

from schemas.topics import EVENTS, KEYS, MASKED
from tests.sinks.process import Sink, wait
from tests.sinks.recorded import encode, many
from tests.sinks.sealing import Gateway

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


SESSIONS, BOXES = 60, 50
VAULT_TOKEN = "the vault's token"


async def publish_sealed(kafka: str, gateways: list[Gateway], erased: list[Gateway]) -> None:
    """Sessions' keys, their boxes, and tombstones of some keys among it all."""
    producer = AIOKafkaProducer(bootstrap_servers=kafka, linger_ms=5)
    await producer.start()
    sent = []
    for number, gateway in enumerate(gateways):
        for number_of_box in range(BOXES):
            gateway.requested(f"select {number_of_box}")
        key_id = gateway.context.key_id
        sent.append(await producer.send(KEYS, gateway.wraps(0).value, key=key_id))
        sent += [
            await producer.send(EVENTS, record.value, key=key_id) for record in gateway.records
        ]
        # Earlier sessions', so that their wraps have been written, or are being.
        if number >= 10 and (old := gateways[number - 10]) in erased:
            sent.append(await producer.send(KEYS, None, key=old.context.key_id))
    await asyncio.gather(*sent)
    await producer.stop()


def test_no_box_and_no_wrap_is_lost_or_doubled_and_what_was_erased_stays_away(
    kafka: str, tmp_path: Path
) -> None:
    token = tmp_path / "vault-token"
    token.write_text(VAULT_TOKEN)
    gateways = [Gateway() for _ in range(SESSIONS)]
    erased = gateways[: SESSIONS - 10 : 3]
    asyncio.run(publish_sealed(kafka, gateways, erased))
    sink = Sink(
        tmp_path, kafka, f"group-{uuid4()}", batch_rows=20, linger_s=0.01,
        vault_token={"file": str(token)},
    )  # fmt: skip
    moment = random.Random(20261124)
    for _ in range(KILLS):
        sink.start()
        goal = moment.randrange(20, 500)
        wait(lambda goal=goal: sink.written("boxes", "wraps") >= goal, sink)
        sink.kill()
    sink.start()

    def ask(sql: str) -> str:
        return sink.ask(sql, VAULT_TOKEN)

    def ids(some: list[Gateway]) -> str:
        return ",".join(f"'{UUID(bytes=gateway.context.key_id)}'" for gateway in some)

    expected = str(SESSIONS * BOXES)
    mine = f"FROM vault_boxes WHERE key_id IN ({ids(gateways)})"
    wait(lambda: int(ask(f"SELECT uniqExact(event_id) {mine}")) >= int(expected), sink)
    assert ask(f"SELECT count(), uniqExact(event_id) {mine}") == f"{expected}\t{expected}"
    kept = [gateway for gateway in gateways if gateway not in erased]
    # Each for `mask` and for `carol`. Not FINAL: a row of an erased key must be gone from the disk.
    of_keys = "SELECT count() FROM vault_wraps{} WHERE key_id IN ({})"
    wait(lambda: ask(of_keys.format(" FINAL", ids(kept))) == str(2 * len(kept)), sink)
    tombstones = f"SELECT uniqExact(key_id) FROM vault_erased WHERE key_id IN ({ids(erased)})"
    wait(lambda: ask(tombstones) == str(len(erased)), sink)
    wait(lambda: ask(of_keys.format("", ids(erased))) == "0", sink)
    assert ask(of_keys.format("", ids(kept))) == str(2 * len(kept))
    assert sink.stop() == 0
    replays = [
        line
        for line in sink.log.read_text().splitlines()
        if '"assigned"' in line and MASKED not in line and '"replayed": 0' not in line
    ]
    assert replays, "no death came in the middle of an insert: nothing was shown"
