"""DECLARE, FETCH, MOVE and CLOSE: a FETCH is what its cursor was declared for."""

from __future__ import annotations

import pytest

from gateway.machine import Ask, CatalogView, Request, Rows
from schemas.events import NONE_ID
from tests.gateway.protocols.postgres import messages as pg
from tests.gateway.protocols.postgres.dialogue import (
    DENY,
    TARGET,
    Dialogue,
    facts,
    ident,
    requests,
    sent,
    signed_in,
)

DECLARED = "declare c cursor for select * from customers"
HELD = "declare c cursor with hold for select * from customers"
TIED = frozenset({"fetch", "declare", "select"})
UNKNOWN = frozenset({"fetch"})


def query(talk: Dialogue, text: str, tag: str, state: str = "T") -> bytes:
    """Ask for it and have it done: the id of its record."""
    commands = talk.client(pg.query(text))
    talk.allow(commands)
    talk.record(talk.target(pg.done(tag), pg.ready(state)))
    return requests(commands)[-1].statement_id


def fetch(talk: Dialogue, text: str = "fetch 10 from c") -> Request:
    """What is asked for it; it is not answered."""
    return requests(talk.client(pg.query(text)))[-1]


def in_transaction() -> Dialogue:
    talk = signed_in()
    query(talk, "begin", "BEGIN")
    return talk


@pytest.mark.parametrize("text", ["fetch 10 from c", "FETCH ALL IN C", "move 5 in c", 'fetch "c"'])
def test_a_fetch_is_tied_to_its_declare(text: str) -> None:
    talk = in_transaction()
    declared = query(talk, DECLARED, "DECLARE CURSOR")
    asked = fetch(talk, text)
    assert (asked.kind, asked.kinds) == ("fetch", TIED)
    assert asked.relations == ("customers",)
    assert asked.prepared_id == declared


def test_names_are_folded_and_cut_as_the_server_does() -> None:
    talk = in_transaction()
    declared = query(talk, f"declare {'N' * 70} cursor for select 1", "DECLARE CURSOR")
    assert fetch(talk, f"fetch {'n' * 66}").prepared_id == declared
    quoted = in_transaction()
    query(quoted, 'declare "C" cursor for select 1', "DECLARE CURSOR")
    assert fetch(quoted).kinds == UNKNOWN


def test_in_one_query_with_its_declare() -> None:
    talk = signed_in()
    commands = talk.client(pg.query(f"begin; {DECLARED}; fetch c; close c; fetch c"))
    asked = requests(commands)
    assert [one.prepared_id for one in asked] == [NONE_ID, NONE_ID, ident(3), NONE_ID, NONE_ID]
    assert (asked[2].kinds, asked[4].kinds) == (TIED, UNKNOWN)


def test_in_the_extended_protocol() -> None:
    talk = in_transaction()
    talk.allow(talk.client(pg.extended(DECLARED), pg.SYNC))
    talk.record(
        talk.target(pg.PARSED, pg.BOUND, pg.NO_DATA, pg.done("DECLARE CURSOR"), pg.ready("T"))
    )
    commands = talk.client(pg.parse("fetch 1 from c", "f"), pg.SYNC)
    (parsed,) = requests(commands)
    assert parsed.kinds == TIED
    talk.allow(commands)
    talk.record(talk.target(pg.PARSED, pg.ready("T")))
    for _ in range(2):
        commands = talk.client(pg.bind(name="f"), pg.execute(), pg.SYNC)
        (asked,) = requests(commands)
        assert asked.kinds == TIED
        assert asked.prepared_id == ident(3)
        talk.allow(commands)
        talk.record(talk.target(pg.BOUND, pg.done("FETCH 0"), pg.ready("T")))


def test_a_cursor_is_a_portal_that_can_be_executed() -> None:
    talk = in_transaction()
    declared = query(talk, DECLARED, "DECLARE CURSOR")
    commands = talk.client(pg.describe_portal("c"), pg.execute("c", rows=2), pg.SYNC)
    (asked,) = requests(commands)
    assert (asked.kind, asked.kinds, asked.statement) == ("fetch", TIED, DECLARED)
    assert (asked.prepared_id, asked.refusal) == (declared, "")
    forwarded = sent(talk.allow(commands), TARGET)
    assert forwarded == pg.describe_portal("c") + pg.execute("c", rows=2) + pg.SYNC
    commands = talk.target(pg.columns("a"), pg.row(b"1"), pg.row(b"2"), pg.SUSPENDED, pg.ready("T"))
    (told,) = [fact for fact in facts(commands) if isinstance(fact, Rows)]
    assert (told.rows, told.columns[0][0]) == (2, "a")


