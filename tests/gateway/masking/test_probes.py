from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gateway.masking import probes
from gateway.masking.hidden import Column, Hidden, Relation
from gateway.masking.plan import plan
from gateway.masking.probes import Probe, tried
from gateway.masking.tree import Reading
from gateway.masking.veil import Veil
from gateway.policy.sql import analyse
from gateway.protocols.postgres.pipeline import Prepared
from tests.gateway.masking.shop import CUSTOMERS, EMAIL, HIDDEN, LOOK_UP


def with_type(kind: str) -> Hidden:
    """The shop, where `email` is of another type."""

    def changed(column: Column) -> Column:
        return replace(column, type=kind, declared=kind) if column.name == "email" else column

    relation = Relation(1, "public", "customers", tuple(map(changed, CUSTOMERS.columns)))
    return replace(HIDDEN, protected={("public", "customers"): relation})


def with_budget(budget: int) -> Hidden:
    """The shop, where so many addresses may be looked up."""

    def changed(column: Column) -> Column:
        if column.mask is None or column.name != "email":
            return column
        return replace(column, mask=replace(column.mask, equality=replace(LOOK_UP, budget=budget)))

    relation = Relation(1, "public", "customers", tuple(map(changed, CUSTOMERS.columns)))
    return replace(HIDDEN, protected={("public", "customers"): relation})


def use_refused() -> Hidden:
    """The shop, where `ssn` may be shown, masked, and not used otherwise."""

    def changed(column: Column) -> Column:
        strict = column.mask and column.name == "ssn"
        return replace(column, mask=replace(column.mask, use="refuse")) if strict else column

    relation = Relation(1, "public", "customers", tuple(map(changed, CUSTOMERS.columns)))
    return replace(HIDDEN, protected={("public", "customers"): relation})


@pytest.mark.parametrize(
    ("condition", "parameters", "distinct"),
    [
        ("email = 'a'", (), 1),
        ("'a' = email", (), 1),
        ("c.email = 'a'::text", (), 1),
        ("email = $1", ((0, 0, b"a"),), 1),
        ("email = $1::varchar(3)", ((25, 1, b"a"),), 1),
        ("email in ('a', 'b', 'a')", (), 2),
        ("email in ($1, $2, 'c')", ((0, 0, b"a"), (0, 0, b"b")), 3),
        ("email in ($1, $2)", ((0, 0, b"a"), (0, 0, b"a")), 1),
        ("email = 'a' and id = 1 and email = 'b'", (), 2),
        ("email = null", (), 1),
        ("email = $1", ((0, 0, None),), 0),
        # The target finds out that one is missing.
        ("email = $2", ((0, 0, b"a"),), 0),
    ],
)
def test_values_are_counted(
    condition: str, parameters: tuple[tuple[int, int, bytes | None], ...], distinct: int
) -> None:
    found = plan(f"select id from customers c where {condition}", HIDDEN)
    assert found.action == "pass"
    assert {(each.origin, each.reason, each.budget) for each in found.probes} == {
        (EMAIL, LOOK_UP.reason, LOOK_UP.budget)
    }
    values = tried(found.probes, parameters, "UTF8")
    assert values is not None
    assert len(values) == distinct


@pytest.mark.parametrize(
    "condition",
    [
        # One text that means another value whenever a setting, or a name, changes.
        "email = '2000-01-01'::timestamptz::text",
        "email = '2000-01-01'::timestamptz",
        "email = 'customers'::regclass",
        "email = '1'::app.text",
        "email = '{a}'::text[]",
        "email = $1::interval",
        "email = $1 and $1::timestamptz is not null",
        "email in ($1, $1)",
        "email in ('a', name)",
        "email in (select 'a')",
        "email not in ('a')",
        "email <> 'a'",
        "email = any(array['a'])",
        "email = name",
        "email = lower('a')",
        "email = 'a' or email = 'b'",
        "not (email = 'a')",
        "(email = 'a') is true",
        "email = 'a' and email > 'b'",
        "ssn = '1'",
        "ssn in ('1', '2')",
        "email operator(pg_catalog.=) 'a'",
    ],
)
def test_nothing_else_is_compared_in_clear(condition: str) -> None:
    found = plan(f"select id from customers where {condition}", HIDDEN)
    assert found.probes == ()
    assert found.action in ("rewrite", "refuse")


@pytest.mark.parametrize("kind", ["timestamptz", "date", "interval", "money", "regclass", "jsonb"])
def test_values_that_depend_on_settings_are_not(kind: str) -> None:
    found = plan("select id from customers where email = $1", with_type(kind))
    assert (found.action, found.probes) == ("rewrite", ())


