"""asyncpg and pg8000 see through the gateway what they see at PostgreSQL itself."""

from __future__ import annotations

import asyncio
import io
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import asyncpg
import pg8000.dbapi
import psycopg
import pytest

from tests.e2e.stack import Stack
from tests.integration.wire_client import address

pytestmark = pytest.mark.integration

TABLE = "drop table if exists driven; create table driven (a int primary key, b text)"


@pytest.fixture(autouse=True)
def outside(gateway_stack: Stack) -> Iterator[psycopg.Connection[Any]]:
    with gateway_stack.direct() as connection:
        connection.execute(TABLE)
        yield connection


def tls(stack: Stack) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=stack.document["ca_file"])


# --- asyncpg ---


async def asyncpg_through(stack: Stack, user: str = "bob") -> asyncpg.Connection:
    _, port = address(stack)
    return await asyncpg.connect(
        host="localhost",
        port=port,
        user=user,
        password=stack.token(user),
        database="shop",
        ssl=tls(stack),
    )


async def asyncpg_direct(stack: Stack) -> asyncpg.Connection:
    return await asyncpg.connect(stack.document["targets"][0]["direct_conninfo"])


async def noted(seen: list[Any], work: Awaitable[Any]) -> None:
    """The result, or the error as asyncpg describes it."""
    try:
        result = await work
        seen.append([tuple(row) for row in result] if isinstance(result, list) else result)
    except asyncpg.PostgresError as error:
        names = ("sqlstate", "severity", "message", "detail", "hint", "position")
        seen.append([getattr(error, name, None) for name in names])


async def queries(c: asyncpg.Connection, seen: list[Any]) -> None:
    await noted(seen, c.fetch("select $1::int + 1, $2::text, $3::date", 4, "ü", None))
    await noted(seen, c.fetchval("select count(*) from customers"))
    await noted(seen, c.execute("insert into driven values (1, 'x'); select 1"))
    await noted(seen, c.execute("insert into driven values ($1, $2)", 1, "x"))
    await noted(seen, c.execute("select 1/0"))
    await noted(seen, c.fetch("selec 1"))
    await noted(seen, c.fetch("select * from nowhere where a = $1", 1))
    await noted(seen, c.fetchrow("select array[1, 2], '{\"a\": 1}'::jsonb, row(1, 'x')"))


async def statements(c: asyncpg.Connection, seen: list[Any]) -> None:
    statement = await c.prepare("select $1::int * 2")
    for number in range(50):
        assert await statement.fetchval(number) == number * 2
    seen.append([str(a) for a in statement.get_attributes()])
    await noted(
        seen, c.executemany("insert into driven values ($1, $2)", [(n, "m") for n in range(50)])
    )
    await noted(seen, c.executemany("insert into driven values ($1)", [(50,), (1,), (51,)]))
    await noted(seen, c.fetch("select a from driven order by a"))
    await noted(seen, c.fetchmany("select $1::int", [(1,), (2,)]))
    await c.reset()
    await noted(seen, statement.fetchval(1))


async def in_transactions(c: asyncpg.Connection, seen: list[Any]) -> None:
    async with c.transaction():
        await c.execute("insert into driven values (1)")
        try:
            async with c.transaction():
                await c.execute("insert into driven values (2)")
                await c.execute("insert into driven values (1)")
        except asyncpg.UniqueViolationError as error:
            seen.append(error.detail)
        seen.append(
            [row["a"] async for row in c.cursor("select generate_series(1, 120) a", prefetch=50)]
        )
        cursor = await c.cursor("select generate_series(1, 20)")
        seen.append([tuple(row) for row in await cursor.fetch(7)])
        await cursor.forward(5)
        seen.append([tuple(row) for row in await cursor.fetch(20)])
    transaction = c.transaction(isolation="serializable", readonly=True)
    await transaction.start()
    await noted(seen, c.execute("insert into driven values (3)"))
    await noted(seen, c.execute("select 1"))
    await transaction.rollback()
    await noted(seen, c.fetch("select a from driven"))


async def copies(c: asyncpg.Connection, seen: list[Any]) -> None:
    records = [(number, f"row {number}") for number in range(2_000)]
    await noted(seen, c.copy_records_to_table("driven", records=records))
    await noted(seen, c.copy_records_to_table("driven", records=records[:1]))
    out = io.BytesIO()
    await noted(seen, c.copy_from_query("select * from driven where a < $1", 5, output=out))
    await noted(seen, c.copy_from_table("driven", output=out, format="csv", header=True))
    seen.append(out.getvalue())
    await noted(seen, c.copy_to_table("driven", source=io.BytesIO(b"9000,x\nbad"), format="csv"))
    await noted(seen, c.fetchval("select count(*) from driven"))


