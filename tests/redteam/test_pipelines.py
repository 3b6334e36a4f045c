"""Attacks on what the gateway remembers: names, descriptions, other people's changes, drivers."""

from __future__ import annotations

import asyncio
import os
import ssl
import subprocess
from typing import Any

import asyncpg
import psycopg
import pytest

from tests.e2e.stack import until
from tests.gateway.protocols.postgres import messages as pg
from tests.integration.wire_client import WireClient
from tests.redteam.conftest import Place
from tests.redteam.place import SSN
from tests.redteam.test_leaks import shown

pytestmark = pytest.mark.integration

SYNC = pg.message("S")
CLEAR = "select ssn from people order by id"
DEEP = "select ssn || '' from people order by id"
PLAIN = "select name from people order by id"


def bind(portal: str = "", name: str = "", binary: bool = False) -> bytes:
    shape = b"\0\0\0\0" + (b"\0\1\0\1" if binary else b"\0\0")
    return pg.message("B", pg.text(portal) + pg.text(name) + shape)


@pytest.mark.parametrize(
    "messages",
    [
        # Nothing is described.
        (pg.parse(CLEAR), bind(), pg.execute(), SYNC),
        (pg.parse(DEEP), bind(binary=True), pg.execute(), SYNC),
        # Another statement, or another portal, is described.
        (pg.parse(PLAIN, "a"), pg.describe_statement("a"), pg.parse(CLEAR, "b"), bind(name="b"),
         pg.execute(), SYNC),
        (pg.parse(PLAIN, "a"), pg.parse(CLEAR, "b"), bind("p", "a"), pg.describe_portal("p"),
         bind("q", "b"), pg.execute("q"), SYNC),
        (pg.parse("select 1", "a"), bind("p", "a"), pg.parse(CLEAR), bind("q"),
         pg.describe_portal("p"), pg.execute("q"), pg.execute("p"), SYNC),
        # A name is given again.
        (pg.parse(PLAIN, "a"), pg.describe_statement("a"), pg.close_statement("a"),
         pg.parse(CLEAR, "a"), bind(name="a"), pg.execute(), SYNC),
        (pg.parse(PLAIN), bind("p"), pg.describe_portal("p"), pg.close_portal("p"),
         pg.parse(CLEAR), bind("p"), pg.execute("p"), SYNC),
        (pg.parse(PLAIN), bind(), pg.describe_portal(), pg.parse(CLEAR), bind(), pg.execute(),
         SYNC),
        # A portal outlives its statement.
        (pg.parse(CLEAR, "a"), bind("p", "a"), pg.close_statement("a"), pg.execute("p"), SYNC),
        (pg.parse(CLEAR), bind("p"), pg.parse(PLAIN), bind("q"), pg.execute("q"),
         pg.execute("p"), SYNC),
        # Row by row.
        (pg.parse(CLEAR), bind("p"), pg.execute("p", 1), pg.execute("p", 1),
         pg.execute("p"), SYNC),
        (pg.parse(CLEAR), bind("p"), pg.execute("p", 1), pg.describe_portal("p"),
         pg.execute("p"), SYNC),
        # SQL's names are the protocol's.
        (pg.parse(f"prepare s as {CLEAR}"), bind(), pg.execute(), bind(name="s"), pg.execute(),
         SYNC),
        (pg.parse(CLEAR, "s"), pg.parse("execute s"), bind(), pg.execute(), SYNC),
        (pg.parse(DEEP, "s"), pg.parse("execute s"), bind(binary=True), pg.execute(), SYNC),
        (pg.parse("begin"), bind(), pg.execute(), pg.parse(f"declare c cursor for {CLEAR}"), bind(),
         pg.execute(), pg.execute("c"), SYNC),
        (pg.parse(CLEAR), bind("c"), pg.parse("fetch all c"), bind(), pg.execute(), SYNC),
        (pg.parse(CLEAR), bind("c"), pg.parse("fetch 1 c"), bind(), pg.describe_portal(),
         pg.execute(), pg.execute("c"), SYNC),
        # Flushes in between, and an error before.
        (pg.parse(CLEAR), pg.message("H"), bind(), pg.message("H"), pg.execute(), SYNC),
        (pg.query("select 1/0"), pg.query(CLEAR), pg.parse(CLEAR), bind(), pg.execute(), SYNC),
        (pg.query(f"{PLAIN}; {CLEAR}; {DEEP}; {PLAIN}"), SYNC),
        (pg.query(f"begin; declare c cursor with hold for {CLEAR}; commit; fetch all c"), SYNC),
        # A function by its number.
        (pg.function_call(3460, b"x"), SYNC),
    ],
)  # fmt: skip
def test_no_order_of_messages_shows_a_value(place: Place, messages: tuple[bytes, ...]) -> None:
    times = sum(each[:1] in (b"S", b"Q", b"F") for each in messages)
    with WireClient.signed_in(place.stack, "alice") as client:
        try:
            received = b"".join(client.ask(*messages, times=times))
        except EOFError:
            received = b""
        assert not shown(received)
    with WireClient.signed_in(place.stack, "bob") as client:
        if messages[0][:1] != b"F":
            assert SSN[0].encode() in b"".join(client.ask(*messages, times=times))


