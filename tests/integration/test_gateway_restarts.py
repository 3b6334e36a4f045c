"""Half-closed connections and restarts of the server, as clients see them at the server itself."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import Iterator
from typing import Any

import asyncpg
import psycopg
import pytest

from infra.devstack.plan import Options
from tests.conftest import SMALL, running
from tests.e2e.stack import Stack, until
from tests.gateway.protocols.postgres import messages as pg
from tests.integration.test_gateway_drivers import tls
from tests.integration.wire_client import WireClient, address

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One of its own: its server is restarted."""
    root = tmp_path_factory.mktemp("endings")
    config = root / "over.yaml"
    config.write_text("gateway: {postgres: {cleartext_loopback: true}}\n")
    kinds = ("kafka", "postgres", "issuer", "gateway")
    for _ in running(root / "stack", Options(gateways=1, only=kinds, size=SMALL, config=config)):
        yield Stack(root / "stack")


def in_clear(stack: Stack, receive_bytes: int | None = None) -> WireClient:
    client = WireClient.plain(stack, receive_bytes)
    client.send(pg.startup(user="bob", database="shop"))
    client.until("R")
    client.send(pg.password(stack.token("bob")))
    client.until("Z")
    return client


def direct(stack: Stack) -> tuple[psycopg.Connection[Any], WireClient]:
    """A signed-in session at the server, and its bare socket."""
    connection = stack.direct()
    return connection, WireClient(socket.socket(fileno=connection.pgconn.socket).dup())


# --- half-closed ---


@pytest.mark.parametrize(
    "asked",
    [
        pg.query("select pg_sleep(0.3), 7 as a") + pg.TERMINATE,
        pg.extended("select pg_sleep(0.3), 7 as a") + pg.SYNC + pg.TERMINATE,
    ],
)
def test_a_client_that_has_said_everything_still_reads_the_answer(
    stack: Stack, asked: bytes
) -> None:
    """`nc` with a file: it shuts down its writing side and reads to the end."""
    connection, at_server = direct(stack)
    told = []
    for client in (at_server, in_clear(stack)):
        client.send(asked)
        client.socket.shutdown(socket.SHUT_WR)
        told.append(client.to_the_end())
        client.close()
    connection.close()
    assert told[1] == told[0]
    assert pg.kinds(b"".join(told[0])).endswith("CZ")


def test_what_ends_a_session_reaches_a_client_that_is_still_sending(stack: Stack) -> None:
    """It reads nothing before it has sent all: what it asked for earlier is not with it yet either.

    In TLS its own end waits for the client.
    """
    with in_clear(stack, receive_bytes=4096) as client:
        recorded = stack.metric("gatebook_journal_events_total")
        client.send(pg.query("select repeat('x', 200000)"))
        # Requested, Decided, Responded, Completed: the answer is on its way.
        until(lambda: stack.metric("gatebook_journal_events_total") >= recorded + 4)
        # As libpq does it: one that cannot send looks for the reason.
        with contextlib.suppress(ConnectionError):
            # A length that no message has, and megabytes behind it.
            client.send(b"Q\x7f\xff\xff\xff" + b"x" * 20_000_000)
        said = client.to_the_end()
        assert pg.kinds(b"".join(said)) == "TDCZE"
        assert pg.fields(said[-1])["C"] == "54000"


def test_a_client_that_ends_without_terminate_is_gone(stack: Stack) -> None:
    client = in_clear(stack)
    client.send(pg.query("begin"))
    client.until("Z")
    client.socket.shutdown(socket.SHUT_WR)
    assert client.to_the_end() == []
    client.close()
    until(lambda: stack.metric("gatebook_connections") == 0)


# --- restarts ---


def restart(stack: Stack) -> None:
    """As `systemctl restart` does it: "fast", every session is told."""
    restarts = stack.process("postgres")["restarts"]
    stack.send("postgres", signal.SIGINT)
    until(lambda: stack.served_again("postgres", restarts))


def test_a_restart_in_the_middle_of_a_transaction_and_between_statements(stack: Stack) -> None:
    """Sessions through the gateway end with the words of those at the server."""
    told = []
    with stack.direct() as outside:
        outside.execute("create table if not exists restarted (a int)")
    connection, at_server = direct(stack)
    clients = [at_server, in_clear(stack), WireClient.signed_in(stack, "bob")]
    for client in clients:
        client.ask(pg.query("begin"))
        client.ask(pg.query("insert into restarted values (1)"))
    idle_connection, idle_at_server = direct(stack)
    idle = [idle_at_server, in_clear(stack), WireClient.signed_in(stack, "bob")]
    restart(stack)
    for client in (*clients, *idle):
        words = client.to_the_end()
        told.append([(pg.fields(one)["C"], pg.fields(one)["S"]) for one in words])
        client.close()
    connection.close()
    idle_connection.close()
    assert told == [[("57P01", "FATAL")]] * 6
    # New sessions work at once, and nothing was committed.
    with stack.connect() as after:
        assert after.execute("select count(*) from restarted").fetchone() == (0,)


async def test_a_pool_recovers_after_a_restart(stack: Stack) -> None:
    _, port = address(stack)
    pool = await asyncpg.create_pool(
        host="localhost",
        port=port,
        user="bob",
        password=stack.token("bob"),
        database="shop",
        ssl=tls(stack),
        min_size=3,
        max_size=3,
    )
    async with pool:
        assert await pool.fetchval("select 1") == 1
        await asyncio.to_thread(restart, stack)
        # As at the server: a connection that ended is noticed and replaced.
        assert [await pool.fetchval("select $1::int", n) for n in range(6)] == list(range(6))
