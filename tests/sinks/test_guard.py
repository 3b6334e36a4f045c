"""What readers may run, given the engine's own writing of their query."""

from __future__ import annotations

import pytest

from sinks.guard import ACCESS_DENIED, READONLY, Refused, check


@pytest.mark.parametrize(
    "query",
    [
        "SELECT 1",
        "WITH x AS (SELECT 1) SELECT * FROM x",
        "(SELECT 1) UNION ALL (SELECT 2)",
        "SHOW TABLES",
        "DESCRIBE TABLE queries",
        "EXPLAIN SELECT 1",
        "EXISTS TABLE queries",
        "SELECT 'INTO OUTFILE \\'x\\' file(' FROM queries WHERE statement LIKE '%file(%'",
        "SELECT profile, filename FROM t",
        "SELECT {file_name:String}",
    ],
)
def test_reading_is_let_through(query: str) -> None:
    check(query)


@pytest.mark.parametrize(
    "query",
    [
        "INSERT INTO t FORMAT Values",
        "CREATE TABLE t (x UInt8) ENGINE = Memory",
        "DROP TABLE t",
        "KILL QUERY WHERE 1 ASYNC",
        "SYSTEM SHUTDOWN",
        "SET readonly = 0",
        "USE system",
        "GRANT ALL ON *.* TO default",
        "BACKUP TABLE t TO File('x')",
        "",
        "'SELECT 1'",
    ],
)
def test_anything_else_is_a_write(query: str) -> None:
    with pytest.raises(Refused) as refused:
        check(query)
    assert refused.value.code == READONLY


@pytest.mark.parametrize(
    "query",
    [
        "SELECT 1 INTO OUTFILE '/tmp/x'",
        "EXPLAIN SELECT 1 INTO OUTFILE '/tmp/x' FORMAT CSV",
        "SELECT file('/etc/passwd')",
        "SELECT `file`('/etc/passwd')",
        "SELECT arrayMap(file, ['/etc/passwd'])",
        "SELECT * APPLY file FROM (SELECT '/etc/passwd')",
        "SELECT FILE('/etc/passwd')",
        "SELECT * FROM Python(reader)",
        "SELECT * FROM executable('x')",
        "SELECT 'unfinished",
        "SELECT `unfinished",
    ],
)
def test_files_and_this_process_are_out_of_reach(query: str) -> None:
    with pytest.raises(Refused) as refused:
        check(query)
    assert refused.value.code == ACCESS_DENIED
