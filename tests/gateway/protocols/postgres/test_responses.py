"""Results, COPY, notices, notifications: recorded in pieces, released in order."""

from __future__ import annotations

import itertools
import time

import pytest

from gateway.machine import CatalogView, Idle, Record, RequestData, Rows, Send
from tests.gateway.protocols.postgres import messages as pg
from tests.gateway.protocols.postgres.dialogue import (
    ALLOW,
    CLIENT,
    DENY,
    TARGET,
    Dialogue,
    column,
    facts,
    ident,
    outcome,
    outcomes,
    rows,
    sent,
    signed_in,
    statements,
    token,
)

CHUNK = 4096


def running(text: str, **options: object) -> Dialogue:
    """A session in which statement 2 runs."""
    talk = signed_in(chunk_bytes=CHUNK, **options)
    talk.client(pg.query(text))
    talk.decided(1000)
    return talk


def selecting(**options: object) -> Dialogue:
    return running("select * from t", **options)


# --- rows ---


def test_rows_wait_for_more_until_nothing_comes_for_a_moment() -> None:
    talk = selecting()
    part = pg.columns("a") + pg.row(b"1")
    assert talk.target(part) == []
    assert talk.machine.session is not None and talk.machine.session.waiting
    (record,) = talk.handle(Idle())
    assert rows([record]) == [(2, "rows", pg.row(b"1"))]
    assert talk.recorded(1001) == [Send(CLIENT, part)]


def test_a_full_chunk_is_recorded_at_once() -> None:
    talk = selecting()
    data = pg.columns("a") + pg.row(b"x" * 1500) * 3
    (record,) = talk.target(data)
    assert rows([record]) == [(2, "rows", pg.row(b"x" * 1500) * 3)]
    assert talk.recorded(1001) == [Send(CLIENT, data)]


def test_chunks_are_numbered_and_counted() -> None:
    talk = selecting()
    commands = talk.target(pg.columns("a"), pg.row(b"x" * 5000))
    commands += talk.target(pg.row(b"y"), pg.done("SELECT 2"), pg.ready())
    assert [(f.chunk, f.rows) for f in facts(commands) if isinstance(f, Rows)] == [(0, 1), (1, 1)]
    size = len(pg.row(b"x" * 5000) + pg.row(b"y"))
    assert facts(commands)[-1] == outcome(2, "SELECT 2", rows=2, byte_count=size)


def test_where_columns_come_from_is_recorded_with_them() -> None:
    catalog = CatalogView(
        {(16500, 1): "public.customers.id", (16500, 2): "public.customers.ssn"},
        frozenset({16500}),
        frozenset({"customers"}),
    )
    talk = running("select id, ssn from customers", catalog=catalog)
    commands = talk.target(pg.columns("id", "n", table=16500), pg.row(b"1", b"2"), pg.ready())
    (recorded, *_) = facts(commands)
    assert isinstance(recorded, Rows) and recorded.classified
    assert recorded.columns == (
        column("id", 16500, 1, "public.customers.id"),
        column("n", 16500, 2, "public.customers.ssn"),
    )


@pytest.mark.parametrize(
    ("text", "table", "source"),
    [
        ("select 1 from orders", 0, ""),
        ("select max(ssn) from customers", 0, "?"),
        ("execute s", 0, "?"),
        ("select * from brand_new", 99999, "?"),
        ("select relname from pg_class", 1259, ""),
    ],
)
def test_a_column_of_unknown_origin_is_marked_where_it_may_be_classified(
    text: str, table: int, source: str
) -> None:
    catalog = CatalogView({}, frozenset({16500}), frozenset({"customers"}))
    talk = running(text, catalog=catalog)
    commands = talk.target(pg.columns("a", table=table), pg.row(b"1"), pg.ready())
    (recorded, *_) = facts(commands)
    assert isinstance(recorded, Rows)
    assert recorded.columns[0][-1] == source


