"""Simple queries: asked, forwarded when decided, answered when recorded."""

from __future__ import annotations

import pytest

from gateway.machine import Close, Record, Rows, Send
from gateway.policy.sql import analyse
from tests.gateway.protocols.postgres import messages as pg
from tests.gateway.protocols.postgres.dialogue import (
    ALLOW,
    CLIENT,
    DENY,
    TARGET,
    asked,
    column,
    ident,
    outcome,
    outcomes,
    request,
    requests,
    rows,
    sent,
    signed_in,
    statements,
    token,
)


def test_a_query_passes_once_it_is_in_the_book_and_its_answer_too() -> None:
    talk = signed_in()
    query = pg.query("select 1")
    answer = pg.columns("a") + pg.row(b"1") + pg.done("SELECT 1") + pg.ready()

    assert talk.client(query) == [asked(1000, 2, "select 1")]
    assert talk.decided(1000) == [Send(TARGET, query)]
    assert talk.target(answer) == [
        Record(
            1001,
            (
                Rows(ident(2), 0, "rows", (column("a"),), False, 1, pg.row(b"1")),
                outcome(2, "SELECT 1", rows=1, byte_count=len(pg.row(b"1"))),
            ),
        )
    ]
    assert talk.recorded(1001) == [Send(CLIENT, answer)]


def test_how_long_a_statement_ran_is_counted_from_when_it_was_forwarded() -> None:
    talk = signed_in()
    talk.client(pg.query("select 1"))
    talk.now = 5_000
    talk.decided(1000)
    talk.now = 7_500
    record = talk.target(pg.done("SELECT 0"), pg.ready())[0]
    assert isinstance(record, Record)
    assert record.facts == (outcome(2, "SELECT 0", duration_ns=2_500),)


def test_each_statement_of_one_query_is_asked_and_ends_by_itself() -> None:
    talk = signed_in()
    query = pg.query("insert into t values (1); select 2; ")

    (ask,) = talk.client(query)
    assert statements([ask]) == ["insert into t values (1)", "select 2"]
    assert talk.decided(1000, ALLOW, ALLOW) == [Send(TARGET, query)]
    commands = talk.target(
        pg.done("INSERT 0 1"),
        pg.columns("b"),
        pg.row(b"2"),
        pg.done("SELECT 1"),
        pg.ready(),
    )
    assert outcomes(commands) == [(2, "completed", ""), (3, "completed", "")]
    assert rows(commands) == [(3, "rows", pg.row(b"2"))]


def test_after_an_error_the_statements_behind_it_did_not_run() -> None:
    talk = signed_in()
    talk.client(pg.query("select 1; select 1/0; select 3"))
    talk.decided(1000, ALLOW, ALLOW, ALLOW)
    commands = talk.target(
        pg.columns("a"),
        pg.row(b"1"),
        pg.done("SELECT 1"),
        pg.error("22012", "division by zero"),
        pg.ready(),
    )
    assert outcomes(commands) == [(2, "completed", ""), (3, "failed", "22012"), (4, "failed", "")]


def test_an_empty_query_is_a_request_like_any_other() -> None:
    talk = signed_in()
    commands = talk.client(pg.query(" -- nothing"))
    assert [(one.kind, one.statement) for one in requests(commands)] == [("empty", "")]
    talk.decided(1000)
    assert outcomes(talk.target(pg.EMPTY, pg.ready())) == [(2, "completed", "")]


def test_a_query_that_ends_early_is_not_the_protocol() -> None:
    talk = signed_in()
    commands = talk.client(pg.message("Q", b"select 1\0; drop table t\0"))
    assert requests(commands) == []
    assert pg.fields(sent(commands, CLIENT))["C"] == "08P01"


# --- refusals ---


def test_a_refused_query_is_poisoned_and_the_poisons_error_rewritten() -> None:
    talk = signed_in()
    assert talk.client(pg.query("drop table t")) == [asked(1000, 2, "drop table t")]

    poison = pg.query(b'SELECT * FROM "' + token(2) + b'"')
    assert talk.decided(1000, DENY) == [Send(TARGET, poison)]
    commands = talk.target(
        pg.error("42P01", f'relation "{token(2).decode()}" does not exist'), pg.ready("E")
    )
    assert outcomes(commands) == [(2, "denied", "42501")]
    said = pg.split(sent(talk.record(commands), CLIENT))
    assert pg.fields(said[0]) == {
        "S": "ERROR",
        "V": "ERROR",
        "C": "42501",
        "M": "permission denied: support changes nothing",
        "D": "Refused by the gateway (policy support).",
        "H": "Ask a DBA.",
    }
    assert said[1] == pg.ready("E")


