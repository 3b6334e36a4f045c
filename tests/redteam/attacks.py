"""Ways to a classified value: statements of one session, in order.

Every one shows a secret when it is run at the database itself.
"""

# ruff: noqa: E501 (one statement a line)
from __future__ import annotations

from typing import Final

EXPRESSIONS: Final = """
ssn as name
ssn::text
ssn::varchar(20)
ssn::bytea
cast(ssn as text)
(ssn)
+salary
salary + 0
salary::text
salary * 1
born::text
born + 0
to_char(born, 'YYYY-MM-DD')
extract(year from born)::text || to_char(born, '-MM-DD')
'x' || ssn
ssn || ''
concat(ssn, '')
concat_ws('/', id, ssn)
format('%s', ssn)
format('%L', ssn)
quote_literal(ssn)
upper(email)
initcap(ssn)
reverse(ssn)
reverse(reverse(ssn))
md5(ssn) || ssn
encode(ssn::text::bytea, 'hex')
encode(convert_to(ssn, 'UTF8'), 'base64')
translate(ssn, '-', '-')
replace(ssn, 'zzz', '')
overlay(ssn placing '' from 20)
lpad(ssn, 11)
substr(ssn, 1)
substring(ssn from 1 for 11)
substring(ssn from '.*')
left(ssn, 11)
right(ssn::text, 11)
trim(ssn)
split_part(ssn, '/', 1)
regexp_replace(ssn, 'zz', '')
(regexp_match(ssn, '(.*)'))[1]
string_to_array(ssn, '/')
array[ssn]
(array[ssn])[1]
phones[1]
phones
array_to_string(phones, ',')
row(ssn)
row(ssn, id)::text
coalesce(ssn, 'x')
nullif(ssn, 'x')
greatest(ssn, '')
least(ssn, 'z')
case when true then ssn end
case id when 1 then ssn else ssn end
to_json(ssn)
to_jsonb(people)
row_to_json(people)
to_json(people.*)
json_build_object('a', ssn)
json_build_array(ssn)
jsonb_build_object('a', people)
json_object('{a}', array[ssn])
json_object('a': ssn)
json_array(ssn)
profile->>'k'
profile->'k'
profile['k']
profile #>> '{k}'
jsonb_pretty(profile)
jsonb_path_query_first(profile, '$.k')
people
people.*::text
(people).ssn
(people.*).ssn
people::text
digits
"ssn"
U&"\\0073sn"
u&"!0073sn" uescape '!'
SSN
public.people.ssn
people.ssn collate "C" || ''
ssn || null::text, ssn || id
(select ssn)
(select p2.ssn from people p2 limit 1)
array(select ssn from people)
exists (select 1 from people where false) or ssn is null, ssn
max(ssn) over ()
lag(ssn, 0) over (order by id)
first_value(ssn) over (partition by city order by id)
array_agg(ssn) over ()
ascii(ssn)::text || ssn
to_tsvector('simple', email)
strpos(ssn, '-') || ssn
lo_from_bytea(0, ssn::text::bytea), ssn
make_date(1, 1, 1) - born + born - make_date(1, 1, 1), born
""".strip().splitlines()

