from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors import copydata


def shown(
    data: bytes, *, hide: bool = False, first: bool = True, whole: bool = True
) -> tuple[Any, set[str]]:
    found: set[str] = set()
    return (
        json.loads(copydata.encode(data, hide=hide, first=first, whole=whole, found=found)),
        found,
    )


@pytest.mark.parametrize(
    ("data", "rows"),
    [
        (b"1\tBob\t\\N\n2\tAda\tx\n", [["1", "Bob", None], ["2", "Ada", "x"]]),
        (b"a\\tb\\\\c\\x41\\101\tz\n", [["a\tb\\cAA", "z"]]),
        (b'1,"Bob, the ""first""",\n2,Ada,x\n', [["1", 'Bob, the "first"', ""], ["2", "Ada", "x"]]),
        (b'1,"two\nlines"\n', [["1", "two\nlines"]]),
        (b"one\ntwo\n\\.\n", [["one"], ["two"]]),
        (b"", []),
        (b"\n", [[""]]),
        (b"\xff,x\n", [["\\xff", "x"]]),
    ],
)
def test_rows_are_split_as_their_format_says(data: bytes, rows: Any) -> None:
    assert shown(data) == (rows, set())


def test_fields_are_searched_even_escaped() -> None:
    rows, found = shown(b"1\tbob@example.com\tbob\\x40example.com\t123-45-6789\n")
    assert rows == [["1", "b***@example.com", "b***@example.com", "***-**-****"]]
    assert found == {"email", "ssn"}


@pytest.mark.parametrize("data", [b"1\tBob\n2\t\\N\n", b"1,Bob\n2,Ada\n", b"1|Bob\n2|Ada\n"])
def test_of_classified_rows_nothing_stays(data: bytes) -> None:
    rows, found = shown(data, hide=True)
    assert {field for row in rows for field in row} <= {"***", None}
    assert found == {"classified"}


@pytest.mark.parametrize(
    "data", [b"PGCOPY\n\xff\r\n\0" + bytes(8) + b"\0\1\0\0\0\3Bob", b"\0\1\0\0\0\3Bob"]
)
def test_binary_copies_are_not_shown(data: bytes) -> None:
    assert shown(data) == ([["***"]], {"binary"})


def test_values_cut_between_chunks_are_hidden() -> None:
    """Half an ssn at the end of one chunk, half at the start of the next."""
    head, _ = shown(b"1\tBob\n2\t123-45", first=True, whole=False)
    tail, _ = shown(b"-6789\tx\n3\tAda\n", first=False, whole=False)
    assert head == [["1", "Bob"], ["2", "***"]]
    assert tail == [["***", "x"], ["3", "Ada"]]


@given(st.binary(max_size=80), st.booleans(), st.booleans(), st.booleans())
def test_anything_makes_json(data: bytes, hide: bool, first: bool, whole: bool) -> None:
    rows, _ = shown(data, hide=hide, first=first, whole=whole)
    assert isinstance(rows, list)
    if hide:
        assert {field for row in rows for field in row} <= {"***", None}
