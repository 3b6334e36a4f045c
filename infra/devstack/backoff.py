"""How long to wait before a crashed process is started again."""

from __future__ import annotations

from dataclasses import dataclass

FIRST_S = 0.25
LONGEST_S = 15.0
STEADY_S = 30.0
"""A process that ran this long before it crashed starts again from the first delay."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """Crashes in a row."""

    failures: int = 0

    def after_exit(self, ran_s: float) -> tuple[float, Backoff]:
        """Seconds to wait after a run of `ran_s` seconds, and the next state."""
        failures = 0 if ran_s >= STEADY_S else self.failures
        return min(LONGEST_S, FIRST_S * 2.0**failures), Backoff(failures + 1)
