"""A runner for Django's own tests that notes how each ended, as outcomes.py does for pytest."""

from __future__ import annotations

import unittest
from typing import Any

from django.test.runner import DiscoverRunner
from outcomes import note


class Outcomes(unittest.TextTestResult):
    """Each test's end, when it comes."""

    def addSuccess(self, test: unittest.TestCase) -> None:
        super().addSuccess(test)
        note(test.id(), "passed", "")

    def addFailure(self, test: unittest.TestCase, err: Any) -> None:
        super().addFailure(test, err)
        note(test.id(), "failed", self.failures[-1][1])

    def addError(self, test: unittest.TestCase, err: Any) -> None:
        super().addError(test, err)
        note(test.id(), "failed", self.errors[-1][1])

    def addSubTest(self, test: unittest.TestCase, subtest: unittest.TestCase, err: Any) -> None:
        super().addSubTest(test, subtest, err)
        if err is not None:
            note(test.id(), "failed", [*self.failures, *self.errors][-1][1])

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:
        super().addSkip(test, reason)
        note(test.id(), "skipped", reason)

    def addExpectedFailure(self, test: unittest.TestCase, err: Any) -> None:
        super().addExpectedFailure(test, err)
        note(test.id(), "passed", "")

    def addUnexpectedSuccess(self, test: unittest.TestCase) -> None:
        super().addUnexpectedSuccess(test)
        note(test.id(), "failed", "passes, which was not expected")


class Runner(DiscoverRunner):  # type: ignore[misc]
    """Django's, with these results."""

    def get_resultclass(self) -> type[Outcomes]:
        """Also when SQL is to be shown."""
        return Outcomes
