"""Ways around policies, each a session's statements; and the shop they are tried at.

Who tries may do everything in `public` but change tables without a WHERE, define things, grant,
or leave the database, and may not touch the schema `hr` (RULES). An attack passes when all its
statements are allowed.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from gateway.policy import cases

PACKS = Path(cases.__file__).parent / "packs"
RULES = """
@id("support-works")
permit (
    principal in Group::"support",
    action in [Action::"connect", Action::"execute"],
    resource == Target::"shop"
);
@id("hr-only")
@message("payroll is for hr")
@how_to_ask("Ask hr.")
forbid (principal, action == Action::"execute", resource in Schema::"shop.hr")
unless { principal in Group::"hr" };
"""
USED = ("no-definitions", "no-privileges", "no-unrestricted-changes", "no-way-out")

# At a server: the relations of catalogs.SHOP beside the demo's customers and orders.
SETUP = """
create schema hr; create schema a; create schema b;
create table hr.payroll (id int not null, person text, salary int) partition by range (id);
create table hr.payroll_2025 partition of hr.payroll for values from (0) to (1000);
create table hr.payroll_2026 partition of hr.payroll for values from (1000) to (2000);
insert into hr.payroll values (1, 'ann', 100), (1001, 'bob', 200);
create view public.people as select c.id, c.ssn as tag from public.customers c where c.id > 0;
create view public.all_people as select tag from public.people;
create view public.pay as select person, sum(salary) as total from hr.payroll group by person;
create view public.writable as select id, salary from hr.payroll;
create materialized view public.cached_pay as select person from hr.payroll;
create table public.ruled (id int);
create rule r as on delete to public.ruled do instead
    delete from hr.payroll where payroll.id = old.id;
create table public.watched (id int);
create function public.log_change() returns trigger language plpgsql as $$
    begin insert into hr.payroll values (new.id); return new; end $$;
create trigger t before insert on public.watched for each row execute function public.log_change();
create sequence public.numbers;
create table a.twin (x int); create table b.twin (y int);
create table public.parent (id int); create table hr.child (secret text) inherits (public.parent);
create function public.raise_pay(int) returns void language plpgsql as $$
    begin update hr.payroll set salary = salary * 2; end $$;
create function public.peek() returns setof text language sql as $$
    select person from hr.payroll $$;
create function public.dynamic(text) returns void language plpgsql as $$
    begin execute 'delete from hr.payroll'; end $$;
create function public.outer_one() returns void language plpgsql as $$
    begin perform public.raise_pay(1); end $$;
create function public.remove_all() returns void language plpgsql as $$
    begin delete from public.orders; end $$;
create function public.md5(int) returns text language plpgsql as $$
    begin delete from hr.payroll; return 1; end $$;
create procedure public.run_payroll() language plpgsql as $$
    begin update hr.payroll set salary = 0; end $$;
create function public.compares(text, text) returns bool language sql as $$
    select exists (select from hr.payroll) $$;
