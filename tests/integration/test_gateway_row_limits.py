"""Row limits at a real server: the error is the server's too, whoever asks and however."""

from __future__ import annotations

import asyncio
import os
import ssl
import subprocess
from collections.abc import Iterator
from typing import Any

import asyncpg
import psycopg
import pytest
from psycopg.pq import TransactionStatus

from schemas.events import Completed, Decided
from tests.e2e import book
from tests.e2e.stack import Stack

pytestmark = pytest.mark.integration

LIMITED = psycopg.errors.ProgramLimitExceeded
MANY = "select generate_series(1, %s) as n"


@pytest.fixture
def three(gateway_stack: Stack) -> Iterator[psycopg.Connection[Any]]:
    """Someone who may have three rows of a statement."""
    with gateway_stack.direct() as owner:
        owner.execute("drop table if exists counted; create table counted (n int)")
        owner.execute("grant all on counted to public")
    with gateway_stack.connect(application_name="three-rows") as connection:
        yield connection


def kept(stack: Stack) -> int:
    with stack.direct() as owner:
        row = owner.execute("select count(*) from counted").fetchone()
        assert row is not None
        return int(row[0])


def fails(connection: psycopg.Connection[Any], text: str, values: Any = None, **more: Any) -> None:
    with pytest.raises(LIMITED, match="row limit exceeded: three rows here") as refused:
        connection.execute(text, values, **more).fetchall()
    assert refused.value.diag.message_hint == "Count them."
    assert "after 3 rows (policy three-rows)" in str(refused.value.diag.message_detail)


# A few rows are all on their way before a cancellation could arrive, and millions are not.
@pytest.mark.parametrize("rows", [4, 3000, 30_000_000])
@pytest.mark.parametrize("binary", [False, True])
def test_the_fourth_row_is_an_error_and_the_session_goes_on(
    three: psycopg.Connection[Any], rows: int, binary: bool
) -> None:
    for _ in range(3):
        fails(three, MANY, (rows,), binary=binary)
        fails(three, f"select generate_series(1, {rows})")
        assert three.info.transaction_status is TransactionStatus.IDLE
        assert three.execute(MANY, (3,), binary=binary).fetchall() == [(1,), (2,), (3,)]


@pytest.mark.parametrize("rows", [4, 30_000_000])
def test_a_transaction_is_failed_as_by_an_error_of_the_server(
    gateway_stack: Stack, three: psycopg.Connection[Any], rows: int
) -> None:
    three.execute("begin")
    three.execute("insert into counted values (1)")
    three.execute("savepoint s")
    fails(three, f"select generate_series(1, {rows})")
    assert three.info.transaction_status is TransactionStatus.INERROR
    with pytest.raises(psycopg.errors.InFailedSqlTransaction):
        three.execute("select 1")
    three.execute("rollback to s")
    assert three.execute("select count(*) from counted").fetchone() == (1,)
    fails(three, MANY, (rows,))
    assert three.execute("commit").statusmessage == "ROLLBACK"
    assert kept(gateway_stack) == 0


@pytest.mark.parametrize(
    "values",
    [None, ()],
)
def test_a_change_that_returns_too_much_is_undone(
    gateway_stack: Stack, three: psycopg.Connection[Any], values: Any
) -> None:
    text = "insert into counted select generate_series(1, 4) returning n"
    fails(three, text, values)
    fails(
        three,
        "with c as (insert into counted values (1) returning n) select * from c,"
        " generate_series(1, 9)",
        values,
    )
    fails(three, f"select 1; insert into counted values (7); {text}")
    assert kept(gateway_stack) == 0
    three.execute(text.replace("4", "3"), values)
    three.execute("insert into counted select generate_series(1, 100)", values)
    assert kept(gateway_stack) == 103


def test_a_pipeline_is_undone_up_to_its_sync(
    gateway_stack: Stack, three: psycopg.Connection[Any]
) -> None:
    with pytest.raises(LIMITED), three.pipeline() as pipeline:
        three.execute("insert into counted values (1)")
        three.execute(MANY, (9,))
        three.execute("insert into counted values (2)")
        pipeline.sync()
    assert kept(gateway_stack) == 0
    with three.pipeline():
        for number in range(5):
            three.execute("insert into counted values (%s) returning n", (number,))
    assert kept(gateway_stack) == 5


