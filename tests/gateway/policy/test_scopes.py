"""Policies that cannot match are left out, and no answer changes by it."""

from __future__ import annotations

import json
import os
from dataclasses import replace

import cedarpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.identity.principal import Principal
from gateway.policy import scopes
from gateway.policy.decide import Policies
from tests.gateway.policy.catalogs import request

ALICE = Principal("https://i", "a", "alice", ("support",), None, "person", 2e9)
PEOPLE = [
    ALICE,
    replace(ALICE, groups=("dba", "support")),
    replace(ALICE, subject="b", groups=()),
    replace(ALICE, agent="claude"),
    replace(ALICE, agent="claude", groups=()),
]
PRINCIPALS = st.sampled_from(
    [
        "principal",
        'principal in Group::"support"',
        'principal in Group::"dba"',
        'principal == User::"https://i|a"',
        'principal in User::"https://i|a"',
        'principal == Agent::"https://i|claude"',
        "principal is Agent",
        "principal is User",
        'principal is Agent in Group::"support"',
        'principal is User in Group::"dba"',
    ]
)
RESOURCES = st.sampled_from(
    [
        "resource",
        'resource == Target::"shop"',
        'resource in Target::"shop"',
        'resource == Target::"other"',
        'resource in Target::"other"',
        'resource in Schema::"shop.hr"',
        'resource in Schema::"other.hr"',
        'resource == Table::"shop.public.orders"',
        "resource is Table",
        'resource is Table in Schema::"shop.public"',
        'resource is Table in Target::"other"',
        'resource == Column::"shop.public.orders.id"',
    ]
)
# Some fail, some are errors, and some are of another type than they look like.
TESTS = st.sampled_from(
    [
        'context.kinds.contains("select")',
        'context.kinds.contains("delete")',
        'context.kinds.containsAny(["delete", "update"])',
        'context.kinds.containsAny(["insert", "select"])',
        "context.kinds.containsAny([])",
        'context.kinds.containsAll(["select"])',
        'context.kinds.contains("")',
        "!context.tables_written.isEmpty()",
        "context.tables_written.isEmpty()",
        'context.tables_read.contains("public.orders")',
        'context.access.contains("read")',
        'context.access.contains("write")',
        '!context.access.contains("write")',
        'context.kind == "select"',
        'context.kind == "delete"',
        'context.kinds == "select"',
        'context.kind.contains("select")',
        '"select" == context.kind',
        "context.kind == context.kind",
        'context.application == "psql"',
        'context.application == "other"',
        "context.has_where",
        "context.has_where.isEmpty()",
        "context.no == 1",
        'context.no == "x"',
        'context.no.contains("x")',
        "!context.no.isEmpty()",
        'context has limit && context.limit == "x"',
        "principal is Agent",
        "principal is User",
        'principal is User in Group::"dba"',
        'resource is Table && resource.name == "orders"',
        "resource.nothing == 1",
    ]
)
HEADS = st.tuples(
    st.sampled_from(["permit", "permit", "forbid"]),
    PRINCIPALS,
    st.sampled_from(
        [
            "action",
            'action == Action::"execute"',
            'action == Action::"connect"',
            'action == Action::"see_clear"',
            'action == Action::"unlimited_rows"',
            'action in Action::"execute"',
            'action in [Action::"execute", Action::"connect"]',
        ]
    ),
    RESOURCES,
    st.lists(
        st.tuples(
            st.sampled_from(["when", "when", "when", "unless"]),
            st.lists(TESTS, min_size=1, max_size=3),
            st.sampled_from([" && ", " || "]),
        ),
        max_size=2,
    ),
)


Heads = list[tuple[str, str, str, str, list[tuple[str, list[str], str]]]]


def written(heads: Heads) -> list[tuple[str, str]]:
    files = []
    for n, (wanted, who, action, what, conditions) in enumerate(heads):
        unlimited = "unlimited" in action
        limit = '@max_rows("7") ' if unlimited else ""
        effect = "forbid" if unlimited else wanted
        said = "".join(f" {kind} {{ {how.join(tests)} }}" for kind, tests, how in conditions)
        files.append((f"{n}.cedar", f'@id("{n}") {limit}{effect} ({who}, {action}, {what}){said};'))
    return files


