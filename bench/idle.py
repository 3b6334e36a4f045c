"""Memory of the gateway for each signed-in session that does nothing, in clear and in TLS.

As many as the embedded PostgreSQL takes connections. The first sessions also pay for what is made
once: they do not count.
"""

from __future__ import annotations

import psycopg

from bench.rig import rss_bytes, stack

WARM = 30
SESSIONS = 220


def main() -> None:
    """Print the figures."""
    for sslmode in ("disable", "require"):
        with stack() as rig:
            url = rig.gateway.url.replace("sslmode=disable", f"sslmode={sslmode}")
            (pid,) = rig.gateway.pids
            held = [_used(url) for _ in range(WARM)]
            before = rss_bytes(pid)
            held += [_used(url) for _ in range(SESSIONS)]
            grown = rss_bytes(pid) - before
            print(f"sslmode={sslmode}: {grown / SESSIONS / 1024:.0f} KB a session", flush=True)
            for connection in held:
                connection.close()


def _used(url: str) -> psycopg.Connection[tuple[int]]:
    connection = psycopg.connect(url, autocommit=True)
    connection.execute("select 1")
    return connection
