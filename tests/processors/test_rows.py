from __future__ import annotations

import contextlib
import json
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors import rows
from schemas.codec import CodecError
from schemas.events import Column
from schemas.masking.columns import Classification, ColumnMask
from tests.processors.recording import column, data_row

SHOP = Classification(
    {
        "public.customers.ssn": ColumnMask("pii", "full"),
        "public.customers.card": ColumnMask("pci", "partial"),
        "public.customers.email": ColumnMask("pii", "email"),
    }
)
SSN = "public.customers.ssn"


def shown(
    columns: list[Column], *lines: bytes, classified: bool = False
) -> tuple[list[dict[str, Any]], set[str]]:
    plan = rows.plan(columns, classified, SHOP)
    found: set[str] = set()
    result = json.loads(rows.encode(b"".join(lines), plan, found))
    return result, {*plan.masks, *found}


def one(column: Column, raw: bytes, *, classified: bool = False) -> Any:
    result, _ = shown([column], data_row(raw), classified=classified)
    return result[0][column.name]


@pytest.mark.parametrize(
    ("type_oid", "raw", "value"),
    [
        (23, b"-12", -12),
        (20, b"9007199254740992", 9007199254740992),
        (20, b"9007199254740993", "9007199254740993"),
        (20, b"-9223372036854775808", "-9223372036854775808"),
        (701, b"0.5", 0.5),
        (701, b"NaN", "NaN"),
        (701, b"1e+20", 1e20),
        (1700, b"12.50", "12.50"),
        (16, b"t", True),
        (16, b"f", False),
        (25, b"", ""),
        (25, "Grüße \"\\ \t\x01".encode(), "Grüße \"\\ \t\x01"),
        (25, b"\xff", "\\xff"),
        (1082, b"2024-11-24", "2024-11-24"),
        (3802, b'{"a": 1}', '{"a": 1}'),
        (17, b"\\xdeadbeef", "\\xdeadbeef"),
        (1009, b"{a,b}", "{a,b}"),
    ],
)  # fmt: skip
def test_text_values(type_oid: int, raw: bytes, value: Any) -> None:
    assert one(column("x", type_oid), raw) == value


@pytest.mark.parametrize(
    ("type_oid", "raw", "value"),
    [
        (21, struct.pack(">h", -2), -2),
        (23, struct.pack(">i", 7), 7),
        (20, struct.pack(">q", 1 << 60), str(1 << 60)),
        (701, struct.pack(">d", 0.25), 0.25),
        (16, b"\1", True),
        (16, b"\0", False),
        (25, b"abc", "abc"),
        (1082, struct.pack(">i", 0), "2000-01-01"),
        (1007, b"\0\1", "\\x0001"),
        (23, b"\0\1", "\\x0001"),
    ],
)
def test_binary_values(type_oid: int, raw: bytes, value: Any) -> None:
    assert one(column("x", type_oid, binary=True), raw) == value


def test_null_is_null_and_an_empty_result_is_empty() -> None:
    assert shown([column("x"), column("ssn", source=SSN)], data_row(None, None))[0] == [
        {"x": None, "ssn": None}
    ]
    assert shown([column("x")])[0] == []
    assert shown([], data_row(), data_row())[0] == [{}, {}]


def test_columns_of_one_name_are_told_apart() -> None:
    result, _ = shown([column("a"), column("a"), column("a_2"), column("a")], data_row(*b4("1234")))
    assert result == [{"a": "1", "a_2": "2", "a_2_2": "3", "a_3": "4"}]


def b4(text: str) -> list[bytes]:
    return [character.encode() for character in text]


# --- masks ---


@pytest.mark.parametrize(
    ("source", "raw", "value", "mask"),
    [
        (SSN, b"123-45-6789", "***", f"pii:{SSN}"),
        (SSN, b"x", "***", f"pii:{SSN}"),
        (
            "public.customers.card",
            b"4111111111111234",
            "************1234",
            "pci:public.customers.card",
        ),
        (
            "public.customers.email",
            b"bob@example.com",
            "b***@example.com",
            "pii:public.customers.email",
        ),
    ],
)
def test_classified_columns_are_masked_under_any_alias(
    source: str, raw: bytes, value: str, mask: str
) -> None:
    assert shown([column("alias", source=source)], data_row(raw)) == ([{"alias": value}], {mask})


