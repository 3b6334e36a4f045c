"""How texts are read: settings of the session that change what a text means."""

from __future__ import annotations

import pytest

from gateway.machine import Send
from tests.gateway.protocols.postgres import messages as pg
from tests.gateway.protocols.postgres.dialogue import (
    ALLOW,
    CLIENT,
    DENY,
    TARGET,
    requests,
    sent,
    signed_in,
    statements,
)

# With standard_conforming_strings on, two harmless strings; with it off, a string and a DROP.
TWO_FACED = "select 'a\\', '; drop table t; --'"
OTHER_FACE = ["select E'a\\', '", "drop table t"]
SETTER = "select set_config('standard_conforming_strings', 'off', false)"


@pytest.mark.parametrize("setter", [SETTER, "set standard_conforming_strings = off", "select f()"])
def test_a_text_with_two_meanings_waits_until_its_meaning_is_known(setter: str) -> None:
    talk = signed_in()
    commands = talk.client(pg.query(setter), pg.query(TWO_FACED))
    assert statements(commands) == [setter]
    talk.allow(commands)
    commands = talk.target(
        pg.done("SELECT 1"), pg.status("standard_conforming_strings", "off"), pg.ready()
    )
    assert [one.kind for one in requests(commands)] == ["select", "drop"]
    assert statements(commands) == OTHER_FACE


def test_it_passes_when_the_setting_is_as_before() -> None:
    talk = signed_in()
    talk.allow(talk.client(pg.query("select f()"), pg.query(TWO_FACED)))
    commands = talk.target(pg.done("SELECT 1"), pg.ready())
    assert statements(commands) == [TWO_FACED]
    assert talk.allow(commands) == [Send(TARGET, pg.query(TWO_FACED))]


def test_what_comes_after_a_waiting_text_waits_too() -> None:
    talk = signed_in()
    talk.allow(talk.client(pg.query("select f()"), pg.query(TWO_FACED), pg.query("select 3")))
    commands = talk.target(pg.done("SELECT 1"), pg.ready())
    assert statements(commands) == [TWO_FACED, "select 3"]


def test_a_plain_text_does_not_wait() -> None:
    talk = signed_in()
    commands = talk.client(pg.query(SETTER), pg.query("select 'plain'"))
    assert statements(commands) == [SETTER, "select 'plain'"]


def test_characters_beyond_ascii_wait_for_the_encoding() -> None:
    talk = signed_in()
    commands = talk.client(pg.query("set client_encoding = 'SJIS'"), pg.query("select 'Á'"))
    assert len(requests(commands)) == 1
    talk.allow(commands)
    commands = talk.target(pg.done("SET"), pg.status("client_encoding", "SJIS"), pg.ready())
    (asking,) = requests(commands)
    assert asking.refusal == "invalid byte sequence for the client's encoding"


@pytest.mark.parametrize(
    ("first", "refused"),
    [
        (SETTER, True),
        ("set standard_conforming_strings = off", True),
        ("do $$ begin end $$", True),
        ("call p()", True),
        ("execute s", True),
        ("select 1", False),
        ("insert into t values (1)", False),
        ("begin", False),
        ("rollback", False),
    ],
)
def test_before_a_sync_nobody_knows_what_was_set(first: str, refused: bool) -> None:
    """The target reports settings with its ReadyForQuery, and not before."""
    talk = signed_in()
    commands = talk.client(pg.extended(first), pg.extended(TWO_FACED), pg.SYNC)
    assert [bool(one.refusal) for one in requests(commands)] == [False, refused]


def test_after_the_sync_it_waits_and_is_then_judged() -> None:
    talk = signed_in()
    commands = talk.client(pg.extended(SETTER), pg.SYNC, pg.extended(TWO_FACED), pg.SYNC)
    assert statements(commands) == [SETTER]
    talk.allow(commands)
    commands = talk.target(
        pg.PARSED,
        pg.BOUND,
        pg.columns("set_config"),
        pg.row(b"off"),
        pg.done("SELECT 1"),
        pg.status("standard_conforming_strings", "off"),
        pg.ready(),
    )
    # A Parse has one statement: these are judged together, and the target refuses them.
    (asking,) = requests(commands)
    assert asking.statement == "; ".join(OTHER_FACE)


def test_a_session_may_begin_with_other_strings() -> None:
    talk = signed_in(strings="off")
    assert statements(talk.client(pg.query(TWO_FACED))) == OTHER_FACE
    # The target gets what the client wrote, up to what is refused.
    forwarded = sent(talk.decided(1000, ALLOW, DENY), TARGET)
    assert b"select 'a\\', ';" in forwarded
    assert b"drop" not in forwarded


@pytest.mark.parametrize(
    ("text", "refusal"),
    [
        ("select n'a\\''", "a backslash is refused where it may be read otherwise"),
        ("select 'a'\n'b\\'c'", "a backslash is refused where it may be read otherwise"),
        ("select 'it\\'s' 'x'", "syntax error at or near \"'x'\""),
        ("select U&'wrong: \\061'", "unsafe use of string constant with Unicode escapes"),
        ("select U&'wrong: +0061' uescape '+'", "unsafe use of string constant"),
        ("selec U&'wrong: \\061'", 'syntax error at or near "selec"'),
        ("select 1 'it\\'s'", "syntax error at or near \"'it\\'s'\""),
    ],
)
def test_what_is_not_certain_is_refused(text: str, refusal: str) -> None:
    talk = signed_in(strings="off")
    (asking,) = requests(talk.client(pg.query(text)))
    assert asking.kind == "unparseable"
    assert asking.refusal.startswith(refusal)


