"""psycopg 3 hears from the gateway what it hears from PostgreSQL itself."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.rows import dict_row

from tests.e2e.stack import Stack

pytestmark = pytest.mark.integration

Connection = psycopg.Connection[Any]
Script = Callable[[Connection, "Transcript"], None]

TABLE = """
drop table if exists compared_child, compared cascade;
create table compared (a int primary key, b text, c numeric default 1.5);
create table compared_child (
    a int references compared deferrable initially deferred, check (a < 1000)
)
"""


class Transcript:
    """What a client saw, step by step."""

    def __init__(self) -> None:
        self.lines: list[Any] = []

    def note(self, *what: Any) -> None:
        self.lines.append(what)

    def run(self, connection: Connection, text: Any, *values: Any, **options: Any) -> None:
        """Execute, and note rows or error, status message and transaction status."""
        try:
            cursor = connection.execute(text, values or None, **options)
            rows = cursor.fetchall() if cursor.description else None
            columns = [(column.name, column.type_code) for column in cursor.description or ()]
            self.note(columns, rows, cursor.rowcount, cursor.statusmessage)
        except psycopg.Error as error:
            self.error(error)
        self.note(connection.info.transaction_status)

    def error(self, error: psycopg.Error) -> None:
        said = error.diag
        self.note(
            type(error).__name__,
            error.sqlstate,
            *(said.severity, said.message_primary, said.message_detail, said.message_hint),
            *(said.statement_position, said.context, said.schema_name, said.table_name),
            *(said.column_name, said.constraint_name),
        )


# --- scripts ---


def simple(connection: Connection, seen: Transcript) -> None:
    connection.autocommit = True
    run = seen.run
    run(connection, "select 1 as one, 'Grüße' as two, null::int as three")
    run(connection, "insert into compared values (1, 'x'), (2, 'y')")
    run(connection, "select * from compared order by a")
    run(connection, "insert into compared values (1, 'again')")
    run(connection, "select nope from compared")
    run(connection, "selec 1")
    run(connection, "select 'öpen")
    run(connection, "select 1/0")
    run(connection, "select 'x'::int")
    run(connection, "update compared set b = 'z' where a = 2")
    run(connection, "delete from compared where a = 99")
    run(connection, "")
    run(connection, ";")
    run(connection, "insert into compared values (3); insert into compared values (3)")
    run(connection, "begin; insert into compared values (4); commit; select 1/0")
    run(connection, "select 1; select 2; select 3")
    run(connection, "show standard_conforming_strings")
    run(connection, "set search_path = pg_temp; reset search_path")
    run(connection, "do $$ begin raise exception 'no' using detail = 'd', hint = 'h'; end $$")


def extended(connection: Connection, seen: Transcript) -> None:
    connection.autocommit = True
    run = seen.run
    run(connection, "select %s::int + %s::int, %s", 1, 2, "x")
    run(connection, "insert into compared values (%s, %s)", 10, "ten")
    run(connection, "insert into compared values (%s, %s)", 10, "ten")
    run(connection, "select * from compared where a = %s", 10, binary=True)
    run(connection, "select %s::int / %s::int", 1, 0)
    run(connection, "select %s::text[]", ["a", None, 'quo"te'])
    run(connection, "select %s::bytea", bytes(range(256)), binary=True)
    run(connection, "select %s from nowhere", 1)
    run(connection, "select %s; select 2", 1)
    run(connection, "selec %s", 1)
    run(connection, "select %s::int", "not a number")


def prepared(connection: Connection, seen: Transcript) -> None:
    connection.autocommit = True
    connection.prepare_threshold = 1
    connection.prepared_max = 2
    for number in range(6):
        for text in ("select a from compared where a < %s", "select %s::int", "select %s::text"):
            seen.run(connection, text, number)
    seen.run(connection, "deallocate all")
    seen.run(connection, "select %s::int", 5, prepare=True)
    seen.run(connection, "select count(*) from pg_prepared_statements")
    seen.run(connection, "prepare mine (int) as select $1 + 1")
    seen.run(connection, "execute mine(4)")
    seen.run(connection, "discard all")
    seen.run(connection, "execute mine(4)")


def transactions(connection: Connection, seen: Transcript) -> None:
    connection.autocommit = False
    run = seen.run
    run(connection, "insert into compared values (20)")
    run(connection, "select 1/0")
    run(connection, "select 1")
    connection.commit()
    seen.note(connection.info.transaction_status)
    run(connection, "insert into compared values (21)")
    with contextlib.suppress(psycopg.Error), connection.transaction():
        run(connection, "insert into compared values (22)")
        run(connection, "insert into compared values (21)")
        raise psycopg.Error
    run(connection, "select a from compared where a between 20 and 29 order by a")
    with connection.transaction():
        run(connection, "insert into compared values (23)")
    connection.commit()
    run(connection, "insert into compared_child values (4242)")
    connection.rollback()
    run(connection, "insert into compared_child values (999)")
    try:
        connection.commit()
    except psycopg.Error as error:
        seen.error(error)
    seen.note(connection.info.transaction_status)
    run(connection, "set transaction isolation level serializable")
    run(connection, "show transaction_isolation")
    connection.rollback()


def pipelines(connection: Connection, seen: Transcript) -> None:
    connection.autocommit = True
    with connection.pipeline():
        cursors = [connection.execute("select %s::int", (number,)) for number in range(40)]
        seen.note([cursor.fetchone() for cursor in cursors])
    for texts in (
        ["insert into compared values (30)", "select 1/0", "insert into compared values (31)"],
        ["insert into compared values (33)", "selec 1"],
        ["insert into compared values (34)", "select 'a\\b', 'ü'", "select 'c'"],
    ):
        try:
            with connection.pipeline():
                for text in texts:
                    connection.execute(text)
        except psycopg.Error as error:
            seen.error(error)
        seen.note(connection.info.transaction_status)
    with connection.pipeline() as pipeline:
        first = connection.execute("insert into compared values (35) returning a")
        pipeline.sync()
        second = connection.execute("select a from compared where a = 35")
        pipeline.sync()
        seen.note(first.fetchall(), second.fetchall())
    with connection.cursor() as cursor:
        cursor.executemany(
            "insert into compared values (%s, %s)", [(n, "m") for n in range(40, 60)]
        )
        seen.note(cursor.rowcount)
        try:
            cursor.executemany("insert into compared values (%s)", [(60,), (40,), (61,)])
        except psycopg.Error as error:
            seen.error(error)
        cursor.executemany(
            "insert into compared values (%s) returning a", [(62,), (63,)], returning=True
        )
        seen.note(cursor.fetchall())
    seen.run(connection, "select array_agg(a order by a) from compared where a >= 30")


def copying(connection: Connection, seen: Transcript) -> None:
    connection.autocommit = True
    with connection.cursor() as cursor:
        with cursor.copy("copy compared from stdin") as copy:
            for number in range(100, 400):
                copy.write_row((number, f"row {number}\t\\ü", 2))
        seen.note(cursor.rowcount, cursor.statusmessage)
        with cursor.copy("copy compared (a, b) from stdin (format binary)") as copy:
            copy.set_types(["int4", "text"])
            copy.write_row((400, "binary"))
        with cursor.copy("copy (select * from compared order by a) to stdout") as copy:
            seen.note(b"".join(copy))
        with cursor.copy("copy (select 1, null) to stdout (format binary)") as copy:
            seen.note(b"".join(copy))
        for bad in ("500\tx\n500\ty\n", "not\ta number\n"):
            try:
                with cursor.copy("copy compared (a, b) from stdin") as copy:
                    copy.write(bad)
            except psycopg.Error as error:
                seen.error(error)
            seen.note(connection.info.transaction_status)
        try:
            with cursor.copy("copy compared (a) from stdin") as copy:
                copy.write("501\n")
                raise KeyError("given up")
        except KeyError:
            seen.note("given up")
        seen.note(connection.info.transaction_status)
        try:
            with cursor.copy("copy nowhere from stdin") as copy:
                copy.write("1\n")
        except psycopg.Error as error:
            seen.error(error)
    seen.run(connection, "select count(*), sum(c) from compared where a >= 100")


def cursors(connection: Connection, seen: Transcript) -> None:
    connection.autocommit = False
    connection.execute("insert into compared select n from generate_series(600, 900) n")
    with connection.cursor(name="named", scrollable=True) as cursor:
        cursor.execute("select a from compared where a >= %s order by a", (600,))
        seen.note(cursor.fetchmany(5))
        cursor.scroll(100)
        seen.note(cursor.fetchone())
        cursor.scroll(2, mode="absolute")
        seen.note(cursor.fetchmany(3), len(cursor.fetchall()))
    with connection.cursor(name="held", withhold=True) as cursor:
        cursor.execute("select a from compared where a >= 890 order by a")
        connection.commit()
        seen.note(cursor.fetchall())
    with connection.cursor(row_factory=dict_row) as plain:
        for row in plain.stream("select a from compared where a >= %s order by a", (895,)):
            seen.note(row)
    connection.rollback()


def notices(connection: Connection, seen: Transcript) -> None:
    connection.autocommit = True
    connection.add_notice_handler(
        lambda said: seen.note(said.severity, said.sqlstate, said.message_primary)
    )
    seen.run(connection, "drop table if exists not_there")
    seen.run(connection, "do $$ begin raise notice 'n %', 1; raise warning 'w'; end $$")
    seen.run(connection, "listen channel")
    seen.run(connection, "notify channel, 'payload'")
    seen.note([(n.channel, n.payload) for n in connection.notifies(timeout=5, stop_after=1)])
    seen.run(connection, "unlisten *")


def encodings(connection: Connection, seen: Transcript) -> None:
    connection.autocommit = True
    seen.run(connection, "set client_encoding = 'latin1'")
    seen.note(connection.info.encoding)
    seen.run(connection, "select 'Grüße', chr(8364)")
    seen.run(connection, "select 'Grüße', %s", "ü")
    seen.run(connection, "set client_encoding = 'utf8'")
    seen.run(connection, "select 'Grüße', chr(8364)")


def types(connection: Connection, seen: Transcript) -> None:
    connection.autocommit = True
    for binary in (False, True):
        seen.run(
            connection,
            "select %s::int8, %s::float8, %s::numeric, %s::date, %s::timestamptz, %s::uuid,"
            " %s::jsonb, %s::inet, int4range(1, 5), row(1, 'a'), repeat('x', 100000)",
            *(1, 2.5, "3.25", "2024-02-29", "2024-02-29 12:00+02"),
            *("12345678-1234-5678-1234-567812345678", '{"a": [1, null]}', "10.0.0.1/8"),
            binary=binary,
        )


def large(connection: Connection, seen: Transcript) -> None:
    connection.autocommit = True
    rows = connection.execute(
        "select n, repeat('r', 100) from generate_series(1, 50000) n"
    ).fetchall()
    seen.note(len(rows), hash(tuple(rows)))
    value = connection.execute("select repeat('v', 5000000) || 'end'").fetchone()
    seen.note(len(value[0]), value[0][-3:])
    seen.run(connection, "select length(%s)", "p" * 3_000_000)
    seen.run(connection, "select length('" + "q" * 3_000_000 + "')")


SCRIPTS: list[Script] = [
    simple,
    extended,
    prepared,
    transactions,
    pipelines,
    copying,
    cursors,
    notices,
    encodings,
    types,
    large,
]


@pytest.fixture
def tables(gateway_stack: Stack) -> Iterator[Connection]:
    """Fresh tables, and a connection that looks at them from outside."""
    with gateway_stack.direct() as connection:
        connection.execute(TABLE)
        yield connection


def play(script: Script, connection: Connection, outside: Connection) -> tuple[list[Any], Any]:
    """The transcript, and what is committed afterwards."""
    outside.execute(TABLE)
    seen = Transcript()
    with connection:
        script(connection, seen)
    rows = outside.execute("select * from compared order by a").fetchall()
    return seen.lines, rows


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.__name__)
def test_the_same_is_seen_and_committed(
    gateway_stack: Stack, tables: Connection, script: Script
) -> None:
    direct, committed = play(script, gateway_stack.direct(), tables)
    through, committed_through = play(script, gateway_stack.connect("bob"), tables)
    for number, (expected, seen) in enumerate(zip(direct, through, strict=True)):
        assert seen == expected, f"step {number}"
    assert committed_through == committed


def cancelled(connection: Connection) -> tuple[str | None, Any]:
    connection.autocommit = True
    timer = threading.Timer(0.3, connection.cancel_safe)
    timer.start()
    try:
        connection.execute("select pg_sleep(20)")
    except psycopg.Error as error:
        return error.sqlstate, connection.execute("select 1").fetchone()
    finally:
        timer.join()
    return None, None


def test_a_statement_can_be_cancelled(gateway_stack: Stack) -> None:
    with gateway_stack.connect("bob") as connection:
        assert cancelled(connection) == ("57014", (1,))
    with gateway_stack.direct() as connection:
        assert cancelled(connection) == ("57014", (1,))


def test_a_statement_can_time_out(gateway_stack: Stack) -> None:
    with gateway_stack.connect("bob", options="-c statement_timeout=200ms") as connection:
        with pytest.raises(psycopg.errors.QueryCanceled):
            connection.execute("select pg_sleep(20)")
        assert connection.execute("show statement_timeout").fetchone() == ("200ms",)


def test_what_the_server_tells_at_sign_in_is_told(gateway_stack: Stack) -> None:
    names = ["server_version", "client_encoding", "TimeZone", "integer_datetimes", "DateStyle"]
    with gateway_stack.connect("bob") as through, gateway_stack.direct() as direct:
        for name in names:
            assert through.info.parameter_status(name) == direct.info.parameter_status(name)
        assert through.info.server_version == direct.info.server_version
        assert through.execute(sql.SQL("select current_database()")).fetchone() == (
            direct.execute(sql.SQL("select current_database()")).fetchone()
        )