@pytest.mark.parametrize("oid", [1184, 2205, 1186, 1009])
def test_a_parameter_of_such_a_type_is_not_counted(oid: int) -> None:
    probe = Probe(EMAIL, "x", 3, "null", 1)
    assert tried([probe], ((oid, 0, b"a"),), "UTF8") is None
    assert tried([probe], None, "UTF8") is None


def test_an_execute_would_give_what_is_not_looked_at() -> None:
    assert plan("prepare p as select id from customers where email = $1", HIDDEN).edits
    prepared = plan("prepare p as select id from customers where email = 'a'", HIDDEN)
    assert (prepared.action, len(prepared.probes)) == ("pass", 1)


def test_what_was_tried_is_not_shown() -> None:
    found = tried([Probe(EMAIL, "x", 3, "null", 1)], ((25, 0, b"canary"),), "UTF8")
    assert found is not None
    assert b"canary" in found[0].value
    assert "canary" not in repr(found)


@pytest.mark.parametrize(
    ("text", "action"),
    [
        ("select ssn from customers", "pump"),
        ("select * from customers", "rewrite"),
        ("select upper(email), ssn from customers", "rewrite"),
        ("copy customers to stdout", "rewrite"),
        ("copy (select ssn from customers) to stdout", "rewrite"),
        ("update customers set name = 'x' returning ssn", "pump"),
        ("select upper(ssn) from customers", "refuse"),
        ("select id from customers where ssn = '1'", "refuse"),
        ("select id from customers where ssn is null", "refuse"),
        ("select ssn from customers order by 1", "refuse"),
        ("select distinct ssn from customers", "refuse"),
        ("select ssn from customers union select 'x'", "refuse"),
        ("select c from customers c", "refuse"),
        ("select x.ssn from (select * from customers) x", "refuse"),
        ("copy (select max(ssn) from customers) to stdout", "refuse"),
        ("prepare p as select upper(ssn) from customers", "refuse"),
    ],
)
def test_a_strict_column_may_be_shown_and_not_used(text: str, action: str) -> None:
    found = plan(text, use_refused())
    assert found.action == action
    if action == "refuse":
        assert "public.customers.ssn" in found.reason
        assert found.columns == ("public.customers.ssn",)


def test_the_same_bytes_are_another_value_in_another_encoding() -> None:
    probe = Probe(EMAIL, "x", 3, "null", 1)
    found = {
        each.value
        for encoding in ("LATIN1", "LATIN2", "LATIN1")
        for each in tried([probe], ((0, 0, b"\xe6"),), encoding) or ()
    }
    assert len(found) == 2


@pytest.mark.parametrize(
    "condition",
    [
        f"email in ({','.join(map(repr, map(str, range(10_000))))})",
        " and ".join(f"email = '{number}'" for number in range(10_000)),
    ],
    ids=["IN", "AND"],
)
def test_a_list_beyond_the_budget_is_not_read_to_its_end(
    condition: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = []
    constant = probes._constant

    def noted(node: Any, reading: Reading, prepares: bool) -> tuple[str, int] | None:
        read.append(node)
        return constant(node, reading, prepares)

    monkeypatch.setattr(probes, "_constant", noted)
    found = plan(f"select id from customers where {condition}", HIDDEN)
    assert found.action == "refuse"
    assert found.reason == f"at most 3 distinct values of {EMAIL} may be looked up in an hour"
    assert len(read) == LOOK_UP.budget + 1


def test_one_value_many_times_is_one() -> None:
    # Drivers fill lists up with their last value.
    listed = ",".join([*["'a'", "'b'"] * 500, *(f"${number}" for number in range(1, 65))])
    found = plan(f"select id from customers where email in ({listed})", HIDDEN)
    assert found.action == "pass" and len(found.probes) == 66
    assert len(tried(found.probes, ((0, 0, b"c"),) * 64, "UTF8") or ()) == 3


def test_what_is_remembered_counts_the_values_that_are_looked_up() -> None:
    values = ",".join(f"'{number}'" for number in range(5000))
    hidden = with_budget(10_000)
    found = plan(f"select id from customers where email in ({values})", hidden)
    assert len(found.probes) == 5000 and found.size > 1_000_000
    statement = analyse("select 1")[0]
    assert Prepared(statement, (), found).size > Prepared(statement, ()).size + 1_000_000
    veil = Veil(hidden)
    for number in range(20):
        veil.plan(f"select id from customers where email in ('x{number}',{values})")
    assert 0 < len(veil._plans) < 10 and veil._bytes <= 8 * 1024 * 1024
