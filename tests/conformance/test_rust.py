"""What a program of Rust's test harness prints, and edits of where a test's server is."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conformance.rust import Edit, collected
from tests.conformance.sources import Unavailable
from tests.conformance.suites import FAILED, PASSED, SKIPPED

PRINTED = """
running 4 tests
test runtime::unix_socket ... ignored
test row::panics - should panic ... ok
test types::test_bool ... ok
test notices ... FAILED
test slow has been running for over 60 seconds

failures:

---- notices stdout ----
thread 'notices' panicked at tests/test/main.rs:822:5:
assertion failed

failures:
    notices

test result: FAILED. 2 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out
"""


def test_each_test_ends_as_the_program_says() -> None:
    found = collected(PRINTED)
    assert {test: outcome.kind for test, outcome in found.items()} == {
        "runtime::unix_socket": SKIPPED,
        "row::panics": PASSED,
        "types::test_bool": PASSED,
        "notices": FAILED,
    }
    assert found["notices"].text.endswith("assertion failed")


def test_an_edit_that_changes_nothing_says_so(tmp_path: Path) -> None:
    file = tmp_path / "test.rs"
    file.write_text('connect("host=localhost port=5433")\n')
    Edit("test.rs", r'connect\(("[^"]*")\)', r"connect(here(\1))", "fn here() {}\n").apply(tmp_path)
    assert file.read_text() == 'connect(here("host=localhost port=5433"))\nfn here() {}\n'
    with pytest.raises(Unavailable, match=r"test\.rs"):
        Edit("test.rs", "Client::connect", "x").apply(tmp_path)
