"""At most so many rows: then an error, which the target has had as well as the client."""

from __future__ import annotations

import pytest

from gateway.machine import (
    Ask,
    CancelRunning,
    Close,
    Command,
    Decision,
    Limit,
    Record,
    RowsStopped,
    Send,
    Shutdown,
    StopRows,
    Verdict,
)
from gateway.policy.sql import analyse
from gateway.protocols.postgres import limits, wire
from tests.gateway.protocols.postgres import messages as pg
from tests.gateway.protocols.postgres.dialogue import (
    ALLOW,
    CLIENT,
    DENY,
    TARGET,
    Dialogue,
    ident,
    outcomes,
    requests,
    rows,
    sent,
    signed_in,
    token,
)

TWO = Decision(Verdict.ALLOW, ("all", "two"), "", limit=Limit(2, ("two",), "two at most", "Fewer."))
END = wire.error(
    "54000",
    "row limit exceeded: two at most",
    detail="Ended by the gateway after 2 rows (policy two).",
    hint="Fewer.",
)
CANCELLED = pg.error("57014", "canceling statement due to user request")
PARTS = pg.parse("select 1") + pg.bind() + pg.describe_portal()
BEGUN = pg.PARSED + pg.BOUND + pg.columns("a")


def mark(number: int) -> bytes:
    return b"gatebook_limited_" + ident(number).hex().encode()


def poison(number: int) -> bytes:
    return wire.message(b"E", mark(number) + bytes(5)) + pg.FLUSH


def refused(number: int) -> bytes:
    """The target's error for that."""
    return pg.error("34000", f'portal "{mark(number).decode()}" does not exist')


def limited(talk: Dialogue, commands: list[Command], *others: Decision) -> list[Command]:
    """Allow everything these commands ask, within the limit."""
    return [
        answer
        for command in commands
        if isinstance(command, Ask)
        for answer in talk.decided(command.ticket, *(others or [TWO] * len(command.requests)))
    ]


def to_target(commands: list[Command]) -> bytes:
    return sent(commands, TARGET)


def number_of_rows(commands: list[Command]) -> list[int]:
    """As the end of a statement is recorded."""
    return [
        fact.rows
        for command in commands
        if isinstance(command, Record)
        for fact in command.facts
        if hasattr(fact, "outcome")
    ]


# --- the extended protocol ---


def test_within_the_limit_nothing_is_otherwise_but_that_the_sync_waits() -> None:
    talk = signed_in()
    commands = limited(talk, talk.client(PARTS, pg.execute(), pg.SYNC))
    assert to_target(commands) == PARTS + pg.execute() + pg.FLUSH
    commands = talk.target(BEGUN, pg.row(b"1"), pg.row(b"2"), pg.done("SELECT 2"))
    assert to_target(commands) == pg.SYNC
    assert outcomes(commands) == [(2, "completed", "")] and number_of_rows(commands) == [2]
    told = sent(talk.record(commands), CLIENT)
    assert told == BEGUN + pg.row(b"1") + pg.row(b"2") + pg.done("SELECT 2")
    assert sent(talk.target(pg.ready()), CLIENT) == pg.ready()


def test_a_row_too_many_that_came_with_the_end_fails_before_the_sync() -> None:
    talk = signed_in()
    limited(talk, talk.client(PARTS, pg.execute(), pg.SYNC))
    commands = talk.target(BEGUN, *(pg.row(b"%d" % n) for n in range(5)), pg.done("SELECT 5"))
    # It is done there; nothing is left to cancel, and only an error undoes it.
    assert to_target(commands) == poison(2)
    assert StopRows() not in commands and outcomes(commands) == []
    commands += talk.target(refused(2))
    assert to_target(commands) == poison(2) + pg.SYNC
    assert outcomes(commands) == [(2, "limited", "54000")] and number_of_rows(commands) == [2]
    assert [recorded[2] for recorded in rows(commands)] == [pg.row(b"0") + pg.row(b"1")]
    commands = [*talk.record(commands), *talk.target(pg.ready("E"))]
    assert sent(commands, CLIENT) == BEGUN + pg.row(b"0") + pg.row(b"1") + END + pg.ready("E")


