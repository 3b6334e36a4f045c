"""What people see: one row per statement, one per session."""

from __future__ import annotations

import json
import os
from typing import Any
from uuid import UUID

import pytest

from tests.sinks.conftest import Ask, Write
from tests.sinks.recorded import NOON, Stream, context, many

pytestmark = pytest.mark.integration

QUERIES = [
    "started_at", "actor", "groups", "agent", "client_ip", "application", "target", "session_id",
    "statement_id", "statement", "decision", "policies", "outcome", "error_code", "rows", "bytes",
    "duration_ms", "gateway", "prepared_id",
]  # fmt: skip
SESSIONS = [
    "session_id", "actor", "groups", "agent", "client_ip", "application", "target", "gateway",
    "started_at", "ended_at", "outcome", "reason", "statements", "denied", "failed", "rows",
    "bytes", "duration_ms",
]  # fmt: skip


def rows(ask: Ask, sql: str, names: list[str]) -> list[dict[str, Any]]:
    return [dict(zip(names, row, strict=True)) for row in ask(sql)]


def test_columns_and_their_order(ask: Ask) -> None:
    assert [row[0] for row in ask("DESCRIBE TABLE queries")] == QUERIES
    assert [row[0] for row in ask("DESCRIBE TABLE sessions")] == SESSIONS
    assert [row[0] for row in ask("DESCRIBE TABLE responses")][:3] == [
        "statement_id", "chunk", "rows",
    ]  # fmt: skip


def test_a_completed_statement(write: Write, ask: Ask) -> None:
    who = context(groups=["support", "eu"], agent="copilot")
    stream = Stream()
    statement_id = stream.statement(
        who, "completed", statement="SELECT '***'", rows=3, byte_count=99, duration_us=1500
    )
    write(stream.events)
    (row,) = rows(ask, "SELECT * FROM queries", QUERIES)
    assert row.pop("started_at").timestamp() * 1_000_000 == NOON
    assert row == {
        "actor": "alice",
        "groups": ["support", "eu"],
        "agent": "copilot",
        "client_ip": "10.1.2.3",
        "application": "psql",
        "target": "shop",
        "session_id": UUID(bytes=who.session_id),
        "statement_id": UUID(bytes=statement_id),
        "statement": "SELECT '***'",
        "decision": "ALLOW",
        "policies": ["support-reads"],
        "outcome": "completed",
        "error_code": "",
        "rows": 3,
        "bytes": 99,
        "duration_ms": 1.5,
        "gateway": "gateway-1",
        "prepared_id": UUID(int=0),
    }


@pytest.mark.parametrize(
    "outcome", ["completed", "failed", "denied", "cancelled", "lost", "unknown"]
)
def test_each_outcome(write: Write, ask: Ask, outcome: str) -> None:
    stream = Stream()
    decision = "DENY" if outcome == "denied" else "ALLOW"
    stream.statement(context(), outcome, decision=decision, error_code="42501")
    write(stream.events)
    assert ask("SELECT outcome, decision, error_code FROM queries") == [
        (outcome, decision, "42501")
    ]


@pytest.mark.parametrize("decision", ["ALLOW", "DENY", "HOLD", None])
def test_a_request_that_nobody_completed_is_unknown(
    write: Write, ask: Ask, decision: str | None
) -> None:
    stream = Stream()
    stream.statement(context(), None, decision=decision)
    write(stream.events)
    assert ask("SELECT outcome, decision FROM queries") == [("unknown", decision or "")]


@pytest.mark.parametrize("unknown_first", [True, False])
def test_unknown_wins_over_another_completion(write: Write, ask: Ask, unknown_first: bool) -> None:
    who, stream = context(), Stream()
    order = ["unknown", "completed"] if unknown_first else ["completed", "unknown"]
    statement_id = stream.statement(who, order[0], rows=5)
    stream.event("Completed", who, statement_id=statement_id, outcome=order[1], rows=5)
    write(stream.events)
    assert ask("SELECT outcome, rows FROM queries") == [("unknown", 5)]


def test_the_last_decision_counts(write: Write, ask: Ask) -> None:
    who, stream = context(), Stream()
    statement_id = stream.statement(who, None, decision="HOLD")
    stream.event("Decided", who, statement_id=statement_id, decision="DENY", policies=["reviewers"])
    stream.event("Completed", who, statement_id=statement_id, outcome="denied")
    write(stream.events)
    assert ask("SELECT decision, policies, outcome FROM queries") == [
        ("DENY", ["reviewers"], "denied")
    ]


