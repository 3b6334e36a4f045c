"""Loops that really extract a value from what a statement lets them see, bit by bit."""

# ruff: noqa: E501 (one oracle a line)
from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

import psycopg
import pytest

from tests.redteam.conftest import Place
from tests.redteam.place import PIN, SSN

pytestmark = pytest.mark.integration

Session = psycopg.Connection[Any]
Oracle = Callable[[Session, int, int], bool]
_FIRST: Final = int(SSN[0].replace("-", ""))
_MOST: Final = 999_999_999


def rows(template: str) -> Oracle:
    """Whether a statement has a row, or a count that is not 0."""

    def ask(session: Session, low: int, high: int) -> bool:
        cursor = session.execute(template.format(low=dashed(low), high=dashed(high)).encode())
        if cursor.description is None:
            return cursor.rowcount > 0
        found = cursor.fetchall()
        return bool(found) and found[0][0] not in (0, None, False)

    return ask


def fails(template: str) -> Oracle:
    """Whether a statement fails where it runs, not where it is refused."""

    def ask(session: Session, low: int, high: int) -> bool:
        try:
            session.execute(template.format(low=dashed(low), high=dashed(high)).encode())
        except (psycopg.errors.InsufficientPrivilege, psycopg.errors.UndefinedTable):
            raise
        except psycopg.Error:
            return True
        return False

    return ask


def dashed(number: int) -> str:
    text = f"{number:09}"
    return f"{text[:3]}-{text[3:5]}-{text[5:]}"


_WITHIN: Final = "ssn between '{low}' and '{high}'"
ORACLES: Final[dict[str, Oracle]] = {
    "where": rows(f"select id from people where id = 1 and {_WITHIN}"),
    "where in a view": rows("select id from v_renamed where id = 1 and tag between '{low}' and '{high}'"),
    "count": rows(f"select count(*) from people where id = 1 and {_WITHIN}"),
    "filter": rows(f"select count(*) filter (where {_WITHIN}) from people where id = 1"),
    "having": rows(f"select 1 from people where id = 1 group by ssn having {_WITHIN}"),
    "case": rows(f"select case when {_WITHIN} then 1 else 0 end from people where id = 1"),
    "exists": rows(f"select exists (select from people where id = 1 and {_WITHIN})"),
    "subquery": rows(f"select 1 where 1 in (select id from people where id = 1 and {_WITHIN})"),
    "join": rows(f"select 1 from orders o join people p on p.id = 1 and p.{_WITHIN} limit 1"),
    "lateral": rows(f"select 1 from people p, lateral (select 1 where p.{_WITHIN}) x where p.id = 1"),
    "using": rows("select 1 from people join (values ('{low}'::char(11))) v(ssn) using (ssn) where "
                  "'{low}' = '{high}' union select 1 from people where id = 1 and "
                  "ssn between '{low}' and '{high}'"),
    "order": rows("select x.id = 1 from (select 1 as id, ssn from people where id = 1 union all "
                  "select 2, '{low}') x where '{high}' is not null order by ssn desc, id limit 1"),
    "window": rows("select r = 2 from (select id, rank() over (order by ssn, id) r from (select id, ssn "
                   "from people where id = 1 union all select 0, '{low}'::char(11)) q "
                   "where '{high}' > '') z where id = 1"),
    "distinct": rows(f"select distinct 1 from people where id = 1 and {_WITHIN}"),
    "set": rows(f"select id from people where id = 1 and {_WITHIN} intersect select 1"),
    "like": rows(f"select id from people where id = 1 and (ssn like '%' and {_WITHIN})"),
    "row comparison": rows("select id from people where (id, ssn) >= (1, '{low}') and "
                           "(id, ssn) <= (1, '{high}')"),
    "whole row": rows("select id from people p where id = 1 and "
                      "to_json(p)->>'ssn' between '{low}' and '{high}'"),
    "update": rows(f"update people set city = city where id = 1 and {_WITHIN}"),
    "delete": rows(f"delete from orders using people p where p.id = 1 and p.{_WITHIN}"),
    "merge": rows("merge into people p using (values (1)) v(id) on p.id = v.id and "
                  "p.ssn between '{low}' and '{high}' when matched then update set city = 'x'"),
    "on conflict where": rows(
        "insert into people (id, name) values (1, 'x') on conflict (id) do update set city = 'x' "
        f"where people.{_WITHIN}"),
    "insert select": rows(f"insert into orders (id) select 900 from people where id = 1 and {_WITHIN}"),
    "division": fails(f"select 1 / (case when {_WITHIN} then 0 else 1 end) from people where id = 1"),
    "cast error": fails(f"select (case when {_WITHIN} then 'x' else '1' end)::int from people "
                        "where id = 1"),
    "limit": rows(f"select 1 from people limit (select count(*) from people where id = 1 and {_WITHIN})"),
    "generate_series": rows("select count(*) from generate_series(1, (select count(*) from people "
                            f"where id = 1 and {_WITHIN}))"),
    "values": rows(f"values ((select {_WITHIN} from people where id = 1))"),
    "cte": rows(f"with x as (select id from people where id = 1 and {_WITHIN}) select id from x"),
    "create table as": rows(
        f"create temp table probe as select id from people where id = 1 and {_WITHIN}"),
    "document": rows("select id from files where id = 1 and doc->>'ssn' between '{low}' and '{high}'"),
    "path": rows("select id from files where id = 1 and doc @@ "
                 "'$.ssn >= \"{low}\" && $.ssn <= \"{high}\"'"),
}  # fmt: skip


