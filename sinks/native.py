"""ClickHouse's Native format as newer protocol revisions write it. Pure.

The embedded engine writes revision 0. A client that names its own revision (clickhouse-go, and
with it Grafana's data source) expects what a server then adds: a block info before each block
and, since revision 54454, a byte after each column's type. To know where a column ends, its data
must be walked; that is all this module does.
"""

from __future__ import annotations

import re
import struct
from functools import lru_cache
from typing import Final

_CUSTOM_SERIALIZATION: Final = 54454
_BLOCK_INFO: Final = b"\x01\x00\x02" + struct.pack("<i", -1) + b"\x00"

_SIZES: Final = {
    "UInt8": 1, "UInt16": 2, "UInt32": 4, "UInt64": 8, "UInt128": 16, "UInt256": 32,
    "Int8": 1, "Int16": 2, "Int32": 4, "Int64": 8, "Int128": 16, "Int256": 32,
    "Float32": 4, "Float64": 8, "BFloat16": 2, "Bool": 1, "Nothing": 1,
    "Date": 2, "Date32": 4, "DateTime": 4, "DateTime64": 8, "Time": 4, "Time64": 8,
    "UUID": 16, "IPv4": 4, "IPv6": 16, "Enum8": 1, "Enum16": 2,
    "IntervalNanosecond": 8, "IntervalMicrosecond": 8, "IntervalMillisecond": 8,
    "IntervalSecond": 8, "IntervalMinute": 8, "IntervalHour": 8, "IntervalDay": 8,
    "IntervalWeek": 8, "IntervalMonth": 8, "IntervalQuarter": 8, "IntervalYear": 8,
}  # fmt: skip
_ALIASES: Final = {
    "Point": "Tuple(Float64, Float64)",
    "Ring": "Array(Point)",
    "LineString": "Array(Point)",
    "MultiPoint": "Array(Point)",
    "Polygon": "Array(Ring)",
    "MultiLineString": "Array(LineString)",
    "MultiPolygon": "Array(Polygon)",
}
_NEEDS_KEYS: Final = 1 << 9
_ELEMENT_NAME: Final = re.compile(r"(?:`(?:[^`\\]|\\.)*`|[A-Za-z_][A-Za-z0-9_]*) +(?=[A-Za-z])")


class UnsupportedType(Exception):
    """A column type whose data this module cannot walk."""


def framed(blocks: bytes, revision: int) -> bytes:
    """`blocks` (whole blocks of revision 0) as `revision` writes them.

    Raises UnsupportedType.
    """
    out: list[bytes] = []
    at = 0
    while at < len(blocks):
        out.append(_BLOCK_INFO)
        start = at
        columns, at = _varint(blocks, at)
        rows, at = _varint(blocks, at)
        for _ in range(columns):
            size, at = _varint(blocks, at)
            size, at = _varint(blocks, at + size)
            kind = blocks[at : at + size].decode()
            at += size
            if revision >= _CUSTOM_SERIALIZATION:
                out += (blocks[start:at], b"\x00")
                start = at
            if rows:
                at = _skip(kind, rows, blocks, at + _prefix(kind))
        out.append(blocks[start:at])
    return b"".join(out)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
        shift += 7


def _uint64(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 8], "little")


@lru_cache(1024)
def _parsed(kind: str) -> tuple[str, tuple[str, ...]]:
    """(name, arguments) of a type; the arguments of tuples without their names."""
    kind = _ALIASES.get(kind, kind)
    name, bracket, rest = kind.partition("(")
    if not bracket:
        return kind, ()
    arguments, depth, start, at = [], 0, 0, 0
    rest = rest.removesuffix(")")
    while at < len(rest):
        character = rest[at]
        if character in "'`":
            at += 1
            while rest[at] != character:
                at += 2 if rest[at] == "\\" else 1
        elif character == "(":
            depth += 1
        elif character == ")":
            depth -= 1
        elif character == "," and not depth:
            arguments.append(rest[start:at].strip())
            start = at + 1
        at += 1
    arguments.append(rest[start:].strip())
    if name in ("Tuple", "Nested"):
        arguments = [_ELEMENT_NAME.sub("", argument, count=1) for argument in arguments if argument]
    return name, tuple(arguments)


@lru_cache(1024)
def _prefix(kind: str) -> int:
    """Bytes that come once before a column's data: a version for each dictionary in it."""
    name, arguments = _parsed(kind)
    match name:
        case "LowCardinality":
            return 8
        case "Array" | "Tuple" | "Nested" | "Map" | "Nullable":
            return sum(_prefix(argument) for argument in arguments)
        case "SimpleAggregateFunction":
            return _prefix(arguments[-1])
    return 0


def _skip(kind: str, rows: int, data: bytes, at: int) -> int:
    """Where the data of `rows` values of a type ends."""
    name, arguments = _parsed(kind)
    size = _SIZES.get(name)
    if size is not None:
        return at + rows * size
    match name:
        case "String":
            for _ in range(rows):
                length = data[at]
                at += 1
                if length >= 0x80:
                    length, at = _varint(data, at - 1)
                at += length
            return at
        case "FixedString":
            return at + rows * int(arguments[0])
        case "Decimal":
            precision = int(arguments[0])
            width = 4 if precision < 10 else 8 if precision < 19 else 16 if precision < 39 else 32
            return at + rows * width
        case "Nullable":
            return _skip(arguments[0], rows, data, at + rows)
        case "SimpleAggregateFunction":
            return _skip(arguments[-1], rows, data, at)
        case "Tuple":
            if not arguments:
                return at + rows
            for argument in arguments:
                at = _skip(argument, rows, data, at)
            return at
        case "Array" | "Map" | "Nested":
            end = at + 8 * rows
            items = _uint64(data, end - 8) if rows else 0
            for argument in arguments:
                end = _skip(argument, items, data, end)
            return end
        case "LowCardinality":
            return _skip_dictionary(arguments[0], rows, data, at)
    raise UnsupportedType(f"{name} cannot be sent to this client in the Native format")


def _skip_dictionary(kind: str, rows: int, data: bytes, at: int) -> int:
    if not rows:
        return at
    flags = _uint64(data, at)
    at += 8
    if flags & _NEEDS_KEYS:
        keys = _uint64(data, at)
        name, arguments = _parsed(kind)
        at = _skip(arguments[0] if name == "Nullable" else kind, keys, data, at + 8)
    indices = _uint64(data, at)
    return at + 8 + indices * (1 << (flags & 0xFF))