def test_a_statement_that_goes_on_is_cancelled_and_nothing_is_sent_until_that_is_settled() -> None:
    talk = signed_in()
    limited(talk, talk.client(PARTS, pg.execute(), pg.SYNC))
    commands = talk.target(BEGUN, pg.row(b"1"), pg.row(b"2"), pg.row(b"3"))
    assert StopRows() in commands
    told = sent(talk.record(commands), CLIENT)
    assert talk.target(pg.row(b"4")) == []
    commands = talk.target(CANCELLED)
    assert outcomes(commands) == [(2, "limited", "54000")] and to_target(commands) == b""
    told += sent(talk.record(commands), CLIENT)
    assert told == BEGUN + pg.row(b"1") + pg.row(b"2") + END
    assert to_target(talk.handle(RowsStopped(settled=True))) == pg.SYNC


def test_a_cancellation_that_comes_too_late_is_awaited_and_then_the_end_is_an_error() -> None:
    talk = signed_in()
    limited(talk, talk.client(PARTS, pg.execute(), pg.SYNC))
    assert StopRows() in talk.target(BEGUN, pg.row(b"1"), pg.row(b"2"), pg.row(b"3"))
    assert to_target(talk.target(pg.done("SELECT 3"))) == b""
    assert to_target(talk.handle(RowsStopped(settled=True))) == poison(2)
    # Whatever it is refused with: a cancellation that hit it is as good.
    commands = talk.target(CANCELLED)
    assert outcomes(commands) == [(2, "limited", "54000")] and to_target(commands) == pg.SYNC


def test_it_is_cancelled_once_and_drained_if_that_does_not_help() -> None:
    talk = signed_in()
    limited(talk, talk.client(PARTS, pg.execute(), pg.SYNC))
    talk.target(BEGUN, pg.row(b"1"), pg.row(b"2"), pg.row(b"3"))
    assert talk.handle(RowsStopped(settled=True)) == []
    assert talk.target(pg.row(b"4")) == []
    assert to_target(talk.target(pg.done("SELECT 4"))) == poison(2)


def test_a_cancellation_that_may_still_arrive_ends_the_session() -> None:
    talk = signed_in()
    limited(talk, talk.client(PARTS, pg.execute(), pg.SYNC))
    talk.record(talk.target(BEGUN, pg.row(b"1"), pg.row(b"2"), pg.row(b"3")))
    commands = talk.handle(RowsStopped(settled=False))
    assert outcomes(commands) == [(2, "lost", "54000")]
    commands = talk.record(commands)
    assert b"FATAL" in sent(commands, CLIENT) and any(isinstance(c, Close) for c in commands)


def test_an_error_of_its_own_is_told_as_the_limit_only_after_a_row_too_many() -> None:
    talk = signed_in()
    limited(talk, talk.client(PARTS, pg.execute(), pg.SYNC))
    commands = talk.target(BEGUN, pg.row(b"1"), pg.row(b"2"), pg.error("22012", "no"))
    assert outcomes(commands) == [(2, "failed", "22012")] and to_target(commands) == pg.SYNC


def test_the_end_of_the_target_is_told_as_what_it_is() -> None:
    talk = signed_in()
    limited(talk, talk.client(PARTS, pg.execute(), pg.SYNC))
    talk.target(BEGUN, pg.row(b"1"), pg.row(b"2"), pg.row(b"3"))
    gone = wire.fatal("57P01", "terminating connection")
    commands = talk.target(gone)
    assert outcomes(commands) == [(2, "limited", "57P01")]
    assert sent(talk.record(commands), CLIENT).endswith(gone)


