"""Blind verification of a pgbench-like mix: events per second of CPU, from Kafka and the vault.

A broker, the mask processor and the ClickHouse sink run as in a stack; once everything is in the
history, `gatebook verify --masks` runs in this process, which alone is measured: it opens each
original, masks it again, and compares it with its record and its row.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaProducer

from bench.mask import fill
from cli import blind_run, clickhouse, originals
from cli.blind import Judge, Keys, Scope
from cli.blind_tables import Tables
from infra.devstack.plan import Options
from infra.devstack.state import StateDir
from processors.mask import Masker
from schemas.sealing import Recipients
from schemas.settings import Settings, load
from tests.conftest import running

STATEMENTS = 20_000
EVENTS = 4 * STATEMENTS
ROUNDS = 2
GOAL = 20_000


def main() -> None:
    """Print the figures."""
    with tempfile.TemporaryDirectory() as folder:
        state = StateDir.at(Path(folder))
        for document in running(Path(folder), Options(only=("kafka", "mask", "clickhouse"))):
            settings = load(state.config_file)
            asyncio.run(_write(settings))
            _until_stored(document)
            _verified(state, settings, document, "kafka")  # imports, and what is compiled once
            for source in ("kafka", "vault"):
                took = min(_verified(state, settings, document, source) for _ in range(ROUNDS))
                print(
                    f"from {source}: {1 / took:,.0f} events per second of CPU"
                    f" ({took * 1e6:.1f} us each), {1 / took / GOAL:.2f} of the goal"
                )


def _verified(state: StateDir, settings: Settings, document: dict[str, Any], source: str) -> float:
    scope = Scope(0, time.time_ns() // 1000)
    tables = Tables(document, scope)
    keys = Keys(originals.private_of(state.keys / "carol.pem"))
    applied = blind_run.applied(settings)
    judge = Judge([Masker(applied)], keys, scope)
    run = blind_run.Run(
        judge, keys, tables=tables, applied=[applied], settings=settings, patience=10
    )
    began = time.process_time()
    asyncio.run(run.through(source))
    took = time.process_time() - began
    assert judge.verdict.exit_code == 0, judge.verdict
    assert judge.verdict.counts["events"] >= EVENTS // 2
    return took / judge.verdict.counts["events"]


async def _write(settings: Settings) -> None:
    recipients = Recipients.of(
        (each.name, each.public_key.read_bytes()) for each in settings.recipients
    )
    producer = AIOKafkaProducer(
        bootstrap_servers=settings.kafka.bootstrap_servers, acks="all", linger_ms=5
    )
    await producer.start()
    await fill(producer, recipients, STATEMENTS)
    await producer.stop()


def _until_stored(document: dict[str, Any]) -> None:
    deadline = time.monotonic() + 120
    for table, rows in (("audit_events", EVENTS), ("vault_boxes", EVENTS // 2)):
        while True:
            count = clickhouse.query(document, f"SELECT count() FROM {table}", "TSV", vault=True)
            if int(count) >= rows:
                break
            assert time.monotonic() < deadline, f"{count.strip()} rows in {table}"
            time.sleep(0.5)


if __name__ == "__main__":
    main()
