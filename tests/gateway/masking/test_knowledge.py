from __future__ import annotations

from typing import Any

import pytest

from gateway.introspection import Rows
from gateway.masking.hidden import Mask
from gateway.masking.knowledge import Knowledge, hidden_from, lineage
from gateway.masking.knowledge import known as read_as
from gateway.masking.sqlmask import expression
from gateway.policy.catalog import build

CLASSIFIED = {
    "public.people.ssn": Mask("pii", "full"),
    "public.people.mail": Mask("pii", "email"),
}
PEOPLE = [(1, "id"), (2, "ssn"), (3, "mail"), (4, "city")]


def known(**more: Any) -> Knowledge:
    """The table people, and whatever else: `tables` maps (oid, name) to column names."""
    columns = [
        (100, "public", "people", name, number, "text", "text", 0) for number, name in PEOPLE
    ]
    tables: dict[tuple[int, str], list[str]] = more.pop("tables", {})
    for (oid, table), names in tables.items():
        columns += [
            (oid, "public", table, name, number, "text", "text", 0)
            for number, name in enumerate(names, 1)
        ]
    relations = {(schema, name) for _, schema, name, *_ in columns}
    parts: dict[str, Any] = {
        "columns": tuple(columns),
        "relations": tuple(sorted(relations)),
        "inherited": (),
        "views": (),
        "generated": (),
        "functions": (
            ("upper", True, True),
            ("count", True, True),
            ("length", True, True),
            ("peek", False, False),
        ),
        "operators": (),
        "database": "shop",
        "path": ("public",),
    }
    return Knowledge(**(parts | more))


def masks_of(definition: str, columns: list[str], **more: Any) -> dict[str, str]:
    """Masks of a view's columns by name; `?` for what is computed."""
    knowledge = known(
        tables={(200, "v"): columns, **more.pop("tables", {})}, views=((200, definition),), **more
    )
    found = lineage(knowledge, CLASSIFIED).get(200, {})
    return {name: mask.origin or "?" for name, mask in found.items()}


SSN, MAIL = "public.people.ssn", "public.people.mail"


@pytest.mark.parametrize(
    ("definition", "expected"),
    [
        ("SELECT p.id AS a, p.ssn AS b FROM people p", {"b": SSN}),
        ("SELECT p.id AS a, upper(p.mail) AS b FROM people p", {"b": "?"}),
        ("SELECT p.city AS a, count(*) AS b FROM people p GROUP BY p.city", {}),
        ("SELECT p.id AS a, p.city AS b FROM people p WHERE p.ssn ~~ 'x'", {}),
        ("SELECT x.a, x.b FROM (SELECT ssn AS a, id AS b FROM people) x", {"a": "?", "b": "?"}),
        ("SELECT id AS a, ssn AS b FROM people UNION SELECT id, mail FROM people",
         {"a": "?", "b": "?"}),
        ("SELECT a, b FROM people p(a, b, c, d)", {"a": "?", "b": "?"}),
        ("SELECT p.id AS a, peek(p.id) AS b FROM people p", {"a": "?", "b": "?"}),
        ("SELECT peek(1) AS a, 1 AS b", {"a": "?", "b": "?"}),
        ("SELECT p.id AS a, p.* AS b FROM people p", {"a": "?", "b": "?"}),
        ("SELECT p.id AS a, (SELECT q.ssn FROM people q) AS b FROM people p", {"b": "?"}),
        ("SELECT p.id AS a, p AS b FROM people p", {"b": "?"}),
        ("WITH q AS (SELECT ssn AS a FROM people) SELECT a, a AS b FROM q", {"a": "?", "b": "?"}),
        ("not sql", {"a": "?", "b": "?"}),
        ("SELECT o.x AS a, o.y AS b FROM other o", {}),
    ],
)  # fmt: skip
def test_what_a_view_shows(definition: str, expected: dict[str, str]) -> None:
    assert masks_of(definition, ["a", "b"]) == expected


def test_a_view_of_a_view_is_followed() -> None:
    knowledge = known(
        tables={(200, "v"): ["a"], (201, "w"): ["b"]},
        views=((201, "SELECT v.a AS b FROM v"), (200, "SELECT p.ssn AS a FROM people p")),
    )
    assert lineage(knowledge, CLASSIFIED)[201]["b"].origin == SSN


def test_children_and_parents_show_the_same_rows() -> None:
    knowledge = known(
        tables={(300, "child"): ["id", "ssn"], (301, "parent"): ["id", "ssn"]},
        inherited=((300, 100), (300, 301)),
    )
    found = lineage(knowledge, CLASSIFIED)
    assert found[300]["ssn"].origin == SSN
    assert found[301]["ssn"].origin == SSN


