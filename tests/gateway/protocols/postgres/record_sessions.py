"""Records what real clients send, as seeds for fuzzing.py.

    python -m tests.gateway.protocols.postgres.record_sessions

Starts a PostgreSQL, puts a relay before it, and lets psql, psycopg 3, asyncpg and pg8000 work
through it. What they sent after sign-in goes to sessions/, one file for each connection.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import asyncpg
import pg8000.dbapi
import psycopg
from psycopg.conninfo import conninfo_to_dict

from cli import psql
from infra.devstack.plan import Options
from infra.devstack.shop import Size
from tests.conftest import running
from tests.gateway.protocols.postgres import messages as pg
from tests.gateway.protocols.postgres.fuzzing import SESSIONS

SCRIPT = """
create temp table t (a int, b text);
insert into t values (1, 'it''s'), (2, e'a\\\\b'), (3, null);
copy t from stdin;
4\tfour
\\.
copy t to stdout;
begin; select a from t; savepoint s; select 1/0; rollback to s; commit;
prepare p(int) as select $1 + 1; execute p(1); deallocate p;
declare c cursor with hold for select * from t; fetch 2 from c; close c;
select 1 \\; select 2 \\; select 3;
select $1::int \\bind 7 \\g
set application_name to 'x'; show search_path; listen l; notify l; drop table t;
"""


class Relay:
    """Passes bytes to a server and keeps what one client sent."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self.said = bytearray()
        self.over = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        upstream_reader, upstream = await asyncio.open_connection(self._host, self._port)

        async def move(
            source: asyncio.StreamReader, sink: asyncio.StreamWriter, kept: bytearray | None
        ) -> None:
            while data := await source.read(65536):
                if kept is not None:
                    kept += data
                sink.write(data)
            sink.close()

        await asyncio.gather(
            move(reader, upstream, self.said), move(upstream_reader, writer, None),
            return_exceptions=True,
        )  # fmt: skip
        self.over.set()


def after_sign_in(said: bytes) -> bytes:
    """Without what is private or no message: requests for TLS, the startup packet, passwords."""
    while said[:8] in (pg.SSL_REQUEST, pg.GSSENC_REQUEST):
        said = said[8:]
    said = said[int.from_bytes(said[:4], "big") :]
    return b"".join(message for message in pg.split(said) if message[:1] != b"p")


async def with_psql(arguments: dict[str, Any]) -> None:
    environment = {f"PG{name.upper()}": str(value) for name, value in arguments.items()}
    environment["PGDATABASE"] = environment.pop("PGDBNAME")
    await asyncio.to_thread(
        subprocess.run,
        [psql.executable(), "-X", "-q", "-o", os.devnull],
        input=SCRIPT.encode(),
        env={**os.environ, **environment, "PGSSLMODE": "disable"},
        capture_output=True,
    )


async def with_psycopg(arguments: dict[str, Any]) -> None:
    def work() -> None:
        with psycopg.connect(**arguments, sslmode="disable", autocommit=True) as connection:
            connection.execute("create temp table t (a int, b text)")
            connection.cursor().executemany(
                "insert into t values (%s, %s)", [(n, f"row {n}") for n in range(5)]
            )
            for _ in range(7):
                connection.execute("select * from t where a = %s", (2,)).fetchall()
            with connection.cursor().copy("copy t from stdin") as copy:
                copy.write_row((7, "seven"))
            with connection.cursor().copy("copy t to stdout (format binary)") as copy:
                list(copy)
            with connection.pipeline():
                for number in range(5):
                    connection.execute("select %s::int", (number,))
            with connection.transaction(), connection.cursor("c") as cursor:
                cursor.execute("select * from t")
                cursor.fetchmany(2)
            try:
                with connection.pipeline():
                    connection.execute("select 1/0")
                    connection.execute("select 1")
            except psycopg.Error:
                pass

    await asyncio.to_thread(work)


async def with_asyncpg(arguments: dict[str, Any]) -> None:
    connection = await asyncpg.connect(
        host=arguments["host"], port=arguments["port"], user=arguments["user"],
        password=arguments["password"], database=arguments["dbname"], ssl=False,
    )  # fmt: skip
    try:
        await connection.execute("create temp table t (a int, b text); select 1; select 2")
        await connection.executemany("insert into t values ($1, $2)", [(n, "x") for n in range(5)])
        statement = await connection.prepare("select * from t where a > $1")
        await statement.fetch(1)
        async with connection.transaction():
            async for _ in connection.cursor("select a from t", prefetch=2):
                pass
        await connection.copy_records_to_table("t", records=[(9, "nine")])
        await connection.fetchval("select 1/$1", 1)
    finally:
        await connection.close()


async def with_pg8000(arguments: dict[str, Any]) -> None:
    def work() -> None:
        connection = pg8000.dbapi.connect(
            user=arguments["user"], password=arguments["password"], host=arguments["host"],
            port=int(arguments["port"]), database=arguments["dbname"], ssl_context=False,
        )  # fmt: skip
        cursor = connection.cursor()
        cursor.execute("create temp table t (a int, b text)")
        cursor.executemany("insert into t values (%s, %s)", [(1, "a"), (2, None)])
        cursor.execute("select * from t")
        connection.commit()
        connection.close()

    await asyncio.to_thread(work)


CLIENTS: dict[str, Callable[[dict[str, Any]], Awaitable[None]]] = {
    "psql": with_psql,
    "psycopg": with_psycopg,
    "asyncpg": with_asyncpg,
    "pg8000": with_pg8000,
}


async def record(conninfo: str) -> None:
    """A file for each client."""
    direct = conninfo_to_dict(conninfo)
    for name, work in CLIENTS.items():
        relay = Relay(str(direct["host"]), int(direct["port"] or 5432))
        server = await asyncio.start_server(relay.serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        chosen = {key: direct[key] for key in ("user", "password", "dbname")}
        await work({**chosen, "host": "127.0.0.1", "port": port})
        # What a client says last, its Terminate, may come after it has gone.
        await relay.over.wait()
        server.close()
        kept = after_sign_in(bytes(relay.said))
        (SESSIONS / f"{name}.bin").write_bytes(kept)
        print(f"{name}: {len(pg.split(kept))} messages")


def main() -> None:
    """Record all of them."""
    SESSIONS.mkdir(exist_ok=True)
    root = Path(tempfile.mkdtemp(prefix="gatebook-record-"))
    for document in running(root, Options(only=("postgres",), size=Size(50, 100))):
        asyncio.run(record(document["targets"][0]["direct_conninfo"]))


if __name__ == "__main__":
    main()
