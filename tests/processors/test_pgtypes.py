from __future__ import annotations

import math
import struct

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors import pgtypes
from tests.conftest import PostgresServer

VALUES = [
    ("bool", ["true", "false"]),
    ("int2", ["-32768", "0", "32767"]),
    ("int4", ["-2147483648", "2147483647"]),
    ("int8", ["-9223372036854775808", "9223372036854775807"]),
    ("oid", ["0", "4294967295"]),
    ("float4", ["0.1", "1", "-0", "1e-30", "3.4028235e+38", "16777216", "NaN", "-Infinity"]),
    ("float8", ["0.1", "1", "-0", "1e-300", "1e15", "123456789.125", "NaN", "Infinity"]),
    (
        "numeric",
        ["0", "0.00", "-0.5", "1", "10000", "12345678901234567890.123456789", "1e-20", "1e30"],
    ),
    (
        "numeric",
        ["9999.9999", "100000000", "0.0001", "-12.50", "NaN", "Infinity", "-Infinity"],
    ),
    ("text", ["", "Grüße, 世界", "a\tb\\n\"'"]),
    ("varchar", ["x"]),
    ("char(4)", ["x"]),
    ("name", ["pg_catalog"]),
    ("json", ['{"a": [1, "\\u0040"]}']),
    ("jsonb", ['{"b":1, "a": "x"}']),
    ("uuid", ["550e8400-e29b-41d4-a716-446655440000"]),
    ("date", ["2024-02-29", "1969-12-31", "0001-01-01", "9999-12-31", "infinity", "-infinity"]),
    ("time", ["00:00:00", "23:59:59.999999", "12:34:56.5", "24:00:00"]),
    ("timestamp", ["2024-11-24 07:00:00", "1969-12-31 23:59:59.5", "0001-01-01 00:00:00"]),
    ("timestamp", ["infinity", "-infinity"]),
    ("timestamptz", ["2024-11-24 07:00:00.000001+00", "1900-01-01 00:00:00+00", "infinity"]),
]


@pytest.mark.integration
def test_binary_values_read_as_postgresql_prints_them(postgres: PostgresServer) -> None:
    with psycopg.connect(postgres.dsn) as connection:
        connection.execute("set timezone = 'UTC'")
        for name, values in VALUES:
            for value in values:
                query = f"select {psycopg.sql.quote(value)}::{name}"
                shown, raw = (
                    connection.cursor(binary=binary).execute(query).pgresult
                    for binary in (False, True)
                )
                assert shown is not None and raw is not None
                oid = raw.ftype(0)
                expected = shown.get_value(0, 0)
                got = raw.get_value(0, 0)
                assert expected is not None and got is not None
                text, known = pgtypes.text(oid, True, got)
                assert known, (name, value)
                assert _same(name, text, expected.decode()), (name, value, text)
                assert pgtypes.text(oid, False, expected) == (expected.decode(), True)


def _same(name: str, ours: str, theirs: str) -> bool:
    # Exponents are written in another style; the number is the same.
    return ours == theirs or (name.startswith("float") and float(ours) == float(theirs))


@given(st.integers(0, 10_000), st.binary(max_size=40))
def test_what_cannot_be_read_is_shown_in_hexadecimal(type_oid: int, raw: bytes) -> None:
    shown, known = pgtypes.text(type_oid, True, raw)
    assert known or shown == f"\\x{raw.hex()}"


@given(st.floats(width=32))
def test_float4_is_the_shortest_text_that_reads_back(value: float) -> None:
    raw = struct.pack(">f", value)
    shown, _ = pgtypes.text(pgtypes.FLOAT4, True, raw)
    read = float(shown)
    assert struct.pack(">f", read) == raw or math.isnan(read)


@pytest.mark.parametrize(
    ("type_oid", "raw"),
    [
        (pgtypes.INT4, b"\0"),
        (pgtypes.BOOL, b""),
        (pgtypes.TEXT, b"\xff"),
        (pgtypes.JSONB, b"\2{}"),
        (pgtypes.DATE, struct.pack(">i", 2**31 - 2)),
        (pgtypes.TIMESTAMP, struct.pack(">q", 2**62)),
        (pgtypes.TIME, struct.pack(">q", -1)),
        (pgtypes.NUMERIC, struct.pack(">HhHH", 1, 0, 0, 0)),
        (pgtypes.NUMERIC, struct.pack(">HhHHH", 1, 0, 0, 0, 10_000)),
        (pgtypes.NUMERIC, struct.pack(">HhHH", 0, 0, 0x1234, 0)),
        (1007, b"\0\0\0\0"),
    ],
)
def test_malformed_and_unknown_values_are_not_guessed(type_oid: int, raw: bytes) -> None:
    assert pgtypes.text(type_oid, True, raw) == (f"\\x{raw.hex()}", False)
