"""Targets and clients that die, hang, cancel or do not read: the right SQLSTATE, the right outcome
in the history, bounded memory, and nobody else disturbed.
"""

from __future__ import annotations

import os
import resource
import signal
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import psycopg
import pytest

from gateway.protocols.postgres import wire
from infra.devstack.plan import Options
from infra.devstack.shop import Size
from infra.devstack.state import supervisor_of
from tests.conftest import running
from tests.e2e.stack import Stack, until

pytestmark = [pytest.mark.faults, pytest.mark.e2e, pytest.mark.timeout(240)]

HALF_OPEN = 10_000
SPARE_FILES = 1_000
MEMORY_LIMIT = 256 * 1024 * 1024
REMAINDER = 64 * 1024 * 1024
LOGIN_TIMEOUT_S = 10
ENDLESS = (
    "select g, (select string_agg(md5((g * i)::text), '') from generate_series(1, 32) i)"
    " from generate_series(1, 1000000) g"
)
"""A gigabyte that hardly compresses."""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    root = tmp_path_factory.mktemp("target")
    config = root / "over.yaml"
    listener = f"{{login_timeout_s: {LOGIN_TIMEOUT_S}, max_logins: {2 * HALF_OPEN}}}"
    config.write_text(f"gateway: {{postgres: {listener}}}\n")
    for _ in running(root / "stack", Options(gateways=1, config=config, size=Size(50, 100))):
        yield Stack(root / "stack")


@pytest.fixture
def session(stack: Stack) -> Iterator[psycopg.Connection[Any]]:
    # The test before may have crashed the target.
    with until(lambda: served(stack)) as connection:
        yield connection


def served(stack: Stack) -> psycopg.Connection[Any] | None:
    try:
        return stack.connect()
    except psycopg.OperationalError:
        return None


def backend(session: psycopg.Connection[Any]) -> int:
    """The target's process behind a session."""
    row = session.execute("select pg_backend_pid()").fetchone()
    assert row is not None
    return int(row[0])


def quoted(text: str) -> str:
    """Inside a string of ClickHouse."""
    return text.replace("'", "''")


def ends(stack: Stack, query: str) -> list[tuple[str, str]]:
    """(outcome, SQLSTATE) of each execution of a query; nothing while one of them goes on."""
    found = stack.history(
        "select outcome, error_code from queries"
        f" where statement = '{quoted(query)}' order by started_at"
    )
    outcomes = [(row["outcome"], row["error_code"]) for row in found]
    return [] if ("unknown", "") in outcomes else outcomes


def executing(stack: Stack, query: str) -> bool:
    """Whether the target executes it now."""
    with stack.direct() as direct:
        row = direct.execute(
            "select count(*) from pg_stat_activity where query = %s and state = 'active'", (query,)
        ).fetchone()
    assert row is not None
    return bool(row[0])


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


# --- the target ---


def test_a_target_that_dies_in_the_middle_of_a_result(
    stack: Stack, session: psycopg.Connection[Any]
) -> None:
    query = "select g, repeat('x', 100) from generate_series(1, 5000000) g"
    pid = backend(session)
    rows = 0
    with pytest.raises(psycopg.OperationalError) as caught:
        for _ in session.cursor().stream(query):
            rows += 1
            if rows == 1000:
                os.kill(pid, signal.SIGKILL)
    assert 1000 <= rows < 5_000_000
    assert caught.value.sqlstate == "08006"
    assert session.closed
    assert until(lambda: ends(stack, query)) == [("lost", "08006")]
    # What the client saw was recorded before.
    [row] = stack.history(f"select rows from queries where statement = '{quoted(query)}'")
    assert rows <= int(row["rows"]) < 5_000_000
    until(lambda: served(stack)).close()


def test_a_target_that_ends_the_session_says_so_itself(
    stack: Stack, session: psycopg.Connection[Any]
) -> None:
    query = "select pg_sleep(60), 'to be terminated'"
    pid = backend(session)
    failure: list[psycopg.Error] = []
    thread = threading.Thread(target=fails, args=(session, query, failure))
    thread.start()
    until(lambda: executing(stack, query))
    terminate(stack, pid)
    thread.join(30)
    assert [error.sqlstate for error in failure] == ["57P01"]
    assert session.closed
    assert until(lambda: ends(stack, query)) == [("failed", "57P01")]


def fails(session: psycopg.Connection[Any], query: str, failure: list[psycopg.Error]) -> None:
    """Run a query, in a thread of its own, and keep the error."""
    try:
        session.execute(query)
    except psycopg.Error as error:
        failure.append(error)


def terminate(stack: Stack, pid: int) -> None:
    with stack.direct() as direct:
        direct.execute("select pg_terminate_backend(%s)", (pid,))


def test_a_target_that_dies_between_statements_ends_the_session(
    stack: Stack, session: psycopg.Connection[Any]
) -> None:
    pid = backend(session)
    terminate(stack, pid)
    until(lambda: gone(pid))
    with pytest.raises(psycopg.OperationalError):
        session.execute("select 'nobody is there'")
    assert session.closed
    # It did not run, and is not among what did.
    assert ends(stack, "select 'nobody is there'") == []


