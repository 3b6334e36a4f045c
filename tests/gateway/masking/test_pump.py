from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.masking.hidden import Column, Mask
from gateway.masking.pump import Pump, PumpError, described
from tests.gateway.masking.shop import HIDDEN


def row(*values: bytes | None) -> bytes:
    body = struct.pack(">H", len(values))
    for value in values:
        body += struct.pack(">i", -1) if value is None else struct.pack(">i", len(value)) + value
    return b"D" + struct.pack(">I", len(body) + 4) + body


def column(name: str, mask: Mask, kind: str = "text", length: int = 0) -> Column:
    return Column(name, 1, kind, kind, length, mask)


FULL = column("a", Mask("pii", "full"))


def test_values_are_masked_in_their_place_and_others_untouched() -> None:
    pump = Pump({1: FULL, 3: column("b", Mask("pii", "partial"))}, "utf-8")
    data = row(b"1", b"secret", None, b"4111 1111 1111 1234", b"x") + row(
        b"2", None, b"y", None, b""
    )
    assert pump.rows(data) == (
        row(b"1", b"***", None, b"**** **** **** 1234", b"x") + row(b"2", None, b"y", None, b"")
    )


@pytest.mark.parametrize(
    ("mask", "kind", "length", "shown"),
    [
        (Mask("pii", "email"), "text", 0, b"j***@x.org"),
        (Mask("pii", "null"), "text", 0, None),
        (Mask("pii", "literal", "gone"), "text", 0, b"gone"),
        (Mask("pii", "literal", "gone"), "varchar", 2, b"go"),
        (Mask("pii", "full"), "bpchar", 6, b"***   "),
        (Mask("pii", "year"), "date", 0, None),
    ],
)
def test_masks(mask: Mask, kind: str, length: int, shown: bytes | None) -> None:
    pump = Pump({0: column("a", mask, kind, length)}, "utf-8")
    assert pump.rows(row(b"jane@x.org")) == row(shown)


def test_tokens_are_equal_for_equal_values_only() -> None:
    pump = Pump({0: column("a", Mask("pci", "token"))}, "utf-8", {"pci": b"k" * 32})
    one, same, other = (pump.rows(row(value)) for value in (b"x", b"x", b"y"))
    assert one == same != other


def test_bytes_that_are_no_text_are_hidden() -> None:
    assert Pump({0: FULL}, "utf-8").rows(row(b"\xff\xfe")) == row(b"***")


@pytest.mark.parametrize("places", [{2: FULL}, {0: FULL, 5: FULL}])
def test_a_row_with_fewer_columns_is_no_row(places: dict[int, Column]) -> None:
    with pytest.raises(PumpError):
        Pump(places, "utf-8").rows(row(b"a", b"b"))


def test_a_length_that_lies_is_no_row() -> None:
    broken = bytearray(row(b"abc"))
    broken[7:11] = struct.pack(">i", 900)
    with pytest.raises(PumpError):
        Pump({0: FULL}, "utf-8").rows(bytes(broken))


@given(st.lists(st.lists(st.none() | st.binary(max_size=20), min_size=4, max_size=4), max_size=5))
def test_what_is_not_masked_is_not_changed(rows: list[list[bytes | None]]) -> None:
    data = b"".join(row(*each) for each in rows)
    shown = Pump({1: FULL}, "utf-8").rows(data)
    assert shown == b"".join(row(a, None if b is None else b"***", c, d) for a, b, c, d in rows)


def test_the_origin_tells_what_is_hidden_whatever_its_name() -> None:
    fields = [("x", 16400, 4, 1042, 0), ("ssn", 0, 0, 25, 0), ("y", 16400, 2, 25, 0)]
    assert list(described(fields, HIDDEN.by_origin())) == [0]