def test_what_follows_in_a_pipeline_runs_after_it_or_is_skipped() -> None:
    for answers, outcome in (
        ([pg.done("SELECT 2")], [(2, "completed", "")]),
        (
            [pg.row(b"3"), pg.done("SELECT 3"), refused(2)],
            [(2, "limited", "54000"), (3, "failed", "")],
        ),
    ):
        talk = signed_in()
        insert = pg.parse("insert into t values (1)") + pg.bind() + pg.execute()
        commands = limited(talk, talk.client(PARTS, pg.execute(), insert, pg.SYNC))
        assert to_target(commands) == PARTS + pg.execute() + pg.FLUSH
        commands = talk.target(BEGUN, pg.row(b"1"), pg.row(b"2"), *answers)
        assert outcomes(commands) == outcome
        assert to_target(commands)[-len(insert + pg.SYNC) :] == insert + pg.SYNC


def test_what_returns_no_rows_is_pipelined_as_ever() -> None:
    talk = signed_in()
    insert = pg.parse("insert into t values (1)") + pg.bind() + pg.execute()
    commands = limited(talk, talk.client(insert, insert, pg.SYNC))
    assert to_target(commands) == insert + insert + pg.SYNC


def test_the_rows_of_a_portal_count_together() -> None:
    talk = signed_in()
    commands = limited(talk, talk.client(PARTS, pg.execute(rows=1), pg.FLUSH))
    assert to_target(commands) == PARTS + pg.execute(rows=1) + pg.FLUSH
    commands = talk.target(BEGUN, pg.row(b"1"), pg.SUSPENDED)
    assert outcomes(commands) == [(2, "completed", "")]
    talk.record(commands)
    talk.target()
    limited(talk, talk.client(pg.execute(rows=1), pg.FLUSH))
    talk.record(talk.target(pg.row(b"2"), pg.SUSPENDED))
    limited(talk, talk.client(pg.execute(rows=1), pg.SYNC))
    commands = talk.target(pg.row(b"3"), pg.SUSPENDED)
    assert to_target(commands) == poison(4)
    commands = talk.target(refused(4))
    assert outcomes(commands) == [(4, "limited", "54000")] and number_of_rows(commands) == [0]
    # Bound anew it is another execution.
    talk.record(commands)
    talk.record(talk.target(pg.ready()))
    limited(talk, talk.client(PARTS, pg.execute(), pg.SYNC))
    commands = talk.target(BEGUN, pg.row(b"1"), pg.row(b"2"), pg.done("SELECT 2"))
    assert outcomes(commands) == [(5, "completed", "")]


# --- simple queries ---


def apart(name: bytes, *texts: bytes) -> bytes:
    """What is sent for a Query of these statements, each up to where the next must wait."""
    close = wire.message(b"C", b"S" + name + b"\0") + wire.message(b"C", b"P" + name + b"\0")
    return b"".join(
        close
        + wire.message(b"P", name + b"\0" + text + b"\0\0\0")
        + wire.message(b"B", name + b"\0" + name + bytes(7))
        + wire.message(b"D", b"P" + name + b"\0")
        + wire.message(b"E", name + bytes(5))
        for text in texts
    )


CLOSED = wire.message(b"3") * 2
NAME = b"gatebook_" + ident(3).hex().encode()
CLOSE = wire.message(b"C", b"S" + NAME + b"\0") + wire.message(b"C", b"P" + NAME + b"\0")


def test_a_query_is_taken_apart_and_answered_as_a_query() -> None:
    talk = signed_in()
    commands = limited(talk, talk.client(pg.query("select 1")))
    assert to_target(commands) == apart(NAME, b"select 1") + pg.FLUSH
    answer = pg.row(b"1") + pg.row(b"2") + pg.done("SELECT 2")
    commands = talk.target(CLOSED, BEGUN, answer)
    assert to_target(commands) == CLOSE + pg.SYNC
    assert outcomes(commands) == [(2, "completed", "")]
    (recorded,) = [
        f for c in commands if isinstance(c, Record) for f in c.facts if hasattr(f, "columns")
    ]
    assert [column[0] for column in recorded.columns] == ["a"]
    commands = [*talk.record(commands), *talk.target(CLOSED, pg.ready())]
    assert sent(commands, CLIENT) == pg.columns("a") + answer + pg.ready()


