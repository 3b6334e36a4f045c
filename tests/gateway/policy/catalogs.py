"""A target's catalog for tests of policies: a shop, its payroll, and ways to reach both."""

from __future__ import annotations

from typing import Any

from gateway.machine import Request
from gateway.policy import cases
from gateway.policy.catalog import (
    Cascade,
    Column,
    Function,
    Operator,
    Relation,
    Snapshot,
    full_function,
    full_relation,
)
from gateway.policy.facts import Facts, SessionNames
from gateway.policy.resolve import Resolver
from gateway.policy.sql import Statement, analyse

_PL = "create function {} language plpgsql as $$ begin {} end $$"

# Of PostgreSQL's own: (name, least and most arguments).
BUILT_IN = [
    ("abs", 1, 1), ("array_agg", 1, 1), ("avg", 1, 1), ("cardinality", 1, 1), ("char_length", 1, 1),
    ("coalesce", 1, 9), ("concat", 0, 100), ("count", 0, 1), ("currval", 1, 1),
    ("current_setting", 1, 2), ("database_to_xml", 3, 3), ("date_trunc", 2, 3),
    ("format_type", 2, 2), ("generate_series", 2, 3), ("has_table_privilege", 2, 3),
    ("json_agg", 1, 1), ("length", 1, 2),
    ("lo_export", 2, 2), ("lo_get", 1, 3), ("lo_import", 1, 2),
    ("lower", 1, 1), ("max", 1, 1), ("md5", 1, 1), ("min", 1, 1), ("nextval", 1, 1), ("now", 0, 0),
    ("pg_get_viewdef", 1, 2), ("pg_ls_dir", 1, 3), ("pg_read_binary_file", 1, 4),
    ("pg_read_file", 1, 4), ("pg_reload_conf", 0, 0), ("pg_sleep", 1, 1), ("pg_stat_file", 1, 2),
    ("pg_terminate_backend", 1, 2), ("query_to_xml", 4, 4), ("random", 0, 2), ("row_number", 0, 0),
    ("row_to_json", 1, 2), ("set_config", 3, 3), ("setval", 2, 3), ("string_agg", 2, 2),
    ("sum", 1, 1), ("table_to_xml", 4, 4), ("to_char", 2, 2), ("unnest", 1, 1), ("upper", 1, 1),
    ("lo_unlink", 1, 1), ("lo_create", 1, 1), ("lo_from_bytea", 2, 2),
    ("pg_ls_logdir", 0, 0),
    ("pg_logical_slot_get_changes", 3, 100), ("cursor_to_xml", 5, 5), ("schema_to_xml", 4, 4),
    ("ts_stat", 1, 2), ("json_each", 1, 1), ("trim", 1, 2), ("btrim", 1, 2),
    ("pg_backend_pid", 0, 0),
]  # fmt: skip


def table(oid: int, full: str, *columns: str, **more: Any) -> Relation:
    """A relation; a column that ends in `!` is never null."""
    schema, name = full.split(".")
    of_it = tuple(
        Column(column.rstrip("!"), number, "text", column.endswith("!"))
        for number, column in enumerate(columns, 1)
    )
    more.setdefault("kind", "r")
    more.setdefault("owner", schema)
    return full_relation(Relation(oid, schema, name, columns=of_it, **more))


def routine(oid: int, full: str, least: int = 0, most: int | None = None, **more: Any) -> Function:
    """A function or procedure; of PL/pgSQL where a `body` is given."""
    schema, name = full.split(".")
    body = more.pop("body", None)
    if body is not None:
        more.setdefault("language", "plpgsql")
        arguments = ", ".join("int" for _ in range(least))
        returns = more.pop("returns", "void")
        more["definition"] = _PL.format(f"{full}({arguments}) returns {returns}", body)
    return full_function(
        Function(oid, schema, name, least=least, most=least if most is None else most, **more)
    )


