from __future__ import annotations

from dataclasses import replace

import pytest

from gateway.masking.copies import UNKNOWN, Copies, copied
from gateway.masking.hidden import Column, Hidden, Mask, Relation
from gateway.policy.sql import analyse
from tests.gateway.masking.shop import CUSTOMERS, HIDDEN

ALLOWED = Mask("free", "full", copies="allow")
VAULT = Relation(
    16500,
    "public",
    "vault",
    (
        Column("id", 1, "int8", "bigint"),
        Column("what", 2, "text", "text", 0, Mask("pii", "full")),
        Column("free", 3, "text", "text", 0, ALLOWED),
    ),
)
EVERYTHING: Hidden = replace(
    HIDDEN,
    protected={("public", "customers"): CUSTOMERS, ("public", "vault"): VAULT},
    known=HIDDEN.known | {("public", "vault"), ("public", "staging")},
    attributes={
        ("public", "customers"): frozenset(column.name for column in CUSTOMERS.columns),
        ("public", "vault"): frozenset({"id", "what", "free"}),
        ("public", "orders"): frozenset({"id", "customer_id", "note"}),
        ("public", "staging"): frozenset({"id", "name", "email", "ssn"}),
    },
)
SSN = "public.customers.ssn"


def judged(text: str) -> tuple[str, ...]:
    [statement] = analyse(text)
    return Copies(EVERYTHING).of(statement.kinds, statement.relations, text)


@pytest.mark.parametrize(
    "text",
    [
        "create table t as select ssn from customers",
        "create table t as select * from customers",
        "create table t as table customers",
        "create table t as select c.ssn as x from customers c",
        "create temp table t as select max(ssn) from customers",
        "create table t as select id from orders union select ssn from customers",
        "create table t as with x as (select ssn as a from customers) select a from x",
        "create table t as with x as (select upper(ssn) from customers) select upper from x",
        "create table t as with x (a) as (select ssn from customers), y as (select a as b from x) "
        "select b from y",
        "create table t as select u.x from customers c, unnest(array[c.ssn]) u(x)",
        "create table t as select value from customers c, jsonb_each(to_jsonb(c)) e",
        "create table t as select c from customers c",
        "create table t as select (c).ssn from customers c",
        "create table t as select to_jsonb(c) from customers c",
        "create table t as select j.x from (customers c join orders o on true) as j(a, b, c, x)",
        "create table t as select a from customers as c (x, y, z, a)",
        "alter table customers alter column name type text using ssn",
        "alter table customers alter id type int, alter name type text using upper(customers.ssn)",
        "select ssn into t from customers",
        "select * into t from customers",
        "insert into orders (id, note) select id, ssn from customers",
        "insert into orders select id, id, ssn from customers",
        "insert into orders (note) values ((select ssn from customers limit 1))",
        "insert into orders (note) select x.s from (select ssn as s from customers) x",
        "insert into orders (note) select x.* from (select ssn from customers) x",
        "insert into fresh select * from customers",
        "insert into orders (note) select x.a from (values ((select ssn from customers))) x(a)",
        "insert into orders (note) select column1 from (values ((select ssn from customers))) x",
        "insert into orders (note) select v from customers c, lateral (values (c.ssn)) x(v)",
        "insert into orders (note) with x as (select ssn from customers) select ssn from x",
        "insert into orders (note) select q.* from customers c, lateral (select c.ssn) q",
        "create table t as values ((select ssn from customers limit 1))",
        "update orders o set (note) = (select c.ssn from customers c where c.id = o.id)",
        "with recursive r(s) as (select ssn from customers union all select s from r) "
        "insert into orders (note) select s from r",
        "insert into customers (id, name) select id, ssn from customers",
        "insert into customers (name, ssn) select ssn, name from customers",
        "insert into customers (id, ssn) values (1, 'x') on conflict (id) do update "
        "set name = excluded.ssn",
        "insert into customers (id, ssn) values (1, 'x') on conflict (id) do update "
        "set name = customers.ssn",
        "update customers set name = ssn",
        "update customers set name = 'x', city = left(ssn, 3)",
        "update customers set (name, city) = (city, ssn)",
        "update customers set (name, city) = (select city, ssn from customers limit 1)",
        "update orders o set note = c.ssn from customers c where c.id = o.customer_id",
        "update orders set note = (select ssn from customers limit 1)",
        "update orders set note = x.a from (select ssn as a from customers) x",
        "merge into orders o using customers c on o.id = c.id when matched then "
        "update set note = c.ssn",
        "merge into orders o using customers c on o.id = c.id when not matched then "
        "insert (id, note) values (c.id, c.ssn)",
        "with x as (insert into orders (note) select ssn from customers returning 1) select 1",
        "with x as (update customers set id = id returning ssn) insert into orders (note) "
        "select ssn from x",
        "with x as (delete from customers returning *) insert into orders select * from x",
        "prepare p as insert into orders (note) select ssn from customers",
        "explain analyze create table t as select ssn from customers",
        "copy customers to '/tmp/x'",
        "copy customers (id, ssn) to program 'cat'",
        "copy (select ssn from customers) to '/tmp/x'",
    ],
)
def test_a_copy_is_named(text: str) -> None:
    assert SSN in judged(text)