def test_a_catalog_that_has_learnt_is_used_at_once() -> None:
    talk = selecting()
    first = talk.target(pg.columns("a", table=16500), pg.row(b"1"), pg.done("SELECT 1"), pg.ready())
    talk.record(first)
    talk.catalog = CatalogView({(16500, 1): "public.t.a"}, frozenset({16500}), frozenset())
    talk.client(pg.query("select * from t"))
    talk.decided(1002)
    second = talk.target(
        pg.columns("a", table=16500), pg.row(b"1"), pg.done("SELECT 1"), pg.ready()
    )
    found = [fact.columns[0][-1] for fact in facts(first + second) if isinstance(fact, Rows)]
    assert found == ["?", "public.t.a"]


def test_a_row_of_five_megabytes_is_recorded_and_released_in_pieces() -> None:
    talk = signed_in()
    talk.client(pg.query("select big"))
    talk.decided(1000)
    row = pg.row(bytes(5 * 1024 * 1024))
    whole = pg.columns("a") + row + pg.row(b"z") + pg.done("SELECT 2") + pg.ready()
    commands, released, most = [], b"", 0
    for at in range(0, len(whole), 65_536):
        answer = talk.target(whole[at : at + 65_536])
        commands += answer
        released += sent(answer, CLIENT) + sent(talk.record(answer), CLIENT)
        most = max(most, at + 65_536 - len(released))
    assert released == whole
    assert most < 2 * 1024 * 1024
    pieces = [fact for fact in facts(commands) if isinstance(fact, Rows)]
    assert b"".join(piece.data for piece in pieces if piece.encoding == "fragment") == row
    assert [piece.chunk for piece in pieces] == list(range(len(pieces)))
    assert facts(commands)[-1] == outcome(
        2, "SELECT 2", rows=2, byte_count=len(row) + len(pg.row(b"z"))
    )


def test_a_large_row_is_taken_in_pieces_however_it_comes() -> None:
    talk = signed_in()
    talk.client(pg.query("select big"))
    talk.decided(1000)
    commands = talk.target(pg.columns("a"), pg.row(bytes(5 * 1024 * 1024)), pg.ready())
    assert "fragment" in {fact.encoding for fact in facts(commands) if isinstance(fact, Rows)}


def test_a_message_that_is_no_row_may_be_large_too() -> None:
    talk = selecting()
    answer = pg.error("P0001", "x" * 3_000_000) + pg.ready()
    commands = []
    for at in range(0, len(answer), 100_000):
        commands += talk.target(answer[at : at + 100_000])
    assert outcomes(commands) == [(2, "failed", "P0001")]
    assert sent(talk.record(commands), CLIENT) == answer


def test_but_not_without_bound() -> None:
    talk = selecting()
    commands = talk.target(b"E" + (64 * 1024 * 1024).to_bytes(4, "big") + b"x" * 100)
    assert pg.fields(sent(talk.record(commands), CLIENT))["C"] == "54000"


# --- notices and notifications ---


def test_notices_are_recorded_with_the_statement_they_belong_to() -> None:
    talk = selecting()
    answer = pg.notice("careful") + pg.done("DO") + pg.ready()
    commands = talk.target(answer)
    assert facts(commands) == [
        outcome(2, "DO", notices=({"S": "NOTICE", "V": "NOTICE", "C": "00000", "M": "careful"},))
    ]
    assert sent(talk.record(commands), CLIENT) == answer


def test_notices_of_no_statement_are_recorded_too() -> None:
    talk = signed_in()
    commands = talk.target(pg.notice("hello"))
    assert rows(commands) == [(0, "notification", pg.notice("hello"))]
    assert sent(talk.record(commands), CLIENT) == pg.notice("hello")


def test_many_notices_are_all_recorded_beyond_a_bound_by_themselves() -> None:
    talk = selecting()
    answer = pg.notice("again") * 500 + pg.done("DO") + pg.ready()
    commands = talk.target(answer)
    *others, end = facts(commands)
    assert len(end.notices) == 101  # type: ignore[union-attr]
    assert end.notices[-1]["M"] == "further notices are not held here"  # type: ignore[union-attr]
    assert rows(commands) == [(0, "notification", pg.notice("again"))] * 400
    assert len(others) == 400
    assert sent(talk.record(commands), CLIENT) == answer