def test_a_generated_column_is_what_it_is_made_of() -> None:
    knowledge = known(generated=((100, "city", "right(ssn, 4)"), (100, "id", "length('x')")))
    found = lineage(knowledge, CLASSIFIED)[100]
    assert found["city"].classification == "computed"
    assert "id" not in found


def test_a_generated_column_is_fetched_only_where_it_is_stored() -> None:
    # Computed when it is read, it may fail by what is hidden, declared itself or not.
    for virtual in (False, True):
        knowledge = known(
            generated=((100, "city", "ssn::int::text"), (100, "mail", "ssn || '@'")),
            virtual=frozenset({(100, "city"), (100, "mail")} if virtual else ()),
        )
        hidden = hidden_from(knowledge, lineage(knowledge, CLASSIFIED), lambda mask: False)
        columns = {each.name: each for each in hidden.protected["public", "people"].columns}
        for name in ("city", "mail"):
            assert columns[name].pumped is not virtual
            assert (f'"{name}"' in expression(columns[name], {})) is (
                name == "mail" and not virtual
            )


def test_a_view_does_not_read_what_is_computed_when_it_is_read() -> None:
    knowledge = known(
        tables={(200, "v"): ["a", "b"], (201, "w"): ["c"]},
        views=(
            (200, "SELECT p.city AS a, p.mail AS b FROM people p"),
            (201, "SELECT v.b AS c FROM v"),
        ),
        generated=((100, "city", "ssn::int::text"), (100, "mail", "ssn || '@'")),
        virtual=frozenset({(100, "city"), (100, "mail")}),
    )
    hidden = hidden_from(knowledge, lineage(knowledge, CLASSIFIED), lambda mask: False)
    for relation in ("v", "w"):
        for column in hidden.protected["public", relation].columns:
            assert not column.pumped
            assert f'"{column.name}"' not in expression(column, {})


def test_who_sees_a_column_sees_what_is_it_and_not_what_is_computed() -> None:
    knowledge = known(
        tables={(200, "v"): ["a", "b"]},
        views=((200, "SELECT p.ssn AS a, upper(p.ssn) AS b FROM people p"),),
    )
    masks = lineage(knowledge, CLASSIFIED)
    hidden = hidden_from(knowledge, masks, lambda mask: mask.origin == SSN)
    assert hidden.protected["public", "people"].hidden == {"mail"}
    assert hidden.protected["public", "v"].hidden == {"b"}
    assert hidden.functions == {"upper", "count", "length"}
    assert hidden.shadowing == {"peek"}


def test_functions_of_the_targets_own_may_be_declared_harmless() -> None:
    knowledge = known(
        tables={(200, "v"): ["a"]}, views=((200, "SELECT peek(p.id) AS a FROM people p"),)
    )
    masks = lineage(knowledge, CLASSIFIED, ["peek"])
    assert 200 not in masks
    hidden = hidden_from(knowledge, masks, lambda mask: False, ["peek"])
    assert "peek" in hidden.functions
    assert "peek" not in hidden.shadowing


def test_masking_and_policies_see_one_catalog() -> None:
    rows = Rows(
        relations=[
            (20000, "public", "people", "r", "p", "owner", None),
            (20001, "public", "orders", "r", "p", "owner", None),
            (20002, "public", "seen", "v", "p", "owner", " SELECT ssn FROM public.people;"),
            (20003, "pg_temp_4", "mine", "r", "t", "owner", None),
            (300, "pg_catalog", "pg_class", "r", "p", "owner", None),
        ],
        columns=[
            (300, ["relname"], [1], ["name"], [True], ["name"], ["name"], [0], [None], [0]),
            (20000, ["ssn", "digits", "self"], [1, 3, 4], ["char(11)", "text", "people"],
             [True, False, False], ["bpchar", "text", "people"], ["char(11)", "text", "people"],
             [11, 0, 0], [None, "replace(ssn, '-', '')", None], [0, 0, 20000]),
            (20001, ["of"], [1], ["char(11)"], [False], ["bpchar"], ["char(11)"], [11], [None],
             [0]),
        ],
        rules=[(20001, "CREATE RULE r AS ON INSERT TO public.orders DO NOTHING;")],
        references=[(20001, 20000, "a", "a", [1], [1])],
        functions=[
            (100, "pg_catalog", "lower", "i", "internal", False, 1, 1, None, None, False),
            (101, "pg_catalog", "lower", "s", "internal", False, 1, 1, None, None, False),
            (102, "pg_catalog", "upper", "i", "internal", False, 1, 1, None, None, False),
            (20100, "public", "upper", "i", "sql", False, 1, 1, "", None, False),
            (20101, "public", "similarity", "s", "c", False, 2, 2, None, None, True),
            (20102, "public", "st_extent", "s", "c", False, 2, 2, None, None, True),
            (20103, "information_schema", "own", "i", "sql", False, 0, 0, "", None, False),
        ],
        operators=[("public", "%", 20101, True), ("public", "?%?", 20100, False)],
        named_path=("public",),
        database="shop",
        version="v",
    )  # fmt: skip
    found = read_as(rows)
    assert found.columns == (
        (20000, "public", "people", "ssn", 1, "bpchar", "char(11)", 11),
        (20000, "public", "people", "digits", 3, "text", "text", 0),
        (20000, "public", "people", "self", 4, "people", "people", 0),
        (20001, "public", "orders", "of", 1, "bpchar", "char(11)", 11),
    )
    assert ("pg_temp_4", "mine") not in found.relations
    assert ("pg_catalog", "pg_class") in found.relations
    assert found.views == ((20002, " SELECT ssn FROM public.people;"),)
    assert found.generated == ((20000, "digits", "replace(ssn, '-', '')"),)
    assert found.composites == ((20000, "self", 20000),)
    assert found.referring == ((20001, "of", 20000, "ssn"),)
    assert found.ruled == (("public", "orders"),)
    assert set(found.functions) == {
        ("lower", True, False),
        ("upper", True, True),
        ("upper", False, True),
        ("similarity", True, True),
        ("st_extent", True, False),
    }
    assert found.operators == ("?%?",)
    assert (found.database, found.path) == ("shop", ("public",))
    assert {relation.oid for relation in build(rows).relations.values()} == {
        300, 20000, 20001, 20002, 20003,
    }  # fmt: skip