DOCUMENTS: Final = """
doc
raw
one
made
doc->'ssn'
doc->>'ssn'
doc->('s' || 'sn')
doc #> '{ssn}'
doc #>> '{ssn}'
doc #>> array['cards', '0', 'number']
doc->'cards'->-3->>'number'
doc->'all'
doc->'deep'->'a/b'->>0
doc->'whole'
doc['ssn']
doc['cards'][0]['number']
doc::text
doc::json
doc::json->>'ssn'
cast(doc as varchar(2000))
raw::text
raw->>'ssn'
raw::jsonb->>'ssn'
raw #>> '{ssn}'
(raw::text)::json
doc || '{}'
doc - 'name'
doc #- '{name}'
'{}'::jsonb || doc
jsonb_set(doc, '{name}', '1')
jsonb_set(doc, '{name}', doc->'ssn')->'name'
jsonb_insert(doc, '{x}', '1')
jsonb_strip_nulls(doc)
jsonb_pretty(doc)
jsonb_extract_path(doc, 'ssn')
jsonb_extract_path_text(doc, 'cards', '0', 'number')
json_extract_path_text(raw, 'ssn')
jsonb_path_query(doc, '$.ssn')
jsonb_path_query(doc, '$.**')
jsonb_path_query_array(doc, '$.cards[*].number')
jsonb_path_query_array(doc, '$.*')
jsonb_path_query_array(doc, '$.keyvalue().value')
jsonb_path_query(doc, '$x', jsonb_build_object('x', doc))
jsonb_each(doc)
jsonb_each_text(doc)
json_each(raw)
(jsonb_each_text(doc)).value
json_array(doc)
json_object('a': doc)
to_json(doc)
to_jsonb(files)
row_to_json(files)
to_jsonb(files)->'doc'->>'ssn'
json_build_array(doc)
jsonb_build_object('d', doc)
jsonb_agg(doc) over ()
jsonb_object_agg(id, doc) over ()
array[doc]
row(doc)
(row(doc)).f1
coalesce(doc, '{}')
nullif(doc, '{}')
greatest(doc, doc)
case when doc ? 'ssn' then doc end
case when doc @> '{"n": 1}' then doc->>'ssn' end
md5(doc->>'ssn') || (doc->>'ssn')
encode(convert_to(doc::text, 'UTF8'), 'hex')
quote_literal(doc->>'ssn')
format('%s', doc)
concat(doc)
replace(doc::text, 'zz', '')
to_tsvector('simple', doc)
jsonb_to_tsvector('simple', doc, '["string"]')
ts_headline('simple', doc, to_tsquery('simple', 'ann'))
jsonb_populate_record(null::files, to_jsonb(files))
(jsonb_populate_record(null::files, to_jsonb(files))).doc
files
files.*::text
(files).doc
(select doc)
array(select doc from files)
(doc->>'ssn')::int
(doc->>'mail')::int
lag(doc, 0) over (order by id)
max(doc->>'ssn') over ()
""".strip().splitlines()

DOCUMENT_QUERIES: Final = """
select * from files
table files
select doc from v_files
select doc->>'ssn' from v_files
select number from v_files_ssn
select * from v_files_all
select made || '' from v_files_all
select copy from m_files
select mail from m_files
select copy->>'ssn' || '' from m_files
select e.value from files, jsonb_each(doc) e where id = 1
select e.value from files, jsonb_each_text(doc) e where e.key = 'ssn' and id = 1
select e from files, jsonb_path_query(doc, '$.ssn') e
select e from files, jsonb_array_elements(doc->'cards') e where id = 1
select r.ssn from files, jsonb_to_record(doc) r(ssn text) where id = 1
select r.* from files, json_to_record(raw) r(ssn text) where id = 1
select r.number from files, jsonb_to_recordset((doc->'cards') - 2) r(number text) where id = 1
select string_agg(doc->>'ssn', ',') from files
select jsonb_agg(doc) from files
select json_agg(files) from files
select jsonb_object_agg(id, doc) from files
select doc->>'ssn' from files group by 1
select distinct doc->>'ssn' from files
select doc from files order by doc->>'ssn'
select doc->>'ssn' from files union select 'x'
select x.s from (select doc->>'ssn' as s from files) x
with x as (select doc from files) select doc->>'ssn' from x
select d from files as f(a, d, c)
select doc from only files
select doc->>'ssn' || '' from public.files
copy files to stdout
copy files (doc) to stdout
copy (select doc from files) to stdout
copy (select doc->>'ssn' from files) to stdout
update files set label = label returning doc
update files set label = label returning doc->>'ssn'
update files set label = doc->>'ssn' returning label
update files set one = doc returning one
update files set one = one || '{"a": 1}' returning one
update files set one = jsonb_set('{}', '{x}', doc->'ssn') returning one->'x'
update files set doc['name'] = doc['ssn'] where id = 1 returning doc['name']
update files set doc['name'] = '"x"' where id = 1 returning doc
update files set label = (select doc->>'ssn' from files where id = 1) returning label
insert into files (id, label) values (1, 'x') on conflict (id) do update set label = files.doc->>'ssn' returning label
insert into files (id, doc) values (1, '{}') on conflict (id) do update set doc = files.doc || excluded.doc returning doc
insert into files (id, one) select 9, doc from files where id = 1 returning one->>'mail'
insert into orders (id, note) select 100, doc->>'ssn' from files where id = 1 returning note
delete from files where id = 1 returning doc
delete from files where id = 1 returning to_jsonb(files)
select doc->>'ssn' from files where doc @> '{"name": "Ann"}'
select doc->>'ssn' from files where doc @? '$.ssn'
select doc->>'ssn' from files where doc @@ '$.n == 1'
select doc->>'ssn' from files where doc ? 'ssn' and doc ?| array['ssn'] and doc ?& array['ssn']
select histogram_bounds, most_common_vals from pg_stats where tablename like 'files%'
""".strip().splitlines()

