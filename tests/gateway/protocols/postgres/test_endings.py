"""How sessions end, and what happens when the journal does not answer."""

from __future__ import annotations

import pytest

from gateway.machine import (
    Abort,
    Ask,
    CancelRunning,
    Close,
    Command,
    Decided,
    Ended,
    Expired,
    Idle,
    Record,
    RequestData,
    Rows,
    SaidAll,
    Shutdown,
    Withdrawn,
)
from gateway.protocols.postgres.startup import NOT_DURABLE_TEXT
from tests.gateway.protocols.postgres import messages as pg
from tests.gateway.protocols.postgres.dialogue import (
    CLIENT,
    RECEIPT,
    TARGET,
    Dialogue,
    facts,
    outcomes,
    requests,
    rows,
    sent,
    signed_in,
    statements,
)


def ended(commands: list[Command]) -> str:
    """Why the session ended, which must be the last thing recorded."""
    last = facts(commands)[-1]
    assert isinstance(last, Ended)
    return last.reason


def asking(text: str = "select 1") -> Dialogue:
    """Statement 2 waits for its decision, with ticket 1000."""
    talk = signed_in()
    assert isinstance(talk.client(pg.query(text))[0], Ask)
    return talk


def running(text: str = "select 1") -> Dialogue:
    """Statement 2 runs at the target."""
    talk = asking(text)
    talk.decided(1000)
    return talk


def said(commands: list[Command]) -> dict[str, str]:
    """The last ErrorResponse sent to the client."""
    errors = [one for one in pg.split(sent(commands, CLIENT)) if one[:1] == b"E"]
    return pg.fields(errors[-1])


# --- the client ---


def test_terminate_is_passed_on_and_ends_the_session() -> None:
    talk = signed_in()
    talk.client(pg.query("select 1"))
    talk.decided(1000)
    talk.record(talk.target(pg.done("SELECT 0"), pg.ready()))
    commands = talk.client(pg.TERMINATE)
    assert sent(commands, TARGET) == pg.TERMINATE
    (end,) = [fact for fact in facts(commands) if isinstance(fact, Ended)]
    assert (end.reason, end.statements) == ("client_closed", 1)
    assert end.bytes_in == len(pg.query("select 1") + pg.TERMINATE)
    assert end.bytes_out == len(pg.done("SELECT 0") + pg.ready())
    assert commands[-1] == Close()


def test_terminate_waits_for_what_was_asked_before_it() -> None:
    talk = asking()
    assert talk.client(pg.TERMINATE) == []
    commands = talk.decided(1000)
    assert sent(commands, TARGET) == pg.query("select 1") + pg.TERMINATE
    assert outcomes(commands) == []
    # As PostgreSQL does, the target works on, whether or not anybody is left to be told.
    assert talk.closed(CLIENT) == []
    commands = talk.record(talk.target(pg.done("SELECT 0"), pg.ready()))
    assert ended(commands) == "client_closed"
    assert commands[-1] == Close()


def test_what_was_asked_before_a_terminate_is_completed_in_the_book() -> None:
    talk = asking()
    talk.client(pg.TERMINATE)
    talk.decided(1000)
    commands = talk.target(pg.done("SELECT 0"), pg.ready())
    assert outcomes(commands) == [(2, "completed", "")]


def test_a_target_that_closes_at_a_terminate_ends_what_it_did_not_answer() -> None:
    talk = asking()
    talk.client(pg.TERMINATE)
    talk.decided(1000)
    commands = talk.closed(TARGET)
    assert outcomes(commands) == [(2, "lost", "08006")]
    assert sent(commands, CLIENT) == b""
    assert ended(talk.record(commands) or commands) == "client_closed"


def test_what_is_behind_a_terminate_is_not_read() -> None:
    talk = running()
    talk.client(pg.TERMINATE + pg.query("drop table t"))
    assert talk.client(pg.query("drop table t")) == []


def test_a_client_lost_in_the_middle_of_a_result_is_recorded() -> None:
    talk = running()
    talk.target(pg.columns("a"), pg.row(b"1"))
    commands = talk.closed(CLIENT)
    assert rows(commands) == [(2, "rows", pg.row(b"1"))]
    assert outcomes(commands) == [(2, "lost", "")]
    assert ended(commands) == "client_lost"
    assert commands[-1] == Close()


