"""Scripts that read classified values by every place that takes an expression or a name.

One script a line of interference.txt, its statements apart by `;;`. They need not be allowed: what
they show must not depend on what is classified.
"""

from __future__ import annotations

from pathlib import Path

from tests.redteam.watching import Script


def scripts() -> tuple[Script, ...]:
    """Every script: its statements."""
    lines = Path(__file__).with_suffix(".txt").read_text().splitlines()
    return tuple(tuple(part.strip() for part in line.split(";;")) for line in lines)
