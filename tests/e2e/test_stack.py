"""A whole stack through the command line: every statement is in the history once, with its outcome,
and nothing classified is anywhere in clear.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from cli import clickhouse, tokens
from infra.devstack.postgres import remove_data
from infra.devstack.processes import identify
from tests.e2e import book
from tests.e2e.canaries import Cage, contents
from tests.e2e.release import release
from tests.e2e.stack import Stack, until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

GATEBOOK = str(Path(sys.executable).with_name("gatebook"))
SOON_S = 15.0
"""Seconds until a statement is in the history, on a machine that does other things as well."""


def gatebook(root: Path, *arguments: str) -> str:
    """Run the command line on the stack in `root`; what it printed."""
    done = subprocess.run(
        [GATEBOOK, *arguments],
        capture_output=True,
        text=True,
        timeout=150,
        env={**os.environ, "GATEBOOK_STATE_DIR": str(root)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    root = tmp_path_factory.mktemp("e2e") / "stack"
    try:
        gatebook(root, "up", "--detach")
        yield Stack(root)
    finally:
        gatebook(root, "down")
        remove_data(root)


def queries(stack: Stack, condition: str) -> list[dict[str, Any]]:
    """Rows of the view people read, once none of them is unfinished."""
    found = stack.history(f"select * from queries where {condition} order by started_at")
    unfinished = [row for row in found if (row["outcome"], row["error_code"]) == ("unknown", "")]
    return [] if unfinished else found


# --- the status ---


def test_the_status_has_the_promised_shape(stack: Stack) -> None:
    status = json.loads(gatebook(stack.root, "status", "--json"))
    assert set(status) == {
        "state_dir", "healthy", "processes", "gateways", "kafka", "clickhouse", "issuer", "ca_file",
        "targets",
    }  # fmt: skip
    assert status["healthy"] is True
    for process in status["processes"]:
        assert set(process) == {"name", "pid", "healthy", "restarts", "log_file"}
    assert len(status["gateways"]) == 2
    for gateway in status["gateways"]:
        assert set(gateway) == {"name", "postgres", "metrics_url"}
        assert set(gateway["postgres"]) == {"host", "port"}
    assert set(status["kafka"]) == {"bootstrap_servers"}
    assert set(status["clickhouse"]) == {"url", "user", "token_file", "vault_token_file"}
    assert set(status["issuer"]) == {"url"}
    assert [set(target) for target in status["targets"]] == [{"name", "direct_conninfo"}]


# --- every statement once, with its outcome ---


@pytest.mark.parametrize("gateway", [1, 2])
def test_a_statement_is_in_the_history_within_seconds(stack: Stack, gateway: int) -> None:
    marker = f"primrose-{secrets.token_hex(8)}"
    answer = gatebook(
        stack.root, "connect", "shop", "-u", "alice", "--gateway", str(gateway), "--",
        "-Atc", f"select '{marker}', count(*) from orders",
    )  # fmt: skip
    assert answer == f"{marker}|100000\n"
    sql = f"select * from queries where statement like '%{marker}%'"

    def found() -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = json.loads(
            gatebook(stack.root, "sql", sql, "--format", "json")
        )
        return [row for row in rows if row["outcome"] != "unknown"]

    [row] = until(found, SOON_S)
    assert set(row) == {
        "started_at", "actor", "groups", "agent", "client_ip", "application", "target",
        "session_id", "statement_id", "prepared_id", "statement", "decision", "policies", "outcome",
        "error_code", "rows", "bytes", "duration_ms", "gateway",
    }  # fmt: skip
    assert row["statement"] == f"select '{marker}', count(*) from orders"
    assert (row["actor"], row["groups"], row["agent"]) == ("alice", ["support"], "")
    assert (row["client_ip"], row["application"], row["target"]) == ("127.0.0.1", "psql", "shop")
    assert (row["decision"], row["policies"]) == ("ALLOW", ["support-reads"])
    assert (row["outcome"], row["error_code"], int(row["rows"])) == ("completed", "", 1)
    assert row["gateway"] == f"gateway-{gateway}"
    assert row["duration_ms"] > 0


def test_each_execution_of_a_prepared_statement_is_there_with_its_bind_values(stack: Stack) -> None:
    marker = f"primrose-{secrets.token_hex(8)}"
    with stack.connect(gateway=2) as session:
        for number in range(100):
            session.execute(f"select %s::int, '{marker}'", (number,), prepare=True)
    rows = until(lambda: _all(queries(stack, f"statement like '%{marker}%'"), 100), SOON_S)
    assert [row["outcome"] for row in rows] == ["completed"] * 100
    assert len({row["statement_id"] for row in rows}) == 100
    requested = stack.history(
        "select parameters from audit_events where event_type = 'Requested'"
        f" and action = 'execute' and statement like '%{marker}%' order by seq"
    )
    assert [[str(v) for v in json.loads(row["parameters"])] for row in requested] == [
        [str(number)] for number in range(100)
    ]


def _all(rows: list[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    assert len(rows) <= count, "more than once"
    return rows if len(rows) == count else []


def test_every_outcome_is_told_apart(stack: Stack) -> None:
    marker = f"primrose-{secrets.token_hex(8)}"
    with stack.connect("bob") as session:
        session.execute(f"select 'completed {marker}'")
        with pytest.raises(psycopg.errors.DivisionByZero):
            session.execute(f"select 1 / 0, 'failed {marker}'")
        cancelled = _in_a_thread(session, f"select pg_sleep(60), 'cancelled {marker}'")
        until(lambda: _executes(stack, f"cancelled {marker}"))
        session.cancel_safe()
        cancelled.join(30)
    with stack.connect("alice") as session, pytest.raises(psycopg.errors.InsufficientPrivilege):
        session.execute(f"delete from orders where status = 'denied {marker}'")
    with stack.connect("bob", gateway=2) as session:
        lost = _in_a_thread(session, f"select pg_sleep(3), 'lost {marker}'")
        until(lambda: _executes(stack, f"lost {marker}"))
        with socket.socket(fileno=os.dup(session.fileno())) as torn:
            torn.shutdown(socket.SHUT_RDWR)
        lost.join(30)
    rows = until(lambda: _all(queries(stack, f"statement like '%{marker}%'"), 5), SOON_S)
    found = {
        row["statement"].rpartition(f" {marker}")[0].rpartition("'")[2]: (
            row["decision"], row["outcome"], row["error_code"],
        )
        for row in rows
    }  # fmt: skip
    assert found == {
        "completed": ("ALLOW", "completed", ""),
        "failed": ("ALLOW", "failed", "22012"),
        "cancelled": ("ALLOW", "cancelled", "57014"),
        "denied": ("DENY", "denied", "42501"),
        "lost": ("ALLOW", "lost", ""),
    }


def _in_a_thread(session: psycopg.Connection[Any], query: str) -> threading.Thread:
    """Run what will not succeed."""

    def run() -> None:
        with pytest.raises(psycopg.Error):
            session.execute(query)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def _executes(stack: Stack, text: str) -> bool:
    with stack.direct() as direct:
        row = direct.execute(
            "select count(*) from pg_stat_activity"
            " where position(%s in query) > 0 and state = 'active' and pid <> pg_backend_pid()",
            (text,),
        ).fetchone()
    assert row is not None
    return bool(row[0])


def test_sessions_and_refused_sign_ins_are_there(stack: Stack) -> None:
    names = [f"primrose-{secrets.token_hex(4)}" for _ in range(3)]
    with stack.connect("alice", application_name=names[0]) as session:
        session.execute("select 1")
    with pytest.raises(psycopg.OperationalError, match="permission denied"):
        stack.connect("mallory", application_name=names[1])
    expired = tokens.demo_token(stack.state, stack.document, "bob", -60)
    with pytest.raises(psycopg.OperationalError) as refused:
        stack.connect("bob", application_name=names[2], password=expired)
    assert expired not in str(refused.value)

    def sessions() -> list[tuple[Any, ...]]:
        rows = stack.history(
            "select application, actor, outcome, reason, statements, ended_at is not null as ended"
            f" from sessions where application in {tuple(names)}"
        )
        return sorted((names.index(row["application"]), *list(row.values())[1:]) for row in rows)

    until(lambda: len(sessions()) == 3 and all(row[-1] for row in sessions()), SOON_S)
    first, second, third = sessions()
    assert first[1:4] == ("alice", "closed", "client_closed")
    assert int(first[4]) == 1
    assert second[1:3] == ("mallory", "refused")
    assert third[1:4] == ("", "login_failed", "expired")
    [event] = stack.history(
        f"select event_type, error_code, actor from audit_events where application = '{names[2]}'"
    )
    assert event == {"event_type": "AuthenticationFailed", "error_code": "28P01", "actor": ""}


def test_tail_follows_live(stack: Stack) -> None:
    marker = f"primrose-{secrets.token_hex(8)}"
    with subprocess.Popen(
        [GATEBOOK, "tail", "--state-dir", str(stack.root)], stdout=subprocess.PIPE, text=True
    ) as tail:
        assert tail.stdout is not None
        stop = threading.Event()

        def ask() -> None:
            # It prints what comes after it began, and does not say when that is.
            with stack.connect("carol") as session:
                while not stop.wait(0.2):
                    session.execute(f"select '{marker}'")

        asking = threading.Thread(target=ask)
        asking.start()
        try:
            line = next(line for line in tail.stdout if marker in line)
        finally:
            stop.set()
            asking.join()
            tail.send_signal(signal.SIGINT)
    assert "carol@shop" in line
    assert f"select '{marker}'" in line


# --- nothing classified in clear ---


def test_no_classified_value_and_no_token_is_anywhere_in_clear(stack: Stack) -> None:
    cage = Cage(int.from_bytes(secrets.token_bytes(8), "big"))
    marker = f"primrose-{secrets.token_hex(8)}"
    release(stack, cage)
    for name in ("alice", "bob", "carol", "mallory"):
        token = stack.token(name)
        cage.add("a token", [token, *token.split(".")[1:]])
    with stack.connect() as session:
        session.execute(f"select '{marker}'")
    until(lambda: queries(stack, f"statement like '%{marker}%'"), SOON_S)
    until(lambda: stack.metric("gatebook_connections") == 0)
    servers = stack.document["kafka"]["bootstrap_servers"]
    recorded = asyncio.run(book.every_record(servers))
    until(lambda: _counted(stack) >= sum(r.topic == "gatebook.events" for r in recorded), SOON_S)

    assert len(cage) > 150
    # The command line keeps the tokens of who signed in, as private files, and nothing else.
    files = [
        path
        for path in stack.root.rglob("*")
        if stack.state.sessions not in path.parents and stack.root / "postgres" not in path.parents
    ]
    scanned = list(contents(files))
    assert cage.escaped(scanned) == []
    topics = [
        (
            f"{record.topic}/{record.partition}/{record.offset}",
            b"\0".join(
                part for part in (record.key, record.value, *(h[1] for h in record.headers)) if part
            ),
        )
        for record in recorded
    ]
    assert cage.escaped(topics) == []
    history = clickhouse.query(stack.document, "select * from audit_events", "TabSeparatedRaw")
    assert cage.escaped([("audit_events", history.encode())]) == []
    assert cage.escaped(_processes(stack)) == []

    # The search finds what is there: the marker is no secret, and is where it must be.
    needle = marker.encode()
    assert marker in history
    assert any(needle in data for place, data in topics if place.startswith("gatebook.masked"))
    assert any(needle in data for place, data in scanned if "/gatebook.masked-" in place)
    assert not any(needle in data for place, data in topics if place.startswith("gatebook.events"))


def _counted(stack: Stack) -> int:
    return int(stack.history("select count() as n from audit_events")[0]["n"])


def _processes(stack: Stack) -> Iterator[tuple[str, bytes]]:
    """What other users of the machine, and other processes of ours, see of the stack's own."""
    for process in stack.document["processes"]:
        for name in ("cmdline", "environ"):
            yield f"{process['name']}'s {name}", Path(f"/proc/{process['pid']}/{name}").read_bytes()


