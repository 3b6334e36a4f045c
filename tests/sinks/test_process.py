"""`python -m sinks clickhouse`: what its supervisor and its operator see."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
import yaml

from tests.sinks.process import TOKEN, Sink, wait

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def sink(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sink]:
    made = Sink(tmp_path_factory.mktemp("sink"), kafka, f"group-{uuid4()}")
    made.start()
    yield made
    assert made.stop() == 0


def run(arguments: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sinks", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **environment},
        check=False,
    )


def test_it_announces_its_addresses_and_becomes_ready(sink: Sink) -> None:
    assert set(sink.addresses) == {"http_url", "metrics_url"}
    wait(lambda: sink.get("/readyz").status_code == 200, sink)
    assert sink.get("/healthz").text == "ok\n"
    assert 'gatebook_sink_ready{sink="clickhouse"} 1.0' in sink.get("/metrics").text
    assert sink.ask("SELECT name FROM schema_migrations ORDER BY version LIMIT 1") == "audit_events"


def test_a_second_process_may_not_open_the_same_history(sink: Sink) -> None:
    second = run(["clickhouse", "--config", str(sink.config)])
    assert second.returncode == 1
    assert '"stopped"' in second.stderr
    assert sink.ask("SELECT 1") == "1"


def test_its_log_and_its_arguments_hold_no_secret_and_no_query(sink: Sink) -> None:
    sink.ask("SELECT 'a query of mine'")
    httpx.get(sink.addresses["http_url"], params={"query": "SELECT 'another'", "password": "guess"})
    log = sink.log.read_text()
    assert "of mine" not in log
    assert "another" not in log
    assert "guess" not in log
    assert TOKEN not in log
    assert sink.process is not None
    assert TOKEN not in Path(f"/proc/{sink.process.pid}/cmdline").read_text()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"http_host": "0.0.0.0"}, "loopback"),
        ({"http_token": {"env": "NOT_SET_ANYWHERE"}}, "NOT_SET_ANYWHERE"),
        ({"no_such_setting": 1}, "no_such_setting"),
        ({"batch_rows": 0}, "batch_rows"),
    ],
)
def test_wrong_settings_end_it_with_status_2(
    tmp_path: Path, kafka: str, changes: dict[str, object], said: str
) -> None:
    made = Sink(tmp_path, kafka, "group", **changes)
    ended = run(["clickhouse", "--config", str(made.config)])
    assert ended.returncode == 2, ended.stderr
    assert said in ended.stderr


def test_without_kafka_it_is_not_ready_and_the_history_can_still_be_read(tmp_path: Path) -> None:
    sink = Sink(tmp_path, "127.0.0.1:1", "group")
    sink.start()
    assert sink.ask("SELECT count() FROM queries") == "0"
    wait(lambda: "Kafka unavailable" in sink.log.read_text(), sink)
    assert sink.get("/readyz").status_code == 503
    assert sink.get("/healthz").status_code == 200
    assert sink.stop() == 0


def test_settings_come_from_the_environment_too(tmp_path: Path) -> None:
    config = tmp_path / "gatebook.yaml"
    config.write_text(yaml.safe_dump({"clickhouse": {"path": str(tmp_path / "ch")}}))
    ended = run(["clickhouse", "--config", str(config)], GATEBOOK_CLICKHOUSE__BATCH_ROWS="-1")
    assert ended.returncode == 2
    assert "batch_rows" in ended.stderr
