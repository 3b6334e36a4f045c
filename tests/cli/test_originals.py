"""Originals opened by an auditor, compared with their audit copies, and erased, end to end."""

from __future__ import annotations

import json
import os
import signal
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from cli import clickhouse, tokens
from infra.devstack.certificates import ensure_recipient
from infra.devstack.postgres import remove_data
from infra.devstack.state import StateDir
from tests.cli.test_whole_stack import Stack, until

pytestmark = pytest.mark.e2e

REASON = "case 4711"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    made = Stack(tmp_path_factory.mktemp("originals"))
    made.gatebook("up", "--detach")
    made.gatebook("login", "--user", "carol")
    yield made
    made.gatebook("down")
    remove_data(made.root)


def key(stack: Stack, name: str = "carol") -> Path:
    return StateDir(stack.root).keys / f"{name}.pem"


def ran(stack: Stack, user: str, mark: str) -> str:
    """`user` reads a customer; the statement's id, once its session is in the vault, closed."""
    document = stack.status()
    address = document["gateways"][0]["postgres"]
    with psycopg.connect(
        host="localhost",
        port=address["port"],
        dbname="shop",
        user=user,
        password=tokens.demo_token(StateDir(stack.root), document, user),
        sslmode="verify-full",
        sslrootcert=document["ca_file"],
        autocommit=True,
    ) as connection:
        connection.execute(
            "select id, ssn, %s::text as mark from customers where id = 7", (mark,)
        ).fetchall()
    (row,) = until(
        lambda: stack.rows(
            "select statement_id, session_id from queries as q join sessions as s"
            f" using (session_id) where position(q.statement, 'mark') > 0 and s.outcome = 'closed'"
            f" and q.actor = '{user}' order by q.started_at desc limit 1"
        )
    )
    until(lambda: len(boxes(stack, row["statement_id"])) >= 2)
    return str(row["statement_id"])


def boxes(stack: Stack, statement_id: str) -> list[str]:
    text = clickhouse.query(
        stack.status(),
        f"SELECT kind FROM vault_boxes WHERE statement_id = '{statement_id}'",
        "TSV",
        vault=True,
    )
    return text.split()


def ssn(stack: Stack) -> str:
    """The real one, asked of the target itself."""
    with psycopg.connect(stack.status()["targets"][0]["direct_conninfo"]) as connection:
        row = connection.execute("select ssn from customers where id = 7").fetchone()
        assert row is not None
        return str(row[0])


def unseal(stack: Stack, wanted: str, *more: str, check: bool = True) -> Any:
    return stack.gatebook("unseal", wanted, "--reason", REASON, *more, check=check)


def test_an_auditor_sees_the_original_and_the_book_says_so(stack: Stack) -> None:
    statement_id = ran(stack, "alice", "opened")
    done = unseal(stack, statement_id, "--key", str(key(stack)))
    shown = {event["kind"]: event for event in json.loads(done.stdout)}
    assert "ssn" in shown["Requested"]["statement"]
    assert shown["Requested"]["parameters"] == ["opened"]
    # What ran had the column rewritten or not; what the server sent, whatever alice saw, is there.
    assert shown["Requested"]["executed"]
    assert shown["Responded"]["columns"] == ["id", "ssn", "mark"]
    assert shown["Responded"]["rows"] == [["7", ssn(stack), "opened"]]
    recorded = done.stderr.split()[-1]
    (event,) = until(
        lambda: stack.rows(
            "select actor, event_type, reason, details from audit_events"
            f" where event_id = '{recorded}'"
        )
    )
    assert (event["actor"], event["event_type"], event["reason"]) == ("carol", "Unsealed", REASON)
    assert set(json.loads(event["details"])["events"]) == {e["event"] for e in shown.values()}
    assert stack.rows("select * from chain_gaps where missing > 0 or duplicates > 0") == []


