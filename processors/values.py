"""Single values as masked JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, Final

import orjson

from processors import pgtypes
from processors.pgtypes import Family
from schemas.masking import detect, masks
from schemas.masking.columns import Classification, ColumnMask

Found = set[str]
"""Kinds of what was masked, added to."""
Cell = Callable[[bytes, Found], bytes]
"""A value's wire bytes to JSON."""

HIDDEN: Final = orjson.dumps(masks.HIDDEN)

_JSON_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_NOT_FINITE: Final = frozenset({"NaN", "Infinity", "-Infinity"})
_INTEGER: Final = re.compile(rb"-?(?:0|[1-9][0-9]{0,18})")
_EXACT: Final = 1 << 53
"""Above it, many readers of JSON round integers."""
_CARD_DIGITS: Final = 13
_COMPUTED_DIGITS: Final = 7
_ESCAPE: Final = re.compile(r"\\[uU/\"xX]")


def dumps(text: str) -> bytes:
    """A JSON string. Half of a surrogate pair, which UTF-8 cannot hold, is shown escaped."""
    try:
        return orjson.dumps(text)
    except orjson.JSONEncodeError:
        return orjson.dumps(text.encode(errors="backslashreplace").decode())


def scrubbed(text: str, found: Found) -> str:
    """One value of no declared class: masked where it looks classified, escaped or not."""
    if detect.suspicious(text):
        text, kinds = detect.scrub(text, whole=True)
        found.update(kinds)
    if "\\" in text and _ESCAPE.search(text):
        hidden = {finding.kind for finding in detect.find(_unescaped(text), whole=True)}
        # What is left is either masked already or showed only now.
        if len(detect.find(text, whole=True)) < len(detect.find(_unescaped(text), whole=True)):
            found.update(hidden)
            return masks.HIDDEN
    return text


def _unescaped(text: str) -> str:
    r"""`\x6a6f...` of a bytea, or the `\u0040` of a JSON document."""
    if text.startswith("\\x"):
        try:
            return bytes.fromhex(text[2:]).decode("latin-1")
        except ValueError:
            return text
    try:
        return json.dumps(json.loads(text), ensure_ascii=False)
    except (ValueError, RecursionError):
        return re.sub(r"\\u([0-9a-fA-F]{4})", lambda match: chr(int(match[1], 16)), text)


def document(text: str, classification: Classification, found: Found) -> str:
    """A value that may be a JSON document: members named like a classified column are masked."""
    if text[:1] not in ("{", "[") or not classification.words(text):
        return text
    try:
        content = json.loads(text, object_pairs_hook=_members)
    except _Ambiguous:
        found.add("ambiguous")
        return masks.HIDDEN
    except (ValueError, RecursionError):
        return text
    masked = _masked_members(content, classification, found)
    return text if masked == content else json.dumps(masked, ensure_ascii=False)


class _Ambiguous(Exception):
    """An object with two members of one name: whoever reads it may see the other one."""


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise _Ambiguous
    return members


def _masked_members(node: Any, classification: Classification, found: Found) -> Any:
    if isinstance(node, list):
        return [_masked_members(item, classification, found) for item in node]
    if not isinstance(node, dict):
        return node
    result = {}
    for name, value in node.items():
        column = classification.by_name.get(name.lower())
        if column is None or value is None:
            result[name] = _masked_members(value, classification, found)
        else:
            found.add(column.classification)
            text = value if isinstance(value, str) else ""
            result[name] = masks.BY_NAME[column.mask](text)
    return result


def document_cell(type_oid: int, binary: bool, classification: Classification) -> Cell:
    """For a column of no declared class that may hold JSON documents."""
    clear = cell(type_oid, binary)

    def write(raw: bytes, found: Found) -> bytes:
        # Behind jsonb's version byte, or at once.
        if raw[:1] not in (b"{", b"[", b"\1"):
            return clear(raw, found)
        shown, known = pgtypes.text(type_oid, binary, raw)
        if not known:
            return clear(raw, found)
        return dumps(scrubbed(document(shown, classification, found), found))

    return write


def cell(type_oid: int, binary: bool) -> Cell:
    """For a column of no declared class."""
    match pgtypes.family(type_oid):
        case Family.INTEGER:
            return _integer_binary(type_oid) if binary else _integer
        case Family.FLOAT:
            return _float(type_oid, binary)
        case Family.BOOLEAN:
            return _boolean
        case Family.INERT:
            return _inert(type_oid, binary)
        case Family.NUMERIC | Family.TEXT:
            return _text(type_oid, binary)