@settings(deadline=None, max_examples=int(os.environ.get("GATEBOOK_FUZZ", "150")))
@given(st.lists(HEADS, min_size=1, max_size=8))
def test_nothing_is_answered_otherwise(heads: Heads) -> None:
    files = written(heads)
    whole = Policies(files)
    with pytest.MonkeyPatch.context() as patched:
        # However few there are, and whatever it costs.
        patched.setattr(scopes, "_FEW", 0)
        patched.setattr(scopes, "_SET_COSTS", -1_000)
        parts = Policies(files)
        compare(whole, parts)


def compare(whole: Policies, parts: Policies) -> None:
    for who in PEOPLE:
        for text in ("select id from orders", "delete from orders", "select 1"):
            for target in ("shop", "other"):
                asked = request(text)
                expected = whole.execute(who, target, "psql", asked)
                assert parts.execute(who, target, "psql", asked) == expected
                assert parts.connect(who, target, "psql") == whole.connect(who, target, "psql")
            seen = "public.orders.id", "hr.people.name"
            assert parts.see_clear(who, target, "psql", seen) == whole.see_clear(
                who, target, "psql", seen
            )


def test_what_concerns_others_is_left_out() -> None:
    text = "".join(
        f'@id("{n}") permit (principal in Group::"g{n}", action, resource);' for n in range(100)
    )
    policies = Policies([("many.cedar", text)])
    assert policies.execute(
        replace(ALICE, groups=("g7",)), "shop", "psql", request("select 1")
    ).policies == ("7",)
    (chosen,) = policies.scopes._known.values()
    assert len(chosen) == 1


def test_what_begins_with_a_test_that_fails_is_left_out() -> None:
    text = "".join(
        f'@id("{n}") permit (principal, action == Action::"execute", resource)'
        f' when {{ context.tables_read.contains("public.t{n}") || context.ddl.contains("k{n}") }};'
        for n in range(100)
    )
    text += '@id("reads") permit (principal, action, resource) when { !context.has_limit };'
    text += '@id("orders") permit (principal, action, resource)'
    text += ' when { context.tables_read.contains("public.orders") };'
    policies = Policies([("many.cedar", text)])
    decision = policies.execute(ALICE, "shop", "psql", request("select id from orders"))
    assert decision.policies == ("orders", "reads")
    (chosen,) = policies.scopes._known.values()
    assert len(chosen) == 102
    # The others were never made into a set that could be asked.
    assert chosen._whole is None
    assert {test for test in chosen._sets if test is not None} == {
        ("in", "tables_read", "public.orders")
    }
    # Without the attributes that they ask for, they are errors, and all are asked.
    assert policies.connect(ALICE, "shop", "psql").reason == "a policy could not be evaluated"


@pytest.mark.parametrize(
    ("condition", "tests"),
    [
        ('when { context.a.contains("x") }', {("in", "a", "x")}),
        ('when { context.a.contains("x") && context.b }', {("in", "a", "x")}),
        ('when { context.b && context.a.contains("x") }', None),
        ('when { context.a.containsAny(["x", "y"]) }', {("in", "a", "x"), ("in", "a", "y")}),
        ('when { context.a == "x" || !context.b.isEmpty() }', {("is", "a", "x"), ("in", "b", "")}),
        ('when { context.a == "x" || context.b }', None),
        (
            'when { context.a == "x" || principal is Agent }',
            {("is", "a", "x"), ("who", "", "Agent")},
        ),
        ('when { principal is User in Group::"g" }', None),
        ("when { resource is Table }", None),
        ('when { !(context.a == "x") }', None),
        ("when { context.a.isEmpty() }", None),
        ("when { context.a == 1 }", None),
        ('when { context.a == "" }', None),
        ('when { context.a.contains("") }', None),
        ("when { context.a.containsAny([]) }", None),
        ("when { context.a.contains(context.b) }", None),
        ('when { context.a.b.contains("x") }', None),
        ('when { resource.a == "x" }', None),
        ('unless { context.a.contains("x") }', None),
        ("", None),
    ],
)
def test_which_tests_come_first(condition: str, tests: set[scopes.Test] | None) -> None:
    text = f"permit (principal, action, resource) {condition};"
    (policy,) = json.loads(cedarpy.policies_to_json_str(text))["staticPolicies"].values()
    assert scopes.first_tests(policy) == tests
