"""pgbench -S through the gateway, against a direct connection and pgbouncer.

Every run is repeated in turn, direct, pgbouncer, gateway, so that a noisy machine is noisy for
all of them; the best of the rounds counts.
"""

from __future__ import annotations

from bench.rig import Endpoint, Pgbench, pgbench, pgbouncer, stack

ROUNDS = 3
SECONDS = 4


def _rounds(ends: list[Endpoint], clients: int, *arguments: str) -> dict[str, Pgbench]:
    best: dict[str, Pgbench] = {}
    for _ in range(ROUNDS):
        for end in ends:
            result = pgbench(end, clients, SECONDS, *arguments)
            if end.name not in best or result.tps > best[end.name].tps:
                best[end.name] = result
    return best


def main() -> None:
    """Print the figures."""
    with stack() as rig, pgbouncer(rig.target) as peer:
        ends = [rig.direct, *([peer] if peer else []), rig.gateway]
        for mode in ("simple", "prepared"):
            for clients in (1, 8, 32):
                best = _rounds(ends, clients, "-M", mode)
                direct, gateway = best["direct"], best["gateway"]
                line = f"{mode:8} {clients:2} clients:"
                for name, result in best.items():
                    line += f" {name} {result.tps:,.0f}/s"
                line += f"; gateway/direct {gateway.tps / direct.tps:.2f}"
                line += f"; CPU us/tx gateway {gateway.cpu_us:.0f}"
                if peer:
                    other = best["pgbouncer"]
                    line += f", pgbouncer {other.cpu_us:.0f}, {gateway.cpu_us / other.cpu_us:.1f}x"
                print(line, flush=True)
                if clients == 1:
                    for share in (0.5, 0.99):
                        added = gateway.percentile(share) - direct.percentile(share)
                        print(
                            f"{mode:8}  1 client: p{share * 100:.0f} direct"
                            f" {direct.percentile(share):.2f} ms, added {added:.2f} ms",
                            flush=True,
                        )
