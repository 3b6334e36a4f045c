"""A pytest plugin (`-p outcomes`) for another project's suite: one JSON line per report.

Written as it goes, so that a run that is killed or crashes still tells what it saw. It runs under
the suite's own Python and pytest, and imports nothing of ours.
"""

from __future__ import annotations

import json
import os
from typing import Any


def pytest_runtest_logreport(report: Any) -> None:
    """Note how one phase (setup, call, teardown) of a test ended."""
    line = json.dumps(
        {
            "test": report.nodeid,
            "outcome": report.outcome,
            "text": "" if report.passed else str(report.longrepr)[-4000:],
        }
    )
    # One write per line: a reader never sees half of one.
    with open(os.environ["CONFORMANCE_OUTCOMES"], "a", encoding="utf-8") as file:  # noqa: PTH123
        file.write(line + "\n")
