"""How policies are asked: for targets, tables and columns, at a time, from somewhere, by agents."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import msgspec
import pytest

from gateway.identity.principal import Principal
from gateway.machine import Decision, Verdict
from gateway.policy.decide import NEEDS_APPROVAL, NOT_UNDERSTOOD, Moment, Policies, checked
from gateway.policy.facts import Facts, Output
from tests.gateway.policy.catalogs import request

ALICE = Principal("https://i", "a1", "alice", ("support",), None, "person", 2e9)
AGENT = replace(ALICE, agent="claude", actor_type="agent")
EVERYTHING = '@id("all") permit (principal, action, resource in Target::"shop");'


def asked(*texts: str) -> Policies:
    return checked((f"{number}.cedar", text) for number, text in enumerate(texts))


def decide(
    policies: Policies, text: str, who: Principal = ALICE, moment: Moment | None = None
) -> Decision:
    return policies.execute(who, "shop", "psql", request(text), moment or Moment())


def at(hour: int, minute: int = 0, second: int = 0) -> Moment:
    return Moment(now_s=datetime(2026, 11, 24, hour, minute, second, tzinfo=UTC).timestamp())


# --- tables ---

PUBLIC_AND_A = """
@id("public") permit (principal, action == Action::"execute", resource in Schema::"shop.public");
@id("a-read") permit (principal, action == Action::"execute", resource in Schema::"shop.a")
when { context.access == ["read"] };
"""


@pytest.mark.parametrize(
    ("text", "policies"),
    [
        ("select * from orders", ("public",)),
        ("delete from orders where id = 1", ("public",)),
        ("select * from a.twin, orders", ("a-read", "public")),
        ("insert into orders (id) select 1 from a.twin", ("a-read", "public")),
        ("insert into a.twin select id from orders", None),
        ("select * from b.twin", None),
        ("select * from a.twin, b.twin", None),
        # Nothing of these is a table.
        ("select 1", None),
        ("create role r", None),
        ("select pg_read_file('x') from orders", None),
        ("copy orders to program 'x'", None),
    ],
)
def test_a_permit_for_every_table_is_a_permit(text: str, policies: tuple[str, ...] | None) -> None:
    decision = decide(asked(PUBLIC_AND_A), text)
    if policies is None:
        assert decision.verdict is Verdict.DENY
    else:
        assert (decision.verdict, decision.policies) == (Verdict.ALLOW, policies)


@pytest.mark.parametrize(
    "resource",
    [
        'resource in Schema::"shop.hr"',
        'resource == Table::"shop.hr.payroll"',
        'resource in Table::"shop.hr.payroll"',
        'resource == Column::"shop.hr.payroll.salary"',
        'resource == Function::"shop.pg_catalog.max"',
        'resource in Schema::"shop.pg_catalog"',
    ],
)
def test_a_forbid_on_any_part_refuses_the_whole(resource: str) -> None:
    forbid = f'@id("no") @message("not here") forbid (principal, action, {resource});'
    policies = asked(EVERYTHING, forbid)
    decision = decide(policies, "select max(p.salary) from orders, hr.payroll_2025 p")
    assert (decision.verdict, decision.policies, decision.reason) == (
        Verdict.DENY,
        ("no",),
        "not here",
    )
    assert decide(policies, "select id from orders").verdict is Verdict.ALLOW


def test_a_name_with_a_dot_is_not_another_ones() -> None:
    policies = asked(
        EVERYTHING, '@id("no") forbid (principal, action, resource == Table::"shop.hr.payroll");'
    )
    assert decide(policies, "select * from hr.payroll").policies == ("no",)
    # A schema "hr.payroll" or a table "payroll.x" would be quoted.
    assert decide(policies, 'select * from "Odd Name"').verdict is Verdict.ALLOW


# --- what is not understood ---


def test_the_unknown_needs_a_permit_that_says_so() -> None:
    plain = '@id("plain") permit (principal, action == Action::"execute", resource);'
    unknown = '@id("wide") @unknown("permitted") ' + plain.partition(" ")[2]
    decision = decide(asked(plain), "select * from nowhere")
    assert (decision.verdict, decision.reason) == (Verdict.DENY, NOT_UNDERSTOOD)
    # The reason is recorded in clear, and a name may be anything.
    assert "nowhere" in decision.hint and "nowhere" not in decision.reason
    assert decide(asked(unknown), "select * from nowhere").verdict is Verdict.ALLOW
    assert decide(asked(plain, unknown), "select * from nowhere").verdict is Verdict.ALLOW
    narrow = unknown.replace(
        "resource);", 'resource) when { !context.unknown.contains("relation nowhere") };'
    )
    assert decide(asked(plain, narrow), "select * from nowhere").reason == NOT_UNDERSTOOD
    assert decide(asked(plain, narrow), "select * from nothing").verdict is Verdict.ALLOW


# --- approvals ---

HOLDS = """
@id("reads") permit (principal, action == Action::"execute", resource == Target::"shop")
when { context.kinds == ["select"] };
@id("may-ask")
permit (principal, action == Action::"execute_with_approval", resource == Target::"shop")
when { context.kinds.contains("drop") };
"""


def test_what_needs_an_approval_is_held_and_says_that_there_are_none() -> None:
    policies = asked(HOLDS)
    decision = decide(policies, "drop table orders")
    assert (decision.verdict, decision.policies, decision.reason) == (
        Verdict.HOLD,
        ("may-ask",),
        NEEDS_APPROVAL,
    )
    assert decide(policies, "select 1").verdict is Verdict.ALLOW
    assert decide(policies, "delete from orders").verdict is Verdict.DENY
    assert decide(policies, "drop table nowhere").verdict is Verdict.DENY


def test_no_approval_overrules_a_forbid() -> None:
    forbid = '@id("no") forbid (principal, action == Action::"execute", resource);'
    assert decide(asked(HOLDS, forbid), "drop table orders").policies == ("no",)


# --- time ---

BY_DAY = """
@id("by-day") permit (principal, action, resource == Target::"shop")
when { context has time && context.time.minute >= 480 && context.time.minute < 1080
       && context.time.weekday == "tuesday" };
