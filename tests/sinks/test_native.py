"""The Native format of newer revisions, against the engine's own column bytes."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import Any

import chdb
import pytest

from sinks.native import UnsupportedType, framed

TYPES = [
    "toUInt8(number)",
    "toInt256(number)",
    "toFloat32(number) / 3",
    "toString(number * 1000)",
    "repeat('x', number % 300)",
    "toFixedString('abc', 5)",
    "toDateTime64(number, 6, 'UTC')",
    "toDate(number)",
    "toDecimal32(number, 2)",
    "toDecimal64(number, 2)",
    "toDecimal128(number, 2)",
    "toDecimal256(number, 2)",
    "number % 2 = 0",
    "if(number % 3 = 0, NULL, toString(number))",
    "NULL",
    "range(number % 5)",
    "[[toString(number)], [], ['a', 'b']]",
    "toLowCardinality(toString(number % 7))",
    "[toLowCardinality(toString(number % 7))]",
    "CAST([], 'Array(LowCardinality(String))')",
    "CAST(if(number % 2 = 0, NULL, 'x'), 'LowCardinality(Nullable(String))')",
    "map('k', toLowCardinality(toString(number)), 'l', toLowCardinality('x'))",
    "map()",
    "(number, toLowCardinality('x'), [toLowCardinality('y')])",
    "CAST((number, 'x'), 'Tuple(a UInt64, `b c, (d` String)')",
    "tuple()",
    r"CAST('b\'(,)', 'Enum8(\'a\' = 1, \'b\\\'(,)\' = 2)')",
    "generateUUIDv4()",
    "toIPv4('1.2.3.4')",
    "toIPv6('::1')",
    "toIntervalDay(number)",
    "CAST((number, 1), 'Point')",
    "CAST([[(1, 2), (3, 4)]], 'Polygon')",
    "CAST(number, 'SimpleAggregateFunction(sum, UInt64)')",
]


@pytest.fixture(scope="module")
def engine() -> Iterator[Any]:
    connection = chdb.connect(":memory:")
    yield connection
    connection.close()


def native(engine: Any, columns: str, rows: int) -> bytes:
    data: bytes = engine.query(f"SELECT {columns} FROM numbers({rows})", "Native").bytes()
    return data


def string(text: str) -> bytes:
    encoded = text.encode()
    assert len(encoded) < 0x80
    return bytes([len(encoded)]) + encoded


def varint(number: int) -> bytes:
    return bytes([number]) if number < 0x80 else bytes([number & 0x7F | 0x80, number >> 7])


BLOCK_INFO = b"\x01\x00" + b"\x02" + struct.pack("<i", -1) + b"\x00"


@pytest.mark.parametrize("expression", TYPES)
@pytest.mark.parametrize("rows", [1, 300])
def test_a_columns_data_ends_where_the_engine_ends_it(
    engine: Any, expression: str, rows: int
) -> None:
    stable = expression.replace("generateUUIDv4()", "reinterpretAsUUID(sipHash128(number))")
    kind = engine.query(
        f"SELECT toTypeName(a) FROM (SELECT {stable} AS a FROM numbers(1))", "RawBLOB"
    )
    # toTypeName writes the elements of a tuple on lines of their own.
    kind = re.sub(r"\n *", " ", kind.bytes().decode()).replace("( ", "(")
    alone = native(engine, f"{stable} AS a", rows)
    head = b"\x01" + varint(rows) + string("a") + string(kind)
    assert alone.startswith(head)
    data = alone.removeprefix(head)
    both = native(engine, f"{stable} AS a, {stable} AS b", rows)
    expected = (
        BLOCK_INFO + b"\x02" + varint(rows)
        + string("a") + string(kind) + b"\0" + data
        + string("b") + string(kind) + b"\0" + data
    )  # fmt: skip
    assert framed(both, 54454) == expected
    assert framed(both, 54453) == BLOCK_INFO + both


def test_blocks_that_follow_each_other_are_framed_each(engine: Any) -> None:
    block = native(engine, "toString(number) AS a", 3)
    assert framed(block * 3, 54500) == framed(block, 54500) * 3
    assert framed(b"", 54500) == b""


def test_a_block_without_rows_is_framed(engine: Any) -> None:
    head = b"\x01\x00" + string("a") + string("Array(LowCardinality(String))")
    assert framed(head, 54500) == BLOCK_INFO + head + b"\0"


@pytest.mark.parametrize(
    "expression", ["CAST(1, 'Dynamic')", "CAST('{}', 'JSON')", "CAST(1, 'Variant(UInt8, String)')"]
)
def test_types_that_cannot_be_walked_are_said(engine: Any, expression: str) -> None:
    with pytest.raises(UnsupportedType):
        framed(native(engine, expression, 1), 54500)
