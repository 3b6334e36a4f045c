"""Connections of standbys, backups and change feeds, judged command by command."""

from __future__ import annotations

import pytest

from gateway.machine import Ask, Authenticated, Idle, Outcome, RequestData, TargetConnected
from gateway.policy.sql import Statement
from gateway.protocols.postgres import replication
from gateway.protocols.postgres.startup import Door
from gateway.protocols.postgres.wire import ProtocolViolation
from tests.gateway.protocols.postgres import messages as pg
from tests.gateway.protocols.postgres.dialogue import (
    ALICE,
    CLIENT,
    DENY,
    TARGET,
    Dialogue,
    facts,
    outcome,
    outcomes,
    requests,
    rows,
    sent,
    signed_in,
    statements,
    token,
)

STREAM = "START_REPLICATION SLOT s LOGICAL 0/0 (\"proto_version\" '1')"


def replicating(mode: str = "true") -> Dialogue:
    return signed_in(startup={"replication": mode})


def command(text: str, mode: str = replication.PHYSICAL) -> Statement:
    found = replication.command(text, mode)
    assert found is not None
    return found


# --- asking for it ---


@pytest.mark.parametrize(
    ("value", "mode"),
    [
        *((value, "true") for value in ("true", "TRUE", "t", "on", "yes", "y", "1")),
        *((value, "") for value in ("false", "f", "off", "of", "no", "N", "0")),
        ("database", "database"),
        (None, ""),
    ],
)
def test_the_setting_means_what_it_means_to_the_server(value: str | None, mode: str) -> None:
    assert replication.mode(value) == mode


@pytest.mark.parametrize("value", ["", "2", "DATABASE", "o", "truely", "databas"])
def test_another_value_is_refused_as_the_server_does(value: str) -> None:
    with pytest.raises(ProtocolViolation) as refused:
        replication.mode(value)
    assert refused.value.sqlstate == "22023"


def connecting(targets: frozenset[str] = frozenset({"shop"}), **parameters: str) -> Ask:
    """What is asked of the policies for that start-up packet."""
    talk = Dialogue(Door(tls=True, cleartext=True, targets=targets))
    talk.client(pg.startup(**{"user": "alice", "database": "shop", **parameters}))
    talk.client(pg.password("token"))
    (ask,) = talk.handle(Authenticated(ALICE))
    assert isinstance(ask, Ask)
    return ask


@pytest.mark.parametrize("mode", ["true", "database"])
def test_the_policies_are_asked_for_replication(mode: str) -> None:
    (request,) = connecting(replication=mode).requests
    assert (request.action, request.replication) == ("connect", mode)
    assert request.kinds == {"connect", "replication"}
    assert request.statement == f"connect shop replication={mode}"


def test_without_it_they_are_not() -> None:
    (request,) = connecting(replication="off").requests
    assert (request.kinds, request.replication) == ({"connect"}, "")


@pytest.mark.parametrize(
    ("targets", "parameters", "statement"),
    [
        ({"shop"}, {"database": "replication"}, "connect shop"),
        ({"shop", "erp"}, {"database": "erp"}, "connect erp"),
        ({"shop", "erp"}, {"database": "replication"}, "connect replication"),
        (
            {"shop", "erp"},
            {"database": "replication", "options": "-c gatebook.target=erp"},
            "connect erp",
        ),
        (
            {"shop", "erp"},
            {"database": "replication", "options": "--gatebook.target=shop -cwork_mem=1MB"},
            "connect shop",
        ),
    ],
)
def test_the_target_of_a_connection_to_a_whole_server(
    targets: set[str], parameters: dict[str, str], statement: str
) -> None:
    (request,) = connecting(frozenset(targets), replication="true", **parameters).requests
    assert request.statement == f"{statement} replication=true"
    assert bool(request.refusal) is (statement == "connect replication")


@pytest.mark.parametrize("mode", ["true", "database"])
def test_the_target_learns_of_it(mode: str) -> None:
    talk = Dialogue()
    talk.client(pg.startup(user="alice", database="shop", replication=mode))
    talk.client(pg.password("token"))
    talk.handle(Authenticated(ALICE))
    talk.decided(1)
    hello = sent(talk.handle(TargetConnected()), TARGET)
    assert b"replication\0" + mode.encode() + b"\0" in hello


# --- what its commands are ---


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("IDENTIFY_SYSTEM", {"identify_system"}),
        ("  identify_system;", {"identify_system"}),
        ("SHOW data_directory_mode", {"show"}),
        ('CREATE_REPLICATION_SLOT "s" PHYSICAL (RESERVE_WAL)', {"create_replication_slot"}),
        ("START_REPLICATION 0/3000000 TIMELINE 1", {"start_replication"}),
        (STREAM, {"start_replication"}),
        ("TIMELINE_HISTORY 2", {"timeline_history"}),
        ("BASE_BACKUP (LABEL 'it''s', TARGET 'client')", {"base_backup"}),
        ("BASE_BACKUP (TARGET 'blackhole')", {"base_backup"}),
        (
            "BASE_BACKUP (TARGET 'server', TARGET_DETAIL '/tmp/x')",
            {"base_backup", "copy_file", "copy_program"},
        ),
    ],
)
@pytest.mark.parametrize("mode", ["true", "database"])
def test_commands(text: str, kinds: set[str], mode: str) -> None:
    found = command(text, mode)
    assert (found.kinds, found.text, found.recorded, found.error) == (kinds, text, text, "")


