from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.masking.hidden import Column, Mask
from gateway.masking.plan import Edit, Plan, plan
from gateway.masking.veil import Veil
from tests.gateway.masking.shop import CUSTOMERS, HIDDEN


@pytest.mark.parametrize(
    "text",
    [
        "select id, name from customers where city = 'Rome' order by name",
        "select count(*) from customers",
        "select o.* from orders o join customers c on c.id = o.customer_id",
        "insert into customers (id, name, ssn) values (1, 'x', '123')",
        "update customers set ssn = $1 where id = $2",
        "delete from orders where id in (select id from customers where city = 'x')",
        "with customers as (select 1 as ssn) select ssn from customers",
        "select ssn from hr.customers",
        "set timezone = 'UTC'",
        "begin",
        "show all",
        "copy customers (id, name) to stdout",
        "copy customers from stdin",
        "create table fresh (id int references customers (id))",
        "create temp table mine as select id from customers",
        "explain select id from customers",
        "prepare p as select id from customers where id = $1",
        "select set_config('app.user', 'x', true)",
        "select name from customers where email = $1",
        "select name from customers where city = 'x' and email in ('a', $1)",
    ],
)
def test_what_mentions_nothing_hidden_passes_as_it_is(text: str) -> None:
    found = plan(text, HIDDEN)
    assert (found.action, found.edits, found.reason) == ("pass", (), "")


@pytest.mark.parametrize(
    "text",
    [
        "select ssn from customers",
        "select c.ssn, n.n from customers c, generate_series(1, 9) as n(n)",
        "select ctid, customers.ctid, ssn from customers",
        "select c.ssn, x.* from customers c, (select id as ssn from orders) x",
        "select c.ssn, o.* from orders o join public.customers c on c.id = o.customer_id",
        "select c.ssn as x, o.id from orders o left join customers c on true order by o.id",
        "select ssn from customers order by id limit 3 for update",
        "update customers set name = 'x' where id = 1 returning ssn",
        "insert into customers (id) values (1) returning id, email",
        "declare c cursor for select ssn from customers",
        "prepare p as select ssn from customers where id = $1",
        "select ssn from only customers",
        "select email from customers where email = 'a@b.c'",
    ],
)
def test_a_bare_output_is_masked_in_the_rows(text: str) -> None:
    found = plan(text, HIDDEN)
    assert found.action == "pump"
    assert found.edits == ()
    assert found.columns


