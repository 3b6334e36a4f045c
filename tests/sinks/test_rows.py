"""Records -> columns; the strict codec is the oracle."""

from __future__ import annotations

import os
from ipaddress import IPv6Address
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas import codec
from schemas.codec import CURRENT, Archive, CodecError
from schemas.events import Masked
from sinks.rows import MASKED_FIELDS, Decoder, Poison, read_rest, table
from tests.sinks.recorded import NOON, Stream, context, encode, records

TOPIC = os.urandom(16)


def decoded(values: list[bytes | None]) -> tuple[list[dict[str, Any]], list[Poison]]:
    rows, poison = Decoder().decode(enumerate(values))
    names = [
        dict(zip(MASKED_FIELDS, row, strict=True), context=who)
        for row, who in zip(rows.values, rows.contexts, strict=True)
    ]
    return names, poison


long = st.integers(-(1 << 63), (1 << 63) - 1)
count = st.integers(0, (1 << 63) - 1)
text = st.text(max_size=200) | st.just("")
texts = st.lists(st.text(max_size=70), max_size=4)
uuid = st.binary(min_size=16, max_size=16)
sha256 = st.binary(min_size=32, max_size=32)


@st.composite
def masked(draw: st.DrawFn) -> Masked:
    return Masked(
        context=context(actor=draw(text), groups=draw(texts), ip=draw(st.ip_addresses()).exploded),
        event_id=draw(uuid),
        event_type=draw(text),
        at=draw(st.integers(-2_208_988_800_000_000, 10_413_791_999_999_999)),
        monotonic_ns=draw(long),
        stream=draw(text),
        seq=draw(count),
        prev_hash=draw(sha256),
        event_hash=draw(sha256),
        statement_id=draw(uuid),
        prepared_id=draw(uuid),
        rows=draw(count),
        byte_count=draw(count),
        duration_us=draw(count),
        chunk=draw(st.integers(0, (1 << 31) - 1)),
        **{  # type: ignore[arg-type]
            name: draw(texts if name in ("kinds", "relations", "policies", "masks") else text)
            for name in (
                "action", "kind", "kinds", "relations", "decision", "policies", "policy_digest",
                "reason", "outcome", "command_tag", "error_code", "statement", "parameters",
                "response_rows", "error", "details", "masks",
            )
        },
    )  # fmt: skip


def test_the_fast_reader_knows_the_current_schema() -> None:
    # `read_rest` is written by hand: a field added to Masked must be added there too.
    fields = [(f["name"], f["type"]) for f in CURRENT[Masked].rest["fields"]]
    kinds = {"string": str, "long": int, "int": int}
    event = Stream().event("Requested", context())
    payload = encode(event)[35:]
    at = len(codec.encode_context(event.context))
    values = read_rest(payload, at)
    assert values is not None
    assert [name for name, _ in fields] == list(MASKED_FIELDS)
    for (name, kind), value in zip(fields, values, strict=True):
        if isinstance(kind, str) and kind in kinds:
            assert isinstance(value, kinds[kind]), name


@settings(max_examples=150, deadline=None)
@given(st.lists(masked(), min_size=1, max_size=4))
def test_the_fast_reader_agrees_with_the_codec(events: list[Masked]) -> None:
    # Each twice: the second time its context is known and the fast reader reads it.
    values: list[bytes | None] = [encode(event) for event in events for _ in range(2)]
    rows, poison = decoded(values)
    assert poison == []
    archive = Archive()
    for row, value in zip(rows, values, strict=True):
        assert value is not None
        expected = msgspec.structs.asdict(archive.decode_masked(value))
        assert {k: list(v) if isinstance(v, tuple) else v for k, v in row.items()} == expected


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damage_is_decided_by_the_codec(data: st.DataObject) -> None:
    event = data.draw(masked())
    value = bytearray(encode(event))
    for _ in range(data.draw(st.integers(1, 3))):
        match data.draw(st.sampled_from(["flip", "cut", "append"])):
            case "flip":
                value[data.draw(st.integers(0, len(value) - 1))] ^= 1 << data.draw(
                    st.integers(0, 7)
                )
            case "cut":
                del value[data.draw(st.integers(1, len(value))) :]
            case "append":
                value += data.draw(st.binary(min_size=1, max_size=3))
    decoder = Decoder()
    decoder.decode([(0, encode(event))])  # so that the context is known
    rows, poison = decoder.decode([(1, bytes(value))])
    try:
        expected = Archive().decode_masked(bytes(value))
    except CodecError:
        assert (len(rows), len(poison)) == (0, 1)
    else:
        if rows.values:
            found = dict(zip(MASKED_FIELDS, rows.values[0], strict=True))
            assert found["event_id"] == expected.event_id
            assert found["statement"] == expected.statement
            assert list(found["masks"]) == expected.masks
        else:
            assert poison  # a count below zero, a time out of range


