"""A refusal is a missing privilege to asyncpg, to pg8000 and on the wire, as it is to psycopg
(test_gateway_refusals): the same errors in the same order, the same rows left.
"""

from __future__ import annotations

import io
import os
import socket
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import asyncpg
import pg8000.dbapi
import pg8000.exceptions
import psycopg
import pytest

from tests.e2e.stack import Stack
from tests.gateway.protocols.postgres import messages as pg
from tests.integration.conftest import CLERK
from tests.integration.test_gateway_drivers import asyncpg_through, tls
from tests.integration.test_gateway_refusals import INSERT, REFUSED, TABLE
from tests.integration.wire_client import WireClient, address

pytestmark = pytest.mark.integration

TABLES = f"""{TABLE}
drop table if exists locked;
create table locked (a int);
grant select on locked to {CLERK};
"""
"""The clerk may read `locked` and put nothing into it; through the gateway a policy says so, for
the application no-copy.
"""
COPY_DELETED = "copy (delete from kept returning a) to stdout"
COPY_LOCKED = "copy locked from stdin"


@pytest.fixture
def outside(gateway_stack: Stack, clerk: str) -> Iterator[psycopg.Connection[Any]]:
    with gateway_stack.direct() as connection:
        connection.execute(TABLES)
        yield connection


def left(outside: psycopg.Connection[Any]) -> list[Any]:
    """The rows that are there in the end; and everything is as it was in the beginning."""
    rows = outside.execute("select a from kept order by a").fetchall()
    assert outside.execute("select count(*) from locked").fetchone() == (0,)
    outside.execute(TABLES)
    return rows


# --- asyncpg ---


async def simple(c: asyncpg.Connection) -> list[Any]:
    texts = [INSERT.format(10), REFUSED, INSERT.format(11), f"{INSERT.format(12)}; {REFUSED}"]
    texts += [f"begin; {INSERT.format(13)}; {REFUSED}; commit", INSERT.format(14), "commit"]
    texts += [f"{INSERT.format(15)}; commit; {INSERT.format(16)}; {REFUSED}; select 1"]
    return [await noted(c.execute(text)) for text in texts]


async def extended(c: asyncpg.Connection) -> list[Any]:
    seen = []
    for number in (1, 2):
        seen.append(await noted(c.fetch("insert into kept values ($1) returning a", 10 + number)))
        seen.append(await noted(c.fetch("delete from kept where a = $1", number)))
        seen.append(await noted(c.fetchval("select count(*) from kept where a > $1", 0)))
    return seen


async def many_values(c: asyncpg.Connection) -> list[Any]:
    """executemany pipelines its Binds and Executes before one Sync."""
    return [
        await noted(c.executemany("insert into kept values ($1)", [(10,), (11,)])),
        await noted(c.executemany("delete from kept where a = $1", [(1,), (2,), (3,)])),
        await noted(c.executemany("insert into kept values ($1)", [(12,), (12,)])),
    ]


async def nested_transactions(c: asyncpg.Connection) -> list[Any]:
    seen = []
    async with c.transaction():
        seen.append(await noted(c.execute(INSERT.format(10))))
        try:
            async with c.transaction():
                await c.execute(INSERT.format(11))
                await c.fetch("delete from kept where a = $1", 1)
        except asyncpg.InsufficientPrivilegeError as error:
            seen.append(error.sqlstate)
        seen.append(await noted(c.execute(INSERT.format(12))))
    transaction = c.transaction()
    await transaction.start()
    seen.append(await noted(c.execute(INSERT.format(13))))
    seen.append(await noted(c.execute(REFUSED)))
    seen.append(await noted(c.execute("select 1")))
    seen.append(c.is_in_transaction())
    await transaction.rollback()
    return seen


async def copying(c: asyncpg.Connection) -> list[Any]:
    return [
        await noted(c.copy_records_to_table("kept", records=[(10,), (11,)])),
        await noted(c.copy_from_query("delete from kept returning a", output=io.BytesIO())),
        await noted(c.fetchval("select count(*) from kept")),
    ]


AsyncScript = Callable[[asyncpg.Connection], Awaitable[list[Any]]]


async def noted(work: Awaitable[Any]) -> Any:
    """The result, or its SQLSTATE."""
    try:
        result = await work
        return [tuple(row) for row in result] if isinstance(result, list) else result
    except asyncpg.PostgresError as error:
        return error.sqlstate


@pytest.mark.parametrize(
    "script",
    [simple, extended, many_values, nested_transactions, copying],
    ids=lambda script: script.__name__,
)
async def test_to_asyncpg(
    gateway_stack: Stack, clerk: str, outside: psycopg.Connection[Any], script: AsyncScript
) -> None:
    parts: Any = psycopg.conninfo.conninfo_to_dict(clerk)
    direct = await asyncpg.connect(
        host=parts["host"],
        port=int(parts["port"]),
        user=parts["user"],
        password=parts["password"],
        database=parts["dbname"],
    )
    seen, rows = [], []
    for connection in (direct, await asyncpg_through(gateway_stack, "alice")):
        seen.append(await script(connection))
        await connection.close()
        rows.append(left(outside))
    assert "42501" in seen[0]
    assert (seen[1], rows[1]) == (seen[0], rows[0])


