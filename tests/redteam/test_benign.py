"""What people do all day works, and shows masks in the place of what is hidden, nothing else."""

# ruff: noqa: E501 (one statement a line)
from __future__ import annotations

import os
import subprocess
from datetime import date
from decimal import Decimal
from typing import Any, Final

import psycopg
import pytest

from schemas.masking.masks import email
from tests.redteam.conftest import Place
from tests.redteam.test_leaks import shown

pytestmark = pytest.mark.integration

READS: Final = """
select 1
select version()
show server_version
show transaction isolation level
select current_database(), current_user, current_schema()
select pg_catalog.pg_is_in_recovery()
select id, name, city from people order by id
select id, ssn from people order by id
select ssn, email, id from people order by id limit 2 offset 1
select * from people order by id
select p.* from people p where p.id = 1
select p.id, p.ssn as number, o.item from people p join orders o on o.person_id = p.id order by o.id
select o.*, p.name from orders o left join people p on p.id = o.person_id order by o.id
select count(*) from people
select count(ssn) from people
select city, count(*) from people group by city order by city nulls last
select date_trunc('month', at) as bucket, sum(amount), avg(amount) from orders group by 1 order by 1
select date_bin('7 days', at, '2026-01-01') b, count(*) from orders group by b order by b
select extract(dow from at), count(*) from orders group by 1 order by 1
select to_char(at, 'YYYY-MM') m, count(distinct person_id) from orders group by m order by m
select person_id, sum(amount) filter (where amount > 50) from orders group by person_id order by 1
select percentile_cont(0.5) within group (order by amount) from orders
select id, sum(amount) over (partition by person_id order by id) from orders order by id
select id, row_number() over (order by id), lag(amount) over (order by id) from orders order by id
select case when amount > 100 then 'big' else 'small' end size, count(*) from orders group by 1 order by 1
select width_bucket(amount, 0, 300, 5) b, count(*) from orders group by b order by b
select item, amount from orders where item ilike '%1%' order by id
select item from orders where at between '2026-01-01' and '2026-02-01' order by id
select * from orders where id = any (array[1, 2, 3]) order by id
select * from orders where id in (1, 2) order by id desc
select name from people where id in (select person_id from orders where amount > 200) order by id
select name from people p where exists (select 1 from orders o where o.person_id = p.id) order by name
with t as (select person_id, sum(amount) s from orders group by 1) select p.name, t.s from t join people p on p.id = t.person_id order by 1
with recursive n(i) as (select 1 union all select i + 1 from n where i < 5) select sum(i) from n
select g::date as day, count(o.id) from generate_series('2026-01-01'::date, '2026-01-05', '1 day') g left join orders o on o.at::date = g group by g order by g
select coalesce(city, 'none'), upper(name), length(name) from people order by id
select string_agg(name, ', ' order by id) from people
select json_build_object('id', id, 'name', name) from people order by id
select array_agg(id order by id) from people
select id from people union select id from orders order by 1 limit 5
select distinct city from people order by 1
select l.item from people p, lateral (select item from orders o where o.person_id = p.id order by id limit 1) l order by p.id
select max(at), min(at) from orders
select round(avg(amount), 2), stddev(amount)::numeric(10, 3) from orders
select * from v_counts order by city nulls last
select id from v_plain order by id
select id, ssn from v_plain order by id
select id, tag from v_renamed order by id
select id, code from v_barrier order by id
select id, name from m_people order by id
select id, at from events order by id limit 3
select id from child
select id, mood from people order by id
select (home).city from people where id = 1
select id, digits from people order by id
select id from "Löhne ""x"
select ctid is not null from orders limit 1
select id from orders order by random() limit 0
select relname from pg_class where relname = 'people'
select attname, format_type(atttypid, atttypmod) from pg_attribute where attrelid = 'people'::regclass and attnum > 0 order by attnum
select table_name from information_schema.tables where table_schema = 'public' order by 1
select column_name, data_type from information_schema.columns where table_name = 'people' order by ordinal_position
select conname, pg_get_constraintdef(oid) from pg_constraint where conrelid = 'people'::regclass order by 1
select indexname, indexdef from pg_indexes where tablename = 'people' order by 1
select pg_get_viewdef('v_plain'::regclass, true)
select n.nspname, c.relname, c.relkind from pg_class c join pg_namespace n on n.oid = c.relnamespace where n.nspname = 'public' and c.relkind = 'r' order by 2
select t.typname, t.oid from pg_type t left join pg_enum e on e.enumtypid = t.oid where t.typname = 'mood' order by e.enumsortorder
select a.attname, pg_get_expr(d.adbin, d.adrelid) from pg_attribute a left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum where a.attrelid = 'public.orders'::regclass and a.attnum > 0 order by a.attnum
select pg_size_pretty(pg_total_relation_size('people'))
select has_table_privilege('people', 'select')
select obj_description('people'::regclass)
select upper(name), ssn || '' is null from people order by id
select p.name, p.ssn, count(o.id) from people p join orders o on o.person_id = p.id group by p.id, p.name, p.ssn order by p.id
select * from (select id, name, ssn from people) q order by id
with q as (select * from people) select id, name, ssn from q order by id
select id, name, ssn from people for update
select public.people.id, people.name from public.people order by 1
select id, ssn is null from people order by id
explain (costs off) select id from people where id = 1
select id, label from files order by id
select id, doc->>'name' as name, doc->'n' from files order by id
select id from files where doc @> '{"name": "Ann"}'
select id, doc->'cards'->0->>'kind' from files where doc->>'name' = 'Ann'
select id, doc from files where id = 1
select id, doc->'ssn' is null, doc->>'none' from files order by id
select id, phones from people order by id
select id, cardinality(phones), phones[2] from people order by id
select id, id in (1, 3), coalesce(raw->>'name', label) from files order by id
table orders
values (1, 'a'), (2, 'b')
""".strip().splitlines()  # fmt: skip

