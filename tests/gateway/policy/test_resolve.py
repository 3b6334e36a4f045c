"""What statements do, resolved as the server resolves them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.policy.catalog import EMPTY, Snapshot
from gateway.policy.facts import NONE, UNKNOWN, Facts, SessionNames
from gateway.policy.resolve import Resolver
from gateway.policy.sql import analyse, unparseable
from tests.gateway.policy.catalogs import FUNCTIONS, OPERATORS, RELATIONS, facts, one, routine

PAYROLL = {"hr.payroll", "hr.payroll_2025", "hr.payroll_2026"}
CUSTOMERS = {f"customers.{name}" for name in ("id", "name", "email", "ssn", "city")}
UNSETTLED = SessionNames(certain=False)


@pytest.mark.parametrize(
    ("text", "read", "written"),
    [
        ("select 1", set(), set()),
        ("select * from orders", {"public.orders"}, set()),
        ('select * from "Odd Name"', {"public.Odd Name"}, set()),
        ('select * from U&"Odd\\0020Name"', {"public.Odd Name"}, set()),
        ("select * from hr.payroll", PAYROLL, set()),
        ("select * from only hr.payroll", {"hr.payroll"}, set()),
        ("select * from hr.payroll_2025", {"hr.payroll", "hr.payroll_2025"}, set()),
        ("select * from parent", {"public.parent", "hr.child"}, set()),
        ("select * from people", {"public.people", "public.customers"}, set()),
        (
            "select * from all_people",
            {"public.all_people", "public.people", "public.customers"},
            set(),
        ),
        ("with orders as (select 1) select * from orders", set(), set()),
        ("with x as (select * from orders) select 1", {"public.orders"}, set()),
        ("with orders as (select * from orders) table orders", {"public.orders"}, set()),
        ("with c as (select 1) select * from public.orders c", {"public.orders"}, set()),
        ("insert into orders values (1)", set(), {"public.orders"}),
        ("insert into orders values (1) returning amount", {"public.orders"}, {"public.orders"}),
        ("delete from orders", set(), {"public.orders"}),
        ("delete from orders where id = 1", {"public.orders"}, {"public.orders"}),
        ("delete from customers", set(), {"public.customers", "public.orders"}),
        ("update customers set ssn = ''", set(), {"public.customers"}),
        ("delete from ruled", PAYROLL, {"public.ruled", *PAYROLL}),
        ("insert into watched values (1)", set(), {"public.watched", *PAYROLL}),
        ("update writable set salary = 1",
         PAYROLL, {"public.writable", *PAYROLL}),
        ("select raise_pay(1)", PAYROLL, PAYROLL),
        ("select outer_one()", PAYROLL, PAYROLL),
        ("select totals(1)", PAYROLL, PAYROLL),
        ("select 'a' === 'b'", PAYROLL, set()),
        ("select nextval('numbers')", set(), {"public.numbers"}),
        ("select currval('public.numbers')", {"public.numbers"}, set()),
        ("drop table orders", set(), {"public.orders"}),
        ("alter table hr.payroll add x int", set(), PAYROLL),
        ("create table t (like orders)", {"public.orders"}, {"public.t"}),
        ("create view hr.v as table orders", {"public.orders"}, {"hr.v"}),
        ("create temp table t as table orders", {"public.orders"}, {"pg_temp.t"}),
        ("lock orders", {"public.orders"}, set()),
        ("truncate orders", set(), {"public.orders"}),
        ("truncate customers cascade", set(), {"public.customers", "public.orders"}),
        ("refresh materialized view cached_pay", PAYROLL, {"public.cached_pay"}),
        ("grant select on all tables in schema a to public", set(), {"a.twin"}),
        ("copy orders to stdout", {"public.orders"}, set()),
        ("copy orders from stdin", set(), {"public.orders"}),
        ("do $$ begin delete from orders; end $$", set(), {"public.orders"}),
    ],
)  # fmt: skip
def test_relations(text: str, read: set[str], written: set[str]) -> None:
    found = facts(text)
    assert (set(found.tables_read), set(found.tables_written)) == (read, written)
    assert not found.unknown


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("select id from orders", {"orders.id"}),
        ("select o.id from orders o where o.amount > 1", {"orders.id", "orders.amount"}),
        ("select x from orders as o(x)", {"orders.id"}),
        ("select y from (select id as y, amount from orders) s", {"orders.id", "orders.amount"}),
        ("select c.name from customers c join orders o on o.customer_id = c.id",
         {"customers.name", "customers.id", "orders.customer_id"}),
        ("select name from customers join orders using (id)",
         {"customers.name", "customers.id", "orders.id"}),
        ("select count(*) from customers natural join orders",
         {"customers.id", "orders.id"}),
        ("select tag from people", {"people.tag", "customers.ssn", "customers.email"}),
        ("select id from people", {"people.id", "customers.id", "customers.email"}),
        ("select 1 from orders order by amount", {"orders.amount"}),
        ("select amount as a from orders order by a", {"orders.amount"}),
        ("select (select max(o.amount) from orders o where o.customer_id = c.id) from customers c",
         {"orders.amount", "orders.customer_id", "customers.id"}),
        ("select id, ctid, xmin from orders", {"orders.id"}),
        ("update orders set amount = amount + 1 where id = 1", {"orders.amount", "orders.id"}),
        ("insert into orders (id) values (1) on conflict (id) do update set amount = "
         "excluded.amount",
         set()),
        ("delete from orders returning product", {"orders.product"}),
        ("select name(c) from customers c", CUSTOMERS),
        ("select c from customers c", CUSTOMERS),
        ("select (c).ssn from customers c", CUSTOMERS),
        ("select row_to_json(c) from customers c",
         CUSTOMERS),
        ("table people", {"people.id", "people.tag", "customers.id", "customers.ssn",
                          "customers.email"}),
    ],
)  # fmt: skip
def test_columns_read(text: str, columns: set[str]) -> None:
    found = facts(text)
    assert set(found.columns_read) == {f"public.{column}" for column in columns}
    assert not found.unknown


def test_columns_written() -> None:
    assert set(facts("update people set tag = 'x' where id = 1").columns_written) == {
        "public.people.tag",
        "public.customers.ssn",
    }
    assert facts("insert into orders (id, amount) values (1, 2)").columns_written == {
        "public.orders.id",
        "public.orders.amount",
    }


@pytest.mark.parametrize(
    "text",
    [
        "select * from nowhere",
        "select nothing from orders",
        "select o.nothing from orders o",
        "select nothing.id from orders",
        "select nothing(1)",
        "select dynamic(1)",
        "select in_python()",
        "insert into orders (nothing) values (1)",
        "update orders set nothing = 1",
        "do $$ begin execute 'select 1'; end $$",
        "do language plpython3u 'x'",
        "select nextval(product) from orders",
        "select query_to_xml(product, true, true, '') from orders",
        "execute p",
        "select 1" + " + 1" * 9_000,
        "select * from pg_temp.nowhere",
    ],
)
def test_what_is_not_understood_is_said(text: str) -> None:
    assert facts(text).unknown


def test_before_the_catalog_is_read_nothing_is_known() -> None:
    assert Resolver(EMPTY)(one("select 1"), SessionNames()).unknown


def test_a_statement_that_does_not_parse_is_unknown() -> None:
    assert Resolver(EMPTY)(unparseable("selec", "x"), SessionNames()) is UNKNOWN
    assert NONE.unknown == frozenset()


# --- which relation a name means ---


def test_an_unqualified_name_is_of_the_path_until_that_is_uncertain() -> None:
    assert facts("select * from twin").unknown == {"relation twin"}
    found = facts("select * from twin", UNSETTLED)
    assert (found.tables_read, found.uncertain) == ({"a.twin", "b.twin"}, True)
    assert found.columns_read == {"a.twin.x", "b.twin.y"}


@pytest.mark.parametrize(
    ("text", "unsettles"),
    [
        ("set search_path = a", True),
        ('set "Search_Path" = a', True),
        ("set local search_path = a", True),
        ("set role x", True),
        ("set session authorization x", True),
        ("select set_config('search_path', 'a', false)", True),
        ("update pg_settings set setting = 'a' where name = 'search_path'", True),
        ("do $$ begin null; end $$", True),
        ("select raise_pay(1)", True),
        ("execute p", True),
        ("set application_name = 'search_path'", False),
        ("reset all", False),
        ("select pure(1)", False),
        ("show search_path", False),
        ("begin", False),
    ],
)
def test_what_may_change_the_meaning_of_names(text: str, unsettles: bool) -> None:
    assert facts(text).after(SessionNames()).certain is not unsettles


def test_a_temporary_table_shadows_from_when_it_is_made() -> None:
    made = facts("create temp table orders (x int)").after(SessionNames())
    assert made.temporary == {"orders"}
    found = facts("select * from orders", made)
    assert found.tables_read == {"pg_temp.orders", "public.orders"} and found.uncertain
    assert not found.unknown
    assert (
        facts("select anything from mine", SessionNames(temporary=frozenset({"mine"}))).unknown
        == set()
    )
    # A temporary view is its query, again; which one is not remembered.
    viewed = facts("create temp view v as select 1").after(SessionNames())
    assert facts("select * from v", viewed).unknown


def test_what_execute_does_is_what_was_prepared() -> None:
    resolver = Resolver(Snapshot(RELATIONS, FUNCTIONS, OPERATORS, version="1"))
    inner = one("prepare p as delete from orders")
    found = resolver(one("execute p"), SessionNames(), inner)
    assert found.tables_written == {"public.orders"} and not found.unknown and not found.has_where
    assert resolver(one("execute p"), SessionNames()).unknown
    assert resolver(one("execute p"), SessionNames(), inner) is found


# --- where ---


@pytest.mark.parametrize(
    ("condition", "restricts"),
    [
        ("id = 1", True),
        ("id = $1", True),
        ("1 = id", True),
        ("id > 5", True),
        ("id in (1, 2)", True),
        ("id not in (1, 2)", True),
        ("id between 1 and 2", True),
        ("id is null", True),
        ("product is not null", True),
        ("status", True),
        ("not status", True),
        ("product like 'a%'", True),
        ("lower(product) = 'x'", True),
        ("id = 1 and true", True),
        ("id = 1 or product = 'x'", True),
        ("id = 1 or id = 2 or id = 3", True),
        ("id < 1 or id > 10", True),
        ("false", True),
        ("null", True),
        ("(id, amount) = (1, 2)", True),
        ("id = (select max(id) from customers)", True),
        ("id in (select id from customers)", True),
        ("exists (select from customers c where c.id = orders.customer_id)", True),
        ("current of c", True),
        ("id is not null", False),
        ("id = id", False),
        ("id = orders.id", False),
        ("id > 1 or id < 10", False),
        ("id > 1 or id <= 1", False),
        ("$1", False),
        ("$1 or id = 1", False),
        ("1 = $1", False),
        ("id + 1 = id + 1", False),
        ("id = 1 or now() > '2000-01-01'", False),
        ("true or id = 1", False),
        ("not (id = 1 and false)", False),
        ("'t'", False),
        ("1 < 2", False),
    ],
)
def test_a_where_that_restricts(condition: str, restricts: bool) -> None:
    assert facts(f"delete from orders where {condition}").has_where is restricts


def test_every_change_needs_a_where_and_a_query_has_its_own() -> None:
    both = "with a as (delete from orders where id = 1), b as (delete from watched) select 1"
    assert facts(both).has_where is False
    assert facts("select * from orders where id = 1").has_where is True
    assert facts("select * from orders").has_where is False
    assert facts("select * from (select * from orders where id = 1) x").has_where is False


@pytest.mark.parametrize(
    ("limit", "found"),
    [
        ("limit 5", (True, 5)),
        ("limit 0", (True, 0)),
        ("fetch first row only", (True, 1)),
        ("limit $1", (True, -1)),
        ("limit all", (False, -1)),
        ("limit null", (False, -1)),
        ("limit 99999999999", (False, -1)),
        ("limit (select 5)", (False, -1)),
        ("offset 5", (False, -1)),
    ],
)
def test_limits(limit: str, found: tuple[bool, int]) -> None:
    told = facts(f"select * from orders {limit}")
    assert (told.has_limit, told.limit) == found


# --- classes and risks ---


@pytest.mark.parametrize(
    ("text", "risk"),
    [
        ("select 1", "none"),
        ("begin", "none"),
        ("select * from orders", "low"),
        ("insert into orders values (1)", "medium"),
        ("delete from orders where id = 1", "medium"),
        ("create table t (a int)", "medium"),
        ("delete from orders", "high"),
        ("drop table orders", "high"),
        ("grant select on orders to public", "high"),
        ("select pg_terminate_backend(1)", "high"),
        ("select * from nowhere", "high"),
        ("copy orders to program 'x'", "critical"),
        ("select pg_read_file('x')", "critical"),
        ("alter system set a = 1", "critical"),
        ("drop schema hr cascade", "critical"),
    ],
)
def test_risk_and_its_reasons(text: str, risk: str) -> None:
    found = facts(text)
    assert found.risk == risk
    assert bool(found.risks) is (risk != "none")


# --- for masking by rewriting ---


def test_a_relation_is_found_in_the_text() -> None:
    text = "select 'ü', o.id from only hr . payroll p, orders as o where exists (table a.twin)"
    found = [
        (text.encode()[reference.start :].split()[0].decode(), reference.alias, reference.only)
        for reference in facts(text).references
    ]
    assert sorted(found) == [("a.twin)", "twin", False), ("hr", "p", True), ("orders", "o", False)]


def test_outputs_know_their_origin() -> None:
    found = facts("select c.ssn as x, lower(c.name), o.*, 1 from customers c, orders o").outputs
    assert [(o.name, o.origins[:1], o.bare) for o in found[:3]] == [
        ("x", ("public.customers.ssn",), True),
        ("lower", ("public.customers.name",), False),
        ("id", ("public.orders.id",), True),
    ]
    assert len(found) == 9 and found[-1].origins == ()


# --- remembering ---


def resolver() -> Resolver:
    return Resolver(Snapshot(RELATIONS, FUNCTIONS, OPERATORS, version="1"))


def test_numbers_make_no_difference_but_where_they_do() -> None:
    known = resolver()
    first = known(one("select amount from orders where id = 1"), SessionNames())
    assert known(one("select amount from orders where id = 2"), SessionNames()) is first
    assert known(one("select * from orders limit 1"), SessionNames()).limit == 1
    assert known(one("select * from orders limit 2"), SessionNames()).limit == 2
    assert known(one("delete from orders where 1 = 2"), SessionNames()).has_where
    assert not known(one("delete from orders where 1 = 1"), SessionNames()).has_where
    assert known(one("delete from orders where id < 1 or id > 9"), SessionNames()).has_where
    assert not known(one("delete from orders where id < 9 or id > 1"), SessionNames()).has_where


CONDITIONS = st.sampled_from(
    ["id = {}", "{} = {}", "id < {} or id > {}", "id + {} = id", "not ({} < {})", "id in ({}, {})",
     "id = {} or id <> {}", "amount * {} = {}", "id = {} and {} = {}", "{}::bool"]
)  # fmt: skip


@given(CONDITIONS, st.lists(st.integers(0, 3), min_size=6, max_size=6))
def test_what_is_remembered_is_what_would_be_found(condition: str, numbers: list[int]) -> None:
    shared = resolver()
    for values in (numbers[:3], numbers[3:]):
        text = f"delete from orders where {condition.format(*values)}"
        fresh, remembered = resolver()(one(text), SessionNames()), shared(one(text), SessionNames())
        assert described(fresh) == described(remembered), text


def described(found: Facts) -> tuple[object, ...]:
    return tuple(getattr(found, name) for name in found.__struct_fields__)


def test_functions_that_call_each_other_are_each_known_in_full() -> None:
    ping = routine(300, "public.ping", body="perform public.pong();")
    pong = routine(301, "public.pong", body="perform public.ping(); delete from hr.payroll;")
    for first, second in (("ping", "pong"), ("pong", "ping")):
        known = Resolver(Snapshot(RELATIONS, [*FUNCTIONS, ping, pong], version="1"))
        for name in (first, second):
            assert known(one(f"select {name}()"), SessionNames()).tables_written == PAYROLL


def test_what_is_remembered_is_bounded() -> None:
    known = Resolver(Snapshot(RELATIONS, FUNCTIONS, version="1"), remembered=10)
    for number in range(100):
        known(one(f"select '{number}'"), SessionNames())
    assert len(known._known._facts) == 10


def test_many_alternatives_take_no_quadratic_time() -> None:
    few = " or ".join(f"id = {n}" for n in range(3_000))
    assert facts(f"delete from orders where {few}").has_where
    many = " or ".join(f"lower(product) = '{n}'" for n in range(3_000))
    assert not facts(f"delete from orders where {many}").has_where


@given(st.text(max_size=60))
def test_any_text_is_facts_and_never_an_exception(text: str) -> None:
    known = resolver()
    for statement in analyse(f"select {text} from orders"):
        assert isinstance(known(statement, SessionNames()), Facts)
