"""Row estimates of a real planner: asked aside, within bounds, and executing nothing."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.pq import ExecStatus

from schemas.events import Requested, RequestedOriginal
from tests.e2e import book
from tests.e2e.stack import Stack
from tests.integration.another import another_gateway
from tests.integration.test_gateway_book import Reader

pytestmark = pytest.mark.integration

POLICIES = """
@id("all") @unknown("permitted") permit (principal, action, resource);
@id("small") @message("too many rows") @how_to_ask("Narrow it.")
forbid (principal, action == Action::"execute", resource)
when { context.tables_read.containsAny(["public.estimated", "public.locked"]) }
unless { context has row_estimate && context.row_estimate <= 100 };
"""
SETUP = """
drop table if exists estimated, locked, ran cascade;
create table locked (a int primary key);
create table estimated (a int primary key, b text, c text default 'c');
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


@pytest.fixture
def door(gateway_stack: Stack, tmp_path: Path) -> Iterator[tuple[str, int]]:
    """Where everybody meets these policies, and planners look at every order of joins."""
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "all.cedar").write_text(POLICIES)
    every = [f"alter role current_user {{}} {name}" for name in ("geqo", "from_collapse_limit")]
    with gateway_stack.direct() as owner:
        owner.execute(SETUP)
        owner.execute(every[0].format("set") + " = off")
        owner.execute(every[1].format("set") + " = 20")

    def settings(document: dict[str, Any]) -> None:
        document["gateway"] |= {"policies": str(tmp_path / "policies")}

    with another_gateway(gateway_stack, tmp_path, settings) as found:
        yield found
    with gateway_stack.direct() as owner:
        for each in every:
            owner.execute(each.format("reset"))


@pytest.fixture
def veiled(gateway_stack: Stack, tmp_path: Path) -> Iterator[psycopg.Connection[Any]]:
    """Of whom `b` is hidden."""
    (tmp_path / "policies").mkdir()
    hiding = '@id("hide") forbid (principal, action == Action::"see_clear", resource);'
    (tmp_path / "policies" / "all.cedar").write_text(POLICIES + hiding)
    with gateway_stack.direct() as owner:
        owner.execute(SETUP)

    def settings(document: dict[str, Any]) -> None:
        document["gateway"] |= {"policies": str(tmp_path / "policies")}
        (shop,) = (each for each in document["targets"] if each["name"] == "shop")
        looked_up = {"reason": "it is asked for", "budget": 5}
        shop["classified"] = {
            "public.estimated.b": {"class": "pii", "mask": "full"},
            "public.estimated.c": {"class": "pii", "mask": "full", "equality": looked_up},
        }

    with (
        another_gateway(gateway_stack, tmp_path, settings) as (host, port),
        gateway_stack.connect("bob", hostaddr=host, port=port) as connection,
    ):
        yield connection


def outcome(connection: psycopg.Connection[Any], text: str) -> str:
    try:
        return str(connection.execute(text).fetchall())
    except psycopg.Error as error:
        return str(error)


def test_what_a_planner_knows_of_hidden_values_decides_nothing(
    veiled: psycopg.Connection[Any],
) -> None:
    assert veiled.execute("select b from estimated where a = 7").fetchall() == [("***",)]
    # All of them are 'b': a planner expects 20,000 rows of one guess, and one of the other.
    for question in (
        "select 1 from estimated where lower(b) = '{}' and a > 0",
        "select 1 from estimated where b >= '{}'",
        "select 1 from estimated where b like '{}%' limit 200",
    ):
        told = {outcome(veiled, question.format(guess)) for guess in ("b", "zz")}
        assert len(told) == 1, told
    # What is compared in clear is counted, and so it is not asked of the planner.
    told = {outcome(veiled, f"select 1 from estimated where c = '{n}'") for n in ("c", "d", "e")}
    assert len(told) == 1 and "too many rows" in told.pop()
    for guess in ("c", "d"):
        asked = f"select 2 from estimated where c = '{guess}'"
        assert b"too many rows" in veiled.pgconn.prepare(b"", asked.encode()).error_message


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


TABLES = 16
JOIN = ", ".join(f"locked t{number}" for number in range(TABLES))
ALIKE = " and ".join(f"t0.a = t{number}.a" for number in range(1, TABLES))


@pytest.mark.parametrize(
    "slow",
    [
        "select a from locked where a = {}",
        f"select t0.a from {JOIN} where {ALIKE} and t0.a <> {{}}",
    ],
    ids=["waiting for a lock", "sixteen tables"],
)
def test_nobodys_slow_plans_make_anothers_unknown(
    door: tuple[str, int], gateway_stack: Stack, slow: str
) -> None:
    host, port = door
    over, refusals = threading.Event(), threading.Semaphore(0)
    numbers = itertools.count(1)

    def asks() -> None:
        with gateway_stack.connect("alice", hostaddr=host, port=port) as alice:
            while not over.is_set():
                told = outcome(alice, slow.format(next(numbers)))
                assert "too many rows" in told or over.is_set()
                refusals.release()

    with (
        gateway_stack.direct() as owner,
        gateway_stack.connect("bob", hostaddr=host, port=port) as bob,
        ThreadPoolExecutor(8) as pool,
    ):
        try:
            owner.execute("begin")
            if "t0" not in slow:
                owner.execute("lock table locked in access exclusive mode")
            asking = [pool.submit(asks) for _ in range(8)]
            refusals.acquire()
            for number in range(1, 30):
                text = f"select b from estimated where a = {number}"
                assert bob.execute(text).fetchall() == [("b",)]
                refusals.acquire()
        finally:
            over.set()
            owner.execute("rollback")
        for each in asking:
            each.result()


async def test_what_comes_later_is_decided_later(
    bob: psycopg.Connection[Any], gateway_stack: Stack
) -> None:
    since = await book.end(gateway_stack.document["kafka"]["bootstrap_servers"])
    with gateway_stack.direct() as owner:
        owner.execute("begin")
        owner.execute("lock table estimated in access exclusive mode")
        asking = bob.pgconn
        asking.enter_pipeline_mode()
        for text in (b"select b from estimated where a = 3", b"show work_mem"):
            asking.send_query_params(text, [])
            asking.pipeline_sync()
        synced = 0
        while synced < 2:
            result = asking.get_result()
            synced += result is not None and result.status == ExecStatus.PIPELINE_SYNC
        owner.execute("rollback")
    reader = Reader(gateway_stack, since)
    name = bob.info.parameter_status("application_name") or ""
    bob.close()
    story = await reader.told(name)
    asked = [
        entry.original.statement
        for entry in story.of(Requested)
        if isinstance(entry.original, RequestedOriginal)
    ]
    assert [text for text in asked if "estimated" in text or "work_mem" in text] == [
        "select b from estimated where a = 3",
        "show work_mem",
    ]
