"""The database that is attacked: everything a classified value may be reached through.

Every secret is one of CANARIES, so that what a client receives can be searched for them.
"""

from __future__ import annotations

from typing import Final

SSN: Final = ("417-55-9036", "528-61-7742", "639-14-2085")
EMAIL: Final = ("zorvak.quill@wexmail.test", "pemble.tarn@oxnard.test", "ulm.hesk@vintor.test")
PHONE: Final = ("+15550917734", "+15550926641")
NOTE: Final = "kestrel-obsidian-77"
SALARY: Final = "918273"
BORN: Final = "1961-07-23"
PIN: Final = "7391"
CANARIES: Final = (*SSN, *EMAIL, *PHONE, NOTE, SALARY, BORN)

WAYS: Final = 20
"""Columns of `badges`: as many attacks with a dictionary, each with a budget of its own."""
BUDGET: Final = 5
BADGE: Final = 5150

CLASSIFIED: Final = {
    "public.people.ssn": {"class": "pii", "mask": "full"},
    "public.people.email": {"class": "pii", "mask": "null"},
    "public.people.phones": {"class": "pii", "mask": "full"},
    "public.people.born": {"class": "pii", "mask": "null"},
    "public.people.salary": {"class": "hr", "mask": "null"},
    "public.people.profile": {"class": "pii", "mask": "full"},
    "public.people.pin": {"class": "secret", "mask": "full"},
    "public.events.note": {"class": "secret", "mask": "full"},
    "public.child.note": {"class": "secret", "mask": "full"},
    "public.older.note": {"class": "secret", "mask": "full"},
    'public.Löhne "x.Gehalt "€': {"class": "hr", "mask": "full"},
    "public.nice.peek": {"class": "secret", "mask": "full"},
    "hr.staff.ssn": {"class": "pii", "mask": "full"},
    "public.tokens.value": {"class": "token", "mask": "token"},
    "public.strict.code": {"class": "strict"},
    "public.copied.code": {"class": "free"},
    "public.files.doc": {
        "class": "pii",
        "parts": {
            "/ssn": {"mask": "full"},
            "/mail": {"mask": "email"},
            "/cards/*/number": {},
            "/deep/a~1b/0": {},
            "/all/*": {},
            "/whole": {},
        },
    },
    "public.files.raw": {"class": "pii", "parts": {"/ssn": {}}},
    "public.files.one": {"class": "pii", "parts": {"/ssn": {}}},
    **{f"public.badges.b{number}": {"class": "badge"} for number in range(WAYS)},
}
CLASSES: Final = {
    "strict": {"mask": "full", "use": "refuse"},
    "free": {"mask": "full", "copies": "allow"},
    "badge": {
        "mask": "null",
        "equality": {"reason": "people show their badge", "budget": BUDGET},
    },
}

