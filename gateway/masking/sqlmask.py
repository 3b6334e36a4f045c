"""A mask as a SQL expression, so that the target itself puts it in a value's place.

Every expression keeps its column's type, and NULL stays NULL. A mask that has no meaning for a
type gives NULL. It means the same as `pump.mask` where both can be asked.
"""

from __future__ import annotations

import hashlib
from typing import Final

from gateway.masking.hidden import TEXT, Column, Mask

_BLOCK: Final = 64
_NUMBERS: Final = frozenset({"int2", "int4", "int8", "numeric", "float4", "float8"})
_DATES: Final = frozenset({"date", "timestamp", "timestamptz"})
# Everything but ASCII's punctuation and blanks, whatever the database's collation calls a letter.
_HIDEABLE: Final = "[^ -/:-@[-`{-~]"


def identifier(name: str) -> str:
    """A quoted identifier."""
    return '"' + name.replace('"', '""') + '"'


def constant(text: str) -> str:
    """A string constant that reads the same whatever standard_conforming_strings is."""
    if "\\" not in text:
        return "'" + text.replace("'", "''") + "'"
    return "E'" + text.replace("\\", "\\\\").replace("'", "''") + "'"


def expression(column: Column, token_key: bytes = b"") -> str:
    """What stands in the place of the column: of its own type, under no name."""
    mask = column.mask
    assert mask is not None  # noqa: S101 (narrowing)
    name = identifier(column.name)
    value = _value(column, mask, f"({name})::pg_catalog.text", token_key)
    if value == "NULL":
        return f"NULL::{column.declared}"
    return f"CASE WHEN {name} IS NOT NULL THEN ({value})::{column.declared} END"


def _value(column: Column, mask: Mask, text: str, token_key: bytes) -> str:
    name, kind = mask.name, column.type
    if name == "token":
        return _token(kind, text, token_key)
    if name == "year" and kind in _DATES:
        return f"pg_catalog.date_trunc('year', {identifier(column.name)})"
    if name == "bucket" and kind in _NUMBERS and mask.size > 0:
        number = f"({identifier(column.name)})::pg_catalog.numeric"
        return f"pg_catalog.floor({number} / {mask.size}) * {mask.size}"
    if kind not in TEXT:
        return "NULL"
    match name:
        case "full":
            return "'***'"
        case "literal":
            return constant(mask.literal)
        case "partial":
            return _partial(text)
        case "email":
            return _email(text)
        case _:
            return "NULL"


def _partial(text: str) -> str:
    counted = f"pg_catalog.length(pg_catalog.regexp_replace({text}, '[ -/:-@[-`{{-~]', '', 'g'))"
    behind = f"(?=(?:[ -/:-@[-`{{-~]*{_HIDEABLE}){{4}})"
    shown = f"pg_catalog.regexp_replace({text}, '{_HIDEABLE}{behind}', '*', 'g')"
    return f"CASE WHEN {counted} < 8 THEN '***' ELSE {shown} END"


def _email(text: str) -> str:
    address = f"pg_catalog.btrim({text})"
    at = f"pg_catalog.strpos(pg_catalog.reverse({address}), '@')"
    domain = f"pg_catalog.right({address}, {at} - 1)"
    first = (
        f"CASE WHEN pg_catalog.length({address}) - {at} > 1 "
        f"THEN pg_catalog.left({address}, 1) ELSE '' END"
    )
    return (
        f"CASE WHEN {at} > 1 AND pg_catalog.strpos({domain}, '.') > 0 "
        f"THEN {first} || '***@' || {domain} ELSE '***' END"
    )


def _token(kind: str, text: str, key: bytes) -> str:
    digest = _hmac(text, key)
    match kind:
        case _ if kind in TEXT:
            return f"pg_catalog.left({digest}, 16)"
        case "uuid":
            return f"pg_catalog.left({digest}, 32)::pg_catalog.uuid"
        case "int8":
            return f"('x' || pg_catalog.left({digest}, 15))::pg_catalog.bit(60)::pg_catalog.int8"
        case "int4":
            return f"('x' || pg_catalog.left({digest}, 7))::pg_catalog.bit(28)::pg_catalog.int4"
        case _:
            return "NULL"


def _hmac(text: str, key: bytes) -> str:
    """HMAC-SHA-256 (RFC 2104) in hexadecimal, of functions that every PostgreSQL has."""
    padded = (hashlib.sha256(key).digest() if len(key) > _BLOCK else key).ljust(_BLOCK, b"\0")
    inner = bytes(byte ^ 0x36 for byte in padded).hex()
    outer = bytes(byte ^ 0x5C for byte in padded).hex()
    message = f"pg_catalog.convert_to({text}, 'UTF8')"
    first = f"pg_catalog.sha256(pg_catalog.decode('{inner}', 'hex') || {message})"
    return (
        "pg_catalog.encode(pg_catalog.sha256("
        f"pg_catalog.decode('{outer}', 'hex') || {first}), 'hex')"
    )
