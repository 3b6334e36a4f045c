"""`python -m sinks clickhouse` as its supervisor runs it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import yaml

TOKEN = "the reading token"


class Sink:
    """One history and the process that writes it; the process may be killed and started again."""

    def __init__(self, folder: Path, kafka: str, group: str, **clickhouse: Any) -> None:
        self.folder = folder
        token = folder / "token"
        token.write_text(TOKEN)
        document = {
            "kafka": {"bootstrap_servers": kafka},
            "clickhouse": {
                "path": str(folder / "ch"),
                "group_id": group,
                "http_port": 0,
                "http_token": {"file": str(token)},
                **clickhouse,
            },
            "run_dir": str(folder / "run"),
        }
        self.config = folder / "gatebook.yaml"
        self.config.write_text(yaml.safe_dump(document))
        self.log = folder / "log"
        self._addresses = folder / "run" / "clickhouse.json"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._addresses.unlink(missing_ok=True)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "sinks", "clickhouse", "--config", str(self.config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        wait(self._addresses.exists, self)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)

    @property
    def addresses(self) -> dict[str, str]:
        found: dict[str, str] = json.loads(self._addresses.read_text())
        return found

    def ask(self, sql: str, token: str = TOKEN) -> str:
        answer = httpx.post(
            self.addresses["http_url"],
            content=sql,
            headers={"X-ClickHouse-Key": token},
            timeout=60,
            trust_env=False,
        )
        answer.raise_for_status()
        return answer.text.strip()

    def get(self, path: str) -> httpx.Response:
        base = self.addresses["metrics_url"].removesuffix("/metrics")
        return httpx.get(f"{base}{path}", trust_env=False)

    def written(self, *sinks: str) -> int:
        """Records that this process has written, to the history if not said otherwise."""
        lines = self.get("/metrics").text.splitlines()
        name = "gatebook_sink_rows_total{"
        return sum(
            int(float(line.split()[-1]))
            for line in lines
            if line.startswith(name)
            and any(f'sink="{sink}"' in line for sink in sinks or ("clickhouse",))
        )


def wait(holds: Any, sink: Sink, seconds: float = 90) -> None:
    """Until the condition holds; the process must not end meanwhile."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert sink.process is not None
        assert sink.process.poll() is None, sink.log.read_text()[-3000:]
        assert time.monotonic() < deadline, sink.log.read_text()[-3000:]
        time.sleep(0.02)