def test_a_portal_of_a_bind_can_be_fetched_from() -> None:
    talk = in_transaction()
    talk.allow(talk.client(pg.parse("select * from orders", "s"), pg.SYNC))
    talk.record(talk.target(pg.PARSED, pg.ready("T")))
    talk.allow(talk.client(pg.bind(name="s", portal="p"), pg.SYNC))
    talk.record(talk.target(pg.BOUND, pg.ready("T")))
    asked = fetch(talk, "fetch 1 from p")
    assert (asked.kinds, asked.relations) == ({"fetch", "select"}, ("orders",))
    assert asked.prepared_id == ident(3)


def test_a_cursor_of_a_function_is_unknown() -> None:
    talk = in_transaction()
    query(talk, "select open_report('r')", "SELECT 1")
    asked = fetch(talk, 'fetch all in "r"')
    assert (asked.kinds, asked.relations, asked.prepared_id) == (UNKNOWN, (), NONE_ID)


@pytest.mark.parametrize(
    ("text", "tag"),
    [
        ("close c", "CLOSE CURSOR"),
        ("close all", "CLOSE CURSOR ALL"),
        ("rollback", "ROLLBACK"),
        ("commit", "COMMIT"),
        ("commit and chain", "COMMIT"),
        ("rollback to s", "ROLLBACK"),
        ("do $$ begin end $$", "DO"),
        ("call refresh()", "CALL"),
    ],
)
def test_what_ends_a_cursor(text: str, tag: str) -> None:
    talk = in_transaction()
    query(talk, "savepoint s", "SAVEPOINT")
    query(talk, DECLARED, "DECLARE CURSOR")
    query(talk, text, tag)
    asked = fetch(talk)
    assert (asked.kinds, asked.prepared_id) == (UNKNOWN, NONE_ID)


@pytest.mark.parametrize(
    ("text", "tag"),
    [
        ("close d", "CLOSE CURSOR"),
        ("release s", "RELEASE"),
        ("rollback to later", "ROLLBACK"),
        ("release later", "RELEASE"),
        ("select 1", "SELECT 1"),
    ],
)
def test_what_leaves_it_open(text: str, tag: str) -> None:
    talk = in_transaction()
    query(talk, "savepoint s", "SAVEPOINT")
    declared = query(talk, DECLARED, "DECLARE CURSOR")
    query(talk, "savepoint later", "SAVEPOINT")
    query(talk, text, tag)
    assert fetch(talk).prepared_id == declared


def test_a_savepoint_takes_along_what_was_declared_within_it_and_can_do_so_again() -> None:
    talk = in_transaction()
    first = query(talk, "declare a cursor for select 1", "DECLARE CURSOR")
    query(talk, "savepoint s", "SAVEPOINT")
    query(talk, "savepoint t", "SAVEPOINT")
    for _ in range(2):
        query(talk, "declare b cursor for select 2", "DECLARE CURSOR")
        query(talk, "rollback to s", "ROLLBACK")
        commands = talk.client(pg.query("fetch b"))
        assert requests(commands)[0].prepared_id == NONE_ID
        talk.allow(commands)
        talk.record(talk.target(pg.error("34000", "no b"), pg.ready("E")))
        query(talk, "rollback to s", "ROLLBACK")
    assert fetch(talk, "fetch a").prepared_id == first


def test_a_declare_that_fails_declares_nothing() -> None:
    talk = in_transaction()
    talk.allow(talk.client(pg.query(DECLARED)))
    talk.record(talk.target(pg.error("42P01", "no customers"), pg.ready("E")))
    assert fetch(talk).kinds == UNKNOWN


def test_a_refused_declare_declares_nothing() -> None:
    talk = in_transaction()
    (asked,) = [c for c in talk.client(pg.query(DECLARED)) if isinstance(c, Ask)]
    talk.decided(asked.ticket, DENY)
    talk.record(talk.target(pg.error("42P01", "no relation gatebook_refused"), pg.ready("E")))
    assert fetch(talk).kinds == UNKNOWN


def test_a_name_used_again_is_the_new_cursor() -> None:
    talk = in_transaction()
    query(talk, DECLARED, "DECLARE CURSOR")
    query(talk, "close c", "CLOSE CURSOR")
    again = query(talk, "declare c cursor for select * from orders", "DECLARE CURSOR")
    asked = fetch(talk)
    assert (asked.prepared_id, asked.relations) == (again, ("orders",))