QUERIES: Final = """
select * from people
select p.* from people p
table people
select max(ssn) from people
select min(email) from people
select string_agg(ssn, ',') from people
select array_agg(ssn) from people
select json_agg(people) from people
select jsonb_object_agg(id, ssn) from people
select mode() within group (order by ssn) from people
select percentile_disc(0) within group (order by salary desc nulls last) from people
select sum(salary) from people where id = 1
select ssn from people group by ssn
select distinct ssn from people
select distinct on (ssn) ssn from people order by ssn
select ssn from people order by ssn
select ssn, count(*) from people group by rollup (ssn)
select ssn from people union select item from orders
select item from orders union all select ssn from people
select ssn from people intersect select ssn from people
select ssn from people except select item from orders
(select ssn from people) limit 5
values ((select ssn from people limit 1))
select * from (values ((select ssn from people limit 1))) v(x)
select x.a from (select ssn as a from people) x
select x.* from (select * from people) x
select a from people as t(a1, a2, a)
select t.c from people t(a, b, c)
select j.c from (people join orders using (id)) as j(a, b, c)
select j.* from (people cross join (select 1) y) as j
select l.x from people p, lateral (select p.ssn as x) l
select l from people p cross join lateral (values (p.ssn)) l
select u from people, unnest(phones) u
select u.x from people, unnest(array[ssn]) u(x)
select * from people p join orders o on o.person_id = p.id
select * from people natural join (select 1 as id) x
select ssn from people join (select ssn as s2, id from people) q using (id)
select ssn from people full join orders using (ssn)
select count(*) filter (where ssn like '4%'), max(ssn) from people
with x as (select ssn from people) select * from x
with x(a) as (select ssn from people) select a from x
with x as materialized (select * from people) select ssn from x
with people as (select * from people) select ssn from people
with people as (select * from public.people) select people from people
with recursive r(n, s) as (select 1, ssn::text from people union all select n + 1, s from r where n < 2) select s from r
with x as (update people set name = name where id = 1 returning ssn) select * from x
with x as (insert into people (id, name, ssn) values (9, 'q', '000-00-0000') returning id) select ssn from people
with x as (select 1) select (select ssn from people limit 1) from x
select (select row_to_json(p) from people p limit 1)
select to_json(array(select people from people))
select ssn from only people
select ssn || '' from only people
select ssn || '' from people *
select ssn || '' from people tablesample bernoulli (100)
select ssn from people tablesample system (100)
select ctid, xmin, tableoid, ssn || '' from people
select ssn || '' from public.people
select ssn || '' from "public"."people"
select ssn/**/||/* x */'' from/**/people
select ssn || $$$$ from people -- where
select U&"\\0073sn" || '' from U&"\\0070eople"
select PeOpLe.SsN || '' from PEOPLE
select "Gehalt ""€" || '' from "Löhne ""x"
select max("Gehalt ""€") from "Löhne ""x"
select x from "Löhne ""x" x
select ssn || '' from people for update
select ssn || '' from people for share of people
select note || '' from events
select note from events_2026
select max(note) from events_2026
select note || '' from parent
select note from parent
select note from child
select note || '' from child
select note || '' from older
select note from younger
select max(note) from younger
select * from younger
select was from archive
select (was).ssn from archive
select (was).* from archive
select row_to_json(archive) from archive
select was from archives
select (was[1]).ssn from archives
select (u).ssn from archives, unnest(was) u
select of from referring
select max(of) from referring
select ssn from v_plain
select ssn || '' from v_plain
select tag from v_renamed
select upper(tag) from v_renamed
select label from v_nested
select label || '' from v_nested
select mixed from v_computed
select pay from v_computed
select top, all_of from v_aggregate
select who from v_joined
select b from v_sub
select a from v_union
select whole from v_row
select (whole).ssn from v_row
select doc from v_json
select doc->>'ssn' from v_json
select code from v_barrier
select code || '' from v_barrier
select before from v_window
select y from v_cte
select z from v_lateral
select v from v_stats where tablename = 'events'
select most_common_vals from pg_stats where tablename = 'events'
select thing from v_columns
select code from m_people
select max(code) from m_people
select deep from m_nested
select * from v_plain, v_row
select peek from nice
select n.peek || '' from nice n
select get_ssn(1)
select public.get_ssn(1)
select * from get_ssn(1)
select leak_definer()
select * from leak_definer()
select leak_plpgsql()
select * from leak_table()
select (leak_table()).b
select of_order(o) from orders o
select o.of_order from orders o
select orders.of_order from orders
select (o).of_order from orders o
select (o.*).of_order from orders o
select o.peek from orders o, nice n
select orders.peek from orders, nice
select leak_op(1, 1)
select 1 ?%? 1
select 1 operator(public.?%?) 1
select lower(1)
select public.lower(1)
select 1::wrapped
select cast(1 as wrapped)
select (1::wrapped).w
select leak_agg(1)
select leak_raise(1)
select word from ts_stat('select to_tsvector(''simple'', email) from people')
select ('select to_tsvector(''simple'', email) from people').ts_stat
select ('select to_tsvector(''simple'', email) from people'::text).ts_stat
select histogram_bounds from pg_stats where tablename = 'people'
select * from pg_catalog.pg_stats
select pg_stats from pg_stats
copy people to stdout
copy people (id, ssn) to stdout
copy public.people to stdout csv header
copy people to stdout (format binary)
copy people to stdout (format csv, force_quote *)
copy (select ssn from people) to stdout
copy (select * from people) to stdout
copy (select ssn || '' from people) to stdout
copy (table people) to stdout
copy (update people set name = name returning ssn) to stdout
copy (select tag from v_renamed) to stdout
copy (select code from m_people) to stdout
copy (select to_json(people) from people) to stdout
copy hr.staff to stdout
copy archive to stdout
copy referring (of) to stdout
copy events_2026 to stdout
copy younger to stdout
copy child (note) to stdout
copy "Löhne ""x" to stdout
update people set name = name returning *
update people set name = name where id = 1 returning ssn || ''
update people set name = ssn returning name
update people p set city = p.email returning city
update people set (name, city) = (ssn, email) returning name
update people set (name, city) = (select p.ssn, 'x' from people p where p.id = 1) returning name
update orders set note = ssn.ssn from people ssn where ssn.id = 1 returning note
update orders set note = (select ssn from people limit 1) returning note
update orders o set item = p.ssn from people p where p.id = o.person_id returning item
update orders o set item = 'x' from people p where p.id = o.person_id returning p.ssn
update orders o set item = 'x' from people p where p.id = o.person_id returning p
delete from orders using people where people.id = person_id returning people.ssn
delete from orders using people where people.id = person_id returning upper(people.ssn)
delete from orders where id = 1 returning (select ssn from people limit 1)
insert into orders (id, note) select 100 + id, ssn from people returning note
insert into orders (id, note) values (101, (select ssn from people limit 1)) returning note
insert into people (id, name) values (1, 'x') on conflict (id) do update set name = people.ssn returning name
insert into people (id, name) values (1, 'x') on conflict (id) do update set name = (select max(ssn) from people) returning name
insert into people (id, name) values (1, 'x') on conflict (id) do update set city = people.city returning ssn || ''
insert into ruled values (1, 'x')
explain analyze select leak_raise(1)
select * from hr.staff
select ssn || '' from hr.staff
select nspname, (select ssn from people limit 1) from pg_namespace
select relname, s.ssn from pg_class, people s where relname = 'people'
select tableoid::regclass, people from people
select jsonb_populate_record(null::people, to_jsonb(p)) from people p
select (jsonb_populate_record(null::people, to_jsonb(p))).ssn from people p
select (json_populate_record(p, '{}')).ssn from people p
select x.ssn from people p, json_to_record(to_json(p)) as x(ssn text)
select x from people, generate_series(salary::int, salary::int) x
select * from rows from (unnest((select array_agg(ssn) from people))) r
select grouping(ssn), ssn from people group by grouping sets ((ssn))
select ssn from people window w as (order by id) order by max(ssn) over w
select id from people where ssn::text::int = 1
select ssn::int from people
select email::int from people
select ssn::text::date from people
select ssn::text::uuid from people
select email::text::inet from people
select ('[' || email || ']')::int4range from people
select email::text::mood from people
select email::text::regclass from people
select email::text::regtype from people
select number from v_cast
select set_config('app.x', ssn, false) from people
select code || '' from strict
select max(code) from strict
select code from strict order by code
select x.code from (select * from strict) x
""".strip().splitlines()

