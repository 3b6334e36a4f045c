"""The whole system in containers: psql and psycopg through two gateways, into ClickHouse SQL."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

import pytest
from psycopg import OperationalError, errors

from cli import psql
from cli.problems import Problem
from infra.devstack.plan import Options
from schemas import topics
from tests.conftest import SMALL
from tests.containers import environment
from tests.e2e import book
from tests.e2e.stack import Stack, until
from tests.faults.load import Load

if TYPE_CHECKING:
    from tests.containers.components import Component

pytestmark = [pytest.mark.containers, pytest.mark.timeout(600)]

STATEMENTS = 400
SETTLED_S = 60.0


class Containers(Stack):
    """A stack in containers."""

    def __init__(self, root: Path, components: dict[str, Component]) -> None:
        super().__init__(root)
        self.components = components

    def events(self) -> dict[str, int]:
        """How often each event is in the history, by id; nothing while nobody serves it."""
        try:
            rows = self.history(
                "select toString(event_id) as id, count() as n from audit_events group by id"
            )
        except Problem:
            return {}
        return {row["id"]: int(row["n"]) for row in rows}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Containers]:
    environment.image("gatebook")  # skips where there is none
    from tests.containers.system import system

    root = tmp_path_factory.mktemp("system")
    with system(root, Options(gateways=2, size=SMALL)) as made:
        yield Containers(root, made.components)


@pytest.mark.parametrize("gateway", [1, 2])
def test_psql_through_each_gateway_is_in_the_history_masked(
    stack: Containers, gateway: int
) -> None:
    [(ssn,)] = stack.direct().execute("select ssn from customers where id = 7").fetchall()
    statement = f"select name, ssn from customers where id = 7 and {gateway} = {gateway}"
    done = subprocess.run(
        [psql.executable(), "--no-psqlrc", "--csv", "--tuples-only", "--command", statement],
        env=stack.environment("alice", gateway),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.strip().endswith(ssn)
    rows = until(
        lambda: stack.history(
            "select q.actor, q.decision, q.outcome, q.rows, q.gateway, r.rows as answer"
            " from queries q join responses r on r.statement_id = q.statement_id"
            f" where q.statement = '{statement}' and q.outcome = 'completed'"
        ),
        SETTLED_S,
    )
    assert len(rows) == 1
    assert (rows[0]["actor"], rows[0]["decision"], rows[0]["gateway"]) == (
        "alice",
        "ALLOW",
        f"gateway-{gateway}",
    )
    assert int(rows[0]["rows"]) == 1
    assert ssn not in str(rows)


@pytest.mark.parametrize("gateway", [1, 2])
def test_what_policy_forbids_does_not_run(stack: Containers, gateway: int) -> None:
    with stack.connect("alice", gateway) as session:
        with pytest.raises(errors.InsufficientPrivilege):
            session.execute("drop table orders")
        [(count,)] = session.execute("select count(*) from orders").fetchall()
    assert count == SMALL.orders


def test_no_container_has_more_rights_or_secrets_than_it_needs(stack: Containers) -> None:
    secrets = {path.name: path.read_text().strip() for path in stack.state.secrets.iterdir()}
    secrets |= {path.name: path.read_text().strip() for path in stack.state.keys.glob("*.pem")}
    assert secrets
    for name, component in stack.components.items():
        details = component.details()
        assert details["Config"]["User"] not in ("", "0", "root")
        assert details["HostConfig"]["CapDrop"] == ["ALL"]
        status, uid = component.container.exec(["id", "-u"])
        assert (status, int(uid) >= 10_000) == (0, True), name
        given = str(details["Config"]) + str(details["Args"]) + str(details["Mounts"])
        assert [secret for secret, value in secrets.items() if value in given] == [], name
    _, files = stack.components["clickhouse"].container.exec(["ls", "-R", "/etc/gatebook"])
    assert b"clickhouse-token" in files
    assert b"target-shop" not in files
    assert b"mask.pem" not in files


def test_every_container_says_that_it_is_healthy(stack: Containers) -> None:
    def unhealthy() -> list[str]:
        return [
            name
            for name, component in stack.components.items()
            if component.details()["State"]["Health"]["Status"] != "healthy"
        ]

    until(lambda: unhealthy() == [], SETTLED_S)


@pytest.mark.parametrize("victim", ["mask", "clickhouse", "gateway-2", "kafka"])
def test_killed_and_started_again_it_loses_nothing(stack: Containers, victim: str) -> None:
    component = stack.components[victim]
    table = f"load_{victim.replace('-', '_')}"
    with stack.direct() as direct:
        direct.execute(f"create table {table} (id bigint primary key)")

    def accident() -> None:
        component.kill()
        component.start_again()

    started = component.details()["State"]["StartedAt"]
    with ThreadPoolExecutor(1) as thread:
        accidents: list[Future[None]] = []
        load = Load(
            stack,
            table,
            STATEMENTS,
            midway=lambda: accidents.append(thread.submit(accident)),
            done=lambda: bool(accidents) and accidents[0].done(),
        )
        told = asyncio.run(load.run())
        accidents[0].result()

    assert component.details()["State"]["StartedAt"] != started
    assert len(told.acknowledged) >= STATEMENTS
    with stack.direct() as direct:
        executed = {row[0] for row in direct.execute(f"select id from {table}")}
    assert told.acknowledged <= executed <= told.acknowledged | told.unsure
    assert not told.refused & executed, "told that nothing was executed"
    _everything_is_in_the_history_once(stack)
    [row] = stack.history(
        "select count() as n from queries"
        f" where statement like 'insert into {table} %' and outcome != 'denied'"
    )
    assert int(row["n"]) >= len(executed)


def test_a_killed_target_is_told_recorded_and_reached_again(stack: Containers) -> None:
    statement = "select pg_sleep(60), 4711"

    def asked() -> str | None:
        with stack.connect("bob", 2) as session, pytest.raises(OperationalError) as raised:
            session.execute(statement)
        return raised.value.sqlstate

    with ThreadPoolExecutor(1) as thread:
        told = thread.submit(asked)
        with stack.direct() as direct:
            until(
                lambda: direct.execute(
                    "select true from pg_stat_activity where query = %s", [statement]
                ).fetchone()
            )
        stack.components["postgres"].kill()
        assert told.result() in ("08006", "57P01")
    stack.components["postgres"].start_again()
    with stack.connect("bob", 2) as session:
        [(count,)] = session.execute("select count(*) from customers").fetchall()
    assert count == SMALL.customers
    rows = until(
        lambda: stack.history(
            f"select outcome, error_code from queries where statement = '{statement}'"
            " and outcome != 'unknown'"
        ),
        SETTLED_S,
    )
    assert [row["outcome"] for row in rows] == ["lost"]


def _everything_is_in_the_history_once(stack: Containers) -> None:
    bootstrap = stack.document["kafka"]["bootstrap_servers"]
    # Whoever ended with the victim serves again, and no gateway has a session to write about.
    for component in stack.components.values():
        component.wait()
    until(lambda: all(stack.metric("gatebook_connections", g) == 0 for g in (1, 2)), SETTLED_S)
    entries = asyncio.run(book.read(bootstrap, stack.state.keys))
    assert book.check_chains(entries)
    recorded = {str(UUID(bytes=entry.event.event_id)) for entry in entries}
    until(lambda: stack.events().keys() >= recorded, SETTLED_S)
    history = until(stack.events, SETTLED_S)
    later = asyncio.run(book.read(bootstrap, stack.state.keys))
    assert history.keys() <= {str(UUID(bytes=entry.event.event_id)) for entry in later}
    assert {event: count for event, count in history.items() if count != 1} == {}
    assert asyncio.run(book.records(bootstrap, [topics.DEAD_LETTERS])) == []
    assert stack.history("select * from chain_gaps where missing != 0 or duplicates != 0") == []
