"""The embedded PostgreSQL and its seed."""

from __future__ import annotations

import asyncpg
import pytest

from tests.conftest import SMALL, PostgresServer

pytestmark = pytest.mark.integration


async def test_the_shop_is_filled_and_owned_by_the_gateways_role(postgres: PostgresServer) -> None:
    connection = await asyncpg.connect(
        host=postgres.host,
        port=postgres.port,
        user=postgres.user,
        password=postgres.password,
        database=postgres.database,
    )
    try:
        assert await connection.fetchval("select count(*) from customers") == SMALL.customers
        assert await connection.fetchval("select count(*) from orders") == SMALL.orders
        owners = await connection.fetch(
            "select tableowner from pg_tables where schemaname = 'public'"
        )
        assert {row["tableowner"] for row in owners} == {postgres.user}
        assert not await connection.fetchval(
            "select rolsuper from pg_roles where rolname = current_user"
        )
    finally:
        await connection.close()


async def test_a_wrong_password_is_refused(postgres: PostgresServer) -> None:
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(
            host=postgres.host,
            port=postgres.port,
            user=postgres.user,
            password="guess",
            database=postgres.database,
        )


async def test_it_listens_on_loopback_tcp_alone(postgres: PostgresServer) -> None:
    connection = await asyncpg.connect(postgres.dsn)
    try:
        assert await connection.fetchval("show listen_addresses") == "127.0.0.1"
        assert await connection.fetchval("show unix_socket_directories") == ""
        assert await connection.fetchval("show password_encryption") == "scram-sha-256"
    finally:
        await connection.close()
