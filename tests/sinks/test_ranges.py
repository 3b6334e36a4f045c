"""Cutting records into named inserts."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sinks.ranges import Note, Pending, Range
from tests.sinks.recorded import Record

TOPIC = bytes(range(16))


def some(first: int, count: int, size: int = 10) -> list[Record]:
    return [Record(offset, b"x" * size) for offset in range(first, first + count)]


def pending(max_rows: int = 3, max_bytes: int = 1000) -> Pending:
    made = Pending(max_rows, max_bytes)
    made.assign(0, None)
    made.assign(1, None)
    return made


def test_a_note_survives_being_written_down() -> None:
    for note in (Note(TOPIC, 41), Note(TOPIC)):
        assert Note.parse(note.text()) == note


def test_what_is_not_our_note_is_none() -> None:
    for text in ("", "v1", "v1 zz 3", "v2 00 3", f"v1 {TOPIC.hex()} x", "something else entirely"):
        assert Note.parse(text) is None


def test_a_token_names_cluster_topic_partition_and_range() -> None:
    batch = Range(3, 10, 19, [], replayed=False)
    assert batch.token("cluster", TOPIC) == f"cluster:{TOPIC.hex()}:3:10-19"


def test_ranges_are_cut_at_the_most_rows() -> None:
    queue = pending()
    queue.add(0, some(5, 4))
    fullness = [queue.full]
    (first,) = queue.take({})
    assert (first.first, first.last, len(first.records)) == (5, 7, 3)
    assert [*fullness, queue.full] == [True, False]
    (second,) = queue.take({})
    assert (second.first, second.last) == (8, 8)
    assert queue.empty
    assert queue.take({}) == []


def test_ranges_are_cut_at_the_most_bytes_but_hold_one_record() -> None:
    queue = pending(max_rows=100, max_bytes=1000)
    queue.add(0, [Record(0, b"x" * 5000), Record(1, b"x" * 600), Record(2, b"x" * 600)])
    assert [queue.take({})[0].last for _ in range(3)] == [0, 1, 2]


def test_each_partition_has_its_own_range() -> None:
    queue = pending()
    queue.add(0, some(0, 2))
    queue.add(1, some(7, 1))
    assert [(r.partition, r.first, r.last) for r in queue.take({})] == [(0, 0, 1), (1, 7, 7)]


def test_a_replay_is_given_out_exactly_as_it_was() -> None:
    queue = Pending(3, 1000)
    queue.assign(0, (10, 17))  # larger than a range may be now
    queue.add(0, some(10, 6))
    assert queue.take({0: 16}) == []
    assert not queue.full
    queue.add(0, some(16, 4))
    (replay,) = queue.take({0: 20})
    assert (replay.first, replay.last, len(replay.records), replay.replayed) == (10, 17, 8, True)
    (rest,) = queue.take({0: 20})
    assert (rest.first, rest.last, rest.replayed) == (18, 19, False)


def test_a_replay_whose_records_are_gone_keeps_its_name() -> None:
    queue = Pending(3, 1000)
    queue.assign(0, (10, 12))
    queue.add(0, some(14, 1))
    (replay,) = queue.take({0: 15})
    assert (replay.first, replay.last, replay.records) == (10, 12, [])


def test_records_of_a_partition_that_was_taken_away_are_dropped() -> None:
    queue = pending()
    queue.add(0, some(0, 2))
    queue.clear()
    queue.add(0, some(2, 2))
    assert queue.empty
    assert queue.take({}) == []


@given(
    sizes=st.lists(st.integers(0, 400), max_size=60),
    cuts=st.lists(st.integers(1, 9), max_size=20),
    max_rows=st.integers(1, 9),
)
def test_every_record_is_taken_once_and_in_order(
    sizes: list[int], cuts: list[int], max_rows: int
) -> None:
    records = [Record(offset, b"x" * size) for offset, size in enumerate(sizes)]
    queue = Pending(max_rows, 1000)
    queue.assign(0, None)
    taken: list[object] = []
    at = 0
    for cut in [*cuts, len(records)]:
        queue.add(0, records[at : at + cut])
        at += cut
        for batch in queue.take({}):
            assert 1 <= len(batch.records) <= max_rows
            assert [batch.first, batch.last] == [batch.records[0].offset, batch.records[-1].offset]
            taken += batch.records
    while not queue.empty:
        taken += queue.take({})[0].records
    assert taken == records