@pytest.mark.parametrize(
    "text",
    [
        "select ssn from customers",
        "select * from customers",
        "create table t as select id, name from customers",
        "create table t as select * from orders",
        "create table t as select o.* from orders o join customers c on c.id = o.customer_id",
        "create table t as select id from customers where ssn = '1' order by ssn",
        "create table t as select city, count(*) from customers group by city having max(ssn) > ''",
        "create table t as select exists (select ssn from customers) as x",
        "create table t as select ssn from customers with no data",
        "create table t as select s.ssn from staging s join customers c on c.id = s.id",
        "create table t as select free from vault",
        "create table t (like customers)",
        "create materialized view m as select ssn from customers",
        "create view v as select ssn from customers",
        "insert into customers (id, ssn) values (1, 'x')",
        "insert into customers select * from staging",
        "insert into customers (id, ssn) select id, ssn from staging",
        "insert into customers select * from customers",
        "insert into customers select id + 1, name, email, ssn, card, born, city from customers",
        "insert into vault (id, what) select id, ssn from customers",
        "insert into vault select id, ssn from customers",
        "insert into orders (id) select id from customers where ssn like '1%'",
        "insert into customers (id, ssn) values (1, 'x') on conflict (id) do update "
        "set ssn = excluded.ssn, name = excluded.name",
        "update customers set ssn = upper(ssn)",
        "alter table customers alter ssn type varchar(20) using upper(ssn)",
        "alter table customers alter name type varchar(20) using upper(name), add x int default 3",
        "update customers set name = upper(name) where ssn = '1'",
        "update customers set (ssn, name) = (ssn, name)",
        "update vault v set what = c.ssn from customers c where c.id = v.id",
        "update orders o set note = 'x' from customers c where c.ssn = o.note",
        "update orders set note = (select name from customers where ssn = '1')",
        "merge into customers c using staging s on c.id = s.id when matched then "
        "update set ssn = s.ssn when not matched then insert (id, ssn) values (s.id, s.ssn)",
        "delete from customers where ssn = '1'",
        "copy customers to stdout",
        "copy customers (id, name) to '/tmp/x'",
        "copy customers from '/tmp/x'",
        "copy (select id from customers) to '/tmp/x'",
    ],
)
def test_what_copies_nothing_is_let_be(text: str) -> None:
    assert judged(text) == ()


def test_what_cannot_be_told_is_not_taken_for_harmless() -> None:
    assert judged("create table t as execute p") == (UNKNOWN,)
    assert copied("insert into", EVERYTHING) == (UNKNOWN,)


def test_where_copies_are_allowed_nothing_is_looked_at() -> None:
    free = Relation(1, "public", "vault", tuple(
        replace(column, mask=ALLOWED if column.mask else None) for column in VAULT.columns
    ))  # fmt: skip
    copies = Copies(replace(HIDDEN, protected={("public", "vault"): free}))
    assert copies.of(frozenset({"create_table_as"}), ("vault",), "not SQL") == ()
