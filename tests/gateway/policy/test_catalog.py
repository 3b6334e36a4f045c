"""A catalog's names, and what a snapshot knows of its relations."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.introspection import Rows
from gateway.policy.catalog import build, name_of, parts_of
from tests.gateway.policy.catalogs import SHOP

NAMES = st.lists(st.text(max_size=8), min_size=1, max_size=3)


@given(NAMES)
def test_a_name_has_its_parts_back(parts: list[str]) -> None:
    assert parts_of(name_of(*parts)) == parts


@given(NAMES, NAMES)
def test_two_things_have_two_names(one: list[str], other: list[str]) -> None:
    assert (name_of(*one) == name_of(*other)) is (one == other)


@pytest.mark.parametrize(
    ("parts", "name"),
    [
        (("hr", "payroll"), "hr.payroll"),
        (("Hr", "pay roll"), "Hr.pay roll"),
        (("a.b", "c"), '"a.b".c'),
        (("a", 'b"c'), 'a."b""c"'),
    ],
)
def test_names_are_quoted_only_where_they_would_be_ambiguous(
    parts: tuple[str, ...], name: str
) -> None:
    assert name_of(*parts) == name


def test_rows_become_relations_functions_and_operators() -> None:
    rows = Rows(
        relations=[
            (1, "public", "parent", "p", "p", "shop", None),
            (2, "public", "child", "r", "p", "shop", None),
            (3, "public", "seen", "v", "p", "hr", " SELECT parent.id FROM public.parent;"),
            (4, "pg_temp_3", "mine", "r", "t", "shop", None),
        ],
        columns=[
            (1, ["id", "name"], [1, 3], ["integer", "text"], [True, False]),
            (2, ["id"], [1], ["integer"], [True]),
        ],
        inherits=[(2, 1)],
        rules=[(1, "CREATE RULE r AS ON DELETE TO public.parent DO INSTEAD NOTHING;")],
        triggers=[(2, 10)],
        references=[(2, 1, "c", "a", [1], [1])],
        functions=[
            (10, "public", "f", "v", "plpgsql", True, 1, 2, "CREATE FUNCTION …", None, False)
        ],
        operators=[("public", "===", 10, False)],
        path=("public",),
        version="v1",
    )
    snapshot = build(rows)
    (parent,), (child,) = snapshot.named("parent"), snapshot.named("child")
    assert snapshot.known and snapshot.version == "v1"
    assert snapshot.path == ("pg_catalog", "public")
    assert (parent.full, parent.children, parent.owner) == ("public.parent", (2,), "shop")
    assert parent.origins == {"id": ("public.parent.id",), "name": ("public.parent.name",)}
    assert [(c.number, c.type, c.not_null) for c in parent.columns] == [
        (1, "integer", True),
        (3, "text", False),
    ]
    assert snapshot.descendants(parent) == [child] and snapshot.ancestors(child) == [parent]
    assert parent.cascades[0].oid == 2 and child.triggers == (10,)
    assert snapshot.named("seen")[0].is_view
    assert snapshot.named("mine")[0].full == "pg_temp.mine"
    (function,) = snapshot.functions_named("f")
    assert function.takes(1) and function.takes(2) and not function.takes(3)
    assert not function.is_own and function.definer
    assert snapshot.operators_named("===")[0].function == 10


def test_a_catalog_that_inherits_in_a_circle_is_no_endless_loop() -> None:
    relations = [(n, "a", f"t{n}", "r", "p", "", None) for n in (1, 2)]
    snapshot = build(Rows(relations, inherits=[(1, 2), (2, 1)], version="v"))
    assert len(snapshot.descendants(snapshot.relations[1])) == 2
    assert SHOP.known