def test_a_parse_is_a_query_only_when_it_was_refused_or_failed(write: Write, ask: Ask) -> None:
    who, stream = context(), Stream()
    stream.statement(who, "completed", action="prepare", statement="prepared")
    stream.statement(who, None, action="prepare", statement="prepared, then the gateway died")
    stream.statement(who, "failed", action="prepare", statement="failed")
    stream.statement(who, "denied", action="prepare", decision="DENY", statement="denied")
    stream.statement(who, None, action="prepare", decision="DENY", statement="refused")
    stream.statement(who, "completed", action="connect", statement="connect")
    stream.statement(who, "denied", action="connect", decision="DENY", statement="connect")
    stream.statement(who, "completed", statement="executed")
    write(stream.events)
    assert ask("SELECT statement, outcome FROM queries ORDER BY statement") == [
        ("denied", "denied"),
        ("executed", "completed"),
        ("failed", "failed"),
        ("refused", "unknown"),
    ]


@pytest.mark.parametrize(
    ("ip", "shown"),
    [
        ("1.2.3.4", "1.2.3.4"),
        ("2001:db8::1", "2001:db8::1"),
        ("2001::ffff:1", "2001::ffff:1"),
        ("", ""),
    ],
)
def test_addresses_are_readable(write: Write, ask: Ask, ip: str, shown: str) -> None:
    stream = Stream()
    stream.statement(context(ip=ip))
    write(stream.events)
    assert ask("SELECT client_ip FROM queries") == [(shown,)]
    assert ask("SELECT client_ip FROM sessions") == [(shown,)]


def test_responses_are_found_by_their_statement(write: Write, ask: Ask) -> None:
    who, stream = context(), Stream()
    statement_id = stream.statement(who, None)
    for chunk in range(3):
        stream.event(
            "Responded", who, statement_id=statement_id, chunk=chunk, rows=2, byte_count=7,
            response_rows=f'[{{"id": {chunk}}}]',
        )  # fmt: skip
    write(stream.events)
    found = ask(
        "SELECT chunk, responses.rows, row_count FROM queries "
        "JOIN responses USING (statement_id) ORDER BY chunk"
    )
    assert found == [(n, f'[{{"id": {n}}}]', 2) for n in range(3)]


def test_statements_of_two_sessions_are_kept_apart(write: Write, ask: Ask) -> None:
    stream = Stream()
    same = os.urandom(16)
    for who, outcome in ((context(actor="a"), "completed"), (context(actor="b"), "failed")):
        stream.event("Requested", who, statement_id=same, action="execute")
        stream.event("Completed", who, statement_id=same, outcome=outcome)
    write(stream.events)
    assert ask("SELECT actor, outcome FROM queries ORDER BY actor") == [
        ("a", "completed"),
        ("b", "failed"),
    ]


def session(stream: Stream, who: Any, *, opened: bool = True) -> None:
    stream.statement(who, None, action="connect")
    if opened:
        stream.event("SessionOpened", who)


def test_a_closed_session(write: Write, ask: Ask) -> None:
    who, stream = context(), Stream()
    session(stream, who)
    stream.statement(who, "completed", rows=3, byte_count=30)
    stream.statement(who, "completed", rows=4, byte_count=40)
    stream.statement(who, "failed")
    stream.statement(who, "denied", decision="DENY")
    stream.statement(who, "completed", action="prepare")
    closed = stream.event("SessionClosed", who, reason="client_closed", duration_us=15_000)
    write(stream.events)
    (row,) = rows(ask, "SELECT * FROM sessions", SESSIONS)
    assert row.pop("started_at").timestamp() * 1_000_000 == NOON
    assert row.pop("ended_at").timestamp() * 1_000_000 == closed.at
    assert row == {
        "session_id": UUID(bytes=who.session_id),
        "actor": "alice",
        "groups": ["support"],
        "agent": "",
        "client_ip": "10.1.2.3",
        "application": "psql",
        "target": "shop",
        "gateway": "gateway-1",
        "outcome": "closed",
        "reason": "client_closed",
        "statements": 4,
        "denied": 1,
        "failed": 1,
        "rows": 7,
        "bytes": 70,
        "duration_ms": (closed.at - NOON) / 1000,
    }


