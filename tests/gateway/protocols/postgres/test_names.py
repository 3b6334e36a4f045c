"""Names of statements and portals: what is judged and recorded is what the target runs."""

from __future__ import annotations

import pytest

from gateway.machine import Send
from gateway.protocols.postgres.names import Ledger, Meaning, Names
from tests.gateway.protocols.postgres import messages as pg
from tests.gateway.protocols.postgres.dialogue import (
    CLIENT,
    DENY,
    TARGET,
    Dialogue,
    ident,
    outcomes,
    requests,
    sent,
    signed_in,
    statements,
)

ROWS = pg.columns("a") + pg.row(b"1")


def prepared(talk: Dialogue, name: str, text: str) -> None:
    """The statement exists at the target, and the client knows."""
    talk.allow(talk.client(pg.parse(text, name), pg.SYNC))
    talk.record(talk.target(pg.PARSED, pg.ready()))


def run(name: str, portal: str = "") -> bytes:
    return pg.bind(name=name, portal=portal) + pg.execute(portal) + pg.SYNC


# --- the table itself ---

OLD, NEW = Meaning(100), Meaning(30)


def test_a_change_counts_at_once_and_can_be_taken_back() -> None:
    names: Names[Meaning] = Names(Ledger())
    names.change([b"s"], OLD, 0).settle()
    change = names.change([b"s"], NEW, 1)
    assert names.get(b"s") == NEW
    change.drop()
    assert names.get(b"s") == OLD


def test_changes_may_be_taken_back_in_any_order() -> None:
    names: Names[Meaning] = Names(Ledger())
    first, second = names.change([b"s"], OLD, 0), names.change([b"s"], NEW, 0)
    first.drop()
    assert names.get(b"s") == NEW
    second.drop()
    assert names.get(b"s") is None


def test_the_segment_counts_that_gave_a_name_its_latest_meaning() -> None:
    names: Names[Meaning] = Names(Ledger())
    change = names.change([b"s"], OLD, 4)
    assert (names.given_in(b"s", 4), names.given_in(b"s", 5)) == (True, False)
    newer = names.change([b"s"], NEW, 5)
    assert names.given_in(b"s", 5) is True
    newer.drop()
    change.settle()
    assert names.given_in(b"s", 5) is None


def test_names_are_told_apart_by_63_bytes() -> None:
    names: Names[Meaning] = Names(Ledger())
    names.change([b"n" * 64], OLD, 0).settle()
    assert names.get(b"n" * 63 + b"other") == OLD
    assert names.get(b"n" * 62) is None


def test_forgetting_everything_is_one_change() -> None:
    names: Names[Meaning] = Names(Ledger())
    names.change([b"a"], OLD, 0).settle()
    names.change([b"b"], NEW, 0)
    change = names.change(names, None, 0)
    assert names.get(b"a") is names.get(b"b") is None
    change.drop()
    assert (names.get(b"a"), names.get(b"b")) == (OLD, NEW)


def test_what_is_remembered_is_counted() -> None:
    ledger = Ledger()
    statements: Names[Meaning] = Names(ledger)
    portals: Names[Meaning] = Names(ledger)
    old, new, portal = Meaning(100), Meaning(30), Meaning(7)
    settled = statements.change([b"s"], old, 0)
    assert ledger.total == 100
    settled.settle()
    pending = statements.change([b"s"], new, 0)
    portals.change([b"p"], portal, 0).settle()
    assert ledger.total == 137
    new.grow(3)
    assert ledger.total == 140
    pending.drop()
    new.grow(1000)
    assert ledger.total == 107
    statements.change([b"s"], new, 1).settle()
    assert ledger.total == 1040
    portals.unsettle(b"p")
    statements.change(statements, None, 2).settle()
    assert ledger.total == 0


# --- in a session ---


def test_a_pipelined_use_of_a_name_is_judged_once_it_is_known_what_it_means() -> None:
    """The second Parse fails, since the name is taken; the Bind then runs the first."""
    talk = signed_in()
    prepared(talk, "s", "select * from customers")

    commands = talk.client(pg.parse("select 1", "s"), pg.SYNC, run("s"))
    assert statements(commands) == ["select 1"]
    assert sent(talk.allow(commands), TARGET) == pg.parse("select 1", "s") + pg.SYNC
    commands = talk.target(pg.error("42P05", 'prepared statement "s" already exists'), pg.ready())
    assert statements(commands) == ["select * from customers"]
    assert sent(talk.allow(commands), TARGET) == run("s")


