"""Large texts are read aside: what they mean, and what happens meanwhile."""

from __future__ import annotations

from dataclasses import replace as with_changes

import msgspec
import pytest

from gateway.large import LARGE, Reading
from gateway.machine import (
    Analyse,
    Analysed,
    Ask,
    CatalogView,
    Close,
    Expired,
    NotDurable,
    Record,
)
from gateway.masking.veil import Veil
from gateway.policy.facts import NONE, UNKNOWN, Facts
from gateway.protocols.postgres import aside
from tests.gateway.masking.shop import HIDDEN
from tests.gateway.protocols.postgres import messages as pg
from tests.gateway.protocols.postgres.dialogue import (
    CLIENT,
    DENY,
    TARGET,
    Dialogue,
    outcomes,
    requests,
    sent,
    signed_in,
    statements,
    token,
)

PADDING = "/*" + "x" * LARGE + "*/"
LONG = f"select name from customers {PADDING}"


def unread(**options: object) -> Dialogue:
    """A session whose large texts are read when the test says so."""
    talk = signed_in(**options)
    talk.reads = False
    return talk


def test_a_large_text_is_asked_for_once_it_was_read() -> None:
    talk = unread()
    (analyse,) = talk.client(pg.query(LONG))
    assert isinstance(analyse, Analyse)
    assert analyse.wanted.raw == LONG.encode()
    assert statements(talk.handle(talk.reading(analyse))) == [LONG]


def test_what_is_said_meanwhile_waits_and_keeps_its_order() -> None:
    talk = unread()
    (analyse,) = talk.client(pg.query(LONG))
    assert talk.client(pg.query("select 1"), pg.query("select 2")) == []
    commands = talk.handle(talk.reading(analyse))
    assert statements(commands) == [LONG, "select 1", "select 2"]


def test_one_text_of_a_session_is_read_at_a_time_and_those_that_wait_are_counted() -> None:
    talk = unread()
    (first,) = talk.client(*[pg.query(f"{LONG} as a{number}") for number in range(3)])
    session = talk.machine.session
    assert session is not None
    assert session.unsent_requests > 3 * LARGE
    (ask,) = talk.handle(talk.reading(first))
    assert isinstance(ask, Ask)
    talk.allow([ask])
    answered = talk.target(pg.columns("name"), pg.done("SELECT 0"), pg.ready())
    assert [type(command) for command in answered if not isinstance(command, Record)] == [Analyse]


def test_what_was_found_is_what_is_asked() -> None:
    veil = Veil(HIDDEN)
    talk = unread(veil=lambda: veil)
    text = f"select upper(email) from customers {PADDING}; select ssn from customers"
    (analyse,) = talk.client(pg.query(text))
    event = talk.reading(analyse)
    known = Facts(tables_read=frozenset({"public.customers"}))
    found = [msgspec.structs.replace(one, copied=("a.b.c",)) for one in event.reading.found]
    assert found[0].ran
    (request, _) = requests(
        talk.handle(
            Analysed(
                event.ticket,
                msgspec.structs.replace(
                    event.reading,
                    found=(msgspec.structs.replace(found[0], facts=known), *found[1:]),
                ),
            )
        )
    )
    assert request.copied == ("a.b.c",)
    assert request.ran == found[0].ran_recorded
    assert request.masks == ("public.customers.email",)


@pytest.mark.parametrize("kind", ["simple", "extended"])
def test_what_cannot_be_read_is_refused_and_the_session_goes_on(kind: str) -> None:
    talk = unread()
    secret = f"alter role a password 'hidden' {PADDING}"
    told = (
        [pg.query(secret)]
        if kind == "simple"
        else [pg.parse(secret), pg.bind(), pg.execute(), pg.SYNC]
    )
    (analyse,) = talk.client(*told)
    commands = talk.handle(talk.reading(analyse, "it takes too long", "54001"))
    asked = requests(commands)
    assert all("it takes too long" in each.refusal for each in asked)
    assert not any("hidden" in each.statement for each in asked)
    assert all(len(each.statement) < 2_000 for each in asked)
    poisoned = sent(talk.decided(1000, *[DENY] * len(asked)), TARGET)
    assert b"alter role" not in poisoned and b"hidden" not in poisoned
    failed = pg.error("42P01", f'relation "{token(2).decode()}" does not exist')
    told = talk.record(talk.target(failed, pg.ready()))
    assert pg.fields(sent(told, CLIENT))["C"] == "54001"
    assert statements(talk.client(pg.query("select 1"))) == ["select 1"]


