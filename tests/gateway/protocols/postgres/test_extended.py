"""Parse, Bind, Describe, Execute, Close, Flush and Sync."""

from __future__ import annotations

import time

import pytest

from gateway.machine import Ask, Record, Send
from gateway.policy import sql
from tests.gateway.protocols.postgres import messages as pg
from tests.gateway.protocols.postgres.dialogue import (
    ALLOW,
    CLIENT,
    DENY,
    TARGET,
    asked,
    column,
    facts,
    ident,
    outcomes,
    requests,
    rows,
    sent,
    signed_in,
    statements,
    token,
)

TEXT = "select $1"
ANSWER = pg.PARSED + pg.BOUND + pg.columns("a") + pg.row(b"x") + pg.done("SELECT 1") + pg.ready()


def denied(number: int) -> bytes:
    """The target's error for the poison of a text."""
    return pg.error("42P01", f'relation "{token(number).decode()}" does not exist')


def test_one_execution_is_one_request_with_its_values() -> None:
    talk = signed_in()
    message = (
        pg.parse(TEXT, oids=[25])
        + pg.bind([b"x"], formats=[1])
        + pg.describe_portal()
        + pg.execute()
    )
    commands = talk.client(message, pg.SYNC)
    assert commands == [asked(1000, 2, TEXT, parameters=((25, 1, b"x"),))]
    assert talk.decided(1000) == [Send(TARGET, message + pg.SYNC)]
    commands = talk.target(ANSWER)
    assert rows(commands) == [(2, "rows", pg.row(b"x"))]
    assert outcomes(commands) == [(2, "completed", "")]
    assert sent(talk.record(commands), CLIENT) == ANSWER


def test_each_execution_of_a_prepared_statement_is_recorded_with_its_own_values() -> None:
    talk = signed_in()
    commands = talk.client(pg.parse(TEXT, "s", [23]), pg.describe_statement("s"), pg.SYNC)
    assert [(one.action, one.statement_id) for one in requests(commands)] == [("prepare", ident(2))]
    talk.allow(commands)
    described = pg.parameter_types(23) + pg.columns("n", table=16500)
    commands = talk.target(pg.PARSED, described, pg.ready())
    assert outcomes(commands) == [(2, "completed", "")]
    talk.record(commands)

    for number, value in enumerate([b"7", None, b"9"], 3):
        message = pg.bind([value], "s", results=[1]) + pg.execute() + pg.SYNC
        commands = talk.client(message)
        (request,) = requests(commands)
        assert request.action == "execute"
        assert request.statement == TEXT
        assert request.parameters == ((23, 0, value),)
        assert request.prepared_id == ident(2)
        assert talk.allow(commands) == [Send(TARGET, message)]
        commands = talk.target(pg.BOUND, pg.row(value), pg.done("SELECT 1"), pg.ready())
        assert outcomes(commands) == [(number, "completed", "")]
        (recorded, *_) = facts(commands)
        # The description the client asked for once, in the format its Bind asked for.
        assert recorded.columns == (("n", 16500, 1, 25, 1, "?"),)  # type: ignore[union-attr]
        talk.record(commands)


def test_a_pipeline_is_asked_statement_by_statement_and_sent_in_order() -> None:
    talk = signed_in()
    first, second = pg.extended("select 1"), pg.extended("select 2")
    commands = talk.client(first, second, pg.SYNC)
    assert statements(commands) == ["select 1", "select 2"]
    assert talk.decided(1001) == []
    assert talk.decided(1000) == [Send(TARGET, first + second + pg.SYNC)]
    commands = talk.target(ANSWER[: -len(pg.ready())], ANSWER)
    assert outcomes(commands) == [(2, "completed", ""), (3, "completed", "")]


def test_what_follows_an_error_in_its_segment_failed_and_the_next_segment_runs() -> None:
    talk = signed_in()
    talk.allow(
        talk.client(
            pg.extended("insert into t values (1)"),
            pg.extended("insert into t values (2)"),
            pg.SYNC,
            pg.extended("select 3"),
            pg.SYNC,
        )
    )
    error = pg.error("23505", "duplicate key")
    commands = talk.target(pg.PARSED, pg.BOUND, pg.NO_DATA, error, pg.ready(), ANSWER)
    assert outcomes(commands) == [
        (2, "failed", "23505"),
        (3, "failed", ""),
        (4, "completed", ""),
    ]


def test_what_is_sent_after_an_error_is_skipped_up_to_the_sync() -> None:
    talk = signed_in()
    talk.allow(talk.client(pg.extended("select 1/0"), pg.FLUSH))
    talk.record(talk.target(pg.PARSED, pg.BOUND, pg.NO_DATA, pg.error("22012", "no")))
    commands = talk.client(pg.extended("select 2"), pg.query("select 3"))
    commands = talk.allow(commands)
    assert outcomes(commands) == [(3, "failed", ""), (4, "failed", "")]
    talk.record(commands)
    talk.client(pg.SYNC)
    commands = talk.target(pg.ready())
    assert sent(commands, CLIENT) == pg.ready()
    assert statements(talk.client(pg.query("select 4"))) == ["select 4"]