create operator public.=== (leftarg = text, rightarg = text, function = public.compares);
"""


class Attack(NamedTuple):
    """`statements` of one session. `real`: a server runs them as they stand, in a transaction."""

    category: str
    statements: tuple[str, ...]
    real: bool = True


def _all(category: str, *texts: str | tuple[str, ...], real: bool = True) -> list[Attack]:
    return [Attack(category, (t,) if isinstance(t, str) else t, real) for t in texts]


ATTACKS = [
    *_all(
        "spelling",
        "delete/**/from/**/orders",
        "-- select 1\ndelete from orders",
        "/* /* nested */ select 1 */ delete from orders",
        "DeLeTe FrOm OrDeRs",
        "\n\t\fdelete\nfrom\torders",
        'delete from "orders"',
        'delete from public."orders"',
        "delete from only orders",
        "delete from orders *",
        "select * from HR.PayRoll",
        'select * from "hr"."payroll"',
        'select * from U&"h\\0072".U&"p\\0061yroll"',
        "select * from u&\"!0068r\" uescape '!' . payroll",
        "select*from hr.payroll",
        "table hr.payroll",
        "(((table hr.payroll)))",
        "select 'x' as a from hr . payroll",
        'select * from "hr" /* . */ . /* x */ "payroll"',
        "select $$harmless$$ from hr.payroll",
        "select $a$ from public.orders $a$ from hr.payroll",
        "select E'\\'' from hr.payroll --'",
    ),
    *_all(
        "no real WHERE",
        "delete from orders where true",
        "delete from orders where 1 = 1",
        "delete from orders where 1 <> 2",
        "delete from orders where 'a' = 'a'",
        "delete from orders where not false",
        "delete from orders where not (1 = 2)",
        "delete from orders where id = id",
        "delete from orders where orders.id = id",
        "delete from orders o where o.id >= id",
        "delete from orders where id is not null",
        "delete from orders where id is not null or id is null",
        "delete from orders where product is null or product is not null",
        "delete from orders where id is not distinct from id",
        "delete from orders where coalesce(id, 0) = coalesce(id, 0)",
        "delete from orders where id = 1 or true",
        "delete from orders where id = 1 or not (id = 1)",
        "delete from orders where id = 1 or id <> 1",
        "delete from orders where id > 5 or id <= 5",
        "delete from orders where id < 10 or 3 < id",
        "delete from orders where id between id and id",
        "delete from orders where (id, amount) = (id, amount)",
        "delete from orders where id in (id)",
        "delete from orders where id = any (array[id])",
        "delete from orders where id in (select id from orders)",
        "delete from orders where id in (select orders.id from customers)",
        "delete from orders where id = (select id)",
        "delete from orders where id = (select orders.id from customers limit 1)",
        "delete from orders where exists (select 1)",
        "delete from orders where exists (select 1 from orders)",
        "delete from orders where (select true)",
        "delete from orders where product like '%'",
        "delete from orders where product ilike '%%'",
        "delete from orders where product ~ '.*'",
        "delete from orders where length(product) >= 0",
        "delete from orders where abs(id) >= 0",
        "delete from orders where id * 0 = 0",
        "delete from orders where id - id = 0",
        "delete from orders where id + 0 = id",
        "delete from orders where random() >= 0",
        "delete from orders where now() > '2000-01-01'",
        "delete from orders where ctid = ctid",
        "delete from orders where orders = orders",
        "delete from orders where case when true then true end",
        "delete from orders where true is true",
        "delete from orders where (1 = 1) is not false",
        "delete from orders where '1'::bool",
        "delete from orders using orders b where orders.id = b.id",
        "delete from orders using (select id from orders) s where orders.id = s.id",
        "delete from orders using customers",
        "delete from orders using customers where customers.id = customers.id",
        "update orders set amount = 0",
        "update orders set amount = 0 where true and 1 = 1",
        "update orders set amount = o.amount from orders o",
        "update only orders set amount = 0 where id = id",
        "update orders set (amount) = (select 0)",
    ),
    *_all(
        "inside another statement",
        "with d as (delete from orders returning *) select count(*) from d",
        "with recursive d as (delete from orders returning id) select * from d",
        "with a as (select 1), d as (update orders set amount = 0 returning 1) table a",
        "explain analyze delete from orders",
        "explain (analyze, costs off) update orders set amount = 0",
        "explain analyze with d as (delete from orders returning 1) table d",
        "prepare p as delete from orders",
        ("prepare p as select 1", "deallocate p", "prepare p as delete from orders", "execute p"),
        "prepare p as select * from hr.payroll",
        "copy (select * from hr.payroll) to stdout",
        "copy (delete from orders returning *) to stdout",
        "copy hr.payroll_2025 to stdout",
        "copy hr.payroll_2025 (salary) to stdout",
        "declare c cursor for select * from hr.payroll",
        "declare c cursor with hold for select * from public.pay",
        "insert into orders select id + 900000, 1, person, salary, now(), person from hr.payroll",
        "select (select max(salary) from hr.payroll)",
        "select 1 where exists (select from hr.payroll where salary > 100)",
        "select 1 order by (select salary from hr.payroll limit 1)",
        "select 1 limit (select count(*) from hr.payroll)",
        "select 1 union select salary from hr.payroll",
        "select 1 except (select 2 intersect select salary from hr.payroll)",
        "values ((select max(salary) from hr.payroll))",
        "select * from (select * from (select salary from hr.payroll) x) y",
        "select * from orders, lateral (select salary from hr.payroll where id = orders.id) x",
        "select * from orders join hr.payroll using (id)",
        "select * from orders natural join hr.payroll",
        "select * from hr.payroll tablesample system (100)",
        "select case when (select salary from hr.payroll limit 1) > 10 then 1 end",
        "select array(select salary from hr.payroll)",
        "select count(*) filter (where exists (select from hr.payroll)) from orders",
        "select sum(1) over (order by (select max(salary) from hr.payroll)) from orders",
        "update orders set amount = (select max(salary) from hr.payroll) where id = 1",
        "delete from orders where id in (select id from hr.payroll)",
        "insert into orders values (1, 1, 'x', 1, now(), 'x') on conflict (id) do update "
        "set amount = "
        "(select max(salary) from hr.payroll)",
        "delete from orders where id = 1 returning (select max(salary) from hr.payroll)",
        "merge into orders o using hr.payroll p on o.id = p.id when matched then do nothing",
        "merge into orders o using (select 1) c on true when matched then delete",
        "merge into orders o using (select 1) c on o.id = o.id "
        "when matched then update set amount = 0",
        "lock table hr.payroll",
        "create temp table t as select * from hr.payroll",
        "select * into temp t from hr.payroll",
        "create temp view v as select * from hr.payroll",
        "select * from hr.payroll for update",
    ),
    *_all(
        "several statements",
        ("select 1", "delete from orders"),
        ("begin", "savepoint s", "delete from orders", "release s"),
        "select 1; delete from orders",
        ";;; delete from orders ;;;",
    ),
    *_all(
        "code",
        "do $$ begin delete from orders; end $$",
        "do $x$ begin perform salary from hr.payroll; end $x$",
        "do language plpgsql 'begin update orders set amount = 0; end'",
        "do $$ begin execute 'delete from ' || 'orders'; end $$",
        "do $$ declare r record; begin "
        "for r in select * from hr.payroll loop null; end loop; end $$",
        "do $$ declare n int := (select max(salary) from hr.payroll); begin null; end $$",
        "do $$ begin if exists (select from hr.payroll) then null; end if; end $$",
        "do $$ begin begin delete from orders; exception when others then null; end; end $$",
        "do $$ begin create table public.t (a int); end $$",
        "do $$ begin grant select on orders to public; end $$",
        "select raise_pay(1)",
        "select public.raise_pay(1) from orders limit 1",
        "select * from raise_pay(1)",
        "select outer_one()",
        "select md5(1)",
        "select remove_all()",
        "select peek()",
        "select * from public.peek() as t(x)",
        "select dynamic('x')",
        "call run_payroll()",
        "select 'a' === 'b'",
        "select 'a' operator(public.===) 'b'",
        "select 1 from orders where id = 1 order by raise_pay(1)::text",
        "select 1 from orders where id = 1 and raise_pay(1) is null",
        "insert into ruled select 1 from raise_pay(1)",
        "select * from ts_stat('select person::tsvector from hr.payroll')",
    ),
    *_all(
        "code, by what this server is not built with",
        "select query_to_xml('select * from hr.payroll', true, true, '')",
        "select query_to_xml('delete from orders returning 1', true, true, '')",
        "select query_to_xml('select * from ' || 'hr.payroll', true, true, '')",
        "select table_to_xml('hr.payroll', true, true, '')",
        "select schema_to_xml('hr', true, true, '')",
        "select database_to_xml(true, true, '')",
        "select query_to_xml('select pg_read_file(''/etc/hostname'')', true, true, '')",
        real=False,
    ),
    *_all(
        "by another way",
        "select * from pay",
        "select * from (select * from pay) x",
        "select total from public.pay p",
        "select * from cached_pay",
        "update writable set salary = 0 where id = 1",
        "delete from writable where id = 1",
        "insert into writable values (5, 5)",
        "delete from ruled where id = 1",
        "insert into watched values (1)",
        "copy watched from stdin",
        "select * from hr.payroll_2025",
        "delete from hr.payroll_2026 where id = 1001",
        "select * from only hr.payroll",
        "select * from parent",
        "select secret from hr.child",
        "update parent set id = 1 where id = 2",
        "truncate orders",
        "truncate table orders cascade",
        "delete from watched",
    ),
    *_all(
        "names",
        ("set search_path = hr", "select * from payroll"),
        ("set local search_path to hr, public", "select * from payroll"),
        ("select set_config('search_path', 'hr', false)", "select * from payroll"),
        ("set search_path = hr, public", "delete from payroll_2025 where id = 1"),
        ("set schema 'hr'", "table payroll"),
        ("do $$ begin set search_path = hr; end $$", "select * from payroll"),
        ("update pg_settings set setting = 'hr' where name = 'search_path'", "table payroll"),
        "with orders as (select * from hr.payroll) select * from orders",
        "with hr as (select 1) select * from hr.payroll",
        "with payroll as (select 1) select * from hr.payroll",
        "select * from orders as payroll, hr.payroll as orders",
        "select orders from hr.payroll orders",
        "select hr.payroll.salary from hr.payroll",
    ),
    *_all(
        "names that are not there",
        "select * from nowhere",
        "select * from hr_payroll",
        "select nothing(1)",
        ("execute nobody",),
        "select nothing from orders",
        real=False,
    ),
    *_all(
        "definitions",
        "create table public.t (a int)",
        "create table t as table orders",
        "select * into t from orders",
        "create unlogged table t (a int)",
        "create table t (like hr.payroll)",
        "create table t () inherits (hr.payroll_x)",
        "create view v as select * from hr.payroll",
        "create or replace view people as "
        "select id::bigint as id, person::char(11) as tag from hr.payroll",
        "create materialized view m as select 1",
        "create function f() returns int language sql as 'select 1'",
        "create or replace function peek() returns setof text language sql as 'select 1::text'",
        "create procedure p() language sql as 'delete from orders'",
        "create rule x as on insert to orders do also delete from hr.payroll",
        "create trigger x before insert on orders for each row execute function log_change()",
        "create policy p on orders using (true)",
        "create index on orders (product)",
        "create schema s create table t (a int)",
        "create type t as (a int)",
        "create domain d as int check (value > 0)",
        "create sequence s",
        "create aggregate g (int) (sfunc = int4pl, stype = int)",
        "create operator public.==== (leftarg = text, rightarg = text, function = compares)",
        "create cast (text as point) with inout",
        "create publication p for all tables",
        "alter table orders add column x int default 1",
        "alter table orders rename to o",
        "alter table orders set schema a",
        "alter table orders disable trigger all",
        "alter function peek() security definer",
        "alter view people owner to current_user",
        "alter sequence numbers restart",
        "drop table orders",
        "drop view if exists people cascade",
        "drop schema a cascade",
        "drop owned by current_user",
        "comment on table orders is 'x'",
        "import foreign schema a from server s into b",
        "security label on table orders is 'x'",
    ),
    *_all(
        "privileges",
        "grant select on hr.payroll to public",
        "grant all on all tables in schema hr to public",
        "revoke all on orders from public",
        "grant current_user to postgres",
        "create role r",
        "create user u superuser",
        "alter role current_user superuser",
        "alter user postgres password 'x'",
        "drop role if exists nobody",
        "alter default privileges grant all on tables to public",
        "reassign owned by current_user to current_user",
        "create extension pg_trgm",
        "create extension if not exists dblink schema public cascade",
        "alter system set log_statement = 'none'",
        real=False,
    ),
    *_all(
        "out of the database",
        "copy orders to '/dev/null'",
        "copy orders to program 'cat'",
        "copy orders from program 'true'",
        "copy (select 1) to program 'cat'",
        "copy orders from '/dev/null'",
        "select pg_read_file('/etc/hostname')",
        "select pg_catalog.pg_read_file('/etc/hostname')",
        "select \"pg_read_file\"('/etc/hostname')",
        "select * from pg_read_file('/etc/hostname') f",
        "select pg_read_binary_file('/etc/hostname')",
        "select * from pg_ls_dir('/')",
        "select pg_stat_file('/')",
        "select lo_import('/etc/hostname')",
        "select lo_from_bytea(0, 'x')",
        "select (select pg_read_file('/etc/hostname'))",
        "explain analyze select pg_read_file('/etc/hostname')",
        "do $$ begin perform pg_read_file('/etc/hostname'); end $$",
    ),
    *_all(
        "out of the database, by what is not installed",
        "select lo_export(lo_from_bytea(0, 'x'), '/dev/null')",
        "load '$libdir/plugins/x'",
        "select * from dblink('host=x', 'select 1') as t(a int)",
        "select dblink_connect('x')",
        "select * from crosstab('select * from hr.payroll')",
        "select * from crosstab('select * from ' || 'hr.payroll')",
        "select xpath_table('id', 'doc', 'hr.payroll', '/', 'true')",
        "create server s foreign data wrapper postgres_fdw options (host 'x')",
        "create foreign data wrapper w",
        "create user mapping for public server s options (password 'x')",
        "create foreign table f (a int) server s options (program 'true')",
        "create subscription s connection 'host=x' publication p",
        "create tablespace t location '/tmp'",
        "create language plpython3u",
        "create function f() returns int language c as 'x', 'y'",
        "create function f() returns int language plpython3u as 'import os'",
        "select in_python()",
        "create access method m type index handler bthandler",
        real=False,
    ),
]

# What the same person does every day.
BENIGN = [
    "select 1",
    "select * from orders",
    "select o.id, c.name from orders o join customers c on c.id = o.customer_id where o.id = 5",
    "select tag from people where id = 3",
    "with x as (select id from orders limit 5) select count(*) from x",
    "insert into orders (id, customer_id, product, amount) values (9001, 1, 'x', 1)",
    "update orders set amount = amount + 1 where id = 9001",
    "delete from orders where id = 9001",
    "delete from orders where customer_id = 1 and product = 'nothing of that name'",
    "delete from orders o using customers c where c.id = o.customer_id and c.city = 'nowhere'",
    "update orders set amount = 1 where id in (select id from customers where city = 'nowhere')",
    "select lower(name), upper(city) from customers limit 3",
    "select count(*), max(amount) from orders group by product having count(*) > 1",
    "select row_number() over (order by id) from orders limit 3",
    "select generate_series(1, 3)",
    "select * from unnest(array[1, 2]) as t(n)",
    "select nextval('numbers')",
    "create temp table mine as select id from orders limit 3",
    "explain select * from orders",
    "begin",
    "rollback",
    "set statement_timeout = 1000",
    "show search_path",
    "select relname from pg_catalog.pg_class limit 1",
    "copy orders to stdout",
    "select set_config('application_name', 'x', false)",
    "select id from orders union all select id from customers order by id limit 3",
    "select now(), current_user, random()",
    "with new as (insert into orders (id, customer_id, product, amount) values (9002, 1, 'x', 1) "
    "returning id) select id from new",
    "values (1), (2)",
]