@pytest.mark.parametrize(
    "text",
    [
        "select upper(ssn) from customers",
        "select id from customers where ssn like '1%'",
        "select ssn from customers order by ssn",
        "select ssn as s from customers order by s",
        "select ssn from customers order by 1",
        "select distinct ssn from customers",
        "select ssn from customers group by ssn",
        "select max(ssn) from customers",
        "select ssn from customers union select 'x'",
        "select c from customers c",
        "select row(c.*) from customers c",
        "select x.a from (select ssn as a from customers) x",
        "with x as (select * from customers) select * from x",
        "select (select ssn from customers limit 1)",
        "select id from customers natural join orders",
        "select id from customers join orders using (ssn)",
        "select a from customers as c (a, b, c, d)",
        "select j.d from (customers c join orders o on true) as j (a, b, c, d)",
        "select j.* from (customers c join orders o on true) as j",
        "select id from orders where exists (select 1 from customers c where c.ssn = orders.note)",
        "select c.x from customers, lateral (select ssn as x) c",
        "select c.row_to_json from customers c",
        "select (c).row_to_json from customers c",
        "select j.row_to_json from (customers c join orders o on true) as j",
        "select customers.to_jsonb from customers",
        "select o.id from orders o where (select c.count from customers c) > 0",
        "select born from customers",
        "select * from customers",
        "copy customers to stdout",
        "copy customers (id, ssn) to stdout",
        "copy (select ssn from customers) to stdout",
        "select id from customers where ssn = '1'",
        "with recursive r as (select ssn from customers union all select ssn from r) table r",
        "with customers as (select * from customers) select ssn from customers",
    ],
)
def test_any_other_mention_is_masked_at_its_source(text: str) -> None:
    hidden = HIDDEN
    if text == "select * from customers":
        # `born` cannot be masked as it passes.
        assert not hidden.protected["public", "customers"].columns[5].pumped
    found = plan(text, hidden)
    assert found.action == "rewrite"
    ran = found.apply(text)
    assert 'FROM "public"."customers")' in ran
    assert plan(ran.replace('"public"."customers"', "orders"), hidden).action in ("pass", "refuse")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("select peek(1)", "peek"),
        ("select public.upper(1)", "public.upper"),
        ("select c.masked_name from customers c", "masked_name"),
        ("select query_to_xml('table customers', true, true, '')", "query_to_xml"),
        ("select pg_read_file('/etc/passwd')", "pg_read_file"),
        ("select name @@@ 'x' from customers", "@@@"),
        ("select name operator(public.=) 'x' from customers", "operator"),
        ("select most_common_vals from pg_stats", "pg_stats"),
        ("select * from pg_catalog.pg_statistic", "pg_statistic"),
        ("select query from pg_stat_activity", "pg_stat_activity"),
        ("select * from pg_prepared_statements", "pg_prepared_statements"),
        ("do $$ begin end $$", "Do"),
        ("call p()", "procedure"),
        ("set search_path = x", "search_path"),
        ("set role postgres", "role"),
        ("set session authorization x", "session_authorization"),
        ("set client_min_messages = debug5", "client_min_messages"),
        ("set auto_explain.log_level = notice", "auto_explain"),
        ("reset search_path", "search_path"),
        ("select set_config('search_path', 'x', false)", "search_path"),
        ("select set_config(name, 'x', false) from customers", "expression"),
        ("notify c, 'x'", "payload"),
        ("listen c", "Listen"),
        ("explain select id from customers where ssn = '1'", "plan"),
        ("create view v as select ssn from customers", "protected"),
        ("create table t as select ssn from customers", "copy"),
        ("select * into t from customers", "copy"),
        ("create table customers (id int)", "protected"),
        ("create temp table customers as select 1", "taken"),
        ("insert into orders select ssn from customers", "change"),
        ("update customers set name = ssn", "change"),
        ("delete from customers where ssn = 'x'", "change"),
        ("insert into customers (id) values (1) returning upper(ssn)", "change"),
        ("insert into customers (ssn) values ('1') on conflict (ssn) do nothing", "change"),
        ("merge into orders o using customers c on c.ssn = o.note when matched then delete",
         "change"),
        ("with d as (delete from customers returning ssn) select * from d", "change"),
        ("alter table customers rename ssn to s", "protected"),
        ("create index on customers (ssn)", "protected"),
        ("create statistics s on ssn, id from customers", "protected"),
        ("comment on column customers.ssn is 'x'", "protected"),
        ("create table t (like customers)", "protected"),
        ("create table t () inherits (customers)", "protected"),
        ("create table t (a text references customers (ssn))", "protected"),
        ("create function f() returns int language sql as 'select 1'", "CreateFunction"),
        ("create rule r as on insert to orders do also select 1", "Rule"),
        ("copy customers to '/tmp/x'", "files"),
        ("copy customers to program 'cat'", "files"),
        ("select ssn || '' from only customers", "ONLY"),
        ("select upper(ssn) from customers tablesample system (1)", "TABLESAMPLE"),
        ("select 1; select 2", "understood"),
        ("selec 1", "understood"),
        ("select * from elsewhere.public.customers", "cross-database"),
        ("create table t as execute p", "EXECUTE"),
    ],
)  # fmt: skip
def test_what_can_be_neither_is_refused(text: str, why: str) -> None:
    found = plan(text, HIDDEN)
    assert found.action == "refuse"
    assert why.lower() in found.reason.lower()


def test_a_relation_that_is_not_known_does_not_exist() -> None:
    found = plan("select * from nowhere", HIDDEN)
    assert (found.action, found.sqlstate) == ("refuse", "42P01")


def test_a_table_of_the_sessions_own_is_known() -> None:
    made = plan("create temp table mine as select id from customers", HIDDEN)
    assert made.creates == "mine"
    assert plan("select * from mine", HIDDEN, frozenset({"mine"})).action == "pass"
    assert plan("select * from pg_temp.mine", HIDDEN, frozenset({"mine"})).action == "pass"
    assert plan("select * from hr.mine", HIDDEN, frozenset({"mine"})).action == "refuse"


def test_a_name_of_its_own_is_kept_and_quoted_names_are_found() -> None:
    text = 'select /* x */ upper("ssn") from "public" /* y */ . "customers" where "id" = 1'
    found = plan(text, HIDDEN)
    assert found.apply(text).startswith('select /* x */ upper("ssn") from (SELECT "id", "name", ')
    assert found.apply(text).endswith('FROM "public"."customers") AS "customers" where "id" = 1')


def test_text_before_a_name_may_have_any_characters() -> None:
    text = "select 'naïve €' || ssn from customers"
    found = plan(text, HIDDEN)
    assert found.apply(text).startswith("select 'naïve €' || ssn from (SELECT ")


def test_deep_nesting_is_understood_or_refused_and_never_a_crash() -> None:
    text = "select " + "(" * 3000 + "ssn" + ")" * 3000 + " from customers"
    assert plan(text, HIDDEN).action in ("pump", "rewrite", "refuse")
    text = "select " + " + ".join(["1"] * 20_000) + " from customers where ssn = 'x'"
    assert plan(text, HIDDEN).action in ("rewrite", "refuse")


