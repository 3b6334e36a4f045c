"""Masks values of text types as they pass, in either format: their bytes are the same in both.

A DataRow (section 54.7) is `D`, length, number of columns, and for each column its length, -1
for NULL, and its bytes.
"""

from __future__ import annotations

import hmac
import struct
from collections.abc import Callable, Sequence
from typing import Final

from gateway.masking.hidden import Column
from schemas.masking.masks import BY_NAME

_INT32: Final = struct.Struct(">i")
_COUNT: Final = struct.Struct(">H")
_NULL: Final = _INT32.pack(-1)
_TOKEN: Final = 16
_SHORTEST: Final = 7
_DATA_ROW: Final = ord("D")
_ASKED, _SHOWN, _EMAIL, _PARTIAL = range(4)


_Rules = list[tuple[int, int, bytes]]
_mask_rows: Callable[[bytes, _Rules, Callable[[int, bytes], bytes]], bytes] | None
try:
    from gateway.masking import _rows

    _mask_rows = _rows.mask_rows
except ImportError:
    # Not compiled: slower, and the same.
    _mask_rows = None


class PumpError(Exception):
    """A row that is not what its description says. Quotes nothing."""


def mask(column: Column, value: str, token_key: bytes = b"") -> str | None:
    """What is shown of one value; None for NULL."""
    assert column.mask is not None  # noqa: S101 (narrowing)
    if column.type == "bpchar":
        # Its blanks at the end are no part of the value: the target's casts leave them out, too.
        value = value.rstrip(" ")
    match column.mask.name:
        case "null":
            return None
        case "literal":
            shown = column.mask.literal
        case "token":
            shown = hmac.digest(token_key, value.encode(), "sha256").hex()[:_TOKEN]
        case "partial" | "email" | "full" as name:
            shown = BY_NAME[name](value)
        case _:
            return None
    if not column.length:
        return shown
    shown = shown[: column.length]
    return shown.ljust(column.length) if column.type == "bpchar" else shown


def _constant(column: Column) -> bool:
    """Whether the same is shown of every value."""
    return column.mask is not None and column.mask.name not in ("email", "partial", "token")


class Pump:
    """Masks the rows of one description. `columns` are by place; others pass untouched."""

    def __init__(
        self, columns: dict[int, Column], codec: str, token_keys: dict[str, bytes] | None = None
    ) -> None:
        self._columns = columns
        self._places = sorted(columns)
        self._codec = codec
        self._keys = token_keys or {}
        self._rules: _Rules = [(place, *self._rule(columns[place])) for place in self._places]

    def _rule(self, column: Column) -> tuple[int, bytes]:
        """How the compiled loop masks a column: its kind, and what it shows of any value."""
        assert column.mask is not None  # noqa: S101 (narrowing)
        match column.mask.name:
            case _ if _constant(column):
                return _SHOWN, self._shown(column, b"")
            case "email" if not column.length:
                return _EMAIL, b""
            case "partial" if not column.length:
                return _PARTIAL, b""
            case _:
                return _ASKED, b""

    def rows(self, data: bytes) -> bytes:
        """Whole DataRow messages, masked. Raises PumpError."""
        if _mask_rows is None:
            return self.rows_in_python(data)
        try:
            return _mask_rows(data, self._rules, self._value)
        except ValueError as error:
            raise PumpError(str(error)) from None

    def rows_in_python(self, data: bytes) -> bytes:
        """The same where nothing is compiled, and what that is tested against."""
        out: list[bytes] = []
        at, end = 0, len(data)
        while at < end:
            if end - at < _SHORTEST or data[at] != _DATA_ROW:
                raise PumpError("a row is cut")
            after = at + 1 + _INT32.unpack_from(data, at + 1)[0]
            if not at + _SHORTEST <= after <= end:
                raise PumpError("a row is cut")
            out.append(self._row(data, at, after))
            at = after
        return b"".join(out)

    def _row(self, data: bytes, at: int, after: int) -> bytes:
        """One message, between its offsets. What is not masked is copied in one piece."""
        count = _COUNT.unpack_from(data, at + 5)[0]
        view = memoryview(data)[:after]
        kept = place = at + 7
        number = 0
        pieces: list[bytes] = []
        for masked in self._places:
            if masked >= count:
                raise PumpError("a row has fewer columns than its description")
            try:
                while number < masked:
                    place += 4 + max(_INT32.unpack_from(view, place)[0], 0)
                    number += 1
                size = _INT32.unpack_from(view, place)[0]
            except struct.error:
                raise PumpError("a row is cut") from None
            number += 1
            if size < 0:
                place += 4
                continue
            if place + 4 + size > after:
                raise PumpError("a row is cut")
            pieces.append(data[kept:place])
            pieces.append(self._value(masked, data[place + 4 : place + 4 + size]))
            place += 4 + size
            kept = place
        pieces.append(data[kept:after])
        body = b"".join(pieces)
        return b"D" + _INT32.pack(len(body) + 6) + data[at + 5 : at + 7] + body

    def _value(self, place: int, raw: bytes) -> bytes:
        return self._shown(self._columns[place], raw)

    def _shown(self, column: Column, raw: bytes) -> bytes:
        """What stands in the place of a value: a length and its bytes."""
        key = self._keys.get(column.mask.classification, b"") if column.mask else b""
        try:
            # What is shown whatever the value is, is so for bytes that are no text, too.
            value = "" if _constant(column) else raw.decode(self._codec)
            shown = mask(column, value, key)
            if shown is None:
                return _NULL
            masked = shown.encode(self._codec)
        except UnicodeError:
            masked = b"***"
        return _INT32.pack(len(masked)) + masked


def described(
    fields: Sequence[tuple[str, int, int, int, int]],
    hidden: dict[tuple[int, int], Column],
) -> dict[int, Column]:
    """Which places of a RowDescription hold hidden columns, by their origin."""
    return {
        place: column
        for place, (_, table, number, _, _) in enumerate(fields)
        if (column := hidden.get((table, number))) is not None
    }