def test_a_query_with_a_row_too_many_is_an_error_before_its_commit() -> None:
    talk = signed_in()
    limited(talk, talk.client(pg.query("insert into t select 1 returning a")))
    commands = talk.target(
        CLOSED, BEGUN, pg.row(b"1"), pg.row(b"2"), pg.row(b"3"), pg.done("INSERT 0 3")
    )
    assert to_target(commands) == poison(2)
    commands += talk.target(refused(2))
    assert to_target(commands) == poison(2) + CLOSE + pg.SYNC
    commands = [*talk.record(commands), *talk.target(pg.ready())]
    assert sent(commands, CLIENT) == (
        pg.columns("a") + pg.row(b"1") + pg.row(b"2") + END + pg.ready()
    )


def test_several_statements_of_a_query_stay_one_transaction() -> None:
    talk = signed_in()
    commands = talk.client(pg.query("insert into t values (1); select 1; select 2"))
    name = b"gatebook_" + ident(5).hex().encode()
    commands = limited(talk, commands)
    first = apart(name, b"insert into t values (1)", b"select 1")
    assert to_target(commands) == first + pg.FLUSH
    inserted = pg.PARSED + pg.BOUND + pg.NO_DATA + pg.done("INSERT 0 1")
    commands = talk.target(CLOSED, inserted, CLOSED, BEGUN, pg.row(b"1"), pg.done("SELECT 1"))
    assert to_target(commands) == apart(name, b"select 2") + pg.FLUSH
    told = sent(talk.record(commands), CLIENT)
    commands = talk.target(CLOSED, BEGUN, pg.row(b"1") * 3, pg.done("SELECT 3"))
    commands += talk.target(refused(4))
    assert outcomes(commands) == [(4, "limited", "54000")]
    told += sent([*talk.record(commands), *talk.target(pg.ready())], CLIENT)
    assert pg.kinds(told) == pg.kinds(
        pg.done("INSERT 0 1")
        + pg.columns("a")
        + pg.row(b"1")
        + pg.done("SELECT 1")
        + pg.columns("a")
        + pg.row(b"1") * 2
        + END
        + pg.ready()
    )


def test_a_refused_statement_of_several_is_refused_in_its_place() -> None:
    talk = signed_in()
    commands = talk.client(pg.query("select 1; drop table t"))
    name = b"gatebook_" + ident(4).hex().encode()
    commands = limited(talk, commands, TWO, DENY)
    assert b"drop" not in to_target(commands)
    commands = talk.target(CLOSED, BEGUN, pg.row(b"1"), pg.done("SELECT 1"))
    text = b'SELECT * FROM "' + token(3) + b'"'
    close = CLOSE.replace(NAME, name)
    poisoned = wire.message(b"P", name + b"\0" + text + b"\0\0\0")
    assert to_target(commands) == close + poisoned + close + pg.SYNC
    talk.record(commands)
    error = pg.error("42P01", f'relation "{token(3).decode()}" does not exist')
    commands = talk.target(CLOSED, error)
    assert outcomes(commands) == [(3, "denied", "42501")]
    assert b"support changes nothing" in sent(talk.record(commands), CLIENT)


def test_where_an_error_is_in_a_query_is_told_as_it_was_typed() -> None:
    talk = signed_in()
    limited(talk, talk.client(pg.query("  select 1; select nothing")))
    talk.record(talk.target(CLOSED, BEGUN, pg.row(b"1"), pg.done("SELECT 1")))
    (second,) = [s for s in analyse("  select 1; select nothing") if "nothing" in s.text]
    error = wire.error("42703", "no such column", position=9)
    commands = talk.target(CLOSED, error)
    told = wire.error("42703", "no such column", position=9 + second.offset)
    assert sent(talk.record(commands), CLIENT) == told


