"""The same store against a ClickHouse server by URL."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from schemas.settings import ClickHouseSink
from sinks.store import Store, StoreUnavailable
from tests.sinks.conftest import TOPIC_ID, insert
from tests.sinks.recorded import many
from tests.sinks.server import PASSWORD

pytestmark = pytest.mark.integration


class Process:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.sinks.server", str(self.folder), str(self.port)]
        )
        deadline = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                assert self.process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.05)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Process]:
    made = Process(tmp_path / "server")
    made.start()
    yield made
    made.kill()


@pytest.fixture
def settings(server: Process, monkeypatch: pytest.MonkeyPatch) -> ClickHouseSink:
    monkeypatch.setenv("CLICKHOUSE_PASSWORD_FOR_TEST", PASSWORD)
    return ClickHouseSink.model_validate(
        {
            "url": f"http://127.0.0.1:{server.port}",
            "username": "sink",
            "password": {"env": "CLICKHOUSE_PASSWORD_FOR_TEST"},
        }
    )


def test_migrations_inserts_and_look_ups_go_over_http(settings: ClickHouseSink) -> None:
    store = Store.open(settings)
    events = many(250, "gateway-1/a/0")
    for _ in range(2):
        insert(store, events)
    assert store._client.query("SELECT count() FROM queries").result_rows == [(250,)]
    assert store._client.query("SELECT count() FROM audit_events").result_rows == [(1000,)]
    assert store.high_water(TOPIC_ID, 0) == {"gateway-1/a/0": 999}
    ids, times = [event.event_id for event in events], [event.at for event in events]
    assert store.existing(ids, times, (TOPIC_ID, 1, 0, 0)) == set(ids)
    assert store.existing([os.urandom(16)], times[:1], (TOPIC_ID, 1, 0, 0)) == set()
    store.close()
    again = Store.open(settings)
    assert again.high_water(TOPIC_ID, 0) == {"gateway-1/a/0": 999}
    again.close()


def test_a_server_that_dies_is_unavailable_and_then_there_again(
    server: Process, settings: ClickHouseSink
) -> None:
    store = Store.open(settings)
    events = many(25, "gateway-1/a/0")
    insert(store, events, token="t")
    server.kill()
    with pytest.raises(StoreUnavailable):
        insert(store, events, token="t")
    with pytest.raises(StoreUnavailable):
        store.high_water(TOPIC_ID, 0)
    server.start()
    insert(store, events, token="t")
    assert store._client.query("SELECT count() FROM audit_events").result_rows == [(100,)]
    store.close()
