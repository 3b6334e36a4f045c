"""The demo: every claim it prints is checked by itself, so that its exit code is the test."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.e2e


def test_every_claim_of_the_demo_holds_and_nothing_is_left(tmp_path: Path) -> None:
    """On a machine with nothing installed: PATH leads nowhere."""
    done = subprocess.run(
        [str(Path(sys.executable).with_name("gatebook")), "demo"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PATH": "/nowhere"},
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    held = re.search(r"(\d+) of (\d+) claims hold", done.stdout)
    assert held is not None
    assert held[1] == held[2]
    assert int(held[1]) == done.stdout.count("✓") >= 18
    # What it says to type can be typed.
    assert f"{Path(sys.executable).with_name('gatebook')} up --detach" in done.stdout
    assert list(tmp_path.iterdir()) == []