def test_an_open_session_has_no_end(write: Write, ask: Ask) -> None:
    who, stream = context(), Stream()
    session(stream, who)
    stream.statement(who, None)
    write(stream.events)
    assert ask("SELECT outcome, reason, ended_at, statements FROM sessions") == [
        ("open", "", None, 1)
    ]


OUTCOMES = "SELECT actor, outcome, reason, ended_at IS NULL FROM sessions ORDER BY actor"
STATEMENTS = "SELECT actor, outcome FROM queries ORDER BY actor, started_at"


def test_without_an_end_a_session_is_lost_once_its_gateway_was_started_again(
    write: Write, ask: Ask
) -> None:
    killed, other = Stream("gateway-1/a/0"), Stream("gateway-2/a/0")
    ended, left, elsewhere = context(actor="a"), context(actor="b"), context(gateway="gateway-2")
    for stream in (killed, other):
        stream.began()
    for stream, who in ((killed, ended), (killed, left), (other, elsewhere)):
        session(stream, who)
        stream.statement(who, "completed")
        stream.statement(who, None)
    killed.event("SessionClosed", ended, reason="client_closed")
    last = killed.statement(left, "unknown") and killed.events[-1]
    write([*killed.events, *other.events])
    before = [("a", "closed", "client_closed", 0), ("alice", "open", "", 1), ("b", "open", "", 1)]
    assert ask(OUTCOMES) == before
    again = Stream("gateway-1/b/0", at=killed.at)
    again.began()
    session(again, context(actor="c"))
    write(again.events, first=100)
    assert ask(OUTCOMES) == [*before[:2], ("b", "lost", "gateway_lost", 0), ("c", "open", "", 1)]
    ((end,),) = ask("SELECT ended_at FROM sessions WHERE actor = 'b'")
    assert end.timestamp() * 1_000_000 == last.at
    mine = [outcome for actor, outcome in ask(STATEMENTS) if actor == "b"]
    assert mine == ["completed", "lost", "unknown"], "what was recorded as unknown stays so"
    assert ("alice", "unknown") in ask(STATEMENTS)


def test_a_process_that_goes_on_in_another_stream_loses_nothing(write: Write, ask: Ask) -> None:
    old, who = Stream("gateway-1/a/0"), context()
    old.began()
    session(old, who)
    old.statement(who, None)
    new = Stream("gateway-1/b/0", at=old.at)
    new.began(follows=old.name)
    write([*old.events, *new.events])
    assert ask(OUTCOMES) == [("alice", "open", "", 1)]
    assert ask(STATEMENTS) == [("alice", "unknown")]
    assert ask("SELECT count(), any(gateway), any(version) FROM gateway_starts") == [
        (1, "gateway-1", "1")
    ]


def test_what_comes_after_the_other_process_began_counts(write: Write, ask: Ask) -> None:
    """A rolling restart: the old process says how its sessions ended when the new one runs."""
    draining, new, who = Stream("gateway-1/a/0"), Stream("gateway-1/b/0"), context()
    draining.began()
    session(draining, who)
    running = draining.statement(who, None)
    new.at = draining.at
    new.began()
    write([*draining.events, *new.events])
    assert ask(OUTCOMES) == [("alice", "lost", "gateway_lost", 0)]
    rest = Stream(draining.name, at=new.at, seq=draining.seq)
    rest.event("Completed", who, statement_id=running, outcome="cancelled")
    write(rest.events, first=100)
    assert ask(OUTCOMES) == [("alice", "open", "", 1)]
    rest.event("SessionClosed", who, reason="shutdown")
    write(rest.events[1:], first=200)
    assert ask(OUTCOMES) == [("alice", "closed", "shutdown", 0)]
    assert ask(STATEMENTS) == [("alice", "cancelled")]


def test_a_refused_connection(write: Write, ask: Ask) -> None:
    who, stream = context(actor="mallory", groups=[]), Stream()
    stream.statement(who, "denied", action="connect", decision="DENY")
    stream.event("SessionClosed", who, reason="denied")
    write(stream.events)
    assert ask("SELECT actor, outcome, reason, statements, denied FROM sessions") == [
        ("mallory", "refused", "because", 0, 0)
    ]
    assert ask("SELECT count() FROM queries") == [(0,)]


