"""The SQL inside of functions comes out whole, or not at all."""

from __future__ import annotations

import pytest

from gateway.policy.plpgsql import body_of


def texts(body: str, declare: str = "") -> list[str] | None:
    source = f"{declare} begin {body} end"
    found = body_of("plpgsql", f"do $body$ {source} $body$", source)
    assert found is None or not found.dynamic
    return None if found is None else found.texts


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("null;", []),
        ("delete from t;", ["delete from t"]),
        ("perform f(1);", ["SELECT f(1)"]),
        ("if exists (select from t) then null; end if;", ["SELECT exists (select from t)"]),
        ("while (select true from t) loop null; end loop;", ["SELECT (select true from t)"]),
        ("raise notice '%', (select 1 from t);", ["SELECT (select 1 from t)"]),
        ("assert (select true from t);", ["SELECT (select true from t)"]),
        ("call p((select 1 from t));", ["call p((select 1 from t))"]),
        ("begin delete from t; exception when others then update u set a = 1; end;",
         ["update u set a = 1", "delete from t"]),
        ("case (select 1 from t) when 1 then delete from u; else null; end case;",
         ["delete from u", 'SELECT "__Case__Variable_1__" IN (1)', "SELECT (select 1 from t)"]),
    ],
)  # fmt: skip
def test_statements_and_expressions(body: str, expected: list[str]) -> None:
    assert sorted(texts(body) or ()) == sorted(expected)


def test_assignments_are_read_on_both_sides() -> None:
    found = texts(
        "a[f(1)] := (select max(x) from t); b := 'it''s = 1';", "declare a int[]; b text;"
    )
    assert found == [
        "SELECT b , ( 'it''s = 1')",
        "SELECT a[f(1)] , ( (select max(x) from t))",
    ]


def test_declarations_and_cursors_are_read() -> None:
    declare = "declare n int := (select 1 from t); c cursor for select * from u;"
    found = texts("open c;", declare)
    assert found is not None
    assert set(found) == {"SELECT (select 1 from t)", "select * from u"}


@pytest.mark.parametrize(
    "body",
    [
        "execute 'delete from t';",
        "for r in execute 'select 1' loop null; end loop;",
        "open c for execute 'select 1';",
    ],
)
def test_sql_made_at_run_time_is_said_to_be_there(body: str) -> None:
    source = f"declare r record; c refcursor; begin {body} end"
    found = body_of("plpgsql", f"do $body$ {source} $body$", source)
    assert found is not None and found.dynamic


@pytest.mark.parametrize(
    ("language", "body"),
    [("plpgsql", "begin delete from"), ("plpython3u", "x"), ("c", "x"), ("plperl", "x")],
)
def test_what_cannot_be_read_is_nothing(language: str, body: str) -> None:
    assert body_of(language, f"do $body$ {body} $body$", body) is None


def test_sql_functions_are_their_text() -> None:
    found = body_of("sql", "", "select 1; delete from t")
    assert found is not None and found.texts == ["select 1; delete from t"]
