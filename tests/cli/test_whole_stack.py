"""A whole system through the command line: up, sign in, query, look it up, kill, down."""

from __future__ import annotations

import json
import os
import re
import signal
import ssl
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from cli import clickhouse
from infra.devstack import status
from infra.devstack.postgres import remove_data
from infra.devstack.processes import alive, identify
from infra.devstack.state import StateDir

pytestmark = pytest.mark.e2e

GATEBOOK = str(Path(sys.executable).with_name("gatebook"))
NEEDLE = (
    "select actor, groups, statement, decision, outcome, rows from queries"
    " where statement like '%needle%'"
)
SEEN_BY_OTHERS = Path("/proc")


class Stack:
    """A running stack and its command line."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def gatebook(
        self, *arguments: str, check: bool = True, given: str | None = None, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [GATEBOOK, *arguments],
            input=given,
            capture_output=True,
            text=True,
            timeout=150,
            env={**os.environ, "GATEBOOK_STATE_DIR": str(self.root), **environment},
            check=False,
        )
        # The assertion shows what it said; CalledProcessError would not.
        assert not check or done.returncode == 0, done.stderr
        return done

    def status(self) -> dict[str, Any]:
        # Not through the command: the tests ask many times, and Python's start costs each time.
        document = status.read(StateDir.at(self.root))
        assert document is not None
        return document

    def rows(self, query: str) -> list[dict[str, Any]]:
        return clickhouse.rows(self.status(), query)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    made = Stack(tmp_path_factory.mktemp("whole"))
    made.gatebook("up", "--detach")
    yield made
    made.gatebook("down")
    remove_data(made.root)


def until(condition: Callable[[], Any], timeout_s: float = 60) -> Any:
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < deadline, "not within the time"
        time.sleep(0.2)
    return found


def test_the_status_names_everything(stack: Stack) -> None:
    shown = json.loads(stack.gatebook("status", "--json").stdout)
    assert shown == stack.status()
    assert shown["healthy"]
    assert shown["state_dir"] == str(stack.root)
    names = {process["name"] for process in shown["processes"]}
    assert names == {
        "kafka", "postgres", "issuer", "mask", "clickhouse", "gateway-1", "gateway-2",
    }  # fmt: skip
    for process in shown["processes"]:
        assert set(process) == {"name", "pid", "healthy", "restarts", "log_file"}
        assert (process["healthy"], process["restarts"]) == (True, 0)
        assert Path(process["log_file"]).exists()
        assert identify(process["pid"])
    assert [gateway["name"] for gateway in shown["gateways"]] == ["gateway-1", "gateway-2"]
    assert Path(shown["ca_file"]).read_text().startswith("-----BEGIN CERTIFICATE-----")
    assert Path(shown["clickhouse"]["token_file"]).read_text().strip()
    assert shown["issuer"]["url"].startswith("https://localhost:")
    [target] = shown["targets"]
    direct = subprocess.run(
        ["psql", target["direct_conninfo"], "-Atc", "select count(*) from customers"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert direct.stdout == "20000\n"


def test_no_secret_is_in_any_argument_or_log(stack: Stack) -> None:
    secrets = [path.read_text().strip() for path in (stack.root / "secrets").iterdir()]
    secrets.append((stack.root / "issuer" / "demo-secret").read_text().strip())
    assert len(secrets) >= 4
    assert all(secrets)
    for process in stack.status()["processes"]:
        arguments = (SEEN_BY_OTHERS / str(process["pid"]) / "cmdline").read_text()
        log = Path(process["log_file"]).read_text(errors="replace")
        for secret in secrets:
            assert secret not in arguments
            assert secret not in log


def test_a_token_is_printed_alone(stack: Stack) -> None:
    done = stack.gatebook("token", "--user", "alice")
    assert re.fullmatch(r"[\w-]+\.[\w-]+\.[\w-]+\n", done.stdout)
    assert done.stderr == ""
    refused = stack.gatebook("token", "--user", "nobody", check=False)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "alice" in refused.stderr


def test_login_without_a_name_is_answered_in_a_browser(stack: Stack) -> None:
    login = subprocess.Popen(
        [GATEBOOK, "login", "--state-dir", str(stack.root)], stdout=subprocess.PIPE, text=True
    )
    assert login.stdout is not None
    url = login.stdout.readline().removeprefix("Open ").strip()
    code = login.stdout.readline().rpartition(" ")[2].strip()
    page, _, query = url.partition("?")
    assert page == stack.status()["issuer"]["url"] + "/device"
    assert code in query
    trust = ssl.create_default_context(cafile=stack.status()["ca_file"])
    answer = httpx.post(page, data={"user_code": code, "user": "carol"}, verify=trust)
    assert answer.status_code == 200
    assert login.communicate(timeout=30)[0] == "signed in as carol (auditors)\n"
    assert login.returncode == 0
    token = stack.root / "sessions" / "carol.jwt"
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    token.unlink()


def test_a_query_is_in_the_history_soon_after_it_ran(stack: Stack) -> None:
    stack.gatebook("login", "--user", "bob")
    done = stack.gatebook("connect", "shop", "--", "-Atc", "select 'needle', count(*) from orders")
    assert done.stdout == "needle|100000\n"

    until(lambda: stack.rows(NEEDLE))
    [row] = json.loads(stack.gatebook("sql", NEEDLE, "--format", "json").stdout)
    assert row == {
        "actor": "bob",
        "groups": ["dba"],
        "statement": "select 'needle', count(*) from orders",
        "decision": "ALLOW",
        "outcome": "completed",
        "rows": 1,
    }
    csv = stack.gatebook("sql", "select actor from queries limit 1", "--format", "csv").stdout
    assert csv.splitlines() == ['"actor"', '"bob"']
    table = stack.gatebook("sql", "-", given="select 'x' as column_name").stdout
    assert "column_name" in table
    assert "1 row" in table


def test_without_a_psql_on_path_the_embedded_one_connects_in_tls(stack: Stack) -> None:
    arguments = ("connect", "shop", "--user", "bob", "--", "-Atc", "\\conninfo", "-c", "select 7")
    done = stack.gatebook(*arguments, PATH="/nowhere")
    assert "SSL connection (protocol: TLSv1." in done.stdout
    assert done.stdout.endswith("7\n")


def test_a_target_that_is_not_there_is_told_with_those_that_are(stack: Stack) -> None:
    done = stack.gatebook("connect", "nope", "--user", "bob", check=False)
    assert done.returncode == 2
    assert "no target nope; this stack has: shop" in done.stderr


@pytest.mark.parametrize("nothing", ["", " \n"])
def test_no_query_is_said(stack: Stack, nothing: str) -> None:
    done = stack.gatebook("sql", nothing, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "there is no query" in done.stderr


@pytest.mark.parametrize(
    ("query", "printed"),
    [
        ("select 7 as n format CSV", "7\n"),
        ("select 7 as n format TSVWithNames", "n\n7\n"),
        ("select 7 as n format Null", ""),
        ("select 7 as n format JSONCompactEachRow", "[7]\n"),
    ],
)
@pytest.mark.parametrize("output", ["table", "json", "csv"])
def test_a_format_that_the_query_asks_for_is_printed_as_it_comes(
    stack: Stack, query: str, printed: str, output: str
) -> None:
    assert stack.gatebook("sql", query, "--format", output).stdout == printed


def test_a_bad_query_is_one_readable_message(stack: Stack) -> None:
    done = stack.gatebook("sql", "select nonsense from queries", check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "nonsense" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_history_cannot_be_changed(stack: Stack) -> None:
    for query in ("drop table audit_events", "alter table audit_events delete where 1"):
        assert stack.gatebook("sql", query, check=False).returncode == 1


def test_tail_prints_events_live(stack: Stack) -> None:
    tail = subprocess.Popen(
        # Started in the background, a shell has had Ctrl-C ignored for all of us.
        [
            "env",
            "--default-signal=INT",
            GATEBOOK,
            "tail",
            "--from-start",
            "--state-dir",
            str(stack.root),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert tail.stdout is not None
    try:
        stack.gatebook(
            "connect", "shop", "-u", "dave", "--gateway", "2", "--", "-c", "select 'live'"
        )
        for line in tail.stdout:
            if "dave@shop  Requested  select 'live'" in line:
                assert "gateway-2" in line
                break
        else:
            pytest.fail("the query was not printed")
    finally:
        tail.send_signal(signal.SIGINT)
        rest = tail.communicate(timeout=20)[0]
    assert "Traceback" not in rest


@pytest.mark.faults
@pytest.mark.parametrize("name", ["gateway-1", "mask", "clickhouse", "issuer"])
def test_a_killed_process_comes_back_and_queries_are_still_recorded(
    stack: Stack, name: str
) -> None:
    def process() -> dict[str, Any]:
        [found] = [p for p in stack.status()["processes"] if p["name"] == name]
        return dict(found)

    before = process()
    os.kill(before["pid"], signal.SIGKILL)
    until(lambda: process()["pid"] not in (None, before["pid"]))
    until(lambda: stack.status()["healthy"])
    assert process()["restarts"] == before["restarts"] + 1
    stack.gatebook("connect", "shop", "-u", "alice", "--", "-c", f"select 'after {name}'")
    until(lambda: stack.rows(f"select 1 from queries where statement = 'select ''after {name}'''"))
    log = (stack.root / "logs" / "supervisor.log").read_text()
    assert f"{name} was killed by signal 9; starting it again" in log


def test_another_stack_uses_this_ones_kafka_and_database(stack: Stack, tmp_path: Path) -> None:
    first = stack.status()
    other = Stack(tmp_path / "other")
    over = tmp_path / "over.yaml"
    # Two stacks on one Kafka need consumer groups of their own.
    over.write_text("mask: {group_id: other-mask}\nclickhouse: {group_id: other-clickhouse}\n")
    try:
        other.gatebook(
            "up", "--detach", "--gateways", "1", "--config", str(over),
            "--kafka", first["kafka"]["bootstrap_servers"],
            "--target", first["targets"][0]["direct_conninfo"],
        )  # fmt: skip
        second = other.status()
        assert second["kafka"] == first["kafka"]
        assert second["targets"] == [{"name": "shop"}]
        assert {p["name"] for p in second["processes"]} == {
            "issuer", "mask", "clickhouse", "gateway-1",
        }  # fmt: skip
        assert second["gateways"][0]["postgres"] not in [g["postgres"] for g in first["gateways"]]
        done = other.gatebook(
            "connect", "shop", "-u", "carol", "--", "-Atc", "select count(*) from orders"
        )
        assert done.stdout == "100000\n"
    finally:
        other.gatebook("down")
    assert stack.status()["healthy"]


def test_down_leaves_nothing(stack: Stack) -> None:
    """The last test of this file: it ends the stack of the others."""
    processes = [identify(process["pid"]) for process in stack.status()["processes"]]
    assert all(processes)
    assert "keeps the data" in stack.gatebook("down").stdout
    assert not any(alive(process) for process in processes if process)
    mentions = []
    for entry in SEEN_BY_OTHERS.iterdir():
        if entry.name.isdigit():
            try:
                arguments = (entry / "cmdline").read_text()
            except OSError:
                continue
            mentions += [arguments] if str(stack.root) in arguments else []
    assert mentions == []