# --- pg8000 ---


def pg8000_script(connection: pg8000.dbapi.Connection) -> list[Any]:
    cursor, seen = connection.cursor(), []

    def run(text: str, *values: Any, **options: Any) -> None:
        try:
            cursor.execute(text, values, **options)
            seen.append((cursor.fetchall() if cursor.description else None, cursor.rowcount))
        except pg8000.dbapi.DatabaseError as error:
            seen.append(error.args[0]["C"])

    def end(how: Callable[[], None]) -> None:
        try:
            seen.append(how())
        except pg8000.exceptions.InterfaceError as error:
            seen.append(str(error))

    for autocommit in (True, False):
        connection.autocommit = autocommit
        first = 10 if autocommit else 30
        run(INSERT.format(first))
        run(REFUSED)
        run(INSERT.format(first + 1))
        end(connection.commit)
        run("insert into kept values (%s)", first + 2)
        run("delete from kept where a = %s", 1)
        run("insert into kept values (%s)", first + 3)
        end(connection.rollback)
        run(f"{INSERT.format(first + 4)}; {REFUSED}; {INSERT.format(first + 5)}")
        end(connection.rollback)
        run("copy kept from stdin", stream=io.BytesIO(b"%d\n" % (first + 6)))
        run(COPY_DELETED, stream=io.BytesIO())
        run("select count(*) from kept")
        end(connection.commit)
        try:
            cursor.executemany("delete from kept where a = %s", [(1,), (2,)])
        except pg8000.dbapi.DatabaseError as error:
            seen.append(error.args[0]["C"])
        end(connection.rollback)
    return seen


def test_to_pg8000(gateway_stack: Stack, clerk: str, outside: psycopg.Connection[Any]) -> None:
    parts: Any = psycopg.conninfo.conninfo_to_dict(clerk)
    _, port = address(gateway_stack)
    direct = pg8000.dbapi.connect(
        parts["user"], parts["host"], parts["dbname"], int(parts["port"]), parts["password"]
    )
    through = pg8000.dbapi.connect(
        *("alice", "localhost", "shop", port, gateway_stack.token("alice")),
        ssl_context=tls(gateway_stack),
    )
    seen, rows = [], []
    for connection in (direct, through):
        with connection:
            seen.append(pg8000_script(connection))
        rows.append(left(outside))
    assert "42501" in seen[0]
    assert (seen[1], rows[1]) == (seen[0], rows[0])


# --- the wire ---

DATA = pg.copy_data(b"1\n") + pg.COPY_DONE


def batches() -> Iterator[tuple[bytes, int]]:
    """What is sent at once, and how many ReadyForQuery answer it."""
    insert, refused = pg.extended(INSERT.format(10)), pg.extended(REFUSED)
    copy = pg.parse(COPY_LOCKED) + pg.bind() + pg.execute()
    yield pg.query(COPY_LOCKED) + DATA + pg.query("select 1"), 2
    yield pg.query(f"{INSERT.format(20)}; {COPY_LOCKED}; select 2") + DATA, 1
    yield pg.query("begin") + pg.query(INSERT.format(21)), 2
    yield pg.query(COPY_LOCKED) + DATA + pg.query("commit"), 2
    yield insert + copy + DATA + pg.SYNC, 1
    yield pg.query("begin") + pg.query(f"{INSERT.format(22)}; commit; begin; {REFUSED}"), 2
    yield pg.query("select 1") + pg.query("rollback"), 2
    yield insert + pg.FLUSH + refused + pg.FLUSH + pg.extended("select 3") + pg.SYNC, 1
    yield pg.extended("select 4") + pg.SYNC + refused + pg.SYNC + insert + pg.SYNC, 3
    yield refused + pg.query("select 6") + pg.SYNC, 1
    yield pg.extended("begin") + pg.extended(INSERT.format(30)) + refused + pg.SYNC, 1
    yield pg.query("commit"), 1


def said(messages: list[bytes]) -> list[Any]:
    """Rows, ends, errors and states, in their order.

    The server misses the privilege when it executes, the gateway refuses at Parse: of what is
    between them (ParseComplete, BindComplete, NoData) nothing is said.
    """
    return [
        ("E", pg.fields(message)["C"], pg.fields(message)["S"]) if message[:1] == b"E" else message
        for message in messages
        if message[:1] in (b"D", b"C", b"E", b"Z", b"G", b"I")
    ]


def test_on_the_wire(gateway_stack: Stack, clerk: str, outside: psycopg.Connection[Any]) -> None:
    with psycopg.connect(clerk, autocommit=True, sslmode="disable") as signed_in:
        direct = WireClient(socket.socket(fileno=os.dup(signed_in.fileno())))
        through = WireClient.signed_in(gateway_stack, "alice", application_name="no-copy")
        seen: list[list[Any]] = []
        rows = []
        for client in (direct, through):
            seen.append([])
            for batch, times in batches():
                seen[-1].append(said(client.ask(batch, times=times)))
            client.close()
            rows.append(left(outside))
    for ours, theirs in zip(seen[1], seen[0], strict=True):
        assert ours == theirs
    assert rows[1] == rows[0]
    assert repr(seen[0]).count("42501") == 9
