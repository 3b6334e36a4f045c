"""pgbench -S through a gateway with the guard rails on, against one permit for everything.

One gateway, one run: its folder of policies is changed in turn, and each set is in force before
pgbench begins. The best of the rounds counts.
"""

from __future__ import annotations

import subprocess
import tempfile
import time
from pathlib import Path

from bench.decide import guard_rails
from bench.rig import Endpoint, Pgbench, pgbench, stack

ROUNDS = 3
SECONDS = 4
CLIENTS = (1, 8, 32)
SETTINGS = """
gateway:
  policies: {folder}
  policies_reload_s: 1
  postgres: {{cleartext_loopback: true}}
"""
PERMIT = (
    "all.cedar",
    '@id("all") @unknown("permitted") permit (principal, action in [Action::"connect",'
    ' Action::"execute", Action::"see_clear"], resource);',
)
FORBIDDEN = "explain delete from pgbench_history"
"""By a guard rail; nothing comes of it where it is permitted."""
WITHIN_S = 30


def put(folder: Path, files: list[tuple[str, str]], gateway: Endpoint, refuses: bool) -> None:
    """These policies into the folder; returns once they are those in force."""
    for name, text in files:
        (folder / name).write_text(text)
    for path in folder.glob("*.cedar"):
        if path.name not in dict(files):
            path.unlink()
    deadline = time.monotonic() + WITHIN_S
    command = ["psql", "-XAtqc", FORBIDDEN, gateway.url]
    while (subprocess.run(command, capture_output=True, check=False).returncode != 0) != refuses:
        if time.monotonic() > deadline:
            raise RuntimeError("the policies are not in force")
        time.sleep(0.1)


def main() -> None:
    """Print the figures."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / PERMIT[0]).write_text(PERMIT[1])
        # pgbench says no LIMIT.
        rails = [file for file in guard_rails() if file[0] != "reads-with-limit.cedar"]
        sets = {"permit": [PERMIT], "guarded": [PERMIT, *rails]}
        with stack(settings=SETTINGS.format(folder=folder)) as rig:
            best: dict[tuple[str, int, str], Pgbench] = {}
            for _ in range(ROUNDS):
                for chosen, files in sets.items():
                    put(folder, files, rig.gateway, refuses=chosen == "guarded")
                    for mode in ("simple", "prepared"):
                        for clients in CLIENTS:
                            result = pgbench(rig.gateway, clients, SECONDS, "-M", mode)
                            key = (mode, clients, chosen)
                            if key not in best or result.tps > best[key].tps:
                                best[key] = result
            for mode in ("simple", "prepared"):
                for clients in CLIENTS:
                    permit, guarded = (best[mode, clients, chosen] for chosen in sets)
                    print(
                        f"{mode:8} {clients:2} clients: one permit {permit.tps:,.0f}/s, guard rails"
                        f" {guarded.tps:,.0f}/s, {guarded.tps / permit.tps:.2f} of it; CPU us/tx"
                        f" {permit.cpu_us:.0f} and {guarded.cpu_us:.0f}",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