@pytest.mark.parametrize(
    "change",
    [
        {"seq": -1},
        {"rows": -1},
        {"byte_count": -5},
        {"duration_us": -1},
        {"chunk": -1},
        {"at": 99_999_999_999_999_999},
        {"at": -99_999_999_999_999_999},
    ],
)
def test_numbers_that_no_column_holds_are_poison(change: dict[str, int]) -> None:
    good = Stream().event("Completed", context())
    bad = msgspec.structs.replace(good, **change)
    rows, poison = decoded([encode(good), encode(bad), encode(bad), encode(good)])
    assert len(rows) == 2
    assert [item.offset for item in poison] == [1, 2]


def test_poison_is_kept_apart_and_its_reason_quotes_nothing() -> None:
    event = Stream().event("Requested", context(), statement="SELECT 'secret'")
    whole = encode(event)
    values = [None, b"", b"secret", whole[:-1], whole + b"\0", whole[:3] + bytes(32), whole]
    rows, poison = decoded(values)
    assert len(rows) == 1
    assert [item.offset for item in poison] == [0, 1, 2, 3, 4, 5]
    assert not any("secret" in item.reason for item in poison)


def test_an_event_that_is_not_masked_is_poison() -> None:
    original = codec.load("SessionClosed")
    rows, poison = decoded([codec.frame(original.sha256, b"\0" * 50)])
    assert rows == []
    assert len(poison) == 1


def test_columns_hold_what_the_events_hold() -> None:
    stream = Stream()
    addresses = ("10.1.2.3", "2001:db8::1", "fe80::1%eth0", "")
    for ip in addresses:
        stream.event("Requested", context(ip=ip, actor=f"at {ip}"), masks=["pii:a", "pii:b"])
    rows, _ = Decoder().decode((r.offset, r.value) for r in records(stream.events, 100))
    columns = table(rows, "topic", TOPIC, 7)
    assert [IPv6Address(ip.as_py()) for ip in columns["client_ip"]] == [
        IPv6Address("::ffff:10.1.2.3"),
        IPv6Address("2001:db8::1"),
        IPv6Address("fe80::1"),
        IPv6Address("::"),
    ]
    assert columns["actor"].to_pylist() == [f"at {ip}" for ip in addresses]
    assert columns["masks"].to_pylist() == [["pii:a", "pii:b"]] * 4
    assert columns["kafka_offset"].to_pylist() == [100, 101, 102, 103]
    assert columns["kafka_partition"].to_pylist() == [7] * 4
    assert columns["topic_id"].to_pylist() == [TOPIC] * 4
    assert columns["ts"].cast("int64").to_pylist() == [NOON + 1000 * i for i in range(4)]
    assert columns["seq"].to_pylist() == [0, 1, 2, 3]


def test_every_column_of_the_table_is_written() -> None:
    from sinks.migrate import bundled

    rows, _ = Decoder().decode([(0, encode(Stream().event("Requested", context())))])
    first, *later = (migration.text for migration in bundled())
    created = first + "".join(text for text in later if "ALTER TABLE audit_events" in text)
    written = set(table(rows, "topic", TOPIC, 0).column_names)
    defined = {
        line.split()[0]
        for line in created.splitlines()
        if line.startswith("    ") and "COMMENT" in line
    }
    assert defined - written == {"ingested_at"}
    assert written <= defined
