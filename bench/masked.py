"""1,000,000 rows of six columns, one masked as it passes, recorded and sealed, against a TCP proxy
that only moves bytes.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from bench.rig import passthrough, pgbench, run, stack
from cli.tokens import demo_token

ROUNDS = 3
QUERY = (
    "SELECT c.id, c.name, c.email, c.city, c.created_at, n.n"
    " FROM customers c, generate_series(1, 1000) AS n(n);"
)
"""`email` is masked for alice of support, clear for bob of dba."""


def main() -> None:
    """Print the figures."""
    with stack() as rig, passthrough(rig.target) as plain, tempfile.TemporaryDirectory() as folder:
        script = Path(folder, "rows.sql")
        script.write_text(QUERY)
        alice = demo_token(rig.state, rig.document, "alice")
        masked_url = rig.gateway.url.replace(f"bob:{rig.token}@", f"alice:{alice}@")
        ends = [
            plain,
            replace(rig.gateway, name="clear"),
            replace(rig.gateway, name="masked", url=masked_url),
        ]
        shown = run(["psql", "-XAtc", f"{QUERY.rstrip(';')} LIMIT 3", masked_url])
        if shown.count("***@") != 3:
            raise RuntimeError("nothing was masked")
        best: dict[str, tuple[float, float]] = {}
        for _ in range(ROUNDS):
            for end in ends:
                result = pgbench(end, 1, 1, "-f", str(script), select=False)
                took = result.latencies[0]
                if end.name not in best or took < best[end.name][0]:
                    best[end.name] = took, result.cpu_us / 1e6
        fastest = best["pass-through"][0]
        for name, (took, cpu) in best.items():
            print(f"{name:12} {took / 1e6:.2f} s, {fastest / took:.2f} of it, CPU {cpu:.2f} s")
