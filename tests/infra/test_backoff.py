"""Delays between restarts."""

from __future__ import annotations

from infra.devstack.backoff import FIRST_S, LONGEST_S, STEADY_S, Backoff


def delays(runs: list[float]) -> list[float]:
    backoff, result = Backoff(), []
    for ran_s in runs:
        delay, backoff = backoff.after_exit(ran_s)
        result.append(delay)
    return result


def test_each_crash_in_a_row_doubles_the_delay_up_to_a_bound() -> None:
    found = delays([0.0] * 10)
    assert found[:4] == [FIRST_S, 2 * FIRST_S, 4 * FIRST_S, 8 * FIRST_S]
    assert found[-1] == LONGEST_S


def test_a_process_that_ran_well_starts_again_at_once() -> None:
    assert delays([0.0, 0.0, 0.0, STEADY_S, 0.0]) == [
        FIRST_S,
        2 * FIRST_S,
        4 * FIRST_S,
        FIRST_S,
        2 * FIRST_S,
    ]
