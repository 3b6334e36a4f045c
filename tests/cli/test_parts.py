"""Pieces of commands: tokens, psql's environment, tables, the search for clear values."""

from __future__ import annotations

import base64
import json
import shutil
import stat
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from cli import clickhouse, evidence, history, psql, stack, tokens
from cli.problems import Problem
from cli.running import program
from infra.devstack.shop import Size, copy_files
from infra.devstack.state import StateDir
from schemas.events import Client, Context, Masked, Principal

DOCUMENT: dict[str, Any] = {
    "healthy": False,
    "state_dir": "/s",
    "ca_file": "/s/ca.pem",
    "processes": [
        {
            "name": "kafka",
            "pid": 12,
            "healthy": True,
            "restarts": 0,
            "log_file": "/s/logs/kafka.log",
        },
        {
            "name": "mask",
            "pid": None,
            "healthy": False,
            "restarts": 4,
            "log_file": "/s/logs/mask.log",
        },
    ],
    "gateways": [
        {"name": "gateway-1", "postgres": {"host": "127.0.0.1", "port": 6432}, "metrics_url": "x"},
        {"name": "gateway-2", "postgres": {"host": "127.0.0.1", "port": 6433}, "metrics_url": "x"},
    ],
    "kafka": {"bootstrap_servers": "127.0.0.1:9092"},
    "clickhouse": {"url": "http://127.0.0.1:8123", "user": "default", "token_file": "/s/t"},
    "issuer": {"url": "https://localhost:9400"},
    "targets": [],
}


def jwt(**claims: Any) -> str:
    body = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"e30.{body}.sig"


@pytest.fixture
def state(tmp_path: Path) -> StateDir:
    folder = StateDir.at(tmp_path / "state")
    folder.create()
    return folder


def test_a_token_is_kept_for_its_owner_until_it_runs_out(state: StateDir) -> None:
    lasting, ending = jwt(exp=time.time() + 600), jwt(exp=time.time() + 5)
    path = tokens.store(state, "alice", lasting)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert tokens.stored(state, "alice") == lasting
    tokens.store(state, "bob", ending)
    assert tokens.stored(state, "bob") is None
    assert tokens.stored(state, "carol") is None
    assert tokens.signed_in(state) == ["alice"]


@pytest.mark.parametrize("name", ["../alice", "a/b", "", ".hidden", "a\0b", "a" * 101, "-rf"])
def test_a_name_is_no_path(state: StateDir, name: str) -> None:
    with pytest.raises(Problem, match="name"):
        tokens.store(state, name, "token")


@pytest.mark.parametrize("token", ["", "x", "a.b.c", "a.e30", jwt(), "a.W10.c"])
def test_claims_of_anything(token: str) -> None:
    assert tokens.claims(token) == {}


def test_psql_gets_the_token_and_a_verified_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGSERVICE", "payroll")
    monkeypatch.setenv("PGOPTIONS", "-c role=admin")
    found = psql.environment(DOCUMENT, "shop", "alice", "the-token", gateway=2)
    assert {key: value for key, value in found.items() if key.startswith("PG")} == {
        "PGHOST": "localhost",
        "PGHOSTADDR": "127.0.0.1",
        "PGPORT": "6433",
        "PGDATABASE": "shop",
        "PGUSER": "alice",
        "PGPASSWORD": "the-token",
        "PGSSLMODE": "verify-full",
        "PGSSLROOTCERT": "/s/ca.pem",
    }
    assert "PATH" in found


def test_a_gateway_that_is_not_there() -> None:
    with pytest.raises(Problem, match="has 2"):
        psql.environment(DOCUMENT, "shop", "alice", "t", gateway=3)