def test_a_portal_is_judged_by_what_the_target_has_under_its_name() -> None:
    talk = signed_in()
    prepared(talk, "harmless", "select 1")
    prepared(talk, "other", "select * from customers")
    talk.allow(talk.client(pg.query("begin")))
    talk.target(pg.done("BEGIN"), pg.ready("T"))
    talk.allow(talk.client(pg.bind(name="other", portal="p"), pg.SYNC))
    talk.target(pg.BOUND, pg.ready("T"))

    commands = talk.client(pg.bind(name="harmless", portal="p"), pg.SYNC, pg.execute("p"), pg.SYNC)
    assert statements(commands) == ["select 1"]
    talk.allow(commands)
    commands = talk.target(pg.error("42P03", 'cursor "p" already exists'), pg.ready("E"))
    assert statements(commands) == ["select * from customers"]


def test_within_a_segment_nothing_waits() -> None:
    talk = signed_in()
    commands = talk.client(pg.parse("select 1", "s"), run("s"))
    assert statements(commands) == ["select 1"]


def test_pipelined_statements_do_not_wait_for_each_other() -> None:
    talk = signed_in()
    texts = [f"select {number}" for number in range(5)]
    assert statements(talk.client(*[pg.extended(text) + pg.SYNC for text in texts])) == texts


def test_a_name_that_another_statement_prepared_is_certain_again_after_its_answer() -> None:
    talk = signed_in()
    talk.allow(talk.client(pg.parse("select 1", "s"), pg.SYNC, run("s")))
    commands = talk.target(pg.PARSED, pg.ready())
    assert statements(commands) == ["select 1"]
    assert sent(talk.allow(commands), TARGET) == run("s")


def test_names_of_skipped_messages_mean_what_they_meant() -> None:
    talk = signed_in()
    prepared(talk, "s", "select 1")
    commands = talk.client(
        pg.bind(name="missing"),
        pg.close_statement("s"),
        pg.parse("select 2", "s"),
        pg.parse("select 3", "t"),
        pg.SYNC,
    )
    talk.allow(commands)
    talk.target(pg.error("26000", 'prepared statement "missing" does not exist'), pg.ready())
    assert statements(talk.client(run("s"))) == ["select 1"]
    (unknown,) = requests(talk.client(run("t")))
    assert unknown.refusal == 'prepared statement "t" does not exist'


def test_the_unnamed_statement_survives_a_skipped_parse() -> None:
    talk = signed_in()
    prepared(talk, "", "select 1")
    talk.allow(talk.client(pg.bind(name="missing"), pg.parse("select 2"), pg.SYNC))
    talk.target(pg.error("26000", "no"), pg.ready())
    assert statements(talk.client(run(""))) == ["select 1"]


def test_a_name_used_again_after_its_parse_failed_is_not_lost() -> None:
    """Both Parses are on their way before the first one's error comes."""
    talk = signed_in()
    commands = talk.client(
        pg.parse("select nope", "s"), pg.SYNC, pg.parse("select 1", "s"), pg.SYNC
    )
    talk.allow(commands)
    talk.target(pg.error("42703", 'column "nope" does not exist'), pg.ready())
    talk.target(pg.PARSED, pg.ready())
    assert statements(talk.client(run("s"))) == ["select 1"]


def test_a_closed_name_is_unknown() -> None:
    talk = signed_in()
    prepared(talk, "s", "select 1")
    talk.client(pg.close_statement("s"), pg.SYNC)
    talk.target(pg.CLOSED, pg.ready())
    (unknown,) = requests(talk.client(run("s")))
    assert unknown.refusal == 'prepared statement "s" does not exist'


def test_two_names_that_the_target_takes_for_one_are_one() -> None:
    talk = signed_in()
    prepared(talk, "n" * 63 + "x", "select 1")
    talk.client(pg.close_statement("n" * 63 + "y"), pg.SYNC)
    talk.target(pg.CLOSED, pg.ready())
    prepared(talk, "n" * 63 + "y", "select * from customers")
    assert statements(talk.client(run("n" * 63 + "x"))) == ["select * from customers"]