def test_a_client_lost_while_it_waits_for_a_decision_never_reaches_the_target() -> None:
    talk = asking("insert into t values (1)")
    assert outcomes(talk.closed(CLIENT)) == [(2, "lost", "")]
    assert talk.decided(1000) == []


def test_after_the_end_nothing_is_heard() -> None:
    talk = running()
    talk.closed(CLIENT)
    assert talk.target(pg.done("SELECT 1"), pg.ready()) == []
    assert talk.client(pg.query("select 2")) == talk.closed(TARGET) == []
    assert talk.handle(Idle()) == talk.handle(Shutdown()) == []


# --- the target ---


def test_a_target_lost_in_the_middle_of_a_result() -> None:
    talk = running()
    talk.target(pg.columns("a"), pg.row(b"1"))
    commands = talk.closed(TARGET)
    assert outcomes(commands) == [(2, "lost", "08006")]
    assert sent(commands, CLIENT) == b""
    commands = talk.record(commands)
    assert pg.kinds(sent(commands, CLIENT)) == "TDE"
    assert said(commands)["C"] == "08006"
    assert ended(commands) == "target_lost"
    assert commands[-1] == Close(drain=True)


def test_a_targets_own_last_words_are_the_clients() -> None:
    talk = running()
    words = pg.error("57P01", "terminating connection due to administrator command", "FATAL")
    commands = talk.target(words)
    assert outcomes(commands) == [(2, "failed", "57P01")]
    commands += talk.closed(TARGET)
    commands += talk.record(commands)
    assert sent(commands, CLIENT) == words
    assert ended(commands) == "target_lost"


def test_a_target_lost_while_nothing_runs() -> None:
    talk = signed_in()
    commands = talk.closed(TARGET)
    assert outcomes(commands) == []
    assert said(commands)["C"] == "08006"


# --- the gateway ---


@pytest.mark.parametrize(
    ("event", "code", "reason"),
    [(Expired(), "28000", "token_expired"), (Shutdown(), "57P01", "shutdown")],
)
def test_the_gateway_ends_a_session_with_a_fatal_error(
    event: object, code: str, reason: str
) -> None:
    talk = signed_in()
    commands = talk.handle(event)  # type: ignore[arg-type]
    assert said(commands)["C"] == code
    assert ended(commands) == reason
    assert commands[-1] == Close(drain=True)


CANCELLED = pg.error("57014", "canceling statement due to user request")


@pytest.mark.parametrize(
    ("event", "code", "reason"),
    [(Expired(), "28000", "token_expired"), (Shutdown(), "57P01", "shutdown")],
)
def test_what_runs_then_is_cancelled_and_ends_in_the_book(
    event: object, code: str, reason: str
) -> None:
    talk = running()
    assert talk.handle(event) == [CancelRunning()]  # type: ignore[arg-type]
    commands = talk.target(CANCELLED)
    assert outcomes(commands) == [(2, "cancelled", "57014")]
    commands += talk.record(commands)
    errors = [one for one in pg.split(sent(commands, CLIENT)) if one[:1] == b"E"]
    assert [pg.fields(one)["C"] for one in errors] == ["57014", code]
    assert ended(commands) == reason
    assert commands[-1] == Close(drain=True)


def test_what_ends_by_itself_meanwhile_is_completed() -> None:
    talk = running()
    talk.handle(Expired())
    commands = talk.target(pg.done("SELECT 0"), pg.ready())
    assert outcomes(commands) == [(2, "completed", "")]
    assert said(talk.record(commands))["C"] == "28000"


def test_nothing_new_is_begun_meanwhile() -> None:
    talk = running()
    talk.client(pg.query("insert into t values (2)"))
    assert talk.handle(Expired()) == [CancelRunning()]
    assert talk.decided(1001) == []
    assert talk.client(pg.query("insert into t values (3)")) == []
    commands = talk.target(CANCELLED, pg.ready())
    assert outcomes(commands) == [(2, "cancelled", "57014"), (3, "lost", "28000")]
    assert sent(commands + talk.record(commands), TARGET) == b""


