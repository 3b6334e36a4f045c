"""The vault in the real engine: written once, destroyed on a tombstone, shown to few."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import UUID

import httpx
import pytest

from schemas.codec import Archive
from schemas.events import KeyWraps, Wrap
from schemas.sealing import unwrap
from schemas.settings import ClickHouseSink, SettingsError
from sinks.clickhouse import ClickHouse
from sinks.metrics import Metrics
from sinks.ranges import Range
from sinks.reader import Reader
from sinks.store import Store
from sinks.vault import Boxes, Wraps
from tests.sinks.conftest import TOKEN, TOPIC_ID, VAULT_TOKEN, settings_in
from tests.sinks.recorded import Record
from tests.sinks.sealing import Gateway
from tests.sinks.test_reader import serving

pytestmark = pytest.mark.integration


@pytest.fixture
def clickhouse(store: Store) -> Iterator[ClickHouse]:
    with ThreadPoolExecutor(1) as thread:
        yield ClickHouse(store, thread, "gatebook.masked", Metrics("test"))


@pytest.fixture
def url(store: Store, tmp_path: Path) -> Iterator[str]:
    del store  # it has the engine open
    with serving(Reader(settings_in(tmp_path))) as made:
        yield made


def ask(url: str, sql: str, token: str = VAULT_TOKEN) -> str:
    answer = httpx.post(
        url, content=sql, headers={"X-ClickHouse-Key": token}, timeout=30, trust_env=False
    )
    return answer.text.strip()


def write(sink: Boxes | Wraps, records: list[Record], token: str) -> None:
    batch = Range(0, records[0].offset, records[-1].offset, records, replayed=False)
    assert asyncio.run(sink.write(batch, TOPIC_ID, token)) == []


def test_boxes_are_written_once_and_shown_to_holders_of_the_vaults_token(
    clickhouse: ClickHouse, url: str
) -> None:
    gateway = Gateway()
    for number in range(20):
        gateway.requested(f"select {number}")
    for _ in range(3):
        write(Boxes(clickhouse), gateway.records, "first")
    assert ask(url, "SELECT count(), uniqExact(event_id) FROM vault_boxes") == "20\t20"
    for sql in (
        "SELECT count() FROM vault_boxes",
        "SELECT count() FROM merge('audit', 'vault_.*')",
        "WITH t AS (SELECT payload FROM audit.vault_boxes) SELECT count() FROM t",
    ):
        assert ask(url, sql, TOKEN) == "0", sql
    refused = ask(url, "SELECT * FROM vault_boxes SETTINGS log_comment = 'vault'", TOKEN)
    assert "READONLY" in refused
    asked = httpx.post(
        f"{url}/?log_comment=vault",
        content="SELECT count() FROM vault_boxes",
        headers={"X-ClickHouse-Key": TOKEN},
        trust_env=False,
    )
    assert asked.text.strip() == "0"


def test_a_tombstone_deletes_a_keys_wraps_and_no_others(clickhouse: ClickHouse, url: str) -> None:
    gone, kept = Gateway(), Gateway()
    write(Wraps(clickhouse), [gone.wraps(0), kept.wraps(1)], "first")
    count = "SELECT count() FROM vault_wraps FINAL"
    assert (ask(url, count), ask(url, count, TOKEN)) == ("4", "0")
    for _ in range(2):
        write(Wraps(clickhouse), [gone.tombstone(2)], "second")
    assert ask(url, "SELECT DISTINCT key_id FROM vault_wraps FINAL") == str(
        UUID(bytes=kept.context.key_id)
    )
    parts = "SELECT sum(rows) FROM system.parts WHERE active AND table = 'vault_wraps'"
    assert ask(url, parts) == "2"


def test_a_wrap_that_came_after_a_tombstone_stays(clickhouse: ClickHouse, url: str) -> None:
    gateway = Gateway()
    write(Wraps(clickhouse), [gateway.tombstone(3), gateway.wraps(4)], "first")
    # Sent in once more, as after a crash.
    write(Wraps(clickhouse), [gateway.tombstone(3), gateway.wraps(4)], "first")
    assert ask(url, "SELECT count() FROM vault_wraps FINAL") == "2"


def test_what_is_kept_opens_with_an_auditors_key(clickhouse: ClickHouse, url: str) -> None:
    gateway = Gateway()
    write(Wraps(clickhouse), [gateway.wraps(0)], "first")
    kept = ask(url, "SELECT hex(ciphertext) FROM vault_wraps FINAL WHERE recipient = 'carol'")
    wraps = KeyWraps(gateway.context.key_id, [Wrap("carol", bytes.fromhex(kept))])
    assert unwrap(wraps, "carol", gateway.carol) == gateway.key


def test_the_sink_may_delete_nothing_but_wraps(store: Store) -> None:
    for table in ("vault_boxes", "audit_events"):
        with pytest.raises(Exception, match="ACCESS_DENIED"):
            store._eraser.command(f"ALTER TABLE audit.{table} DELETE WHERE 1")


def test_one_token_for_both_is_refused(chosen: ClickHouseSink, tmp_path: Path) -> None:
    (tmp_path / "vault-token").write_text(TOKEN)
    with pytest.raises(SettingsError, match="vault_token"):
        Reader(chosen)


def test_every_box_is_decodable_from_the_row_alone(clickhouse: ClickHouse, url: str) -> None:
    gateway = Gateway()
    event = gateway.requested("select 1")
    write(Boxes(clickhouse), gateway.records, "first")
    digest, payload = ask(url, "SELECT hex(schema_sha256), hex(payload) FROM vault_boxes").split()
    decoded, _ = Archive().decode(bytes.fromhex(digest), bytes.fromhex(payload))
    assert decoded == event


def test_what_is_read_again_from_before_a_tombstone_brings_no_wrap_back(
    clickhouse: ClickHouse, url: str
) -> None:
    gone, kept = Gateway(), Gateway()
    count = "SELECT count() FROM vault_wraps FINAL"
    write(Wraps(clickhouse), [gone.wraps(0), kept.wraps(1), gone.tombstone(2)], "0-2")
    # Offsets that somebody put back, and other ranges than before.
    for records in ([gone.wraps(0)], [gone.wraps(0), kept.wraps(1)]):
        write(Wraps(clickhouse), records, f"again-{len(records)}")
        assert ask(url, f"{count} WHERE key_id = '{UUID(bytes=gone.context.key_id)}'") == "0"
    assert ask(url, count) == "2"