def test_an_error_is_placed_in_the_text_that_the_client_wrote() -> None:
    talk = signed_in(strings="off")
    text = "select '\\'', '\\'' 'x'"
    assert statements(talk.client(pg.query(text))) == ["select E'\\'', E'\\'' 'x'"]
    poison = sent(talk.decided(1000, DENY), TARGET)
    assert b"\\" not in poison
    commands = talk.target(pg.error("42601", poison[5:-1].decode()), pg.ready())
    said = pg.fields(pg.split(sent(talk.record(commands), CLIENT))[0])
    assert int(said["P"]) == text.index("'x'") + 1


def test_a_query_without_a_sync_before_it_is_the_same_segment() -> None:
    talk = signed_in()
    commands = talk.client(pg.extended(SETTER), pg.query(TWO_FACED))
    assert [bool(one.refusal) for one in requests(commands)] == [False, True]


def test_the_end_of_a_transaction_may_take_a_setting_back() -> None:
    talk = signed_in()
    talk.allow(talk.client(pg.query("begin; set standard_conforming_strings = off")))
    talk.target(
        pg.done("BEGIN"),
        pg.done("SET"),
        pg.status("standard_conforming_strings", "off"),
        pg.ready("T"),
    )
    talk.allow(talk.client(pg.query("set standard_conforming_strings = on")))
    talk.target(pg.done("SET"), pg.status("standard_conforming_strings", "on"), pg.ready("T"))
    commands = talk.client(pg.extended("rollback"), pg.extended(TWO_FACED), pg.SYNC)
    assert [bool(one.refusal) for one in requests(commands)] == [False, True]


def test_nor_does_it_matter_whether_the_change_was_reported_yet() -> None:
    talk = signed_in()
    commands = talk.client(
        pg.query("set standard_conforming_strings = off"),
        pg.query("begin; set standard_conforming_strings = on"),
        pg.extended("rollback"),
        pg.extended(TWO_FACED),
        pg.SYNC,
    )
    talk.allow(commands)
    off, on = (pg.status("standard_conforming_strings", value) for value in ("off", "on"))
    talk.target(pg.done("SET"), off, pg.ready())
    commands = talk.target(pg.done("BEGIN"), pg.done("SET"), on, pg.ready("T"))
    assert [bool(one.refusal) for one in requests(commands)] == [True]


def test_a_transaction_may_begin_after_a_change() -> None:
    talk = signed_in()
    talk.allow(talk.client(pg.query("select f()")))
    talk.record(talk.target(pg.done("SELECT 1"), pg.status("client_encoding", "UTF8"), pg.ready()))
    commands = talk.client(pg.extended("begin"), pg.extended(TWO_FACED), pg.SYNC)
    assert [bool(one.refusal) for one in requests(commands)] == [False, False]


def test_strings_are_judged_as_the_target_reads_them() -> None:
    talk = signed_in()
    talk.allow(talk.client(pg.query("set standard_conforming_strings = off")))
    talk.record(
        talk.target(pg.done("SET"), pg.status("standard_conforming_strings", "off"), pg.ready())
    )
    assert [bool(one.refusal) for one in requests(talk.client(pg.query("select 'a'")))] == [False]
    talk.decided(1002)
    talk.target(pg.done("SELECT 1"), pg.ready())
    asked = talk.client(pg.query("select 'it\\'s'"))
    # In the book with the E: whoever reads it there reads it as it was meant.
    assert statements(asked) == ["select E'it\\'s'"]
    assert talk.allow(asked) == [Send(TARGET, pg.query("select 'it\\'s'"))]


@pytest.mark.parametrize(
    ("encoding", "text", "understood"),
    [
        ("UTF8", "select 'ü'".encode(), True),
        ("UTF8", "select 'ü'".encode("latin-1"), False),
        ("LATIN1", "select 'ü'".encode("latin-1"), True),
        ("WIN1252", "select '€'".encode("cp1252"), True),
        ("KOI8R", "select 'я'".encode("koi8-r"), True),
        ("SQL_ASCII", "select 'ü'".encode(), True),
        # Multi-byte encodings in which a second byte may be a quote or a backslash.
        ("SJIS", "select '表'".encode("shift-jis"), False),
        ("BIG5", "select '功'".encode("big5"), False),
        ("GBK", b"select '\xbf\x5c'", False),
        ("SJIS", b"select 'plain'", True),
        ("EUC_JP", "select '表'".encode("euc-jp"), False),
    ],
)
def test_a_text_is_read_in_the_clients_encoding(
    encoding: str, text: bytes, understood: bool
) -> None:
    talk = signed_in()
    talk.allow(talk.client(pg.query("select 1")))
    talk.target(pg.done("SELECT 1"), pg.status("client_encoding", encoding), pg.ready())
    (asking,) = requests(talk.client(pg.query(text)))
    assert (asking.refusal == "") is understood
    if not understood:
        assert asking.kind == "unparseable"


def test_the_statements_before_a_refused_one_keep_their_encoding() -> None:
    talk = signed_in()
    talk.allow(talk.client(pg.query("select 1")))
    talk.target(pg.done("SELECT 1"), pg.status("client_encoding", "LATIN1"), pg.ready())
    talk.client(pg.query("insert into t values ('ü'); drop table t".encode("latin-1")))
    assert b"'\xfc'" in sent(talk.decided(1002, ALLOW, DENY), TARGET)


def test_a_status_reaches_the_client_unchanged() -> None:
    talk = signed_in()
    talk.allow(talk.client(pg.query("set client_encoding = 'latin1'")))
    answer = pg.done("SET") + pg.status("client_encoding", "LATIN1") + pg.ready()
    assert sent(talk.record(talk.target(answer)), CLIENT) == answer