def test_large_notices_are_recorded_one_by_one() -> None:
    talk = selecting()
    commands = []
    for _ in range(20):
        commands += talk.target(pg.notice("x" * 900_000))
    commands += talk.target(pg.done("DO"), pg.ready())
    *others, end = facts(commands)
    assert sum(len(one["M"]) for one in end.notices) < 3_000_000  # type: ignore[union-attr]
    assert len(others) == 20


def test_a_notice_waits_for_its_record_while_its_statement_runs() -> None:
    talk = selecting()
    commands = talk.target(pg.notice("a row of another table"))
    assert sent(commands, CLIENT) == b""
    assert rows(commands) == [(0, "notification", pg.notice("a row of another table"))]
    assert sent(talk.record(commands), CLIENT) == pg.notice("a row of another table")


def test_a_setting_that_changes_is_recorded_and_passed_on() -> None:
    """A function may have put into it what it read."""
    talk = signed_in()
    message = pg.status("application_name", "078-05-1120")
    commands = talk.target(message)
    assert rows(commands) == [(0, "notification", message)]
    assert sent(commands, CLIENT) == b""
    assert sent(talk.record(commands), CLIENT) == message


def test_a_notification_is_recorded_and_passed_on() -> None:
    talk = signed_in()
    message = pg.notification("news", "payload")
    commands = talk.target(message)
    assert rows(commands) == [(0, "notification", message)]
    assert sent(talk.record(commands), CLIENT) == message


def test_a_cancelled_statement_is_one() -> None:
    talk = selecting()
    error = pg.error("57014", "canceling statement due to user request")
    assert outcomes(talk.target(error, pg.ready())) == [(2, "cancelled", "57014")]


# --- COPY ---


def test_copy_to_the_client_is_recorded_row_by_row() -> None:
    talk = running("copy t to stdout")
    answer = (
        pg.COPY_OUT
        + pg.copy_data(b"1\ta\n")
        + pg.copy_data(b"2\tb\n")
        + pg.COPY_DONE
        + pg.done("COPY 2")
        + pg.ready()
    )
    commands = talk.target(answer)
    assert facts(commands) == [
        Rows(ident(2), 0, "copy", (), False, 2, b"1\ta\n2\tb\n"),
        outcome(2, "COPY 2", rows=2, byte_count=8),
    ]
    assert sent(talk.record(commands), CLIENT) == answer


def test_copying_many_small_rows_out_costs_linear_time() -> None:
    talk = signed_in()
    talk.client(pg.query("copy t to stdout"))
    talk.decided(1000)
    talk.target(pg.COPY_OUT)
    data = pg.copy_data(b"1\n") * 10_000
    begun = time.process_time()
    for _ in range(10):
        talk.record(talk.target(data))
    assert time.process_time() - begun < 3


def test_copy_from_the_client_is_recorded_before_it_is_forwarded() -> None:
    talk = running("copy t from stdin")
    talk.target(pg.COPY_IN)
    data = pg.copy_data(b"1\ta\n") + pg.copy_data(b"2\tb\n")
    (record,) = talk.client(data)
    assert record == Record(1001, (RequestData(ident(2), 0, b"1\ta\n2\tb\n"),))
    assert talk.recorded(1001) == [Send(TARGET, data)]
    (more,) = talk.client(pg.copy_data(b"3\tc\n"), pg.COPY_DONE)
    assert facts([more]) == [RequestData(ident(2), 1, b"3\tc\n")]
    assert talk.recorded(1002) == [Send(TARGET, pg.copy_data(b"3\tc\n") + pg.COPY_DONE)]
    commands = talk.target(pg.done("COPY 3"), pg.ready())
    assert outcomes(commands) == [(2, "completed", "")]


@pytest.mark.parametrize("cuts", [(), (4,), (5, 700_000), (2_500_000,)])
def test_data_in_one_large_message_is_passed_on_in_pieces(cuts: tuple[int, ...]) -> None:
    talk = running("copy t from stdin")
    talk.target(pg.COPY_IN)
    data = bytes(range(256)) * 10_000
    stream = pg.copy_data(data) + pg.copy_data(b"end") + pg.COPY_DONE
    forwarded, bounds = b"", (0, *cuts, len(stream))
    for start, end in itertools.pairwise(bounds):
        commands = talk.client(stream[start:end])
        forwarded += sent(commands, TARGET) + sent(talk.record(commands), TARGET)
    messages = pg.split(forwarded)
    assert b"".join(one[5:] for one in messages[:-1]) == data + b"end"
    assert max(map(len, messages)) < 1_100_000
    assert messages[-1] == pg.COPY_DONE


