"""What our mocha reporter writes."""

from __future__ import annotations

import json

from tests.conformance.compare import differences
from tests.conformance.node import told
from tests.conformance.suites import FAILED, PASSED


def line(test: str, outcome: str, text: str = "", output: str = "") -> str:
    return json.dumps({"test": test, "outcome": outcome, "text": text, "output": output}) + "\n"


def test_a_test_that_says_something_else_differs() -> None:
    direct = told(line("pg a", PASSED, output="[1]") + line("pg b", PASSED, output="[2]"))
    through = told(line("pg a", PASSED, output="[1]") + line("pg b", PASSED, output="[3]"))
    [found] = differences(direct, through)
    assert found.test == "pg b"
    assert "[3]" in found.through.text


def test_a_failure_counts_whatever_comes_behind() -> None:
    found = told(
        line("a", FAILED, "no") + line("a", PASSED) + line("b", PASSED) + line("b", FAILED)
    )
    assert {test: outcome.kind for test, outcome in found.items()} == {"a": FAILED, "b": FAILED}
