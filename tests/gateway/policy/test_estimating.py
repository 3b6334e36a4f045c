"""Row estimates: what is never planned, what a plan says, and rules that hear nothing of it."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from gateway.identity.principal import Principal
from gateway.machine import Decision, Request, Verdict
from gateway.policy import cases
from gateway.policy.catalog import Snapshot
from gateway.policy.check import WARNING, findings
from gateway.policy.decide import Policies, checked
from gateway.policy.estimating import question, rows_of
from gateway.policy.facts import SessionNames
from tests.gateway.policy.catalogs import FUNCTIONS, RELATIONS, RESOLVER, SHOP, one, request

ALICE = Principal("https://i", "a1", "alice", ("support",), None, "person", 2e9)
ALL = '@id("all") @unknown("permitted") permit (principal, action, resource);'
SMALL = (
    '@id("small") @message("too many rows") @how_to_ask("Narrow it.")'
    ' forbid (principal, action == Action::"execute", resource)'
    ' when { context.access.contains("read") }'
    " unless { context has row_estimate && context.row_estimate <= 1000 };"
)


def asked(text: str, meaning: SessionNames | None = None) -> Request:
    statement = one(text)
    facts = RESOLVER(statement, meaning or SessionNames())
    settled = meaning is None
    return msgspec.structs.replace(cases.request(statement, facts), settled=settled)


# --- what is planned ---


@pytest.mark.parametrize(
    "text",
    [
        "select * from orders where id = 1",
        "with o as (select id from orders) select * from o limit 5",
        "select id from orders for update",
        "table orders",
        "(select id from orders) union all select id from orders",
        "update orders set id = 2 where id = 1",
        "delete from orders",
        "insert into orders (id) select id from orders returning id",
        "/* analyze */ select id from orders -- analyze",
    ],
)
def test_plain_statements_are_explained_and_not_executed(text: str) -> None:
    assert question(asked(text), SHOP) == f"EXPLAIN (FORMAT JSON) {one(text).recorded}"


def test_functions_of_postgresql_are_planned_where_they_are_immutable_or_known() -> None:
    text = "select upper(id::text), now() from orders where id > abs(-1)"
    assert question(asked(text), SHOP) == ""  # where all of them are declared VOLATILE
    own = [
        msgspec.structs.replace(f, volatility="i") if f.schema == "pg_catalog" else f
        for f in FUNCTIONS
    ]
    assert question(asked(text), Snapshot(RELATIONS, own)) == f"EXPLAIN (FORMAT JSON) {text}"
    # Whoever names one like PostgreSQL's own makes it no better.
    assert question(asked("select public.refund(1)"), Snapshot(RELATIONS, own)) == ""


def test_what_has_parameters_is_planned_for_any() -> None:
    text = "select id from orders where id = $1"
    assert question(asked(text), SHOP) == f"PREPARE gatebook_estimate AS {text}"


@pytest.mark.parametrize(
    "text",
    [
        # Functions of others, whatever they declare, and such as run what they are given.
        "select public.refund(1)",
        "select id from orders where public.refund(id) = 1",
        "select table_to_xml('orders', true, true, '')",
        "select query_to_xml('delete from orders', true, true, '')",
        "select pg_read_file('/etc/passwd')",
        "select lo_import('/etc/passwd')",
        "select id from orders where id === 1",
        # Not plain.
        "explain analyze delete from orders",
        "explain select id from orders",
        "create table t as select id from orders",
        "select id into t from orders",
        "copy orders to stdout",
        "copy (select id from orders) to program 'x'",
        "do $$ begin delete from orders; end $$",
        "call public.raise(1)",
        "declare c cursor for select id from orders",
        "prepare p as select id from orders",
        "execute p",
        "fetch all from c",
        "truncate orders",
        "set a = 1",
        "select id from nothing_of_this_name",
        "create role r password 'x'",
    ],
)
def test_nothing_that_might_do_something_is_planned(text: str) -> None:
    assert question(asked(text), SHOP) == ""


@pytest.mark.parametrize(
    "meaning",
    [
        SessionNames(certain=False),
        SessionNames(opaque=True),
        SessionNames(temporary=frozenset({"orders"})),
        SessionNames(views=frozenset({"v"})),
    ],
)
def test_a_session_whose_names_may_mean_something_else_is_not_asked_for(
    meaning: SessionNames,
) -> None:
    assert question(asked("select id from orders", meaning), SHOP) == ""


def test_a_text_that_was_redacted_or_refused_is_not_planned() -> None:
    plain = asked("select id from orders")
    for more in ({"refusal": "no"}, {"statement": "select '<redacted>'"}, {"statement": "sel"}):
        assert question(msgspec.structs.replace(plain, **more), SHOP) == ""
    two = msgspec.structs.replace(plain, statement="select 1; delete from orders")
    assert question(two, SHOP) == ""
    wild = msgspec.structs.replace(plain, statement="analyze select 1")
    assert question(wild, SHOP) == ""


# --- what a plan says ---


def plan(node: dict[str, Any]) -> str:
    return json.dumps([{"Plan": node}])


@pytest.mark.parametrize(
    ("answer", "rows"),
    [
        (plan({"Node Type": "Seq Scan", "Plan Rows": 1234}), 1234),
        (plan({"Node Type": "Result", "Plan Rows": 0}), 0),
        (
            plan(
                {
                    "Node Type": "ModifyTable",
                    "Plan Rows": 0,
                    "Plans": [
                        {"Parent Relationship": "InitPlan", "Plan Rows": 5},
                        {"Parent Relationship": "Outer", "Plan Rows": 70},
                    ],
                }
            ),
            70,
        ),
        (plan({"Node Type": "ModifyTable", "Plan Rows": 9, "Plans": []}), 9),
        (plan({"Node Type": "Seq Scan"}), -1),
        (plan({"Node Type": "ModifyTable", "Plan Rows": 0}), -1),
        ("[]", -1),
        ("not JSON", -1),
        ("[{}, {}]", -1),
        (None, -1),
    ],
)
def test_rows_are_read_of_the_plan_or_unknown(answer: Any, rows: int) -> None:
    assert rows_of(answer) == rows


# --- rules ---


def decide(*texts: str, rows: int = -1, text: str = "select * from orders") -> Decision:
    policies = checked((f"{number}.cedar", each) for number, each in enumerate(texts))
    asked = msgspec.structs.replace(request(text), row_estimate=rows)
    return policies.execute(ALICE, "shop", "psql", asked)


def test_a_rule_is_told_the_estimate_and_unknown_fails_closed() -> None:
    assert decide(ALL, SMALL, rows=1000).verdict is Verdict.ALLOW
    assert decide(ALL, SMALL, rows=0).verdict is Verdict.ALLOW
    assert decide(ALL, SMALL, rows=1001).policies == ("small",)
    assert decide(ALL, SMALL).policies == ("small",)
    permit = '@id("p") permit (principal, action, resource) when'
    assert decide(f"{permit} {{ context has row_estimate }};").verdict is Verdict.DENY
    assert decide(f"{permit} {{ context has row_estimate }};", rows=5).verdict is Verdict.ALLOW


def test_each_estimate_is_decided_by_itself_and_only_where_a_rule_speaks_of_it() -> None:
    policies = checked([("p.cedar", ALL + SMALL)])
    assert policies.asks_estimates
    plain = request("select * from orders")
    verdicts = [
        policies.execute(
            ALICE, "shop", "psql", msgspec.structs.replace(plain, row_estimate=rows)
        ).verdict
        for rows in (5, 5000, 5, -1)
    ]
    assert verdicts == [Verdict.ALLOW, Verdict.DENY, Verdict.ALLOW, Verdict.DENY]
    assert not checked([("p.cedar", ALL)]).asks_estimates
    assert Policies([("p.cedar", ALL + SMALL.replace(" when", " when { context == {} } when"))])


def test_a_case_may_say_what_is_expected() -> None:
    policies = checked([("p.cedar", ALL + SMALL)])
    document = {
        "tables": {"public.orders": {"columns": ["id"]}},
        "cases": [
            {"do": "select * from orders", "row_estimate": 10, "allow": True},
            {"do": "select * from orders", "row_estimate": 10_000, "deny": "small"},
            {"do": "select * from orders", "deny": "small"},
        ],
    }
    assert [result.wrong for result in cases.run(document, policies)] == ["", "", ""]


@pytest.mark.parametrize(
    ("effect", "conditions", "warned"),
    [
        ("forbid", "when { context has row_estimate && context.row_estimate > 9 }", True),
        ("forbid", "unless { context has row_estimate && context.row_estimate <= 9 }", False),
        (
            "forbid",
            "when { !(context has row_estimate) ||"
            " (context has row_estimate && context.row_estimate > 9) }",
            False,
        ),
        ("permit", "when { context has row_estimate && context.row_estimate <= 9 }", False),
        ("permit", "unless { context has row_estimate && context.row_estimate > 9 }", True),
    ],
)
def test_check_warns_of_a_rule_that_lets_the_unknown_pass(
    effect: str, conditions: str, warned: bool
) -> None:
    text = (
        f'@id("x") @message("m") @how_to_ask("h") {effect}'
        f' (principal, action == Action::"execute", resource) {conditions};'
    )
    found = [one for one in findings([("p.cedar", text)]) if "row_estimate" in one.text]
    assert [one.level for one in found] == ([WARNING] if warned else [])