WRITES: Final[tuple[str, ...]] = (
    "insert into orders (id, person_id, item) values (200, 1, 'x') returning id",
    "insert into people (id, name, ssn, email) values (60, 'New', '000-11-2222', 'a@b.test') returning id",
    "insert into people (id, name, ssn) values (61, 'New', '000-11-2223') returning id, name, ssn",
    "insert into people (id, name) values (62, 'A'), (63, 'B')",
    'insert into files (id, doc) values (70, \'{"ssn": "1"}\') returning id',
    'update files set doc = \'{"ssn": "2"}\' where id = 3 returning label',
    "update files set doc['name'] = '\"Eve\"' where id = 1",
    "insert into people (id, name) values (1, 'Ann') on conflict (id) do update set name = excluded.name returning id",
    "insert into people (id, name, email) values (1, 'Ann', 'q@b.test') on conflict (id) do update set email = excluded.email",
    "insert into orders (id, item) values (1, 'y') on conflict (id) do nothing",
    "insert into orders (id, item) select id + 300, name from people",
    "update people set name = 'Anna' where id = 1",
    "update people set ssn = '000-00-1111', name = 'q' where id = 3 returning id",
    "update orders set amount = amount * 2 where person_id = 1 returning id, amount",
    "update orders o set item = p.name from people p where p.id = o.person_id and o.id = 1",
    "delete from orders where id = 5 returning *",
    "delete from orders using people p where p.id = person_id and p.city = 'Oslo'",
    "create temp table mine as select id, name from people",
    "create temp table mine (id int, note text)",
    "create table made (id serial primary key, note text default 'x', at timestamptz default now())",
    "create index on orders (person_id)",
    "alter table orders add column extra text",
    "truncate orders",
    "declare c cursor for select id, name, ssn from people order by id",
    "prepare p (int) as select id, name, ssn from people where id = $1",
    "set local statement_timeout = '5s'",
    "savepoint a",
    "comment on table orders is 'x'",
    "lock table orders in share mode",
    "merge into orders o using (values (1, 'z')) v(id, item) on v.id = o.id when matched then update set item = v.item when not matched then insert (id, item) values (v.id, v.item)",
)
MASKS: Final = ("***", "***        ", None)

