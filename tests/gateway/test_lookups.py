from __future__ import annotations

import gc

import pytest

from gateway.lookups import Lookups
from gateway.machine import Decision, Verdict
from gateway.masking.probes import Tried

ALLOWED = Decision(Verdict.ALLOW, ("everyone",), "")
ALICE, AGAIN, OTHER = ("i", "alice", "shop"), ("i", "alice", "shop"), ("i", "bob", "shop")
HOUR = 3600.0


def tries(*values: str, column: str = "public.c.email", budget: int = 3) -> list[Tried]:
    return [Tried(column, "to serve", budget, value.encode()) for value in values]


@pytest.fixture
def lookups() -> Lookups:
    return Lookups(b"k" * 32)


def test_a_permitted_one_says_why(lookups: Lookups) -> None:
    decision = lookups.judge(ALLOWED, ALICE, tries("a"), 0.0)
    assert decision.verdict is Verdict.ALLOW
    assert decision.policies == ("everyone",)
    assert decision.reason == "public.c.email is compared in clear: to serve"


def test_distinct_values_count_and_the_same_do_not(lookups: Lookups) -> None:
    for value in ("a", "b", "a", "c", "b", "a"):
        assert lookups.judge(ALLOWED, ALICE, tries(value), 0.0).verdict is Verdict.ALLOW
    refused = lookups.judge(ALLOWED, AGAIN, tries("canary"), 1.0)
    assert refused.verdict is Verdict.DENY
    assert "3 distinct values of public.c.email" in refused.reason
    assert "canary" not in refused.reason + refused.hint
    assert lookups.judge(ALLOWED, ALICE, tries("a"), 1.0).verdict is Verdict.ALLOW


def test_others_and_other_columns_and_targets_have_their_own(lookups: Lookups) -> None:
    lookups.judge(ALLOWED, ALICE, tries("a", "b", "c"), 0.0)
    for person, column in ((OTHER, "public.c.email"), (ALICE, "public.c.name"),
                           (("i", "alice", "hr"), "public.c.email")):  # fmt: skip
        decision = lookups.judge(ALLOWED, person, tries("d", column=column), 0.0)
        assert decision.verdict is Verdict.ALLOW


def test_more_than_all_of_it_tries_nothing(lookups: Lookups) -> None:
    assert lookups.judge(ALLOWED, ALICE, tries(*"abcd"), 0.0).verdict is Verdict.DENY
    assert lookups.judge(ALLOWED, ALICE, tries(*"xyz"), 0.0).verdict is Verdict.ALLOW


def test_no_hour_holds_more_than_the_budget(lookups: Lookups) -> None:
    now, seen = 0.0, []
    for step in range(400):
        value = f"{step % 7}" if step % 3 else f"new {step}"
        if lookups.judge(ALLOWED, ALICE, tries(value), now).verdict is Verdict.ALLOW:
            seen.append((now, value))
        now += 97.0
    for start, _ in seen:
        assert len({value for at, value in seen if start <= at < start + HOUR}) <= 3
    assert len(seen) > 100


def test_what_is_an_hour_old_is_forgotten(lookups: Lookups) -> None:
    lookups.judge(ALLOWED, ALICE, tries(*"abc"), 0.0)
    assert lookups.judge(ALLOWED, ALICE, tries("d"), HOUR - 1).verdict is Verdict.DENY
    assert lookups.judge(ALLOWED, ALICE, tries("d"), HOUR).verdict is Verdict.ALLOW
    lookups.judge(ALLOWED, OTHER, tries("a"), 3 * HOUR)
    assert len(lookups._tried) == 1


def test_no_value_is_kept(lookups: Lookups) -> None:
    value = "canary-4711"
    lookups.judge(ALLOWED, ALICE, tries(value), 0.0)
    ahead: list[object] = [lookups]
    for _ in range(6):
        ahead = [each for each in gc.get_referents(*ahead) if not isinstance(each, type)]
        assert value.encode() not in [each for each in ahead if isinstance(each, bytes)]
    other = Lookups(b"l" * 32)
    other.judge(ALLOWED, ALICE, tries(value), 0.0)
    # Without the key nobody can try what was tried.
    assert not set(*lookups._tried.values()) & set(*other._tried.values())
