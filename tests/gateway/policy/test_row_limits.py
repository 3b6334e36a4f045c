"""@max_rows: the smallest limit of all rules that speak of a statement, or no statement at all."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest

from gateway.identity.principal import Principal
from gateway.machine import Decision, Limit, Verdict
from gateway.policy.check import errors, findings
from gateway.policy.decide import Policies, PolicyError, checked
from gateway.policy.explain import explain
from tests.gateway.policy.catalogs import request

ALICE = Principal("https://i", "a1", "alice", ("support",), None, "person", 2e9)
ALL = '@id("all") permit (principal, action, resource in Target::"shop");'


_LIMITS = 'forbid (principal, action == Action::"unlimited_rows", resource);'


def limiting(name: str, rows: int, head: str = "principal", rest: str = "resource);") -> str:
    return (
        f'@id("{name}") @max_rows("{rows}")'
        f' @message("{name} says {rows}") @how_to_ask("Ask {name}.")'
        f' forbid ({head}, action == Action::"unlimited_rows", {rest}'
    )


def decide(*texts: str, text: str = "select * from orders", who: Principal = ALICE) -> Decision:
    policies = checked((f"{number}.cedar", each) for number, each in enumerate(texts))
    return policies.execute(who, "shop", "psql", request(text))


def test_without_a_rule_nothing_is_limited() -> None:
    assert decide(ALL) == Decision(Verdict.ALLOW, ("all",), "")
    elsewhere = limiting("hr", 5, rest='resource in Schema::"shop.hr");')
    assert decide(ALL, elsewhere) == Decision(Verdict.ALLOW, ("all",), "")


def test_a_forbid_limits_what_others_permit_and_permits_nothing() -> None:
    limit = Limit(1000, ("thousand",), "thousand says 1000", "Ask thousand.")
    decided = decide(ALL, limiting("thousand", 1000))
    assert decided == Decision(Verdict.ALLOW, ("all", "thousand"), "", limit=limit)
    assert decide(limiting("thousand", 1000)).verdict is Verdict.DENY


def test_a_permit_limits_those_whom_it_permits() -> None:
    interns = (
        '@id("interns") @max_rows("50") permit (principal in Group::"support", action, resource);'
    )
    limit = decide(interns).limit
    assert limit is not None
    assert (limit.rows, limit.policies) == (50, ("interns",))
    assert "50 rows" in limit.reason and limit.hint
    # It is there beside a wider one, too: what two rules say of somebody holds both.
    both = decide(ALL, interns).limit
    assert both is not None and both.rows == 50
    assert decide(ALL, interns, who=replace(ALICE, groups=())).limit is None


def test_the_smallest_counts_and_speaks() -> None:
    rules = [limiting("b", 10), limiting("a", 10), limiting("c", 5000)]
    limit = decide(ALL, *rules).limit
    assert limit == Limit(10, ("a", "b"), "a says 10; b says 10", "Ask a.; Ask b.")


def test_a_limit_may_be_about_one_table() -> None:
    rule = limiting("orders", 7, rest='resource == Table::"shop.public.orders");')
    limit = decide(ALL, rule).limit
    assert limit is not None and limit.rows == 7
    assert decide(ALL, rule, text="select * from a.twin").limit is None


def test_what_cannot_be_counted_is_refused_to_those_who_are_limited_alone() -> None:
    asked = msgspec.structs.replace(request("select * from orders"), uncounted="send it alone")
    limited = checked([("p.cedar", ALL + limiting("ten", 10))])
    decision = limited.execute(ALICE, "shop", "psql", asked)
    assert (decision.verdict, decision.policies) == (Verdict.DENY, ("ten",))
    assert decision.reason == "ten says 10; send it alone"
    free = checked([("p.cedar", ALL)])
    assert free.execute(ALICE, "shop", "psql", asked).verdict is Verdict.ALLOW


def test_a_limit_that_fails_or_has_no_number_denies() -> None:
    broken = Policies(
        [("p.cedar", ALL + limiting("broken", 9, rest="resource) when { context.nothing == 1 };"))]
    )
    assert broken.execute(ALICE, "shop", "psql", request("select 1")).verdict is Verdict.DENY
    without = (
        '@id("quiet") forbid (principal, action, resource)'
        ' when { action == Action::"unlimited_rows" };'
    )
    decision = decide(ALL, limiting("ten", 10), without)
    assert (decision.verdict, decision.policies) == (Verdict.DENY, ("quiet", "ten"))


@pytest.mark.parametrize(
    "rule",
    [
        *(
            f'@max_rows("{number}") {_LIMITS}'
            for number in (
                "",
                "0",
                "-1",
                "1.5",
                "1e3",
                " 10",
                "ten",
                "01",
                "1_000",
                "9" * 19,
                "１０",
            )
        ),
        f"@max_rows {_LIMITS}",
        _LIMITS,
        '@max_rows("10") forbid (principal, action == Action::"execute", resource);',
        '@max_rows("10") forbid (principal, action, resource);',
        '@max_rows("10") permit (principal, action == Action::"connect", resource);',
        '@max_rows("10") permit (principal, action == Action::"unlimited_rows", resource);',
    ],
)
def test_a_malformed_limit_is_no_set_of_policies(rule: str) -> None:
    text = f'{ALL}\n@id("x") @message("m") @how_to_ask("h")\n{rule}'
    with pytest.raises(PolicyError, match=r"x: .*max_rows"):
        checked([("p.cedar", text)])
    found = errors(findings([("p.cedar", text)]))
    assert any("max_rows" in finding.text and finding.file == "p.cedar" for finding in found)


def test_check_knows_a_limit_that_another_makes_superfluous() -> None:
    def said(*rules: str) -> list[str]:
        return [finding.text for finding in findings([("p.cedar", "\n".join(rules))])]

    assert said(limiting("a", 10), limiting("b", 20, 'principal in Group::"x"')) == [
        "b: adds nothing: a (p.cedar:1) forbids all of it already"
    ]
    assert said(limiting("a", 10), limiting("b", 5, 'principal in Group::"x"')) == []
    narrower = ALL.replace('@id("all") permit (principal', '@id("n") @max_rows("5") permit (X')
    narrower = narrower.replace("X", 'principal in Group::"x"')
    assert said(ALL, narrower) == []


def test_explain_names_the_limiting_rule() -> None:
    files = [("p.cedar", ALL), ("limit.cedar", limiting("ten", 10))]
    found = explain(
        files, lambda given: given.execute(ALICE, "shop", "psql", request("select * from orders"))
    )
    assert found.decision.limit is not None and found.decision.limit.rows == 10
    assert [(rule.name, rule.file) for rule in found.deciding] == [
        ("ten", "limit.cedar"),
        ("all", "p.cedar"),
    ]
