"""Records to rows of the vault, without opening anything."""

from __future__ import annotations

from dataclasses import replace

from schemas.codec import Archive
from sinks.sealed import boxes, wraps
from tests.sinks.recorded import Record
from tests.sinks.sealing import Gateway


def test_only_events_with_a_box_are_kept_as_they_were_written() -> None:
    gateway = Gateway()
    event = gateway.requested("select 'secret words'")
    gateway.decided(event.statement_id)
    table, poison = boxes(Archive(), gateway.records)
    assert poison == []
    (row,) = table.to_pylist()
    assert (row["event_id"], row["key_id"]) == (event.event_id, gateway.context.key_id)
    assert (row["kind"], row["seq"], row["stream"]) == ("Requested", 0, "gateway-1/test/0")
    assert event.box in row["payload"]
    assert b"secret words" not in row["payload"]


def test_an_altered_event_and_rubbish_are_poison_and_the_rest_is_kept() -> None:
    gateway = Gateway()
    gateway.requested("select 1")
    gateway.requested("select 2")
    value = gateway.records[0].value
    assert value is not None
    altered = replace(gateway.records[0], value=value[:-1] + bytes((value[-1] ^ 1,)))
    records = [altered, gateway.records[1], Record(2, b"rubbish"), Record(3, None)]
    table, poison = boxes(Archive(), records)
    assert [item.offset for item in poison] == [0, 2, 3]
    assert table.column("seq").to_pylist() == [1]


def test_a_key_that_is_destroyed_in_the_range_is_not_kept_before() -> None:
    first, second = Gateway(), Gateway()
    records = [first.wraps(5), second.wraps(6), first.tombstone(7)]
    found, poison = wraps(Archive(), records)
    assert poison == []
    assert {row["key_id"] for row in found.kept.to_pylist()} == {second.context.key_id}
    assert [row["recipient"] for row in found.kept.to_pylist()] == ["mask", "carol"]
    assert found.erased == {first.context.key_id: 7}


def test_wraps_under_another_key_are_poison() -> None:
    first, second = Gateway(), Gateway()
    forged = replace(first.wraps(1), key=second.context.key_id)
    found, poison = wraps(Archive(), [forged, replace(first.wraps(2), key=None)])
    assert (len(found.kept), [item.offset for item in poison]) == (0, [1, 2])