def test_data_sent_without_waiting_belongs_to_its_copy() -> None:
    talk = signed_in()
    commands = talk.client(pg.query("copy t from stdin"), pg.copy_data(b"1\n"), pg.COPY_DONE)
    assert facts(commands) == [RequestData(ident(2), 0, b"1\n")]
    assert talk.recorded(1001) == []
    assert pg.kinds(sent(talk.decided(1000), TARGET)) == "Qdc"


def test_data_of_a_refused_copy_is_recorded_and_ignored_by_the_target() -> None:
    talk = signed_in()
    commands = talk.client(pg.query("copy t from stdin"), pg.copy_data(b"1\n"), pg.COPY_DONE)
    talk.decided(1000, DENY)
    forwarded = talk.record(commands)
    assert facts(commands) == [RequestData(ident(2), 0, b"1\n")]
    assert pg.kinds(sent(forwarded, TARGET)) == "dc"
    error = pg.error("42P01", f'relation "{token(2).decode()}" does not exist')
    assert outcomes(talk.target(error, pg.ready())) == [(2, "denied", "42501")]


def test_a_client_may_give_up_a_copy() -> None:
    talk = running("copy t from stdin")
    talk.target(pg.COPY_IN)
    assert talk.client(pg.copy_fail("never mind")) == [Send(TARGET, pg.copy_fail("never mind"))]
    error = pg.error("57014", "COPY from stdin failed: never mind")
    assert outcomes(talk.target(error, pg.ready())) == [(2, "cancelled", "57014")]


def test_data_after_a_copy_failed_still_belongs_to_it() -> None:
    talk = running("copy t from stdin")
    talk.target(pg.COPY_IN)
    talk.record(talk.target(pg.error("22P02", "invalid input syntax")))
    assert facts(talk.client(pg.copy_data(b"late\n"))) == [RequestData(ident(2), 0, b"late\n")]


def test_each_of_two_copies_in_one_query_gets_its_own_data() -> None:
    talk = signed_in()
    talk.client(pg.query("copy a from stdin; copy b from stdin"))
    talk.decided(1000, ALLOW, ALLOW)
    talk.target(pg.COPY_IN)
    talk.record(talk.client(pg.copy_data(b"a\n"), pg.COPY_DONE))
    talk.record(talk.target(pg.done("COPY 1"), pg.COPY_IN))
    assert facts(talk.client(pg.copy_data(b"b\n"))) == [RequestData(ident(3), 0, b"b\n")]


def test_copy_works_in_the_extended_protocol() -> None:
    talk = signed_in()
    talk.allow(talk.client(pg.extended("copy t from stdin"), pg.SYNC))
    talk.target(pg.PARSED, pg.BOUND, pg.NO_DATA, pg.COPY_IN)
    commands = talk.client(pg.copy_data(b"1\n"), pg.COPY_DONE, pg.SYNC)
    assert facts(commands) == [RequestData(ident(2), 0, b"1\n")]
    talk.record(commands)


def test_a_sync_before_the_data_is_ignored_by_the_target() -> None:
    """libpq and pg8000 send it with the Execute, and another one after the data."""
    talk = signed_in()
    talk.allow(talk.client(pg.extended("copy t from stdin"), pg.SYNC))
    talk.target(pg.PARSED, pg.BOUND, pg.NO_DATA, pg.COPY_IN)
    talk.record(talk.client(pg.copy_data(b"1\n"), pg.COPY_DONE, pg.SYNC))
    commands = talk.target(pg.done("COPY 1"), pg.ready())
    assert outcomes(commands) == [(2, "completed", "")]
    talk.record(commands)
    talk.allow(talk.client(pg.query("select 1")))
    assert outcomes(talk.target(pg.done("SELECT 1"), pg.ready())) == [(3, "completed", "")]


