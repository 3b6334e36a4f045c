"""What one session's prepared statements and portals may cost: refused beyond it, not ended."""

from __future__ import annotations

import pytest

from gateway.machine import Ask, Command
from tests.gateway.protocols.postgres import messages as pg
from tests.gateway.protocols.postgres.dialogue import (
    ALLOW,
    CLIENT,
    DENY,
    Dialogue,
    outcomes,
    requests,
    sent,
    signed_in,
    token,
)

LIMIT = 100_000
FULL = (
    f"prepared statements and portals of a session may hold at most {LIMIT} bytes "
    "(prepared_max_bytes): close some"
)
LONG = "select '" + "x" * 20_000 + "'"


@pytest.fixture
def talk() -> Dialogue:
    return signed_in(prepared_max_bytes=LIMIT)


def refusals(commands: list[Command]) -> list[str]:
    return [request.refusal for request in requests(commands)]


def prepare(talk: Dialogue, name: str, text: str = LONG) -> list[str]:
    """The refusals of a Parse that the target would accept."""
    commands = talk.client(pg.parse(text, name), pg.SYNC)
    if not any(refusals(commands)):
        talk.allow(commands)
        talk.record(talk.target(pg.PARSED, pg.ready()))
    return refusals(commands)


def test_a_parse_beyond_it_is_refused_and_the_session_lives(talk: Dialogue) -> None:
    assert prepare(talk, "a") == prepare(talk, "b") == [""]
    (request,) = requests(commands := talk.client(pg.parse(LONG, "c"), pg.SYNC))
    assert (request.statement, request.refusal) == (LONG, FULL)
    (asked,) = [command for command in commands if isinstance(command, Ask)]
    talk.decided(asked.ticket, DENY)
    number = int.from_bytes(request.statement_id, "big")
    commands = talk.target(pg.error("42601", f'at ""{token(number).decode()}""'), pg.ready())
    assert outcomes(commands) == [(number, "denied", "53200")]
    errors = [one for one in pg.split(sent(talk.record(commands), CLIENT)) if one[:1] == b"E"]
    assert [(pg.fields(one)["C"], pg.fields(one)["M"]) for one in errors] == [("53200", FULL)]
    # Room is made by whoever closes something.
    talk.allow(talk.client(pg.close_statement("a"), pg.SYNC))
    talk.record(talk.target(pg.CLOSED, pg.ready()))
    assert prepare(talk, "c") == [""]


def test_the_unnamed_statement_takes_its_own_place(talk: Dialogue) -> None:
    for _ in range(10):
        assert prepare(talk, "") == [""]


def test_a_bind_beyond_it_is_refused(talk: Dialogue) -> None:
    prepare(talk, "s", "select $1")
    found = []
    talk.allow(talk.client(pg.query("begin")))
    talk.record(talk.target(pg.done("BEGIN"), pg.ready("T")))
    for number in range(5):
        commands = talk.client(
            pg.bind([b"x" * 24_000], "s", f"p{number}"), pg.execute(f"p{number}", 1), pg.SYNC
        )
        found += refusals(commands)
        if not any(refusals(commands)):
            talk.allow(commands)
            talk.record(talk.target(pg.BOUND, pg.SUSPENDED, pg.ready("T")))
    assert found == ["", "", "", "", FULL]
    # With their transaction they are forgotten.
    talk.client(pg.query("rollback"))


def test_portals_end_with_their_transaction(talk: Dialogue) -> None:
    prepare(talk, "s", "select $1")
    for number in range(20):
        commands = talk.client(
            pg.bind([b"x" * 24_000], "s", f"p{number}"), pg.execute(f"p{number}", 1), pg.SYNC
        )
        assert refusals(commands) == [""]
        talk.allow(commands)
        talk.record(talk.target(pg.BOUND, pg.SUSPENDED, pg.ready()))


def test_thousands_of_rows_before_an_answer_are_no_thousands_of_portals(talk: Dialogue) -> None:
    prepare(talk, "s", "insert into t values ($1)")
    row = pg.bind([b"x" * 24_000], "s") + pg.execute()
    commands = [command for _ in range(100) for command in talk.client(row)]
    assert refusals(commands) == [""] * 100
    assert {request.parameters for request in requests(commands)} == {((0, 0, b"x" * 24_000),)}


def test_prepare_in_sql_counts_too(talk: Dialogue) -> None:
    found = []
    for number in range(4):
        commands = talk.client(pg.query(f"prepare p{number} as {LONG}"))
        found += refusals(commands)
        (asked,) = [command for command in commands if isinstance(command, Ask)]
        talk.decided(asked.ticket, DENY if any(refusals(commands)) else ALLOW)
        answer = pg.error("42601", "no") if any(refusals(commands)) else pg.done("PREPARE")
        talk.record(talk.target(answer, pg.ready()))
    assert found == ["", "", FULL, FULL]
    talk.allow(talk.client(pg.query("deallocate all")))
    talk.record(talk.target(pg.done("DEALLOCATE ALL"), pg.ready()))
    assert refusals(talk.client(pg.query(f"prepare p as {LONG}"))) == [""]


def test_so_do_descriptions(talk: Dialogue) -> None:
    prepare(talk, "s", "select * from wide")
    talk.allow(talk.client(pg.describe_statement("s"), pg.SYNC))
    talk.record(talk.target(pg.parameter_types(), pg.columns(*["a" * 60] * 1300), pg.ready()))
    assert prepare(talk, "t", "select 1") == [FULL]
