"""The processor as a process, against a real broker."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from schemas import chain, codec, topics
from schemas.events import Completed, Masked
from schemas.masking.applied import document
from tests.processors.harness import Bench, Processor, until
from tests.processors.recording import Session, column, data_row, new_id, private_pem

pytestmark = pytest.mark.integration

CANARY_SSN = "123-45-6789"


def ids(copies: list[tuple[bytes, Masked]]) -> list[bytes]:
    return [masked.event_id for _, masked in copies]


def assert_only_identical_duplicates(copies: list[tuple[bytes, Masked]]) -> None:
    values: dict[bytes, bytes] = {}
    for value, masked in copies:
        assert values.setdefault(masked.event_id, value) == value


async def load(bench: Bench, statements: int) -> list[Session]:
    """Four events a statement, over all partitions."""
    sessions = [await bench.session() for _ in range(8)]
    for number in range(statements):
        lane = number % 8
        for value in bench.pen.pgbench(sessions[lane], number):
            await bench.producer.send(topics.EVENTS, value, partition=lane)
    await bench.producer.flush()
    return sessions


async def test_every_event_is_masked_once_and_in_order(bench: Bench) -> None:
    session, t = await bench.session(), new_id()
    processor = await bench.processor()
    await processor.ready()
    values = [
        bench.pen.opened(session, "alice", {}),
        bench.pen.requested(session, t, f"select * from customers where ssn = '{CANARY_SSN}'"),
        bench.pen.decided(session, t),
        bench.pen.responded(
            session,
            t,
            [column("ssn", source="public.customers.ssn")],
            [data_row(CANARY_SSN.encode())],
            classified=True,
        ),
        bench.pen.completed(session, t),
        bench.pen.closed(session),
    ]
    await bench.write(values)
    copies = await bench.masked([session], len(values))
    assert [masked.seq for _, masked in copies] == list(range(len(values)))
    assert [masked.event_hash for _, masked in copies] == [chain.read(v).event_hash for v in values]
    assert copies[1][1].statement == "select * from customers where ssn = '***'"
    assert json.loads(copies[3][1].response_rows) == [{"ssn": "***"}]
    assert CANARY_SSN.encode() not in b"".join(value for value, _ in copies)
    assert await processor.metric("events_total") >= len(values)
    assert await processor.stop() == 0
    assert CANARY_SSN not in processor.log
    assert [json.loads(line)["event"] for line in processor.log.splitlines()][-1] == "stopped"


async def test_what_a_gateway_knew_to_be_classified_is_masked(bench: Bench) -> None:
    """Published after the processor was ready; and again by one that begins with nothing."""
    key, value = codec.encode_classification(
        document("shop", {"public.people.nickname": ("pii", "full")})
    )
    session = await bench.session(classification=key)
    first = await bench.processor()
    await first.ready()
    await bench.producer.send_and_wait(topics.CLASSIFICATIONS, value, key=key)
    statement = "select 1 from people where nickname = 'Zorvak'"
    await bench.write([bench.pen.requested(session, new_id(), statement)])
    (copy,) = await bench.masked([session], 1)
    assert copy[1].statement == "select 1 from people where nickname = '***'"
    assert await first.stop() == 0
    other = await bench.session(classification=key)
    await bench.write([bench.pen.requested(other, new_id(), statement)])
    await (await bench.processor()).ready()
    (copy,) = await bench.masked([other], 1)
    assert copy[1].statement == "select 1 from people where nickname = '***'"


async def test_an_event_whose_classification_nobody_knows_is_not_masked_by_guessing(
    bench: Bench,
) -> None:
    session = await bench.session(classification=os.urandom(32))
    processor = await bench.processor()
    await processor.ready()
    event = bench.pen.requested(session, new_id(), "select nickname from people")
    offsets = await bench.write([event])
    letter = (await bench.dead_letters(offsets))[offsets[0]]
    assert letter.value == event
    assert dict(letter.headers)["gatebook-error"] == b"UnknownClassification"


async def test_its_schema_is_published(bench: Bench) -> None:
    await (await bench.processor()).ready()
    records = await bench._read(topics.SCHEMAS, lambda record: True, bool)
    published = {record.key: record.value for record in records}
    current = codec.CURRENT[Masked]
    assert published[current.sha256] == current.text.encode()


@pytest.mark.faults
async def test_killed_in_the_middle_it_loses_nothing(bench: Bench) -> None:
    config = bench.config(batch_records=200)
    sessions = await load(bench, 5_000)
    for progress in (1_000, 4_000):
        processor = await bench.processor(config)
        await processor.ready()

        async def progressed(processor: Processor = processor, events: int = progress) -> bool:
            return await processor.metric("events_total") >= events

        await until(progressed, f"{progress} events masked")
        await processor.kill()
    await bench.processor(config)
    copies = await bench.masked(sessions, 20_000)
    assert len(set(ids(copies))) == 20_000
    assert_only_identical_duplicates(copies)


@pytest.mark.faults
async def test_it_outlives_a_killed_broker(bench: Bench, broker_stack: dict[str, Any]) -> None:
    session = await bench.session()
    processor = await bench.processor()
    await processor.ready()
    sessions = [session, *await load(bench, 500)]
    (pid,) = (p["pid"] for p in broker_stack["processes"] if p["name"].startswith("kafka"))
    os.kill(pid, signal.SIGKILL)
    # Acknowledged by the broker that the stack's supervisor starts in its place.
    await bench.write([bench.pen.requested(session, new_id(), "select 1")])
    copies = await bench.masked(sessions, 2_001)
    assert len(set(ids(copies))) == 2_001
    assert_only_identical_duplicates(copies)
    assert await processor.stop() == 0


async def test_two_processors_share_the_work_and_take_over(bench: Bench) -> None:
    config = bench.config(batch_records=100)
    sessions = await load(bench, 1_000)
    first = await bench.processor(config)
    await first.ready()
    more = await load(bench, 1_000)
    second = await bench.processor(config)
    await second.ready()

    async def shared() -> bool:
        return all(len(processor.assigned()) == 4 for processor in (first, second))

    await until(shared, "each has half of the partitions")
    yet_more = await load(bench, 500)
    await first.stop()
    last = await load(bench, 500)
    copies = await bench.masked([*sessions, *more, *yet_more, *last], 12_000)
    assert len(set(ids(copies))) == 12_000
    assert_only_identical_duplicates(copies)


async def test_poison_goes_to_dead_letters_as_it_came(bench: Bench) -> None:
    session, t = await bench.session(), new_id()
    pen = bench.pen
    good = pen.requested(session, t, "select 1")
    link = chain.read(good)
    statement = f"select '{CANARY_SSN}'"
    other = await bench.session()
    flipped = bytearray(pen.requested(session, t, statement))
    flipped[-1] ^= 1
    payload = bytearray(chain.read(pen.requested(session, t, statement)).payload)
    payload[-1] ^= 1
    stranger = pen.session()
    poison: dict[str, list[bytes | None]] = {
        "CodecError": [
            None,
            b"",
            b"garbage",
            good[:-1],
            good + b"\0",
            bytes(flipped),
            pen.chain.append(codec.CURRENT[Completed].sha256, link.payload),
            pen.chain.append(link.schema_sha256, link.payload + b"\0"),
            pen.responded(session, t, [column("a")], [data_row(b"1", b"2")]),
            pen.responded(session, t, [], [b"x"], encoding="arrow"),
        ],
        "SealingError": [
            pen.chain.append(link.schema_sha256, bytes(payload)),
            # A box of one session in an event of another.
            pen.chain.append(
                link.schema_sha256, other.encoded + link.payload[len(session.encoded) :]
            ),
        ],
        "UnknownSchema": [pen.chain.append(b"\7" * 32, link.payload)],
        "MissingKey": [pen.requested(stranger, t, statement)],
        "TooLarge": [
            # Six bytes of JSON for each.
            pen.responded(session, t, [column("a")], [data_row(b"\1" * 5_000_000)])
        ],
    }
    processor = await bench.processor()
    await processor.ready()
    for reason, values in poison.items():
        offsets = await bench.write(values)
        letters = await bench.dead_letters(offsets)
        for offset, value in zip(offsets, values, strict=True):
            headers = dict(letters[offset].headers)
            assert letters[offset].value == value
            assert headers["gatebook-error"].decode() == reason
            assert headers["gatebook-topic"].decode() == topics.EVENTS
            assert CANARY_SSN.encode() not in b"".join(headers.values())
    # What comes after it is masked.
    await bench.write([good])
    assert len(await bench.masked([session], 1)) == 1
    assert CANARY_SSN not in processor.log
    assert await processor.metric("dead_letters_total") >= sum(map(len, poison.values()))


async def test_large_originals_are_masked(bench: Bench) -> None:
    session, t = await bench.session(), new_id()
    processor = await bench.processor()
    await processor.ready()
    long = "select '" + "x" * 8_000_000 + f"' -- {CANARY_SSN}"
    rows = [data_row(b"%d" % n, b"y" * 1_000) for n in range(2_000)]
    await bench.write(
        [
            bench.pen.requested(session, t, long),
            bench.pen.responded(session, t, [column("id", 23), column("y")], rows),
        ]
    )
    copies = await bench.masked([session], 2)
    assert copies[0][1].statement == long.replace(CANARY_SSN, "***-**-****")
    assert len(json.loads(copies[1][1].response_rows)) == 2_000


async def test_a_key_that_arrives_late_is_found(bench: Bench) -> None:
    processor = await bench.processor()
    await processor.ready()
    session = await bench.session(key=False)
    known = await bench.session()
    await bench.write([bench.pen.requested(known, new_id(), "select 1")])
    await bench.masked([known], 1)
    await bench.publish_key(session)
    await bench.write([bench.pen.requested(session, new_id(), "select 2")])
    ((_, masked),) = await bench.masked([session], 1)
    assert masked.statement == "select 2"


async def test_an_erased_key_opens_nothing_any_more(bench: Bench) -> None:
    session = await bench.session()
    config = bench.config()
    processor = await bench.processor(config)
    await processor.ready()
    await bench.write([bench.pen.requested(session, new_id(), "select 1")])
    await bench.masked([session], 1)
    await processor.stop()
    await bench.producer.send_and_wait(topics.KEYS, None, key=session.context.key_id)
    await bench.processor(config)
    offsets = await bench.write([bench.pen.requested(session, new_id(), "select 2")])
    letters = await bench.dead_letters(offsets)
    assert dict(letters[offsets[0]].headers)["gatebook-error"] == b"MissingKey"


@pytest.mark.parametrize("damage", ["deleted", "of another cluster", "broken"])
async def test_a_lost_or_foreign_cache_of_keys_is_rebuilt(bench: Bench, damage: str) -> None:
    session = await bench.session()
    config = bench.config()
    processor = await bench.processor(config)
    await processor.ready()
    await processor.stop()
    state = bench.folder / "state"
    match damage:
        case "deleted":
            shutil.rmtree(state)
        case "of another cluster":
            _rewrite_state(state, cluster="another", offset=0)
        case "broken":
            (state / "wraps.sqlite").write_bytes(b"broken")
    processor = await bench.processor(config)
    await bench.write([bench.pen.requested(session, new_id(), "select 1")])
    await bench.masked([session], 1)


def _rewrite_state(state: Path, *, cluster: str, offset: int) -> None:
    from processors.keyring import WrapStore

    store = WrapStore(state)
    store.clear()
    store._set(cluster=cluster, offset=offset)
    store.close()


async def test_a_recreated_topic_of_keys_is_read_again(bench: Bench) -> None:
    config = bench.config()
    for _ in range(3):
        await bench.session()
    processor = await bench.processor(config)
    await processor.ready()
    await processor.stop()
    admin = AIOKafkaAdminClient(bootstrap_servers=bench.bootstrap)
    await admin.start()
    await admin.delete_topics([topics.KEYS])

    async def gone() -> bool:
        return topics.KEYS not in await admin.list_topics()

    await until(gone, "the topic is deleted")
    topic = next(topic for topic in topics.TOPICS if topic.name == topics.KEYS)
    await admin.create_topics([NewTopic(topic.name, 1, 1, topic_configs=topic.config(1))])
    await admin.close()
    # As many keys as before and more, so that the offset on file looks right.
    sessions = [await bench.session() for _ in range(100)]
    await bench.processor(config)
    await bench.write([bench.pen.requested(sessions[0], new_id(), "select 1")])
    await bench.masked([sessions[0]], 1)


async def test_a_schema_that_is_published_later_is_learned(bench: Bench) -> None:
    """A gateway of another release: same fields, another text."""
    session, t = await bench.session(), new_id()
    processor = await bench.processor()
    await processor.ready()
    document = json.loads(codec.CURRENT[Completed].text)
    document["doc"] = f"Of another release ({session.id.hex()})."
    rotated = codec.parse(json.dumps(document))
    payload = chain.read(bench.pen.completed(session, t)).payload
    record = bench.pen.chain.append(rotated.sha256, payload)
    await bench.producer.send_and_wait(topics.SCHEMAS, rotated.text.encode(), key=rotated.sha256)
    await bench.write([record])
    ((_, masked),) = await bench.masked([session], 1)
    assert (masked.event_type, masked.outcome) == ("Completed", "completed")


async def test_a_field_of_the_future_is_a_dead_letter(bench: Bench) -> None:
    session, t = await bench.session(), new_id()
    await (await bench.processor()).ready()
    document = json.loads(codec.CURRENT[Completed].text)
    document["fields"].append({"name": "later", "type": "long", "doc": session.id.hex()})
    newer = codec.parse(json.dumps(document))
    await bench.producer.send_and_wait(topics.SCHEMAS, newer.text.encode(), key=newer.sha256)
    payload = chain.read(bench.pen.completed(session, t)).payload
    offsets = await bench.write([bench.pen.chain.append(newer.sha256, payload + b"\2")])
    letters = await bench.dead_letters(offsets)
    assert b"unknown field `later`" in dict(letters[offsets[0]].headers)["gatebook-reason"]


async def test_what_is_no_schema_in_the_schemas_topic_is_passed_over(bench: Bench) -> None:
    await bench.producer.send_and_wait(topics.SCHEMAS, b"\xff\0", key=b"x")
    await bench.producer.send_and_wait(topics.SCHEMAS, b"{}", key=b"y")
    session = await bench.session()
    await bench.processor()
    await bench.write([bench.pen.decided(session, new_id())])
    assert len(await bench.masked([session], 1)) == 1


# --- what it refuses to run with ---


async def refused(bench: Bench, config: Path) -> tuple[int, list[dict[str, str]]]:
    processor = await bench.processor(config)
    status = await processor.exit_status()
    return status, [json.loads(line) for line in processor.log.splitlines()]


@pytest.mark.parametrize(
    ("private_key", "message"),
    [
        (None, "mask.private_key: the mask processor needs its X25519 private key"),
        ({"file": "/nowhere/mask.pem"}, "cannot read secret file /nowhere/mask.pem"),
        ({"env": "NOT_SET_ANYWHERE"}, "environment variable NOT_SET_ANYWHERE is not set"),
    ],
)
async def test_without_its_key_it_says_so_in_one_line(
    bench: Bench, private_key: dict[str, str] | None, message: str
) -> None:
    status, lines = await refused(bench, bench.config(private_key=private_key))
    assert status == 2
    assert len(lines) == 1
    assert message in lines[0]["error"]


async def test_with_anothers_key_it_does_not_make_dead_letters_of_everything(
    bench: Bench,
) -> None:
    config = bench.config()
    (bench.folder / "mask.pem").write_bytes(private_pem(X25519PrivateKey.generate()))
    status, lines = await refused(bench, config)
    assert status == 2
    assert "does not belong to the public key" in lines[0]["error"]


async def test_a_wrong_setting_is_named(bench: Bench) -> None:
    config = bench.config(batch_recrods=1)
    status, lines = await refused(bench, config)
    assert (status, len(lines)) == (2, 1)
    assert "mask.batch_recrods" in lines[0]["error"]


async def test_without_kafka_it_stops_with_one_line(bench: Bench, unused_port: int) -> None:
    config = bench.config()
    document = yaml.safe_load(config.read_text())
    document["kafka"]["bootstrap_servers"] = f"127.0.0.1:{unused_port}"
    config.write_text(yaml.safe_dump(document))
    status, lines = await refused(bench, config)
    assert status == 1
    assert [line["event"] for line in lines] == ["started", "stopped by an error"]


async def test_a_taken_metrics_port_stops_it(bench: Bench) -> None:
    server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    status, lines = await refused(bench, bench.config(metrics_port=port))
    server.close()
    assert (status, len(lines)) == (1, 1)
    assert lines[0]["error"] == "OSError"


@pytest.fixture
def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
