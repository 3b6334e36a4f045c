"""What `go test -json` prints, and what it is asked to run."""

from __future__ import annotations

import json

from tests.conformance.golang import chosen, collected, pattern
from tests.conformance.suites import FAILED, PASSED, SKIPPED


def event(action: str, test: str = "", package: str = "m/v5/pgconn", output: str = "") -> str:
    fields = {"Action": action, "Package": package, "Test": test, "Output": output}
    return json.dumps({key: value for key, value in fields.items() if value})


def test_each_test_ends_as_go_says() -> None:
    lines = [
        "go: downloading something",
        *(event("run", test) for test in ("TestA", "TestB", "TestB/sub", "TestC")),
        event("output", "TestB/sub", output="no "),
        event("output", "TestB/sub", output="way"),
        event("pass", "TestA"),
        event("fail", "TestB/sub"),
        event("fail", "TestB"),
        event("skip", "TestC"),
        event("run", "TestA", "m/v5"),
        event("pass", "TestA", "m/v5"),
        event("fail"),
    ]
    found = collected("\n".join(lines), "m/v5")
    assert {test: outcome.kind for test, outcome in found.items()} == {
        ".:TestA": PASSED,
        "pgconn:TestA": PASSED,
        "pgconn:TestB": FAILED,
        "pgconn:TestB/sub": FAILED,
        "pgconn:TestC": SKIPPED,
    }
    assert found["pgconn:TestB/sub"].text == "no way"


def test_what_does_not_end_has_failed() -> None:
    assert collected(event("run", "TestA"), "m/v5")["pgconn:TestA"].kind == FAILED


def test_names_are_patterns_of_exactly_themselves() -> None:
    assert pattern(["TestB/a=1.5", "TestA"]) == r"^TestA$|^TestB$/^a=1\.5$"
    assert pattern([]) == "^$"


def test_of_a_subtest_the_whole_test_is_run() -> None:
    assert chosen(frozenset({".:TestA/sub", ".:TestA/other", "pgconn:TestB"})) == [
        "-run=^TestA$|^TestB$",
        "./.",
        "./pgconn",
    ]
    assert chosen(frozenset({"pgconn"})) == ["./pgconn"]
    assert chosen(None) == ["./..."]
