"""DataRow messages as a JSON array of objects."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from processors import diagnostics, pgtypes
from processors.pgtypes import Family
from processors.values import (
    HIDDEN,
    Cell,
    Found,
    cell,
    classified_cell,
    computed_cell,
    document_cell,
    dumps,
    scrubbed,
    undeclared,
)
from schemas.codec import CodecError
from schemas.events import Column
from schemas.masking import detect, masks
from schemas.masking.columns import Classification

_DATA_ROW: Final = ord("D")
_NOTIFICATION: Final = ord("A")
_REPORTS: Final = frozenset(b"EN")
_LENGTH: Final = struct.Struct(">i")
_HEAD: Final = struct.Struct(">BiH")


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do with each value of a column list; `masks` as class:where."""

    cells: tuple[tuple[bytes, Cell], ...]
    masks: tuple[str, ...]


def plan(columns: Sequence[Column], classified: bool, classification: Classification) -> Plan:
    """`classified`: the statement reads relations with classified columns."""
    cells: list[tuple[bytes, Cell]] = []
    applied: set[str] = set()
    names: set[str] = set()
    for column in columns:
        name, kinds = detect.scrub(column.name, whole=True)
        applied |= {f"{kind}:column_name" for kind in kinds}
        cells.append(
            (_key(name, names, first=not cells), _cell(column, classified, classification, applied))
        )
    return Plan(tuple(cells), tuple(sorted(applied)))


def _key(name: str, names: set[str], *, first: bool) -> bytes:
    """`,"name":`; JSON objects have no two members of one name, results may."""
    unique, number = name, 1
    while unique in names:
        number += 1
        unique = f"{name}_{number}"
    names.add(unique)
    return (b"{" if first else b",") + dumps(unique) + b":"


def _cell(
    column: Column, classified: bool, classification: Classification, applied: set[str]
) -> Cell:
    binary = column.format == 1
    declared = classification.by_source.get(column.source)
    # Where the catalog cannot tell the origin, the name decides.
    if declared is None and column.source in ("", "?"):
        declared = classification.by_name.get(column.name.lower())
    if declared is not None:
        applied.add(f"{declared.classification}:{column.source.strip('?') or column.name}")
        return classified_cell(column.type_oid, binary, declared)
    if column.source == "?" or (classified and not column.source):
        applied.add(f"computed:{detect.scrub(column.name, whole=True)[0]}")
        return computed_cell(column.type_oid, binary)
    if classification and pgtypes.family(column.type_oid) is Family.TEXT:
        return document_cell(column.type_oid, binary, classification)
    return cell(column.type_oid, binary)


def encode(data: bytes, plan: Plan, found: Found) -> bytes:
    """The rows in JSON. Raises CodecError when `data` is not whole DataRows of these columns."""
    out: list[bytes] = []
    cells = plan.cells
    size, at = len(data), 0
    unpack_length = _LENGTH.unpack_from
    try:
        while at < size:
            kind, length, count = _HEAD.unpack_from(data, at)
            end = at + 1 + length
            if kind != _DATA_ROW or count != len(cells) or end > size:
                raise CodecError("not whole DataRows of these columns")
            at += 7
            out.append(b"," if out else b"[")
            for key, write in cells:
                (length,) = unpack_length(data, at)
                at += 4
                out.append(key)
                if length < 0:
                    out.append(b"null")
                else:
                    out.append(write(data[at : at + length], found))
                    at += length
            out.append(b"}" if cells else b"{}")
            if at != end:
                raise CodecError("a DataRow's length is not that of its values")
    except struct.error:
        raise CodecError("truncated DataRow") from None
    return b"".join(out) + b"]" if out else b"[]"


def encode_undescribed(data: bytes, hide: bool, found: Found) -> bytes:
    """Rows of a statement that the client never described, as arrays. Raises CodecError."""
    out: list[bytes] = []
    at = 0
    try:
        while at < len(data):
            kind, length, count = _HEAD.unpack_from(data, at)
            end = at + 1 + length
            if kind != _DATA_ROW or end > len(data):
                raise CodecError("not whole DataRows")
            at += 7
            row = []
            for _ in range(count):
                (length,) = _LENGTH.unpack_from(data, at)
                at += 4
                if length < 0:
                    row.append(b"null")
                    continue
                row.append(HIDDEN if hide else undeclared(data[at : at + length], found))
                at += length
            if at != end:
                raise CodecError("a DataRow's length is not that of its values")
            out.append(b"[" + b",".join(row) + b"]")
    except struct.error:
        raise CodecError("truncated DataRow") from None
    if hide and out:
        found.add("classified")
    return b"[" + b",".join(out) + b"]"


def notifications(data: bytes, classification: Classification, found: Found) -> bytes:
    """NotificationResponse messages in JSON; also a ParameterStatus, and an error or a notice
    that belongs to no statement, such as a server's goodbye. Raises CodecError.
    """
    if data[:1] and data[0] in _REPORTS:
        return b"[%s]" % _report(data, classification, found)
    if data[:1] == b"S":
        return b"[%s]" % _setting(data, classification, found)
    out: list[bytes] = []
    at = 0
    while at < len(data):
        if len(data) - at < 9 or data[at] != _NOTIFICATION:
            raise CodecError("not whole NotificationResponses")
        (length,) = _LENGTH.unpack_from(data, at + 1)
        end = at + 1 + length
        if length < 10 or end > len(data):
            raise CodecError("not whole NotificationResponses")
        # Triggers send whole rows as payload.
        said = _pair(data[at + 9 : end], classification, found)
        out.append(b'{"channel":%s,"payload":%s}' % said)
        at = end
    return b"[" + b",".join(out) + b"]"


def _setting(data: bytes, classification: Classification, found: Found) -> bytes:
    """A ParameterStatus, whose value may be any text that a function has read."""
    if len(data) < 7 or int.from_bytes(data[1:5], "big") != len(data) - 1:
        raise CodecError("not a whole ParameterStatus")
    return b'{"setting":%s,"value":%s}' % _pair(data[5:], classification, found)


def _pair(data: bytes, classification: Classification, found: Found) -> tuple[bytes, bytes]:
    """A name and a free text, each zero-terminated, masked and in JSON."""
    texts = data.split(b"\0")
    if len(texts) != 3 or texts[2]:
        raise CodecError("not two zero-terminated texts")
    name, free = (text.decode(errors="backslashreplace") for text in texts[:2])
    if classification.near(free):
        found.add("classified")
        free = masks.HIDDEN
    return dumps(scrubbed(name, found)), dumps(scrubbed(free, found))


def _report(data: bytes, classification: Classification, found: Found) -> bytes:
    """An ErrorResponse or a NoticeResponse."""
    if len(data) < 6 or int.from_bytes(data[1:5], "big") != len(data) - 1 or data[-1]:
        raise CodecError("not a whole ErrorResponse or NoticeResponse")
    fields = {
        chr(part[0]): part[1:].decode(errors="backslashreplace")
        for part in data[5:].split(b"\0")
        if part
    }
    masked = diagnostics.scrub(fields, classification, found)
    return b"{%s}" % b",".join(dumps(code) + b":" + dumps(text) for code, text in masked.items())
