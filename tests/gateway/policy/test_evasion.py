"""Nothing gets around a policy by how it is spelt, nested or named."""

from __future__ import annotations

from collections import Counter

import pytest

from gateway.identity.principal import Principal
from gateway.machine import Decision, Verdict
from gateway.policy.cases import request
from gateway.policy.decide import Policies, checked
from gateway.policy.facts import SessionNames
from gateway.policy.sql import Statement, analyse
from tests.gateway.policy.catalogs import RESOLVER
from tests.gateway.policy.evasions import ATTACKS, BENIGN, PACKS, RULES, USED, Attack

SUPPORT = Principal("https://i", "a1", "alice", ("support",), None, "person", 2e9)


@pytest.fixture(scope="module")
def policies() -> Policies:
    packs = [(f"{name}.cedar", (PACKS / f"{name}.cedar").read_text()) for name in USED]
    return checked([("rules.cedar", RULES), *packs])


def run(policies: Policies, statements: tuple[str, ...]) -> list[Decision]:
    """Decisions of one session, up to the first that is not ALLOW."""
    meaning, prepared = SessionNames(), dict[str, Statement]()
    decisions = []
    for text in statements:
        for statement in analyse(text):
            inner = prepared.get(statement.prepared_name) if "execute" in statement.kinds else None
            facts = RESOLVER(statement, meaning, inner)
            meaning = facts.after(meaning)
            if statement.kind == "prepare":
                prepared[statement.prepared_name] = statement
            asked = request(statement, facts)
            decisions.append(policies.execute(SUPPORT, "shop", "psql", asked))
            if decisions[-1].verdict is not Verdict.ALLOW:
                return decisions
    return decisions


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: "; ".join(attack.statements)[:70])
def test_an_attack_does_not_pass(policies: Policies, attack: Attack) -> None:
    decision = run(policies, attack.statements)[-1]
    assert decision.verdict is not Verdict.ALLOW
    assert decision.reason


@pytest.mark.parametrize("text", BENIGN)
def test_ordinary_work_passes(policies: Policies, text: str) -> None:
    (decision,) = run(policies, (text,))
    assert (decision.verdict, decision.reason) == (Verdict.ALLOW, "")


def test_the_attacks_are_many_and_each_is_there_once() -> None:
    assert len(ATTACKS) >= 120
    assert not [texts for texts, n in Counter(a.statements for a in ATTACKS).items() if n > 1]


def test_nearly_all_are_refused_for_what_they_do_and_not_for_being_unreadable(
    policies: Policies,
) -> None:
    for attack in ATTACKS:
        if attack.real:
            decision = run(policies, attack.statements)[-1]
            assert decision.reason != "the statement is not understood", attack
