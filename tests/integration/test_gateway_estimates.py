"""Row estimates of a real planner: asked aside, within bounds, and executing nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.e2e.stack import Stack
from tests.integration.another import another_gateway

pytestmark = pytest.mark.integration

POLICIES = """
@id("all") @unknown("permitted") permit (principal, action, resource);
@id("small") @message("too many rows") @how_to_ask("Narrow it.")
forbid (principal, action == Action::"execute", resource)
when { context.tables_read.contains("public.estimated") }
unless { context has row_estimate && context.row_estimate <= 100 };
"""
SETUP = """
drop table if exists estimated, ran cascade;
create table estimated (a int primary key, b text);
insert into estimated select n, 'b' from generate_series(1, 20000) n;
analyze estimated;
create table ran (n int);
create or replace function sneaky(int) returns int immutable language plpgsql
    as 'begin insert into ran values (1); return $1; end';
create or replace function slow(int) returns int immutable language plpgsql
    as 'begin perform pg_sleep(30); return $1; end';
"""


@pytest.fixture
def bob(gateway_stack: Stack, tmp_path: Path) -> Iterator[psycopg.Connection[Any]]:
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "all.cedar").write_text(POLICIES)
    with gateway_stack.direct() as owner:
        owner.execute(SETUP)

    def settings(document: dict[str, Any]) -> None:
        document["gateway"] |= {"policies": str(tmp_path / "policies")}

    with (
        another_gateway(gateway_stack, tmp_path, settings) as (host, port),
        gateway_stack.connect("bob", hostaddr=host, port=port) as connection,
    ):
        yield connection


def refused(connection: psycopg.Connection[Any], text: str, values: Any = None) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="too many rows"):
        connection.execute(text, values)


def test_a_planner_says_how_much_is_expected_and_unknown_is_refused(
    bob: psycopg.Connection[Any], gateway_stack: Stack
) -> None:
    assert bob.execute("select b from estimated where a = 7").fetchall() == [("b",)]
    assert len(bob.execute("select b from estimated limit 50").fetchall()) == 50
    assert bob.execute("select count(*) from estimated").fetchone() == (20000,)
    refused(bob, "select b from estimated")
    refused(bob, "select b from estimated where a > 10")
    bob.execute("update estimated set b = 'c' where a = 7")
    refused(bob, "update estimated set b = 'c' where b = 'b'")
    refused(bob, "delete from estimated where b = 'b'")
    # Of parameters nothing is known but their types: the plan is one for any value.
    assert bob.execute("select b from estimated where a = %s", (9,)).fetchall() == [("b",)]
    refused(bob, "delete from estimated where a > %s or a < %s", (1, None))
    refused(bob, "select b from estimated where a > %s", (19_999,))
    # What this session has made means something else to the one that is asked.
    bob.execute("create temp table mine (a int)")
    refused(bob, "select b from estimated where a = 7")


def test_planning_executes_nothing_of_others(
    bob: psycopg.Connection[Any], gateway_stack: Stack
) -> None:
    refused(bob, "select b from estimated where a = sneaky(1)")
    began = time.monotonic()
    refused(bob, "select b from estimated where a = slow(1)")
    assert time.monotonic() - began < 20
    with gateway_stack.direct() as owner:
        assert owner.execute("select count(*) from ran").fetchone() == (0,)


def test_a_planner_that_must_wait_is_not_waited_for(
    bob: psycopg.Connection[Any], gateway_stack: Stack
) -> None:
    with gateway_stack.direct() as owner:
        owner.execute("begin")
        owner.execute("lock table estimated in access exclusive mode")
        refused(bob, "select b from estimated where a = 8")
        refused(bob, "select b from estimated where a = %s and b = 'b'", (8,))
        owner.execute("rollback")
    # Only what it was asked then is unknown for a while.
    for text in ("select b from estimated where a = 11", "table estimated limit 1"):
        assert len(bob.execute(text).fetchall()) == 1
    assert bob.execute("select b from estimated where a = %s", (12,)).fetchall() == [("b",)]
