"""PostgreSQL values as text, from either wire format.

Binary values are written as PostgreSQL itself prints them (ISO dates, UTC); a type without a
reader here, and a value that is not of its type's form, is shown in hexadecimal.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from datetime import date, datetime, timedelta
from enum import Enum, auto
from typing import Final
from uuid import UUID

BOOL, BYTEA, CHAR, NAME, INT8, INT2, INT4 = 16, 17, 18, 19, 20, 21, 23
TEXT, OID, JSON, XML, FLOAT4, FLOAT8, UNKNOWN = 25, 26, 114, 142, 700, 701, 705
BPCHAR, VARCHAR, DATE, TIME, TIMESTAMP, TIMESTAMPTZ = 1042, 1043, 1082, 1083, 1114, 1184
INTERVAL, TIMETZ, NUMERIC, UUID_OID, JSONB = 1186, 1266, 1700, 2950, 3802


class Family(Enum):
    """How values of a type are shown and searched."""

    INTEGER = auto()
    FLOAT = auto()
    NUMERIC = auto()
    BOOLEAN = auto()
    INERT = auto()
    """Dates, times, UUIDs: cannot hold what the detectors look for."""
    TEXT = auto()
    """Everything else."""


_FAMILIES: Final = {
    BOOL: Family.BOOLEAN,
    **dict.fromkeys((INT2, INT4, INT8, OID), Family.INTEGER),
    **dict.fromkeys((FLOAT4, FLOAT8), Family.FLOAT),
    NUMERIC: Family.NUMERIC,
    **dict.fromkeys((DATE, TIME, TIMETZ, TIMESTAMP, TIMESTAMPTZ, INTERVAL, UUID_OID), Family.INERT),
}


def family(type_oid: int) -> Family:
    """TEXT for types without special treatment: they may hold anything."""
    return _FAMILIES.get(type_oid, Family.TEXT)


def text(type_oid: int, binary: bool, raw: bytes) -> tuple[str, bool]:
    """(the value as text, whether it could be read)."""
    if not binary:
        return raw.decode(errors="backslashreplace"), True
    reader = _READERS.get(type_oid)
    if reader is not None:
        try:
            return reader(raw), True
        except (struct.error, ValueError, OverflowError, IndexError):
            pass
    return f"\\x{raw.hex()}", False


def _unpacked(code: str) -> Callable[[bytes], str]:
    unpack = struct.Struct(code).unpack
    return lambda raw: str(unpack(raw)[0])


def _boolean(raw: bytes) -> str:
    (value,) = raw
    return "t" if value else "f"


def _special(value: float) -> str | None:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return None


def _float4(raw: bytes) -> str:
    (value,) = struct.unpack(">f", raw)
    if special := _special(value):
        return special
    # The shortest decimal that reads back as the same four bytes.
    for digits in range(6, 9):
        shown = f"{value:.{digits}g}"
        if struct.pack(">f", float(shown)) == raw:
            return shown
    return f"{value:.9g}"


def _float8(raw: bytes) -> str:
    (value,) = struct.unpack(">d", raw)
    return _special(value) or repr(value).removesuffix(".0")


def _string(raw: bytes) -> str:
    return raw.decode()


def _jsonb(raw: bytes) -> str:
    if raw[:1] != b"\1":
        raise ValueError("jsonb of another version")
    return raw[1:].decode()


def _uuid(raw: bytes) -> str:
    return str(UUID(bytes=raw))


def _date(raw: bytes) -> str:
    (days,) = struct.unpack(">i", raw)
    if days in (2**31 - 1, -(2**31)):
        return "infinity" if days > 0 else "-infinity"
    return (date(2000, 1, 1) + timedelta(days=days)).isoformat()


def _clock(moment: datetime) -> str:
    shown = moment.strftime("%H:%M:%S")
    return f"{shown}.{moment.microsecond:06d}".rstrip("0") if moment.microsecond else shown


def _time(raw: bytes) -> str:
    (micros,) = struct.unpack(">q", raw)
    if micros == 86_400_000_000:
        return "24:00:00"
    if not 0 <= micros < 86_400_000_000:
        raise ValueError("no time of day")
    return _clock(datetime(2000, 1, 1) + timedelta(microseconds=micros))


def _timestamp(raw: bytes) -> str:
    (micros,) = struct.unpack(">q", raw)
    if micros in (2**63 - 1, -(2**63)):
        return "infinity" if micros > 0 else "-infinity"
    moment = datetime(2000, 1, 1) + timedelta(microseconds=micros)
    return f"{moment.date().isoformat()} {_clock(moment)}"


def _timestamptz(raw: bytes) -> str:
    shown = _timestamp(raw)
    return shown if "infinity" in shown else f"{shown}+00"


_NUMERIC_SPECIAL: Final = {0xC000: "NaN", 0xD000: "Infinity", 0xF000: "-Infinity"}


def _numeric(raw: bytes) -> str:
    count, weight, sign, scale = struct.unpack_from(">HhHH", raw)
    digits = struct.unpack(f">{count}H", raw[8:])
    if sign in _NUMERIC_SPECIAL:
        return _NUMERIC_SPECIAL[sign]
    if sign not in (0, 0x4000) or any(digit > 9999 for digit in digits):
        raise ValueError("no numeric")

    def base_10000(position: int) -> int:
        return digits[position] if 0 <= position < count else 0

    whole = "".join(f"{base_10000(i):04d}" for i in range(weight + 1)).lstrip("0") or "0"
    shown = f"-{whole}" if sign else whole
    if scale:
        groups = range(weight + 1, weight + 2 + (scale + 3) // 4)
        fraction = "".join(f"{base_10000(i):04d}" for i in groups)
        shown += f".{fraction[:scale]}"
    return shown


_READERS: Final[dict[int, Callable[[bytes], str]]] = {
    BOOL: _boolean,
    INT2: _unpacked(">h"),
    INT4: _unpacked(">i"),
    INT8: _unpacked(">q"),
    OID: _unpacked(">I"),
    FLOAT4: _float4,
    FLOAT8: _float8,
    NUMERIC: _numeric,
    **dict.fromkeys((TEXT, VARCHAR, BPCHAR, NAME, CHAR, JSON, XML, UNKNOWN), _string),
    JSONB: _jsonb,
    UUID_OID: _uuid,
    DATE: _date,
    TIME: _time,
    TIMESTAMP: _timestamp,
    TIMESTAMPTZ: _timestamptz,
}