def test_portals_end_with_their_transaction() -> None:
    talk = signed_in()
    prepared(talk, "s", "select 1")
    talk.allow(talk.client(pg.bind(name="s", portal="p"), pg.SYNC))
    talk.target(pg.BOUND, pg.ready("I"))
    (unknown,) = requests(talk.client(pg.execute("p"), pg.SYNC))
    assert unknown.refusal == 'portal "p" does not exist'


# --- PREPARE, DEALLOCATE and DISCARD ---


def query(talk: Dialogue, text: str, tag: str) -> None:
    talk.allow(talk.client(pg.query(text)))
    talk.record(talk.target(pg.done(tag), pg.ready()))


def extended(talk: Dialogue, text: str, tag: str) -> None:
    talk.allow(talk.client(pg.extended(text), pg.SYNC))
    talk.record(talk.target(pg.PARSED, pg.BOUND, pg.NO_DATA, pg.done(tag), pg.ready()))


@pytest.mark.parametrize("how", [query, extended])
def test_a_statement_prepared_in_sql_can_be_bound(how: object) -> None:
    talk = signed_in()
    assert callable(how)
    how(talk, "prepare s as select * from customers", "PREPARE")
    (asking,) = requests(talk.client(run("s")))
    assert asking.statement == "prepare s as select * from customers"
    assert (asking.kind, asking.kinds) == ("execute", {"execute", "prepare", "select"})
    assert asking.prepared_id == ident(2)
    assert asking.relations == ("customers",)


@pytest.mark.parametrize("how", [query, extended])
@pytest.mark.parametrize(
    ("text", "tag", "left"),
    [
        ("deallocate s", "DEALLOCATE", False),
        ("deallocate all", "DEALLOCATE ALL", False),
        ("deallocate other", "DEALLOCATE", True),
        ("discard all", "DISCARD ALL", False),
        ("discard plans", "DISCARD PLANS", True),
        ("discard temp", "DISCARD TEMP", True),
        ("discard sequences", "DISCARD SEQUENCES", True),
    ],
)
def test_what_sql_forgets_is_forgotten(how: object, text: str, tag: str, left: bool) -> None:
    talk = signed_in()
    prepared(talk, "s", "select 1")
    assert callable(how)
    how(talk, text, tag)
    (asking,) = requests(talk.client(run("s")))
    assert (asking.refusal == "") is left


@pytest.mark.parametrize("how", [query, extended])
def test_a_name_given_anew_in_sql_does_not_keep_its_old_meaning(how: object) -> None:
    """Or the book would show the old text while the target runs the new one."""
    talk = signed_in()
    prepared(talk, "s", "select 1")
    assert callable(how)
    how(talk, "deallocate s", "DEALLOCATE")
    how(talk, "prepare s as select * from customers", "PREPARE")
    assert statements(talk.client(run("s"))) == ["prepare s as select * from customers"]


def test_only_running_a_deallocate_forgets_not_parsing_it() -> None:
    talk = signed_in()
    prepared(talk, "s", "select 1")
    prepared(talk, "d", "deallocate all")
    assert statements(talk.client(run("s"))) == ["select 1"]


def test_a_deallocate_that_fails_forgets_nothing() -> None:
    talk = signed_in()
    prepared(talk, "s", "select 1")
    talk.allow(talk.client(pg.query("deallocate all")))
    talk.target(pg.error("25P02", "aborted"), pg.ready())
    assert statements(talk.client(run("s"))) == ["select 1"]


def test_pipelined_after_a_deallocate_a_new_statement_of_that_name_stays() -> None:
    talk = signed_in()
    prepared(talk, "s", "select 1")
    talk.allow(
        talk.client(
            pg.extended("deallocate all"), pg.parse("select 2", "s"), pg.bind(name="s"), pg.SYNC
        )
    )
    talk.target(pg.PARSED, pg.BOUND, pg.NO_DATA, pg.done("DEALLOCATE ALL"))
    talk.target(pg.PARSED, pg.BOUND, pg.ready())
    assert statements(talk.client(run("s"))) == ["select 2"]


def test_execute_does_what_its_prepare_said() -> None:
    talk = signed_in()
    query(talk, "prepare s as delete from t", "PREPARE")
    (asking,) = requests(talk.client(pg.query("execute s")))
    assert asking.kinds == {"execute", "prepare", "delete"}
    assert asking.relations == ("t",)
    assert asking.prepared_id == ident(2)


