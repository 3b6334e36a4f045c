"""Whether a consumer still works. aiokafka tells of a failure only to a call that happens to ask.

A consumer reads in three tasks of its own: one keeps its place in the group, one fetches, one
learns where partitions are. One that has ended leaves the others running: heartbeats without
fetching, or a wait for partitions that nobody will assign. Nothing of it is an error to whoever
waits for a callback or for records, so that the runner asks, each time round.
"""

from __future__ import annotations

import asyncio

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError


class ConsumerEnded(KafkaError):  # type: ignore[misc] # aiokafka ships no types
    """A consumer that will read nothing more. Another one may."""


def check(consumer: AIOKafkaConsumer) -> None:
    """Raise KafkaError when a started consumer has failed, or a part of it has ended."""
    try:
        consumer._coordinator.check_errors()
    except asyncio.CancelledError:
        # Of its own task, by itself: nobody has cancelled the caller.
        raise ConsumerEnded("it left its group") from None
    if consumer._fetcher.error_future.done():
        raise ConsumerEnded("it fetches no more")
    if consumer._client._sync_task.done():
        raise ConsumerEnded("it looks for no leaders any more")


async def assigned_all(consumer: AIOKafkaConsumer, topic: str, assigned: set[int]) -> bool:
    """Whether these are all partitions that `topic` has now; asks for others if not.

    A group remembers what a named member had, and gives it that again without asking anybody:
    the partitions of the moment at which a member last computed them, which are none if Kafka
    had only just started, and those that were added since are never among them.
    """
    await consumer._client.force_metadata_update()
    if assigned == consumer.partitions_for_topic(topic):
        return True
    consumer._coordinator.request_rejoin()
    return False