def test_each_of_several_commands_is_cancelled() -> None:
    talk = running()
    talk.allow(talk.client(pg.query("select 2")))
    assert talk.handle(Expired()) == [CancelRunning()]
    commands = talk.target(CANCELLED, pg.ready())
    assert CancelRunning() in commands
    talk.record(commands)
    commands = talk.target(CANCELLED, pg.ready())
    assert outcomes(commands) == [(3, "cancelled", "57014")]
    assert said(talk.record(commands))["C"] == "28000"


def test_told_again_the_session_waits_no_longer() -> None:
    talk = running()
    talk.handle(Expired())
    commands = talk.handle(Shutdown())
    assert outcomes(commands) == [(2, "lost", "28000")]
    commands += talk.record(commands)
    assert said(commands)["C"] == "28000"
    assert ended(commands) == "token_expired"


# --- whoever may connect no longer ---

WITHDRAWN = Withdrawn("not on Sundays", "not_permitted")


def test_whoever_may_connect_no_longer_is_told_at_once_where_nothing_runs() -> None:
    talk = signed_in()
    commands = talk.handle(WITHDRAWN)
    assert said(commands)["C"] == "57P01" and "not on Sundays" in said(commands)["M"]
    assert ended(commands) == "not_permitted"
    assert commands[-1] == Close(drain=True)


def test_what_runs_is_finished_and_delivered_first_and_nothing_is_begun() -> None:
    talk = running()
    talk.client(pg.query("insert into t values (2)"))
    assert talk.handle(WITHDRAWN) == []
    assert talk.decided(1001) == []
    assert talk.client(pg.query("select 3")) == []
    answer = pg.columns("a") + pg.row(b"1") + pg.done("SELECT 1") + pg.ready("T")
    commands = talk.target(answer)
    assert outcomes(commands) == [(2, "completed", ""), (3, "lost", "57P01")]
    commands += talk.record(commands)
    told = sent(commands, CLIENT)
    assert told.startswith(answer) and pg.fields(told[len(answer) :])["C"] == "57P01"
    assert sent(commands, TARGET) == b"" and ended(commands) == "not_permitted"


def test_a_shutdown_cancels_what_was_waited_for() -> None:
    talk = running()
    talk.handle(WITHDRAWN)
    assert talk.handle(Shutdown()) == [CancelRunning()]
    commands = talk.target(CANCELLED)
    assert outcomes(commands) == [(2, "cancelled", "57014")]
    assert ended(commands + talk.record(commands)) == "not_permitted"


def test_a_shutdown_is_not_held_up_by_a_permission_withdrawn() -> None:
    talk = running()
    assert talk.handle(Shutdown()) == [CancelRunning()]
    assert talk.handle(WITHDRAWN) == []
    commands = talk.target(CANCELLED)
    assert ended(commands + talk.record(commands)) == "shutdown"


def test_a_client_that_leaves_is_not_waited_for() -> None:
    talk = running()
    talk.handle(WITHDRAWN)
    assert ended(talk.closed(CLIENT)) == "client_lost"


def test_a_client_that_leaves_meanwhile_changes_nothing() -> None:
    talk = running()
    talk.handle(Expired())
    assert talk.closed(CLIENT) == []
    commands = talk.target(CANCELLED, pg.ready())
    assert outcomes(commands) == [(2, "cancelled", "57014")]
    assert ended(commands + talk.record(commands)) == "token_expired"


def test_a_target_that_closes_meanwhile_ends_the_session() -> None:
    talk = running()
    talk.handle(Expired())
    commands = talk.closed(TARGET)
    assert outcomes(commands) == [(2, "lost", "08006")]
    assert ended(commands + talk.record(commands)) == "target_lost"


def test_a_copy_from_the_client_ends_with_its_connection() -> None:
    talk = running("copy t from stdin")
    talk.target(pg.COPY_IN)
    commands = talk.handle(Expired())
    assert outcomes(commands) == [(2, "lost", "28000")]
    assert ended(commands + talk.record(commands)) == "token_expired"


