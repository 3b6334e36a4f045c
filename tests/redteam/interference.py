"""Scripts that read classified values by every place where PostgreSQL takes an expression or a name.

One script a line, its statements apart by `;;`. They need not be allowed: what they show must not
depend on what is classified.
"""

from __future__ import annotations

from typing import Final

_QUERIES: Final = r"""
select ssn from people order by id
select * from people order by id
select p from people p order by id
select p.* from people p order by id
select (p).ssn from people p
select (p).* from people p
select people from people
select people.people from people
select p::text from people p
select p.ssn::text from people p
select cast(p as text) from people p
select p is null, p is not null, p = p from people p
select ssn || '' from people
select substr(ssn, 1, 3) from people
select ssn like '4%' from people
select ssn ~ '^4' from people
select ssn = '417-55-9001' from people
select id from people where ssn = '417-55-9001'
select id from people where ssn > '5'
select id from people where ssn between '4' and '5'
select id from people where ssn in ('417-55-9001', 'x')
select id from people where ssn = any (array['417-55-9001'])
select id from people where (ssn, id) > ('5', 0)
select id from people where row(ssn, id) = row('417-55-9001', 1)
select id from people where (id, ssn) in (select 1, '417-55-9001')
select id from people where ssn similar to '4%'
select id from people where not ssn is distinct from '417-55-9001'
select id from people where salary > 500
select id from people where salary + 0 > 500
select id from people where profile @> '{"k": "kestrel 1"}'
select id from people where profile ? 'k'
select id from people where profile -> 'k' is not null
select id from people where phones[1] = '+15550917731'
select id from people where '+155' = any (phones)
select id from people where phones && array['x']
select id from people where (home).zip = 1
select (home).street from people
select (people.home).street from people
select (p.home).* from people p
select phones[1], phones[1:1] from people
select array_length(phones, 1), cardinality(phones) from people
select array_dims(phones) from people
select id from people where born > '1970-01-01'
select extract(year from born) from people
select id from people where active
select id from people where active is true
select id from people where not active
select case when active then 1 else 2 end from people
select case pin when 7392 then 'is' else 'is not' end from people
select coalesce(ssn, 'none') from people
select nullif(ssn, '417-55-9001') from people
select greatest(pin, 7395), least(pin, 7395) from people
select id, name from people order by ssn
select id, name from people order by people.ssn desc nulls last
select id, ssn from people order by 2
select id, ssn as s from people order by s
select * from people order by 6
select id, name from people order by salary using >
select id from people order by salary limit 1
select id from people order by pin % 7
select distinct ssn from people
select distinct on (ssn) id, ssn from people
select count(distinct code) from people
select ssn, count(*) from people group by ssn
select ssn, count(*) from people group by 1
select code as c, count(*) from people group by c
select max(ssn), min(ssn) from people
select sum(salary), avg(salary), stddev(salary), count(*) filter (where salary > 500) from people
select array_agg(ssn order by id) from people
select array_agg(id order by ssn) from people
select string_agg(name, ',' order by salary) from people
select json_agg(people order by id) from people
select json_agg(p) from (select * from people order by id) p
select jsonb_object_agg(id, ssn) from people
select row_to_json(p) from people p
select to_jsonb(people) from people
select to_json(ssn) from people
select json_build_object('a', ssn) from people
select jsonb_each(to_jsonb(p)) from people p
select hstore(p) from people p
select percentile_cont(0.5) within group (order by salary) from people
select mode() within group (order by code) from people
select rank(500) within group (order by salary) from people
select id, rank() over (order by ssn) from people
select id, lag(ssn) over (order by id) from people
select id, first_value(name) over (order by salary) from people
select id, sum(id) over w from people window w as (order by salary)
select id, sum(id) over (partition by active) from people
select id, sum(id) over (order by salary range between 100 preceding and current row) from people
select city, count(*) from people group by rollup (city, active)
select count(*) from people group by grouping sets ((pin), ())
select count(*) from people having max(salary) > 1200
select city from people group by city having min(ssn) < '5'
select a.id, b.id from people a join people b on a.ssn < b.ssn
select a.id from people a join orders o on a.ssn = o.ssn
select o.id from orders o join people p using (ssn)
select ssn from orders o join people p using (ssn)
select ssn from people full join orders using (ssn)
select * from people natural join orders
select j.ssn from (people join orders on true) j limit 3
select j from (people p join plain q on p.id = q.id) j
select j.* from people p join plain q using (id) as j
select x.a from people as x (a, b, c, d, e, f)
select f from people as x (a, b, c, d, e, f)
select x.f || '' from people as x (a, b, c, d, e, f)
select s from (select ssn from people) x (s)
select s || '' from (select ssn as s from people) x
with x as (select ssn from people) select * from x
with x (a) as (select ssn from people) select a || '' from x
with x as materialized (select * from people) select x from x
with people as (select * from people) select ssn || '' from people
with people as (select 1 as ssn) select ssn from people union all select pin from public.people
with recursive x as (select id, ssn::text as s from people where id = 1 union all select p.id, p.ssn || x.s from people p join x on p.id = x.id + 1) select * from x
with recursive t (n, s) as (select 1, (select min(ssn)::text from people) union all select n + 1, s from t where n < 3) search depth first by s set o select * from t
with recursive t (n, s) as (select 1, pin from people union select n + 1, s from t where n < 2) cycle s set c using p select * from t
select (select ssn from people where id = 1)
select array(select ssn from people order by id)
select exists (select 1 from people where salary > 1000)
select 'x' in (select ssn from people)
select 500 < all (select salary from people)
select id from orders where amount > (select avg(salary) from people)
select id from orders o where exists (select from people p where p.id = o.person_id and p.salary > 500)
select l.s from people p, lateral (select p.ssn || '' as s) l
select l.s from people p cross join lateral (values (p.ssn)) l (s)
select u from people p, unnest(p.phones) u
select p.id, u.ordinality from people p, unnest(p.phones) with ordinality u
select e.* from people p, jsonb_each(p.profile) e
select g from people p, generate_series(1, p.pin % 10) g
select r.* from people p, regexp_split_to_table(p.ssn, '-') r
select * from rows from (unnest((select phones from people where id = 1))) x
select x.* from people p, json_table(p.profile, '$' columns (k text path '$.k')) x
select x.* from people p, xmltable('/a' passing xmlelement(name a, p.ssn) columns b text path '.') x
select xmlelement(name a, ssn) from people
select xmlforest(ssn, pin) from people
select xmlagg(xmlelement(name a, ssn)) from people
select xmlserialize(content xmlelement(name a, ssn) as text) from people
select json_value(profile, '$.k') from people
select json_query(profile, '$.k') from people
select json_exists(profile, '$.k') from people
select json_object('a': ssn) from people
select json_array(ssn, pin) from people
select json_arrayagg(ssn) from people
select json_objectagg(id: ssn) from people
select profile is json array from people
select ssn is json from people
select jsonb_path_query(profile, '$.n') from people
select jsonb_path_exists('{"a": 1}', '$.a ? (@ > $x)', jsonb_build_object('x', pin)) from people
select ssn from people union select 'x'
select 'x' union all select ssn from people
select ssn from people intersect select '417-55-9001'
select name from people except select code from people
(select ssn from people) limit 3
(select ssn from people order by salary) limit 3
values ((select ssn from people where id = 1))
table people
table people order by ssn
table people limit 2
select * from only people
select ssn || '' from only people
select ssn || '' from people tablesample system (100)
select id from people tablesample bernoulli ((select pin % 100 from people where id = 1))
select id from people tablesample system (100) repeatable ((select pin from people where id = 1))
select id from people limit (select pin % 5 from people where id = 1)
select id from people order by id offset (select pin % 5 from people where id = 1)
select id from people order by salary fetch first 2 rows with ties
select ssn from people for update
select id from people where salary > 500 for share skip locked
select ctid, xmin, tableoid, ssn from people
select people.ctid, ssn || '' from people
select U&"ss\006e" || '' from people
select U&"ss!006e" uescape '!' || '' from people
select "ssn" || '' from "people"
select SsN || '' from PeOpLe
select ssn||'' from U&"p\0065ople"
select public.people.ssn || '' from public.people
select twin_a.public.people.ssn || '' from twin_a.public.people
select ssn::text collate "C" from people order by 1
select ssn collate "C" > '5' from people
select name from people order by ssn collate "C"
select ssn operator(pg_catalog.||) '' from people
select id from people where ssn operator(pg_catalog.>) '5'
select id from people where - pin > -7395
select @ pin from people
select overlay(ssn placing 'x' from 1), position('5' in ssn), trim(ssn) from people
select id from people where (born, born + 1) overlaps (date '1961-01-01', date '1962-01-01')
select born at time zone 'utc' from people
select born - date '1970-01-01' from people
select to_tsvector(ssn) @@ to_tsquery('417') from people
select ts_headline(ssn, to_tsquery('417')) from people
select * from ts_stat('select to_tsvector(ssn) from people')
select format('%s', ssn), concat(ssn), quote_literal(ssn), md5(ssn) from people
select format('%s', variadic array[ssn]) from people
select length(ssn), octet_length(ssn), bit_length(ssn), char_length(ssn) from people
select pg_column_size(ssn) from people
select pg_column_size(p) from people p
select pg_typeof(p) from people p
select hashtext(ssn), hash_record(p) from people p
select get_byte(photo, 2), encode(photo, 'hex'), sha256(photo) from people
select photo from people
select score, score = 'nan' from people
select ssn::int from people
select ssn::date from people where id = 1
select 1 / (pin - 7392) from people
select 1 / case when salary > 500 then 0 else 1 end from people
select case when salary > 500 then 1 / (id - id) else 1 end from people
select label from people
select label || '' from people
select ssn(people) from people
select name(people), code(p) from people, people p
select text(people) from people
select json_populate_record(p, '{}') from people p
select jsonb_populate_record(null::people, to_jsonb(p)) from people p
select (jsonb_populate_record(p, '{}')).ssn from people p
select width_bucket(pin, 1, 10000, 10) from people
select num_nulls(ssn), num_nonnulls(pin) from people
select grouping(pin) from people group by pin
select merge_action() from people
select current_setting('x.' || id) from people where set_config('x.' || id, ssn, false) is not null
select set_config('x.y', ssn, false) from people
select query_to_xml('select ssn from people', true, false, '')
select table_to_xml('people', true, false, '')
select cursor_to_xml('c', 10, true, false, '')
select schema_to_xml('public', true, false, '')
select database_to_xml(true, false, '')
select pg_read_file('postgresql.conf')
select lo_import('/etc/passwd'), lo_from_bytea(0, 'x')
select lo_put(1, 0, photo) from people
select pg_notify('x', ssn) from people
select pg_logical_emit_message(false, 'x', ssn) from people
select pg_advisory_lock(pin) from people
select pg_try_advisory_lock(pin), pin is not null from people
select pg_sleep(case when salary > 9e9 then 9 else 0 end) from people
select dblink('dbname=x', 'select 1')
select nextval(ssn) from people
select to_regclass(ssn), has_table_privilege(ssn, 'select') from people
select ssn::regclass from people where id = 1
select pg_input_is_valid(ssn, 'int') from people
select * from pg_input_error_info((select ssn from people where id = 1), 'int')
select regexp_matches(ssn, '(.)') from people
select id from people where ssn ~ (select code from people where id = 1)
select lower(ssn), upper(code), initcap(code) from people
select convert_to(ssn, 'utf8'), convert_from(photo, 'latin1') from people
select most_common_vals, histogram_bounds from pg_stats where tablename = 'people'
select * from pg_catalog.pg_statistic
select * from pg_stats_ext
select * from pg_statistic_ext_data
select query from pg_stat_activity where false
select n_distinct from pg_stats
select attmissingval from pg_attribute
select reltuples from pg_class where relname in ('people', 'rich', 'people_ssn_key')
select pg_relation_size('rich') > 0, pg_relation_size('people') > 0
select * from pg_prepared_statements
select * from pg_cursors
select * from pg_stat_statements
select * from pg_toast.pg_toast_1
select s.n from (select id as n from people order by ssn) s
select id from people, (select avg(salary) as a from people) x where id > a
select count(*) from people where ssn > code
select count(*) from people p where p > row(1)
select count(*) from people p where p.home is null
select count(*) from people where home = row('street 1', 1)::address
select bool_and(active), bool_or(active), every(salary > 0) from people
select corr(salary, id), regr_slope(salary, id) from people
select bit_and(pin), bit_or(pin), xor from people, lateral (select pin # 1 as xor) x
select any_value(ssn) from people
select array_position(array['417-55-9001'], ssn) from people
select ssn from people p where ssn is not null and id < 3
select digits from people
select digits || '' from people
select note from events order by id
select note || '' from events_2026
select note from only events_2026
select note from parent
select note || '' from parent
select p::text from parent p
select tableoid::regclass, note from parent
select badge from staff s where s.boss is null
select b.badge || s.name from staff s join staff b on b.id = s.boss
select of from referring
select of || '' from referring
select ssn from v_plain
select v::text from v_plain v
select tag || '' from v_renamed
select * from v_computed
select * from v_counts order by city
select * from v_rich
select count(*) from v_rich
select * from v_guess
select * from v_exists
select * from v_distinct
select * from v_by_code
select * from v_limit
select id from v_check
select * from v_case
select * from v_union
select count(*) from v_except
select id, name from v_known
select * from v_rank
select code || '' from m_people
select * from m_rich
select * from (select * from v_rich) x
with x as (select count(*) from v_guess) select * from x
select id from people where exists (select from v_rich r where r.id = people.id)
"""
_STATEMENTS: Final = r"""
insert into orders (id, ssn) select 100 + id, ssn from people ;; select ssn from orders where id > 100
insert into orders (id, note) values (101, (select ssn from people where id = 1)) returning note
insert into plain select id, code from people
insert into plain (id, word) table v_plain
insert into plain (id, n) select 100 + id, 1 from people where salary > 500
insert into plain (id) select 100 + id from people order by salary limit 1 returning id
insert into people (id, name, tenant, at, ssn) values (50, 'x', 1, now(), 'mine') returning ssn, digits
insert into people (id, name, tenant, at) values (50, 'x', 1, '2026-01-01') returning *
insert into people (id, name, tenant, at, ssn) values (50, 'x', 1, now(), '417-55-9001'), (51, 'y', 1, now(), 'q') on conflict do nothing
insert into people (id, name, tenant, at, ssn) values (1, 'x', 1, now(), 'q') on conflict (id) do update set name = people.ssn returning name
insert into people (id, name, tenant, at, ssn) values (1, 'x', 1, now(), 'q') on conflict (id) do update set name = 'won' where people.salary > 500 returning name
insert into people (id, name, tenant, at) values (1, 'x', 1, now()) on conflict (id) do update set ceiling = 300
insert into people (id, name, tenant, at) values (1, 'x', 1, now()) on conflict (id) do update set (name, city) = (select ssn, code from people where id = 2) returning name
insert into people (id, name, tenant, at, phones[2]) values (52, 'x', 1, now(), 'q') returning id
insert into v_check (id, name, tenant, ceiling, at) values (60, 'x', 0, 1, now())
update people set name = ssn where id = 1 returning name
update people set name = 'x' where ssn > '5'
update people set name = 'x' where salary > 500 returning id
update people set (name, city) = (ssn, code) where id = 1 returning name
update people set (name, city) = (select ssn, code) where id = 1 returning name
update people set name = (select max(ssn) from people) returning name
update people set name = 'x' from staff s where s.badge > people.ssn
update orders set note = p.ssn from people p where p.id = person_id returning note
update orders set note = 'x' from people p where p.id = person_id and p.salary > 500
update people set salary = salary * 2 where id = 1
update people set ssn = default where id = 1 returning ssn, digits
update people set phones[5] = 'x' where id = 3
update people set phones[1:2] = array['x', 'y'] where id = 3
update people set phones[1][1] = 'x' where id = 4
update people set profile['k'] = '1' where id = 2
update people set profile['k']['x'] = '1' where id = 1
update people set profile['k']['x'] = '1' where id = 3
update people set home.street = 'x' where id = 1 returning home
update people set ceiling = 300 where id = 3
update people set ceiling = 500 where id = 3
update people set ceiling = 1000 where id = 3
update people set ceiling = ceiling - 99000 where id < 6
update people set tenant = 1
update people set city = 'Rome' where id = 4
update people set tenant = 0 where id = 1
update v_check set name = 'x'
update v_check set city = 'x' where id = 3
update v_plain set ssn = ssn || 'x'
update people set name = 'x' where current of c
delete from people where salary > 500
delete from orders using people p where p.id = person_id and p.salary > 500
delete from v_rich
delete from v_check
delete from people where id = 1 returning *
delete from orders where person_id = 1 ;; delete from people where id = 3 returning ssn
delete from orders ;; delete from people where id = 12 returning people
delete from orders ;; delete from people p where id = 12 returning p.*, (p).ssn
delete from orders ;; delete from people where id = 3 returning old.ssn
delete from orders ;; delete from people where id = 3 returning old
delete from orders ;; delete from people where id = 3 returning old.*
delete from orders ;; delete from people where id = 3 returning row_to_json(old)
delete from orders ;; delete from people where id = 3 returning old.ssn || ''
delete from orders ;; delete from people where id = 3 returning with (old as o) o.ssn || '', o
update people set name = 'x' where id = 3 returning old.ssn, new.ssn, new.digits
update people set name = 'x' where id = 3 returning new
update people set name = 'x' where id = 3 returning to_jsonb(new)
insert into people (id, name, tenant, at) values (1, 'x', 1, now()) on conflict (id) do update set name = 'y' returning old
with d as (delete from referring returning *) select of from d
with u as (update people set city = city where id = 1 returning ssn) select ssn || '' from u
with u as (update people set city = city where id = 1 returning *) select u from u
merge into people p using staff s on p.ssn = s.badge when matched then delete
merge into people p using orders o on p.id = o.id when matched and p.salary > 500 then update set name = 'x'
merge into orders o using people p on p.id = o.id when matched then update set note = p.ssn
merge into orders o using (select id, ssn from people) p on p.id = o.id when matched then update set note = p.ssn
merge into orders o using v_rich r on r.id = o.id when matched then delete
create table copied as select ssn from people ;; select * from copied
create temp table copied as select id, ssn || '' as s from people ;; select * from copied
create table copied as table people ;; select * from copied
create table copied as select id from people where salary > 500 ;; select * from copied
create table copied as select id from v_rich ;; select * from copied
select ssn as s into copied from people ;; select s from copied
create temp table people as select 1 as ssn ;; select ssn from people
create temp view seen as select ssn from people ;; select * from seen
create view seen as select p from people p ;; select * from seen
create view seen as select * from v_rich ;; select * from seen
create recursive view seen (a) as select ssn from people ;; table seen
create materialized view seen as select ssn || '' as s from people ;; table seen
refresh materialized view m_rich ;; select id from m_rich
create table kept (like people including all)
create table kept () inherits (people) ;; select * from kept
create table kept partition of events for values from ('2027-01-01') to ('2028-01-01')
create table kept (s char(11) references people (ssn)) ;; insert into kept values ('417-55-9001')
create table kept (id int, s text check (s <> (select ssn from people limit 1)))
create table kept of address ;; select * from kept
create index on people (ssn)
create unique index on people (city) where salary > 500
create unique index on people (active)
create index on people ((1 / (pin - 7392)))
create statistics st on ssn, pin from people ;; analyze people
alter table people add check (salary > 500)
alter table people add exclude using btree (active with =)
alter table people add unique (active)
alter table people alter ssn type int using ssn::int
alter table people alter name type text using ssn
alter table people rename ssn to free ;; select free from people
alter table people rename to free ;; select ssn || '' from free
alter table people set schema pg_temp
alter table people add column copy text generated always as (ssn || '') stored ;; select copy from people
alter table people drop column ssn
alter table people disable row level security
alter table v_plain rename to free ;; select ssn || '' from free
alter view v_plain rename column ssn to free ;; select free from v_plain
alter table orders add foreign key (ssn) references people (ssn)
alter table plain inherit parent ;; select * from parent
alter table orders attach partition people default
alter type address rename to free
alter domain mail drop constraint mail_check ;; alter domain mail add check (value < 'm')
alter domain ssn_text add check (value < 'm')
create rule copies as on update to people do also insert into plain values (99, old.ssn)
create trigger copies after update on people for each row execute function f()
create function f() returns text language sql as 'select ssn from people' ;; select f()
create function f() returns text begin atomic select ssn from people; end
create procedure f() language sql as 'insert into plain select id + 100, ssn from people' ;; call f()
create operator === (leftarg = text, rightarg = text, function = texteq)
create aggregate f (text) (sfunc = textcat, stype = text)
create cast (people as text) with inout
create policy p on people using (salary > 500)
create event trigger e on ddl_command_start execute function f()
create publication p for table people where (salary > 500)
create server s foreign data wrapper postgres_fdw
create extension dblink
create sequence s start 5 ;; select nextval('s')
do $$ begin raise notice '%', (select ssn from people limit 1); end $$
do 'begin perform 1 / (pin - 7392) from people; end'
call f((select ssn from people limit 1))
prepare x as select ssn from people order by id ;; execute x
prepare x as select ssn || '' from people order by id ;; execute x
prepare x (text) as select id from people where ssn = $1 ;; execute x ('417-55-9001')
prepare x (int) as select * from people where id = $1 ;; execute x (1) ;; explain execute x (1)
prepare x (text) as select $1 ;; execute x ((select ssn from people limit 1))
prepare x as delete from people where salary > 500 ;; execute x
prepare x as select ssn from people ;; create temp table copied as execute x ;; table copied
prepare x as insert into plain (id, word) select 100 + id, ssn from people ;; execute x
declare c cursor for select ssn from people order by id ;; fetch all from c
declare c binary cursor for select ssn, pin, photo from people order by id ;; fetch all from c
declare c scroll cursor for select id, ssn || '' from people order by id ;; fetch last from c ;; fetch prior from c
declare c cursor with hold for select p from people p ;; fetch 2 from c
declare c cursor for select id from people order by salary ;; move 3 in c ;; fetch c
declare c cursor for select id from people for update ;; fetch c ;; update people set name = ssn where current of c returning name
copy people to stdout
copy people (id, ssn) to stdout
copy people (ssn) to stdout (format csv, header)
copy people to stdout (format binary)
copy (select ssn from people order by id) to stdout
copy (select id from people where salary > 500) to stdout
copy (select p from people p order by id) to stdout with csv
copy (table people) to stdout
copy (values ((select ssn from people limit 1))) to stdout
copy (delete from people where salary > 500 returning id) to stdout
copy (update people set city = city returning ssn) to stdout
copy v_rich to stdout
copy (select * from v_rich) to stdout
copy m_people to stdout
copy m_rich to stdout
copy events to stdout
copy events_2026 to stdout
copy people to '/tmp/x'
copy people to program 'cat'
copy plain from program 'cat'
copy people (id, ssn /*) to stdout; select ssn || '' from people; -- */) to stdout
copy people (id, ssn /*) to stdout; copy (select ssn from people) to stdout -- */) to stdout
copy people (id, "ssn" /*) to program 'cat > /dev/null' -- */) to stdout
copy people /* a ( b ) */ (id, ssn) /* ) */ to stdout
copy public . people ( id , ssn ) to stdout
explain select ssn from people where id = 1
explain (costs off) select id from people where salary > 500
explain (costs off, analyze, timing off, summary off) select id from people where salary > 500
explain (costs off, analyze, timing off, summary off) select count(*) from v_rich
explain (costs off, analyze, timing off, summary off, buffers off) update people set ceiling = 500 where id = 3
explain (costs off, verbose) select * from v_rich
explain (format json) select ssn from people
explain (costs off, analyze, timing off, summary off) select id from v_limit
explain select from v_rich
explain select id from people where city = 'Rome' order by id
set client_encoding to latin1 ;; select id, label, email from people order by id
set client_encoding to latin1 ;; select code from people where id = 1
set client_encoding to latin1 ;; select * from people order by id
set client_encoding to sql_ascii ;; select label from people order by id
set client_encoding to win1252 ;; declare c cursor for select label from people ;; fetch all from c
set client_encoding to latin1 ;; prepare x as select label from people ;; execute x
set client_encoding to latin1 ;; update people set city = 'x' where id = 1 returning label
set client_encoding to latin1 ;; select label || '' from people
set names 'latin1' ;; select label from people
prepare x as select label from people ;; set client_encoding to latin1 ;; execute x
declare c cursor for select label from people ;; set client_encoding to latin1 ;; fetch all from c
select set_config('client_encoding', 'latin1', false) ;; select label from people
set enable_seqscan = off ;; set enable_bitmapscan = off ;; select id from people where city = 'Rome'
set enable_seqscan = off ;; set enable_bitmapscan = off ;; select id from people where city = 'Rome' limit 1
set enable_seqscan = off ;; set enable_bitmapscan = off ;; select id, name from people where tenant = 1
set enable_seqscan = off ;; set enable_bitmapscan = off ;; select array_agg(id) from people where tenant = 1
set enable_seqscan = off ;; set enable_bitmapscan = off ;; set enable_sort = off ;; select id from people order by city
set enable_seqscan = off ;; set enable_bitmapscan = off ;; select count(*) from people
cluster people using people_ssn_key ;; select id from people
reindex table people
vacuum full people
lock table people ;; select ssn from people
analyze verbose people
truncate people cascade ;; select * from people
set session authorization postgres
set role postgres
set search_path to hr
set local search_path = pg_temp, public
reset all ;; select ssn || '' from people
discard all
listen x ;; notify x, 'y'
notify x
comment on column people.ssn is 'gatebook:none'
security label on column people.ssn is 'x'
grant select on people to public
reassign owned by current_user to postgres
drop owned by nobody
alter system set log_statement = 'all'
alter role current_user set search_path = x
alter database twin_a set search_path = x
load 'auto_explain'
checkpoint
savepoint a ;; update people set ceiling = 300 where id = 3 ;; rollback to a ;; select 1
set constraints all deferred
set datestyle to german ;; select born, at from people where id = 1
set intervalstyle to iso_8601 ;; select born - '2000-01-01' from people
set lc_messages to 'C' ;; select ssn::int from people
set client_min_messages to debug5
set debug_print_plan to on
set log_min_messages to debug5
set row_security to off ;; select ssn from people
set transform_null_equals to on ;; select id from people where ssn = null
set default_statistics_target to 100
show all
import foreign schema x from server y into public
import foreign schema public limit to (people) from server s into public
begin ;; prepare transaction 'x'
create schema more ;; create table more.people (ssn text) ;; select ssn from more.people
create schema more create view seen as select ssn from public.people
alter table plain rename to orders2 ;; select word from orders2 where id = 1
drop table orders cascade ;; create table orders (id int, ssn text) ;; select * from orders
drop view v_rich ;; create view v_rich as select ssn from people ;; select * from v_rich
drop table people cascade ;; select 1
"""


def scripts() -> tuple[tuple[str, ...], ...]:
    """Every script: its statements."""
    lines = f"{_QUERIES}\n{_STATEMENTS}".strip().splitlines()
    return tuple(tuple(part.strip() for part in line.split(";;")) for line in lines if line.strip())