def extract(session: Session, oracle: Oracle) -> int | None:
    """The number that halving finds. None where it cannot."""
    low, high = 0, _MOST
    while low < high:
        middle = (low + high) // 2
        session.execute("begin")
        try:
            if oracle(session, low, middle):
                high = middle
            else:
                low = middle + 1
        except psycopg.Error:
            return None
        finally:
            session.execute("rollback")
    return low


@pytest.fixture
def direct(place: Place) -> Iterator[Session]:
    with psycopg.connect(place.direct, autocommit=True) as session:
        yield session


@pytest.fixture
def masked(place: Place) -> Iterator[Session]:
    with place.stack.connect("alice") as session:
        yield session


@pytest.mark.parametrize("name", ORACLES)
def test_halving_finds_nothing(direct: Session, masked: Session, name: str) -> None:
    oracle = ORACLES[name]
    if name in ("order", "window"):
        # They tell which of two is greater: the search narrows from below.
        assert compared(direct, oracle) == _FIRST
        assert compared(masked, oracle) != _FIRST
        return
    assert extract(direct, oracle) == _FIRST
    assert extract(masked, oracle) != _FIRST


def compared(session: Session, oracle: Oracle) -> int | None:
    """The largest number that does not sort after the value."""
    low, high = 0, _MOST
    while low < high:
        middle = (low + high + 1) // 2
        try:
            if oracle(session, middle, _MOST):
                low = middle
            else:
                high = middle - 1
        except psycopg.Error:
            return None
    return low


@pytest.mark.parametrize(
    "template",
    [
        "insert into people (id, name, ssn) select 1000 + g, 'x', {ssn} from "
        "generate_series({low}, {high}) g",
        "insert into people (id, name, ssn) select 1000 + g, 'x', {ssn} from "
        "generate_series({low}, {high}) g on conflict do nothing",
        "insert into people (id, name, ssn) select 1000 + g, 'x', {ssn} from "
        "generate_series({low}, {high}) g on conflict on constraint people_ssn_key do nothing",
        "update people set ssn = (select {ssn} from generate_series({low}, {high}) g limit 1) "
        "where id = 2",
    ],
)
def test_a_unique_index_is_not_asked_for_many_values_at_once(
    direct: Session, masked: Session, template: str
) -> None:
    ssn = "'417-55-' || lpad(g::text, 4, '0')"
    low, high = (9036, 9036) if template.startswith("update") else (9000, 9099)
    text = template.format(ssn=ssn, low=low, high=high)
    direct.execute("begin")
    try:
        # Fewer rows than were tried, or an error: one of them is there.
        assert direct.execute(text.encode()).rowcount < high - low + 1
    except psycopg.errors.UniqueViolation:
        pass
    finally:
        direct.execute("rollback")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        masked.execute(text.encode())


def test_copy_does_not_ask_a_unique_index_either(direct: Session, masked: Session) -> None:
    copy = "copy people (id, name, ssn) from stdin"
    with pytest.raises(psycopg.errors.UniqueViolation), direct.cursor().copy(copy) as into:
        into.write_row((50, "x", SSN[0]))
    with (
        pytest.raises(psycopg.errors.InsufficientPrivilege),
        masked.cursor().copy(copy) as into,
    ):
        into.write_row((50, "x", SSN[0]))


def test_every_number_may_be_guessed_and_none_found(direct: Session, masked: Session) -> None:
    guess = "select id from people where id = 1 and pin = {}"
    for found, session in ((True, direct), (False, masked)):
        hits = [
            pin
            for pin in range(int(PIN) - 20, int(PIN) + 20)
            if session.execute(guess.format(pin).encode()).fetchall()
        ]
        assert (hits == [int(PIN)]) is found