SCRIPTS: Final[tuple[tuple[str, ...], ...]] = (
    ("create temp table t as select * from people", "select * from t"),
    ("create temp table t as select ssn as x from people", "select x from t"),
    ("create table t as table people", "select * from t"),
    ("select ssn as x into temp t from people", "select x from t"),
    ("create temp table t (like people)", "insert into t select * from people", "table t"),
    ("create temp table t (a text)", "insert into t select ssn from people", "select a from t"),
    ("create temp table t (a text)", "insert into t select tag from v_renamed", "table t"),
    ("create temp view w as select ssn as x from people", "select x from w"),
    ("create view w as select ssn || '' as x from people", "select x from w"),
    ("create or replace view v_counts as select city, count(*) as n, max(ssn) as m from people "
     "group by city", "select m from v_counts"),
    ("create materialized view w as select ssn as x from people", "select x from w"),
    ("create recursive view w (x) as select ssn::text from people", "select x from w"),
    ("prepare p as select ssn from people", "execute p"),
    ("prepare p as select ssn || '' from people", "execute p"),
    ("prepare p (int) as select upper(email) from people where id = $1", "execute p(1)"),
    ("prepare p as select tag from v_renamed", "execute p"),
    ("prepare p as select ssn || '' from people", "create temp table t as execute p", "table t"),
    ("prepare p as select get_ssn(1)", "execute p"),
    ("prepare p as select ssn from people", "execute p", "deallocate p",
     "prepare p as select ssn || 'x' from people", "execute p"),
    ("declare c cursor for select ssn from people", "fetch all c"),
    ("declare c cursor for select ssn || '' from people", "fetch 1 c", "fetch forward all c"),
    ("declare c binary cursor for select ssn from people", "fetch all c"),
    ("declare c scroll cursor for select * from people", "move 1 c", "fetch prior c",
     "fetch absolute 1 c"),
    ("declare c cursor with hold for select ssn from people", "fetch all c"),
    ("declare c cursor with hold for select * from v_renamed", "fetch all c"),
    ("declare c cursor for select get_ssn(1)", "fetch all c"),
    ("select leak_cursor()", "fetch all leaked"),
    ("declare c cursor for select id from people", "fetch c",
     "update people set name = name where current of c returning ssn"),
    ("do $$ begin raise notice '%', (select ssn from people limit 1); end $$",),
    ("do $$ begin raise exception '%', (select ssn from people limit 1); end $$",),
    ("do $$ begin perform set_config('app.x', (select ssn from people limit 1), false); end $$",
     "show app.x"),
    ("select set_config('app.x', max(ssn), false) from people", "show app.x"),
    ("select set_config('app.x', max(ssn), false) from people",
     "select current_setting('app.x')"),
    ("select set_config('application_name', max(ssn), false) from people", "show application_name"),
    ("set search_path = hr, public", "select * from staff"),
    ("set local search_path = hr", "select ssn || '' from staff"),
    ("select set_config('search_path', 'hr', false)", "select ssn || '' from staff"),
    ("alter schema decoy rename to d2", "alter schema hr rename to decoy",
     "select ssn || '' from decoy.staff"),
    ("alter schema hr rename to hr2", "select ssn from hr2.staff"),
    ("alter table hr.staff rename to staff2", "select ssn || '' from hr.staff2"),
    ("drop table decoy.staff", "alter table hr.staff set schema decoy",
     "select ssn || '' from decoy.staff"),
    ("alter table people rename ssn to s", "select s || '' from people"),
    ("alter table people rename column ssn to s", "alter table people rename column city to ssn",
     "alter table people rename column s to city", "select city || '' from people"),
    ("alter view v_counts rename to v_counts2", "alter view v_renamed rename to v_counts",
     "select tag from v_counts"),
    ("alter function get_ssn(int) rename to abs2", "select abs2(1)"),
    ("alter function leak_plpgsql() rename to now2", "select now2()"),
    ("alter function get_ssn(int) rename to length", "select length(1)"),
    ("alter function get_ssn(int) set schema hr", "select hr.get_ssn(1)"),
    ("create function f() returns text language sql as 'select ssn::text from people limit 1'",
     "select f()"),
    ("create function pg_temp.f() returns text language sql as "
     "'select ssn::text from people limit 1'", "select pg_temp.f()"),
    ("create procedure q() language plpgsql as "
     "$$ begin raise notice '%', (select ssn from people limit 1); end $$", "call q()"),
    ("create operator ~%~ (leftarg = int, rightarg = int, function = leak_op)", "select 1 ~%~ 1"),
    ("create table t (id int, x text default get_ssn(1))",
     "insert into t (id) values (1) returning x"),
    ("create table t (id int, x text default public.lower(1))",
     "insert into t (id) values (1) returning x"),
    ("create table t (id int, x text default (1 ?%? 1))",
     "insert into t (id) values (1) returning x"),
    ("create table t (id int, x wrapped default 1::wrapped)",
     "insert into t (id) values (1) returning x"),
    ("alter table orders alter item set default get_ssn(1)",
     "insert into orders (id) values (500) returning item"),
    ("alter table orders add column x text default get_ssn(1)", "select x from orders"),
    ("create schema s9 create view v as select ssn as x from public.people",
     "select x from s9.v"),
    ("create schema s9 create table w (id int) create trigger t before insert on w for each row "
     "execute function public.on_watched()", "insert into s9.w values (1)"),
    ("create rule r as on insert to orders do also select ssn from people",
     "insert into orders (id) values (501)"),
    ("create trigger t before insert on decoy.staff for each row execute function on_watched()",
     "insert into decoy.staff values (1)"),
    ("insert into watched values (1, 'x')",),
    ("insert into watched values (1, 'fail')",),
    ("insert into watched values (1, 'cast')",),
    ("insert into watched values (1, 'dynamic')",),
    ("insert into people (id, name, ssn) select 10, 'x', ssn from people where id = 1",),
    ("insert into people (id, name) select 1, ssn from people where id = 1 "
     "on conflict (id) do update set name = excluded.name returning name",),
    ("alter table people add check (ssn < '0') not valid", "update people set name = 'x'"),
    ("create index on people ((ssn::text::int))",),
    ("set role postgres", "select ssn || '' from people"),
    ("set client_min_messages = debug1", "select ssn || '' from people"),
    ("select set_config('client_min_messages', 'debug5', false)", "select ssn || '' from people"),
    ("begin; select ssn || '' from people; commit",),
    ("select 1; select ssn from people",),
    ("select ssn || '' from people; select ssn from people; select 2",),
    ("select 1; copy people to stdout; select 2",),
    ("set standard_conforming_strings = off",
     "select 'x\\' || ', ssn || ' from people -- ' from people"),
    ("insert into people (id, name, ssn) select 20, 'x', p.ssn from people p where id = 1",),
    ("merge into orders o using people p on p.id = o.person_id "
     "when matched then update set note = p.ssn", "select note from orders"),
    ("merge into people p using orders o on p.id = o.id "
     "when matched then update set name = p.ssn", "select name from people"),
    ("merge into people p using (values (1)) v(id) on p.id = v.id and p.ssn like '4%' "
     "when matched then update set name = p.email", "select name from people"),
    ("insert into orders (id, note) select id + 100, tag from v_renamed", "table orders"),
    ("insert into orders (id, note) values (100, 'a') on conflict (id) do nothing",
     "update orders set note = (select people from people limit 1)::text", "table orders"),
    ("set client_encoding = 'LATIN1'", "select 'é' || ssn from people"),
    ("set client_encoding = 'SJIS'", "select 'ソ' || ssn from people"),
    ("set datestyle = 'German'", "select born, born::text, ssn || '' from people"),
    ("set bytea_output = 'escape'", "select ssn::text::bytea from people"),
    ("set row_security = off", "select ssn || '' from people"),
    ("savepoint a", "select ssn || '' from people", "rollback to a", "select ssn from people"),
    ("lock table people", "select ssn || '' from people"),
    ("merge into files f using (values (1)) v(id) on f.id = v.id "
     "when matched then update set label = f.doc->>'ssn'", "select label from files"),
    ("create temp table t as select doc from files", "select doc->>'ssn' from t"),
    ("create view w as select doc->>'ssn' as x from files", "select x from w"),
    ("prepare p as select doc->>'ssn' from files", "execute p"),
    ("declare c cursor for select doc from files", "fetch all c"),
    ("create index on files (((doc->>'mail')::int))",),
)  # fmt: skip


def statements() -> list[str]:
    """The attacks that are one statement."""
    return [
        *(f"select {expression} from people" for expression in EXPRESSIONS),
        *QUERIES,
        *(f"select {expression} from files where id = 1" for expression in DOCUMENTS),
        *DOCUMENT_QUERIES,
    ]