def test_a_denied_statement_does_not_make_a_session_refused(write: Write, ask: Ask) -> None:
    who, stream = context(), Stream()
    session(stream, who)
    stream.statement(who, "denied", decision="DENY")
    write(stream.events)
    assert ask("SELECT outcome, denied FROM sessions") == [("open", 1)]


def test_a_failed_sign_in(write: Write, ask: Ask) -> None:
    who, stream = context(actor="", groups=[]), Stream()
    stream.event("AuthenticationFailed", who, reason="expired", error_code="28000")
    write(stream.events)
    assert ask("SELECT actor, outcome, reason, statements, ended_at IS NOT NULL FROM sessions") == [
        ("", "login_failed", "expired", 0, 1)
    ]


def test_what_gateways_and_auditors_record_is_no_session(write: Write, ask: Ask) -> None:
    stream = Stream()
    stream.began()
    for kind in ("PolicyLoaded", "TargetsLoaded", "ClassificationChanged", "OneOfTheFuture"):
        stream.own(kind, details="{}")
    for kind in ("Unsealed", "ShareGiven", "Erased"):
        stream.event(kind, context(actor="carol", target=""), reason="case 4711")
    session(stream, context())
    write(stream.events)
    assert ask("SELECT actor, outcome FROM sessions") == [("alice", "open")]


def test_loads_of_targets(write: Write, ask: Ask) -> None:
    stream = Stream()
    details = {"added": ["a"], "changed": ["b", 'c"'], "digest": "ab", "removed": [], "targets": 3}
    stream.own("TargetsLoaded", outcome="loaded", details=json.dumps(details))
    details = {"added": [], "changed": [], "digest": "ab", "removed": [], "targets": 3}
    stream.own("TargetsLoaded", outcome="failed", reason="why", details=json.dumps(details))
    write(stream.events)
    columns = "gateway, outcome, digest, reason, added, changed, removed, targets"
    assert ask(f"SELECT {columns} FROM target_loads ORDER BY loaded_at") == [
        ("gateway-1", "loaded", "ab", "", ["a"], ["b", 'c"'], [], 3),
        ("gateway-1", "failed", "ab", "why", [], [], [], 3),
    ]


def test_gaps_are_seen_and_counted(write: Write, ask: Ask) -> None:
    stream = Stream("gateway-1/a/0")
    for _ in range(10):
        stream.event("Requested", context())
    kept = [event for event in stream.events if event.seq not in (0, 4, 5)]
    write(kept[:3], first=10)
    write(kept[3:], first=20)
    write(kept[-1:], first=30, partition=1)
    assert ask("SELECT stream, events, missing, duplicates FROM chain_gaps") == [
        ("gateway-1/a/0", 8, 3, 1)
    ]
    offsets = "SELECT kafka_partition, lo, hi, n, uniq, missing, dup FROM offset_gaps ORDER BY 1"
    assert ask(offsets) == [(0, 10, 23, 7, 7, 7, 0), (1, 30, 30, 1, 1, 0, 0)]


def test_a_whole_load_has_one_row_per_statement(write: Write, ask: Ask) -> None:
    write(many(500, "gateway-1/a/0", sessions=8))
    counts = "count(), uniqExact(statement_id), countIf(outcome = 'completed')"
    assert ask(f"SELECT {counts} FROM queries") == [(500, 500, 500)]
    assert ask("SELECT count(), sum(statements), sum(rows) FROM sessions") == [(8, 500, 500)]
    assert ask("SELECT events, missing, duplicates FROM chain_gaps") == [(2000, 0, 0)]
    assert ask("SELECT DISTINCT statements IN (62, 63) FROM sessions") == [(1,)]


def test_conditions_reach_the_scans(write: Write, ask: Ask) -> None:
    # Over 10 million events these conditions must not aggregate the whole history first.
    write(many(20, "gateway-1/a/0"))
    some = str(ask("SELECT session_id FROM queries LIMIT 1")[0][0])
    for condition, column in (
        (f"session_id = '{some}'", "session_id"),
        ("actor = 'user1'", "actor"),
        ("started_at >= '2026-09-21 00:00:00'", "ts"),
    ):
        plan = "\n".join(
            row[0]
            for row in ask(f"EXPLAIN actions = 1 SELECT count() FROM queries WHERE {condition}")
        )
        scans = plan.split("ReadFromMergeTree")[1:]
        assert any(column in scan for scan in scans), plan