def test_little_is_held_of_what_was_taken() -> None:
    talk = unread()
    session = talk.machine.session
    assert session is not None
    readings = session._asking._readings
    for number in range(3):
        (analyse,) = talk.client(pg.query(f"select {number} /*{'x' * 1_500_000}*/"))
        talk.allow(talk.handle(talk.reading(analyse)))
        assert len(readings) == 1
        talk.record(talk.target(pg.columns("a"), pg.done("SELECT 0"), pg.ready()))
    (analyse,) = talk.client(pg.query(f"select 4 /*{'x' * 6_000_000}*/"))
    assert statements(talk.handle(talk.reading(analyse)))
    assert len(readings) == 0


def test_who_says_goodbye_meanwhile_is_served_to_the_end() -> None:
    talk = unread()
    (analyse,) = talk.client(pg.query(LONG), pg.TERMINATE)
    assert talk.closed(CLIENT) == []
    commands = talk.handle(talk.reading(analyse))
    assert statements(commands) == [LONG]
    assert LONG.encode() in sent(talk.allow(commands), TARGET)


def test_who_is_lost_meanwhile_has_asked_nothing() -> None:
    talk = unread()
    (analyse,) = talk.client(pg.query(LONG))
    assert isinstance(talk.closed(CLIENT)[-1], Close)
    assert talk.handle(talk.reading(analyse)) == []


def test_a_token_may_expire_meanwhile() -> None:
    talk = unread()
    (analyse,) = talk.client(pg.query(LONG))
    commands = talk.handle(Expired())
    assert pg.fields(sent(talk.record(commands) + commands, CLIENT))["C"] == "28000"
    assert requests(talk.handle(talk.reading(analyse))) == []


def test_an_answer_to_something_else_is_not_taken_for_it() -> None:
    talk = unread()
    (analyse,) = talk.client(pg.query(LONG))
    event = talk.reading(analyse)
    assert talk.handle(Analysed(event.ticket + 1, event.reading)) == []
    assert statements(talk.handle(event)) == [LONG]


@pytest.mark.parametrize("changes", ["catalog", "veil"])
def test_what_was_found_by_what_is_known_no_more_is_read_again(changes: str) -> None:
    veils = [Veil(HIDDEN)]
    talk = unread(veil=lambda: veils[-1])
    (analyse,) = talk.client(pg.query(f"select ssn from customers {PADDING}"))
    event = talk.reading(analyse)
    if changes == "catalog":
        talk.catalog = CatalogView({}, frozenset({1}), frozenset())
    else:
        veils.append(Veil(with_changes(HIDDEN, path=("hr",))))
    (again,) = talk.handle(event)
    assert isinstance(again, Analyse) and again.wanted == analyse.wanted
    (request,) = requests(talk.handle(talk.reading(again)))
    assert request.masks == (("public.customers.ssn",) if changes == "catalog" else ())


def test_what_is_prepared_is_read_once_until_something_changes() -> None:
    talk = unread()
    talk.facts = NONE
    execution = (pg.bind(name="p"), pg.execute(), pg.SYNC)
    (analyse,) = talk.client(pg.parse(LONG, "p"), *execution)
    commands = talk.handle(talk.reading(analyse))
    assert statements(commands) == [LONG]

    def answered(ask: list[object]) -> None:
        talk.allow(ask)  # type: ignore[arg-type]
        talk.record(talk.target(pg.PARSED, pg.BOUND, pg.done("SELECT 0"), pg.ready()))

    answered(commands)
    commands = talk.client(*execution)
    assert statements(commands) == [LONG]
    talk.allow(commands)
    talk.record(talk.target(pg.BOUND, pg.done("SELECT 0"), pg.ready()))
    talk.catalog = CatalogView({}, frozenset({1}), frozenset())
    (analyse,) = talk.client(*execution)
    assert isinstance(analyse, Analyse)
    assert analyse.wanted.statement is not None
    assert statements(talk.handle(talk.reading(analyse))) == [LONG]


