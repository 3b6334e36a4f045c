"""The blind verifier over a whole stack: honest, and tampered with in every way it must find."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from infra.devstack.postgres import remove_data
from infra.devstack.state import StateDir
from schemas import topics
from schemas.codec import Archive, encode_context, encode_masked
from schemas.events import Masked
from tests.cli.test_originals import boxes, key, ran, ssn
from tests.cli.test_whole_stack import Stack, until

pytestmark = pytest.mark.e2e

TAMPER = """
import sys, json, chdb
path, statements = sys.argv[1], json.loads(sys.stdin.read())
session = chdb.connect(path)
for statement in statements:
    session.query(statement)
session.close()
"""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    made = Stack(tmp_path_factory.mktemp("verify"))
    made.gatebook("up", "--detach")
    made.gatebook("login", "--user", "carol")
    yield made
    made.gatebook("down")
    remove_data(made.root)


def verified(stack: Stack, *more: str) -> dict[str, Any]:
    ended = stack.gatebook(
        "verify", "--masks", "--key", str(key(stack)), "--json", *more, check=False
    )
    assert ended.stdout, ended.stderr
    said: dict[str, Any] = json.loads(ended.stdout)
    assert said["exit_code"] == ended.returncode
    assert ssn(stack) not in ended.stdout + ended.stderr
    return said


def done(stack: Stack, mark: str) -> str:
    """The id of a statement of alice's own, once all of it is where it belongs."""
    asked = (
        "select statement_id from audit_events where event_type = 'Requested'"
        " and action = 'execute' and position(statement, 'as mark') > 0"
    )
    before = {row["statement_id"] for row in stack.rows(asked)}
    ran(stack, "alice", mark)
    (row,) = until(lambda: [row for row in stack.rows(asked) if row["statement_id"] not in before])
    statement_id = str(row["statement_id"])
    until(
        lambda: stack.rows(
            "select 1 from audit_events where event_type = 'Completed'"
            f" and statement_id = '{statement_id}'"
        )
    )
    until(lambda: len(boxes(stack, statement_id)) >= 2)
    return statement_id


def test_what_is_honest_is_clean_from_either_source(stack: Stack) -> None:
    statement_id = done(stack, "honest")
    through_kafka = verified(stack)
    counts = through_kafka["counts"]
    assert (through_kafka["source"], through_kafka["exit_code"]) == ("kafka", 0), through_kafka
    assert counts["events"] >= 10
    assert counts["events"] == counts["masked: alike"] == counts["history: alike"]
    through_vault = verified(stack, "--source", "vault")
    assert (through_vault["source"], through_vault["exit_code"]) == ("vault", 0), through_vault
    assert through_vault["counts"]["history: alike"] == through_vault["counts"]["events"] >= 3
    for source in ("kafka", "vault"):
        one = verified(stack, "--statement", statement_id, "--source", source)
        assert one["exit_code"] == 0, one
        assert 2 <= one["counts"]["history: alike"] <= 4


def test_one_field_is_disclosed_recorded_and_proven_without_anything_else(
    stack: Stack, tmp_path: Path
) -> None:
    statement_id = done(stack, "proven")
    (row,) = stack.rows(
        "select event_id from audit_events where event_type = 'Responded'"
        f" and statement_id = '{statement_id}'"
    )
    made = stack.gatebook(
        *("disclose", row["event_id"], "--field", "rows/0/1"),
        *("--reason", "case 4711", "--key", str(key(stack))),
    )
    file = tmp_path / "proof.json"
    file.write_text(made.stdout)
    shown = json.loads(stack.gatebook("verify", "--proof", str(file)).stdout)
    # The value as the server sent it, its length before it.
    assert shown["value"].endswith(ssn(stack))
    assert (shown["event"], shown["actor"]) == (row["event_id"], "alice")
    assert b"proven" not in base64.b64decode(json.loads(made.stdout)["value"])
    recorded = made.stderr.split()[-1]
    (event,) = until(
        lambda: stack.rows(f"select reason from audit_events where event_id = '{recorded}'")
    )
    assert event["reason"] == "case 4711 (field rows/0/1)"
    said = json.loads(made.stdout)
    said["value"] = base64.b64encode(b"\0\0\0\3abc").decode()
    file.write_text(json.dumps(said))
    ended = stack.gatebook("verify", "--proof", str(file), check=False)
    assert (ended.returncode, ended.stdout) == (3, "")
    assert "NOT PROVEN" in ended.stderr


def test_what_is_erased_is_counted_and_a_strangers_key_opens_nothing(
    stack: Stack, tmp_path: Path
) -> None:
    from infra.devstack.certificates import ensure_recipient

    ran(stack, "dave", "erased")
    stack.gatebook("erase", "--principal", "dave", "--reason", "GDPR 17", "--yes")
    until(lambda: stack.rows("select 1 from audit_events where event_type = 'Erased'"))
    # Who can write ClickHouse can write there that something was erased.
    for source, exit_code in (("kafka", 0), ("vault", 4)):
        said = until(
            lambda source=source: (
                found
                if "erased" in (found := verified(stack, "--source", source))["counts"]
                else None
            )
        )
        assert (said["exit_code"], said["found"]) == (exit_code, []), said
        assert said["counts"]["erased"] >= 3
    ensure_recipient(tmp_path / "x.pem", tmp_path / "x.pub.pem")
    ended = stack.gatebook(
        "verify", "--masks", "--key", str(tmp_path / "x.pem"), "--json", check=False
    )
    said = json.loads(ended.stdout)
    assert (ended.returncode, said["found"]) == (4, [])
    assert said["counts"]["not openable"] >= 3


