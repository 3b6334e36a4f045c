"""Reading a compacted topic of one partition up to its present end, whenever that is asked for.

In between nothing is fetched: a question for the topic's end would wait behind a fetch that waits
for records.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition

log = structlog.get_logger()


class WrongTopic(Exception):
    """A topic that is missing, or is not laid out as schemas/topics.py says."""


class CompactedTopic:
    """Hands every record of a topic, in order, to `apply`. Reads only within `catch_up`."""

    def __init__(
        self, topic: str, client: dict[str, Any], apply: Callable[[Sequence[Any]], None]
    ) -> None:
        self._partition = TopicPartition(topic, 0)
        self._consumer = AIOKafkaConsumer(
            **client,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            fetch_max_wait_ms=100,
        )
        self._apply = apply

    async def start(self) -> int:
        """Connect, and return the offset behind the last record. Raises WrongTopic."""
        topic = self._partition.topic
        await self._consumer.start()
        if await self._consumer._client._wait_on_metadata(topic) != {0}:
            raise WrongTopic(f"topic {topic} must have exactly one partition")
        self._consumer.assign([self._partition])
        self._consumer.pause(self._partition)
        self.seek(0)
        return await self.end()

    async def stop(self) -> None:
        """Disconnect."""
        await self._consumer.stop()

    def seek(self, offset: int) -> None:
        """Read from here on."""
        self._consumer.seek(self._partition, offset)

    async def end(self) -> int:
        """The offset behind the last record."""
        ends = await self._consumer.end_offsets([self._partition])
        return int(ends[self._partition])

    async def catch_up(self) -> None:
        """Apply everything that is in the topic now. Waits for as long as Kafka needs."""
        end = await self.end()
        self._consumer.resume(self._partition)
        while await self._consumer.position(self._partition) < end:
            batches = await self._consumer.getmany(timeout_ms=5_000)
            records = batches.get(self._partition)
            if records:
                self._apply(records)
            else:
                log.warning("waiting for Kafka", topic=self._partition.topic)
        self._consumer.pause(self._partition)
