"""Databases that differ in classified values alone: lengths, order, equality and letters of them.

What is not classified is the same in all, and so is which values are NULL. `TWINS[0]` and
`TWINS[1]` hold the same, so that what differs between these two is chance. MASKED holds what is
shown in the place of what is classified.
"""

from __future__ import annotations

from typing import Final

TWINS: Final = ("twin_a", "twin_b", "twin_c")
MASKED: Final = "twin_m"

# A constant that is looked up must be in none of them.
_LOOKED_UP: Final = {"reason": "people say it", "budget": 10_000}

CLASSIFIED: Final = {
    f"public.{name}": {"class": "pii", "mask": mask}
    for name, mask in {
        "people.ssn": "full",
        "people.email": "full",
        "people.phones": "null",
        "people.born": "null",
        "people.salary": "null",
        "people.profile": "full",
        "people.pin": "full",
        "people.code": "full",
        "people.score": "null",
        "people.photo": "null",
        "people.active": "full",
        "people.home": "full",
        "people.label": "literal",
        "events.note": "full",
        "child.note": "full",
        "staff.badge": "full",
        "papers.tags": "full",
        "members.mail": "full",
        "members.born": "null",
    }.items()
} | {
    "public.papers.doc": {"class": "pii", "parts": {"/secret": {}, "/many/*/x": {}}},
    "public.papers.old": {"class": "pii", "parts": {"/secret": {}}},
    "public.cards.number": {"class": "pci", "mask": "partial"},
    "public.cards.address": {"class": "pii", "mask": "email"},
    "public.cards.others": {"class": "pii", "mask": "email"},
    "public.cards.numbers": {"class": "pci", "mask": "partial"},
    "public.cards.visited": {"class": "pii", "mask": "year"},
    "public.cards.left_at": {"class": "pii", "mask": "year"},
    "public.cards.hired": {"class": "pii", "mask": "year"},
    "public.cards.worth": {"class": "pii", "mask": "bucket", "size": 1000},
    "public.cards.wage": {"class": "pii", "mask": "bucket", "size": 1000},
    "public.cards.floating": {"class": "pii", "mask": "bucket", "size": 1000},
    "public.cards.badge": {"class": "pii", "equality": _LOOKED_UP},
    "public.cards.plate": {"class": "pii", "equality": _LOOKED_UP},
    "public.cards.doc": {
        "class": "pii",
        "parts": {
            "/mail": {"mask": "email"},
            "/cards/*": {"class": "pci", "mask": "partial"},
            "/note": {"mask": "literal", "text": "hidden"},
            "/deep/*/x": {},
        },
    },
    "public.failing.ssn": {"class": "pii", "mask": "full"},
    "public.holders.name": {"class": "pii", "mask": "token"},
    "public.holders.number": {"class": "pii", "mask": "token"},
    "public.holders.ref": {"class": "pii", "mask": "token"},
}

