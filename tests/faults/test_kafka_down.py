"""Kafka stopped, killed, read-only or slow: nothing runs that is not in the book, and the client
is told so; what ran already is withheld, and the history says that nobody knows.
"""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
import yaml

from gateway.protocols.postgres.startup import NOT_DURABLE_TEXT
from infra.devstack.plan import Options
from infra.devstack.shop import Size
from schemas import topics
from tests.conftest import running
from tests.e2e import book
from tests.e2e.stack import Stack, until
from tests.faults.cluster import alter

pytestmark = [pytest.mark.faults, pytest.mark.e2e, pytest.mark.timeout(240)]

DEADLINE_S = 1.0
SLACK_S = 4.0
"""For a machine of two cores that does other things as well."""
OUT_OF_SERVICE = "58030"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    root = tmp_path_factory.mktemp("down")
    config = root / "over.yaml"
    config.write_text(f"gateway: {{journal: {{deadline_s: {DEADLINE_S}}}}}\n")
    for _ in running(root / "stack", Options(gateways=1, config=config, size=Size(50, 100))):
        yield begun(Stack(root / "stack"))


def begun(stack: Stack) -> Stack:
    """With something to find in the history while Kafka is away."""
    stack.connect().close()
    until(lambda: bool(stack.history("select 1 from audit_events limit 1")))
    return stack


@pytest.fixture
def session(stack: Stack) -> Iterator[psycopg.Connection[Any]]:
    with stack.connect() as connection:
        yield connection


@pytest.fixture
def table(stack: Stack, request: pytest.FixtureRequest) -> Iterator[str]:
    """A table of one column, made and dropped past the gateway."""
    name = "t_" + "".join(c if c.isalnum() else "_" for c in request.node.name.lower())[-50:]
    with stack.direct() as direct:
        direct.execute(f"create table {name} (a int)")
    yield name
    with stack.direct() as direct:
        direct.execute(f"drop table {name}")


def rows(stack: Stack, table: str) -> list[int]:
    with stack.direct() as direct:
        return [row[0] for row in direct.execute(f"select a from {table} order by a")]


def outcomes(stack: Stack, statement: str) -> list[tuple[str, str]]:
    """(outcome, SQLSTATE) of each execution of a statement, in the history."""
    found = stack.history(
        "select outcome, error_code from queries"
        f" where statement = '{statement}' order by started_at"
    )
    return [(row["outcome"], row["error_code"]) for row in found]


@contextmanager
def frozen(stack: Stack) -> Iterator[None]:
    """Kafka as if its machine had hung: connections stay open and nobody answers."""
    pid = stack.process("kafka")["pid"]
    stack.send("kafka", signal.SIGSTOP)
    # A thread that runs on another core answers until it has heard of it.
    until(lambda: all(state == "T" for state in _threads(pid)), pause_s=0.001)
    try:
        yield
    finally:
        stack.send("kafka", signal.SIGCONT)


def _threads(pid: int) -> list[str]:
    """States of a process's threads, as /proc has them."""
    return [
        stat.read_text().rpartition(")")[2].split()[0]
        for stat in Path(f"/proc/{pid}/task").glob("*/stat")
    ]


@contextmanager
def killed(stack: Stack) -> Iterator[None]:
    """Kafka gone, and started again by its supervisor."""
    restarts = stack.process("kafka")["restarts"]
    stack.send("kafka", signal.SIGKILL)
    yield
    until(lambda: stack.served_again("kafka", restarts))


@contextmanager
def read_only(stack: Stack) -> Iterator[None]:
    """Every write is refused by the broker with an error, every read answered."""
    _largest_record(stack, 1)
    try:
        yield
    finally:
        _largest_record(stack, topics.MAX_RECORD_BYTES)


def _largest_record(stack: Stack, size: int) -> None:
    servers = stack.document["kafka"]["bootstrap_servers"]
    alter(servers, topics.EVENTS, {"max.message.bytes": str(size)})


FAULTS = pytest.mark.parametrize("fault", [frozen, killed, read_only])


def refused(connection: psycopg.Connection[Any], query: str, parameters: Any = None) -> str:
    """Run what must be refused, in time; the error's text."""
    began = time.monotonic()
    with pytest.raises(psycopg.Error) as caught:
        connection.execute(query, parameters)
    assert time.monotonic() - began < DEADLINE_S + SLACK_S
    assert caught.value.sqlstate == OUT_OF_SERVICE
    return str(caught.value)


def resumes(connection: psycopg.Connection[Any], query: str) -> None:
    """Run it until it is not refused any more, on the same connection."""

    def works() -> bool:
        try:
            connection.execute(query)
        except psycopg.Error as error:
            assert error.sqlstate == OUT_OF_SERVICE, error
            return False
        return True

    until(works)


@FAULTS
def test_a_statement_is_refused_the_target_untouched_and_the_session_goes_on(
    stack: Stack, session: psycopg.Connection[Any], table: str, fault: Any
) -> None:
    session.execute(f"insert into {table} values (1)")
    backend = session.info.backend_pid
    with fault(stack):
        simple, extended = f"insert into {table} values (2)", f"insert into {table} values (%s)"
        assert NOT_DURABLE_TEXT in refused(session, simple)
        if fault is not killed:  # it is up again too soon for more
            assert NOT_DURABLE_TEXT in refused(session, extended, (3,))
            assert stack.ready() == 503
            with pytest.raises(psycopg.OperationalError, match=NOT_DURABLE_TEXT):
                stack.connect()
        assert rows(stack, table) == [1]
        assert not session.closed
        # What is in the history already can be read all the while.
        assert stack.history("select 1 as one from audit_events limit 1") == [{"one": 1}]
    resumes(session, f"insert into {table} values (4)")
    assert session.info.backend_pid == backend
    assert rows(stack, table) == [1, 4]
    until(lambda: stack.ready() == 200)
    # What was refused is in the book, too, as soon as there is one again.
    until(lambda: outcomes(stack, simple) == [("failed", OUT_OF_SERVICE)])
    if fault is not killed:
        statement = extended.replace("%s", "$1")
        until(lambda: outcomes(stack, statement) == [("failed", OUT_OF_SERVICE)])
    last = f"insert into {table} values (4)"
    until(lambda: outcomes(stack, last)[-1:] == [("completed", "")])


