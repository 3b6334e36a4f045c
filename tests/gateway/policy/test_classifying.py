"""Statements that change what comments classify, and who may run them."""

from __future__ import annotations

from dataclasses import replace as changed
from typing import Any

import msgspec
import pytest

from gateway.identity.principal import Principal
from gateway.machine import Verdict
from gateway.policy import cases
from gateway.policy.catalog import Relation, Snapshot
from gateway.policy.decide import MAY_NOT_CLASSIFY, Policies, checked
from gateway.policy.facts import Facts, SessionNames
from gateway.policy.resolve import Resolver
from gateway.policy.sql import analyse
from tests.gateway.policy.catalogs import table


def tagged(oid: int, full: str, *columns: str, **more: Any) -> Relation:
    names = frozenset(column.rstrip("*") for column in columns if column.endswith("*"))
    made = table(oid, full, *(column.rstrip("*") for column in columns), **more)
    return msgspec.structs.replace(made, tagged=names)


TARGET = Snapshot(
    [
        tagged(1, "public.people", "id", "ssn*", "mail*", "city"),
        tagged(2, "public.orders", "id", "note"),
        tagged(3, "public.log", "id", "note*", kind="p", children=(4,)),
        tagged(4, "public.log_2026", "id", "note", parents=(3,)),
        tagged(5, "hr.seen", "label*", kind="v", definition="SELECT 1 AS label"),
        tagged(6, "public.older", "id", "body", children=(7,)),
        tagged(7, "public.younger", "id", "body*", parents=(6,)),
        table(8, "pg_catalog.pg_description", "objoid", "description"),
    ],
    version="v",
)
RESOLVER = Resolver(TARGET)


def facts(text: str) -> Facts:
    (statement,) = analyse(text)
    return RESOLVER(statement, SessionNames(), None)


def classifies(text: str) -> set[str]:
    found = facts(text)
    assert bool(found.classifies) == ("classify" in found.ddl)
    return set(found.classifies)


SSN, MAIL, SEEN = "public.people.ssn", "public.people.mail", "hr.seen.label"
LOG, YOUNGER = "public.log.note", "public.younger.body"
ALL = {SSN, MAIL, SEEN, LOG, YOUNGER}


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("comment on column orders.note is 'gatebook:pii'", {"public.orders.note"}),
        ("comment on column public.orders.note is e'x\\ngate\\x62ook:pii'", {"public.orders.note"}),
        ("comment on column orders.note is U&'gateb\\006fok:pii'", {"public.orders.note"}),
        ("comment on column hr.seen.other is 'Gatebook:pii'", {"hr.seen.other"}),
        ("comment on column nowhere.c is 'gatebook:pii'", {"nowhere.c"}),
        ('comment on column "no.where"."a.b" is \'gatebook:pii\'', {'"no.where"."a.b"'}),
        ("comment on column people.ssn is null", {SSN}),
        ("comment on column people.ssn is 'the number'", {SSN}),
        ("comment on column people.ssn is 'gatebook:public'", {SSN}),
        ("alter table people drop column ssn", {SSN}),
        ("alter table people drop column if exists ssn, add column ssn text", {SSN}),
        ("alter table people add column x int, drop column id cascade", {SEEN}),
        ("alter table people rename column ssn to x", {SSN}),
        ("alter table people rename to folk", {SSN, MAIL}),
        ("alter table people set schema hr", {SSN, MAIL}),
        ("alter view hr.seen rename column label to x", {SEEN}),
        ("alter schema hr rename to other", {SEEN}),
        ("alter table people owner to stranger", {SSN, MAIL}),
        ("alter table log detach partition log_2026", {LOG}),
        ("alter table younger no inherit older", {YOUNGER}),
        ("alter table older drop column body", {YOUNGER}),
        ("drop table people", {SSN, MAIL}),
        ("drop table if exists people, orders", {SSN, MAIL}),
        ("drop table orders cascade", {SEEN}),
        ("drop view hr.seen", {SEEN}),
        ("drop table log", {LOG}),
        ("drop table older", {YOUNGER}),
        ("drop schema hr cascade", ALL),
        ("drop type mood cascade", ALL),
        ("drop owned by somebody", ALL),
        ("reassign owned by somebody to stranger", ALL),
        ("create table copy (like people including comments)", {"public.copy.ssn",
                                                                 "public.copy.mail"}),
        ("create table hr.copy (id int, like people including all)", {"hr.copy.ssn",
                                                                     "hr.copy.mail"}),
        ("delete from pg_catalog.pg_description", {"pg_catalog.pg_description.description"}),
        ("explain analyze delete from pg_description", {"pg_catalog.pg_description.description"}),
        ("do $$ begin comment on column orders.note is 'gatebook:pii'; end $$",
         {"public.orders.note"}),
    ],
)  # fmt: skip
def test_what_sets_moves_or_removes_a_classifying_comment_is_told_apart(
    text: str, columns: set[str]
) -> None:
    assert classifies(text) == columns
    assert facts(text).risk in ("high", "critical")