def test_fetches_from_a_cursor_count_together(three: psycopg.Connection[Any]) -> None:
    three.execute("begin")
    with three.cursor("named") as cursor:
        cursor.execute(MANY, (100,))
        assert cursor.fetchmany(2) == [(1,), (2,)]
        assert cursor.fetchmany(1) == [(3,)]
        with pytest.raises(LIMITED):
            cursor.fetchmany(1)
        assert three.info.transaction_status is TransactionStatus.INERROR
        three.execute("rollback")
    three.execute("begin")
    three.execute("declare again scroll cursor for select 1 as one union all select 2")
    assert three.execute("fetch all from again").fetchall() == [(1,), (2,)]
    assert three.execute("fetch backward 1 from again").fetchall() == [(2,)]
    fails(three, "fetch backward 1 from again")
    three.execute("rollback")


async def test_portals_of_asyncpg_count_together(gateway_stack: Stack) -> None:
    address = gateway_stack.document["gateways"][0]["postgres"]
    context = ssl.create_default_context(cafile=gateway_stack.document["ca_file"])
    context.check_hostname = False
    connection = await asyncpg.connect(
        host=address["host"],
        port=address["port"],
        user="bob",
        password=gateway_stack.token("bob"),
        database="shop",
        ssl=context,
        server_settings={"application_name": "three-rows"},
    )
    try:
        async with asyncio.timeout(60):
            seen: list[int] = []
            with pytest.raises(asyncpg.ProgramLimitExceededError):
                async with connection.transaction():
                    async for row in connection.cursor(
                        "select generate_series(1, 100) as n", prefetch=2
                    ):
                        seen.append(row["n"])  # noqa: PERF401 (what came before the error counts)
            assert seen == [1, 2]
            assert len(await connection.fetch("select generate_series(1, 3)")) == 3
            with pytest.raises(asyncpg.ProgramLimitExceededError):
                await connection.fetch("select generate_series(1, 30000000)")
            with pytest.raises(asyncpg.ProgramLimitExceededError):
                await connection.execute("select generate_series(1, 4)")
            assert await connection.fetchval("select 1") == 1
    finally:
        await connection.close()


@pytest.mark.parametrize("options", ["", " (format csv, header)", " (format binary)"])
def test_rows_of_a_copy_count_and_its_heading_does_not(
    three: psycopg.Connection[Any], options: str
) -> None:
    def copy(rows: int) -> list[bytes]:
        text = f"copy (select generate_series(1, {rows})) to stdout{options}"
        with three.cursor() as cursor, cursor.copy(text) as out:
            return [bytes(piece) for piece in out]

    heading = " (format csv, header)" in options
    assert len([piece for piece in copy(3) if piece != b"\xff\xff"]) == 3 + heading
    for rows in (4, 3_000_000):
        with pytest.raises(LIMITED):
            copy(rows)
    assert len(copy(2)) >= 2


def test_statements_that_cannot_be_limited_together_are_refused(
    gateway_stack: Stack, three: psycopg.Connection[Any]
) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="one by one"):
        three.execute("begin; select 1; commit")
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="one by one"):
        three.execute("insert into counted values (1); commit; select 1")
    assert kept(gateway_stack) == 0


def test_psql_reads_the_error_where_the_rows_end(gateway_stack: Stack) -> None:
    environment = gateway_stack.environment("bob") | {"PGAPPNAME": "three-rows"}
    script = "select generate_series(1, 5) as n;\n\\echo :SQLSTATE\nselect 'on' as goes;\n"
    done = subprocess.run(
        ["psql", "-XAt"],
        input=script,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "ERROR:  row limit exceeded: three rows here" in done.stderr
    assert "HINT:  Count them." in done.stderr
    assert done.stdout.splitlines()[-2:] == ["54000", "on"]


async def test_the_book_says_that_the_limit_ended_it(gateway_stack: Stack) -> None:
    servers = gateway_stack.document["kafka"]["bootstrap_servers"]
    since = await book.end(servers)
    with gateway_stack.connect(application_name="three-rows") as connection:
        fails(connection, "select generate_series(1, 7)")
        connection.execute("select 1")
    events = [
        entry.event
        for entry in await book.read(servers, gateway_stack.state.keys, since)
        if entry.event.context.client.application == "three-rows"
    ]
    decided = [event for event in events if isinstance(event, Decided)]
    assert [(one.decision, one.max_rows) for one in decided] == [
        ("ALLOW", 0),
        ("ALLOW", 3),
        ("ALLOW", 3),
    ]
    assert decided[1].policies == ["dba", "three-rows"]
    ends = [event for event in events if isinstance(event, Completed)]
    assert [(end.outcome, end.error_code, end.rows) for end in ends] == [
        ("completed", "", 0),
        ("limited", "54000", 3),
        ("completed", "", 1),
    ]
