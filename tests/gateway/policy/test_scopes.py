"""Policies that cannot match are left out, and no answer changes by it."""

from __future__ import annotations

from dataclasses import replace

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
HEADS = st.tuples(
    st.sampled_from(["permit", "permit", "forbid"]),
    PRINCIPALS,
    st.sampled_from(["action", 'action == Action::"execute"', 'action == Action::"connect"']),
    RESOURCES,
    st.sampled_from(
        ["", ' when { context.kinds.contains("select") }', " when { context.no == 1 }"]
    ),
)


@settings(deadline=None)
@given(st.lists(HEADS, min_size=1, max_size=8))
def test_nothing_is_answered_otherwise(heads: list[tuple[str, str, str, str, str]]) -> None:
    files = [
        (f"{n}.cedar", f'@id("{n}") {effect} ({who}, {action}, {what}){when};')
        for n, (effect, who, action, what, when) in enumerate(heads)
    ]
    whole = Policies(files)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(scopes, "_FEW", 0)
        parts = Policies(files)
    for who in PEOPLE:
        for text in ("select id from orders", "delete from orders", "select 1"):
            for target in ("shop", "other"):
                asked = request(text)
                expected = whole.execute(who, target, "psql", asked)
                assert parts.execute(who, target, "psql", asked) == expected
                assert parts.connect(who, target, "psql") == whole.connect(who, target, "psql")


def test_what_concerns_others_is_left_out() -> None:
    text = "".join(
        f'@id("{n}") permit (principal in Group::"g{n}", action, resource);' for n in range(100)
    )
    policies = Policies([("many.cedar", text)])
    assert policies.execute(
        replace(ALICE, groups=("g7",)), "shop", "psql", request("select 1")
    ).policies == ("7",)
    (chosen,) = policies.scopes._known.values()
    assert chosen is not policies.scopes._whole
