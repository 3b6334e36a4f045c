"""A result of 1,000,000 rows, recorded, against a TCP proxy that only moves bytes."""

from __future__ import annotations

import tempfile
from pathlib import Path

from bench.rig import Endpoint, passthrough, pgbench, rss_bytes, stack

ROUNDS = 3
QUERY = "SELECT aid, bid, abalance, filler FROM pgbench_accounts;"
BYTES = 1_000_000 * 132


def main() -> None:
    """Print the figures."""
    with stack() as rig, passthrough(rig.target) as plain, tempfile.TemporaryDirectory() as folder:
        script = Path(folder, "rows.sql")
        script.write_text(QUERY)
        best: dict[str, tuple[float, float]] = {}
        ends: list[Endpoint] = [rig.direct, plain, rig.gateway]
        for _ in range(ROUNDS):
            for end in ends:
                result = pgbench(end, 1, 1, "-f", str(script), select=False)
                speed = BYTES / result.latencies[0]
                if speed > best.get(end.name, (0.0, 0.0))[0]:
                    best[end.name] = speed, result.cpu_us / 1e6
        for name, (speed, cpu) in best.items():
            print(f"{name:12} {speed:6.0f} MB/s, CPU {cpu:.2f} s", flush=True)
        ratio = best["gateway"][0] / best["pass-through"][0]
        print(f"gateway/pass-through {ratio:.2f}; RSS {rss_bytes(rig.gateway.pids[0]) >> 20} MiB")