@pytest.mark.parametrize(
    "options",
    [
        {"options": "-c search_path=hr"},
        {"options": "-c search_path=hr,public"},
        {"options": "--search-path=hr"},
        {"options": "-csearch_path=hr"},
        {"options": "-c application_name='a -c search_path=hr -c app.x='"},
        {"options": "-c application_name=a\\ b -c search_path=hr"},
        {"options": "-c application_name=\"a -c search_path=hr -c app.x=\""},
        {"search_path": "hr"},
        {"SEARCH_PATH": "hr"},
        {"options": "-c session_preload_libraries=auto_explain"},
        {"options": "-c client_min_messages=debug5"},
    ],
)  # fmt: skip
def test_no_option_moves_what_a_name_means(place: Place, options: dict[str, str]) -> None:
    received = b""
    try:
        with WireClient.signed_in(place.stack, "alice", **options) as client:
            for text in ("select ssn || '' from staff", "select ssn from staff"):
                received += b"".join(client.ask(pg.query(text)))
    except EOFError:
        pass
    assert not shown(received)


def test_a_view_that_another_session_replaces_is_masked(place: Place) -> None:
    with (
        psycopg.connect(place.direct, autocommit=True) as owner,
        place.stack.connect("alice") as alice,
    ):
        owner.execute("create view v_moving as select id, name as label from people")
        try:
            until(lambda: known(alice, "select label from v_moving"))
            alice.execute("prepare moving as select label from v_moving order by 1")
            assert "Ann" in repr(alice.execute("execute moving").fetchall())
            owner.execute("create or replace view v_moving as select id, ssn::text as label "
                          "from people")  # fmt: skip
            # A statement of ours that fails makes the catalog look again.
            until(lambda: not shows(alice, "select label from v_moving"))
            assert not shows(alice, "execute moving")
        finally:
            owner.execute("drop view v_moving")


def known(session: psycopg.Connection[Any], text: str) -> bool:
    try:
        session.execute(text.encode())
    except psycopg.Error:
        return False
    return True


def shows(session: psycopg.Connection[Any], text: str) -> bool:
    try:
        return bool(shown(repr(session.execute(text.encode()).fetchall()).encode()))
    except psycopg.Error as error:
        return bool(shown(str(error).encode()))


def test_a_name_that_a_session_tried_to_make_is_not_trusted(place: Place) -> None:
    with place.stack.connect("alice") as alice:
        for text in (
            "create table if not exists v_renamed (x int)",
            "create table v_renamed (x int)",
            "create temp table v_renamed (x no_such_type)",
        ):
            known(alice, text)
            assert not shows(alice, "select * from v_renamed")
            assert not shows(alice, "select tag || '' from v_renamed")