@pytest.mark.parametrize("naming", ["execute p", "extended"])
def test_what_others_name_is_read_again_too_and_refused_if_it_cannot_be(naming: str) -> None:
    talk = unread()
    (analyse,) = talk.client(pg.query(f"prepare p as {LONG}"))
    talk.allow(talk.handle(talk.reading(analyse)))
    talk.record(talk.target(pg.done("PREPARE"), pg.ready()))
    talk.catalog = CatalogView({}, frozenset({1}), frozenset())
    told = pg.extended("execute p") if naming == "extended" else pg.query(naming)
    commands = talk.client(told, pg.SYNC)
    (analyse,) = [command for command in commands if isinstance(command, Analyse)]
    commands = talk.handle(talk.reading(analyse, "it takes too long", "54001"))
    refusals = [request.refusal for request in requests(commands)]
    assert refusals and all("it takes too long" in each for each in refusals)


def test_nobody_judges_a_large_statement_that_was_not_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever is forgotten about it on the way."""
    monkeypatch.setattr(aside.Readings, "lacks", lambda *_: False)
    veil = Veil(HIDDEN)
    talk = unread(veil=lambda: veil)
    told = (pg.query(LONG), pg.parse(LONG), pg.bind(), pg.execute(), pg.SYNC)
    asked = requests(talk.client(*told))
    assert len(asked) == 1 and asked[0].refusal


def test_a_journal_that_fails_meanwhile_discards_what_waits() -> None:
    talk = unread()
    first = talk.client(pg.parse("select 1"), pg.bind(), pg.execute())
    (ask,) = [command for command in first if isinstance(command, Ask)]
    (analyse,) = talk.client(pg.parse(LONG, "p"))
    commands = talk.handle(NotDurable(ask.ticket))
    commands += talk.client(pg.SYNC)
    commands += talk.handle(talk.reading(analyse))
    assert outcomes(commands)[0][1:] == ("failed", "58030")
    assert pg.kinds(sent(commands, CLIENT)).endswith("Z")


def test_too_much_of_a_finding_is_refused() -> None:
    talk = unread()
    (analyse,) = talk.client(pg.query(LONG))
    assert isinstance(analyse, Analyse)
    names = frozenset(f"public.customers.c{number}" for number in range(100_000))
    veil = Veil(HIDDEN)
    (found,) = aside.find(analyse.wanted, lambda *_: Facts(columns_read=names), veil, None)
    assert found.facts is UNKNOWN
    assert found.statement.sqlstate == "54001"
    assert found.plan is not None and found.plan.action == "refuse"
    reading = Reading(analyse.wanted, (found,), talk.catalog, None)
    (request,) = requests(talk.handle(Analysed(analyse.ticket, reading)))
    assert "too many parts" in request.refusal


def test_nothing_is_said_of_copies_where_it_was_not_known_what_may_be_copied() -> None:
    # A catalog may be out of date for a while, and then known again without having changed: what
    # was read meanwhile is held still, and must not say that nothing classified is copied.
    talk = unread()
    copying = f"create table mine as select ssn from customers {PADDING}"
    (analyse,) = talk.client(pg.query(copying))
    (request,) = requests(talk.handle(talk.reading(analyse)))
    assert request.copied is None


def test_what_a_statement_copies_is_not_looked_for_again_where_it_makes_a_relation() -> None:
    veil = Veil(HIDDEN)
    talk = unread(veil=lambda: veil)
    (analyse,) = talk.client(pg.query(f"create temp table mine as select 1 {PADDING}; select 1"))
    event = talk.reading(analyse)
    found = [msgspec.structs.replace(one, copied=("a.b.c",)) for one in event.reading.found]
    assert found[0].plan is not None and found[0].plan.creates
    reading = msgspec.structs.replace(event.reading, found=tuple(found))
    asked = requests(talk.handle(Analysed(event.ticket, reading)))
    assert [request.copied for request in asked] == [("a.b.c",), ("a.b.c",)]