def test_nothing_is_shown_to_others(stack: Stack, tmp_path: Path) -> None:
    statement_id = ran(stack, "alice", "closed")
    # A key that is nobody's here.
    ensure_recipient(tmp_path / "x.pem", tmp_path / "x.pub.pem")
    done = unseal(stack, statement_id, "--key", str(tmp_path / "x.pem"), check=False)
    assert (done.returncode, done.stdout) == (1, "")
    # A recipient's key in the hands of someone who is no auditor.
    stack.gatebook("login", "--user", "alice")
    done = unseal(stack, statement_id, "--key", str(key(stack)), "--user", "alice", check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "alice may not" in done.stderr
    (StateDir(stack.root).sessions / "alice.jwt").unlink()
    assert until(
        lambda: stack.rows(
            "select reason from audit_events where event_type = 'AuthenticationFailed'"
            " and actor = 'alice' and reason = 'not_permitted'"
        )
    )
    # No reason, no original.
    done = stack.gatebook(
        "unseal", statement_id, "--reason", " ", "--key", str(key(stack)), check=False
    )
    assert (done.returncode, done.stdout) == (1, "")


def test_what_is_erased_opens_for_nobody_and_the_rest_stays(stack: Stack) -> None:
    gone, kept = ran(stack, "dave", "gone"), ran(stack, "alice", "kept")
    key_id = bytes.fromhex(
        clickhouse.query(
            stack.status(),
            f"SELECT hex(key_id) FROM vault_boxes WHERE statement_id = '{gone}' LIMIT 1",
            "TSV",
            vault=True,
        )
    )
    folder = stack.root / "mask"

    def remembered() -> bool:
        return any(key_id in path.read_bytes() for path in folder.iterdir())

    until(remembered)
    assert stack.rows("select 1 from sessions where outcome = 'open'") == []
    done = stack.gatebook("erase", "--principal", "dave", "--reason", "GDPR 17", "--yes")
    assert "destroyed" in done.stdout
    recorded = done.stderr.split()[-1]
    until(lambda: "was erased" in unseal(stack, gone, "--key", str(key(stack)), check=False).stderr)
    assert json.loads(unseal(stack, kept, "--key", str(key(stack))).stdout)
    (event,) = until(
        lambda: stack.rows(
            f"select event_type, reason, details from audit_events where event_id = '{recorded}'"
        )
    )
    assert (event["event_type"], event["reason"]) == ("Erased", "GDPR 17")
    details = json.loads(event["details"])
    assert details["person"] == "dave" and len(details["keys"]) == len(details["sessions"]) >= 1
    # The masked history and the chains are whole.
    assert stack.rows(f"select 1 from queries where statement_id = '{gone}'")
    assert stack.rows("select * from chain_gaps where missing > 0 or duplicates > 0") == []
    # The mask processor's own copy of the wraps has forgotten, in its file, too.
    until(lambda: not remembered())


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400),
        (b'{"events": [], "reason": "x"}', 400),
        (b'{"events": ["1"], "reason": "x"}', 400),
        (b'{"events": ["0199f3c2-0000-7000-8000-000000000000"], "reason": " "}', 400),
        (b'{"events": ["0199f3c2-0000-7000-8000-000000000000"], "reason": "x", "y": 1}', 400),
        (b" " * 2_000_000, 413),
    ],
)
def test_a_desk_records_no_nonsense(stack: Stack, body: bytes, status: int) -> None:
    document, state = stack.status(), StateDir(stack.root)
    url = json.loads((state.run / f"{document['gateways'][0]['name']}.json").read_text())
    token = tokens.demo_token(state, document, "carol")
    with httpx.Client(
        base_url=url["desk_url"],
        verify=ssl.create_default_context(cafile=document["ca_file"]),
        trust_env=False,
    ) as client:
        answer = client.post(
            "/unsealings", content=body, headers={"Authorization": f"Bearer {token}"}
        )
        assert answer.status_code == status
        assert client.post("/unsealings", content=body).status_code == 401
        # A share says whose and for whom besides.
        answer = client.post("/shares", content=body, headers={"Authorization": f"Bearer {token}"})
        assert answer.status_code == status
    made = "event_type = 'Unsealed' and reason in ('x', ' ')"
    assert stack.rows(f"select count() as n from audit_events where {made}") == [{"n": 0}]


def test_without_a_journal_nothing_is_shown(stack: Stack) -> None:
    statement_id = ran(stack, "alice", "unrecorded")
    (kafka,) = (p["pid"] for p in stack.status()["processes"] if p["name"] == "kafka")
    os.kill(kafka, signal.SIGSTOP)
    try:
        done = unseal(stack, statement_id, "--key", str(key(stack)), check=False)
    finally:
        os.kill(kafka, signal.SIGCONT)
    assert (done.returncode, done.stdout) == (1, "")
    assert "not recorded" in done.stderr
    assert ssn(stack) not in done.stderr