@FAULTS
def test_a_transaction_ends_with_its_connection_and_nothing_is_committed(
    stack: Stack, session: psycopg.Connection[Any], table: str, fault: Any
) -> None:
    session.execute("begin")
    session.execute(f"insert into {table} values (1)")
    with fault(stack):
        text = refused(session, f"insert into {table} values (2)")
        assert text.startswith(("FATAL", NOT_DURABLE_TEXT))
        assert session.closed
        assert rows(stack, table) == []
        until(lambda: not backends(stack, table))
    with stack.connect() as again:
        resumes(again, f"insert into {table} values (3)")
    assert rows(stack, table) == [3]


def backends(stack: Stack, text: str, waiting: bool = False) -> int:
    """Sessions at the target whose last statement holds this text (and waits for a lock)."""
    with stack.direct() as direct:
        found = direct.execute(
            "select count(*) from pg_stat_activity"
            " where position(%s in query) > 0 and pid <> pg_backend_pid()"
            " and (wait_event_type = 'Lock' or not %s)",
            (text, waiting),
        ).fetchone()
    assert found is not None
    return int(found[0])


@FAULTS
def test_a_response_that_cannot_be_recorded_is_withheld_and_its_outcome_is_unknown(
    stack: Stack, session: psycopg.Connection[Any], table: str, fault: Any
) -> None:
    statement = f"insert into {table} select 1 where pg_advisory_lock(7) is not null returning a"
    with stack.direct() as direct:
        direct.execute("select pg_advisory_lock(7)")
        failure: list[psycopg.Error] = []
        returned: list[Any] = []

        def client() -> None:
            try:
                returned.append(session.execute(statement).fetchall())
            except psycopg.Error as error:
                failure.append(error)

        thread = threading.Thread(target=client)
        thread.start()
        until(lambda: backends(stack, table, waiting=True))
        with fault(stack):
            direct.execute("select pg_advisory_unlock(7)")
            until(lambda: rows(stack, table) == [1])
            thread.join(30)
        assert not thread.is_alive()
    assert returned == []
    [error] = failure
    assert error.sqlstate == OUT_OF_SERVICE
    assert "may have run" in str(error)
    assert session.closed
    with stack.connect() as again:
        resumes(again, "select 'service resumes'")
    until(lambda: outcomes(stack, statement) == [("unknown", OUT_OF_SERVICE)])


def test_a_slow_kafka_delays_statements_and_refuses_none(
    stack: Stack, session: psycopg.Connection[Any], table: str
) -> None:
    with frozen(stack):
        thread = threading.Thread(target=session.execute, args=(f"insert into {table} values (1)",))
        thread.start()
        until(lambda: stack.metric("gatebook_journal_queued_bytes") > 0, pause_s=0.01)
        assert rows(stack, table) == []
    thread.join(30)
    assert not session.closed
    assert rows(stack, table) == [1]


def test_after_all_of_it_the_book_is_whole_and_in_the_history_once(stack: Stack) -> None:
    servers = stack.document["kafka"]["bootstrap_servers"]
    assert stack.process("clickhouse")["restarts"] == 0
    until(lambda: stack.metric("gatebook_connections") == 0)
    entries = asyncio.run(book.read(servers, stack.state.keys))
    lengths = book.check_chains(entries)
    # A producer that was refused is not used again, and what follows is a new stream.
    assert len(lengths) > 1
    recorded = {str(UUID(bytes=entry.event.event_id)): 1 for entry in entries}

    def history() -> dict[str, int]:
        found = stack.history(
            "select toString(event_id) as id, count() as n from audit_events group by id"
        )
        return {row["id"]: int(row["n"]) for row in found}

    until(lambda: len(history()) >= len(recorded))
    assert history() == recorded
    assert asyncio.run(book.count(servers, topics.DEAD_LETTERS)) == 0


def test_targets_that_change_meanwhile_are_the_old_ones_until_that_is_in_the_book(
    stack: Stack, table: str
) -> None:
    config = stack.state.config_file
    before = config.read_text()
    document = yaml.safe_load(before)
    document["targets"][0]["classified"][f"public.{table}.a"] = {"class": "pii"}
    with stack.direct() as owner:
        owner.execute(f"insert into {table} values (4711)")

    def ended() -> bool:
        try:
            alice.execute("select 1")
        except psycopg.OperationalError as error:
            return error.sqlstate != OUT_OF_SERVICE
        return False

    with stack.connect("alice") as alice:
        with frozen(stack):
            config.write_text(yaml.safe_dump(document))
            until(lambda: stack.metric("gatebook_targets_current") == 0)
            until(lambda: "targets_wait_for_the_journal" in stack.log("gateway-1"))
            assert not alice.closed
            # Nothing of it is said, and nothing hangs: whoever asks is told as always.
            refused(alice, "select 1")
        until(lambda: stack.metric("gatebook_targets_current") == 1)
        until(ended)
    with stack.connect("alice") as alice:
        # A number that is masked in full is none.
        assert alice.execute(f"select a from {table}").fetchone() == (None,)
    config.write_text(before)
    until(lambda: stack.history("select 1 from target_loads where outcome = 'loaded'")[2:])
