"""A pytest plugin (`-p outcomes`) for another project's suite: one JSON line per report.

Written as it goes, so that a run that is killed or crashes still tells what it saw. It runs under
the suite's own Python and pytest, and imports nothing of ours.
"""

from __future__ import annotations

import json
import os
from typing import Any


def note(test: str, outcome: str, text: str) -> None:
    """One line, in one write: a reader never sees half of one."""
    line = json.dumps({"test": test, "outcome": outcome, "text": text[-4000:]})
    with open(os.environ["CONFORMANCE_OUTCOMES"], "a", encoding="utf-8") as file:  # noqa: PTH123
        file.write(line + "\n")


def pytest_runtest_logreport(report: Any) -> None:
    """Note how one phase (setup, call, teardown) of a test ended."""
    note(report.nodeid, report.outcome, "" if report.passed else str(report.longrepr))
