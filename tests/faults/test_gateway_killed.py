"""How sessions end whose gateway cannot say it: kill -9, and a start again."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import psycopg
import pytest

from infra.devstack.plan import Options
from infra.devstack.shop import Size
from schemas import topics
from tests.conftest import running
from tests.e2e.stack import Stack, until
from tests.faults.cluster import alter

pytestmark = [pytest.mark.faults, pytest.mark.e2e, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    root = tmp_path_factory.mktemp("gateway")
    for _ in running(root / "stack", Options(gateways=1, size=Size(50, 100))):
        yield Stack(root / "stack")


def session(stack: Stack, name: str) -> list[tuple[str, str]]:
    """(outcome, reason) of the session with that application_name."""
    rows = stack.history(f"select outcome, reason from sessions where application = '{name}'")
    return [(row["outcome"], row["reason"]) for row in rows]


def statements(stack: Stack, name: str) -> list[tuple[str, str]]:
    """Its statements and their outcomes."""
    rows = stack.history(
        f"select statement, outcome from queries where application = '{name}' order by started_at"
    )
    return [(row["statement"], row["outcome"]) for row in rows]


def starts(stack: Stack) -> list[dict[str, Any]]:
    return stack.history("select instance, version, policy_digest from gateway_starts")


def test_another_stream_of_the_same_process_ends_nothing(stack: Stack) -> None:
    servers = stack.document["kafka"]["bootstrap_servers"]
    with stack.connect(application_name="idle") as idle, stack.connect() as busy:
        idle.execute("select 1")
        # An answer that no repetition mends is what ends a stream.
        alter(servers, topics.EVENTS, {"max.message.bytes": "1"})
        with pytest.raises(psycopg.Error, match="nothing was executed"):
            busy.execute("select 1")
        until(lambda: stack.metric("gatebook_journal_streams_total") > 2)
        alter(servers, topics.EVENTS, {"max.message.bytes": str(topics.MAX_RECORD_BYTES)})
        until(lambda: stack.ready() == 200)
        followed = "select JSONExtractString(details, 'follows') as name, stream from audit_events"
        [row] = until(
            lambda: [
                row
                for row in stack.history(f"{followed} where event_type = 'StreamBegan'")
                if row["name"]
            ]
        )
        # Of the streams in between nothing is in the book.
        streams = {row["stream"] for row in stack.history("select stream from chain_gaps")}
        assert {row["name"], row["stream"]} == streams
        assert len(starts(stack)) == 1
        assert session(stack, "idle") == [("open", "")]
        idle.execute("select 2")
    until(lambda: session(stack, "idle") == [("closed", "client_closed")])


def test_the_sessions_of_a_killed_gateway_are_lost_once_it_is_started_again(stack: Stack) -> None:
    before = len(until(lambda: starts(stack)))
    restarts = stack.process("gateway-1")["restarts"]
    stack.connect(application_name="ended").close()
    with closing(stack.connect(application_name="killed")) as killed:
        killed.execute("select 1")
        killed.pgconn.send_query(b"select pg_sleep(60)")
        until(lambda: len(statements(stack, "killed")) == 2)
        assert session(stack, "killed") == [("open", "")]
        assert statements(stack, "killed")[1] == ("select pg_sleep(60)", "unknown")
        stack.send("gateway-1", signal.SIGKILL)
        until(lambda: stack.served_again("gateway-1", restarts))
    until(lambda: len(starts(stack)) == before + 1)
    until(lambda: session(stack, "killed") == [("lost", "gateway_lost")])
    assert statements(stack, "killed") == [
        ("select 1", "completed"),
        ("select pg_sleep(60)", "lost"),
    ]
    assert session(stack, "ended") == [("closed", "client_closed")]
    made = starts(stack)
    assert len({row["instance"] for row in made}) == len(made)
    assert len({(row["version"], row["policy_digest"]) for row in made}) == 1
    with stack.connect(application_name="after") as after:
        after.execute("select 1")
        until(lambda: session(stack, "after") == [("open", "")])
