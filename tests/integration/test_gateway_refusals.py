"""A statement refused by policy ends as one that PostgreSQL itself refuses for a missing privilege.

Each script runs twice: as CLERK at PostgreSQL, who lacks the privilege to delete, and as alice
through the gateway, whose policy forbids it. Transaction states and committed rows must be equal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from psycopg.pq import DiagnosticField, ExecStatus

from tests.e2e.stack import Stack
from tests.integration.conftest import CLERK

pytestmark = pytest.mark.integration

Connection = psycopg.Connection[Any]
Script = Callable[[Connection, list[Any]], None]

TABLE = f"""
drop table if exists kept;
create table kept (a int primary key);
insert into kept values (1), (2), (3);
grant select, insert on kept to {CLERK};
"""
REFUSED = "delete from kept where a = 1"
INSERT = "insert into kept values ({})"


def run(connection: Connection, seen: list[Any], text: str, *values: Any, **options: Any) -> None:
    """Note what came of it: rows or SQLSTATE, and the transaction's state."""
    try:
        cursor = connection.execute(text, values or None, **options)  # type: ignore[arg-type]
        seen.append(cursor.fetchall() if cursor.description else cursor.statusmessage)
    except psycopg.Error as error:
        seen.append(error.sqlstate)
    seen.append(connection.info.transaction_status)


def alone(connection: Connection, seen: list[Any]) -> None:
    for text in (INSERT.format(10), REFUSED, INSERT.format(11)):
        run(connection, seen, text)


def in_a_transaction(connection: Connection, seen: list[Any]) -> None:
    for text in ("begin", INSERT.format(10), REFUSED, INSERT.format(11), REFUSED, "commit"):
        run(connection, seen, text)


def after_a_savepoint(connection: Connection, seen: list[Any]) -> None:
    for text in (
        *("begin", INSERT.format(10), "savepoint s", INSERT.format(11), REFUSED),
        *("select 1", "rollback to s", INSERT.format(12), "commit"),
    ):
        run(connection, seen, text)


def in_one_query(connection: Connection, seen: list[Any]) -> None:
    run(connection, seen, f"{INSERT.format(10)}; {REFUSED}; {INSERT.format(11)}")
    run(connection, seen, f"{REFUSED}; {INSERT.format(12)}")
    run(connection, seen, f"{INSERT.format(13)}; commit; {INSERT.format(14)}; {REFUSED}")
    run(connection, seen, f"begin; {INSERT.format(15)}; {REFUSED}; commit")
    run(connection, seen, "commit")
    run(connection, seen, f"{INSERT.format(1)}; {REFUSED}")
    run(connection, seen, f"select 1/0; {REFUSED}")
    run(connection, seen, f"select 'a;b' /* ; */; {INSERT.format(16)} -- ;\n; {REFUSED}")
    run(connection, seen, f"begin; {INSERT.format(17)}; commit; {REFUSED}")


def with_values(connection: Connection, seen: list[Any]) -> None:
    run(connection, seen, "begin")
    run(connection, seen, "insert into kept values (%s)", 10)
    run(connection, seen, "delete from kept where a = %s", 1)
    run(connection, seen, "insert into kept values (%s)", 11)
    run(connection, seen, "commit")
    run(connection, seen, "delete from kept where a = %s", 1)
    run(connection, seen, "select %s::int", 1)


def prepared(connection: Connection, seen: list[Any]) -> None:
    for number in range(3):
        run(connection, seen, "insert into kept values (%s)", 10 + number, prepare=True)
        run(connection, seen, "delete from kept where a = %s", number, prepare=True)


def pipelined(connection: Connection, seen: list[Any], *segments: list[str]) -> None:
    """Segments of a pipeline, each with its Sync, all sent at once.

    Through libpq itself, since psycopg raises an error of a pipeline at a moment of its choosing.
    """
    libpq = connection.pgconn
    libpq.nonblocking = 0
    libpq.enter_pipeline_mode()
    for texts in segments:
        for text in texts:
            libpq.send_query_params(text.encode(), None)
        libpq.pipeline_sync()
    syncs = 0
    while syncs < len(segments):
        result = libpq.get_result()
        if result is not None:
            syncs += result.status == ExecStatus.PIPELINE_SYNC
            sqlstate = result.error_field(DiagnosticField.SQLSTATE)
            seen.append((ExecStatus(result.status).name, result.command_status, sqlstate))
    libpq.exit_pipeline_mode()
    libpq.nonblocking = 1
    seen.append(connection.info.transaction_status)


