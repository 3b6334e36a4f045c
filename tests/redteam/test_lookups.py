"""Dictionaries tried against columns that people may look rows up by: the budget ends each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any, Final

import psycopg
import pytest

from schemas import events, topics
from tests.e2e import book
from tests.gateway.protocols.postgres import messages as pg
from tests.integration.wire_client import WireClient
from tests.redteam.conftest import Place
from tests.redteam.place import BADGE, BUDGET

pytestmark = pytest.mark.integration

Session = psycopg.Connection[Any]
Way = Callable[[Session, str, list[int]], bool]
"""Tries some values of a column: whether a row was found."""
_GUESSES: Final = range(BADGE - 20, BADGE + 5)


def literal(template: str) -> Way:
    def look(session: Session, column: str, guesses: list[int]) -> bool:
        text = template.format(column=column, guess=guesses[0], listed=",".join(map(str, guesses)))
        cursor = session.execute(text.encode())
        while cursor.nextset():
            pass
        return cursor.rowcount > 0

    return look


def bound(text: str, **options: Any) -> Way:
    def look(session: Session, column: str, guesses: list[int]) -> bool:
        cursor = session.cursor(binary=bool(options.get("binary")))
        cursor.execute(
            text.format(column=column).encode(), (guesses[0],), prepare=options.get("prepare")
        )
        return cursor.rowcount > 0

    return look


def each_in_one_text(session: Session, column: str, guesses: list[int]) -> bool:
    texts = [f"select id from badges where {column} = {guess}" for guess in guesses]
    cursor = session.execute("; ".join(texts).encode())
    found = cursor.rowcount > 0
    while cursor.nextset():
        found |= cursor.rowcount > 0
    return found


def pipelined(session: Session, column: str, guesses: list[int]) -> bool:
    with session.pipeline():
        text = f"select id from badges where {column} = %s".encode()
        cursors = [session.execute(text, (guess,)) for guess in guesses]
        rows = [cursor.fetchall() for cursor in cursors]
        return any(rows)


def prepared(session: Session, column: str, guesses: list[int]) -> bool:
    session.execute(f"prepare p as select id from badges where {column} = {guesses[0]}".encode())
    try:
        return session.execute("execute p").rowcount > 0
    finally:
        session.execute("deallocate p")


def declared(session: Session, column: str, guesses: list[int]) -> bool:
    with session.transaction(), session.cursor("c") as cursor:
        cursor.execute(f"select id from badges where {column} = {guesses[0]}".encode())
        return bool(cursor.fetchall())


def copied(session: Session, column: str, guesses: list[int]) -> bool:
    text = f"copy (select id from badges where {column} = {guesses[0]}) to stdout"
    with session.cursor().copy(text.encode()) as copy:
        return bool(list(copy))


def estimated(session: Session, column: str, guesses: list[int]) -> bool:
    text = f"explain analyze select id from badges where {column} = {guesses[0]}"
    return "rows=1 " in repr(session.execute(text.encode()).fetchall()).partition("actual")[2]


COUNTED: Final[dict[str, tuple[Way, int]]] = {
    "equal": (literal("select id from badges where {column} = {guess}"), 1),
    "turned round": (literal("select id from badges where '{guess}'::numeric = {column}"), 1),
    "listed": (literal("select id from badges where id = 1 and {column} in ({listed})"), 3),
    "all listed": (literal("select id from badges where {column} in ({listed})"), len(_GUESSES)),
    "a view": (literal("select id from v_badges where {column} = {guess}"), 1),
    "update": (literal("update badges set id = id where {column} = {guess}"), 1),
    "bound": (bound("select id from badges where {column} = %s"), 1),
    "bound in binary": (bound("select id from badges where {column} = %b", binary=True), 1),
    "bound to a name": (bound("select id from badges where {column} = %s", prepare=True), 1),
    "bound in a list": (bound("select id from badges where {column} in (%s, -1)"), 1),
    "one text": (each_in_one_text, len(_GUESSES)),
    "pipeline": (pipelined, len(_GUESSES)),
    "prepare": (prepared, 1),
    "cursor": (declared, 1),
    "copy": (copied, 1),
    "explain": (estimated, 1),
}  # fmt: skip


@pytest.fixture
def direct(place: Place) -> Iterator[Session]:
    with psycopg.connect(place.direct, autocommit=True) as session:
        yield session


@pytest.mark.parametrize("way", COUNTED)
def test_a_dictionary_ends_refused(place: Place, direct: Session, way: str) -> None:
    look, at_once = COUNTED[way]
    column = f"b{list(COUNTED).index(way)}"
    tries = [list(_GUESSES[at : at + at_once]) for at in range(0, len(_GUESSES), at_once)]
    assert any(look(direct, column, tried) for tried in tries)
    done = 0
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="distinct values of public"):
        for tried in tries:
            # Another session is the same person.
            with place.stack.connect("alice") as session:
                assert not look(session, column, tried)
                done += len(tried)
    assert done <= BUDGET
    with place.stack.connect("alice") as session:
        # What was tried can be tried again, and nothing else.
        if done:
            assert not look(session, column, tries[0])
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            for guess in range(BADGE, BADGE + BUDGET + 1):
                COUNTED["equal"][0](session, column, [guess])


def test_what_is_known_is_found(place: Place) -> None:
    with place.stack.connect("alice") as session:
        for _ in range(BUDGET * 2):
            assert session.execute(
                "select id, b17 from badges where b17 = %s", (BADGE,)
            ).fetchall() == [(1, None)]


@pytest.mark.parametrize(
    "template",
    [
        "select id from badges where b18 = any(array[{0}])",
        "select id from badges where b18 = {0} + 0",
        "select id from badges where b18 in ({0}, id)",
        "select id from badges where b18 not in ({0})",
        "select id from badges where b18 <> {0} and id = 1",
        "select id from badges where b18 = {0} or b18 = -1",
        "select id from badges where (b18, 1) = ({0}, 1)",
        "select id from badges where b18 = (select {0})",
        "select id from badges where b18 is not distinct from {0}",
        "select id from badges a where b18 = {0} and a.b18 = {0} + 0",
        "select id from badges where b18 = '{0}'::text::numeric",
        "select id from badges where b18::text = '{0}'",
        "select id from badges where b18 = {0}::numeric(4, 0) and b18 > 0",
        "select count(*) filter (where b18 = {0}) from badges",
        "select b18 = {0} from badges",
        "select id from (select * from badges) b where b18 = {0}",
        "select b.id from badges b join orders o on o.id = 1 and b.b18 = {0}",
        "select b.id from badges b, (values ({0})) v(x) where b.b18 = v.x",
        "prepare q as select id from badges where b18 = $1; execute q({0}); deallocate q",
    ],
)
def test_nothing_else_is_compared_in_clear(place: Place, template: str) -> None:
    """However many are tried: no answer depends on the value."""
    with place.stack.connect("alice") as session:
        answers = set()
        for guess in (BADGE - 1, BADGE, *range(BADGE + 1, BADGE + 2 * BUDGET)):
            cursor = session.execute(template.format(guess).encode())
            seen = [cursor.fetchall() if cursor.description else []]
            while cursor.nextset():
                seen.append(cursor.fetchall() if cursor.description else [])
            answers.add(repr(seen))
        assert len(answers) == 1


def test_a_statement_of_the_protocol_is_not_executed_past_the_count(place: Place) -> None:
    text = "select id from badges where b19 = $1"
    with WireClient.signed_in(place.stack, "alice") as client:
        client.ask(pg.parse(text, "s"), pg.message("S"))
        answer = b"".join(client.ask(pg.query(f"execute s({BADGE})")))
        assert b"42501" in answer
        # Bound in one go, fetched in another.
        found = 0
        for guess in _GUESSES:
            value = str(guess).encode()
            bind = pg.message(
                "B", pg.text("c") + pg.text("s") + b"\0\0\0\1"
                + len(value).to_bytes(4, "big") + value + b"\0\0",
            )  # fmt: skip
            client.ask(pg.query("begin"))
            client.ask(bind, pg.message("S"))
            answer = b"".join(client.ask(pg.query("fetch all c")))
            client.ask(pg.query("rollback"))
            found += b"FETCH 1" in answer
        assert found == 0


def test_a_strict_class_is_shown_masked_and_not_used(place: Place) -> None:
    with place.stack.connect("alice") as session:
        assert session.execute("select code from strict").fetchall() == [("***",)]
        for text in ("select upper(code) from strict", "select id from strict where code = 'x'",
                     "select distinct code from strict"):  # fmt: skip
            with pytest.raises(psycopg.errors.InsufficientPrivilege, match="not used otherwise"):
                session.execute(text.encode())


def test_the_reason_is_recorded_and_no_value_is(place: Place) -> None:
    stack = place.stack
    kafka = stack.document["kafka"]["bootstrap_servers"]
    since = asyncio.run(book.end(kafka))
    tried = [735_190_000 + number for number in range(BUDGET + 2)]
    with stack.connect("alice") as session, pytest.raises(psycopg.errors.InsufficientPrivilege):
        for value in tried:
            session.execute("select id from badges where b16 = %s", (value,))
    entries = asyncio.run(book.read(kafka, stack.state.keys, since))
    decided = [entry.event for entry in entries if isinstance(entry.event, events.Decided)]
    reasons = [(event.decision, event.reason) for event in decided if event.reason]
    permitted = ("ALLOW", "public.badges.b16 is compared in clear: people show their badge")
    assert reasons[:BUDGET] == [permitted] * BUDGET
    assert reasons[-1][0] == "DENY"
    assert f"at most {BUDGET} distinct values of public.badges.b16" in reasons[-1][1]
    clear = [record.value for record in asyncio.run(book.records(kafka, [topics.EVENTS], since))]
    said = b"".join(clear) + b"".join(path.read_bytes() for path in stack.state.logs.iterdir())
    assert permitted[1].encode() in said
    assert not [value for value in tried if str(value).encode() in said]