SCHEMA: Final = """
create domain ssn_text as text;
create domain mail as text check (value ~ '@');
create type address as (street text, zip int);
create type mood as enum ('sad', 'ok', 'glad');
create table people (
    id int primary key, name text not null, city text, tenant int not null, ceiling numeric,
    ssn char(11) unique, email mail, phones text[], born date, salary numeric(10, 2), profile jsonb,
    pin int, code text, score float8, photo bytea, active boolean, home address, label varchar(9),
    mood mood, at timestamptz not null,
    digits text generated always as (replace(ssn, '-', '')) stored,
    constraint below check (salary <= ceiling),
    constraint taken unique (code, tenant),
    exclude using btree (pin with =, city with =));
create index by_born on people (extract(year from born::timestamp));
create index rich on people (name) where salary > 500;
create table orders (id int primary key, person_id int references people, item text,
    amount numeric, at timestamptz, ssn text, note text);
create table referring (id int, of char(11) references people (ssn));
create table events (id int, at date, note text) partition by range (at);
create table events_2026 partition of events for values from ('2026-01-01') to ('2027-01-01');
create table parent (id int, note text);
create table child (extra int) inherits (parent);
create table staff (id int primary key, badge text, name text, boss int references staff);
create table papers (id int primary key, doc jsonb, old json, tags text[], n int,
    kept text generated always as (doc ->> 'kept') stored);
create table members (id int primary key, tenant int not null, place text, mail text not null,
    born date, active boolean not null, about text, constraint one unique (tenant, mail));
create index members_by_mail on members (mail) include (id, tenant);
create index members_by_place on members (place, lower(mail));
create index members_active on members (born) where active;
create table cards (id int primary key, number text, address varchar(60), others text[],
    numbers text[], visited timestamptz, left_at timestamp, hired date, worth numeric, wage int,
    floating float8, badge int, plate text, doc jsonb, open text not null);
create index on cards (badge);
create table holders (id int primary key, name text, number int, ref uuid, open text not null);
create table failing (id int primary key, ssn text);
create table plain (id int primary key, word text, n int, doc jsonb);
create view v_papers as select id, doc, doc ->> 'secret' as s from papers;
create view v_paper_secrets as select id from papers where doc ->> 'secret' > 'm';
create view v_plain as select id, ssn, email from people;
create view v_renamed (id, tag) as select id, ssn from people;
create view v_computed as select id, 'x' || ssn as mixed, salary + 0 as pay, name from people;
create view v_counts as select city, count(*) as n, max(salary) as top from people group by city;
create view v_rich as select id, name from people where salary > 500;
create view v_sorted as select id, name from people order by ssn;
create view v_guess as select o.id, o.item from orders o join people p on p.ssn = o.ssn;
create view v_exists as select o.id from orders o
    where exists (select from people p where p.salary > o.amount);
create view v_distinct as select city from (select distinct city, pin from people) x;
create view v_by_code as select count(*) as n from people group by code;
create view v_limit as select id, name from people order by salary limit 2;
create view v_check as select id, name, city, tenant, ceiling, at from people where salary < 500
    with check option;
create view v_case as select id, case when salary > 500 then 'rich' else 'poor' end as kind
    from people;
create view v_null as select id, nullif(code, 'c5') as other, case when salary > 500 then 'x' end as
    rich, regexp_split_to_array(ssn, '') as letters, ssn::text::int as fails from people;
create view v_union as select ssn::text as a from people union select item from orders;
create view v_except as select item from orders except select ssn from people;
create view v_known as select id, name from people where email is not null;
create view v_members as select id, tenant, about from members;
create view v_cards as select id, number, address, others, worth, badge, doc, open from cards;
create view v_rank as select id, rank() over (order by salary) as place from people;
create view v_orders as select o.id, o.item, p.name from orders o join people p on p.id = person_id;
create materialized view m_people as select id, ssn as code, name from people;
create materialized view m_rich as select id, name from people where salary > 500;
"""

VIRTUAL: Final = """
alter table failing add broken int generated always as (ssn::int) virtual;
create view v_failing as select id, broken as b from failing;
"""
"""From PostgreSQL 18 on: what fails when it is read."""

_COMMON: Final = """
insert into orders select g, 1 + g % 8, 'item ' || g, g * 100,
    '2026-01-01'::timestamptz + g * interval '1 day', '111-11-1' || (100 + g), 'a note'
    from generate_series(1, 40) g;
insert into plain select g, 'word ' || g, g % 7, jsonb_build_object('k', g)
    from generate_series(1, 20) g;
"""