def test_what_was_not_forwarded_when_a_session_ends_is_not_forwarded_after_it() -> None:
    """The decision comes while the FATAL waits for its record."""
    talk = asking("insert into t values (1)")
    commands = talk.handle(Expired())
    assert outcomes(commands) == [(2, "lost", "28000")]
    assert talk.decided(1000) == []
    assert talk.client(pg.query("select 2")) == []
    (close,) = [c for c in talk.record(commands) if isinstance(c, Close)]
    assert close == Close(drain=True)


def test_nor_does_a_journal_that_fails_meanwhile_add_an_error() -> None:
    talk = asking("insert into t values (1)")
    commands = talk.handle(Expired())
    assert talk.not_durable(1000) == []
    assert pg.kinds(sent(talk.record(commands), CLIENT)) == "E"


def test_a_client_that_breaks_the_protocol_gets_what_came_before_and_a_fatal_error() -> None:
    talk = running()
    answer = pg.columns("a") + pg.row(b"1") + pg.done("SELECT 1") + pg.ready()
    before = talk.target(answer)
    commands = talk.client(b"\x00garbage")
    assert sent(commands, CLIENT) == b""
    spoken = talk.record(before + commands)
    assert sent(spoken, CLIENT).startswith(answer)
    assert said(spoken)["C"] == "08P01"
    assert ended(spoken) == "protocol_error"


def test_messages_before_garbage_in_one_packet_are_asked() -> None:
    talk = signed_in()
    commands = talk.client(pg.query("select 1") + b"\x00garbage")
    assert statements(commands) == ["select 1"]
    assert outcomes(commands) == [(2, "lost", "08P01")]


def test_a_fault_of_ours_ends_the_session_in_the_book() -> None:
    talk = signed_in()
    commands = talk.client(pg.query("select 1"))
    # One decision too few: a fault of the driver's.
    commands = talk.handle(Decided(1000, (), RECEIPT))
    assert isinstance(commands[-1], Abort)
    assert "ValueError" in commands[-1].reason
    assert outcomes(commands) == [(2, "lost", "")]
    assert ended(commands) == "protocol_error"


# --- requests that cannot be recorded ---


def test_a_query_that_cannot_be_recorded_fails_and_the_session_goes_on() -> None:
    talk = asking("insert into t values (1)")
    commands = talk.not_durable(1000)
    assert sent(commands, TARGET) == b""
    assert outcomes(commands) == [(2, "failed", "58030")]
    assert pg.kinds(sent(commands, CLIENT)) == "EZ"
    assert said(commands)["C"] == "58030" and said(commands)["M"] == NOT_DURABLE_TEXT
    assert sent(talk.allow(talk.client(pg.query("select 2"))), TARGET) == pg.query("select 2")


def test_in_the_extended_protocol_what_follows_is_skipped_to_the_sync() -> None:
    talk = signed_in()
    talk.client(pg.extended("insert into t values (1)", name="s"))
    commands = talk.not_durable(1000)
    assert pg.kinds(sent(commands, CLIENT)) == "E"
    assert talk.client(pg.extended("select 2"), pg.query("select 3")) == []
    assert sent(talk.client(pg.SYNC), CLIENT) == pg.ready()
    (unknown,) = requests(talk.client(pg.bind(name="s"), pg.execute(), pg.SYNC))
    assert unknown.refusal == 'prepared statement "s" does not exist'


def test_a_whole_segment_is_skipped_with_its_sync() -> None:
    talk = signed_in()
    talk.client(pg.extended("insert into t values (1)"), pg.extended("select 2"), pg.SYNC)
    commands = talk.not_durable(1000)
    assert outcomes(commands) == [(2, "failed", "58030"), (3, "failed", "58030")]
    assert pg.kinds(sent(commands, CLIENT)) == "EZ"
    assert talk.decided(1001) == []
    assert statements(talk.client(pg.query("select 4"))) == ["select 4"]


def test_after_it_texts_that_wait_for_an_answer_do_not_wait_for_ever() -> None:
    talk = signed_in()
    talk.client(pg.query("select f()"), pg.query("select 'a\\b'"))
    commands = talk.not_durable(1000)
    assert statements(commands) == ["select 'a\\b'"]


def test_the_next_queued_query_is_judged_by_itself() -> None:
    talk = signed_in()
    talk.client(pg.query("insert into t values (1)"), pg.query("select 2"))
    assert pg.kinds(sent(talk.not_durable(1000), CLIENT)) == "EZ"
    assert sent(talk.decided(1001), TARGET) == pg.query("select 2")