def test_where_the_catalog_does_not_know_the_name_decides() -> None:
    assert shown([column("SSN")], data_row(b"x")) == ([{"SSN": "***"}], {"pii:SSN"})
    other = column("ssn", source="public.employees.ssn")
    assert shown([other], data_row(b"x")) == ([{"ssn": "x"}], set())


@pytest.mark.parametrize(
    ("type_oid", "raw", "value"),
    [
        (25, b"123", "***"),
        (1082, b"1970-01-01", "***"),
        (3802, b"{}", "***"),
        (16, b"t", True),
        (20, b"123456", 123456),
        (20, b"1234567", "***"),
        (1700, b"1234.567", "***"),
        (1700, b"12.5", "12.5"),
        (701, b"0.5", 0.5),
    ],
)
def test_of_computed_values_only_booleans_and_short_numbers_stay(
    type_oid: int, raw: bytes, value: Any
) -> None:
    assert one(column("x", type_oid, source="?"), raw) == value
    assert one(column("x", type_oid), raw, classified=True) == value


@pytest.mark.parametrize(
    ("type_oid", "raw", "binary"),
    [
        (25, b"call 212-555-0187", False),
        (25, b"call 212-555-0187", True),
        (20, b"4111111111111111", False),
        (20, struct.pack(">q", 4111111111111111), True),
        (1700, b"4111111111111111", False),
        (3802, b'{"mail": "bob@example.com"}', False),
        (114, b'{"mail": "bob\\u0040example.com"}', False),
        (25, b'["bob\\u0040example.com"', False),
        (17, b"\\x" + b"123-45-6789".hex().encode(), False),
        (17, b"123-45-6789", True),
        (1009, b"{bob@example.com,x}", False),
        (1009, b"\0\0\0\1bob@example.com\0\0", True),
        (25, b"123456789", False),
    ],
)
def test_other_columns_are_searched(type_oid: int, raw: bytes, binary: bool) -> None:
    result, masks = shown([column("x", type_oid, binary=binary)], data_row(raw))
    text = json.dumps(result)
    for secret in ("4111111", "bob", "6789", "0187", b"123-45".hex(), b"bob".hex()):
        assert secret not in text
    assert len(masks) == 1


@pytest.mark.parametrize(
    ("type_oid", "raw", "value"),
    [
        (3802, b'{"SSN": "a", "x": [{"email": "bob@mail.example"}]}', "b***@mail.example"),
        (25, b'[{"ssn": {"deep": "a"}}]', "***"),
        (114, b'{"ssn": 123, "y": null}', "***"),
    ],
)
def test_members_of_documents_named_like_a_classified_column_are_masked(
    type_oid: int, raw: bytes, value: str
) -> None:
    for binary in (False, True):
        sent = b"\1" + raw if binary and type_oid == 3802 else raw
        result, masks = shown([column("x", type_oid, binary=binary)], data_row(sent))
        assert value in result[0]["x"]
        for secret in ('"a"', "bob", "123", "deep"):
            assert secret not in result[0]["x"]
        assert "pii" in masks


@pytest.mark.parametrize(
    "raw", [b'{"ssn": "a"', b"{ssn,b}", b"[" * 5_000 + b"ssn", b'{"ssn":null}']
)
def test_what_is_no_document_stays_as_it_is(raw: bytes) -> None:
    assert one(column("x", 25), raw) == raw.decode()


def test_a_document_with_two_members_of_one_name_is_hidden() -> None:
    assert one(column("x", 114), b'{"ssn": "a", "ssn": null}') == "***"


def test_a_column_name_may_be_a_value_too() -> None:
    result, masks = shown([column("bob@example.com")], data_row(b"x"))
    assert result == [{"b***@example.com": "x"}]
    assert masks == {"email:column_name"}


CANARY = b"canary"


@given(
    st.sampled_from([16, 17, 20, 23, 25, 114, 700, 1043, 1082, 1184, 1700, 2950, 3802, 99_999]),
    st.booleans(),
    st.binary(max_size=20),
    st.sampled_from([SSN, "?", "public.customers.email"]),
)
def test_no_value_of_a_classified_column_survives(
    type_oid: int, binary: bool, noise: bytes, source: str
) -> None:
    raw = CANARY + noise
    plan = rows.plan([column("x", type_oid, source=source, binary=binary)], True, SHOP)
    encoded = rows.encode(data_row(raw), plan, set())
    assert CANARY not in encoded
    assert CANARY.hex().encode() not in encoded
    json.loads(encoded)