@pytest.mark.parametrize(
    "text",
    [
        "select 1",
        "",
        ";",
        "/* */ IDENTIFY_SYSTEM",
        "-- \nIDENTIFY_SYSTEM",
        '"IDENTIFY_SYSTEM"',
        "IDENTIFY_SYSTEMS",
        "ıdentıfy_system",
        "drop table t",
    ],
)
def test_what_is_none(text: str) -> None:
    assert command(text).kind == "unparseable"
    assert command(text).sqlstate == "0A000"
    assert replication.command(text, replication.DATABASE) is None


@pytest.mark.parametrize("mode", ["true", "database"])
@pytest.mark.parametrize(
    "text",
    [
        "SHOW work_mem; drop table t",
        "IDENTIFY_SYSTEM; IDENTIFY_SYSTEM",
        "SHOW 'open",
        "SHOW a -- b",
        "SHOW $$x$$",
        "SHOW " + "a" * 100_000 + "!",
    ],
)
def test_what_might_be_read_otherwise_is_refused(text: str, mode: str) -> None:
    assert command(text, mode).sqlstate == "42601"


# --- how they run ---


def test_a_command_is_asked_for_and_recorded() -> None:
    talk = replicating()
    commands = talk.client(pg.query("IDENTIFY_SYSTEM"))
    (request,) = requests(commands)
    assert (request.kind, request.statement) == ("identify_system", "IDENTIFY_SYSTEM")
    assert sent(talk.allow(commands), TARGET) == pg.query("IDENTIFY_SYSTEM")
    answer = pg.columns("systemid") + pg.row(b"7") + pg.done("IDENTIFY_SYSTEM") + pg.ready()
    commands = talk.target(answer)
    assert outcome(2, "IDENTIFY_SYSTEM", rows=1, byte_count=12) in facts(commands)
    assert sent(commands, CLIENT) == b""
    assert sent(talk.record(commands), CLIENT) == answer


def test_sql_is_never_sent_where_there_is_none() -> None:
    talk = replicating()
    commands = talk.client(pg.query("drop table t"))
    (request,) = requests(commands)
    assert request.refusal
    sent_on = sent(talk.decided(commands[0].ticket, DENY), TARGET)  # type: ignore[union-attr]
    assert b"drop" not in sent_on
    error = pg.error("0A000", "cannot execute SQL commands in WAL sender for physical replication")
    commands = talk.target(error, pg.ready())
    assert outcomes(commands) == [(2, "denied", "0A000")]


def test_the_extended_protocol_is_refused_by_the_server_as_it_is_directly() -> None:
    talk = replicating()
    commands = talk.client(pg.extended("IDENTIFY_SYSTEM"), pg.SYNC)
    talk.allow(commands)
    error = pg.error("08P01", "extended query protocol not supported in a replication connection")
    commands = talk.target(error, pg.ready())
    assert outcomes(commands) == [(2, "failed", "08P01")]
    assert sent(talk.record(commands), CLIENT) == error + pg.ready()


@pytest.mark.parametrize("mode", ["true", "database"])
def test_a_refused_command_is_replaced_by_one_that_fails(mode: str) -> None:
    talk = replicating(mode)
    (ask,) = talk.client(pg.query("BASE_BACKUP"))
    assert isinstance(ask, Ask)
    assert sent(talk.decided(ask.ticket, DENY), TARGET) == pg.query(b"SHOW " + token(2))
    error = f'unrecognized configuration parameter "{token(2).decode()}"'
    commands = talk.target(pg.error("42704", error), pg.ready())
    assert outcomes(commands) == [(2, "denied", "42501")]
    told = pg.split(sent(talk.record(commands), CLIENT))
    assert pg.fields(told[0])["M"] == "permission denied: support changes nothing"


def test_beside_a_database_sql_is_judged_as_ever() -> None:
    talk = replicating("database")
    commands = talk.client(pg.query("select 1; delete from t"))
    assert [request.kind for request in requests(commands)] == ["select", "delete"]