Result = tuple[list[str], list[tuple[Any, ...]], int]


def run(session: psycopg.Connection[Any], statement: str) -> Result:
    """Column names, rows and the number of rows, of a statement that is taken back."""
    session.execute("begin")
    try:
        cursor = session.execute(statement.encode())
        names = [column.name for column in cursor.description or ()]
        rows = cursor.fetchall() if cursor.description else []
        return names, rows, cursor.rowcount
    finally:
        session.execute("rollback")


def alike(value: Any, clear: Any) -> bool:
    """Whether it is what the database says, or a mask in the place of a secret."""
    if value == clear:
        return True
    if isinstance(value, list) and isinstance(clear, list):
        return len(value) == len(clear) and all(map(alike, value, clear))
    if isinstance(value, dict) and isinstance(clear, dict):
        return value.keys() == clear.keys() and all(alike(value[key], clear[key]) for key in clear)
    secret = shown(str(clear).encode()) or isinstance(clear, date | Decimal | int | list | dict)
    if isinstance(clear, str):
        return value in (*MASKS, email(clear))
    return value in MASKS and bool(secret)


@pytest.fixture(scope="module")
def refused(place: Place) -> list[str]:
    """What alice was refused. What she was not is as it should be."""
    found = []
    with (
        psycopg.connect(place.direct, autocommit=True) as direct,
        place.stack.connect("alice") as alice,
    ):
        for statement in (*READS, *WRITES):
            names, rows, count = run(direct, statement)
            try:
                seen_names, seen, seen_count = run(alice, statement)
            except psycopg.Error as error:
                found.append(f"{statement}: {error}")
                continue
            assert (seen_names, seen_count) == (names, count), statement
            assert not shown(repr(seen).encode()), statement
            for row, clear in zip(seen, rows, strict=True):
                assert all(map(alike, row, clear)), (statement, row, clear)
    return found


def test_hardly_anything_is_refused(refused: list[str]) -> None:
    assert len(READS) + len(WRITES) >= 80
    assert len(refused) <= (len(READS) + len(WRITES)) * 5 // 100, refused


def test_who_may_see_clear_sees_what_the_database_says(place: Place) -> None:
    with (
        psycopg.connect(place.direct, autocommit=True) as direct,
        place.stack.connect("bob") as bob,
    ):
        for statement in (*READS, *WRITES):
            for binary in (False, True):
                answers = []
                for session in (direct, bob):
                    session.execute("begin")
                    cursor = session.cursor(binary=binary)
                    cursor.execute(statement.encode())
                    result = cursor.pgresult
                    assert result is not None
                    places = range(result.nfields)
                    answers.append(
                        (
                            [
                                (result.fname(at), result.ftable(at), result.ftype(at))
                                for at in places
                            ],
                            [
                                [result.get_value(n, at) for at in places]
                                for n in range(result.ntuples)
                            ],
                            result.command_status,
                        )
                    )
                    session.execute("rollback")
                    if statement.startswith("prepare"):
                        session.execute("deallocate p")
                assert answers[0] == answers[1], statement


@pytest.mark.parametrize(
    "command",
    ["\\d", "\\d people", "\\d+ people", "\\dt+", "\\dv", "\\df", "\\dn", "\\du", "\\l", "\\dT",
     "\\di", "\\dm", "\\dp", "\\sv v_plain", "\\d v_plain", "\\conninfo", "\\encoding",
     "\\copy orders to stdout", "\\copy (select id, name, ssn from people) to stdout csv header",
     "\\copy orders (id) from /dev/null"],
)  # fmt: skip
def test_psql_describes(place: Place, command: str) -> None:
    done = subprocess.run(
        ["psql", "-X", "-v", "ON_ERROR_STOP=1", "-c", command],
        env={"PATH": os.environ["PATH"], **place.stack.environment("alice")},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert not shown(done.stdout.encode())