def test_what_is_made_of_a_strict_column_is_strict() -> None:
    knowledge = known(
        tables={(200, "v"): ["a"], (201, "w"): ["b"], (202, "holder"): ["rows"]},
        views=((200, "SELECT upper(p.ssn) AS a FROM people p"), (201, "SELECT v.a AS b FROM v")),
        generated=((100, "city", "right(ssn, 4)"),),
        composites=((202, "rows", 100),),
    )
    strict = {SSN: Mask("pii", "full", use="refuse"), MAIL: Mask("pii", "email")}
    found = lineage(knowledge, strict)
    for oid, name in ((200, "a"), (201, "b"), (100, "city"), (202, "rows")):
        assert found[oid][name].use == "refuse"
    assert found[100]["mail"].use == "rewrite"


def test_of_two_columns_of_one_name_neither_is_taken_for_the_other() -> None:
    knowledge = known(
        tables={(200, "v"): ["a"], (300, "staff"): ["ssn"]},
        views=((200, "SELECT p.ssn AS a FROM people p JOIN staff s ON true"),),
    )
    classified = {SSN: Mask("pii", "full"), "public.staff.ssn": Mask("hr", "full")}
    assert lineage(knowledge, classified)[200]["a"].origin == ""


def test_what_is_made_of_what_may_be_copied_may_be_copied() -> None:
    knowledge = known(
        tables={(200, "v"): ["a"], (201, "w"): ["b"]},
        views=((200, "SELECT upper(p.ssn) AS a FROM people p"),
               (201, "SELECT p.ssn || p.mail AS b FROM people p")),
    )  # fmt: skip
    free = Mask("pii", "full", copies="allow")
    found = lineage(knowledge, {SSN: free})
    assert (found[200]["a"].copies, found[201]["b"].copies) == ("allow", "allow")
    found = lineage(knowledge, {SSN: free, MAIL: Mask("pii", "full")})
    assert found[201]["b"].copies == "refuse"


def test_views_that_choose_rows_by_what_is_hidden_are_closed_with_all_over_them() -> None:
    knowledge = known(
        tables={(200, "v"): ["id"], (201, "w"): ["id"], (202, "x"): ["id"]},
        views=(
            (200, "SELECT id FROM public.people WHERE ssn > '5'"),
            (201, "SELECT count(*) AS id FROM public.v"),
            (202, "SELECT id FROM public.people WHERE city = 'Rome'"),
        ),
        derived=((200, 100), (201, 200), (202, 100)),
    )
    masks = lineage(knowledge, CLASSIFIED)
    hidden = hidden_from(knowledge, masks, lambda mask: False)
    assert hidden.closed == {("public", "v"), ("public", "w")}
    assert not hidden_from(knowledge, masks, lambda mask: True).closed


def test_constraints_over_what_is_hidden_and_what_is_not_are_known() -> None:
    knowledge = known(
        tables={(200, "v"): ["id", "town"]},
        views=((200, "SELECT id, city AS town FROM public.people"),),
        derived=((200, 100),),
        together=((100, (2, 4)), (100, (1, 4)), (100, (2,))),
    )
    hidden = hidden_from(knowledge, lineage(knowledge, CLASSIFIED), lambda mask: False)
    assert hidden.together == {
        ("public", "people"): ((frozenset({"ssn", "city"}), frozenset({"ssn"})),),
        ("public", "v"): ((frozenset({"id", "town"}), frozenset({""})),),
    }