def test_positions_point_to_what_was_typed() -> None:
    text = "select é, nosuch from customers"
    moved = Plan(
        "rewrite", "", (Edit(len(b"select \xc3\xa9, nosuch from "), 33, "(SELECT 1) AS c"),)
    )
    ran = moved.apply(text)
    assert ran == "select é, nosuch from (SELECT 1) AS c"
    assert moved.typed_at(text, ran.index("nosuch") + 1) == text.index("nosuch") + 1
    assert moved.typed_at(text, ran.index("1)") + 1) == text.index("customers") + 1


@given(st.text(max_size=40))
def test_no_text_is_a_crash(text: str) -> None:
    assert plan(text, HIDDEN).action in ("pass", "pump", "rewrite", "refuse")


WIDER = replace(
    HIDDEN,
    uncallable=frozenset({"ts_stat", "peek"}),
    types=frozenset({"wrapped"}),
    attributes={
        ("public", "customers"): frozenset(column.name for column in CUSTOMERS.columns),
        ("public", "orders"): frozenset({"id", "note", "peek"}),
    },
    known=HIDDEN.known | {("first", "customers"), ("public", "ruled")},
    ruled=frozenset({("public", "ruled")}),
    unique={("public", "customers"): frozenset({"id", "ssn"})},
)


@pytest.mark.parametrize(
    "text",
    [
        "select ('select 1'::text).ts_stat",
        "select (o.note).ts_stat from orders o",
        "select c.peek from customers c, orders o",
        "select x.peek from orders o, (select 1) x",
        "select 1::wrapped",
        "select id from customers where email = 'x'::wrapped",
        "select set_config('client_min_messages', 'debug5', false)",
        "explain execute p",
        "explain (verbose) execute p (1)",
        "insert into ruled values (1)",
        "create schema s create view v as select 1",
        "alter schema hr rename to other",
        "alter function peek(int) rename to now",
        "alter type wrapped set schema hr",
        "create table t (a text default public.upper('x'))",
        "create table t (a text default ('x' @@@ 'y'))",
        "create table t (a text default 1::wrapped)",
        "insert into customers (id, ssn) select 1, 'x'",
        "insert into customers values (1), (2)",
        "insert into customers (ssn) values ('1'), ('2')",
        "insert into customers (ssn) values ('1') on conflict do nothing",
        "insert into customers (ssn) values ('1') on conflict on constraint k do nothing",
        "with x as (insert into customers (ssn) select 'x') select 1",
        "update customers set ssn = id::text",
        "merge into customers c using orders o on c.id = o.id when matched then do nothing",
        "copy customers from stdin",
        "copy customers (id, ssn) from stdin",
    ],
)
def test_other_ways_to_a_value_are_refused(text: str) -> None:
    assert plan(text, WIDER).action == "refuse"


@pytest.mark.parametrize(
    "text",
    [
        "select o.peek from orders o",
        "insert into customers (id, ssn) values (1, 'x')",
        "insert into customers (id, name) values (1, 'x'), (2, 'y')",
        "insert into customers (id, ssn) values (1, 'x') on conflict (id) do nothing",
        "update customers set ssn = $1 where id = 1",
        "copy customers (id, name) from stdin",
        "alter table orders rename to older",
    ],
)
def test_what_is_near_them_is_not(text: str) -> None:
    assert plan(text, WIDER).action == "pass"


def test_a_name_that_a_session_made_is_not_trusted_before_what_is_known() -> None:
    assert plan("select upper(ssn) from customers", WIDER, frozenset({"customers"})).edits


def test_a_name_in_several_schemas_is_to_be_qualified() -> None:
    two = replace(WIDER, path=("first", "public"))
    assert plan("select id from customers", two).action == "refuse"
    assert plan("select id from first.customers", two).action == "pass"


def test_a_comment_does_not_end_a_list_of_columns() -> None:
    text = "copy customers (id, ssn /*) to stdout; delete from orders; -- */) to stdout"
    ran = plan(text, HIDDEN).apply(text)
    assert "delete" not in ran
    assert ran.endswith(" AS t) to stdout")


@pytest.mark.parametrize(
    "text",
    [
        "update customers set name = 'x' returning old",
        "update customers set name = 'x' returning to_jsonb(new)",
        "delete from customers returning old.ssn || ''",
        "delete from customers returning old.to_jsonb",
        "with d as (delete from customers returning old.ssn as s) select s from d",
        "with x as (select 1 from orders old) delete from customers returning old.ssn || ''",
        "update customers set ssn[1] = 'x'",
        "update customers set ssn['a']['b'] = '1'",
        "insert into customers (id) values (1) on conflict (id) do update set ssn[1] = excluded.id",
    ],
)
def test_rows_as_they_were_and_parts_of_values_are_hidden(text: str) -> None:
    assert plan(text, HIDDEN).action == "refuse"