def test_in_a_transaction_only_the_end_of_the_connection_undoes_it() -> None:
    talk = running("begin")
    talk.record(talk.target(pg.done("BEGIN"), pg.ready("T")))
    talk.client(pg.query("insert into t values (1)"))
    commands = talk.not_durable(1002)
    assert sent(commands, TARGET) == b""
    assert outcomes(commands) == [(3, "failed", "58030")]
    assert said(commands)["S"] == "FATAL" and said(commands)["C"] == "58030"
    assert ended(commands) == "not_durable"
    assert commands[-1] == Close(drain=True)


def test_so_it_is_in_a_pipeline_of_which_a_part_runs() -> None:
    talk = signed_in()
    talk.client(pg.extended("insert into t values (1)"), pg.extended("select 2"), pg.SYNC)
    talk.decided(1000)
    commands = talk.not_durable(1001)
    assert said(commands)["S"] == "FATAL"
    assert outcomes(commands) == [(2, "unknown", "58030"), (3, "failed", "58030")]
    assert sent(commands, TARGET) == b""


def test_copy_data_that_cannot_be_recorded_ends_the_session() -> None:
    talk = running("copy t from stdin")
    talk.target(pg.COPY_IN)
    (record,) = talk.client(pg.copy_data(b"1\n"))
    assert isinstance(record, Record) and isinstance(record.facts[0], RequestData)
    commands = talk.not_durable(record.ticket)
    assert sent(commands, TARGET) == b""
    assert outcomes(commands) == [(2, "unknown", "58030")]
    assert said(commands)["S"] == "FATAL"


def test_terminating_after_it_ends_the_session() -> None:
    talk = signed_in()
    talk.client(pg.extended("select 1"), pg.TERMINATE)
    commands = talk.not_durable(1000)
    assert ended(commands) == "client_closed"


# --- responses that cannot be recorded ---


def test_a_response_that_cannot_be_recorded_is_withheld() -> None:
    talk = running("insert into t values (1)")
    (record,) = talk.target(pg.done("INSERT 0 1"), pg.ready())
    assert isinstance(record, Record)
    commands = talk.not_durable(record.ticket)
    assert outcomes(commands) == [(2, "unknown", "58030")]
    assert pg.kinds(sent(commands, CLIENT)) == "E"
    assert (said(commands)["S"], said(commands)["C"]) == ("FATAL", "58030")
    assert "may have run" in said(commands)["M"]
    assert ended(commands) == "not_durable"
    assert commands[-1] == Close(drain=True)


def test_so_are_those_behind_it() -> None:
    talk = signed_in()
    talk.allow(talk.client(pg.query("select 1"), pg.query("select 2"), pg.query("select 3")))
    first = talk.target(pg.done("SELECT 1"), pg.ready())
    talk.target(pg.done("SELECT 1"), pg.ready())
    (record,) = first
    assert isinstance(record, Record)
    commands = talk.not_durable(record.ticket)
    assert outcomes(commands) == [
        (2, "unknown", "58030"),
        (3, "unknown", "58030"),
        (4, "unknown", "58030"),
    ]
    assert pg.kinds(sent(commands, CLIENT)) == "E"


def test_rows_that_cannot_be_recorded_are_not_shown() -> None:
    talk = running()
    talk.target(pg.columns("a"), pg.row(b"secret"))
    (record,) = talk.handle(Idle())
    assert isinstance(record, Record) and isinstance(record.facts[0], Rows)
    commands = talk.not_durable(record.ticket)
    assert b"secret" not in sent(commands, CLIENT)
    assert outcomes(commands) == [(2, "unknown", "58030")]


def test_no_error_is_put_into_the_middle_of_a_large_value() -> None:
    talk = running()
    row = pg.row(bytes(5 * 1024 * 1024))
    commands = talk.target(pg.columns("a"), row[: 2 * 1024 * 1024])
    released = sent(talk.record(commands), CLIENT)
    assert row.startswith(released[len(pg.columns("a")) :])
    commands = talk.closed(TARGET)
    assert outcomes(commands) == [(2, "lost", "08006")]
    assert sent(commands, CLIENT) == b""
    commands = talk.record(commands)
    assert sent(commands, CLIENT) == b""
    assert ended(commands) == "target_lost"
    assert commands[-1] == Close(drain=True)