def test_a_held_cursor_stays_after_its_commit_and_goes_with_its_rollback() -> None:
    kept = in_transaction()
    declared = query(kept, HELD, "DECLARE CURSOR")
    query(kept, "commit", "COMMIT", "I")
    query(kept, "begin", "BEGIN")
    query(kept, "rollback", "ROLLBACK", "I")
    assert fetch(kept).prepared_id == declared
    alone = signed_in()
    declared = query(alone, HELD, "DECLARE CURSOR", "I")
    assert fetch(alone).prepared_id == declared
    undone = in_transaction()
    query(undone, HELD, "DECLARE CURSOR")
    # The transaction had failed: its COMMIT is a ROLLBACK.
    query(undone, "commit", "ROLLBACK", "I")
    assert fetch(undone).kinds == UNKNOWN


def test_a_held_cursor_whose_query_fails_later_is_rolled_back() -> None:
    talk = signed_in()
    talk.allow(talk.client(pg.query(f"{HELD}; select 1/0")))
    talk.record(talk.target(pg.done("DECLARE CURSOR"), pg.error("22012", "zero"), pg.ready("I")))
    assert fetch(talk).kinds == UNKNOWN


def test_discard_all_closes_held_cursors() -> None:
    talk = signed_in()
    query(talk, HELD, "DECLARE CURSOR", "I")
    query(talk, "discard all", "DISCARD ALL", "I")
    assert fetch(talk).kinds == UNKNOWN


@pytest.mark.parametrize("end", ["rollback to s", "rollback; begin", "commit; begin"])
def test_in_one_query_a_cursor_is_unknown_once_its_end_was_asked_for(end: str) -> None:
    """A function may open another one of that name before the target has said anything."""
    talk = signed_in()
    texts = f"begin; savepoint s; {DECLARED}; {end}; select open_report('c'); fetch c"
    asked = requests(talk.client(pg.query(texts)))
    assert asked[-1].kinds == UNKNOWN
    assert asked[-1].prepared_id == NONE_ID


@pytest.mark.parametrize("later", [pg.query("fetch c"), pg.extended("fetch c") + pg.SYNC])
def test_a_fetch_waits_for_the_answer_to_a_declare_sent_before_it(later: bytes) -> None:
    """Or it would be judged as the new cursor while the target reads on in the old one."""
    talk = in_transaction()
    declared = query(talk, DECLARED, "DECLARE CURSOR")
    commands = talk.client(pg.query("declare c cursor for select 1"), later)
    assert len(requests(commands)) == 1
    talk.allow(commands)
    commands = talk.target(pg.error("42P03", 'cursor "c" already exists'), pg.ready("E"))
    assert [one.prepared_id for one in requests(commands)] == [declared]


def test_an_execute_waits_for_the_answer_to_a_prepare_sent_before_it() -> None:
    talk = signed_in()
    query(talk, "prepare s as delete from t", "PREPARE", "I")
    commands = talk.client(pg.query("prepare s as select 1"), pg.query("execute s"))
    assert len(requests(commands)) == 1
    talk.allow(commands)
    commands = talk.target(pg.error("42P05", "exists"), pg.ready())
    (asked,) = requests(commands)
    assert (asked.prepared_id, "delete" in asked.kinds) == (ident(2), True)


def test_rows_of_a_fetch_are_classified_as_those_of_its_query() -> None:
    catalog = CatalogView({}, frozenset(), frozenset({"customers"}))
    for text, classified in ((DECLARED, True), ("declare c cursor for select 1", False)):
        talk = signed_in(catalog=catalog)
        query(talk, "begin", "BEGIN")
        query(talk, text, "DECLARE CURSOR")
        talk.allow(talk.client(pg.query("fetch c")))
        commands = talk.target(pg.columns("a"), pg.row(b"1"), pg.done("FETCH 1"), pg.ready("T"))
        assert [f.classified for f in facts(commands) if isinstance(f, Rows)] == [classified]
        talk.record(commands)
        talk.allow(talk.client(pg.query("fetch unknown")))
        commands = talk.target(pg.columns("a"), pg.row(b"1"), pg.done("FETCH 1"), pg.ready("T"))
        assert [f.classified for f in facts(commands) if isinstance(f, Rows)] == [True]
