"""A second gateway of a stack, with settings of its own."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from tests.e2e.stack import Stack, until


@contextlib.contextmanager
def another_gateway(stack: Stack, folder: Path, change: Any) -> Iterator[tuple[str, int]]:
    """A gateway of the same stack with other settings: its address."""
    settings = yaml.safe_load(stack.state.config_file.read_text())
    settings["run_dir"] = str(folder)
    settings["gateway"] |= {"name": "another", "metrics_port": 0}
    settings["gateway"]["postgres"]["port"] = 0
    change(settings)
    config = folder / "gateway.yaml"
    config.write_text(yaml.safe_dump(settings))
    process = subprocess.Popen(
        [sys.executable, "-m", "gateway", "--config", str(config)],
        stderr=(folder / "gateway.log").open("w"),
        cwd=Path(__file__).parents[2],
    )
    try:
        announced = folder / "another.json"
        until(announced.exists, timeout_s=30)
        found = json.loads(announced.read_text())["postgres"]
        yield found["host"], found["port"]
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
