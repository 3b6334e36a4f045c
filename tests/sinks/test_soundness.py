"""Consumers that fail without saying so: each is noticed, and replaced."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any
from uuid import uuid4

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from aiokafka.consumer.group_coordinator import CoordinatorGroupRebalance
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment
from aiokafka.errors import KafkaError

from sinks.carrier import Carrier
from sinks.metrics import Metrics
from sinks.ranges import Range
from sinks.rows import Poison
from sinks.runner import _IDLE_S, Runner
from sinks.soundness import ConsumerEnded

pytestmark = pytest.mark.integration

PARTITIONS = 2


class Seen:
    """Notes the partitions it was given records of."""

    def __init__(self) -> None:
        self.partitions: set[int] = set()
        self.more = asyncio.Event()

    async def begin(self, partition: int, topic_id: bytes) -> None:
        pass

    async def write(self, batch: Range, topic_id: bytes, token: str) -> list[Poison]:
        self.partitions.add(batch.partition)
        self.more.set()
        return []


class Place:
    """A topic of its own, and one runner after another as the only member of a group."""

    def __init__(self, kafka: str) -> None:
        self.kafka = kafka
        self.topic = f"events-{uuid4()}"
        self.group = f"group-{uuid4()}"
        self.sink = Seen()
        self.metrics = Metrics("clickhouse")
        self.admin = AIOKafkaAdminClient(bootstrap_servers=kafka)

    def runner(self) -> Runner:
        return Runner(
            self.sink,
            self.metrics,
            kafka={"bootstrap_servers": self.kafka},
            topic=self.topic,
            group_id=self.group,
            batch_rows=100,
            linger_s=0.02,
            instance=self.group,
        )

    async def publish(self, partition: int) -> None:
        producer = AIOKafkaProducer(bootstrap_servers=self.kafka)
        await producer.start()
        await producer.send_and_wait(self.topic, b"x", partition=partition)
        await producer.stop()

    async def sees(self, *partitions: int) -> None:
        """Publish to each until the sink has something of all."""
        async with asyncio.timeout(30):
            for partition in partitions:
                await self.publish(partition)
            while not self.sink.partitions >= set(partitions):
                self.sink.more.clear()
                await self.sink.more.wait()


@pytest.fixture
async def place(kafka: str) -> AsyncIterator[Place]:
    made = Place(kafka)
    await made.admin.start()
    await made.admin.create_topics([NewTopic(made.topic, PARTITIONS, 1)])
    yield made
    await made.admin.delete_topics([made.topic])
    await made.admin.close()


async def stopped(runner: Runner | Carrier, task: asyncio.Task[None]) -> None:
    runner.stop()
    await asyncio.wait_for(task, 30)


class Nothing(RoundRobinPartitionAssignor):  # type: ignore[misc]
    """What a member comes to whose client has not heard of the topic yet."""

    @classmethod
    def assign(cls, cluster: Any, members: Any) -> Any:
        return {member: ConsumerProtocolMemberAssignment(0, [], b"") for member in members}


async def test_a_group_that_remembers_that_its_member_had_nothing_is_asked_anew(
    place: Place,
) -> None:
    consumer = AIOKafkaConsumer(
        bootstrap_servers=place.kafka,
        group_id=place.group,
        group_instance_id=place.group,
        partition_assignment_strategy=[Nothing],
    )
    consumer.subscribe([place.topic])
    await consumer.start()
    await consumer.getmany(timeout_ms=10)
    assert consumer.assignment() == set()
    await consumer.stop()
    runner = place.runner()
    task = asyncio.create_task(runner.run())
    await place.sees(0, 1)
    await stopped(runner, task)


async def test_partitions_added_while_it_was_away_are_read(place: Place) -> None:
    first = place.runner()
    task = asyncio.create_task(first.run())
    await place.sees(0, 1)
    await stopped(first, task)
    await place.admin.create_partitions({place.topic: NewPartitions(PARTITIONS + 1)})
    second = place.runner()
    task = asyncio.create_task(second.run())
    await place.sees(PARTITIONS)
    await stopped(second, task)


async def test_a_refusal_while_it_waits_for_partitions_ends_the_run(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = place.runner()
    task = asyncio.create_task(runner.run())
    await place.sees(0)

    async def refused(_: object) -> None:
        # By then the runner has come back from its fetch and waits for partitions alone.
        await asyncio.sleep(2 * _IDLE_S)
        raise KafkaError("an answer the client has no word for")

    monkeypatch.setattr(CoordinatorGroupRebalance, "perform_group_join", refused)
    runner._consumer._coordinator.request_rejoin()
    with pytest.raises(KafkaError, match="no word for"):
        await asyncio.wait_for(task, 30)


def _leave(consumer: AIOKafkaConsumer) -> None:
    consumer._coordinator._coordination_task.cancel()


def _fetch_no_more(consumer: AIOKafkaConsumer) -> None:
    consumer._fetcher._fetch_task.cancel()


def _learn_no_more(consumer: AIOKafkaConsumer) -> None:
    consumer._client._sync_task.cancel()


@pytest.mark.parametrize("end", [_leave, _fetch_no_more, _learn_no_more])
async def test_a_consumer_that_is_dead_in_part_is_replaced(
    place: Place, end: Callable[[AIOKafkaConsumer], None]
) -> None:
    made: list[Runner] = []
    replaced = asyncio.Event()

    def make() -> Runner:
        made.append(place.runner())
        if len(made) == 2:
            replaced.set()
        return made[-1]

    carrier = Carrier(make, place.metrics)
    task = asyncio.create_task(carrier.run())
    await place.sees(0)
    end(made[0]._consumer)
    await asyncio.wait_for(replaced.wait(), 30)
    place.sink.partitions.clear()
    await place.sees(0, 1)
    await stopped(carrier, task)


class Cancelled:
    """A runner out of which a client of Kafka lets a cancellation of its own."""

    async def run(self) -> None:
        raise asyncio.CancelledError

    def stop(self) -> None:
        pass


async def test_a_cancellation_that_is_nobodys_ends_no_sink(place: Place) -> None:
    runners: list[Any] = [Cancelled(), place.runner()]
    carrier = Carrier(lambda: runners.pop(0), place.metrics)
    task = asyncio.create_task(carrier.run())
    await place.sees(0, 1)
    await stopped(carrier, task)


async def test_its_own_cancellation_ends_it(place: Place) -> None:
    task = asyncio.create_task(Carrier(place.runner, place.metrics).run())
    await place.sees(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 30)


def test_what_ended_is_an_outage_and_no_fault_of_ours() -> None:
    assert issubclass(ConsumerEnded, KafkaError)
