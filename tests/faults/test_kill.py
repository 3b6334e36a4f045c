"""kill -9 of each part in the middle of a load: what ran is in the book, and what is in the book
is in the history, once.

GATEBOOK_LOAD is the number of acknowledged statements of all four loads together.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import Iterator
from uuid import UUID

import pytest

from infra.devstack.plan import Options
from infra.devstack.shop import Size
from schemas import topics
from schemas.events import Completed, Decided, Requested, RequestedOriginal
from tests.conftest import running
from tests.e2e import book
from tests.e2e.book import Entry
from tests.e2e.stack import Stack, until
from tests.faults.load import Load, Told

pytestmark = [pytest.mark.faults, pytest.mark.e2e, pytest.mark.timeout(900)]

VICTIMS = ("mask", "clickhouse", "gateway-2", "kafka")
STATEMENTS = int(os.environ.get("GATEBOOK_LOAD", "20000")) // len(VICTIMS)
SETTLED_S = 180.0
# Longer than Kafka takes to start again, so that some statements wait it out and others do not.
CONFIG = "gateway: {journal: {deadline_s: 2.0}}\n"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    root = tmp_path_factory.mktemp("kill")
    config = root / "over.yaml"
    config.write_text(CONFIG)
    for _ in running(root / "stack", Options(config=config, size=Size(50, 100))):
        yield Stack(root / "stack")


@pytest.mark.parametrize("victim", VICTIMS)
def test_nothing_runs_unrecorded_and_nothing_is_lost_or_doubled(stack: Stack, victim: str) -> None:
    table = f"load_{victim.replace('-', '_')}"
    with stack.direct() as direct:
        direct.execute(f"create table {table} (id bigint primary key)")
    restarts = stack.process(victim)["restarts"]
    pid = stack.pid(victim)
    load = Load(
        stack,
        table,
        STATEMENTS,
        midway=lambda: os.kill(pid, signal.SIGKILL),
        done=lambda: stack.served_again(victim, restarts),
    )
    told = asyncio.run(load.run())

    assert stack.process(victim)["restarts"] == restarts + 1
    assert len(told.acknowledged) >= STATEMENTS
    _only_the_victims_clients_saw_it(victim, told)
    with stack.direct() as direct:
        executed = {row[0] for row in direct.execute(f"select id from {table}")}
    assert told.acknowledged <= executed
    assert not told.refused & executed, "told that nothing was executed"
    assert executed <= told.acknowledged | told.unsure

    _settle(stack)
    entries = asyncio.run(book.read(stack.document["kafka"]["bootstrap_servers"], stack.state.keys))
    lengths = book.check_chains(entries)
    _is_in_the_history_once(stack, entries)
    _ran_only_what_was_recorded(entries, table, executed)
    _completed(stack, entries, table, told.acknowledged)
    print(
        f"{victim}: {len(told.acknowledged)} acknowledged, {len(told.refused)} refused, "
        f"{len(told.unsure)} unsure, {len(entries)} events in {len(lengths)} streams"
    )


def _only_the_victims_clients_saw_it(victim: str, told: Told) -> None:
    if victim in ("mask", "clickhouse"):
        assert told.errors == {}
    elif victim != "kafka":
        assert set(told.errors) == {int(victim.rpartition("-")[2])}
        assert not told.refused


def _events_in_kafka(stack: Stack) -> int:
    return asyncio.run(book.count(stack.document["kafka"]["bootstrap_servers"], topics.EVENTS))


def _events_in_clickhouse(stack: Stack) -> int:
    return int(stack.history("select count() as n from audit_events")[0]["n"])


def _settle(stack: Stack) -> None:
    """Every session has ended, and every event has come through."""
    gateways = range(1, len(stack.document["gateways"]) + 1)
    until(lambda: stack.document["healthy"], SETTLED_S)
    until(lambda: all(stack.metric("gatebook_connections", g) == 0 for g in gateways), SETTLED_S)
    until(lambda: _events_in_clickhouse(stack) >= _events_in_kafka(stack), SETTLED_S)


def _is_in_the_history_once(stack: Stack, entries: list[Entry]) -> None:
    recorded = {str(UUID(bytes=entry.event.event_id)): 1 for entry in entries}

    def history() -> dict[str, int]:
        rows = stack.history(
            "select toString(event_id) as id, count() as n from audit_events group by id"
        )
        return {row["id"]: int(row["n"]) for row in rows}

    # The last event of a session may be on its way still.
    found = history()
    if set(found) < set(recorded):
        until(lambda: len(history()) == len(recorded), SETTLED_S)
        found = history()
    assert [i for i in recorded if i not in found] == [], "lost"
    assert [i for i in found if i not in recorded] == [], "of no event"
    assert {i: n for i, n in found.items() if n > 1} == {}, "more than once"
    assert (
        asyncio.run(book.count(stack.document["kafka"]["bootstrap_servers"], topics.DEAD_LETTERS))
        == 0
    )
    gaps = stack.history("select * from chain_gaps where missing != 0 or duplicates != 0")
    assert gaps == []


def _requests(entries: list[Entry], table: str) -> dict[int, bytes]:
    """statement_id of each execution, by the id of the row it was to insert."""
    found: dict[int, bytes] = {}
    for entry in entries:
        if not isinstance(entry.event, Requested) or entry.event.action != "execute":
            continue
        original = entry.original
        assert isinstance(original, RequestedOriginal)
        if (row := _row(original, table)) is not None:
            assert row not in found, "one request for each execution"
            found[row] = entry.event.statement_id
    return found


def _row(original: RequestedOriginal, table: str) -> int | None:
    match = re.fullmatch(rf"insert into {table} \(id\) values \((\d+|\$1)\)", original.statement)
    if match is None:
        return None
    if match[1] != "$1":
        return int(match[1])
    [parameter] = original.parameters
    assert parameter.format == 1
    assert parameter.value is not None
    return int.from_bytes(parameter.value, "big", signed=True)


def _ran_only_what_was_recorded(entries: list[Entry], table: str, executed: set[int]) -> None:
    requests = _requests(entries, table)
    allowed = {
        entry.event.statement_id
        for entry in entries
        if isinstance(entry.event, Decided) and entry.event.decision == "ALLOW"
    }
    assert [row for row in executed if row not in requests] == []
    assert [row for row in executed if requests[row] not in allowed] == []


def _completed(stack: Stack, entries: list[Entry], table: str, acknowledged: set[int]) -> None:
    requests = _requests(entries, table)
    rows = stack.history(
        "select toString(statement_id) as id, outcome from queries"
        f" where statement like 'insert into {table} %'"
    )
    outcomes: dict[str, list[str]] = {}
    for row in rows:
        outcomes.setdefault(row["id"], []).append(row["outcome"])
    ids = {str(UUID(bytes=statement_id)): row for row, statement_id in requests.items()}
    assert set(outcomes) == set(ids)
    assert {i: o for i, o in outcomes.items() if len(o) != 1} == {}
    wrong = {i: o for i, [o] in outcomes.items() if ids[i] in acknowledged and o != "completed"}
    assert wrong == {}
    ended = {entry.event.statement_id for entry in entries if isinstance(entry.event, Completed)}
    assert {requests[row] for row in acknowledged} <= ended