@pytest.mark.parametrize(
    "text",
    [
        "comment on column orders.note is 'the customer''s words'",
        "comment on column orders.note is null",
        "comment on column people.city is null",
        "comment on table people is 'gatebook:pii'",
        "alter table people add column x int, alter column city set not null",
        "alter table people drop column city",
        "alter table people rename column city to town",
        "alter table people rename constraint a to b",
        "alter table orders owner to stranger",
        "drop table orders",
        "drop table log_2026",
        "drop schema hr",
        "create table copy (like people)",
        "create table copy (like people including all excluding comments)",
        "create temp table copy (like people including all)",
        "create table copy (like orders including all)",
        "select 'gatebook:pii'",
        "update people set city = 'gatebook:pii'",
    ],
)
def test_what_leaves_them_alone_needs_nothing_more(text: str) -> None:
    assert classifies(text) == set()


# --- who may ---

DBA = Principal("https://issuer", "carol", "carol", ("dba",), None, "person", float("inf"))
CLERK = changed(DBA, subject="alice", name="alice", groups=("support",))
POLICIES = """
@id("all") permit (principal, action == Action::"execute", resource == Target::"shop");
@id("dba") permit (principal in Group::"dba", action == Action::"classify",
    resource in Target::"shop");
@id("not-hr") @message("HR's columns are HR's") forbid (principal, action == Action::"classify",
    resource in Schema::"shop.hr");
"""


def judged(who: Principal, text: str, policies: str = POLICIES) -> tuple[str, str]:
    (statement,) = analyse(text)
    request = cases.request(statement, RESOLVER(statement, SessionNames(), None))
    decision = Policies([("p.cedar", policies)]).execute(who, "shop", "psql", request)
    return decision.verdict, decision.reason


def test_who_may_execute_may_not_therefore_classify() -> None:
    text = "comment on column people.ssn is null"
    assert judged(CLERK, text) == (Verdict.DENY, MAY_NOT_CLASSIFY)
    assert judged(DBA, text) == (Verdict.ALLOW, "")
    assert judged(CLERK, "comment on column people.city is 'where'") == (Verdict.ALLOW, "")


def test_every_column_is_asked_for() -> None:
    assert judged(DBA, "drop view hr.seen") == (Verdict.DENY, "HR's columns are HR's")
    assert judged(DBA, "drop owned by somebody") == (Verdict.DENY, "HR's columns are HR's")


def test_a_permit_for_everything_includes_it() -> None:
    every = '@id("all") permit (principal, action, resource);'
    assert judged(CLERK, "drop table people", every) == (Verdict.ALLOW, "")


def test_the_published_schema_knows_the_action() -> None:
    assert checked([("p.cedar", POLICIES)]).rules.keys() == {"all", "dba", "not-hr"}