async def interruptions(c: asyncpg.Connection, seen: list[Any]) -> None:
    try:
        await asyncio.wait_for(c.execute("select pg_sleep(20)"), 0.3)
    except TimeoutError:
        seen.append("timed out")
    await noted(seen, c.fetchval("select 7"))
    heard: asyncio.Queue[Any] = asyncio.Queue()
    await c.add_listener(
        "news", lambda _, __, channel, payload: heard.put_nowait((channel, payload))
    )
    c.add_log_listener(lambda _, message: heard.put_nowait(message.message))
    await c.execute("notify news, 'one'")
    seen.append(await asyncio.wait_for(heard.get(), 10))
    await c.execute("do $$ begin raise notice 'two'; end $$")
    seen.append(await asyncio.wait_for(heard.get(), 10))


AsyncScript = Callable[[asyncpg.Connection, list[Any]], Awaitable[None]]
ASYNC_SCRIPTS: list[AsyncScript] = [queries, statements, in_transactions, copies, interruptions]


@pytest.mark.parametrize("script", ASYNC_SCRIPTS, ids=lambda script: script.__name__)
async def test_asyncpg_sees_the_same(
    gateway_stack: Stack, outside: psycopg.Connection[Any], script: AsyncScript
) -> None:
    found = []
    for connect in (asyncpg_direct, asyncpg_through):
        outside.execute(TABLE)
        seen: list[Any] = []
        connection = await connect(gateway_stack)
        try:
            await script(connection, seen)
        finally:
            await connection.close()
        found.append((seen, outside.execute("select * from driven order by a").fetchall()))
    assert found[1] == found[0]


@pytest.fixture
async def alice(gateway_stack: Stack) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg_through(gateway_stack, "alice")
    yield connection
    await connection.close()


async def test_asyncpg_understands_a_refusal(alice: asyncpg.Connection) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="clerks insert and read"):
        await alice.fetch("delete from driven where a = $1", 5)
    async with alice.transaction():
        await alice.execute("insert into driven values (1)")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with alice.transaction():
                await alice.execute("truncate driven")
    assert await alice.fetchval("select count(*) from driven") == 1


# --- pg8000 ---


def pg8000_through(stack: Stack) -> pg8000.dbapi.Connection:
    _, port = address(stack)
    return pg8000.dbapi.connect(
        "bob", "localhost", "shop", port, stack.token("bob"), ssl_context=tls(stack)
    )


def pg8000_direct(stack: Stack) -> pg8000.dbapi.Connection:
    parts = psycopg.conninfo.conninfo_to_dict(stack.document["targets"][0]["direct_conninfo"])
    return pg8000.dbapi.connect(
        parts["user"], parts["host"], parts["dbname"], int(parts["port"]), parts["password"]
    )


def pg8000_script(connection: pg8000.dbapi.Connection, seen: list[Any]) -> None:
    cursor = connection.cursor()

    def run(text: str, *values: Any, **options: Any) -> None:
        try:
            cursor.execute(text, values, **options)
            seen.append((cursor.fetchall() if cursor.description else None, cursor.rowcount))
        except pg8000.dbapi.DatabaseError as error:
            said = dict(error.args[0])
            seen.append({key: said.get(key) for key in "SVCMDHP"})

    run("select %s, %s, %s", 1, "ü", None)
    run("insert into driven values (%s, %s)", 1, "x")
    run("insert into driven values (%s, %s)", 1, "x")
    run("select 1")
    connection.rollback()
    run("select * from nowhere")
    connection.rollback()
    run("selec 1")
    connection.rollback()
    cursor.executemany("insert into driven values (%s, %s)", [(n, "m") for n in range(10)])
    connection.commit()
    run("copy driven from stdin", stream=io.BytesIO(b"20\ta\n21\tb\n"))
    connection.commit()
    out = io.BytesIO()
    run("copy (select * from driven order by a) to stdout", stream=out)
    seen.append(out.getvalue())
    run("copy driven from stdin", stream=io.BytesIO(b"22\ta\n22\tb\n"))
    connection.rollback()
    run("copy driven from stdin", stream=io.BytesIO(b"not a number\n"))
    connection.rollback()
    run("select count(*) from driven")
    connection.autocommit = True
    run("listen news")
    run("notify news, 'one'")
    run("select 1")
    seen.append([(channel, payload) for _, channel, payload in connection.notifications])
    run("do $$ begin raise notice 'two'; end $$")
    seen.append([notice[b"M"] for notice in connection.notices])
    run("set client_encoding = 'latin1'")
    run("select 'ü'")


def test_pg8000_sees_the_same(gateway_stack: Stack, outside: psycopg.Connection[Any]) -> None:
    found = []
    for connect in (pg8000_direct, pg8000_through):
        outside.execute(TABLE)
        seen: list[Any] = []
        with connect(gateway_stack) as connection:
            pg8000_script(connection, seen)
        found.append((seen, outside.execute("select * from driven order by a").fetchall()))
    assert found[1] == found[0]