@pytest.mark.parametrize("text", ["explain analyze execute s", "create table n as execute s"])
def test_an_execute_inside_another_statement_is_one(text: str) -> None:
    talk = signed_in()
    query(talk, "prepare s as delete from t", "PREPARE")
    (asking,) = requests(talk.client(pg.query(text)))
    assert asking.kinds >= {"execute", "prepare", "delete"}
    assert "t" in asking.relations
    assert asking.prepared_id == ident(2)


def test_the_unnamed_statement_survives_deallocate_all() -> None:
    talk = signed_in()
    prepared(talk, "", "select 1")
    query(talk, "deallocate all", "DEALLOCATE ALL")
    assert statements(talk.client(run(""))) == ["select 1"]


def test_a_portal_is_uncertain_until_it_is_known_whether_its_transaction_ended() -> None:
    talk = signed_in()
    talk.allow(talk.client(pg.extended("select 1"), pg.SYNC, pg.execute(), pg.SYNC))
    commands = talk.target(pg.PARSED, pg.BOUND, ROWS, pg.done("SELECT 1"))
    assert requests(commands) == []
    (unknown,) = requests(talk.target(pg.ready()))
    assert unknown.refusal == 'portal "" does not exist'


# --- names nobody prepared ---


@pytest.mark.parametrize(
    ("message", "code", "said"),
    [
        (run("ghost"), "26000", 'prepared statement "ghost" does not exist'),
        (run(""), "26000", "unnamed prepared statement does not exist"),
        (pg.execute("ghost") + pg.SYNC, "34000", 'portal "ghost" does not exist'),
    ],
)
def test_unknown_names_get_the_targets_own_error(message: bytes, code: str, said: str) -> None:
    talk = signed_in()
    commands = talk.client(message)
    assert [one.refusal for one in requests(commands)] == [said]
    first = pg.split(sent(talk.decided(1000, DENY), TARGET))[0]
    carried = f"gatebook_refused_{(2).to_bytes(16, 'big').hex()}"
    assert carried.encode() in first
    commands = talk.target(pg.error(code, f'"{carried}" does not exist'), pg.ready())
    assert outcomes(commands) == [(2, "denied", code)]
    error = pg.fields(pg.split(sent(talk.record(commands), CLIENT))[0])
    assert (error["C"], error["M"]) == (code, said)


def test_describing_or_closing_an_unknown_name_is_left_to_the_target() -> None:
    talk = signed_in()
    message = pg.describe_statement("ghost") + pg.close_portal("ghost") + pg.SYNC
    assert talk.client(message) == [Send(TARGET, message)]


# --- names beyond ASCII are other names in other encodings ---


@pytest.mark.parametrize(
    "asked",
    [
        pg.message("P", b"\xe9\0select 1\0\0\0"),
        pg.message("B", b"\0\xe9\0\0\0\0\0\0\0"),
        pg.message("B", b"\xe9\0\0\0\0\0\0\0\0"),
        pg.message("D", b"S\xe9\0"),
    ],
)
def test_a_name_that_depends_on_the_encoding_is_refused(asked: bytes) -> None:
    talk = signed_in()
    commands = talk.client(asked)
    assert not requests(commands)
    assert sent(commands, TARGET) == b""
    assert pg.fields(sent(commands, CLIENT))["C"] == "0A000"


def test_a_cursor_takes_the_name_of_a_portal() -> None:
    talk = signed_in()
    talk.allow(talk.client(pg.query("begin")))
    talk.record(talk.target(pg.done("BEGIN"), pg.ready("T")))
    talk.allow(talk.client(pg.parse("select 1", "s"), pg.bind(name="s", portal="p"), pg.SYNC))
    talk.record(talk.target(pg.PARSED, pg.BOUND, pg.ready("T")))
    cursor = ("declare p cursor for select ssn from customers", "DECLARE CURSOR")
    for text, tag in (("close p", "CLOSE CURSOR"), cursor):
        talk.allow(talk.client(pg.query(text)))
        talk.record(talk.target(pg.done(tag), pg.ready("T")))
    (request,) = requests(talk.client(pg.execute("p"), pg.SYNC))
    assert request.statement == cursor[0]
    assert request.relations == ("customers",)
