"""A cluster with fewer replicas in sync than a write needs: it answers, and takes nothing."""

from __future__ import annotations

import asyncio
import re
import signal
import zlib
from collections.abc import Iterator

import psycopg
import pytest
from aiokafka.errors import KafkaError

from infra.devstack.plan import Options
from infra.devstack.shop import Size
from infra.kafka import admin
from schemas import topics
from tests.conftest import running
from tests.e2e.stack import Stack, until
from tests.faults.cluster import alter

pytestmark = [pytest.mark.faults, pytest.mark.e2e, pytest.mark.timeout(240)]

ELECTED = r"In the new epoch (\d+), the leader is (\d)"
PARTS = ("kafka", "postgres", "issuer", "gateway")


@pytest.fixture
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    root = tmp_path_factory.mktemp("replicas")
    config = root / "over.yaml"
    config.write_text("gateway: {journal: {deadline_s: 1.0}}\n")
    options = Options(gateways=1, brokers=3, config=config, size=Size(50, 100), only=PARTS)
    for _ in running(root / "stack", options):
        yield Stack(root / "stack")


async def in_sync(bootstrap_servers: str) -> set[int]:
    """How many replicas of partitions of gatebook.events are in sync; nothing when nobody knows."""
    try:
        async with admin.connected(bootstrap_servers) as client:
            [topic] = await client.describe_topics([topics.EVENTS])
            return {len(partition["isr"]) for partition in topic["partitions"]}
    except KafkaError:
        return set()


async def leader(bootstrap_servers: str) -> int:
    """The broker that the gateway's events are written to."""
    async with admin.connected(bootstrap_servers) as client:
        [topic] = await client.describe_topics([topics.EVENTS])
        number = zlib.crc32(b"gateway-1") % len(topic["partitions"])
        return int(next(p["leader"] for p in topic["partitions"] if p["partition"] == number))


def follower(stack: Stack, bootstrap_servers: str) -> str:
    """A broker that is neither that leader nor the controller.

    Only the brokers' logs tell who the controller is: clients are told of any broker in its place.
    """
    elected = [
        (int(epoch), int(broker))
        for name in ("kafka-1", "kafka-2", "kafka-3")
        for epoch, broker in re.findall(ELECTED, stack.log(name))
    ]
    busy = {max(elected)[1], asyncio.run(leader(bootstrap_servers))}
    return next(f"kafka-{broker}" for broker in (1, 2, 3) if broker not in busy)


def test_too_few_replicas_refuse_statements_and_service_resumes_by_itself(stack: Stack) -> None:
    servers = stack.document["kafka"]["bootstrap_servers"]
    with stack.connect() as session, stack.direct() as direct:
        session.execute("create table t (a int)")
        session.execute("insert into t values (1)")
        # One broker less is what three are for: nothing is refused for longer than it takes
        # the others to notice.
        broker = follower(stack, servers)
        stack.send(broker, signal.SIGSTOP)
        until(lambda: inserted(session, 2))
        until(lambda: asyncio.run(in_sync(servers)) == {2})
        assert inserted(session, 3)

        alter(servers, topics.EVENTS, {"min.insync.replicas": "3"}, brokers=3)
        assert not inserted(session, 4)
        assert not session.closed
        assert stack.ready() == 503
        rows = [row[0] for row in direct.execute("select a from t order by a")]
        assert rows == [1, 2, 3]

        stack.send(broker, signal.SIGCONT)
        until(lambda: inserted(session, 5))
        until(lambda: stack.ready() == 200)
        rows = [row[0] for row in direct.execute("select a from t order by a")]
        assert rows == [1, 2, 3, 5]


def inserted(session: psycopg.Connection[tuple[object, ...]], value: int) -> bool:
    """Whether the row was taken; else nothing must have been executed."""
    try:
        session.execute("insert into t values (%s)", (value,))
    except psycopg.Error as error:
        assert error.sqlstate == "58030", error
        assert "nothing was executed" in str(error)
        return False
    return True