_ROWS: Final = """
insert into people select g, 'name ' || g, (array['Rome', 'Oslo', 'Bern'])[1 + g % 3], g % 2, 99999,
    {ssn}, {email}, {phones}, {born}, {salary}, {profile}, {pin}, {code}, {score}, {photo},
    {active}, {home}, {label}, 'ok', '2026-01-01'::timestamptz + g * interval '1 hour'
    from generate_series(1, 12) g;
update people set ssn = null, email = null, phones = null, born = null, salary = null,
    profile = null, pin = null, code = null, score = null, photo = null, active = null,
    home = null, label = null where id in (5, 12);
insert into referring select id, ssn from people where id in (1, 2);
insert into events select g, '2026-05-05', {note} from generate_series(1, 9) g;
insert into child select g, {note}, g from generate_series(1, 5) g;
insert into papers select g,
    jsonb_build_object('kept', 'k' || g, 'secret', {secret},
        'many', jsonb_build_array(jsonb_build_object('x', {secret}, 'y', g))),
    json_build_object('secret', {secret}, 'n', g), array[{note}, null, {code}], g
    from generate_series(1, 6) g;
insert into members select g, g % 20, 'place ' || g % 7, {mail}, {since}, g % 40 = 0,
    repeat('about', 20)
    from generate_series(1, 2000) g;
insert into cards select g, {number}, {address}, {others}, array[{number}, null, {number}],
    {visited}, ({visited}) at time zone 'UTC', {hired}, {worth}, {wage}, {wage}, {badge}, {plate},
    {document}, 'open ' || g from generate_series(1, 9) g;
update cards set number = null, address = null, others = null, numbers = null, visited = null,
    left_at = null, hired = null, worth = null, wage = null, floating = null, badge = null,
    plate = null, doc = null where id in (4, 7);
insert into failing (id, ssn) select g, {pin} || {tail} from generate_series(1, 5) g;
insert into holders select g, {holder}, {held}, {ref}, 'open ' || g from generate_series(1, 9) g;
insert into staff select g, {note}, 'staff ' || g, nullif(g - 1, 0) from generate_series(1, 4) g;
"""
_FIRST: Final = {
    "ssn": "'417-55-' || (9000 + g)",
    "email": "'zorvak' || g || '@wexmail.test'",
    "phones": "array['+1555091773' || g, '+155']",
    "born": "date '1961-07-23' + g",
    "salary": "g * 111.5",
    "profile": "jsonb_build_object('k', 'kestrel ' || g, 'n', g)",
    "pin": "7391 + g",
    "tail": "''",
    "code": "'c' || g",
    "score": "g / 7.0",
    "photo": "decode('00ff' || lpad(g::text, 4, '0'), 'hex')",
    "active": "g % 2 = 0",
    "home": "row('street ' || g, g)::address",
    "label": "'label' || g",
    "note": "'kestrel obsidian ' || g",
    "mail": "'zorvak' || lpad(g::text, 4, '0') || '@wexmail.test'",
    "since": "date '1990-01-01' + g",
    "secret": "'hidden ' || g",
    "number": "'4111 1111 2222 ' || (1000 + g)",
    "address": "chr(97 + g) || 'orvak@wexmail' || g || '.test'",
    "others": "array[chr(97 + g) || 'one@b.test', null, 'no address']",
    "visited": "timestamptz '2020-01-01 02:00Z' + g * interval '1 year'",
    "hired": "make_date(2000 + g, 12, 31)",
    "worth": "g * 1000 + 10.5",
    "wage": "g * 1000 + 7",
    "badge": "9100 + g",
    "plate": "'ZV ' || g",
    "document": """jsonb_build_object('mail', chr(97 + g) || 'orvak@b.test', 'open', g, 'cards',
        jsonb_build_array('4111 1111 ' || (1000 + g), 12), 'note', 'kestrel ' || g,
        'deep', jsonb_build_object('a', jsonb_build_object('x', g), 'b',
            jsonb_build_object('x', 'kestrel', 'y', g)))""",
    "holder": "'kestrel ' || g % 4",
    "held": "g % 4",
    "ref": "('00000000-0000-0000-0000-00000000000' || g % 4)::uuid",
}
_SECOND: Final = {
    "ssn": "(99 - g) || '-7'",
    "email": "'q@' || repeat('long', 40 - g) || 'ł.test'",
    "phones": "case when g = 3 then '{{1,2},{3,4}}'::text[] else array['x'] end",
    "born": "case g when 2 then date 'infinity' else date '2001-01-01' - g * 400 end",
    "salary": "5000 - g * 400",
    "profile": "case when g % 2 = 0 then '[1, 2]'::jsonb else '\"text\"' end",
    "pin": "case when g = 4 then -5 else 1000000 / g end",
    "tail": "case when g = 3 then 'x' else '' end",
    "code": "case when g < 4 then 'łódź' || g when g = 6 then '12' else upper(g || 'z') end",
    "score": "case g when 2 then float8 'nan' when 3 then '-infinity' else -g end",
    "photo": "decode(repeat('ab', 13 - g), 'hex')",
    "active": "g % 3 = 0",
    "home": "row(null, 7 - g)::address",
    "label": "chr(955) || (20 - g)",
    "note": "repeat('z', 20 - g)",
    "mail": "'q' || md5(g::text)",
    "since": "date '2020-01-01' - (g * 7919) % 5000",
    "secret": "'łx' || repeat('q', 9 - g)",
    "number": "'5500 9876 0000 ' || (1000 + g)",
    "address": "chr(97 + g) || repeat('q', 12 - g) || '@wexmail' || g || '.test'",
    "others": "array[chr(97 + g) || repeat('ł', g) || '@b.test', null, 'nobody''s']",
    "visited": "timestamptz '2020-12-31 22:00Z' + g * interval '1 year'",
    "hired": "make_date(2000 + g, 1, 1 + g)",
    "worth": "g * 1000 + 989.75",
    "wage": "g * 1000 + 991",
    "badge": "7200 - g",
    "plate": "'a' || md5(g::text)",
    "document": """jsonb_build_object('mail', chr(97 + g) || repeat('q', g) || '@b.test', 'open', g,
        'cards', jsonb_build_array('5500 9876 ' || (1000 + g), 9000 - g), 'note', md5(g::text),
        'deep', jsonb_build_object('a', jsonb_build_object('x', 100 - g), 'b',
            jsonb_build_object('x', repeat('z', g), 'y', g)))""",
    "holder": "repeat('z', 5 - g % 4)",
    "held": "7000 - 9 * (g % 4)",
    "ref": "('f000000' || 9 - g % 4 || '-0000-0000-0000-000000000000')::uuid",
}
_MASKED: Final = (
    dict.fromkeys(_FIRST, "null")
    | dict.fromkeys(
        ("ssn", "email", "code", "label", "note", "secret", "mail", "plate"), "'***'::text"
    )
    | {
        "number": "'**** **** **** ' || (1000 + g)",
        "address": "chr(97 + g) || '***@wexmail' || g || '.test'",
        "others": "array[chr(97 + g) || '***@b.test', null, '***']",
        "visited": "timestamptz '2020-01-01 00:00Z' + g * interval '1 year'",
        "hired": "make_date(2000 + g, 1, 1)",
        "worth": "g * 1000",
        "wage": "g * 1000",
        "document": """jsonb_build_object('mail', chr(97 + g) || '***@b.test', 'open', g, 'cards',
        jsonb_build_array('**** **** ' || (1000 + g), null), 'note', 'hidden',
        'deep', jsonb_build_object('a', jsonb_build_object('x', null), 'b',
            jsonb_build_object('x', '***', 'y', g)))""",
    }
)
_LOOSE: Final = """
alter table people drop constraint people_ssn_key cascade;
alter table people drop constraint taken;
alter table members drop constraint one;
alter domain mail drop constraint mail_check;
alter table people alter digits drop expression;
alter table papers alter kept drop expression;
"""
_AFTER: Final = """
refresh materialized view m_people;
refresh materialized view m_rich;
"""


def data(twin: str) -> str:
    """What fills a database that has the schema."""
    values = {MASKED: _MASKED, TWINS[2]: _SECOND}.get(twin, _FIRST)
    before = _LOOSE if twin == MASKED else ""
    return before + _ROWS.format(**values) + _COMMON + _AFTER + "analyze;"
