"""Avro binary writers, one small function a type.

fastavro walks a dictionary and its schema for every record; with the schema's fields resolved to
functions once, writing costs a third. fastavro remains the reader, and the oracle in the tests.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import Any, Final

Writer = Callable[[Any], bytes]


def _encode_long(number: int) -> bytes:
    if not -(1 << 63) <= number < 1 << 63:
        raise ValueError("an Avro long has 64 bits")
    number = number << 1 ^ number >> 63
    out = b""
    while number > 0x3FFF:
        out += _CONTINUED[number & 0x3FFF]
        number >>= 14
    if number > 0x7F:
        return out + bytes((number & 0x7F | 0x80, number >> 7))
    return out + bytes((number,))


# Clocks take nine groups of seven bits; two at a time.
_CONTINUED: Final = [bytes((low & 0x7F | 0x80, low >> 7 | 0x80)) for low in range(1 << 14)]
_SMALL: Final = [_encode_long(number) for number in range(16_384)]


def write_long(number: int) -> bytes:
    """Zig-zag variable-length integer (Avro 1.12, "Binary Encoding")."""
    return _SMALL[number] if 0 <= number < 16_384 else _encode_long(number)


def write_string(text: str) -> bytes:
    """Length, then UTF-8."""
    # Most texts of an audit copy are empty.
    if not text:
        return b"\0"
    data = text.encode()
    return write_long(len(data)) + data


def write_bytes(data: bytes) -> bytes:
    """Length, then the bytes."""
    return write_long(len(data)) + data


def _write_boolean(value: bool) -> bytes:
    return b"\1" if value else b"\0"


def _fixed(size: int) -> Writer:
    def write(data: bytes) -> bytes:
        if len(data) != size:
            raise ValueError(f"fixed of {size} bytes, not {len(data)}")
        return data

    return write


def _array(item: Writer) -> Writer:
    def write(values: list[Any]) -> bytes:
        if not values:
            return b"\0"
        return b"".join([write_long(len(values)), *[item(value) for value in values], b"\0"])

    return write


_PRIMITIVES: Final[dict[str, Writer]] = {
    "int": write_long,
    "long": write_long,
    "string": write_string,
    "bytes": write_bytes,
    "boolean": _write_boolean,
}


def _map(item: Writer) -> Writer:
    def write(values: dict[str, Any]) -> bytes:
        if not values:
            return b"\0"
        pairs = [write_string(key) + item(value) for key, value in values.items()]
        return b"".join([write_long(len(pairs)), *pairs, b"\0"])

    return write


def _nullable(item: Writer) -> Writer:
    """The union of null, first, and another."""

    def write(value: Any) -> bytes:
        return b"\0" if value is None else b"\2" + item(value)

    return write


def _record(node: Any, fixed: dict[str, int]) -> Writer:
    values = attrgetter(*[field["name"] for field in node["fields"]])
    parts = [_writer(field["type"], fixed) for field in node["fields"]]
    if len(parts) == 1:
        only = parts[0]
        return lambda record: only(values(record))

    def write(record: Any) -> bytes:
        return b"".join([part(value) for part, value in zip(parts, values(record), strict=True)])

    return write


def _writer(node: Any, fixed: dict[str, int]) -> Writer:
    if isinstance(node, str):
        return _PRIMITIVES[node] if node in _PRIMITIVES else _fixed(fixed[node])
    if isinstance(node, list):
        null, other = node
        if null != "null":
            raise KeyError("a union is null, then another")
        return _nullable(_writer(other, fixed))
    match node["type"]:
        case "array":
            return _array(_writer(node["items"], fixed))
        case "map":
            return _map(_writer(node["values"], fixed))
        case "record":
            return _record(node, fixed)
        case "fixed":
            fixed[node["name"]] = node["size"]
            return _fixed(node["size"])
        case primitive:
            return _PRIMITIVES[primitive]


def writers(record: Any) -> list[Writer]:
    """A writer for each field of a parsed record schema, in order.

    Raises KeyError for types no event uses (enums, other unions).
    """
    fixed: dict[str, int] = {}
    return [_writer(field["type"], fixed) for field in record["fields"]]


def writer(record: Any) -> Writer:
    """A writer for a whole parsed record schema."""
    return _record(record, {})
