"""What the demo's groups may do."""

from __future__ import annotations

import pytest

from gateway.identity.principal import Principal
from gateway.machine import Verdict
from gateway.policy.decide import Policies
from infra.devstack.configuration import POLICIES
from tests.gateway.policy.catalogs import request

ALLOW, DENY = Verdict.ALLOW, Verdict.DENY
READS = [
    "select * from customers",
    "with c as (select 1) select * from c",
    "values (1)",
    "table customers",
    "begin",
    "commit",
    "savepoint a",
    "set application_name = 'x'",
    "show search_path",
    "explain select 1",
    "declare c cursor for select 1",
    "fetch 1 from c",
    "close c",
    "prepare p as select 1",
    "execute p",
    "deallocate p",
    "discard all",
    "copy customers to stdout",
]
CHANGES = [
    "drop table customers",
    "delete from customers",
    "update customers set city = ''",
    "insert into orders default values",
    "truncate orders",
    "with d as (delete from customers returning *) select * from d",
    "explain analyze delete from customers",
    "prepare p as delete from customers",
    "create table copy as select * from customers",
    "select * into copy from customers",
    "select * from customers for update",
    "copy orders from stdin",
    "copy customers to '/tmp/x'",
    "copy customers to program 'sh'",
    "do $$ begin end $$",
    "call refund(1)",
    "grant all on customers to public",
    "alter table customers add column x int",
    "vacuum",
    "listen x",
]


@pytest.fixture(scope="module")
def policies() -> Policies:
    return Policies((file.name, file.read_text()) for file in POLICIES.glob("*.cedar"))


def person(*groups: str) -> Principal:
    return Principal("https://localhost:9400", "subject", "name", groups, None, "person", 0.0)


def verdict(policies: Policies, principal: Principal, text: str, target: str = "shop") -> Verdict:
    asked = request(text, inner="select 1" if text.startswith("execute") else "")
    return policies.execute(principal, target, "psql", asked).verdict


@pytest.mark.parametrize("group", ["support", "auditors"])
@pytest.mark.parametrize(("texts", "expected"), [(READS, ALLOW), (CHANGES, DENY)])
def test_readers_read_and_change_nothing(
    policies: Policies, group: str, texts: list[str], expected: Verdict
) -> None:
    found = {text: verdict(policies, person(group), text) for text in texts}
    assert found == dict.fromkeys(texts, expected)


def test_dbas_do_everything_also_when_they_are_support(policies: Policies) -> None:
    for groups in (("dba",), ("dba", "support"), ("support", "dba", "auditors")):
        found = {text: verdict(policies, person(*groups), text) for text in READS + CHANGES}
        assert set(found.values()) == {ALLOW}, found


def test_nobody_else_does_anything(policies: Policies) -> None:
    for groups in ((), ("agents",), ("Support",)):
        assert policies.connect(person(*groups), "shop", "psql").verdict == DENY
        assert verdict(policies, person(*groups), "select 1") == DENY


def test_the_groups_reach_the_shop_alone(policies: Policies) -> None:
    for group in ("support", "dba", "auditors"):
        assert policies.connect(person(group), "shop", "psql").verdict == ALLOW
        assert policies.connect(person(group), "payroll", "psql").verdict == DENY
        assert verdict(policies, person(group), "select 1", "payroll") == DENY


def test_support_is_told_why_and_whom_to_ask(policies: Policies) -> None:
    asked = request("drop table customers")
    decision = policies.execute(person("support"), "shop", "psql", asked)
    assert decision.policies == ("support-changes-nothing",)
    assert "changes nothing" in decision.reason
    assert "dba" in decision.hint