RELATIONS = [
    table(1, "public.customers", "id!", "name!", "email", "ssn", "city",
          cascades=(Cascade(2, "c", "a"),)),
    table(2, "public.orders", "id!", "customer_id", "product", "amount", "ordered_at", "status"),
    table(3, "hr.payroll", "id!", "person", "salary", kind="p", children=(4, 5)),
    table(4, "hr.payroll_2025", "id!", "person", "salary", parents=(3,)),
    table(5, "hr.payroll_2026", "id!", "person", "salary", parents=(3,)),
    table(
        6, "public.people", "id", "tag", kind="v",
        definition="SELECT c.id, c.ssn AS tag FROM public.customers c WHERE c.email <> ''",
    ),
    table(
        7, "public.all_people", "tag", kind="v", definition="SELECT people.tag FROM public.people"
    ),
    table(8, "public.pay", "person", "total", kind="v",
          definition="SELECT p.person, sum(p.salary) AS total FROM hr.payroll p GROUP BY p.person"),
    table(9, "public.ruled", "id", rules=(
        "CREATE RULE r AS ON DELETE TO public.ruled DO INSTEAD "
        "DELETE FROM hr.payroll WHERE payroll.id = old.id",
    )),
    table(10, "public.watched", "id", triggers=(203,)),
    table(11, "public.numbers", kind="S"),
    table(12, "a.twin", "x"),
    table(13, "b.twin", "y"),
    table(14, "public.Odd Name", "Id", "günther"),
    table(15, "public.parent", "id", children=(16,)),
    table(16, "hr.child", "id", "secret", parents=(15,)),
    table(17, "pg_catalog.pg_class", "oid", "relname", "relnamespace"),
    table(18, "pg_catalog.pg_settings", "name", "setting", kind="v"),
    table(19, "pg_catalog.pg_stats", "tablename", "most_common_vals", kind="v"),
    table(20, "public.cached_pay", "person", kind="m",
          definition="SELECT payroll.person FROM hr.payroll"),
    table(21, "public.orders_by_customer", "customer_id", kind="i"),
    table(22, "public.writable", "id", "salary", kind="v",
          definition="SELECT payroll.id, payroll.salary FROM hr.payroll"),
]  # fmt: skip
FUNCTIONS = [
    *(routine(100 + n, f"pg_catalog.{name}", *most) for n, (name, *most) in enumerate(BUILT_IN)),
    routine(200, "public.raise_pay", 1, body="update hr.payroll set salary = salary * 2;"),
    routine(201, "public.peek", 0, language="sql",
            definition="create function public.peek() returns setof text language sql "
                       "as $$ select person from hr.payroll $$"),
    routine(202, "public.dynamic", 1, body="execute 'delete from hr.payroll';"),
    routine(203, "public.log_change", 0,
            returns="trigger", body="insert into hr.payroll values (new.id); return new;"),
    routine(204, "public.in_python", 0, language="plpython3u"),
    routine(205, "public.compares", 2, language="sql",
            definition="create function public.compares(text, text) returns bool language sql "
                       "as $$ select exists (select from hr.payroll) $$"),
    routine(206, "public.outer_one", 0, body="perform public.raise_pay(1);"),
    routine(207, "public.pure", 1, volatility="i", language="sql",
            definition="create function public.pure(int) returns int language sql immutable "
                       "as $$ select $1 + 1 $$"),
    routine(208, "public.remove_all", 0, body="delete from public.orders;"),
    routine(209, "public.dblink", 1, 4, language="c"),
    routine(210, "public.crosstab", 1, 2, language="c"),
    routine(211, "public.totals", 1, language="internal", calls=(200,)),
    routine(212, "public.md5", 1, returns="int", body="delete from hr.payroll; return 1;"),
    routine(213, "public.dblink_connect", 1, 2, language="c"),
    routine(214, "public.xpath_table", 5, 5, language="c"),
]  # fmt: skip
OPERATORS = [Operator("public", "===", 205)]
SHOP = Snapshot(RELATIONS, FUNCTIONS, OPERATORS, version="1")
RESOLVER = Resolver(SHOP)


def one(text: str) -> Statement:
    """The only statement of a text."""
    (statement,) = analyse(text)
    return statement


def facts(text: str, meaning: SessionNames | None = None) -> Facts:
    """What a statement does at the shop."""
    return RESOLVER(one(text), meaning or SessionNames())


def request(text: str, inner: str = "") -> Request:
    """What is asked for a statement; `inner` is what an EXECUTE in it runs."""
    statement = one(text)
    return cases.request(
        statement, RESOLVER(statement, SessionNames(), one(inner) if inner else None)
    )