def test_a_portal_executed_in_steps_is_an_execution_each_time() -> None:
    talk = signed_in()
    talk.allow(talk.client(pg.query("begin")))
    talk.record(talk.target(pg.done("BEGIN"), pg.ready("T")))
    first = (
        pg.parse("select * from t") + pg.bind(portal="c") + pg.describe_portal("c")
    ) + pg.execute("c", rows=1)
    talk.allow(talk.client(first, pg.SYNC))
    commands = talk.target(
        pg.PARSED, pg.BOUND, pg.columns("a"), pg.row(b"1"), pg.SUSPENDED, pg.ready("T")
    )
    assert outcomes(commands) == [(3, "completed", "")]
    talk.record(commands)
    commands = talk.client(pg.execute("c", rows=1), pg.SYNC)
    assert statements(commands) == ["select * from t"]
    talk.allow(commands)
    commands = talk.target(pg.row(b"2"), pg.done("SELECT 1"), pg.ready("T"))
    (recorded, _) = facts(commands)
    assert recorded.columns == (column("a"),)  # type: ignore[union-attr]
    assert outcomes(commands) == [(4, "completed", "")]


def test_a_flush_brings_answers_before_the_sync() -> None:
    talk = signed_in()
    message = pg.parse(TEXT, "s") + pg.describe_statement("s") + pg.FLUSH
    commands = talk.client(message)
    assert [one.action for one in requests(commands)] == ["prepare"]
    assert talk.allow(commands) == [Send(TARGET, message)]
    answer = pg.PARSED + pg.parameter_types(25) + pg.columns("a")
    commands = talk.target(answer)
    assert outcomes(commands) == [(2, "completed", "")]
    assert sent(talk.record(commands), CLIENT) == answer


def test_a_parse_that_nothing_executes_is_a_request_of_its_own() -> None:
    talk = signed_in()
    commands = talk.client(pg.parse("drop table t", "s"), pg.SYNC)
    assert [(one.action, one.kind) for one in requests(commands)] == [("prepare", "drop")]
    poison = pg.split(sent(talk.decided(1000, DENY), TARGET))
    assert poison == [pg.parse(b'SELECT * FROM "' + token(2) + b'"', "s"), pg.SYNC]
    commands = talk.target(denied(2), pg.ready())
    assert outcomes(commands) == [(2, "denied", "42501")]


def test_so_are_a_parse_and_a_bind_together() -> None:
    talk = signed_in()
    commands = talk.client(pg.parse(TEXT, "s"), pg.bind([b"1"], "s", "p"), pg.SYNC)
    (request,) = requests(commands)
    assert (request.action, request.parameters) == ("prepare", ((0, 0, b"1"),))
    talk.allow(commands)
    assert outcomes(talk.target(pg.PARSED)) == []
    assert outcomes(talk.target(pg.BOUND, pg.ready())) == [(2, "completed", "")]


def test_a_bind_that_fails_takes_its_parse_with_it() -> None:
    talk = signed_in()
    talk.allow(talk.client(pg.parse(TEXT, "s"), pg.bind([b"1", b"2"], "s", "p"), pg.SYNC))
    commands = talk.target(pg.PARSED, pg.error("08P01", "bind supplies 2 parameters"), pg.ready())
    assert outcomes(commands) == [(2, "failed", "08P01")]


def test_a_bind_that_nothing_executes_is_judged_when_it_comes() -> None:
    talk = signed_in()
    talk.allow(talk.client(pg.parse(TEXT, "s"), pg.SYNC))
    talk.record(talk.target(pg.PARSED, pg.ready()))
    commands = talk.client(pg.bind([b"secret"], "s", "p"), pg.SYNC)
    assert [(one.action, one.statement) for one in requests(commands)] == [("prepare", TEXT)]
    poison = pg.split(sent(talk.decided(1001 + 1, DENY), TARGET))
    assert poison == [pg.bind(name=token(3).decode(), portal="p"), pg.SYNC]


def test_many_parses_and_binds_are_gathered_in_linear_time() -> None:
    talk = signed_in()
    names = [f"n{number}" for number in range(20_000)]
    parses = b"".join(pg.parse("select 1", name) for name in names)
    binds = b"".join(pg.bind(name=name, portal=name) for name in reversed(names))
    begun = time.process_time()
    assert len(requests(talk.client(parses, binds, pg.SYNC))) >= 20_000
    assert time.process_time() - begun < 15


