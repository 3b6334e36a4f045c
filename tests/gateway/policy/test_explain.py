"""What has to be otherwise for another decision."""

from __future__ import annotations

from gateway.identity.principal import Principal
from gateway.machine import Decision, Verdict
from gateway.policy.cases import requests, snapshot
from gateway.policy.decide import Policies
from gateway.policy.explain import Explanation, explain
from gateway.policy.resolve import Resolver

CATALOG = Resolver(snapshot({"tables": {"public.orders": {"columns": ["id", "total"]}}}))
POLICIES = """
@id("reads")
permit (principal in Group::"support", action == Action::"execute", resource == Target::"shop")
when { context.has_limit && context.tables_written.isEmpty() }
unless { context.risk_level > 2 };

@id("dba")
permit (principal in Group::"dba", action == Action::"execute", resource == Target::"shop");

@id("connects")
permit (principal, action == Action::"connect", resource);

@id("no-drop")
@message("tables stay")
forbid (principal, action == Action::"execute", resource)
when { context.ddl.contains("drop") };
"""


def explained(statement: str, *groups: str, target: str = "shop") -> Explanation:
    who = Principal("https://i", "alice", "alice", groups, None, "person", float("inf"))
    (request,) = requests(statement, CATALOG)

    def ask(policies: Policies) -> Decision:
        return policies.execute(who, target, "psql", request)

    return explain([("p.cedar", POLICIES)], ask)


def test_what_permits_is_named_with_its_place() -> None:
    found = explained("select * from orders limit 1", "support")
    assert found.decision.verdict is Verdict.ALLOW
    assert [(rule.name, rule.file, rule.line) for rule in found.deciding] == [
        ("reads", "p.cedar", 2)
    ]


def test_permits_say_which_of_their_parts_do_not_hold() -> None:
    found = explained("select * from orders", "support")
    assert found.decision.verdict is Verdict.DENY
    assert [(rule.name, rule.fails) for rule in found.permits] == [
        ("reads", ("when context.has_limit",)),
        ("dba", ('principal in Group::"dba"',)),
    ]
    found = explained("delete from orders")
    assert {rule.name: rule.fails for rule in found.permits}["reads"] == (
        'principal in Group::"support"',
        "when context.has_limit",
        "when context.tables_written.isEmpty()",
        "unless context.risk_level > 2",
    )


def test_another_target_is_a_part_that_does_not_hold() -> None:
    found = explained("select * from orders limit 1", "dba", target="crm")
    assert [rule.fails for rule in found.permits if rule.name == "dba"] == [
        ('resource == Target::"shop"',)
    ]


def test_what_forbids_is_named_and_what_would_be_without_it() -> None:
    found = explained("drop table orders", "dba")
    assert [(rule.name, rule.effect) for rule in found.deciding] == [("no-drop", "forbid")]
    assert found.otherwise is not None
    assert (found.otherwise.verdict, found.otherwise.policies) == (Verdict.ALLOW, ("dba",))
    assert explained("drop table orders").otherwise == Decision(
        Verdict.DENY,
        (),
        "no policy permits this",
        "Ask the owner of the target to add a policy that permits it.",
    )