@contextmanager
def unsupervised(stack: Stack) -> Iterator[None]:
    """Nothing is started again meanwhile."""
    supervisor = supervisor_of(stack.state)
    assert supervisor is not None
    os.kill(supervisor.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(supervisor.pid, signal.SIGCONT)


def test_a_target_that_is_down_at_connect(stack: Stack) -> None:
    pid = stack.pid("postgres")
    with unsupervised(stack):
        os.kill(pid, signal.SIGKILL)
        _cannot_connect(stack, "nobody-listens")
    until(lambda: served(stack)).close()
    _connect_is_in_the_history(stack, "nobody-listens")


def test_a_target_that_accepts_and_says_nothing(stack: Stack) -> None:
    stack.send("postgres", signal.SIGSTOP)
    try:
        _cannot_connect(stack, "says-nothing")
    finally:
        stack.send("postgres", signal.SIGCONT)
    until(lambda: served(stack)).close()
    _connect_is_in_the_history(stack, "says-nothing")


def _cannot_connect(stack: Stack, application: str) -> None:
    with pytest.raises(psycopg.OperationalError, match='target "shop" cannot be reached'):
        stack.connect(application_name=application)


def _connect_is_in_the_history(stack: Stack, application: str) -> None:
    def found() -> list[tuple[str, str, str, str]]:
        rows = stack.history(
            "select event_type, outcome, error_code, reason from audit_events"
            f" where application = '{application}' order by seq"
        )
        return [
            (row["event_type"], row["outcome"], row["error_code"], row["reason"]) for row in rows
        ]

    until(lambda: len(found()) == 4)
    requested, decided, completed, closed = found()
    assert (requested[0], decided[0]) == ("Requested", "Decided")
    assert completed == ("Completed", "failed", "08001", "")
    assert closed == ("SessionClosed", "", "", "target_refused")


# --- the client ---


def test_a_client_killed_in_the_middle_of_a_result(stack: Stack) -> None:
    with subprocess.Popen(
        ["psql", "--no-psqlrc", "-Atq", "-v", "FETCH_COUNT=100", "-c", ENDLESS],
        env=stack.environment("bob"),
        stdout=subprocess.PIPE,
    ) as client:
        assert client.stdout is not None
        assert client.stdout.read(2) == b"1|"
        client.kill()
    # psql declares a cursor, in a transaction: nothing of it is left at the target.
    until(lambda: not cursors(stack))
    until(lambda: stack.metric("gatebook_connections") == 0)
    ended = "select reason from sessions where application = 'psql' and reason != ''"
    [row] = until(lambda: stack.history(ended))
    assert row["reason"] == "client_lost"


def cursors(stack: Stack) -> int:
    """Sessions of gateways that are in a transaction at the target."""
    with stack.direct() as direct:
        row = direct.execute(
            "select count(*) from pg_stat_activity"
            " where xact_start is not null and pid <> pg_backend_pid() and usename = current_user"
        ).fetchone()
    assert row is not None
    return int(row[0])


def test_a_client_that_vanishes_in_a_transaction_commits_nothing(
    stack: Stack, session: psycopg.Connection[Any]
) -> None:
    query = "select pg_sleep(2), 'vanishes'"
    session.execute("create table vanished (a int)")
    session.execute("begin")
    session.execute("insert into vanished values (1)")
    thread = threading.Thread(target=fails, args=(session, query, []))
    thread.start()
    until(lambda: executing(stack, query))
    tear(session)
    thread.join(30)
    assert until(lambda: ends(stack, query)) == [("lost", "")]
    until(lambda: not executing(stack, query))
    with stack.direct() as direct:
        assert direct.execute("select count(*) from vanished").fetchone() == (0,)


def tear(session: psycopg.Connection[Any]) -> None:
    """End a connection as a broken network does."""
    with socket.socket(fileno=os.dup(session.fileno())) as torn:
        torn.shutdown(socket.SHUT_RDWR)


def test_cancel_reaches_the_statement_and_the_session_goes_on(
    stack: Stack, session: psycopg.Connection[Any]
) -> None:
    query = "select pg_sleep(60), 'to be cancelled'"
    failure: list[psycopg.Error] = []
    thread = threading.Thread(target=fails, args=(session, query, failure))
    thread.start()
    until(lambda: executing(stack, query))
    session.cancel_safe()
    thread.join(30)
    assert [error.sqlstate for error in failure] == ["57014"]
    assert session.execute("select 1").fetchone() == (1,)
    assert until(lambda: ends(stack, query)) == [("cancelled", "57014")]


def test_psql_cancels_with_ctrl_c(stack: Stack) -> None:
    query = "select pg_sleep(60), 'ctrl-c'"
    with subprocess.Popen(
        ["psql", "--no-psqlrc", "-Atc", query],
        env=stack.environment("bob"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as client:
        until(lambda: executing(stack, query))
        client.send_signal(signal.SIGINT)
        out, err = client.communicate(timeout=30)
    assert "canceling statement due to user request" in err
    assert out == ""
    assert until(lambda: ends(stack, query)) == [("cancelled", "57014")]


def test_a_cancel_key_that_is_wrong_cancels_nothing(
    stack: Stack, session: psycopg.Connection[Any]
) -> None:
    query = "select pg_sleep(1), 'goes on'"
    address = stack.document["gateways"][0]["postgres"]
    failure: list[psycopg.Error] = []
    thread = threading.Thread(target=fails, args=(session, query, failure))
    thread.start()
    until(lambda: executing(stack, query))
    for process_id in (session.info.backend_pid, 1):
        request = struct.pack(">III", 16, wire.CANCEL_REQUEST, process_id) + bytes(4)
        with socket.create_connection((address["host"], address["port"])) as forger:
            forger.sendall(request)
            assert forger.recv(1) == b""
    thread.join(30)
    assert failure == []
    assert until(lambda: ends(stack, query)) == [("completed", "")]


def test_a_client_that_never_reads_costs_little_memory_and_holds_nobody_up(
    stack: Stack, session: psycopg.Connection[Any]
) -> None:
    with ExitStack() as ending:
        lazy = stack.connect()
        ending.callback(lazy.close)
        lazy.pgconn.send_query(ENDLESS.encode())
        lazy.pgconn.flush()
        assert peak_until_stalled(stack, session) <= MEMORY_LIMIT
        tear(lazy)
    assert until(lambda: ends(stack, ENDLESS)) == [("lost", "")]
    # What it did not read is in the book only as far as it was on its way.
    [row] = stack.history(f"select rows from queries where statement = '{quoted(ENDLESS)}'")
    assert 1_000 < int(row["rows"]) < 100_000
    until(lambda: not executing(stack, ENDLESS))


def test_a_client_that_pauses_reads_on_where_it_stopped(
    stack: Stack, session: psycopg.Connection[Any]
) -> None:
    query = ENDLESS.replace("1000000", "20000")
    with stack.connect() as slow:
        rows = slow.cursor().stream(query)
        first = next(rows)
        assert peak_until_stalled(stack, session) <= MEMORY_LIMIT
        assert executing(stack, query)
        numbers = [first[0], *(row[0] for row in rows)]
    assert numbers == list(range(1, 20_001))
    assert until(lambda: ends(stack, query)) == [("completed", "")]


def peak_until_stalled(stack: Stack, other: psycopg.Connection[Any]) -> int:
    """The gateway's memory while it passes on what nobody reads, until it passes on no more.

    `other` must be served all the while.
    """
    peak = quiet = 0
    before = stack.metric("gatebook_journal_bytes_total")
    while quiet < 5:
        assert other.execute("select 'served'").fetchone() == ("served",)
        peak = max(peak, stack.resident_bytes("gateway-1"))
        time.sleep(0.1)
        after = stack.metric("gatebook_journal_bytes_total")
        # The other session's statements go into the book, too; a chunk of rows is far larger.
        quiet = quiet + 1 if after - before < 20_000 else 0
        before = after
    return peak


# --- ten thousand that never sign in ---


def test_ten_thousand_half_open_connections_hold_nobody_up(
    stack: Stack, session: psycopg.Connection[Any]
) -> None:
    address = stack.document["gateways"][0]["postgres"]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    count = min(HALF_OPEN, hard - SPARE_FILES)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    memory, files = stack.resident_bytes("gateway-1"), stack.open_files("gateway-1")
    try:
        with ExitStack() as opened:
            sockets = [opened.enter_context(_half_open(address, n)) for n in range(count)]
            until(lambda: stack.open_files("gateway-1") >= files + count)
            assert stack.resident_bytes("gateway-1") <= MEMORY_LIMIT
            assert session.execute("select 'served'").fetchone() == ("served",)
            with stack.connect() as another:
                assert another.execute("select 'served'").fetchone() == ("served",)
            # Who does not sign in is not waited for.
            for waiting in sockets[:4]:
                waiting.settimeout(LOGIN_TIMEOUT_S + 30)
                assert waiting.recv(1) in (b"", b"S")
        until(lambda: stack.open_files("gateway-1") <= files + 10)
        until(lambda: stack.resident_bytes("gateway-1") <= memory + REMAINDER)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _half_open(address: dict[str, Any], number: int) -> socket.socket:
    """Connected; most have said nothing, some have begun and stopped somewhere."""
    made = socket.create_connection((address["host"], address["port"]))
    match number % 20:
        case 1:
            made.sendall(struct.pack(">I", 8))
        case 2:
            made.sendall(struct.pack(">II", 8, wire.SSL_REQUEST))
        case 3:
            made.sendall(struct.pack(">II", 8, wire.SSL_REQUEST))
            assert made.recv(1) == b"S"
            # The head of a TLS record that does not come.
            made.sendall(bytes.fromhex("1603010200"))
    return made
