"""A mask as a SQL expression, so that the target itself puts it in a value's place.

Every expression keeps its column's type, and NULL stays NULL. A mask that has no meaning for a
type gives NULL. It means the same as `pump.mask` where both can be asked.

Functions are named with their schema, and operators are given exactly what they take: to one that
only nearly fits, the server would prefer an operator of somebody else's that fits.

Of an array each element is masked. In a JSON document what is at a pointer is: what is missing
stays missing and null stays null, text becomes text, and what the mask has no meaning for becomes
null. `json` goes through `jsonb`, where a name has one value: which of two an application reads is
not known here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Final

from gateway.masking.hidden import COMPUTED, EVERY, JSON, TEXT, Column, Mask, Part

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


def expression(column: Column, token_keys: Mapping[str, bytes]) -> str:
    """What stands in the place of the column: of its own type, under no name. `token_keys` are by
    class.
    """
    mask = column.mask
    assert mask is not None  # noqa: S101 (narrowing)
    name = identifier(column.name)
    if mask.classification == COMPUTED or column.virtual:
        # Even that it is NULL may be an answer, and that it fails: it is not evaluated.
        shown = column.type in TEXT and mask.name != "null"
        return f"'***'::{column.declared}" if shown else f"NULL::{column.declared}"
    if mask.parts and column.type in JSON:
        value = f"({name})::pg_catalog.jsonb"
        for part in mask.parts:
            value = _at(value, part, part.pointer, token_keys)
    elif column.type.startswith("_") and column.declared.endswith("[]"):
        return _array(column, mask, token_keys)
    else:
        value = _value(column.type, mask, name, token_keys)
    if value == "NULL":
        return f"NULL::{column.declared}"
    return f"CASE WHEN {name} IS NOT NULL THEN ({value})::{column.declared} END"


def _array(column: Column, mask: Mask, token_keys: Mapping[str, bytes]) -> str:
    name, declared = identifier(column.name), column.declared
    value = _value(column.type[1:], mask, "e.v", token_keys)
    if value == "NULL":
        return f"NULL::{declared}"
    element = f"CASE WHEN e.v IS NOT NULL THEN ({value})::{declared.removesuffix('[]')} END"
    elements = f"pg_catalog.unnest({name}) WITH ORDINALITY AS e (v, n) ORDER BY e.n"
    return (
        f"CASE pg_catalog.cardinality({name}) WHEN 0 THEN {name} ELSE "
        f"CASE pg_catalog.array_ndims({name}) WHEN 1 THEN "
        f"ARRAY(SELECT {element} FROM {elements})::{declared} END END"
    )


def _at(document: str, part: Part, pointer: tuple[str, ...], keys: Mapping[str, bytes]) -> str:
    """`document`, an expression of type jsonb, with what is at `pointer` masked."""
    if not pointer:
        return _leaf(document, part.mask, keys)
    if pointer[0] == EVERY:
        each = _at("e.v", part, pointer[1:], keys)
        listed = f"coalesce(pg_catalog.jsonb_agg({each} ORDER BY e.n), d.v)"
        elements = "pg_catalog.jsonb_array_elements(d.v) WITH ORDINALITY AS e (v, n)"
        named = f"coalesce(pg_catalog.jsonb_object_agg(e.k, {each}), d.v)"
        return _bound(
            document,
            "CASE pg_catalog.jsonb_typeof(d.v) "
            f"WHEN 'array' THEN (SELECT {listed} FROM {elements}) "
            f"WHEN 'object' THEN (SELECT {named} FROM pg_catalog.jsonb_each(d.v) AS e (k, v)) "
            "ELSE d.v END",
        )
    steps = pointer.index(EVERY) if EVERY in pointer else len(pointer)
    path = f"ARRAY[{', '.join(map(constant, pointer[:steps]))}]::pg_catalog.text[]"
    masked = _at(f"d.v #> {path}", part, pointer[steps:], keys)
    # Where there is nothing at the path, jsonb_set may fail, and say what is in its way.
    return _bound(
        document,
        f"CASE WHEN d.v #> {path} IS NULL THEN d.v "
        f"ELSE pg_catalog.jsonb_set(d.v, {path}, {masked}, false) END",
    )


def _leaf(document: str, mask: Mask, keys: Mapping[str, bytes]) -> str:
    leaf = "d.v #>> '{}'::pg_catalog.text[]"
    text, number = (_value(kind, mask, leaf, keys) for kind in ("text", "numeric"))
    cases = [
        f"WHEN '{kind}' THEN pg_catalog.to_jsonb(({value})::pg_catalog.{shown})"
        for kind, value, shown in (("string", text, "text"), ("number", number, "numeric"))
        if value != "NULL"
    ]
    null = "'null'::pg_catalog.jsonb"
    if not cases:
        return null
    return _bound(document, f"CASE pg_catalog.jsonb_typeof(d.v) {' '.join(cases)} ELSE {null} END")


def _bound(document: str, expression: str) -> str:
    """`expression`, in which the document is `d.v`; it is computed once, whatever that says."""
    return f"(SELECT {expression} FROM (SELECT {document} AS v OFFSET 0) AS d)"


def _value(kind: str, mask: Mask, raw: str, token_keys: Mapping[str, bytes]) -> str:
    """Of a value of that type; `raw` is an expression of it. NULL where the mask has no meaning."""
    name, text = mask.name, f"({raw})::pg_catalog.text"
    if name == "token":
        return _token(kind, text, token_keys.get(mask.classification, b""))
    if name == "year" and kind in _DATES:
        # Of a moment it is UTC's: in which zone it is another year is up to whoever asks, who would
        # find the moment by trying them. It is shown as that year's beginning in theirs.
        local = f"pg_catalog.timezone('UTC', {raw})"
        moment = local if kind == "timestamptz" else f"({raw})::pg_catalog.timestamp"
        return f"pg_catalog.date_trunc('year', {moment})"
    if name == "bucket" and kind in _NUMBERS and mask.size > 0:
        number = f"({raw})::pg_catalog.numeric"
        size = f"{mask.size}::pg_catalog.numeric"
        return f"pg_catalog.floor({number} / {size}) * {size}"
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