def test_a_query_that_returns_no_rows_stays_one() -> None:
    for text in ("begin", "insert into t values (1)", "create table t ()", "set a = 1", ""):
        talk = signed_in()
        commands = limited(talk, talk.client(pg.query(text)))
        assert to_target(commands) == pg.query(text)


@pytest.mark.parametrize(
    ("text", "counted"),
    [
        ("select 1", True),
        ("select 1; select 2", True),
        ("begin", True),
        ("begin; insert into t values (1); commit", True),
        ("begin; select 1; commit", False),
        ("select 1; vacuum", False),
        ("set a = 1; select 1", True),
        ("set a = 1; select 'é'", False),
        ("set a = 1; select '\\'", False),
    ],
)
def test_what_cannot_be_taken_apart_says_so_when_it_is_asked_for(text: str, counted: bool) -> None:
    talk = signed_in()
    asked = requests(talk.client(pg.query(text)))
    assert all((one.uncounted == "") is counted for one in asked)


def test_a_fetch_counts_with_those_before_it_from_the_same_cursor() -> None:
    talk = signed_in()
    talk.allow(talk.client(pg.query("declare c binary cursor for select 1")))
    talk.record(talk.target(pg.done("DECLARE CURSOR"), pg.ready("T")))
    for number, outcome in ((1, "completed"), (2, "limited")):
        commands = limited(talk, talk.client(pg.query("fetch 2 from c")))
        # A Query fetches from a binary cursor in binary.
        assert b"\0\0\0\0\0\1\0\1" in to_target(commands)
        commands = talk.target(CLOSED, BEGUN, pg.row(b"1"), pg.row(b"2"), pg.done("FETCH 2"))
        if number == 2:
            assert pg.kinds(to_target(commands)) == "EH"
            run = requests_number(commands, talk)
            commands = talk.target(refused(run))
        assert [one[1] for one in outcomes(commands)] == [outcome]
        talk.record(commands)
        talk.record(talk.target(CLOSED, pg.ready("T")))


def requests_number(commands: list[Command], talk: Dialogue) -> int:
    """The statement whose end is to be an error."""
    (at,) = [to_target(commands).index(b"gatebook_limited_")]
    return int(to_target(commands)[at + 17 : at + 49], 16)


# --- COPY ---


def copied(*lines: bytes) -> bytes:
    return b"".join(wire.message(b"d", line) for line in lines)


COPY_OUT = wire.message(b"H", b"\0\0\1\0\0")
DONE = wire.message(b"c")


@pytest.mark.parametrize(
    ("options", "within", "over"),
    [
        ("", [b"1\n", b"2\n"], [b"1\n", b"2\n", b"3\n"]),
        ("(header)", [b"a\n", b"1\n", b"2\n"], [b"a\n", b"1\n", b"2\n", b"3\n"]),
        ("(format csv, header true)", [b"a\n", b"1\n", b"2\n"], [b"a\n", b"1\n", b"2\n", b"3\n"]),
        ("csv header", [b"a\n", b"1\n", b"2\n"], [b"a\n", b"1\n", b"2\n", b"3\n"]),
        ("(header off)", [b"1\n", b"2\n"], [b"1\n", b"2\n", b"3\n"]),
        ("(header 0)", [b"1\n", b"2\n"], [b"1\n", b"2\n", b"3\n"]),
        ("(format binary)", [b"PGCOPY1", b"2", b"\xff\xff"], [b"PGCOPY1", b"2", b"3", b"\xff\xff"]),
    ],
)
def test_rows_of_a_copy_count_and_what_is_no_row_does_not(
    options: str, within: list[bytes], over: list[bytes]
) -> None:
    begun = CLOSED + pg.PARSED + pg.BOUND + pg.NO_DATA + COPY_OUT
    for lines, outcome in ((within, "completed"), (over, "limited")):
        talk = signed_in()
        limited(talk, talk.client(pg.query(f"copy header to stdout {options}")))
        commands = talk.target(begun, copied(*lines), DONE, pg.done("COPY 2"))
        if outcome == "limited":
            assert to_target(commands) == poison(2)
            commands += talk.target(refused(2))
        assert outcomes(commands) == [(2, outcome, "54000" if outcome == "limited" else "")]
        told = sent(talk.record(commands), CLIENT)
        end = DONE + pg.done("COPY 2") if outcome == "completed" else END
        # A trailer alone may still come; a row may not.
        assert told.endswith(end) and copied(b"3\n") not in told and copied(b"3") not in told


