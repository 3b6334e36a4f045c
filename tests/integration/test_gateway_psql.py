"""psql prints through the gateway what it prints at PostgreSQL itself."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import psycopg
import pytest

from tests.e2e.stack import Stack

pytestmark = pytest.mark.integration

SCRIPT = r"""
\set VERBOSITY default
\pset pager off
drop table if exists typed;
create table typed (a int primary key, b text default 'none');
comment on column typed.a is 'a number';
insert into typed values (1, 'Grüße'), (2, E'tab\there'), (3, null);
table typed;
\d typed
\dt typed
\copy typed (a, b) from 'rows.txt'
\copy (select * from typed order by a) to 'out.txt'
copy typed to stdout;
copy typed (a) from stdin;
100
101
\.
select * from typed where a > 50 \gx
select a, b from typed order by a \crosstabview a b a
select 'select ' || a from typed order by a limit 2 \gexec
select nope from typed;
selec 1;
select 'unfinished' from typed where;
insert into typed values (1);
select 1/0 as "division";
begin;
insert into typed values (200);
select 1/0;
select 1;
commit;
\set ON_ERROR_ROLLBACK on
begin;
insert into typed values (201);
select 1/0;
commit;
\set ON_ERROR_ROLLBACK off
\set FETCH_COUNT 2
select a from typed order by a;
\set FETCH_COUNT 0
select 1 \; select 2 \; select 3;
select 1 as one \gset
\echo :one
do $$ begin raise notice 'a notice'; raise exception 'an exception' using hint = 'a hint'; end $$;
\errverbose
listen news;
notify news, 'payload';
prepare p (int) as select $1 + 1;
execute p(41);
explain (costs off) select * from typed where a = 1;
select * from typed \gdesc
set client_encoding = 'latin1';
select 'ü';
reset client_encoding;
show search_path;
\encoding
create function twice(int) returns int language sql as 'select $1 * 2';
\sf twice
select twice(21);
drop function twice(int);
values (1, 'x'), (2, 'y') \g (format=csv)
"""


def run(folder: Path, script: str, environment: dict[str, str], *options: str) -> str:
    """Everything psql prints, errors in their places."""
    (folder / "rows.txt").write_text("50\tfifty\n51\tfifty-one\n")
    found = subprocess.run(
        ["psql", "-X", "-a", *options],
        input=script,
        env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", **environment},
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    return found.stdout


def direct(stack: Stack) -> dict[str, str]:
    parts = psycopg.conninfo.conninfo_to_dict(stack.document["targets"][0]["direct_conninfo"])
    return {
        "PGHOST": str(parts["host"]),
        "PGPORT": str(parts["port"]),
        "PGUSER": str(parts["user"]),
        "PGPASSWORD": str(parts["password"]),
        "PGDATABASE": "shop",
    }


def lines(printed: str) -> list[str]:
    """Without what names the process or the place in the server's source."""
    kept = []
    for line in printed.splitlines():
        if line.startswith("LOCATION:") or "TLS" in line or "SSL" in line:
            continue
        kept.append(line.partition(" received from server process")[0])
    return kept


# Whose rows are limited, has their queries sent otherwise, and must not see that.
@pytest.mark.parametrize("application", ["psql", "many-rows"])
def test_psql_prints_the_same(gateway_stack: Stack, tmp_path: Path, application: str) -> None:
    run(tmp_path, "drop table if exists typed", direct(gateway_stack))
    at_server = run(tmp_path, "create table typed ();\n" + SCRIPT, direct(gateway_stack))
    copied = (tmp_path / "out.txt").read_bytes()
    run(tmp_path, "drop table if exists typed", direct(gateway_stack))
    environment = gateway_stack.environment("bob") | {"PGAPPNAME": application}
    through = run(tmp_path, "create table typed ();\n" + SCRIPT, environment)
    assert "Grüße" in at_server and "ERROR:  division by zero" in at_server
    assert lines(through) == lines(at_server)
    assert (tmp_path / "out.txt").read_bytes() == copied


def test_a_refused_statement_reads_as_an_error_of_the_server(
    gateway_stack: Stack, tmp_path: Path
) -> None:
    script = "begin;\nselect 1;\ndelete from customers;\nselect 2;\ncommit;\n"
    printed = run(tmp_path, script, gateway_stack.environment("alice"), "-At")
    assert printed.splitlines() == [
        *("begin;", "BEGIN", "select 1;", "1", "delete from customers;"),
        "ERROR:  permission denied: clerks insert and read",
        "DETAIL:  Refused by the gateway (policy clerk-removes-nothing).",
        "HINT:  Ask a DBA.",
        "select 2;",
        "ERROR:  current transaction is aborted, commands ignored until end of transaction block",
        *("commit;", "ROLLBACK"),
    ]


def test_variables_of_the_environment_reach_the_server(
    gateway_stack: Stack, tmp_path: Path
) -> None:
    environment = gateway_stack.environment("bob")
    environment |= {"PGOPTIONS": "-c work_mem=7MB", "PGTZ": "Asia/Tokyo", "PGAPPNAME": "my tool"}
    script = "show work_mem; show timezone; show application_name;"
    printed = run(tmp_path, script, environment, "-At")
    assert printed.splitlines()[1:] == ["7MB", "Asia/Tokyo", "my tool"]
