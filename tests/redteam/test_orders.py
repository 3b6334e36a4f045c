"""Whoever would learn an order begins anew once there is one to be learned."""

from __future__ import annotations

from typing import Final

import psycopg
import pytest

from gateway import introspection
from tests.redteam.conftest import Place

pytestmark = pytest.mark.integration

_MADE: Final = """
create table ordering (id int primary key, h text, "We ird" int, d date, p point, j jsonb);
create index plain on ordering (h) include (id);
create index computed on ordering ("We ird", lower(h)) where d is not null;
create index whole on ordering ((ordering.* is null), id);
create index near on ordering using gist (p);
create index in_no_order on ordering using gin (j);
create index of_blocks on ordering using brin (id);
create table parted (k int, h text) partition by range (k);
create table parted_1 partition of parted for values from (1) to (2);
create index parted_by on parted (k, h);
"""


def test_indexes_are_read_with_what_they_are_ordered_by(place: Place) -> None:
    with psycopg.connect(place.direct) as connection:
        connection.execute(_MADE)
        found = connection.execute(introspection.INDEXES).fetchall()
        names = dict(connection.execute("select oid::int8, relname from pg_class").fetchall())
        connection.rollback()
    every = [(names[oid], by, beside) for oid, by, beside in found]
    assert sorted(each for each in every if each[0].startswith(("ordering", "parted"))) == [
        ("ordering", [1], []),
        ("ordering", [1, 2, 3, 4, 5, 6], []),
        ("ordering", [2], [1]),
        ("ordering", [2, 3], [4]),
        ("ordering", [5], []),
        ("parted", [1, 2], []),
        ("parted_1", [1, 2], []),
    ]


def test_an_index_that_tells_ends_sessions_that_began_before_it(place: Place) -> None:
    shown = "select current_setting('enable_indexscan')"
    with (
        place.stack.connect("alice", autocommit=True) as alice,
        place.stack.connect("bob", autocommit=True) as bob,
    ):
        assert alice.execute(shown).fetchone() == ("on",)
        bob.execute("create index tells on people (city, ssn)")
        try:
            with pytest.raises(psycopg.OperationalError, match="connect again"):
                alice.execute("select id from people where city = 'Rome'")
            with place.stack.connect("alice", autocommit=True) as again:
                assert again.execute(shown).fetchone() == ("off",)
                with pytest.raises(psycopg.errors.InsufficientPrivilege, match="order"):
                    again.execute("set enable_seqscan = off")
            assert bob.execute(shown).fetchone() == ("on",)
        finally:
            bob.execute("drop index tells")
    with place.stack.connect("alice", autocommit=True) as alice:
        assert alice.execute(shown).fetchone() == ("on",)