MIXED = replace(
    HIDDEN,
    together={
        ("public", "customers"): ((frozenset({"name", "born"}), frozenset({"born"})),),
        ("public", "names"): ((frozenset({"id", "name"}), frozenset({""})),),
    },
    closed=frozenset({("public", "elders")}),
    known=HIDDEN.known | {("public", "names"), ("public", "elders")},
)


@pytest.mark.parametrize(
    "text",
    [
        "update customers set name = 'x'",
        "update customers set name = 'x', born = now()",
        "update customers as c set (name, city) = ('x', 'y')",
        "insert into customers (id) values (1) on conflict (id) do update set name = 'x'",
        "with u as (update customers set name = 'x') select 1",
        "merge into customers c using orders o on true when matched then update set name = ''",
        "update names set name = 'x'",
        "select id from elders",
        "delete from elders",
        "select 1 from orders where exists (select from elders)",
        "copy elders to stdout",
        "create view seen as select id from elders",
        "explain select id from elders",
    ],
)
def test_what_would_be_measured_against_what_is_hidden_is_refused(text: str) -> None:
    assert plan(text, MIXED).action == "refuse"


@pytest.mark.parametrize(
    "text",
    [
        "update customers set name = 'x', born = '1990-01-01'",
        "update customers set city = 'x'",
        "insert into customers (id, name) values (1, 'x')",
        "select id, name from names",
        "delete from customers where name = 'x'",
    ],
)
def test_what_would_not_passes(text: str) -> None:
    assert plan(text, MIXED).action == "pass"


def test_nothing_hidden_leaves_a_target_that_converts_it() -> None:
    text = "select ssn from customers"
    assert plan(text, HIDDEN).action == "pump"
    assert plan(text, HIDDEN, converted=True).action == "rewrite"
    text = "delete from customers returning ssn"
    assert plan(text, HIDDEN, converted=True).action == "refuse"
    assert plan("set client_encoding to latin1", HIDDEN).action == "refuse"
    assert plan("set names 'latin1'", HIDDEN).action == "refuse"
    assert plan("set client_encoding to 'UTF-8'", HIDDEN).action == "pass"
    assert plan("set client_encoding to default", HIDDEN).action == "pass"


@pytest.mark.parametrize(
    ("text", "ran"),
    [
        (
            'select "public"."customers"."id", upper(public . /* x */ customers.ssn)'
            " from public.customers",
            'select "customers"."id", upper("customers".ssn) from (SELECT',
        ),
        (
            "select count(shop.public.customers.*) from customers",
            'select count("customers".*) from',
        ),
    ],
)
def test_columns_by_their_tables_schema_stay_columns(text: str, ran: str) -> None:
    found = plan(text, HIDDEN)
    assert found.action == "rewrite"
    assert found.apply(text).startswith(ran)


@pytest.mark.parametrize(
    ("text", "action"),
    [
        ("select c.id, c.ssn, count(*) from customers c group by c.id", "pump"),
        ("select c.ssn, count(id) over w from customers c window w as (order by id)", "pump"),
        ("select c.id, c.ssn from customers c group by c.id having count(*) > 1", "pump"),
        ("select c.id, c.ssn from customers c group by c.id, c.ssn", "rewrite"),
        ("select c.id, c.ssn from customers c group by 1, 2", "rewrite"),
        ("select c.id, c.ssn as s from customers c group by c.id, s", "rewrite"),
        ("select c.id, c.ssn from customers c group by rollup (1, (2))", "rewrite"),
        ("select c.* from customers c group by 1", "rewrite"),
    ],
)
def test_what_a_group_has_is_masked_where_it_did_not_make_the_group(text: str, action: str) -> None:
    assert plan(text, HIDDEN).action == action


def test_names_are_folded_as_in_any_encoding() -> None:
    salary = Column("gehälter", 8, "text", "text", 0, Mask("hr", "full"))
    table = replace(CUSTOMERS, columns=(*CUSTOMERS.columns, salary))
    hidden = replace(HIDDEN, protected={("public", "customers"): table})
    for text in (
        "select GEHÄLTER || '' from customers",
        "select id from customers order by Gehälter",
        "select id from customers join orders using (GEHÄLTER)",
    ):
        assert plan(text, hidden).action == "rewrite"


@pytest.mark.parametrize(
    "text",
    [
        "update pg_settings set setting = 'hr' where name = 'search_path'",
        "with x as (update pg_catalog.pg_settings set setting = '1' returning 1) select from x",
        "merge into pg_settings using (values (1)) v on true when matched then update set "
        "setting = '1'",
    ],
)
def test_settings_are_not_set_by_their_view(text: str) -> None:
    assert Veil(HIDDEN).plan(text).action == "refuse"
    assert Veil(HIDDEN).plan("select setting from pg_settings").action == "pass"