def test_an_empty_statement_executes() -> None:
    talk = signed_in()
    commands = talk.client(pg.extended(""), pg.SYNC)
    assert [one.kind for one in requests(commands)] == [sql.EMPTY]
    talk.allow(commands)
    commands = talk.target(pg.PARSED, pg.BOUND, pg.NO_DATA, pg.EMPTY, pg.ready())
    assert outcomes(commands) == [(2, "completed", "")]


def test_several_statements_in_a_parse_are_judged_together_and_left_to_the_target() -> None:
    talk = signed_in()
    commands = talk.client(pg.extended("select 1 from a; delete from b"), pg.SYNC)
    (request,) = requests(commands)
    assert request.kinds == {"select", "delete"}
    assert request.relations == ("a", "b")
    assert request.statement == "select 1 from a; delete from b"


# --- refusals ---


def test_a_refused_execution_poisons_its_parse() -> None:
    talk = signed_in()
    talk.client(pg.parse("drop table t", "s", [25]), pg.bind(name="s"), pg.execute(), pg.SYNC)
    poison = pg.split(sent(talk.decided(1000, DENY), TARGET))
    assert poison[0] == pg.parse(b'SELECT * FROM "' + token(2) + b'"', "s")
    assert b"".join(poison[1:]) == pg.bind(name="s") + pg.execute() + pg.SYNC
    commands = talk.target(denied(2), pg.ready())
    assert outcomes(commands) == [(2, "denied", "42501")]
    said = pg.split(sent(talk.record(commands), CLIENT))
    assert pg.fields(said[0])["C"] == "42501" and said[1] == pg.ready()


def test_a_statement_prepared_earlier_is_poisoned_at_its_bind() -> None:
    talk = signed_in()
    talk.allow(talk.client(pg.parse("drop table t", "s"), pg.SYNC))
    talk.record(talk.target(pg.PARSED, pg.ready()))
    talk.client(pg.bind([b"1"], "s"), pg.execute(), pg.SYNC)
    poison = pg.split(sent(talk.decided(1002, DENY), TARGET))
    assert poison == [pg.bind(name=token(3).decode()), pg.execute(), pg.SYNC]
    error = pg.error("26000", f'prepared statement "{token(3).decode()}" does not exist')
    commands = talk.target(error, pg.ready())
    assert outcomes(commands) == [(3, "denied", "42501")]
    assert pg.fields(pg.split(sent(talk.record(commands), CLIENT))[0])["C"] == "42501"


def test_a_portal_bound_earlier_is_poisoned_at_its_execute() -> None:
    talk = signed_in()
    talk.allow(talk.client(pg.query("begin")))
    talk.record(talk.target(pg.done("BEGIN"), pg.ready("T")))
    talk.allow(talk.client(pg.parse("delete from t") + pg.bind(portal="p"), pg.SYNC))
    talk.record(talk.target(pg.PARSED, pg.BOUND, pg.ready("T")))
    talk.client(pg.execute("p", 10), pg.SYNC)
    poison = pg.split(sent(talk.decided(1004, DENY), TARGET))
    assert poison == [pg.execute(token(4).decode()), pg.SYNC]
    error = pg.error("34000", f'portal "{token(4).decode()}" does not exist')
    commands = talk.target(error, pg.ready("E"))
    assert outcomes(commands) == [(4, "denied", "42501")]


def test_a_refusal_in_a_pipeline_leaves_the_others_to_the_target() -> None:
    talk = signed_in()
    texts = ["insert into t values (1)", "drop table t", "insert into t values (2)"]
    talk.client(*[pg.extended(text) for text in texts], pg.SYNC)
    talk.decided(1000, ALLOW)
    talk.decided(1001, DENY)
    talk.decided(1002, ALLOW)
    answer = pg.PARSED + pg.BOUND + pg.NO_DATA + pg.done("INSERT 0 1")
    commands = talk.target(answer, denied(3), pg.ready())
    assert outcomes(commands) == [
        (2, "completed", ""),
        (3, "denied", "42501"),
        (4, "failed", ""),
    ]


def test_only_the_poisoned_message_is_replaced() -> None:
    talk = signed_in()
    talk.client(pg.parse("select 1", "ok"), pg.parse("drop table t", "bad"), pg.SYNC)
    poison = pg.split(sent(talk.decided(1000, ALLOW, DENY), TARGET))
    assert poison[0] == pg.parse("select 1", "ok")
    assert token(3) in poison[1] and b"drop" not in poison[1]


