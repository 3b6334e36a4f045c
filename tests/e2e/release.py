"""Every way that a classified value can take through a gateway."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Callable
from typing import Any

import asyncpg
import psycopg
import pytest

from tests.e2e.canaries import Cage, Canary
from tests.e2e.stack import Stack

Session = psycopg.Connection[Any]
Make = Callable[[str], Canary]

_COLUMNS = "email, phone, ssn, card_number"


def release(stack: Stack, cage: Cage) -> None:
    """Send canaries every way there is."""
    with stack.connect("bob") as session:
        _read(session, cage)
        session.execute("create table canaries (id int primary key, email text unique, ssn text)")
        session.execute("create table plain (note text, number numeric check (number < 1))")
        _type(session, cage.make)
        _name(session, cage.make)
        _bind(session, cage.make)
        _collide(session, cage)
        _provoke_errors(session, cage.make)
        _converse(session, cage.make)
        _copy(session, cage.make)
        session.execute("drop table canaries, plain")
    _sign_in(stack, cage.make)
    _be_refused(stack, cage.make)
    asyncio.run(_in_binary(stack, cage.make))


def _read(session: Session, cage: Cage) -> None:
    """Rows of the shop, by every way out of it."""
    rows = session.execute(f"select {_COLUMNS} from customers where id <= 10").fetchall()
    cage.add("a row that was read", {value for row in rows for value in row})
    for query in (
        "select ssn || '', lower(email), reverse(reverse(phone)) from customers where id <= 10",
        "select to_jsonb(c), c from customers c where id <= 10",
        "select array_agg(email), string_agg(card_number, ',') from customers where id <= 10",
        "with c as (select ssn as note from customers) select note from c limit 10",
    ):
        assert session.execute(query).fetchall()
    with session.cursor(binary=True) as cursor:
        assert cursor.execute(f"select {_COLUMNS} from customers where id <= 10").fetchall() == rows
    for form in ("text", "csv", "binary"):
        out = f"copy (select {_COLUMNS} from customers where id <= 10) to stdout (format {form})"
        with session.cursor().copy(out) as copy:
            assert b"".join(bytes(block) for block in copy)


def _type(session: Session, make: Make) -> None:
    """In the text of a statement."""
    c = make("a literal")
    session.execute(f"select '{c.ssn}', '{c.card}', '{c.email}', '{c.phone}'")
    c = make("a literal in a condition")
    session.execute(f"select id from customers where ssn = '{c.ssn}' or email = '{c.email}'")
    session.execute(f"select id from orders where product = '{c.card}' or status = '{c.phone}'")
    c = make("a number")
    session.execute(f"select {c.card}, {c.card}::text")
    c = make("a comment")
    session.execute(f"select 1 /* {c} */ -- {c}")
    c = make("a dollar quote")
    session.execute(f"select $tag$ {c} $tag$")
    c = make("an escape string")
    session.execute("select E'" + "".join(f"\\x{ord(x):02x}" for x in str(c)) + "'")
    c = make("pieces")
    session.execute(f"select '{c.ssn[:5]}' || '{c.ssn[5:]}'")
    session.execute(f"select concat('{c.card[:9]}', '{c.card[9:]}')")
    c = make("a text of several statements")
    session.execute(f"select '{c.ssn}'; select '{c.card}' -- {c.email}")
    c = make("a setting")
    session.execute(f"set application_name = '{c.ssn}'")
    session.execute("select set_config('application_name', %s, false)", (c.email,))


def _name(session: Session, make: Make) -> None:
    """As names of things."""
    c = make("an alias")
    session.execute(f'select 1 as "{c.ssn}", 2 as "{c.email}"')
    c = make("a relation's name")
    session.execute(f'create table "{c.email}" ("{c.ssn}" int)')
    session.execute(f'select * from "{c.email}"')
    session.execute(f'drop table "{c.email}"')
    c = make("a name of a cursor and a savepoint")
    session.execute(f'begin; savepoint "{c.ssn}"; declare "{c.email}" cursor for select 1')
    session.execute(f'fetch "{c.email}"; commit')
    c = make("a prepared statement")
    session.execute(f"prepare \"{c.email}\"(text) as select $1, '{c.ssn}'")
    session.execute(f"execute \"{c.email}\"('{c.card}')")
    session.execute(f'deallocate "{c.email}"')


def _bind(session: Session, make: Make) -> None:
    """As values of parameters."""
    c = make("a bind value as text")
    session.execute("select %t, %t, %t, %t", tuple(c))
    c = make("a bind value in binary")
    session.execute("select %b::text, %b::text, %b::text, %b::text", tuple(c))
    session.execute("select %b::bigint", (int(c.card),))
    c = make("an array")
    session.execute("select %b::text[]", (list(c),))
    session.execute("select %t::text[]", (list(c),))
    c = make("a document")
    session.execute("select %s::jsonb", (json.dumps({"note": str(c), c.email: 1}),))
    c = make("a statement executed many times")
    session.cursor().executemany("insert into plain (note) values (%s)", [(v,) for v in c])
    c = make("a column that is classified nowhere")
    session.execute("insert into plain (note) values (%s)", (str(c),))
    assert session.execute("select note from plain").fetchall()
    session.execute("update plain set note = note || ' ' || %s returning *", (c.ssn,)).fetchall()
    c = make("a pipeline")
    with session.pipeline():
        for value in c:
            session.execute("select %s", (value,))


def _collide(session: Session, cage: Cage) -> None:
    """With values that are there already: the error shows them."""
    c = cage.make("a unique violation")
    session.execute("insert into canaries values (1, %s, %s)", (c.email, c.ssn))
    _fails(session, "insert into canaries values (1, %s, %s)", (c.email, c.ssn))
    _fails(session, f"insert into canaries values (2, '{c.email}', '{c.ssn}')")
    found = session.execute("select email, ssn from customers where id = 11").fetchone()
    assert found is not None
    cage.add("a row that another collides with", found)
    _fails(session, "update customers set email = %s where id = 12", (found[0],))
    _fails(session, f"update customers set ssn = '{found[1]}' where id = 12")
    # The other row's values, of which the statement says nothing.
    other = session.execute("select email, phone from customers where id = 13").fetchone()
    assert other is not None
    cage.add("a row that is copied onto another", other)
    _fails(session, "update customers set email = (select email from customers where id = 13)")


def _provoke_errors(session: Session, make: Make) -> None:
    """In what the database says of it."""
    c = make("a failed check")
    _fails(session, f"insert into plain values ('{c}', 2)")
    c = make("a failed cast")
    for value in c:
        _fails(session, f"select '{value}'::date")
        _fails(session, "select %s::int4", (f"no {value}",))
    c = make("a text that does not parse")
    _fails(session, f"selec '{c}'")
    _fails(session, f"select '{c}")
    c = make("a raised exception")
    raised = f"raise exception '{c}' using detail = '{c}', hint = '{c}'"
    _fails(session, f"do $$ begin {raised}; end $$")
    c = make("a relation that does not exist")
    _fails(session, f'select * from "{c.email}"')
    _fails(session, f'select "{c.ssn}" from plain')


def _converse(session: Session, make: Make) -> None:
    """Beside the answers."""
    c = make("a notice")
    session.execute(f"do $$ begin raise notice '{c}'; end $$")
    c = make("a notification")
    session.execute("listen news")
    session.execute(f"notify news, '{c}'")
    assert [note.payload for note in session.notifies(timeout=5, stop_after=1)] == [str(c)]
    c = make("a large row")
    session.execute(f"select repeat(' ', 3000000) || '{c}'").fetchall()


def _copy(session: Session, make: Make) -> None:
    """As the data of COPY."""
    cursor = session.cursor()
    c = make("copied data")
    with cursor.copy("copy plain (note) from stdin") as copy:
        for value in c:
            copy.write_row((value,))
    c = make("copied data in csv")
    with cursor.copy("copy canaries from stdin (format csv)") as copy:
        copy.write(f"7,{c.email},{c.ssn}\n8,{c.phone},{c.card}\n")
    c = make("copied data in binary")
    with cursor.copy("copy plain (note) from stdin (format binary)") as copy:
        copy.set_types(["text"])
        for value in c:
            copy.write_row((value,))
    c = make("copied data that fails")
    with pytest.raises(psycopg.Error), cursor.copy("copy canaries from stdin") as copy:
        copy.write(f"9\t{c.email}\t{c.ssn}\n{c.card}\t{c.phone}\tx\n")
    with cursor.copy("copy plain to stdout") as copy:
        assert b"".join(bytes(block) for block in copy)


def _sign_in(stack: Stack, make: Make) -> None:
    """In the start-up packet."""
    c = make("the start of a session")
    for application, path in ((c.ssn, "public"), (c.email, c.card), (c.card, c.phone)):
        options = f"-c search_path={path}"
        with stack.connect("bob", application_name=application, options=options) as session:
            session.execute("select 1")


def _be_refused(stack: Stack, make: Make) -> None:
    """At the door, and where a policy says no."""
    c = make("a denied statement")
    with stack.connect("alice") as session:
        _fails(session, f"delete from customers where ssn = '{c.ssn}' or email = '{c.email}'")
        _fails(session, "insert into orders (product) values (%s)", (str(c),))
    c = make("a sign-in that is refused")
    address = stack.document["gateways"][0]["postgres"]
    token = stack.token("bob")
    for user, target, password, application in (
        (c.email, "shop", "no token", "x"),
        (c.ssn, c.email, "no token", c.phone),
        ("bob", c.ssn, token, "x"),
        ("bob", c.email, token, c.phone),
        # A person who types a card number where the token belongs.
        ("bob", "shop", c.card, c.card),
        ("bob", "shop", f"{c.email} {c.ssn}", "x"),
        ("bob", "shop", token + c.card, "x"),
    ):
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(
                host=address["host"],
                port=address["port"],
                user=user,
                dbname=target,
                password=password,
                application_name=application,
                sslmode="require",
            ).close()


def _fails(session: Session, query: str, parameters: Any = None) -> None:
    with pytest.raises(psycopg.Error):
        session.execute(query, parameters)


async def _in_binary(stack: Stack, make: Make) -> None:
    """By a driver that does everything in binary."""
    c = make("asyncpg")
    document = stack.document
    session = await asyncpg.connect(
        host="127.0.0.1",
        port=document["gateways"][1]["postgres"]["port"],
        user="bob",
        password=stack.token("bob"),
        database="shop",
        ssl=ssl.create_default_context(cafile=document["ca_file"]),
    )
    try:
        text = json.dumps({"phone": c.phone})
        await session.fetch(
            "select $1::text, $2::varchar, $3::name, $4::jsonb", c.ssn, c.card, c.email, text
        )
        await session.fetch("select $1::text[]", list(c))
        await session.fetch("select * from customers where ssn = $1 or email = $2", c.ssn, c.email)
        await session.fetch(f"select {_COLUMNS} from customers where id <= 10")
        await session.execute("create temporary table t (id int, note text)")
        await session.copy_records_to_table("t", records=list(enumerate(c)))
        await session.fetch("select * from t")
    finally:
        await session.close()