def test_a_stream_in_both_directions_until_both_ends_are_said() -> None:
    talk = replicating("database")
    talk.allow(talk.client(pg.query(STREAM)))
    talk.target(pg.COPY_BOTH, pg.copy_data(b"w\0one"))
    commands = talk.handle(Idle())
    assert rows(commands) == [(2, "copy", b"w\0one")]
    assert sent(talk.record(commands), CLIENT) == pg.COPY_BOTH + pg.copy_data(b"w\0one")
    commands = talk.client(pg.copy_data(b"r\0status"))
    assert [fact.data for fact in facts(commands) if isinstance(fact, RequestData)] == [
        b"r\0status"
    ]
    assert sent(talk.record(commands), TARGET) == pg.copy_data(b"r\0status")
    assert sent(talk.client(pg.COPY_DONE), TARGET) == pg.COPY_DONE
    rest = pg.copy_data(b"w\0two") + pg.COPY_DONE + pg.done("COPY 0")
    commands = talk.target(rest, pg.done("START_REPLICATION"), pg.ready())
    assert rows(commands) == [(2, "copy", b"w\0two")]
    (end,) = [fact for fact in facts(commands) if isinstance(fact, Outcome)]
    assert (end.outcome, end.command_tag, end.rows) == ("completed", "START_REPLICATION", 2)
    assert sent(talk.record(commands), CLIENT) == rest + pg.done("START_REPLICATION") + pg.ready()
    assert statements(talk.client(pg.query("IDENTIFY_SYSTEM"))) == ["IDENTIFY_SYSTEM"]


def test_a_stream_that_the_server_ends_says_which_timeline_is_next() -> None:
    talk = replicating()
    talk.allow(talk.client(pg.query("START_REPLICATION 0/0 TIMELINE 1")))
    talk.target(pg.COPY_BOTH, pg.copy_data(b"w\0"), pg.COPY_DONE)
    talk.record(talk.handle(Idle()))
    assert sent(talk.client(pg.COPY_DONE), TARGET) == pg.COPY_DONE
    commands = talk.target(
        *(pg.columns("next_tli"), pg.row(b"2"), pg.done("START_STREAMING")),
        *(pg.done("START_REPLICATION"), pg.ready()),
    )
    assert rows(commands) == [(2, "rows", pg.row(b"2"))]
    assert outcomes(commands) == [(2, "completed", "")]


def test_a_stream_that_fails() -> None:
    talk = replicating()
    talk.allow(talk.client(pg.query("START_REPLICATION 0/0 TIMELINE 1")))
    talk.record(talk.target(pg.COPY_BOTH))
    error = pg.error("58P01", "requested WAL segment has already been removed")
    commands = talk.target(error, pg.ready())
    assert outcomes(commands) == [(2, "failed", "58P01")]
    # What the client sends before it knows is ignored by the target.
    talk.record(talk.client(pg.copy_data(b"r"), pg.COPY_DONE))
    assert statements(talk.client(pg.query("IDENTIFY_SYSTEM"))) == ["IDENTIFY_SYSTEM"]


def test_a_query_into_a_stream_ends_the_session() -> None:
    talk = replicating()
    talk.allow(talk.client(pg.query("START_REPLICATION 0/0 TIMELINE 1")))
    talk.record(talk.target(pg.COPY_BOTH))
    commands = talk.allow(talk.client(pg.query("IDENTIFY_SYSTEM")))
    assert pg.query("IDENTIFY_SYSTEM") not in sent(commands, TARGET)
    assert outcomes(commands) == [(2, "lost", "08P01"), (3, "lost", "08P01")]


def test_a_backup_is_many_results_of_one_command() -> None:
    talk = replicating()
    talk.allow(talk.client(pg.query("BASE_BACKUP")))
    answer = [
        *(pg.columns("recptr"), pg.row(b"0/1"), pg.done("SELECT")),
        *(pg.columns("spcoid"), pg.row(b"16384"), pg.done("SELECT")),
        *(pg.COPY_OUT, pg.copy_data(b"n\0base.tar"), pg.COPY_DONE),
        *(pg.columns("recptr"), pg.row(b"0/2"), pg.done("SELECT")),
        *(pg.done("BASE_BACKUP"), pg.ready()),
    ]
    commands = talk.target(*answer)
    assert [kind for _, kind, _ in rows(commands)] == ["rows", "rows", "copy", "rows"]
    assert outcomes(commands) == [(2, "completed", "")]
    assert sent(talk.record(commands), CLIENT) == b"".join(answer)


def test_an_older_server_does_not_name_the_command_at_its_end() -> None:
    talk = replicating()
    talk.allow(talk.client(pg.query("IDENTIFY_SYSTEM")))
    commands = talk.target(pg.columns("a"), pg.row(b"1"), pg.done("SELECT"), pg.ready())
    assert [f.command_tag for f in facts(commands) if isinstance(f, Outcome)] == ["SELECT"]
    assert outcomes(commands) == [(2, "completed", "")]


def test_elsewhere_a_server_cannot_begin_a_stream() -> None:
    talk = signed_in()
    talk.allow(talk.client(pg.query("select 1")))
    commands = talk.target(pg.COPY_BOTH)
    assert outcomes(commands) == [(2, "lost", "08P01")]
