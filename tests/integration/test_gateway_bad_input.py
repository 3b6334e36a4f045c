"""Large, deep, broken and late: what PostgreSQL answers with an error, a client hears so."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from psycopg import pq

from schemas.events import Completed, Decided, Requested, RequestedOriginal
from tests.e2e import book
from tests.e2e.stack import Stack
from tests.gateway.protocols.postgres import messages as pg
from tests.integration.wire_client import WireClient

pytestmark = pytest.mark.integration

Connection = psycopg.Connection[Any]
TOO_LARGE = 17_000_000


async def test_a_statement_too_large_is_refused_in_words_and_is_in_the_book(
    gateway_stack: Stack,
) -> None:
    servers = gateway_stack.document["kafka"]["bootstrap_servers"]
    before = await book.end(servers)
    with gateway_stack.connect("bob") as connection:
        with pytest.raises(psycopg.errors.ProgramLimitExceeded) as refused:
            connection.execute("select 'too large', '" + "x" * TOO_LARGE + "'")
        assert refused.value.diag.severity == "ERROR"
        assert "at most 16777216 bytes" in str(refused.value)
        assert connection.execute("select 1").fetchone() == (1,)
    found = await book.read(servers, gateway_stack.state.keys, before)
    (requested,) = [
        entry
        for entry in found
        if isinstance(entry.original, RequestedOriginal)
        and entry.original.statement.startswith("select ")
        and entry.event.kind == "unparseable"  # type: ignore[union-attr]
    ]
    assert isinstance(requested.event, Requested)
    of = [
        entry.event
        for entry in found
        if getattr(entry.event, "statement_id", None) == requested.event.statement_id
    ]
    assert [event.decision for event in of if isinstance(event, Decided)] == ["DENY"]
    assert [(event.outcome, event.error_code) for event in of if isinstance(event, Completed)] == [
        ("denied", "54000")
    ]


def test_in_a_transaction_it_aborts_as_any_error(gateway_stack: Stack) -> None:
    with gateway_stack.connect("bob", autocommit=False) as connection:
        connection.execute("create temp table kept (a int)")
        with pytest.raises(psycopg.errors.ProgramLimitExceeded):
            connection.execute("select '" + "x" * TOO_LARGE + "'")
        with pytest.raises(psycopg.errors.InFailedSqlTransaction):
            connection.execute("select 1")
        connection.rollback()
        assert connection.execute("select 1").fetchone() == (1,)


def test_parameters_too_large_are_refused_and_their_statement_stays(gateway_stack: Stack) -> None:
    with gateway_stack.connect("bob") as connection:
        connection.prepare_threshold = 0
        text = "select length(%s::text)"
        assert connection.execute(text, ("abc",)).fetchone() == (3,)
        with pytest.raises(psycopg.errors.ProgramLimitExceeded):
            connection.execute(text, ("x" * TOO_LARGE,))
        assert connection.execute(text, ("abcd",)).fetchone() == (4,)


def test_a_prepared_text_too_large_is_refused(gateway_stack: Stack) -> None:
    with gateway_stack.connect("bob") as connection:
        with pytest.raises(psycopg.errors.ProgramLimitExceeded):
            connection.execute("select %s, '" + "x" * TOO_LARGE + "'", ("a",))
        assert connection.execute("select %s::int", (1,)).fetchone() == (1,)


def test_in_a_pipeline_what_is_before_and_behind_it_runs(gateway_stack: Stack) -> None:
    with WireClient.signed_in(gateway_stack, "bob") as bob:
        large = pg.query("select '" + "x" * TOO_LARGE + "'")
        answers = bob.ask(pg.query("select 1"), large, pg.query("select 2"), times=3)
        assert pg.kinds(b"".join(answers)) == "TDCZEZTDCZ"


def test_ten_megabytes_of_statement_run(gateway_stack: Stack) -> None:
    with gateway_stack.connect("bob") as connection:
        text = "select length('" + "x" * 10_000_000 + "')"
        assert connection.execute(text).fetchone() == (10_000_000,)
        assert connection.execute(text + " where %s", (True,)).fetchone() == (10_000_000,)


def test_as_many_parameters_as_there_may_be(gateway_stack: Stack) -> None:
    count = 65_535
    text = "select array[" + ", ".join(["%s::int"] * count) + "]"
    with gateway_stack.connect("bob") as connection:
        row = connection.execute(text, list(range(count)), binary=True).fetchone()
        assert row == (list(range(count)),)


def code(connection: Connection, text: str | bytes) -> str | None:
    """The SQLSTATE a text ends with; the connection must outlive it."""
    try:
        connection.execute(text)  # type: ignore[arg-type]
    except psycopg.Error as error:
        assert connection.info.status == pq.ConnStatus.OK
        assert connection.execute("select 1").fetchone() == (1,)
        return error.sqlstate
    return None


@pytest.mark.parametrize(
    ("text", "codes"),
    [
        # A grammar's and a server's stack are not equally deep; both say that it is too much.
        ("select " + "(" * 10_000 + "1" + ")" * 10_000, {"42601", "54001"}),
        ("select " + "-" * 1 + "- 1" + " - 1" * 10_000, {None, "54001", "42601"}),
        ("select " + "array[" * 10_000 + "1" + "]" * 10_000, {"42601", "54001"}),
        ("select * from " + "(select * from " * 10_000 + "t" + ")" * 10_000, {"42601", "54001"}),
        ("select " + "not " * 10_000 + "true", {None, "42601", "54001"}),
        (b"select '\xff'", {"22021"}),
        (b"select '\xc3'", {"22021"}),
    ],
    ids=["parentheses", "minus", "arrays", "subqueries", "not", "no UTF-8", "half a character"],
)
def test_deep_and_undecodable_texts_are_errors_as_at_the_server(
    gateway_stack: Stack, text: str | bytes, codes: set[str | None]
) -> None:
    with gateway_stack.connect("bob") as through, gateway_stack.direct() as directly:
        assert code(directly, text) in codes
        assert code(through, text) in codes


def test_an_undecodable_value_is_the_servers_error(gateway_stack: Stack) -> None:
    """Bind values are the server's to judge."""
    with WireClient.signed_in(gateway_stack, "bob") as bob:
        answers = bob.ask(pg.extended("select $1::text", b"\xff"), pg.SYNC)
        assert [pg.fields(one)["C"] for one in answers if one[:1] == b"E"] == ["22021"]
        assert pg.kinds(b"".join(bob.ask(pg.query("select 1")))) == "TDCZ"


