"""Who sees a value does not, by a statement, put it where everybody would."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import psycopg
import pytest

from tests.e2e.stack import until
from tests.redteam.conftest import Place
from tests.redteam.test_leaks import shown

pytestmark = pytest.mark.integration

Session = psycopg.Connection[Any]

COPIES: Final[tuple[tuple[str, str], ...]] = (
    ("create table t as select ssn from people", "select * from t"),
    ("create table t as select * from people", "select * from t"),
    ("create table t as select tag from v_renamed", "select * from t"),
    ("create table t as select digits from people", "select * from t"),
    ("create table t as select note from events_2026", "select * from t"),
    ("create table t as select note from younger", "select * from t"),
    ("create table t as select code from m_people", "select * from t"),
    ("create table t as select (was).ssn from archive", "select * from t"),
    ("create table t as select doc->>'ssn' as x from files", "select * from t"),
    ("create table t as select to_jsonb(people) as x from people", "select * from t"),
    ("select ssn into t from people", "select * from t"),
    ("insert into orders (id, note) select id + 600, ssn from people", "select * from orders"),
    ("insert into orders (id, note) values (600, (select max(ssn) from people))",
     "select * from orders"),
    ("insert into people (id, name) select id + 600, ssn from people", "select name from people"),
    ("insert into people (id, name) values (1, 'x') on conflict (id) "
     "do update set name = people.ssn", "select name from people"),
    ("update people set city = ssn", "select city from people"),
    ("update people set (name, city) = (city, email)", "select city from people"),
    ("update orders o set note = p.ssn from people p where p.id = o.person_id",
     "select note from orders"),
    ("update orders set note = (select ssn from people limit 1)", "select note from orders"),
    ("update files set label = doc->>'ssn'", "select label from files"),
    ("merge into orders o using people p on p.id = o.person_id "
     "when matched then update set note = p.ssn", "select note from orders"),
    ("merge into orders o using people p on p.id + 700 = o.id "
     "when not matched then insert (id, note) values (p.id + 700, p.ssn)",
     "select note from orders"),
    ("with x as (select ssn as y from people) insert into orders (id, note) "
     "select 600, y from x limit 1", "select note from orders"),
    ("prepare q as insert into orders (id, note) select 600, max(ssn) from people; execute q",
     "select note from orders"),
    ("prepare q as select ssn as x from people; create table t as execute q", "select * from t"),
)  # fmt: skip


@pytest.fixture(scope="module")
def direct(place: Place) -> Iterator[Session]:
    with psycopg.connect(place.direct, autocommit=True, prepare_threshold=None) as session:
        yield session


@pytest.fixture(scope="module")
def bob(place: Place) -> Iterator[Session]:
    with place.stack.connect("bob", prepare_threshold=None) as session:
        yield session


@pytest.mark.parametrize(("copy", "look"), COPIES, ids=[copy for copy, _ in COPIES])
def test_a_copy_is_refused(direct: Session, bob: Session, copy: str, look: str) -> None:
    direct.execute("begin")
    try:
        direct.execute(copy.encode())
        assert shown(repr(direct.execute(look.encode()).fetchall()).encode())
    finally:
        direct.execute("rollback")
        direct.execute("deallocate all")
    bob.execute("begin")
    try:
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match=r"copy .* classified"):
            bob.execute(copy.encode())
    finally:
        bob.execute("rollback")
        bob.execute("deallocate all")


@pytest.mark.parametrize(
    "statement",
    [
        "insert into people (id, name, ssn) select id + 600, name, null from people",
        "update people set ssn = reverse(ssn) where id = 2",
        "update people set name = 'x' where ssn like '4%'",
        "insert into referring (id, of) select id + 1, of from referring",
        "create table t as select id, name from people where ssn like '4%'",
        "create table t as select code from copied",
        "update copied set id = 2 where code > ''",
        "create view w as select ssn as x from people",
        "create materialized view w as select ssn as x from people",
        "delete from orders using people p where p.id = person_id and p.ssn = 'x'",
    ],
)
def test_anything_else_is_done(bob: Session, statement: str) -> None:
    bob.execute("begin")
    try:
        bob.execute(statement.encode())
    finally:
        bob.execute("rollback")


def test_what_is_followed_may_be_made_and_is_masked(place: Place, bob: Session) -> None:
    views = "select ssn as x, reverse(ssn) as y from people"
    made = (
        (f"create view made_view as {views}", "view"),
        (f"create materialized view made_stored as {views}", "materialized view"),
        ("create table made_child () inherits (older)", "table"),
        ("create table made_part partition of events for values from ('2027-01-01') to "
         "('2028-01-01')", "table"),
    )  # fmt: skip
    names = [text.split(" as ")[0].split(" () ")[0].split(" partition")[0].split()[-1]
             for text, _ in made]  # fmt: skip
    try:
        for text, _ in made:
            bob.execute(text.encode())
        bob.execute("insert into made_child select * from older")
        bob.execute("insert into made_child values (1, '417-55-9036')")
        bob.execute("insert into made_part values (2, '2027-05-05', '417-55-9036')")
        with place.stack.connect("alice") as alice:
            until(lambda: _readable(alice, names))
            for name in names:
                for text in (f"select * from {name}", f"select {name} from {name}",
                             f"select t::text from {name} t"):  # fmt: skip
                    assert not shown(repr(alice.execute(text.encode()).fetchall()).encode()), text
    finally:
        for (_, kind), name in zip(made, names, strict=True):
            bob.execute(f"drop {kind} if exists {name}".encode())


def _readable(session: Session, names: list[str]) -> bool:
    try:
        for name in names:
            session.execute(f"select 1 from {name} limit 0".encode())
    except psycopg.errors.UndefinedTable:
        return False
    return True
