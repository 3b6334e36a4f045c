"""Processes that read large texts: what they find, whose turn it is, and what becomes of them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from gateway.analyst import Learn, Mind, Piece, answers, parts_of
from gateway.analysts import Analysts, By, NotAnalysed
from gateway.large import LARGE, Found, Spoken, Wanted
from gateway.masking.copies import Copies
from gateway.masking.veil import Veil
from gateway.policy.catalog import Snapshot
from gateway.policy.facts import SessionNames
from gateway.policy.resolve import Resolver
from gateway.protocols.postgres import aside
from tests.gateway.masking.shop import HIDDEN
from tests.gateway.policy.catalogs import SHOP

LONG = "/*" + "x" * LARGE + "*/"
ENDLESS = "select 1 where " + " or ".join(f"1 = {number}" for number in range(100_000))
SPOKEN = Spoken("utf-8", standard_strings=True, replication="", uncertain=False)


def wanted(text: str, alone: bool = False) -> Wanted:
    return Wanted(text.encode(), SPOKEN, alone, None, SessionNames(), frozenset(), False)


def by(snapshot: Snapshot = SHOP) -> By:
    return By("shop", snapshot, Veil(HIDDEN), Copies(HIDDEN))


def children() -> set[int]:
    mine, found = f"\nPPid:\t{os.getpid()}\n", set()
    for each in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if mine in (each / "status").read_text():
                found.add(int(each.name))
    return found


async def appears(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 (of processes, which tell nobody)
            await asyncio.sleep(0.01)


@pytest.fixture
async def analysts() -> AsyncIterator[Analysts]:
    those = Analysts()
    yield those
    await those.close()


TEXTS = (
    "select upper(email) from customers",
    "select id from customers where email = 'a@b.c'",
    "insert into orders select id from customers; select * from orders",
    "create table copied as select ssn from customers",
    "delete from customers",
    "prepare p as select name from customers; execute p",
    "create temp table mine as select 1; select * from mine",
    "nothing of the kind",
    "select 'ä' from nobody.knows",
    "",
)


@pytest.mark.parametrize("text", TEXTS)
async def test_they_find_what_is_found_here(analysts: Analysts, text: str) -> None:
    asked, known = wanted(text + LONG), by()
    here = list(aside.find(asked, Resolver(SHOP).alone, known.veil, known.copies))
    assert list(map(told, await analysts.read("alice", asked, known))) == list(map(told, here))


def told(found: Found) -> object:
    facts = {name: getattr(found.facts, name) for name in found.facts.__struct_fields__}
    return found.statement, facts, found.plan, found.copied, found.ran, found.ran_recorded


def test_what_is_learned_in_parts_is_the_whole() -> None:
    mind = Mind()
    for part in parts_of(7, SHOP):
        assert isinstance(part, Learn)
        mind.learn(part)
    (resolver,) = mind._resolvers.values()
    read = resolver.snapshot
    assert read.relations.keys() == SHOP.relations.keys()
    assert read.functions.keys() == SHOP.functions.keys()
    assert (read.operators, read.path, read.version) == (SHOP.operators, SHOP.path, SHOP.version)
    mind.forget(7)
    assert not mind._resolvers


def test_equal_facts_are_told_once() -> None:
    asked = wanted("; ".join(["select id from orders"] * 50))
    found = aside.find(asked, Resolver(SHOP).alone, None, None)
    pieces: list[Piece] = [piece for answer in answers(found) for piece in answer.pieces]
    assert [piece.facts for piece in pieces] == [-1] + [0] * 49


async def test_one_that_takes_too_long_is_refused_and_replaced() -> None:
    # Less than it takes to begin.
    those, before = Analysts(within_s=0.01), children()
    with pytest.raises(NotAnalysed, match="too long") as refused:
        await those.read("alice", wanted(ENDLESS), by())
    assert refused.value.sqlstate == "54001"
    await appears(lambda: children() <= before)
    with pytest.raises(NotAnalysed, match="too long"):
        await those.read("alice", wanted("select 1" + LONG), by())
    await those.close()
    assert children() <= before


async def test_one_that_dies_is_replaced(analysts: Analysts) -> None:
    before = children()
    assert await analysts.read("alice", wanted("select 1" + LONG), by())
    (idle,) = children() - before
    os.kill(idle, signal.SIGKILL)
    await appears(lambda: not analysts._free[0].alive)
    assert await analysts.read("alice", wanted("select 2" + LONG), by())
    (working,) = children() - before
    reading = asyncio.create_task(analysts.read("alice", wanted(ENDLESS), by()))
    await asyncio.sleep(0)
    os.kill(working, signal.SIGKILL)
    with pytest.raises(NotAnalysed, match="could not be read"):
        await reading
    assert await analysts.read("alice", wanted("select 3" + LONG), by())


async def test_who_waits_no_more_keeps_nobody_busy(analysts: Analysts) -> None:
    before = children()
    reading = asyncio.create_task(analysts.read("alice", wanted(ENDLESS), by()))
    await appears(lambda: children() - before)
    waiting = asyncio.create_task(analysts.read("alice", wanted(ENDLESS + "\n"), by()))
    await asyncio.sleep(0)
    waiting.cancel()
    reading.cancel()
    await asyncio.wait([reading, waiting])
    assert reading.cancelled() and waiting.cancelled()
    await appears(lambda: children() <= before)
    assert await analysts.read("alice", wanted("select 1" + LONG), by())


async def test_nobody_waits_for_another_persons_texts(analysts: Analysts) -> None:
    hers = [
        asyncio.create_task(analysts.read("alice", wanted(ENDLESS + " " * number), by()))
        for number in range(5)
    ]
    await asyncio.sleep(0)
    for number in range(3):
        assert await analysts.read("bob", wanted(f"select {number}" + LONG), by())
    assert not any(each.done() for each in hers[1:])
    for each in hers:
        each.cancel()
    await asyncio.wait(hers)


async def test_persons_take_turns() -> None:
    those = Analysts(most=1)
    order: list[str] = []

    async def read(person: str, number: int) -> None:
        await those.read(person, wanted(f"select {number}" + LONG), by())
        order.append(person)

    asked = [("alice", 0), ("alice", 1), ("alice", 2), ("bob", 3), ("carol", 4)]
    await asyncio.gather(*(read(*each) for each in asked))
    # Her second was there before they were.
    assert order == ["alice", "alice", "bob", "carol", "alice"]
    await those.close()


async def test_what_waits_is_bounded_and_nobody_takes_more_than_half(
    analysts: Analysts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.analysts._WAITING_BYTES", 4 * len(ENDLESS) + 8)

    def read(person: str, number: int) -> asyncio.Task[tuple[Found, ...]]:
        return asyncio.create_task(analysts.read(person, wanted(ENDLESS + " " * number), by()))

    reading = [read("alice", 0), read("alice", 1)]
    await asyncio.sleep(0)
    with pytest.raises(NotAnalysed, match="too many") as refused:
        await read("alice", 2)
    assert refused.value.sqlstate == "53000"
    reading += [read("bob", 0), read("bob", 1)]
    await asyncio.sleep(0)
    assert not any(each.done() for each in reading)
    with pytest.raises(NotAnalysed, match="too many"):
        await read("carol", 2)
    for each in reading:
        each.cancel()
    await asyncio.wait(reading)
    assert await analysts.read("alice", wanted("select 1" + LONG), by())
    assert not analysts._waiting_bytes


async def test_what_was_read_is_remembered_while_the_catalog_is_the_same(
    analysts: Analysts,
) -> None:
    known, asked = by(), wanted("select id from orders" + LONG)
    first = await analysts.read("alice", asked, known)
    assert await analysts.read("bob", asked, known) is first
    other = by(Snapshot(SHOP.relations.values(), path=SHOP.path, version="other"))
    assert await analysts.read("bob", asked, other) is not first
    assert await analysts.read("bob", asked, known) is not first


async def test_after_the_end_nothing_is_read() -> None:
    those = Analysts()
    before = children()
    reading = asyncio.create_task(those.read("alice", wanted(ENDLESS), by()))
    await appears(lambda: children() - before)
    await those.close()
    with pytest.raises(asyncio.CancelledError):
        await reading
    with pytest.raises(NotAnalysed):
        await those.read("alice", wanted("select 1" + LONG), by())
    await appears(lambda: children() <= before)


async def test_where_memory_runs_out_they_go_first(analysts: Analysts) -> None:
    before = children()
    assert await analysts.read("alice", wanted("select 1" + LONG), by())
    (process,) = children() - before
    assert Path(f"/proc/{process}/oom_score_adj").read_text().strip() == "1000"


async def test_what_the_gateway_itself_has_taken_makes_none_leave(analysts: Analysts) -> None:
    before, taken = children(), b"x" * (600 * 1024 * 1024)
    assert await analysts.read("alice", wanted("select 1" + LONG), by())
    (process,) = children() - before
    assert await analysts.read("alice", wanted("select 2" + LONG), by())
    assert children() - before == {process}
    assert len(taken)
