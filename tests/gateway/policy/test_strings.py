"""Texts read while standard_conforming_strings is off."""

from __future__ import annotations

import pytest

from gateway.policy.strings import Escaped, escaped


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"select 'it\'s', 'plain', '\\'", r"select E'it\'s', 'plain', E'\\'"),
        (r"select ('a\''),'b\n'||'c'", r"select (E'a\''),E'b\n'||'c'"),
        (
            r"""select "a'\" from t where x = 'it\'s'""",
            r"""select "a'\" from t where x = E'it\'s'""",
        ),
        (r"select $$ '\ $$, $a$ '\ $$ ' $a$, '\''", r"select $$ '\ $$, $a$ '\ $$ ' $a$, E'\''"),
        (r"select E'it\'s', e'\'', B'0', X'1f'", r"select E'it\'s', e'\'', B'0', X'1f'"),
        ("select 1 -- it's '\\\n, '\\''", "select 1 -- it's '\\\n, E'\\''"),
        (r"select /* ' /* \ */ ' */ '\''", r"select /* ' /* \ */ ' */ E'\''"),
        (r"select 'a''\''''", r"select E'a''\''''"),
        (r"select 'ü\'', 'é', 'я\\'", r"select E'ü\'', 'é', E'я\\'"),
        # The target refuses U&'', but reads to where it is as we do.
        (r"select '\'', U&'d\0061t'", r"select E'\'', U&'d\0061t'"),
        (r"select '\', '; drop table t; --'", r"select E'\', '; drop table t; --'"),
    ],
)
def test_constants_with_a_backslash_get_an_e(text: str, expected: str) -> None:
    read = escaped(text)
    assert read is not None
    assert read.text == expected
    assert read.agrees()


@pytest.mark.parametrize(
    "text",
    [
        r"select '\'",
        r"select $$ '\'",
        r"select /* '\'' ",
        r"""select "a'\'""",
        # The E would join the word, the number or the prefix before it.
        r"select'a\''",
        r"select n'a\''",
        r"select 1'a\''",
        r"select $1'a\''",
        r"select 1 &'a\''",
    ],
)
def test_what_cannot_be_told_is_not(text: str) -> None:
    read = escaped(text)
    assert read is None or not read.agrees()


@pytest.mark.parametrize(
    "text",
    [
        "select 'a'\n'b\\'c'",
        "select 'a\\''\n'b\\'c'",
        "select 'a' -- and on\n '\\''",
        "select U&'a'\n'\\''",
    ],
)
def test_a_constant_over_several_lines_is_not_cut(text: str) -> None:
    read = escaped(text)
    assert read is not None
    assert not read.agrees()


@pytest.mark.parametrize(
    "wrong",
    [
        # A constant forgotten, an E in a string, in a comment, in a word, in a name.
        Escaped(r"select 'it\'", ()),
        Escaped(r"select 'aE\'", (9,)),
        Escaped(r"select 1 --E'\'", (11,)),
        Escaped(r"select aE'\''", (8,)),
        Escaped("select \"E'\\'\"", (8,)),
        Escaped(r"select $$E'\'$$", (9,)),
        # One that is not there.
        Escaped(r"select E'\''", (3, 7)),
        Escaped(r"select E'\'", (7,)),
    ],
)
def test_the_lexer_has_the_last_word(wrong: Escaped) -> None:
    assert not wrong.agrees()


def test_the_first_constant_with_unicode_escapes_is_told() -> None:
    read = escaped(r"select '\'' /* U&' */, 'U&', U&'d\0061t', u&'x'")
    assert read is not None
    assert read.unicode == 29
    plain = escaped(r"select '\''")
    assert plain is not None
    assert plain.unicode == -1


def test_places_are_those_of_the_text_as_it_was() -> None:
    text = r"select '\''; select 'b\\'; select 3"
    read = escaped(text)
    assert read is not None
    assert read.inserted == (7, 21)
    assert read.original(read.text.index("E")) == text.index("'")
    assert read.original(read.text.index("select 3")) == text.index("select 3")
    assert read.original(len(read.text)) == len(text)


@pytest.mark.parametrize("piece", ["'", "$a$", "/*", '"', "\\'", "$a$ $b$", "e'", "''"])
def test_no_text_takes_long(piece: str) -> None:
    escaped(piece * (2_000_000 // len(piece)))
