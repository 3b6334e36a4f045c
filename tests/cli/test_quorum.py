"""An original that two of three open together, through the whole stack; and nobody alone."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.devstack.certificates import ensure_recipient
from infra.devstack.postgres import remove_data
from infra.devstack.state import StateDir
from tests.cli.test_originals import ran, ssn
from tests.cli.test_whole_stack import Stack, until

pytestmark = pytest.mark.e2e

MEMBERS = ("carol", "bob", "dave")
REASON = "case 4711"


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    for name in (*MEMBERS, "zoe"):
        ensure_recipient(folder / f"{name}.pem", folder / f"{name}.pub.pem")
    return folder


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, keys: Path) -> Iterator[Stack]:
    made = Stack(tmp_path_factory.mktemp("quorum"))
    state = StateDir.at(made.root)
    config = made.root / "over.yaml"
    config.write_text(
        yaml.safe_dump(
            {
                "recipients": [
                    {"name": "mask", "public_key": str(state.keys / "mask.pub.pem")},
                    {"name": "zoe", "public_key": str(keys / "zoe.pub.pem")},
                    {
                        "name": "audit-board",
                        "threshold": 2,
                        "members": [
                            {"name": name, "public_key": str(keys / f"{name}.pub.pem")}
                            for name in MEMBERS
                        ],
                    },
                ],
                "gateway": {"desk": {"unsealers": ["auditors", "dba", "analysts"]}},
            }
        )
    )
    made.gatebook("up", "--detach", "--config", str(config))
    for name in MEMBERS:
        made.gatebook("login", "--user", name)
    yield made
    made.gatebook("down")
    remove_data(made.root)


@pytest.fixture(scope="module")
def statement(stack: Stack) -> str:
    return ran(stack, "alice", "together")


def unseal(stack: Stack, keys: Path, wanted: str, *shares: Path, who: str = "carol") -> Any:
    more = [part for path in shares for part in ("--share", str(path))]
    return stack.gatebook(
        "unseal", wanted, "--reason", REASON, "--user", "carol",
        "--key", str(keys / f"{who}.pem"), *more, check=False,
    )  # fmt: skip


def give(
    stack: Stack, keys: Path, wanted: str, out: Path, *, giver: str = "dave", to: str = "carol"
) -> Any:
    return stack.gatebook(
        "share", wanted, "--reason", REASON, "--user", giver, "--out", str(out),
        "--key", str(keys / f"{giver}.pem"), "--for", str(keys / f"{to}.pub.pem"), check=False,
    )  # fmt: skip


def refused(done: Any, text: str) -> None:
    assert (done.returncode, done.stdout) == (1, ""), done.stderr
    assert text in done.stderr


def unsealed(stack: Stack) -> int:
    (row,) = stack.rows("select count() as n from audit_events where event_type = 'Unsealed'")
    return int(row["n"])


def test_two_open_what_one_cannot_and_both_are_in_the_book(
    stack: Stack, keys: Path, statement: str, tmp_path: Path
) -> None:
    refused(unseal(stack, keys, statement), "carol will do with 1 more of bob, dave")
    assert unsealed(stack) == 0
    share = tmp_path / "dave.share"
    done = give(stack, keys, statement, share)
    assert done.returncode == 0, done.stderr
    assert share.stat().st_mode & 0o777 == 0o600
    recorded = done.stderr.split()[-1]
    done = unseal(stack, keys, statement, share)
    assert done.returncode == 0, done.stderr
    shown = {event["kind"]: event for event in json.loads(done.stdout)}
    assert shown["Responded"]["rows"] == [["7", ssn(stack), "together"]]
    (event,) = until(
        lambda: stack.rows(
            "select actor, event_type, reason, details from audit_events"
            f" where event_id = '{recorded}'"
        )
    )
    assert (event["actor"], event["event_type"], event["reason"]) == ("dave", "ShareGiven", REASON)
    details = json.loads(event["details"])
    assert (details["quorum"], details["giver"], details["receiver"]) == (
        "audit-board",
        "dave",
        "carol",
    )
    assert set(details["events"]) == {event["event"] for event in shown.values()}
    assert until(lambda: unsealed(stack)) == 1
    # It is an event of no session.
    assert stack.rows("select 1 from sessions where actor = 'dave'") == []
    assert stack.rows("select * from chain_gaps where missing > 0 or duplicates > 0") == []


def test_with_a_share_a_member_verifies_and_discloses(
    stack: Stack, keys: Path, statement: str, tmp_path: Path
) -> None:
    share = tmp_path / "dave.share"
    assert give(stack, keys, statement, share).returncode == 0
    key, with_share = ("--key", str(keys / "carol.pem")), ("--share", str(share))
    masks = ("verify", "--masks", "--json", "--statement", statement, *key)
    for source in ("kafka", "vault"):
        alone = json.loads(stack.gatebook(*masks, "--source", source, check=False).stdout)
        assert (alone["exit_code"], alone["found"]) == (4, [])
        assert alone["counts"]["not openable"] >= 2
        said = json.loads(stack.gatebook(*masks, "--source", source, *with_share).stdout)
        assert (said["exit_code"], said["found"]) == (0, [])
        assert said["counts"].get("not openable", 0) == 0
    (row,) = stack.rows(
        f"select event_id from audit_events where statement_id = '{statement}'"
        " and event_type = 'Responded'"
    )
    disclose = ("disclose", row["event_id"], "--field", "rows/0/1", "--reason", REASON)
    disclose = (*disclose, "--user", "carol", *key)
    refused(stack.gatebook(*disclose, check=False), "carol will do with 1 more of bob, dave")
    proof = tmp_path / "proof.json"
    proof.write_text(stack.gatebook(*disclose, *with_share).stdout)
    shown = json.loads(stack.gatebook("verify", "--proof", str(proof)).stdout)
    assert shown["value"].endswith(ssn(stack))


def test_a_recipient_beside_the_quorum_opens_alone(
    stack: Stack, keys: Path, statement: str
) -> None:
    assert json.loads(unseal(stack, keys, statement, who="zoe").stdout)


def test_a_share_is_of_use_to_its_receiver_for_its_events_and_once(
    stack: Stack, keys: Path, statement: str, tmp_path: Path
) -> None:
    other = ran(stack, "dave", "another")
    share, own = tmp_path / "dave.share", tmp_path / "own.share"
    assert give(stack, keys, statement, share).returncode == 0
    refused(unseal(stack, keys, other, share), "the share of dave is for other events")
    refused(unseal(stack, keys, statement, share, who="bob"), "the share of dave does not open")
    document = json.loads(share.read_text())
    # The list of events is not only text in the file.
    tampered = tmp_path / "tampered.share"
    tampered.write_text(json.dumps({**document, "events": [*document["events"], statement]}))
    refused(unseal(stack, keys, statement, tampered), "the share of dave does not open")
    tampered.write_text(json.dumps({**document, "giver": "bob"}))
    refused(unseal(stack, keys, statement, tampered), "the share of bob does not open")
    tampered.write_text(json.dumps({**document, "giver": "mallory"}))
    refused(unseal(stack, keys, statement, tampered), "mallory")
    tampered.write_text("{")
    refused(unseal(stack, keys, statement, tampered), "is no share")
    # One's own key is one's own share, however often.
    refused(give(stack, keys, statement, own, giver="carol", to="carol"), "another member")
    assert not own.exists()
    # It is there already: nothing is written over.
    refused(give(stack, keys, statement, share), "there already")
    refused(give(stack, keys, statement, own, to="zoe"), "not the keys of two members")
    assert "PRIVATE" not in share.read_text()


def test_without_a_journal_no_share_leaves(
    stack: Stack, keys: Path, statement: str, tmp_path: Path
) -> None:
    (kafka,) = (p["pid"] for p in stack.status()["processes"] if p["name"] == "kafka")
    os.kill(kafka, signal.SIGSTOP)
    try:
        refused(give(stack, keys, statement, tmp_path / "x.share"), "not recorded")
    finally:
        os.kill(kafka, signal.SIGCONT)
    assert not (tmp_path / "x.share").exists()


def test_erasing_destroys_the_shares_too(stack: Stack, keys: Path, tmp_path: Path) -> None:
    gone = ran(stack, "bob", "gone")
    share = tmp_path / "dave.share"
    assert give(stack, keys, gone, share).returncode == 0
    stack.gatebook("erase", "--principal", "bob", "--reason", "GDPR 17", "--yes", "--user", "carol")
    until(lambda: "was erased" in unseal(stack, keys, gone, share).stderr)
    refused(give(stack, keys, gone, tmp_path / "late.share"), "members of a quorum")