def test_psql_of_the_embedded_postgresql_serves_when_there_is_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert psql.executable().endswith("/pginstall/bin/psql")
    # Its own libpq was built without TLS.
    environment = psql.environment(DOCUMENT, "shop", "alice", "t")
    environment |= {"PGHOSTADDR": "127.0.0.1", "PGPORT": "1"}
    done = subprocess.run(
        [psql.executable(), "-c", "select 1"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Connection refused" in done.stderr
    assert "SSL" not in done.stderr


def test_without_a_psql_that_speaks_tls_it_is_said_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(Problem, match="postgresql-client"):
        psql.executable()


def test_psql_on_path_keeps_its_own_libraries() -> None:
    if shutil.which("psql") is not None:
        assert "LD_PRELOAD" not in psql.environment(DOCUMENT, "shop", "alice", "t")


def test_what_to_type_leads_to_this_program(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    installed = tmp_path / ".venv" / "bin" / "gatebook"
    installed.parent.mkdir(parents=True)
    installed.touch(mode=0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", [str(installed)])
    monkeypatch.setenv("PATH", "/nowhere")
    assert program() == ".venv/bin/gatebook"
    monkeypatch.setenv("PATH", str(installed.parent))
    assert program() == "gatebook"


def test_the_status_names_what_is_not_ready(capsys: pytest.CaptureFixture[str]) -> None:
    stack.print_status(DOCUMENT)
    lines = capsys.readouterr().out.splitlines()
    [mask] = [line for line in lines if "mask" in line]
    assert mask.split()[:5] == ["mask", "-", "not", "ready", "4"]
    assert any("127.0.0.1:6433" in line for line in lines)


def test_a_table_shows_values_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    history.print_table([{"statement": "select a[1] -- [bold]x[/bold]", "policies": ["a", "b"]}])
    output = capsys.readouterr().out
    assert "select a[1] -- [bold]x[/bold]" in output
    assert "a, b" in output
    assert "1 row\n" in output


def test_a_wide_value_is_cut_and_that_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    history.print_table([{"a": "x" * 500, "b": "y" * 501}])
    output = capsys.readouterr().out
    assert output.count("x") == output.count("y") == 500
    assert "…" in output
    assert "1 value cut (…); --format json or csv shows all" in output


def test_no_rows_are_said(capsys: pytest.CaptureFixture[str]) -> None:
    history.print_table([])
    assert capsys.readouterr().out == "0 rows\n"


def test_clickhouse_errors_are_one_message() -> None:
    text = (
        "Code: 60. DB::Exception: Unknown table expression identifier 'q'. (UNKNOWN_TABLE) "
        "(version 26.9.2.1)\nStack trace:\n0. DB::Exception"
    )
    assert clickhouse._message(text) == (
        "Code: 60. DB::Exception: Unknown table expression identifier 'q'. (UNKNOWN_TABLE)"
    )


def test_one_event_is_one_line() -> None:
    context = Context(
        bytes(16),
        bytes(16),
        "default",
        "gateway-1",
        "shop",
        Principal("https://i", "s", "alice", ["support"], "", "person"),
        Client("127.0.0.1", 1, "psql"),
    )
    event = Masked(
        context=context,
        event_id=bytes(16),
        event_type="Decided",
        at=1_764_000_000_123_456,
        monotonic_ns=0,
        stream="s",
        seq=1,
        prev_hash=bytes(32),
        event_hash=bytes(32),
        decision="DENY",
        policies=["support-changes-nothing"],
        statement="drop table\n  customers",
        reason="support changes nothing",
    )
    assert history.line(event) == (
        "16:00:00.123  gateway-1  alice@shop  Decided  DENY by support-changes-nothing  "
        "drop table customers  (support changes nothing)"
    )


def test_the_search_finds_a_seeded_ssn_in_a_file_and_nothing_else(tmp_path: Path) -> None:
    customers, _ = copy_files(Size(20, 1), tmp_path / "cache")
    ssns = evidence.seeded_ssns(customers)
    assert len(ssns) == 20
    one = next(iter(ssns))
    files = {
        "clean.log": b"\x00 123-45-678 000-00-0000 x" + bytes(100),
        "digits.log": b"9" + one + b" " + one + b"9",
        "clear.log": b"\x00\xff" + one + b"\x01" + one,
        "empty.log": b"",
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    scan = evidence.in_files(iter(sorted(tmp_path.glob("*.log"))), ssns)
    assert scan.found == (str(tmp_path / "clear.log"),) * 2
    assert scan.places == 3
    assert scan.bytes_read == sum(map(len, files.values()))


@pytest.mark.integration
async def test_the_search_finds_a_seeded_ssn_in_a_compressed_record(
    kafka: str, tmp_path: Path
) -> None:
    from aiokafka import AIOKafkaProducer

    from schemas.topics import DEAD_LETTERS

    customers, _ = copy_files(Size(20, 1), tmp_path)
    ssns = evidence.seeded_ssns(customers)
    before = await evidence.in_topics(kafka, (DEAD_LETTERS,), ssns)
    producer = AIOKafkaProducer(bootstrap_servers=kafka, compression_type="gzip")
    await producer.start()
    try:
        for headers in ([], [("reason", next(iter(ssns)))]):
            value = b"" if headers else b"bad: " * 50 + next(iter(ssns))
            await producer.send_and_wait(DEAD_LETTERS, value, headers=headers)
    finally:
        await producer.stop()
    after = await evidence.in_topics(kafka, (DEAD_LETTERS,), ssns)
    assert len(after.found) == len(before.found) + 2
    assert after.places == before.places + 2