def test_another_configuration_is_said_and_the_earlier_one_is_taken(
    stack: Stack, tmp_path: Path
) -> None:
    state = StateDir(stack.root)
    now = state.config_file.read_text()
    later = tmp_path / "later.yaml"
    later.write_text(now.replace("mask: email", "mask: full"))
    assert later.read_text() != now
    said = verified(stack, "--config", str(later))
    assert (said["exit_code"], said["found"]) == (4, [])
    assert said["counts"]["otherwise classified"] > 0
    said = verified(stack, "--config", str(later), "--config", str(state.config_file))
    assert said["exit_code"] == 0, said
    assert said["counts"]["masked by an earlier classification"] > 0


async def test_whatever_is_tampered_with_is_found_and_named(stack: Stack) -> None:
    shown, deleted, copied = (done(stack, mark) for mark in ("shown", "gone", "copied"))
    secret = ssn(stack)
    (masked,) = [
        (value, copy)
        for value in await published(stack)
        if (copy := Archive().decode_masked(value)).statement_id == UUID(copied).bytes
        and copy.event_type == "Responded"
    ]
    ids = {
        (row["statement_id"], row["event_type"]): row["event_id"]
        for row in stack.rows("select event_id, event_type, statement_id from audit_events")
    }
    responded = ids[shown, "Responded"]
    decided = ids[deleted, "Decided"]
    requested = ids[deleted, "Requested"]
    added = "0199f3c2-0000-7000-8000-00000000abcd"
    which = f"statement_id = '{shown}' AND event_type = 'Responded'"
    tamper(
        stack,
        # A masked value replaced by the clear one; a row deleted, with an original and without
        # one; a row added, in a stream that does not exist and in the number of another.
        "CREATE TABLE audit.kept AS audit.audit_events",
        f"INSERT INTO audit.kept SELECT * REPLACE (replace(response_rows, '***', '{secret}')"
        f" AS response_rows) FROM audit.audit_events WHERE {which}",
        "INSERT INTO audit.kept SELECT * REPLACE (toUUID('" + added + "') AS event_id)"
        f" FROM audit.audit_events WHERE {which}",
        "INSERT INTO audit.kept SELECT * REPLACE (toUUID('" + added[:-1] + "e') AS event_id,"
        f" 'nobody/1/0' AS stream) FROM audit.audit_events WHERE {which}",
        "ALTER TABLE audit.audit_events DELETE WHERE event_id IN"
        f" ('{responded}', '{decided}', '{requested}') SETTINGS mutations_sync = 2",
        "INSERT INTO audit.audit_events SELECT * FROM audit.kept",
        "DROP TABLE audit.kept",
    )
    said = verified(stack, "--patience", "1")
    assert said["exit_code"] == 3
    assert sorted(said["found"]) == sorted(
        [
            f"ALTERED  history  event {responded}  statement {shown}  response_rows",
            f"MISSING  history  event {decided}  statement {deleted}",
            f"MISSING  history  event {requested}  statement {deleted}",
            f"ADDED  history  event {added}  statement {shown}",
            f"ADDED  history  event {added[:-1]}e  statement {shown}",
        ]
    )
    # From the vault alone: of what has no original, that a number is missing.
    said = verified(stack, "--source", "vault", "--patience", "1")
    assert f"ALTERED  history  event {responded}  statement {shown}  response_rows" in said["found"]
    assert f"MISSING  history  event {requested}  statement {deleted}" in said["found"]
    for end in ("d", "e"):
        assert any(f"event {added[:-1]}{end}" in line for line in said["found"])
    assert any(line.startswith("MISSING  history  event 2 of gateway-") for line in said["found"])
    # A copy in Kafka that shows the value, and one of no event at all.
    value, copy = masked
    forged = changed(copy, response_rows=copy.response_rows.replace("***", secret))
    assert forged.response_rows != copy.response_rows
    foreign = changed(copy, event_id=os.urandom(16), stream="nobody/1/0")
    await publish(stack, forged, foreign, value)
    said = verified(stack, "--statement", copied)
    where = f"event {ids[copied, 'Responded']}  statement {copied}"
    assert f"ALTERED  masked copy  {where}  another copy" in said["found"]
    assert any(line.startswith("ADDED  masked copy") for line in said["found"])
    assert said["counts"]["masked: repeated"] == 1


def changed(copy: Masked, **fields: Any) -> Masked:
    import msgspec

    return msgspec.structs.replace(copy, **fields)


async def published(stack: Stack) -> list[bytes]:
    """Every record of gatebook.masked."""
    consumer = AIOKafkaConsumer(
        topics.MASKED,
        bootstrap_servers=stack.status()["kafka"]["bootstrap_servers"],
        auto_offset_reset="earliest",
    )
    await consumer.start()
    values: list[bytes] = []
    ends = await consumer.end_offsets(list(consumer.assignment()))
    while any([await consumer.position(p) < end for p, end in ends.items()]):
        for records in (await consumer.getmany(timeout_ms=200)).values():
            values += [record.value for record in records]
    await consumer.stop()
    return values


async def publish(stack: Stack, *copies: Masked | bytes) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=stack.status()["kafka"]["bootstrap_servers"])
    await producer.start()
    for copy in copies:
        value: Any = copy
        if isinstance(copy, Masked):
            value = encode_masked(copy, encode_context(copy.context))
        await producer.send_and_wait(topics.MASKED, value, key=value[35:51])
    await producer.stop()


def tamper(stack: Stack, *statements: str) -> None:
    """Whoever has the files changes them, while nothing runs."""
    stack.gatebook("down")
    subprocess.run(
        [sys.executable, "-c", TAMPER, str(stack.root / "clickhouse" / "data")],
        input=json.dumps(statements),
        text=True,
        check=True,
    )
    stack.gatebook("up", "--detach")