@given(
    st.lists(st.tuples(st.integers(0, 4000), st.booleans(), st.none() | st.binary(max_size=30))),
    st.integers(0, 3),
)
def test_any_values_make_json_with_every_column(
    cells: list[tuple[int, bool, bytes | None]], count: int
) -> None:
    columns = [column(f"c{n}", oid, binary=b) for n, (oid, b, _) in enumerate(cells)]
    plan = rows.plan(columns, False, SHOP)
    line = data_row(*[raw for _, _, raw in cells])
    result = json.loads(rows.encode(line * count, plan, set()))
    assert len(result) == count
    assert all(list(row) == [c.name for c in columns] for row in result)


# --- framing ---


@given(st.binary(max_size=60))
def test_noise_is_a_codec_error_and_nothing_else(noise: bytes) -> None:
    plan = rows.plan([column("x"), column("y")], False, SHOP)
    whole = data_row(b"a", b"b")
    for data in (noise, whole + noise, whole[:-1] + noise):
        with contextlib.suppress(CodecError):
            json.loads(rows.encode(data, plan, set()))
        with contextlib.suppress(CodecError):
            json.loads(rows.encode_undescribed(data, False, set()))


@pytest.mark.parametrize(
    "data",
    [
        data_row(b"a"),
        data_row(b"a", b"b", b"c"),
        data_row(b"a", b"b")[:-1],
        data_row(b"a", b"b") + b"D",
        b"C" + data_row(b"a", b"b")[1:],
        b"D" + struct.pack(">iHi", 12, 2, 1) + b"a" + struct.pack(">i", 5) + b"b",
        b"D" + struct.pack(">iHi", 15, 2, -1) + struct.pack(">i", 0) + b"xxx",
    ],
)
def test_what_is_not_whole_rows_is_refused(data: bytes) -> None:
    with pytest.raises(CodecError):
        rows.encode(data, rows.plan([column("x"), column("y")], False, SHOP), set())
    if data not in (data_row(b"a"), data_row(b"a", b"b", b"c")):
        with pytest.raises(CodecError):
            rows.encode_undescribed(data, False, set())


def notification(channel: bytes, payload: bytes) -> bytes:
    body = struct.pack(">i", 42) + channel + b"\0" + payload + b"\0"
    return b"A" + struct.pack(">i", len(body) + 4) + body


def test_notifications() -> None:
    found: set[str] = set()
    data = notification(b"orders", b"12") + notification(b"c", b'{"ssn": "x"}')
    assert json.loads(rows.notifications(data, SHOP, found)) == [
        {"channel": "orders", "payload": "12"},
        {"channel": "c", "payload": "***"},
    ]
    assert found == {"classified"}


@pytest.mark.parametrize("kind", [b"E", b"N"])
def test_what_a_server_says_of_no_statement(kind: bytes) -> None:
    body = b"SFATAL\0C57P01\0Mterminating, says bob@example.com\0\0"
    data = kind + (len(body) + 4).to_bytes(4, "big") + body
    found: set[str] = set()
    (said,) = json.loads(rows.notifications(data, SHOP, found))
    assert said == {"S": "FATAL", "C": "57P01", "M": "terminating, says b***@example.com"}
    assert found == {"email"}
    with pytest.raises(CodecError):
        rows.notifications(data + b"x", SHOP, found)


def test_a_setting_that_changes() -> None:
    def status(name: bytes, value: bytes) -> bytes:
        body = name + b"\0" + value + b"\0"
        return b"S" + (len(body) + 4).to_bytes(4, "big") + body

    found: set[str] = set()
    data = status(b"application_name", b"4111 1111 1111 1111")
    (said,) = json.loads(rows.notifications(data, SHOP, found))
    assert said["setting"] == "application_name"
    assert "4111 1111" not in said["value"]
    assert found
    assert json.loads(rows.notifications(status(b"TimeZone", b"UTC"), SHOP, set())) == [
        {"setting": "TimeZone", "value": "UTC"}
    ]
    assert json.loads(rows.notifications(status(b"a", b"ssn: x"), SHOP, set())) == [
        {"setting": "a", "value": "***"}
    ]
    for broken in (data + b"x", data[:-1], b"S", status(b"a", b"b\0c")):
        with pytest.raises(CodecError):
            rows.notifications(broken, SHOP, set())


@given(st.binary(max_size=40))
def test_broken_notifications_are_refused(noise: bytes) -> None:
    for data in (b"A" + noise, notification(b"a", b"b")[:-1], notification(b"a", b"b") + noise):
        try:
            rows.notifications(data, SHOP, set())
        except CodecError:
            continue