def test_so_it_is_when_everything_is_sent_at_once() -> None:
    talk = signed_in()
    message = pg.extended("copy t from stdin") + pg.SYNC
    commands = talk.client(message, pg.copy_data(b"1\n"), pg.COPY_DONE, pg.SYNC)
    talk.allow(commands)
    talk.record(commands)
    commands = talk.target(
        pg.PARSED, pg.BOUND, pg.NO_DATA, pg.COPY_IN, pg.done("COPY 1"), pg.ready()
    )
    assert outcomes(commands) == [(2, "completed", "")]
    talk.record(commands)
    talk.allow(talk.client(pg.query("select 1")))
    assert outcomes(talk.target(pg.done("SELECT 1"), pg.ready())) == [(3, "completed", "")]


def test_a_copy_that_fails_ends_at_the_sync_after_it() -> None:
    talk = signed_in()
    talk.allow(talk.client(pg.extended("copy t from stdin"), pg.SYNC))
    talk.record(talk.target(pg.PARSED, pg.BOUND, pg.NO_DATA, pg.COPY_IN))
    talk.record(talk.client(pg.copy_data(b"bad\n")))
    commands = talk.target(pg.error("22P02", "invalid input syntax"))
    assert outcomes(commands) == [(2, "failed", "22P02")]
    talk.record(commands)
    talk.record(talk.client(pg.copy_data(b"more\n"), pg.COPY_DONE, pg.SYNC))
    assert sent(talk.target(pg.ready()), CLIENT) == pg.ready()
    assert statements(talk.client(pg.query("select 1"))) == ["select 1"]


def test_the_end_of_a_copy_that_never_began_is_ignored() -> None:
    talk = signed_in()
    commands = talk.client(pg.query("copy t from stdin"), pg.copy_data(b"1\n"), pg.COPY_DONE)
    talk.allow(commands)
    talk.record(commands)
    talk.record(talk.target(pg.error("42P01", "no such relation"), pg.ready()))
    talk.allow(talk.client(pg.query("select 1")))
    assert outcomes(talk.target(pg.done("SELECT 1"), pg.ready())) == [(3, "completed", "")]


@pytest.mark.parametrize("early", [True, False])
def test_a_query_among_the_data_ends_the_session(early: bool) -> None:
    """The target would read it as data gone wrong; answers would no longer match requests."""
    talk = signed_in()
    query = pg.query("select 2")
    commands = talk.client(pg.query("copy t from stdin"), query if early else b"")
    talk.allow(commands)
    commands = talk.target(pg.COPY_IN)
    if not early:
        commands = talk.allow(talk.client(query))
        assert sent(commands, TARGET) == b""
    assert outcomes(commands) == [(2, "lost", "08P01"), (3, "lost", "08P01")]


# --- a target that does not speak the protocol ---


@pytest.mark.parametrize(
    "answer",
    [
        pg.ready() + pg.ready(),
        pg.PARSED,
        pg.BOUND,
        pg.NO_DATA,
        pg.SUSPENDED,
        pg.message("W", b"\0\0\0"),
        pg.message("V", b"\0\0\0\0"),
        pg.message("?"),
        b"D\0\0\0\1",
        b"C\0\0\0\3",
        pg.message("T", b"\0\5a\0"),
        pg.message("Z"),
        pg.message("S", b"no end"),
    ],
)
def test_it_ends_the_session_with_a_fatal_error(answer: bytes) -> None:
    talk = selecting()
    commands = talk.target(pg.columns("a") if answer[:1] == b"D" else b"", answer)
    commands += talk.handle(Idle())
    said = sent(commands, CLIENT) + sent(talk.record(commands), CLIENT)
    assert pg.fields(pg.split(said)[-1])["S"] == "FATAL"


def test_rows_that_nothing_asked_for_are_not_passed_on() -> None:
    talk = signed_in()
    commands = talk.target(pg.row(b"1"))
    assert b"D" not in pg.kinds(sent(commands, CLIENT)).encode()
    assert pg.fields(sent(talk.record(commands) + commands, CLIENT))["C"] == "08P01"