def _integer(raw: bytes, found: Found) -> bytes:
    if not _INTEGER.fullmatch(raw):
        return dumps(scrubbed(raw.decode(errors="backslashreplace"), found))
    if len(raw) < _CARD_DIGITS:
        return raw
    shown = raw.decode()
    masked = scrubbed(shown, found)
    return raw if masked is shown and -_EXACT <= int(raw) <= _EXACT else dumps(masked)


def _integer_binary(type_oid: int) -> Cell:
    def write(raw: bytes, found: Found) -> bytes:
        shown, _ = pgtypes.text(type_oid, True, raw)
        return _integer(shown.encode(), found)

    return write


def _float(type_oid: int, binary: bool) -> Cell:
    def write(raw: bytes, found: Found) -> bytes:
        shown, _ = pgtypes.text(type_oid, binary, raw)
        return shown.encode() if _JSON_NUMBER.fullmatch(shown) else dumps(shown)

    return write


def _boolean(raw: bytes, found: Found) -> bytes:
    return b"true" if raw in (b"t", b"\1") else b"false"


def _inert(type_oid: int, binary: bool) -> Cell:
    def write(raw: bytes, found: Found) -> bytes:
        shown, known = pgtypes.text(type_oid, binary, raw)
        return dumps(shown if known else _hexadecimal(raw, shown, found))

    return write


def _text(type_oid: int, binary: bool) -> Cell:
    if not binary:
        return lambda raw, found: dumps(scrubbed(raw.decode(errors="backslashreplace"), found))

    def write(raw: bytes, found: Found) -> bytes:
        shown, known = pgtypes.text(type_oid, True, raw)
        return dumps(scrubbed(shown, found) if known else _hexadecimal(raw, shown, found))

    return write


def _hexadecimal(raw: bytes, shown: str, found: Found) -> str:
    """Hexadecimal hides nothing: what it spells is searched, as text and as one integer."""
    kinds = {finding.kind for finding in detect.find(raw.decode("latin-1"))}
    if len(raw) == 8:
        kinds |= {finding.kind for finding in detect.find(str(int.from_bytes(raw, "big")))}
    if kinds:
        found.update(kinds)
        return masks.HIDDEN
    return shown


def classified_cell(type_oid: int, binary: bool, column: ColumnMask) -> Cell:
    """For a declared column: its mask over the value as text."""
    apply = masks.BY_NAME[column.mask]
    if column.mask == "full":
        return hidden_cell

    def write(raw: bytes, found: Found) -> bytes:
        shown, known = pgtypes.text(type_oid, binary, raw)
        return dumps(apply(shown)) if known else HIDDEN

    return write


def hidden_cell(raw: bytes, found: Found) -> bytes:
    """Nothing of the value."""
    return HIDDEN


def computed_cell(type_oid: int, binary: bool) -> Cell:
    """For a value computed from classified relations: only booleans and short numbers stay.

    `substr(ssn, 1, 3)` and `max(birthday)` say too much; `count(*)` does not.
    """
    kind = pgtypes.family(type_oid)
    if kind is Family.BOOLEAN:
        return _boolean
    if kind not in (Family.INTEGER, Family.FLOAT, Family.NUMERIC):
        return hidden_cell
    clear = cell(type_oid, binary)

    def write(raw: bytes, found: Found) -> bytes:
        shown, known = pgtypes.text(type_oid, binary, raw)
        number = known and (_JSON_NUMBER.fullmatch(shown) or shown in _NOT_FINITE)
        if not number or sum(map(str.isdigit, shown)) >= _COMPUTED_DIGITS:
            return HIDDEN
        return clear(raw, found)

    return write


def parameter(
    type_oid: int, binary: bool, raw: bytes, hides: Callable[[int], bool], found: Found
) -> bytes:
    """A bind value. `hides` says whether one of that many characters is masked by rule."""
    if not (binary and type_oid == 0):
        shown, known = pgtypes.text(type_oid, binary, raw)
        if hides(len(shown)):
            return HIDDEN
        if known:
            return cell(type_oid, binary)(raw, found)
    elif hides(len(raw) if raw.isascii() else 2 * len(raw)):
        return HIDDEN
    return undeclared(raw, found)


def undeclared(raw: bytes, found: Found) -> bytes:
    """A value whose type and format nothing says: text where it is printable."""
    try:
        printable = raw.decode()
    except UnicodeDecodeError:
        printable = "\0"
    if printable.isprintable():
        return dumps(scrubbed(printable, found))
    return dumps(_hexadecimal(raw, f"\\x{raw.hex()}", found))
