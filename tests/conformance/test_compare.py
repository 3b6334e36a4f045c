"""What counts as a difference."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from tests.conformance.__main__ import LISTED
from tests.conformance.catalogue import ALL
from tests.conformance.compare import differences, judge, read_listed, settled
from tests.conformance.orms import SqlAlchemy, _label
from tests.conformance.suites import FAILED, PASSED, SKIPPED, Outcome, _by_test, collected


def outcomes(**kinds: str) -> Mapping[str, Outcome]:
    return {test: Outcome(kind, text=f"how {test} ended") for test, kind in kinds.items()}


def test_the_same_failures_are_no_difference() -> None:
    direct = outcomes(a=PASSED, b=FAILED, c=SKIPPED)
    assert differences(direct, outcomes(a=PASSED, b=FAILED, c=SKIPPED)) == []


@pytest.mark.parametrize("other", [FAILED, SKIPPED])
def test_a_test_that_ends_otherwise_is_one(other: str) -> None:
    [found] = differences(outcomes(a=PASSED), outcomes(a=other))
    assert (found.test, found.direct.kind, found.through.kind) == ("a", PASSED, other)


def test_so_is_one_that_passes_through_the_gateway_alone_or_is_not_run() -> None:
    found = differences(outcomes(a=FAILED, b=PASSED), outcomes(a=PASSED))
    assert [each.test for each in found] == ["a", "b"]


def test_a_test_that_fails_with_another_output_is_one() -> None:
    assert differences(outcomes(a="failed with output 1"), outcomes(a="failed with output 2"))


def test_what_ends_alike_once_does_not_count() -> None:
    asked: list[frozenset[str]] = []

    def direct(only: frozenset[str]) -> Mapping[str, Outcome]:
        asked.append(only)
        return outcomes(flaky=PASSED, real=PASSED)

    def through(_: frozenset[str]) -> Mapping[str, Outcome]:
        return outcomes(flaky=PASSED if len(asked) == 2 else FAILED, real=FAILED)

    first = differences(outcomes(flaky=PASSED, real=PASSED), outcomes(flaky=FAILED, real=FAILED))
    assert [each.test for each in settled(first, direct, through)] == ["real"]
    assert asked == [frozenset({"flaky", "real"})] * 2


def test_a_listed_difference_is_excused_and_must_be_real() -> None:
    found = differences(outcomes(a=PASSED), outcomes(a=FAILED))
    assert judge(found, {"a": "a reason"}).alike
    assert not judge(found, {}).alike
    assert not judge(found, {"a": "a reason", "b": "another"}).alike


def test_the_worst_phase_of_a_test_counts() -> None:
    lines = (
        '{"test": "a", "outcome": "passed", "text": ""}\n'
        '{"test": "a", "outcome": "failed", "text": "no"}\n'
        '{"test": "a", "outcome": "passed", "text": ""}\n'
        '{"test": "b", "outcome": "passed", "text": ""}\n'
        '{"test": "b", "outcome": "skipped", "text": "why"}\n'
    )
    kinds = {test: outcome.kind for test, outcome in collected(lines).items()}
    assert kinds == {"a": FAILED, "b": SKIPPED}


def test_a_difference_of_outputs_is_told_by_test() -> None:
    text = (
        "diff -U3 /in/expected/int4.out /out/results/int4.out\n"
        "--- /in/expected/int4.out\n+++ /out/results/int4.out\n@@ -1 +1 @@\n-a\n+b\n"
    )
    assert _by_test(text) == {"int4": "@@ -1 +1 @@\n-a\n+b"}


def test_listed_differences_name_suites_and_reasons() -> None:
    for suite, reasons in read_listed(LISTED).items():
        assert suite in ALL
        assert all(len(reason) > 20 for reason in reasons.values())


def test_sqlalchemys_classes_are_asked_for_without_the_databases_name() -> None:
    suite = ALL["sqlalchemy"]
    assert isinstance(suite, SqlAlchemy)
    ran = {
        "test/engine/test_a.py::A_postgresql+psycopg_15_18::test_b[x-1]",
        "test/engine/test_a.py::A_postgresql+asyncpg_async_15_18::test_b[x-1]",
        "test/engine/test_a.py::C::test_d",
    }
    assert suite.chosen(frozenset(ran)) == [
        "test/engine/test_a.py::A::test_b[x-1]",
        "test/engine/test_a.py::C::test_d",
    ]


@pytest.mark.parametrize(
    ("test", "label"),
    [
        (
            "backends.tests.LastExecutedQueryTest.test_a",
            "backends.tests.LastExecutedQueryTest.test_a",
        ),
        ("setUpClass (schema.tests.SchemaTests)", "schema.tests.SchemaTests"),
    ],
)
def test_django_is_asked_for_the_class_whose_fixtures_failed(test: str, label: str) -> None:
    assert _label(test) == label
