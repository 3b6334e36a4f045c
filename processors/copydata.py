"""CopyData as a JSON array of arrays. The wire does not say its format: the bytes do."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable
from typing import Final

from processors.values import HIDDEN, Found, dumps, scrubbed

_BINARY_SIGNATURE: Final = b"PGCOPY\n\xff\r\n\0"
_ESCAPE: Final = re.compile(r"\\(?:x([0-9a-fA-F]{1,2})|([0-7]{1,3})|(.))", re.DOTALL)
_SIMPLE: Final = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}


def encode(data: bytes, *, hide: bool, first: bool, whole: bool, found: Found) -> bytes:
    """Rows in JSON; every value `***` when `hide`.

    `first`: the chunk begins the stream. `whole`: it begins and ends between rows; otherwise a
    value may be cut, and neither half would look like anything: both are hidden.
    """
    if not data:
        return b"[]"
    if data.startswith(_BINARY_SIGNATURE) or b"\0" in data:
        # Tuples cannot be told apart in the middle of a stream, nor their types at all.
        found.add("binary")
        return b'[["***"]]'
    lines = data.decode(errors="backslashreplace")
    fields = _tab_separated if _is_tab_separated(lines) else _comma_separated
    rows = [row for row in fields(lines) if row != ["\\."]]
    value = _value(hide, found)
    encoded = [[value(field) for field in row] for row in rows]
    if rows and not whole:
        if not first:
            encoded[0][:1] = [HIDDEN]
        if not lines.endswith(("\n", "\r")):
            encoded[-1][-1:] = [HIDDEN]
    if hide:
        found.add("classified")
    return b"[" + b",".join(b"[" + b",".join(row) + b"]" for row in encoded) + b"]"


def _value(hide: bool, found: Found) -> Callable[[str | None], bytes]:
    def write(field: str | None) -> bytes:
        if field is None:
            return b"null"
        return HIDDEN if hide else dumps(scrubbed(field, found))

    return write


def _is_tab_separated(lines: str) -> bool:
    return "\t" in lines or "," not in lines


def _tab_separated(lines: str) -> list[list[str | None]]:
    return [
        [None if field == "\\N" else _unescaped(field) for field in line.split("\t")]
        for line in lines.removesuffix("\n").split("\n")
    ]


def _unescaped(field: str) -> str:
    if "\\" not in field or field == "\\.":
        return field
    return _ESCAPE.sub(_undo, field)


def _undo(match: re.Match[str]) -> str:
    if match[1]:
        return chr(int(match[1], 16))
    if match[2]:
        return chr(int(match[2], 8) & 0xFF)
    return _SIMPLE.get(match[3], match[3])


def _comma_separated(lines: str) -> list[list[str | None]]:
    try:
        return [list(row) for row in csv.reader(io.StringIO(lines, newline="")) if row]
    except csv.Error:
        return [list(line.split(",")) for line in lines.splitlines() if line]