@pytest.mark.parametrize("text", ["select from where", "select 'open"])
def test_a_text_that_does_not_parse_is_poisoned_with_another_one(text: str) -> None:
    talk = signed_in()
    (request,) = requests(talk.client(pg.extended(text), pg.SYNC))
    poison = pg.split(sent(talk.decided(1000, DENY), TARGET))
    assert poison[0] == pg.parse(b'"' + token(2) + b'"')
    error = pg.error("42601", f'syntax error at or near ""{token(2).decode()}""')
    said = pg.split(sent(talk.record(talk.target(error, pg.ready())), CLIENT))
    assert (pg.fields(said[0])["C"], pg.fields(said[0])["M"]) == ("42601", request.refusal)


def test_a_refused_prepare_in_sql_is_unknown_afterwards() -> None:
    talk = signed_in()
    talk.client(pg.query("prepare s as delete from t"))
    talk.decided(1000, DENY)
    talk.record(talk.target(denied(2), pg.ready()))
    (request,) = requests(talk.client(pg.bind(name="s"), pg.execute(), pg.SYNC))
    assert request.refusal == 'prepared statement "s" does not exist'


def test_values_too_large_to_record_with_their_statement_are_refused() -> None:
    talk = signed_in()
    talk.allow(talk.client(pg.parse("select $1 -- " + "x" * 9_000_000, "s"), pg.SYNC))
    talk.record(talk.target(pg.PARSED, pg.ready()))
    (request,) = requests(talk.client(pg.bind([b"x" * 9_000_000], "s"), pg.execute(), pg.SYNC))
    assert request.kind == sql.UNPARSEABLE and request.parameters == ()
    assert request.refusal.startswith("a statement and its parameters may have at most")


@pytest.mark.parametrize("before", [b"", pg.parse("select 1")])
def test_an_error_that_belongs_to_no_statement_is_recorded_too(before: bytes) -> None:
    talk = signed_in()
    commands = talk.client(before, pg.describe_statement("ghost"), pg.SYNC)
    talk.allow(commands)
    error = pg.error("26000", 'prepared statement "ghost" does not exist')
    commands = talk.target(pg.PARSED if before else b"", error, pg.ready())
    assert (0, "notification", error) in rows(commands)
    assert sent(commands, CLIENT) == b""
    assert sent(talk.record(commands), CLIENT).endswith(error + pg.ready())


# --- errors at Sync ---


def test_a_commit_that_fails_at_sync_belongs_to_the_last_statement() -> None:
    talk = signed_in()
    talk.allow(talk.client(pg.extended("insert into t values (1)"), pg.SYNC))
    commands = talk.target(pg.PARSED, pg.BOUND, pg.NO_DATA, pg.done("INSERT 0 1"))
    assert outcomes(commands) == [(2, "completed", "")]
    talk.record(commands)
    error = pg.error("23503", "deferred foreign key")
    commands = talk.target(error, pg.ready())
    assert outcomes(commands) == [(2, "failed", "23503")]
    assert sent(talk.record(commands), CLIENT) == error + pg.ready()


def test_a_server_that_dies_at_a_later_sync_changes_no_earlier_outcome() -> None:
    talk = signed_in()
    talk.allow(talk.client(pg.extended("insert into t values (1)"), pg.SYNC))
    answer = pg.PARSED + pg.BOUND + pg.NO_DATA + pg.done("INSERT 0 1") + pg.ready()
    talk.record(talk.target(answer))
    talk.client(pg.SYNC)
    fatal = pg.error("57P01", "terminating connection", "FATAL")
    commands = talk.target(fatal)
    assert outcomes(commands) == []
    assert rows(commands) == [(0, "notification", fatal)]


# --- what is not the protocol ---


@pytest.mark.parametrize(
    "message",
    [
        pg.message("P", b"no end"),
        pg.message("P", b"s\0select 1\0"),
        pg.message("P", b"s\0select 1\0\0\1"),
        pg.message("P", b"s\0select 1\0\0\0trailing"),
        pg.message("B", b"\0"),
        pg.message("B", b"\0\0\0\0\0\1\0\0\0\x10abc\0\0"),
        pg.message("B", b"\0\0\0\0\0\1\xff\xff\xff\xfe\0\0"),
        pg.message("B", b"\0\0\0\2\0\0\0\0\0\1\0\0\0\0\0\0"),
        pg.message("E", b"portal"),
        pg.message("E"),
        b"Q\0\0\0\3",
        b"q\0\0\0\4",
        pg.message("p", b"password\0"),
    ],
)
def test_it_ends_the_session_and_nothing_of_it_reaches_the_target(message: bytes) -> None:
    talk = signed_in()
    talk.allow(talk.client(pg.parse("select 1"), pg.SYNC))
    talk.record(talk.target(pg.PARSED, pg.ready()))
    commands = talk.client(message)
    assert sent(commands, TARGET) == b""
    assert not any(isinstance(command, Ask) for command in commands)
    assert pg.fields(sent(commands, CLIENT))["C"] == "08P01"
    assert isinstance(commands[-2], Record)
