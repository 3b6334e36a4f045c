"""What a test does with a running stack: sign in, ask the history, look at its processes."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import httpx
import psycopg

from cli import clickhouse, psql, tokens
from infra.devstack import status
from infra.devstack.state import StateDir, read_json

T = TypeVar("T")


def until(condition: Callable[[], T | None], timeout_s: float = 60, pause_s: float = 0.1) -> T:
    """The first true answer of `condition`; fails when there is none within the time."""
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < deadline, "not within the time"
        time.sleep(pause_s)
    return found


class Stack:
    """A stack that runs in `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.state = StateDir.at(root)
        self._tokens: dict[str, str] = {}

    @property
    def document(self) -> dict[str, Any]:
        """The status document, as it is now."""
        document = status.read(self.state)
        assert document is not None
        # What runs in containers instead (tests/containers) is not the supervisor's to know.
        return {**document, **(read_json(self.state.run / "containers.json") or {})}

    def process(self, name: str) -> dict[str, Any]:
        """What the status says of one process."""
        [found] = [p for p in self.document["processes"] if p["name"] == name]
        return dict(found)

    def pid(self, name: str) -> int:
        """The process's pid; waits while it is being started again."""
        return int(until(lambda: self.process(name)["pid"]))

    def send(self, name: str, number: signal.Signals) -> None:
        """Signal a process of the stack."""
        os.kill(self.pid(name), number)

    def served_again(self, name: str, restarts: int) -> bool:
        """Whether it was restarted more often than `restarts` and serves."""
        process = self.process(name)
        return bool(process["healthy"] and process["restarts"] > restarts)

    def token(self, user: str) -> str:
        """An access token of a demo person."""
        if user not in self._tokens:
            self._tokens[user] = tokens.demo_token(self.state, self.document, user)
        return self._tokens[user]

    def environment(self, user: str, gateway: int = 1, target: str = "shop") -> dict[str, str]:
        """Environment of a libpq client that signs in as `user`."""
        return psql.environment(self.document, target, user, self.token(user), gateway)

    def connect(
        self, user: str = "bob", gateway: int = 1, **options: Any
    ) -> psycopg.Connection[Any]:
        """A session through a gateway, in autocommit unless `options` say otherwise."""
        address = self.document["gateways"][gateway - 1]["postgres"]
        arguments = {
            "host": "localhost",
            "hostaddr": address["host"],
            "port": address["port"],
            "user": user,
            "password": self.token(user),
            "dbname": "shop",
            "sslmode": "verify-full",
            "sslrootcert": self.document["ca_file"],
            "connect_timeout": 30,
            "autocommit": True,
        }
        return psycopg.connect(**{**arguments, **options})

    def direct(self) -> psycopg.Connection[Any]:
        """A session at the target, past the gateways."""
        return psycopg.connect(self.document["targets"][0]["direct_conninfo"], autocommit=True)

    def history(self, sql: str) -> list[dict[str, Any]]:
        """Rows of a ClickHouse query."""
        return clickhouse.rows(self.document, sql)

    def ready(self, gateway: int = 1) -> int:
        """HTTP status of a gateway's /readyz."""
        url = self.document["gateways"][gateway - 1]["metrics_url"]
        return httpx.get(url.replace("/metrics", "/readyz"), trust_env=False).status_code

    def metric(self, name: str, gateway: int = 1) -> float:
        """A gateway's metric without labels."""
        url = self.document["gateways"][gateway - 1]["metrics_url"]
        lines = httpx.get(url, trust_env=False).text.splitlines()
        [value] = [line.split(" ")[1] for line in lines if line.startswith(f"{name} ")]
        return float(value)

    def resident_bytes(self, name: str) -> int:
        """Memory a process holds now."""
        text = Path(f"/proc/{self.pid(name)}/status").read_text()
        [line] = [line for line in text.splitlines() if line.startswith("VmRSS:")]
        return int(line.split()[1]) * 1024

    def log(self, name: str) -> str:
        """All that a process has logged."""
        return Path(self.process(name)["log_file"]).read_text(errors="replace")

    def open_files(self, name: str) -> int:
        """How many files and sockets a process has open."""
        return len(list(Path(f"/proc/{self.pid(name)}/fd").iterdir()))