def test_in_an_aborted_transaction_the_servers_own_error_stands() -> None:
    talk = signed_in()
    talk.client(pg.query("drop table t"))
    talk.decided(1000, DENY)
    aborted = pg.error("25P02", "current transaction is aborted") + pg.ready("E")
    commands = talk.target(aborted)
    assert outcomes(commands) == [(2, "denied", "25P02")]
    assert sent(talk.record(commands), CLIENT) == aborted


def test_the_statements_before_a_refused_one_run() -> None:
    talk = signed_in()
    talk.client(
        pg.query("insert into a values (1); select 2 /* ; */; -- ü;\n drop table t; select 3")
    )
    commands = talk.decided(1000, ALLOW, ALLOW, DENY, ALLOW)
    poison = f'SELECT * FROM "{token(4).decode()}"'
    before = "insert into a values (1); select 2 /* ; */; -- ü;\n "
    assert sent(commands, TARGET) == pg.query(before + poison)
    commands = talk.target(
        pg.done("INSERT 0 1"),
        pg.columns("a"),
        pg.row(b"2"),
        pg.done("SELECT 1"),
        pg.error("42P01", f'relation "{token(4).decode()}" does not exist'),
        pg.ready(),
    )
    assert outcomes(commands) == [
        (2, "completed", ""),
        (3, "completed", ""),
        (4, "denied", "42501"),
        (5, "failed", ""),
    ]


def test_an_error_of_a_statement_before_the_refused_one_is_the_servers() -> None:
    talk = signed_in()
    talk.client(pg.query("insert into a values (1); drop table t"))
    talk.decided(1000, ALLOW, DENY)
    real = pg.error("23505", "duplicate key")
    commands = talk.target(real, pg.ready())
    assert outcomes(commands) == [(2, "failed", "23505"), (3, "denied", "42501")]
    assert sent(talk.record(commands), CLIENT) == real + pg.ready()


@pytest.mark.parametrize("text", ["select from where", "select 'open", "drop table t )"])
def test_a_text_that_does_not_parse_never_reaches_the_target(text: str) -> None:
    talk = signed_in()
    (statement,) = analyse(text)
    assert talk.client(pg.query(text)) == [asked(1000, 2, text)]
    assert talk.decided(1000, DENY) == [Send(TARGET, pg.query(b'"' + token(2) + b'"'))]
    commands = talk.target(
        pg.error("42601", f'syntax error at or near ""{token(2).decode()}""'), pg.ready()
    )
    said = pg.fields(pg.split(sent(talk.record(commands), CLIENT))[0])
    assert (said["C"], said["M"], said["P"]) == (
        "42601",
        statement.error,
        str(statement.position),
    )


def test_a_function_call_is_judged_by_policy_and_refused_as_a_query() -> None:
    talk = signed_in()
    call = pg.function_call(952, b"\0\0\0\1", None)
    (asking,) = requests(talk.client(call))
    assert (asking.kind, asking.kinds) == ("function_call", frozenset({"function_call"}))
    assert asking.statement == "FUNCTION CALL 952"
    assert asking.parameters == ((0, 1, b"\0\0\0\1"), (0, 1, None))
    assert talk.decided(1000, DENY) == [
        Send(TARGET, pg.query(b'SELECT * FROM "' + token(2) + b'"'))
    ]
    commands = talk.target(pg.error("42P01", f'relation "{token(2).decode()}"'), pg.ready())
    assert outcomes(commands) == [(2, "denied", "42501")]


@pytest.mark.parametrize("value", [b"\0\0\0\7", b"", None])
def test_a_functions_result_is_one_row_of_one_value(value: bytes | None) -> None:
    talk = signed_in()
    call = pg.function_call(952, b"\0\0\0\1")
    talk.client(call)
    assert talk.decided(1000) == [Send(TARGET, call)]
    answer = pg.function_result(value) + pg.ready()
    commands = talk.target(answer)
    assert rows(commands) == [(2, "rows", pg.row(value))]
    assert outcomes(commands) == [(2, "completed", "")]
    assert sent(talk.record(commands), CLIENT) == answer