SETUP: Final = f"""
create schema hr;
create schema decoy;
create domain ssn_text as text;
create type mood as enum ('ok', 'sad');
create type address as (street text, city text);
create table people (
    id int primary key, name text not null, ssn char(11) unique, email ssn_text, phones text[],
    born date, salary numeric(10, 2), profile jsonb, pin int, mood mood, home address,
    city text, digits text generated always as (replace(ssn, '-', '')) stored);
insert into people values
 (1, 'Ann', '{SSN[0]}', '{EMAIL[0]}', array['{PHONE[0]}'], '{BORN}', {SALARY}, '{{"k": "{NOTE}"}}',
  {PIN}, 'ok', row('a', 'b'), 'Rome'),
 (2, 'Ben', '{SSN[1]}', '{EMAIL[1]}', array['{PHONE[1]}', null], '1970-01-01', 100, null, 1111,
  'sad', null, 'Oslo'),
 (3, 'Cy', '{SSN[2]}', '{EMAIL[2]}', null, null, null, '{{}}', null, null, null, 'Rome');
create table orders (id int primary key, person_id int references people, item text, amount numeric,
    at timestamptz default now(), ssn text, note text);
insert into orders select g, 1 + g % 3, 'item ' || g, g * 10, '2026-01-01'::timestamptz
    + g * interval '1 day', null, 'select ssn from people' from generate_series(1, 30) g;
create table hr.staff (id int primary key, ssn text, name text);
insert into hr.staff values (1, '{SSN[0]}', 'Ann');
create table decoy.staff (id int, ssn text, name text);
create table events (id int, at date, note text) partition by range (at);
create table events_2026 partition of events for values from ('2026-01-01') to ('2027-01-01');
insert into events values (1, '2026-05-05', '{NOTE}');
create table parent (id int, note text);
create table child (extra int) inherits (parent);
insert into child values (1, '{NOTE}', 2);
create table older (id int, note text);
create table younger (extra int) inherits (older);
insert into younger values (1, '{NOTE}', 2);
create table "Löhne ""x" ("Gehalt ""€" text, id int);
insert into "Löhne ""x" values ('{NOTE}', 1);
create table nice (id int, peek text);
insert into nice values (1, '{NOTE}');
create table tokens (id int, value text);
insert into tokens values (1, '{NOTE}');
create table files (id int primary key, doc jsonb, raw json, one jsonb, label text,
    made text generated always as (one->>'ssn') stored, names text[]);
insert into files values
 (1, '{{"ssn": "{SSN[0]}", "mail": "{EMAIL[0]}", "name": "Ann", "n": 1, "none": null,
   "cards": [{{"number": "{SSN[1]}", "kind": "a"}}, {{"kind": "b"}}, 5],
   "deep": {{"a/b": ["{SSN[2]}", "kept"]}}, "all": {{"x": "{PHONE[0]}", "y": ["{PHONE[1]}"]}},
   "whole": {{"in": "{NOTE}"}}}}',
  '{{"ssn": "{SSN[0]}", "ssn": "{SSN[1]}", "name": "Ann"}}', '{{"ssn": "{SSN[2]}"}}', 'first'),
 (2, '{{"ssn": null, "cards": {{}}, "deep": 5, "all": []}}', '{{"name": "Ben"}}', '{{}}', 'second'),
 (3, '[1, "two"]', '"text"', null, 'third'), (4, null, null, 'null', 'fourth');
create index on files ((doc->>'ssn'));
create index on files using gin (doc);
create unique index on files ((one->>'ssn'));
create view v_files as select id, doc from files;
create view v_files_ssn as select id, doc->>'ssn' as number from files;
create view v_files_all as select * from files;
create materialized view m_files as select id, doc as copy, doc#>>'{{mail}}' as mail from files;
create table strict (id int, code text);
insert into strict values (1, '{NOTE}');
create table copied (id int, code text);
insert into copied values (1, '{NOTE}');
create table badges (id int, {", ".join(f"b{number} int" for number in range(WAYS))});
insert into badges values (1, {", ".join([str(BADGE)] * WAYS)});
create view v_badges as select * from badges;
create table archive (id int, was people);
insert into archive select 1, people from people where id = 1;
create table archives (id int, was people[]);
insert into archives select 1, array_agg(people) from people;
create table referring (id int, of char(11) references people (ssn));
insert into referring values (1, '{SSN[0]}');
create view v_plain as select id, ssn, email from people;
create view v_renamed (id, tag) as select id, ssn from people;
create view v_nested as select id, tag as label from v_renamed;
create view v_computed as select id, 'x' || ssn as mixed, salary + 0 as pay from people;
create view v_aggregate as select city, max(ssn) as top, array_agg(email) as all_of from people
    group by city;
create view v_joined as select o.id, p.ssn as who from orders o join people p on p.id = o.person_id;
create view v_sub as select x.a as b from (select ssn as a from people) x;
create view v_union as select ssn as a from people union all select item from orders;
create view v_row as select id, p as whole from people p;
create view v_json as select to_jsonb(p) as doc from people p;
create view v_barrier with (security_barrier) as select id, ssn as code from people where id < 9;
create view v_window as select id, lag(ssn) over (order by id) as before from people;
create view v_cte as with x as (select ssn as y from people) select y from x;
create view v_lateral as select l.z from people p, lateral (select p.ssn as z) l;
create view v_stats as select tablename, most_common_vals::text as v from pg_stats;
create view v_activity as select query from pg_stat_activity;
create view v_cast as select id, ssn::int as number from people;
create view v_columns as select 1 as id, s.* from people p, unnest(array[p.ssn::text]) s(thing);
create materialized view m_people as select id, ssn as code, name from people;
create materialized view m_nested as select code as deep from m_people;
create view v_order_names as select o.*, p.name from orders o join people p on p.id = o.person_id;
create view v_counts as select city, count(*) as n from people group by city;
create function get_ssn(int) returns text language sql stable as
    'select ssn::text from public.people where id = $1';
create function leak_definer() returns setof text language sql security definer stable as
    'select ssn::text from public.people';
create function leak_plpgsql() returns text language plpgsql as
    $$ declare r text; begin execute 'select ssn from public.people limit 1' into r;
    return r; end $$;
create function leak_table() returns table (a int, b text) language sql stable as
    'select id, ssn::text from public.people';
create function of_order(orders) returns text language sql stable as
    'select ssn::text from public.people where id = $1.person_id';
create function peek(orders) returns text language sql stable as
    'select ssn::text from public.people where id = $1.person_id';
create function leak_cursor() returns refcursor language plpgsql as
    $$ declare c refcursor := 'leaked'; begin open c for select ssn from public.people; return c;
    end $$;
create function leak_raise(int) returns int language plpgsql as
    $$ declare s text; begin select ssn into s from public.people where id = $1;
    raise exception 'is %', s; end $$;
create function leak_op(int, int) returns text language sql stable as
    'select ssn::text from public.people where id = $1';
create operator ?%? (leftarg = int, rightarg = int, function = leak_op);
create function lower(int) returns text language sql stable as
    'select ssn::text from public.people where id = $1';
create type wrapped as (w text);
create function to_wrapped(int) returns wrapped language sql stable as
    'select row(ssn)::public.wrapped from public.people where id = $1';
create cast (int as wrapped) with function to_wrapped(int);
create aggregate leak_agg (int) (sfunc = leak_sfunc, stype = text);
create table watched (id int primary key, word text);
create function on_watched() returns trigger language plpgsql as
    $$ begin raise notice 'first is %', (select ssn from public.people where id = new.id);
    if new.word = 'fail' then raise exception 'taken by %',
      (select ssn from public.people where id = new.id) using errcode = '23505',
      detail = (select email from public.people where id = new.id),
      constraint = (select ssn from public.people where id = new.id); end if;
    if new.word = 'cast' then
      perform (select ssn::text::int from public.people where id = new.id); end if;
    if new.word = 'dynamic' then
      execute 'select "' || (select ssn from public.people where id = new.id) || '"'; end if;
    return new; end $$;
create trigger watched before insert on watched for each row execute function on_watched();
create table ruled (id int, word text);
create rule ruled as on insert to ruled do also select 'x' || ssn as z from people;
insert into events select g, '2026-06-06', 'kestrel-obsidian-77' from generate_series(1, 50) g;
analyze;
""".replace(
    "create aggregate leak_agg",
    "create function leak_sfunc(text, int) returns text language sql stable as\n"
    "    'select ssn::text from public.people where id = $2';\ncreate aggregate leak_agg",
)
