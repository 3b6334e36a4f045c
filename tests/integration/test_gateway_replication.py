"""Standbys, backups and change feeds through the gateway, with PostgreSQL's own programs."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml

from infra.devstack.plan import Options
from infra.devstack.postgres import GATEWAY_ROLE, bundled
from schemas.events import (
    Completed,
    Requested,
    RequestedOriginal,
    Responded,
    RespondedOriginal,
    SessionClosed,
)
from tests.conftest import SMALL, running
from tests.e2e import book
from tests.e2e.stack import Stack, until
from tests.gateway.protocols.postgres import messages as pg
from tests.integration.wire_client import WireClient

pytestmark = pytest.mark.integration

POLICIES = """
@id("everyone-sees-clear") permit (principal, action == Action::"see_clear", resource);
@id("everyone-connects") permit (principal, action == Action::"connect", resource);
@id("everyone-executes") permit (principal, action == Action::"execute", resource)
unless { context.kinds.contains("drop_replication_slot") };
@id("dba-replicates")
permit (principal in Group::"dba", action == Action::"replicate", resource == Target::"shop")
when { ["true", "database"].contains(context.replication) };
"""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    root, settings = tmp_path_factory.mktemp("stack"), tmp_path_factory.mktemp("settings")
    (settings / "all.cedar").write_text(POLICIES)
    config = settings / "over.yaml"
    # The programs that come with the embedded server are built without TLS.
    listener = {"cleartext_loopback": True}
    gateway = {"policies": str(settings), "postgres": listener}
    config.write_text(yaml.safe_dump({"gateway": gateway}))
    options = Options(
        gateways=1,
        only=("kafka", "postgres", "issuer", "gateway"),
        size=SMALL,
        config=config,
        postgres={"wal_level": "logical"},
    )
    for _ in running(root, options):
        stack = Stack(root)
        with psycopg.connect(superuser(stack), autocommit=True) as connection:
            connection.execute(f"alter role {GATEWAY_ROLE} replication")
        yield stack


def superuser(stack: Stack) -> str:
    parts = psycopg.conninfo.conninfo_to_dict(stack.document["targets"][0]["direct_conninfo"])
    password = stack.state.postgres_superuser_password.read_text().strip()
    options: dict[str, Any] = {**parts, "user": "postgres", "password": password}
    return psycopg.conninfo.make_conninfo(**options)


def program(stack: Stack, name: str, *arguments: str, user: str = "bob") -> subprocess.Popen[str]:
    """One of PostgreSQL's own, connecting through the gateway as that person."""
    return subprocess.Popen(
        [bundled() / "bin" / name, *arguments],
        env={
            **os.environ,
            **stack.environment(user),
            "PGAPPNAME": name,
            "PGSSLMODE": "disable",
            "PGSSLROOTCERT": "",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def done(process: subprocess.Popen[str]) -> str:
    """What it printed; it must succeed."""
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return out


async def recorded(stack: Stack, since: book.Place, application: str) -> dict[str, list[Any]]:
    """Kinds that a program asked for, how they ended, and the data it was sent."""
    servers, deadline = stack.document["kafka"]["bootstrap_servers"], time.monotonic() + 30
    while True:
        entries = await book.read(servers, stack.state.keys, since)
        mine = [e for e in entries if e.event.context.client.application == application]
        sessions = {e.event.context.session_id for e in mine}
        if len(sessions) == sum(isinstance(e.event, SessionClosed) for e in mine):
            break
        assert time.monotonic() < deadline, "a session's end is not in the book"
    book.check_chains(entries, whole=False)
    return {
        "asked": [
            (e.event.kind, e.original.statement)
            for e in mine
            if isinstance(e.event, Requested) and isinstance(e.original, RequestedOriginal)
        ],
        "ends": [e.event for e in mine if isinstance(e.event, Completed)],
        "data": [
            e.original.data
            for e in mine
            if isinstance(e.event, Responded)
            and isinstance(e.original, RespondedOriginal)
            and e.original.encoding == "copy"
        ],
    }


@pytest.fixture
async def since(stack: Stack) -> book.Place:
    return await book.end(stack.document["kafka"]["bootstrap_servers"])


async def test_a_change_feed(stack: Stack, since: book.Place, tmp_path: Path) -> None:
    """pg_recvlogical: replication=database, with SQL beside the walsender's commands."""
    changes = tmp_path / "changes"
    slot = ("--slot", "feed", "-d", "shop")
    done(program(stack, "pg_recvlogical", *slot, "--create-slot", "-P", "pgoutput"))
    with stack.direct() as direct:
        direct.execute("create table fed (a int primary key, b text)")
        direct.execute("create publication fed for table fed")
        direct.execute("insert into fed values (1, 'first'), (2, 'second')")
    plugin = ("-o", "proto_version=1", "-o", "publication_names=fed")
    to_file = ("-f", str(changes), "-F", "1")
    receiver = program(stack, "pg_recvlogical", *slot, "--start", *plugin, *to_file)
    try:
        until(lambda: changes.exists() and b"second" in changes.read_bytes())
    finally:
        receiver.terminate()
    done(receiver)
    assert b"first" in changes.read_bytes()
    told = await recorded(stack, since, "pg_recvlogical")
    kinds = [kind for kind, _ in told["asked"]]
    assert {"create_replication_slot", "start_replication", "identify_system"} <= set(kinds)
    assert "select" in kinds, "its search_path is set in SQL"
    assert ("connect", "connect shop replication=database") in told["asked"]
    assert any(b"second" in data for data in told["data"])
    assert len(told["ends"]) == len(told["asked"])
    stream = max(told["ends"], key=lambda end: end.rows)
    # It says Terminate right behind its CopyDone, and the walsender exits.
    assert (stream.outcome, stream.rows >= 4) == ("lost", True)


async def test_a_backup_that_can_be_verified(
    stack: Stack, since: book.Place, tmp_path: Path
) -> None:
    """pg_basebackup: replication=true, in two connections of which one streams the log."""
    done(
        program(stack, "pg_basebackup", "-D", str(tmp_path / "copy"), "-X", "stream", "-c", "fast")
    )
    verified = done(program(stack, "pg_verifybackup", "-n", str(tmp_path / "copy")))
    assert "backup successfully verified" in verified
    told = await recorded(stack, since, "pg_basebackup")
    kinds = [kind for kind, _ in told["asked"]]
    assert kinds.count("connect") == 2
    assert {"base_backup", "start_replication", "show", "identify_system"} <= set(kinds)
    ends = {end.command_tag: end for end in told["ends"]}
    assert ends["BASE_BACKUP"].outcome == ends["START_REPLICATION"].outcome == "completed"
    assert ends["BASE_BACKUP"].byte_count > 10_000_000
    assert sum(map(len, told["data"])) > ends["BASE_BACKUP"].byte_count - 100_000


async def test_a_log_receiver(stack: Stack, since: book.Place, tmp_path: Path) -> None:
    receiver = program(stack, "pg_receivewal", "-D", str(tmp_path), "-s", "1")
    try:
        until(lambda: list(tmp_path.glob("*.partial")))
        with stack.direct() as direct:
            direct.execute("create table logged as select 'in the log' as a")
        [segment] = until(lambda: list(tmp_path.glob("*.partial")))
        until(lambda: b"in the log" in segment.read_bytes())
    finally:
        receiver.terminate()
    done(receiver)
    told = await recorded(stack, since, "pg_receivewal")
    assert any(b"in the log" in data for data in told["data"])
    assert {end.outcome for end in told["ends"]} == {"completed"}


def test_without_a_policy_nobody_replicates(stack: Stack) -> None:
    for mode in ("database", "true"):
        denied = program(
            stack,
            "psql",
            f"dbname=shop replication={mode}",
            "-c",
            "IDENTIFY_SYSTEM",
            user="alice",
        )
        _, err = denied.communicate(timeout=60)
        assert denied.returncode != 0
        assert 'permission denied for database "shop"' in err
    assert "systemid" in done(
        program(stack, "psql", "dbname=shop replication=true", "-c", "IDENTIFY_SYSTEM")
    )


@pytest.mark.parametrize("mode", ["true", "database"])
def test_a_refused_command_and_what_follows(stack: Stack, mode: str) -> None:
    with WireClient.signed_in(stack, "bob", replication=mode) as client:
        created = client.ask(pg.query(f"CREATE_REPLICATION_SLOT r_{mode} TEMPORARY PHYSICAL"))
        assert pg.kinds(b"".join(created)) == "TDCZ"
        refused, ready = client.ask(pg.query(f"DROP_REPLICATION_SLOT r_{mode}"))
        assert pg.fields(refused)["C"] == "42501"
        assert ready == pg.ready()
        (answer, *_) = client.ask(pg.query("select 1"))
        if mode == "true":
            assert pg.fields(answer)["M"] == (
                "cannot execute SQL commands in WAL sender for physical replication"
            )
        else:
            assert answer[:1] == b"T"
        (error, _) = client.ask(pg.extended("select 1"), pg.SYNC)
        assert pg.fields(error)["C"] == "08P01"
        assert pg.kinds(b"".join(client.ask(pg.query("IDENTIFY_SYSTEM")))) == "TDCZ"


def test_a_stream_ends_properly_on_both_sides(stack: Stack) -> None:
    with WireClient.signed_in(stack, "bob", replication="true") as client:
        with stack.direct() as direct:
            (position,) = direct.execute("select pg_current_wal_flush_lsn()").fetchone() or ()
        client.send(pg.query(f"START_REPLICATION PHYSICAL {position}"))
        client.until("W")
        client.send(pg.copy_data(b"r" + bytes(32) + b"\1"), pg.COPY_DONE)
        ending = client.until("Z")
        assert ending[-1] == pg.ready()
        assert pg.kinds(b"".join(ending)).lstrip("d") in ("cCCZ", "cCZ")
        assert pg.kinds(b"".join(client.ask(pg.query("IDENTIFY_SYSTEM")))) == "TDCZ"
