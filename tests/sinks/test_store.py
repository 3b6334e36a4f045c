"""Inserts that happen once, and an engine that only appends."""

from __future__ import annotations

import os
from uuid import UUID

import pytest
from clickhouse_connect.driver.exceptions import DatabaseError

from schemas.settings import ClickHouseSink
from sinks.store import Store, StoreError, StoreUnavailable
from tests.sinks.conftest import TOPIC_ID, Ask, Write
from tests.sinks.recorded import NOON, Stream, context, many

pytestmark = pytest.mark.integration

MONTH = 31 * 86_400_000_000


def test_the_same_insert_twice_is_stored_once(write: Write, ask: Ask) -> None:
    events = many(250, "gateway-1/a/0")
    for _ in range(3):
        write(events)
    assert ask("SELECT count(), uniqExact(event_id) FROM audit_events") == [(1000, 1000)]


def test_values_come_back_as_they_went_in(write: Write, ask: Ask) -> None:
    who = context(ip="2001:db8::5", groups=["support", "dba"])
    event = Stream().event(
        "Responded", who, statement_id=os.urandom(16), rows=2, byte_count=9,
        response_rows='[{"é": "\\u0000"}]', masks=["pii:email"],
    )  # fmt: skip
    write([event], first=41, partition=3)
    columns = (
        "event_id, session_id, statement_id, prepared_id, client_ip, client_port, groups, rows, "
        "bytes, response_rows, masks, topic_id, kafka_partition, kafka_offset, event_hash, "
        "toUnixTimestamp64Micro(ts)"
    )
    assert ask(f"SELECT {columns} FROM audit_events") == [
        (
            UUID(bytes=event.event_id),
            UUID(bytes=who.session_id),
            UUID(bytes=event.statement_id),
            UUID(int=0),
            *ask("SELECT toIPv6('2001:db8::5')")[0],
            51234,
            ["support", "dba"],
            2,
            9,
            '[{"é": "\\u0000"}]',
            ["pii:email"],
            UUID(bytes=TOPIC_ID),
            3,
            41,
            event.event_hash,
            NOON,
        )
    ]


def test_a_partial_insert_over_two_months_is_completed_by_its_repetition(
    write: Write, ask: Ask
) -> None:
    # Each month is a part of its own, and a crash may come between them.
    stream = Stream()
    for number in range(20):
        stream.event("Requested", context(), at=NOON + (number % 2) * MONTH)
    first_month = [event for event in stream.events if event.at < NOON + MONTH]
    write(first_month, token="t")
    assert ask("SELECT count() FROM audit_events") == [(10,)]
    write(stream.events, token="t")
    write(stream.events, token="t")
    assert ask("SELECT count(), uniqExact(event_id) FROM audit_events") == [(20, 20)]


def test_wrong_clocks_do_not_stop_the_history(write: Write, ask: Ask) -> None:
    stream = Stream()
    for year in range(1901, 2299):
        stream.event("Requested", context(), at=(year - 1970) * 31_557_600_000_000)
    write(stream.events)
    assert ask("SELECT count() FROM audit_events") == [(398,)]


def test_existing_events_are_found_outside_their_own_range(store: Store, write: Write) -> None:
    events = many(25, "gateway-1/a/0")
    write(events, first=100)
    ids, times = [event.event_id for event in events], [event.at for event in events]
    strangers = [os.urandom(16) for _ in events]
    outside = (TOPIC_ID, 0, 0, 99)
    assert store.existing(ids, times, outside) == set(ids)
    assert store.existing(strangers, times, outside) == set()
    assert store.existing(ids, times, (TOPIC_ID, 0, 100, 199)) == set()
    assert store.existing(ids, times, (TOPIC_ID, 0, 100, 149)) == set(ids[50:])
    assert store.existing(ids, times, (TOPIC_ID, 1, 100, 199)) == set(ids)
    assert store.existing(ids, times, (bytes(16), 0, 100, 199)) == set(ids)


def test_high_water_is_each_partitions_own_and_every_older_topics(
    store: Store, write: Write
) -> None:
    write(many(3, "gateway-1/a/0"), partition=0)
    write(many(5, "gateway-1/b/0"), partition=1)
    assert store.high_water(TOPIC_ID, 0) == {"gateway-1/a/0": 11}
    assert store.high_water(TOPIC_ID, 1) == {"gateway-1/b/0": 19}
    assert store.high_water(TOPIC_ID, 2) == {}
    assert store.high_water(bytes(16), 2) == {"gateway-1/a/0": 11, "gateway-1/b/0": 19}


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER TABLE audit_events DELETE WHERE 1",
        "ALTER TABLE audit_events UPDATE statement = '' WHERE 1",
        "DELETE FROM audit_events WHERE 1",
        "TRUNCATE TABLE audit_events",
        "DROP TABLE audit_events",
        "DROP DATABASE audit",
        "DETACH TABLE audit_events",
        "RENAME TABLE audit_events TO other",
        "OPTIMIZE TABLE audit_events FINAL",
        "ALTER TABLE audit_events MODIFY TTL now()",
        "ALTER TABLE audit_events MODIFY SETTING non_replicated_deduplication_window = 0",
        "CREATE OR REPLACE VIEW queries AS SELECT 1",
        "INSERT INTO schema_migrations (version, name, checksum) VALUES (9, 'x', 'y')",
        "CREATE TABLE other (x UInt8) ENGINE = Memory",
        "SYSTEM STOP MERGES audit_events",
        "SELECT * FROM file('/etc/passwd', 'LineAsString')",
        "SELECT * FROM url('http://127.0.0.1:1/', 'CSV', 'x String')",
        "GRANT ALL ON *.* TO default",
    ],
)
def test_the_sinks_own_handle_can_only_append(store: Store, write: Write, statement: str) -> None:
    write(many(2, "gateway-1/a/0"))
    with pytest.raises(DatabaseError, match=r"ACCESS_DENIED|QUERY_IS_PROHIBITED"):
        store._client.command(statement)
    assert store._client.query("SELECT count() FROM audit_events").result_rows == [(8,)]


def test_what_was_written_is_there_after_opening_again(
    chosen: ClickHouseSink, store: Store, write: Write
) -> None:
    write(many(2, "gateway-1/a/0"))
    store.close()
    again = Store.open(chosen)
    assert again.high_water(TOPIC_ID, 0) == {"gateway-1/a/0": 7}
    again.close()


def test_a_server_that_is_down_is_unavailable_not_broken() -> None:
    with pytest.raises(StoreUnavailable):
        Store.open(ClickHouseSink.model_validate({"url": "http://127.0.0.1:1"}))


def test_errors_name_the_number_and_quote_nothing(store: Store) -> None:
    import pyarrow as pa

    with pytest.raises(StoreError) as raised:
        store.insert(pa.table({"no_such_column": ["secret"]}), "t")
    assert not isinstance(raised.value, StoreUnavailable)
    assert "secret" not in str(raised.value)
    assert raised.value.__cause__ is None


def test_the_folder_is_private_and_keeps_no_batches(chosen: ClickHouseSink, write: Write) -> None:
    write(many(2, "gateway-1/a/0"))
    assert (chosen.path / "data").stat().st_mode & 0o077 == 0
    assert list((chosen.path / "tmp").iterdir()) == []