"""


def test_a_decision_by_time_is_not_remembered_past_it() -> None:
    policies = asked(BY_DAY)
    told = [
        decide(policies, "select 1", moment=moment).verdict is Verdict.ALLOW
        for moment in (at(7, 59, 59), at(8), at(17, 59, 59), at(18), at(8), Moment(), at(7, 59))
    ]
    assert told == [False, True, True, False, True, False, False]
    wednesday = Moment(now_s=(at(12).now_s or 0) + 86_400)
    assert decide(policies, "select 1", moment=wednesday).verdict is Verdict.DENY


def test_where_no_rule_speaks_of_time_a_decision_is_remembered() -> None:
    policies = asked(EVERYTHING)
    first = decide(policies, "select 1", moment=at(1))
    assert decide(policies, "select 1", moment=at(2)) is first


def test_a_sign_in_grows_old() -> None:
    rule = EVERYTHING + (
        '@id("fresh") forbid (principal, action, resource)'
        " when { context has sign_in_age_s && context.sign_in_age_s > 3600 };"
    )
    policies = asked(rule)
    signed_in = replace(ALICE, signed_in_at=at(8).now_s)
    told = [
        decide(policies, "select 1", signed_in, moment).verdict is Verdict.ALLOW
        for moment in (at(8), at(9), at(9, 0, 1), at(7), at(9))
    ]
    assert told == [True, True, False, True, True]


# --- addresses and agents ---


@pytest.mark.parametrize(
    ("address", "allowed"),
    [
        ("10.1.2.3", True),
        ("::ffff:10.1.2.3", True),
        ("192.168.0.1", False),
        ("fe80::1%eth0", False),
        ("", False),
        ("not an address", False),
        ('10.0.0.1"', False),
    ],
)
def test_an_address_that_is_not_known_is_nowhere(address: str, allowed: bool) -> None:
    policies = asked(
        '@id("inside") permit (principal, action, resource) when { context has client_address'
        ' && context.client_address.isInRange(ip("10.0.0.0/8")) };'
    )
    decision = decide(policies, "select 1", moment=Moment(address))
    assert (decision.verdict is Verdict.ALLOW) is allowed
    connecting = policies.connect(ALICE, "shop", "psql", moment=Moment(address))
    assert (connecting.verdict is Verdict.ALLOW) is allowed


def test_an_agent_is_not_the_person_it_acts_for_and_is_in_their_groups() -> None:
    policies = asked(
        '@id("group") permit (principal in Group::"support", action, resource);'
        '@id("no-agents") forbid (principal is Agent, action == Action::"execute", resource)'
        ' when { context.kinds.contains("delete") };'
        '@id("this-one") forbid (principal == Agent::"https://i|rogue", action, resource);'
        '@id("her") forbid (principal == User::"https://i|a1", action, resource)'
        ' when { context.application == "nobody" };'
    )
    assert decide(policies, "select 1", AGENT).verdict is Verdict.ALLOW
    assert decide(policies, "delete from orders", AGENT).policies == ("no-agents",)
    assert decide(policies, "delete from orders").verdict is Verdict.ALLOW
    assert decide(policies, "select 1", replace(AGENT, agent="rogue")).policies == ("this-one",)


# --- columns in clear ---


def test_columns_are_seen_in_clear_by_permission_alone() -> None:
    policies = asked(
        '@id("hr") permit (principal in Group::"support", action == Action::"see_clear",'
        ' resource in Table::"shop.public.customers");'
        '@id("but") forbid (principal, action == Action::"see_clear",'
        ' resource == Column::"shop.public.customers.ssn");'
    )
    columns = ["public.customers.ssn", "public.customers.email", "hr.payroll.salary"]
    seen = policies.see_clear(ALICE, "shop", "psql", columns)
    assert seen == {"public.customers.email"}
    assert policies.see_clear(replace(ALICE, groups=()), "shop", "psql", columns) == frozenset()


def test_columns_are_seen_in_clear_when_and_where_a_rule_says() -> None:
    policies = asked(
        '@id("hr") permit (principal, action == Action::"see_clear", resource) when {'
        " context has time && context.time.hour == 9 && context has client_address"
        ' && context.client_address.isInRange(ip("10.0.0.0/8")) };'
    )
    columns = ["public.customers.ssn"]

    def seen(moment: Moment) -> bool:
        return bool(policies.see_clear(ALICE, "shop", "psql", columns, moment))

    assert seen(Moment("10.0.0.7", at(9).now_s))
    assert not seen(Moment("10.0.0.7", at(10).now_s))
    assert not seen(Moment("192.168.0.1", at(9).now_s))
    assert not seen(Moment("10.0.0.7")) and not seen(at(9))


@pytest.mark.parametrize(
    ("condition", "minutes", "seconds"),
    [
        ("true", False, False),
        ("context has time && context.time.hour == 9", True, False),
        ("context has sign_in_age_s && context.sign_in_age_s < 90", False, True),
        ('context == {"name": "alice"}', True, True),
    ],
)
def test_an_answer_is_kept_no_longer_than_the_time_it_depends_on(
    condition: str, minutes: bool, seconds: bool
) -> None:
    policies = Policies(
        [("p.cedar", f'@id("p") permit (principal, action, resource) when {{ {condition} }};')]
    )
    who = replace(ALICE, signed_in_at=at(8).now_s)
    now = policies.passing(who, at(9).now_s)
    assert (policies.passing(who, at(9, 1).now_s) != now) is (minutes or seconds)
    assert (policies.passing(who, at(9, 0, 1).now_s) != now) is seconds


# --- what is remembered ---

FACTS = Facts(
    tables_read=frozenset({"public.orders"}),
    owners=frozenset({("public.orders", "shop")}),
)
OTHERS = {
    "kinds": frozenset({"delete"}),
    "tables_read": frozenset({"hr.payroll"}),
    "tables_written": frozenset({"public.orders"}),
    "columns_read": frozenset({"public.orders.id"}),
    "columns_written": frozenset({"public.orders.id"}),
    "functions": frozenset({"hr.raise"}),
    "ddl": frozenset({"role"}),
    "files": frozenset({"pg_read_file"}),
    "links": frozenset({"dblink"}),
    "unknown": frozenset({"table x"}),
    "risk": "high",
    "has_where": True,
    "has_limit": True,
    "limit": 5,
    "owners": frozenset({("public.orders", "hr")}),
}
SETS = (
    'when { context.kinds.contains("delete") }',
    'when { context.access.contains("write") }',
    'when { context.tables_read.contains("hr.payroll") }',
    'when { context.columns_read.contains("public.orders.id") }',
    'when { context.columns_written.contains("public.orders.id") }',
    'when { context.functions.contains("hr.raise") }',
    "when { !context.ddl.isEmpty() || !context.files.isEmpty() || !context.links.isEmpty() }",
    "when { !context.unknown.isEmpty() }",
    'when { context.risk == "high" }',
    "when { context.risk_level > 2 }",
    "when { context.has_where }",
    "when { context.has_limit }",
    "when { context has limit && context.limit > 3 }",
    'when { resource is Table && resource.owner == "hr" }',
    'when { resource in Schema::"shop.hr" }',
    'when { resource == Column::"shop.public.orders.id" }',
    "when { resource is Function }",
    "when { context == {} }",
)


@pytest.mark.parametrize("when", SETS)
def test_a_decision_is_taken_over_only_where_nothing_that_is_spoken_of_differs(when: str) -> None:
    forbids = f'forbid (principal, action == Action::"execute", resource) {when};'
    texts = [("p.cedar", f'@id("all") permit (principal, action, resource); @id("no") {forbids}')]
    given = Policies(texts)
    ways = [FACTS, *(msgspec.structs.replace(FACTS, **{name: OTHERS[name]}) for name in OTHERS)]
    verdicts = set()
    for facts in ways:
        asked = msgspec.structs.replace(request("select 1"), facts=facts)
        decision = given.execute(ALICE, "shop", "psql", asked)
        assert decision == Policies(texts).execute(ALICE, "shop", "psql", asked)
        verdicts.add(decision.policies)
    assert len(verdicts) > 1 or when.endswith("{} }")


def test_facts_that_no_policy_speaks_of_are_not_asked_about() -> None:
    given = Policies([("p.cedar", '@id("all") permit (principal, action, resource);')])
    for name in ("a", "b"):
        outputs = (Output(name, ("public.orders.id",), bare=True),)
        facts = msgspec.structs.replace(FACTS, outputs=outputs, columns_read=frozenset({name}))
        given.execute(
            ALICE, "shop", "psql", msgspec.structs.replace(request("select 1"), facts=facts)
        )
    assert (len(given._known), len(given._alike)) == (2, 1)
