"""From a query's end to its row in ClickHouse SQL."""

from __future__ import annotations

import time
from pathlib import Path

import clickhouse_connect
import psycopg

from bench.rig import stack

QUERIES = 100


def main() -> None:
    """Print the figures."""
    with (
        stack("mask", "clickhouse") as rig,
        psycopg.connect(rig.gateway.url, autocommit=True) as pg,
    ):
        clickhouse = rig.document["clickhouse"]
        client = clickhouse_connect.get_client(
            dsn=clickhouse["url"] + "/audit",
            username=clickhouse["user"],
            password=Path(clickhouse["token_file"]).read_text().strip(),
        )
        delays = []
        for number in range(QUERIES):
            marker = f"visible_{number}"
            pg.execute(f"SELECT 1 AS {marker}".encode())
            done = time.monotonic()
            seen = (
                "SELECT count() FROM queries WHERE outcome = 'completed' AND "
                f"statement = 'SELECT 1 AS {marker}'"
            )
            while not client.query(seen).result_rows[0][0]:
                time.sleep(0.01)
            delays.append(time.monotonic() - done)
        delays.sort()
        p50, p99 = delays[len(delays) // 2], delays[int(len(delays) * 0.99)]
        print(f"{QUERIES} queries: visible after p50 {p50:.2f} s, p99 {p99:.2f} s")