def test_a_row_of_megabytes_is_masked(place: Place) -> None:
    text = "select ssn, repeat('x', 3000000) as filler from people order by id"
    with WireClient.signed_in(place.stack, "alice") as client:
        received = b"".join(client.ask(pg.query(text)))
        assert len(received) > 9_000_000
        assert not shown(received)
        deep = text.replace("ssn,", "ssn || '',")
        assert not shown(b"".join(client.ask(pg.query(deep))))


def test_rewrites_do_not_pass_the_largest_message(place: Place) -> None:
    with place.stack.connect("alice") as alice:
        long = "select upper(ssn) from people where name <> '" + "x" * (4 << 20) + "'"
        assert not shows(alice, long)


def test_asyncpg_sees_masks(place: Place) -> None:
    document = place.stack.document

    async def talk() -> str:
        address = document["gateways"][0]["postgres"]
        connection: Any = await asyncpg.connect(
            host="localhost", port=address["port"], user="alice",
            password=place.stack.token("alice"), database="shop",
            ssl=ssl.create_default_context(cafile=document["ca_file"]),
        )  # fmt: skip
        found = []
        try:
            for text in (CLEAR, DEEP, "select * from people where id = $1 or true",
                         "select people from people", "select phones, home, profile from people",
                         "select * from v_renamed", "select was from archive"):  # fmt: skip
                values = (1,) if "$1" in text else ()
                found.append(repr(await connection.fetch(text, *values)))
            async with connection.transaction():
                found.extend([repr(each) async for each in connection.cursor(CLEAR, prefetch=1)])
            prepared = await connection.prepare("select ssn, id from people where id = $1")
            found.append(repr(await prepared.fetch(1)))
            try:
                await connection.fetch("select ssn::int from people")
            except asyncpg.PostgresError as error:
                found.append(repr(error.as_dict()))
        finally:
            await connection.close()
        return " ".join(found)

    received = asyncio.run(talk())
    assert "***" in received
    assert not shown(received.encode())


def test_psycopg_sees_masks(place: Place) -> None:
    with place.stack.connect("alice", autocommit=False) as alice:
        for binary in (False, True):
            cursor = alice.cursor(binary=binary)
            assert not shown(repr(cursor.execute(CLEAR).fetchall()).encode())
            prepared = cursor.execute("select ssn || %s from people", ("",), prepare=True)
            assert not shown(repr(prepared.fetchall()).encode())
        with alice.cursor("server_side", withhold=True) as named:
            named.execute(CLEAR)
            alice.commit()
            assert not shown(repr(named.fetchall()).encode())
        with alice.pipeline():
            cursors = [alice.execute(text) for text in (CLEAR, DEEP, PLAIN, CLEAR)]
            assert not shown(repr([each.fetchall() for each in cursors]).encode())


@pytest.mark.parametrize(
    "command",
    ["\\copy people to stdout", "\\copy (select ssn, email from people) to stdout",
     "select ssn from people \\gx", "select ssn || '' as x from people limit 1 \\gset\n\\echo :x",
     "select format('select %L', ssn) from people \\gexec", "\\set FETCH_COUNT 1\n" + CLEAR + ";",
     "select ssn, city, id from people \\crosstabview", "\\sf get_ssn\nselect get_ssn(1);",
     "\\d+ people\n\\dS+ pg_stats\ntable pg_stats;"],
)  # fmt: skip
def test_psql_sees_masks(place: Place, command: str) -> None:
    done = subprocess.run(
        ["psql", "-X", "-v", "VERBOSITY=verbose"],
        input=command + "\n",
        env={"PATH": os.environ["PATH"], **place.stack.environment("alice")},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert not shown((done.stdout + done.stderr).encode())
    assert done.stdout + done.stderr
