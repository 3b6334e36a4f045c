from __future__ import annotations

from gateway.identity.principal import Principal
from gateway.machine import Decision, Verdict
from gateway.policy import cases
from gateway.policy.decide import Policies
from gateway.policy.facts import SessionNames
from gateway.policy.remembered import Remembered
from gateway.policy.resolve import Resolver
from tests.gateway.policy.catalogs import SHOP, one

ALICE = Principal("https://i", "a1", "alice", ("support",), None, "person", 2e9)
ALLOW = Decision(Verdict.ALLOW, (), "")


def test_the_oldest_go_by_number_and_by_bytes() -> None:
    some = Remembered(3, 1000)
    for number in range(5):
        some.keep((number,), ALLOW, 100)
    assert [some.get((number,)) is not None for number in range(5)] == [False, False, *[True] * 3]
    some.keep((5,), ALLOW, 900)
    assert (len(some), some.bytes) == (2, 1000) and some.get((4,)) is ALLOW
    some.keep((6,), ALLOW, 1001)
    assert (len(some), some.bytes) == (0, 0)


def test_statements_of_many_names_do_not_fill_the_memory() -> None:
    resolver = Resolver(SHOP)
    policies = Policies([("a", '@id("all") permit (principal, action, resource);')])
    for number in range(50):
        calls = ",".join(f"f{number}_{each}(1)" for each in range(5000))
        statement = one(f"select {calls}")
        facts = resolver(statement, SessionNames())
        assert facts.cost() > 500_000
        policies.execute(ALICE, "shop", "psql", cases.request(statement, facts))
    assert resolver._bytes <= 64 * 1024 * 1024 and len(resolver._interned) < 200
    for known in (policies._known, policies._alike):
        assert 0 < len(known) < 200 and 0 < known.bytes <= 64 * 1024 * 1024
