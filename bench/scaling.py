"""Two gateways against one: transactions for each second of the gateways' CPU.

Each gateway has the same number of clients. On a machine whose cores are all busy the rate itself
cannot double; what the gateways use for it says whether they get in each other's way.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from bench.rig import Endpoint, pgbench, stack

CLIENTS = 8
SECONDS = 4
ROUNDS = 4


def main() -> None:
    """Print the figures."""
    with stack(gateways=2) as rig, ThreadPoolExecutor() as threads:

        def cpu_us(ends: list[Endpoint]) -> float:
            runs = list(
                threads.map(lambda end: pgbench(end, CLIENTS, SECONDS, "-M", "prepared"), ends)
            )
            return sum(run.cpu_us * run.tps for run in runs) / sum(run.tps for run in runs)

        rounds = [(cpu_us(rig.gateways[:1]), cpu_us(rig.gateways)) for _ in range(ROUNDS)]
        one, two = min(one for one, _ in rounds), min(two for _, two in rounds)
        print(
            f"CPU us/tx: one gateway {one:.0f}, two {two:.0f};"
            f" two do {2 * one / two:.2f} times the work of one with twice its CPU",
            flush=True,
        )