# --- beside another, and gone ---


def test_a_second_stack_lives_beside_the_first_and_leaves_nothing(
    stack: Stack, tmp_path: Path
) -> None:
    other = Stack(tmp_path / "other")
    try:
        gatebook(other.root, "up", "--detach", "--gateways", "1")
        ports = _ports(other)
        assert not ports & _ports(stack)
        assert Counter(_listening(port) for port in ports) == {True: len(ports)}
        pids = [identify(process["pid"]) for process in other.document["processes"]]
        assert all(pids)
        marker = f"primrose-{secrets.token_hex(8)}"
        with other.connect("bob") as session:
            session.execute(f"select '{marker}'")
        until(lambda: queries(other, f"statement like '%{marker}%'"), SOON_S)
        assert queries(stack, f"statement like '%{marker}%'") == []
    finally:
        gatebook(other.root, "down")
        remove_data(other.root)
    assert _mentioning(other.root) == []
    assert Counter(_listening(port) for port in ports) == {False: len(ports)}
    assert json.loads(gatebook(stack.root, "status", "--json"))["healthy"]


def _ports(stack: Stack) -> set[int]:
    """Every port of a stack."""
    ports = json.loads((stack.root / "stack.json").read_text())["ports"]
    return {int(port) for port in ports.values()}


def _listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _mentioning(root: Path) -> list[str]:
    """Processes that have this folder in their arguments, environment or as working directory."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            seen = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
            seen += str((entry / "cwd").readlink()).encode()
        except OSError:
            continue
        if str(root).encode() in seen:
            found.append(entry.name)
    return found
