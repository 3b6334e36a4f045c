"""Two runs of one suite, test by test; what may differ, and whether it still does."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.conformance.suites import FAILED, PASSED, SKIPPED, Outcome, Outcomes

RERUNS = 2
"""How often tests that differ are run again, on both sides, before they count."""

_ABSENT = Outcome("not run")


@dataclass(frozen=True, slots=True)
class Difference:
    """A test that ends otherwise through the gateway."""

    test: str
    direct: Outcome
    through: Outcome


def differences(direct: Outcomes, through: Outcomes) -> list[Difference]:
    """The tests that do not end alike, by name."""
    return [
        Difference(test, one, other)
        for test in sorted({*direct, *through})
        if (one := direct.get(test, _ABSENT)) != (other := through.get(test, _ABSENT))
    ]


Run = Callable[[frozenset[str]], Outcomes]


def settled(found: list[Difference], direct: Run, through: Run) -> list[Difference]:
    """Those that differ each time they are run again, as they did the last time."""
    for _ in range(RERUNS):
        if not found:
            break
        names = frozenset(each.test for each in found)
        again = differences(direct(names), through(names))
        found = [each for each in again if each.test in names]
    return found


def counts(outcomes: Outcomes) -> str:
    """How many passed, failed and were skipped."""
    kinds = [FAILED if outcome.failed else outcome.kind for outcome in outcomes.values()]
    return ", ".join(f"{kinds.count(kind)} {kind}" for kind in (PASSED, FAILED, SKIPPED))


@dataclass(frozen=True, slots=True)
class Verdict:
    """Differences that nothing excuses, and excuses that excuse nothing."""

    unexplained: tuple[Difference, ...]
    stale: tuple[str, ...]

    @property
    def alike(self) -> bool:
        """Whether the suite says the same of both."""
        return not self.unexplained and not self.stale


def judge(found: Iterable[Difference], listed: Mapping[str, str]) -> Verdict:
    """`listed` are reasons by test id."""
    found = list(found)
    different = {each.test for each in found}
    return Verdict(
        tuple(each for each in found if each.test not in listed),
        tuple(sorted(test for test in listed if test not in different)),
    )


def read_listed(path: Path) -> dict[str, dict[str, str]]:
    """Reasons by test id by suite, from differences.toml."""
    document = tomllib.loads(path.read_text())
    found: dict[str, dict[str, str]] = {}
    for entry in document.get("difference", []):
        found.setdefault(entry["suite"], {})[entry["test"]] = entry["reason"]
    return found