def test_a_large_result_of_a_function_comes_in_pieces() -> None:
    talk = signed_in()
    talk.client(pg.function_call(954, b"\0\0\0\0", b"\0\x20\0\0"))
    talk.decided(1000)
    answer = pg.function_result(bytes(2 << 20)) + pg.ready()
    commands = talk.target(answer)
    assert {encoding for _, encoding, _ in rows(commands)} == {"fragment"}
    assert b"".join(data for _, _, data in rows(commands)) == answer[: -len(pg.ready())]
    assert outcomes(commands) == [(2, "completed", "")]
    assert sent(talk.record(commands), CLIENT) == answer


def test_what_follows_a_function_call_waits_for_what_it_may_have_set() -> None:
    talk = signed_in()
    talk.client(pg.function_call(2078, b"client_encoding", b"LATIN1", b"\0"))
    assert talk.client(pg.query("select 'ä'".encode())) == []


@pytest.mark.parametrize("body", [b"", b"\0\0\3\xb8", b"\0\0\3\xb8\0\0\0\1\0\0\0\x09x\0\1"])
def test_a_function_call_that_lies_ends_the_session(body: bytes) -> None:
    commands = signed_in().client(pg.message("F", body))
    assert pg.fields(sent(commands, CLIENT))["C"] == "08P01"
    assert isinstance(commands[-1], Close)


def test_only_an_error_that_carries_the_token_is_rewritten() -> None:
    talk = signed_in()
    talk.client(pg.query("drop table t"))
    talk.decided(1000, DENY)
    real = pg.error("57014", "canceling statement due to user request")
    commands = talk.target(real, pg.ready())
    assert sent(talk.record(commands), CLIENT) == real + pg.ready()


# --- queued queries ---


def test_queries_wait_in_order_for_their_decisions() -> None:
    talk = signed_in()
    first, second = pg.query("select 1"), pg.query("select 2")
    assert talk.client(first, second) == [
        asked(1000, 2, "select 1"),
        asked(1001, 3, "select 2"),
    ]
    assert talk.decided(1001) == []
    assert talk.decided(1000) == [Send(TARGET, first + second)]


def test_answers_wait_in_order_for_their_records() -> None:
    talk = signed_in()
    talk.allow(talk.client(pg.query("select 1"), pg.query("select 2")))
    one, two = pg.done("SELECT 0") + pg.ready(), pg.done("SELECT 0") + pg.ready()
    talk.target(one)
    talk.target(two)
    assert talk.recorded(1003) == []
    assert talk.recorded(1002) == [Send(CLIENT, one + two)]


def test_rows_of_the_next_statement_never_leave_before_their_record() -> None:
    """One packet ends a statement and begins the next one's rows."""
    talk = signed_in()
    talk.client(pg.query("select 1; select 2"))
    talk.decided(1000, ALLOW, ALLOW)
    first = pg.columns("a") + pg.row(b"1") + pg.done("SELECT 1")
    second = pg.columns("b") + pg.row(b"2")
    commands = talk.target(first + second)
    assert rows(commands) == [(2, "rows", pg.row(b"1")), (3, "rows", pg.row(b"2"))]
    assert sent(talk.record(commands), CLIENT) == first + second


def test_a_notification_among_rows_releases_none_of_them_unrecorded() -> None:
    talk = signed_in()
    talk.client(pg.query("select 1"))
    talk.decided(1000)
    mixed = pg.columns("a") + pg.row(b"1") + pg.notification("c", "x") + pg.row(b"2")
    commands = talk.target(mixed)
    assert rows(commands) == [
        (0, "notification", pg.notification("c", "x")),
        (2, "rows", pg.row(b"1") + pg.row(b"2")),
    ]
    assert sent(talk.record(commands), CLIENT) == mixed


def test_the_request_names_what_a_statement_is() -> None:
    talk = signed_in()
    (asking,) = requests(
        talk.client(pg.query("with d as (delete from shop.orders returning *) select * from d, c"))
    )
    (statement,) = analyse("with d as (delete from shop.orders returning *) select * from d, c")
    assert asking == request(2, statement)
    assert asking.kinds == {"select", "delete"}
    assert asking.relations == ("c", "d", "shop.orders")
