"""Requests of more than 16 MiB: passed over, and refused in their turn."""

from __future__ import annotations

import struct
from collections.abc import Iterable

import pytest

from gateway.machine import Ask, Close, Command
from gateway.protocols.postgres import wire
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
from tests.gateway.protocols.postgres.rig import Rig

SIZE = wire.MAX_MESSAGE + 1000
TEXT = "select 'alice''s secret', " + "7" * 100
SAID = f"a message may have at most {wire.MAX_MESSAGE} bytes, and this has {SIZE}"


def large(kind: str, beginning: bytes, piece: int = 1 << 20) -> Iterable[bytes]:
    """A message of SIZE bytes, in pieces."""
    yield kind.encode() + struct.pack(">I", SIZE) + beginning
    left = SIZE - 4 - len(beginning)
    while left:
        yield b"x" * min(piece, left)
        left -= min(piece, left)


def say(talk: Dialogue, pieces: Iterable[bytes]) -> list[Command]:
    return [command for piece in pieces for command in talk.client(piece)]


def error_of(talk: Dialogue, commands: list[Command]) -> dict[str, str]:
    told = pg.split(sent(talk.record(commands), CLIENT))
    return next(pg.fields(one) for one in told if one[:1] == b"E")


def test_a_query_is_refused_and_the_session_goes_on() -> None:
    talk = signed_in()
    commands = say(talk, large("Q", TEXT.encode()))
    (request,) = requests(commands)
    assert request.refusal == SAID
    # What was kept of it, without what may be a credential.
    assert request.statement.startswith("select ")
    assert len(request.statement) <= wire.KEPT
    commands = talk.decided(1000, DENY)
    assert sent(commands, TARGET) == pg.query(b'"' + token(2) + b'"')
    poisoned = pg.error("42601", f'syntax error at or near ""{token(2).decode()}""')
    commands = talk.target(poisoned, pg.ready())
    assert outcomes(commands) == [(2, "denied", "54000")]
    said = error_of(talk, commands)
    assert (said["S"], said["C"], said["M"]) == ("ERROR", "54000", SAID)
    assert statements(talk.client(pg.query("select 1"))) == ["select 1"]


def test_it_waits_for_its_turn() -> None:
    talk = signed_in()
    talk.client(pg.query("select 1"))
    (asked,) = [c for c in say(talk, large("Q", b"select 2")) if isinstance(c, Ask)]
    assert talk.decided(asked.ticket, DENY) == []
    assert sent(talk.decided(1000), TARGET) == pg.query("select 1") + pg.query(
        b'"' + token(3) + b'"'
    )


def test_a_parse_is_refused_by_its_name() -> None:
    talk = signed_in()
    commands = say(talk, large("P", b"s\0" + TEXT.encode()))
    commands += talk.client(pg.bind(name="s"), pg.execute(), pg.SYNC)
    (request,) = requests(commands)
    assert (request.action, request.refusal) == ("execute", SAID)
    poisoned = sent(talk.decided(1000, DENY), TARGET)
    assert pg.split(poisoned)[0] == pg.parse(b'"' + token(2) + b'"', "s")
    commands = talk.target(pg.error("42601", f'at or near ""{token(2).decode()}""'))
    assert error_of(talk, commands)["C"] == "54000"
    # The name means nothing afterwards.
    talk.record(talk.target(pg.ready()))
    (request,) = requests(talk.client(pg.bind(name="s"), pg.execute(), pg.SYNC))
    assert request.refusal == 'prepared statement "s" does not exist'


def test_a_bind_is_refused_and_its_statement_stays() -> None:
    talk = signed_in()
    talk.allow(talk.client(pg.parse("select $1", "s"), pg.SYNC))
    talk.record(talk.target(pg.PARSED, pg.ready()))
    beginning = b"p\0s\0" + struct.pack(">HHi", 0, 1, SIZE - 100)
    commands = say(talk, large("B", beginning))
    commands += talk.client(pg.execute("p"), pg.SYNC)
    (request,) = requests(commands)
    assert (request.statement, request.refusal, request.parameters) == ("select $1", SAID, ())
    (asked,) = [command for command in commands if isinstance(command, Ask)]
    poisoned = pg.split(sent(talk.decided(asked.ticket, DENY), TARGET))
    number = int.from_bytes(request.statement_id, "big")
    assert poisoned[0] == pg.bind(name=token(number).decode(), portal="p")
    commands = talk.target(pg.error("26000", f'"{token(number).decode()}" does not exist'))
    assert error_of(talk, commands)["C"] == "54000"
    talk.record(talk.target(pg.ready()))
    (request,) = requests(talk.client(pg.bind([b"1"], "s"), pg.execute(), pg.SYNC))
    assert (request.statement, request.refusal) == ("select $1", "")


def test_a_function_call_is_refused_as_a_query() -> None:
    talk = signed_in()
    (request,) = requests(say(talk, large("F", struct.pack(">I", 1598))))
    assert (request.statement, request.refusal) == ("FUNCTION CALL 1598", SAID)
    assert sent(talk.decided(1000, DENY), TARGET)[:1] == b"Q"


def test_a_name_that_does_not_end_is_refused_like_any_other() -> None:
    talk = signed_in()
    (request,) = requests([*say(talk, large("P", b"n" * 2000)), *talk.client(pg.SYNC)])
    assert request.refusal == SAID


def test_the_rest_of_it_is_not_kept() -> None:
    splitter = wire.Splitter(b"Q")
    *pieces, last = large("Q", b"select 1")
    for piece in pieces:
        assert list(splitter.feed(piece)) == []
        assert splitter.buffered == 0
    assert [len(whole) for _, whole in splitter.feed(last)] == [5 + wire.KEPT]


@pytest.mark.parametrize("kind", "DECSHfX")
def test_what_is_never_large_ends_the_session(kind: str) -> None:
    talk = signed_in()
    commands = talk.client(kind.encode() + struct.pack(">I", SIZE))
    commands += talk.record(commands)
    assert pg.fields(sent(commands, CLIENT))["S"] == "FATAL"
    assert commands[-1] == Close(drain=True)


def test_so_does_what_postgresql_itself_would_not_read() -> None:
    talk = signed_in()
    commands = talk.client(b"Q" + struct.pack(">I", 1 << 30))
    assert pg.fields(sent(commands, CLIENT))["C"] == "54000"


def test_cut_anywhere_it_is_the_same() -> None:
    def heard(sizes: int) -> tuple[bytes, list[tuple[str, str, str, str]]]:
        rig = Rig()
        data = b"".join((pg.query("select 1"), *large("Q", b"select 2"), pg.query("select 3")))
        for at in range(0, len(data), sizes):
            rig.say(data[at : at + sizes])
            rig.settle()
        rig.finish()
        return bytes(rig.to_client), rig.book()

    whole = heard(1 << 30)
    assert [end[2] for end in whole[1]] == ["completed", "denied", "completed"]
    assert heard(65_537) == heard(999_983) == whole