def test_nor_when_its_rest_cannot_be_recorded() -> None:
    talk = running()
    row = pg.row(bytes(3 * 1024 * 1024))
    begun = [c for c in talk.target(pg.columns("a"), row) if isinstance(c, Record)]
    talk.recorded(begun[0].ticket)
    commands = talk.not_durable(begun[1].ticket)
    assert sent(commands, CLIENT) == b""
    assert commands[-1] == Close(drain=True)


# --- bounds ---


def test_what_waits_is_counted_so_that_the_driver_can_stop_reading() -> None:
    talk = signed_in()
    session = talk.machine.session
    assert session is not None
    talk.client(pg.query("select '" + "x" * 1_000_000 + "'"))
    assert session.unsent_requests > 1_000_000
    talk.client(pg.query("select '\\" + "x" * 1_000_000 + "'"))
    assert session.unsent_requests > 2_000_000
    talk.decided(1000)
    answer = (pg.columns("a"), pg.row(b"y" * 500_000), pg.done("SELECT 1"), pg.ready())
    commands = talk.target(*answer)
    assert session.unrecorded_bytes > 500_000
    talk.record(commands)
    assert session.unrecorded_bytes == 0
    assert len(sent(talk.allow(commands), TARGET)) > 1_000_000
    assert session.unsent_requests < 10_000


def test_a_statement_costs_more_than_its_text() -> None:
    talk = signed_in()
    session = talk.machine.session
    assert session is not None
    commands = talk.client((pg.extended("select 1") + pg.SYNC) * 1_000)
    assert session.unsent_requests > 4 * 1024 * 1024
    talk.allow(commands)
    assert session.unsent_requests > 4 * 1024 * 1024
    answer = pg.PARSED + pg.BOUND + pg.NO_DATA + pg.done("SELECT 0") + pg.ready()
    talk.record(talk.target(answer * 1_000))
    assert session.unsent_requests == 0


def test_what_only_the_client_can_end_never_stops_the_reading_of_it() -> None:
    talk = signed_in()
    session = talk.machine.session
    assert session is not None
    assert talk.client(pg.parse("select $1"), pg.bind([b"x" * 10_000_000])) == []
    assert session.unsent_requests == 0


def test_what_gathers_without_a_sync_is_bounded() -> None:
    talk = signed_in()
    commands = talk.client(*[pg.parse("select 1", f"n{number}") for number in range(10_000)])
    assert len(requests(commands)) > 7_000


def test_a_flood_of_messages_without_an_answer_is_counted_too() -> None:
    talk = signed_in()
    session = talk.machine.session
    assert session is not None
    talk.client(pg.SYNC * 10_000)
    assert session.unsent_requests > 4 * 1024 * 1024


def test_a_target_that_ran_more_than_was_asked_for_is_not_believed() -> None:
    talk = running()
    commands = talk.target(pg.done("SELECT 0"), pg.done("DROP TABLE"))
    commands += talk.record(commands)
    assert pg.kinds(sent(commands, CLIENT)) == "CE"
    assert ended(commands) == "protocol_error"


# --- a client that closes its half ---


def test_what_it_said_is_done_and_answered_and_then_it_is_over() -> None:
    talk = signed_in()
    talk.allow(talk.client(pg.query("select 1")))
    assert sent(talk.handle(SaidAll()), TARGET) == pg.TERMINATE
    answer = pg.columns("a") + pg.row(b"1") + pg.done("SELECT 1") + pg.ready()
    commands = talk.record(talk.target(answer))
    assert sent(commands, CLIENT) == answer
    assert isinstance(commands[-1], Close)


def test_nothing_of_a_half_message_is_done() -> None:
    talk = signed_in()
    talk.client(pg.query("select 1")[:-3])
    commands = talk.handle(SaidAll())
    assert sent(commands, TARGET) == b""
    assert [fact.reason for fact in facts(commands) if isinstance(fact, Ended)] == ["client_lost"]