def in_a_pipeline(connection: Connection, seen: list[Any]) -> None:
    for texts in (
        [INSERT.format(10), REFUSED, INSERT.format(11)],
        [REFUSED, INSERT.format(12)],
        [INSERT.format(13), "select 1", REFUSED],
        ["begin", INSERT.format(14), REFUSED, "commit"],
        ["begin", INSERT.format(15), "commit", REFUSED],
    ):
        pipelined(connection, seen, texts)
        run(connection, seen, "rollback")


def between_syncs(connection: Connection, seen: list[Any]) -> None:
    pipelined(
        connection,
        seen,
        [INSERT.format(10)],
        [REFUSED, INSERT.format(11)],
        [],
        [REFUSED],
        [INSERT.format(12)],
    )


def with_copy(connection: Connection, seen: list[Any]) -> None:
    run(connection, seen, "begin")
    with connection.cursor() as cursor, cursor.copy("copy kept from stdin") as copy:
        copy.write("10\n11\n")
    run(connection, seen, REFUSED)
    run(connection, seen, "commit")
    with connection.cursor() as cursor, cursor.copy("copy kept from stdin") as copy:
        copy.write("12\n")
    for text in ("copy (delete from kept returning a) to stdout", "copy nowhere to stdout"):
        try:
            with connection.cursor() as cursor, cursor.copy(text) as copy:
                seen.append(b"".join(copy))
        except psycopg.Error as error:
            seen.append(error.sqlstate)
        seen.append(connection.info.transaction_status)
    run(connection, seen, f"{INSERT.format(13)}; copy (delete from kept returning a) to stdout")


def hidden_in_others(connection: Connection, seen: list[Any]) -> None:
    for text in (
        "with d as (delete from kept returning a) select * from d",
        "explain analyze delete from kept",
        "with d as (delete from kept returning a) insert into kept select a + 100 from d",
        "merge into kept using (values (1)) s(x) on a = x when matched then delete",
        "update kept set a = a + 100",
        "truncate kept",
        "delete from kept",
    ):
        run(connection, seen, "begin")
        run(connection, seen, INSERT.format(50))
        run(connection, seen, text)
        run(connection, seen, "commit")


def where_nothing_runs(connection: Connection, seen: list[Any]) -> None:
    """Other errors come first, as they do at the server."""
    run(connection, seen, "begin")
    run(connection, seen, "select 1/0")
    run(connection, seen, REFUSED)
    run(connection, seen, "rollback")


def chained(connection: Connection, seen: list[Any]) -> None:
    run(connection, seen, "begin isolation level serializable")
    run(connection, seen, INSERT.format(10))
    run(connection, seen, REFUSED)
    run(connection, seen, "rollback and chain")
    run(connection, seen, "show transaction_isolation")
    run(connection, seen, INSERT.format(11))
    run(connection, seen, "commit")


SCRIPTS: list[Script] = [
    alone,
    in_a_transaction,
    after_a_savepoint,
    in_one_query,
    with_values,
    prepared,
    in_a_pipeline,
    between_syncs,
    with_copy,
    hidden_in_others,
    where_nothing_runs,
    chained,
]


@pytest.fixture
def outside(gateway_stack: Stack, clerk: str) -> Iterator[Connection]:
    with gateway_stack.direct() as connection:
        yield connection


def play(script: Script, connection: Connection, outside: Connection) -> tuple[list[Any], Any]:
    outside.execute(TABLE)
    seen: list[Any] = []
    with connection:
        script(connection, seen)
    return seen, outside.execute("select a from kept order by a").fetchall()


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.__name__)
def test_a_refusal_ends_as_a_missing_privilege_does(
    gateway_stack: Stack, clerk: str, outside: Connection, script: Script
) -> None:
    at_server = play(script, psycopg.connect(clerk, autocommit=True), outside)
    through = play(script, gateway_stack.connect("alice"), outside)
    assert through[0] == at_server[0]
    assert through[1] == at_server[1]


def test_the_refusal_says_who_refused_and_whom_to_ask(gateway_stack: Stack) -> None:
    with gateway_stack.connect("alice") as connection:
        with pytest.raises(psycopg.errors.InsufficientPrivilege) as refused:
            connection.execute("delete from customers")
        said = refused.value.diag
        assert said.message_primary == "permission denied: clerks insert and read"
        assert said.message_detail == "Refused by the gateway (policy clerk-removes-nothing)."
        assert said.message_hint == "Ask a DBA."


def test_nobody_without_a_group_gets_in(gateway_stack: Stack) -> None:
    with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
        gateway_stack.connect("mallory")