# --- what is not foreseen, and ends ---


def test_rows_too_many_of_what_was_not_to_return_any_end_the_session() -> None:
    talk = signed_in()
    limited(talk, talk.client(pg.query("insert into t values (1)")))
    commands = talk.target(pg.columns("a"), pg.row(b"1"), pg.row(b"2"), pg.row(b"3"))
    assert outcomes(commands) == [(2, "lost", "54000")]
    commands = talk.record(commands)
    assert b"FATAL" in sent(commands, CLIENT) and pg.row(b"3") not in sent(commands, CLIENT)


def test_a_shutdown_does_not_wait_for_an_end_that_is_withheld() -> None:
    talk = signed_in()
    limited(talk, talk.client(PARTS, pg.execute(), pg.SYNC))
    talk.target(BEGUN, pg.row(b"1"), pg.row(b"2"), pg.row(b"3"))
    assert CancelRunning() in talk.handle(Shutdown())
    commands = talk.target(pg.done("SELECT 3"))
    assert outcomes(commands) == [(2, "lost", "57P01")]


def test_a_row_too_large_to_hold_counts_and_one_too_many_is_passed_over() -> None:
    talk = signed_in(chunk_bytes=4096)
    limited(talk, talk.client(PARTS, pg.execute(), pg.SYNC))
    large = pg.row(b"x" * (2 << 20))
    commands = talk.target(BEGUN, large, large)
    told = sent(talk.record(commands), CLIENT)
    half = len(large) // 2
    commands = talk.target(large[:half])
    assert StopRows() in commands
    commands += talk.target(large[half:], CANCELLED)
    commands += talk.handle(RowsStopped(settled=True))
    assert outcomes(commands) == [(2, "limited", "54000")] and number_of_rows(commands) == [2]
    told += sent(talk.record(commands), CLIENT)
    assert told == BEGUN + large + large + END


@pytest.mark.parametrize("step", [1, 7, 100])
def test_however_the_answer_is_cut_the_client_reads_the_same(step: int) -> None:
    talk = signed_in()
    limited(talk, talk.client(pg.query("select 1")))
    answer = CLOSED + BEGUN + b"".join(pg.row(b"%d" % n) for n in range(6))
    told, stopped = b"", 0
    for at in range(0, len(answer), step):
        commands = talk.target(answer[at : at + step])
        stopped += commands.count(StopRows())
        told += sent([*commands, *talk.record(commands)], CLIENT)
    assert stopped == 1
    talk.handle(RowsStopped(settled=True))
    for answer in (CANCELLED, pg.ready()):
        commands = talk.target(answer)
        told += sent([*commands, *talk.record(commands)], CLIENT)
    assert told == pg.columns("a") + pg.row(b"0") + pg.row(b"1") + END + pg.ready()


def test_a_statement_whose_rows_are_not_limited_is_sent_as_it_came() -> None:
    talk = signed_in()
    assert talk.allow(talk.client(pg.query("select 1"))) == [Send(TARGET, pg.query("select 1"))]
    assert ALLOW.limit is None
    assert not limits.returns_rows(analyse("delete from t")[0])
    assert limits.returns_rows(analyse("delete from t returning 1")[0])