def test_a_zero_in_a_value_is_the_servers_error(gateway_stack: Stack) -> None:
    with WireClient.signed_in(gateway_stack, "bob") as bob:
        answers = bob.ask(pg.extended("select $1::text", b"a\0b"), pg.SYNC)
        assert [pg.fields(one)["C"] for one in answers if one[:1] == b"E"] == ["22021"]


@pytest.mark.parametrize(
    ("broken", "sqlstate"),
    [
        (pg.message("Q", b"select 1\0; drop table customers\0"), "08P01"),
        (pg.message("Q", b"select 1"), "08P01"),
        (pg.message("P", b"s\0select 1\0\0\7"), "08P01"),
        (pg.message("B", b"\0\0\0\0\0\1\x7f\xff\xff\xffabc"), "08P01"),
        (b"Q\0\0\0\3", "08P01"),
        (b"y\0\0\0\4", "08P01"),
    ],
    ids=["zero in a text", "no end", "missing types", "a length that lies", "short", "unknown"],
)
def test_broken_messages_end_the_session_in_words(
    gateway_stack: Stack, broken: bytes, sqlstate: str
) -> None:
    with WireClient.signed_in(gateway_stack, "bob") as bob:
        bob.send(pg.query("select 1"), broken, pg.query("select 2"))
        said = [pg.fields(one) for one in bob.to_the_end() if one[:1] == b"E"]
        assert [(each["S"], each["C"]) for each in said] == [("FATAL", sqlstate)]


@pytest.mark.parametrize(
    ("early", "sqlstate"),
    [
        (pg.execute("nowhere"), "34000"),
        (pg.bind(name="nowhere"), "26000"),
        (pg.describe_statement("nowhere"), "26000"),
        (pg.describe_portal("nowhere"), "34000"),
        (pg.describe_portal() + pg.parse("select 1"), "34000"),
    ],
    ids=["execute", "bind", "describe statement", "describe portal", "describe before parse"],
)
def test_messages_out_of_order_are_errors_and_the_session_lives(
    gateway_stack: Stack, early: bytes, sqlstate: str
) -> None:
    with WireClient.signed_in(gateway_stack, "bob") as bob:
        answers = bob.ask(early, pg.parse("select 1", "s"), pg.SYNC)
        assert pg.kinds(b"".join(answers)) == "EZ"
        assert pg.fields(answers[0])["C"] == sqlstate
        assert pg.kinds(b"".join(bob.ask(pg.query("select 1")))) == "TDCZ"


def test_ends_of_copies_and_closes_of_nothing_are_ignored(gateway_stack: Stack) -> None:
    with WireClient.signed_in(gateway_stack, "bob") as bob:
        stray = (pg.COPY_DONE, pg.copy_data(b"1\n"), pg.copy_fail("no"), pg.close_portal("nowhere"))
        answers = bob.ask(*stray, pg.close_statement("nowhere"), pg.FLUSH, pg.SYNC)
        assert pg.kinds(b"".join(answers)) == "33Z"


@pytest.mark.parametrize("when", ["after the parse", "after the bind"])
def test_a_table_dropped_between_parse_and_bind_is_undefined(
    gateway_stack: Stack, when: str
) -> None:
    with gateway_stack.direct() as outside, WireClient.signed_in(gateway_stack, "bob") as bob:
        outside.execute("create table passing as select 1 as a")
        assert bob.ask(pg.parse("select a from passing", "s"), pg.SYNC)[0] == pg.PARSED
        outside.execute("drop table passing")
        answers = bob.ask(
            *((pg.describe_statement("s"), pg.SYNC) if when == "after the parse" else ()),
            *((pg.bind(name="s"), pg.execute(), pg.SYNC) if when == "after the bind" else ()),
        )
        assert [pg.fields(one)["C"] for one in answers if one[:1] == b"E"] == ["42P01"]
        assert pg.kinds(b"".join(bob.ask(pg.query("select 1")))) == "TDCZ"
