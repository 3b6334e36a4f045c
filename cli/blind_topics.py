"""Topics read from a moment on, their partitions side by side in the order of time."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition

from cli.problems import Problem

_SILENCE_S: Final = 30.0
_SKEW_MS: Final = 300_000
"""How much a record's timestamp may differ from its event's clock."""


class Topic:
    """Hands out records up to the ends as `refresh` saw them."""

    def __init__(self, name: str, client: dict[str, Any]) -> None:
        self._name = name
        self._consumer = AIOKafkaConsumer(
            **client,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            fetch_max_wait_ms=100,
        )
        self._ends: dict[TopicPartition, int] = {}
        self._next: dict[TopicPartition, int] = {}
        self._last: dict[TopicPartition, int] = {}
        self._begins: dict[TopicPartition, int] = {}

    async def start(self, since: int) -> None:
        """Connect, and stand where events of `since` (microseconds) may begin."""
        await self._consumer.start()
        # Asking for a topic's partitions is not public; a subscription would need a group.
        numbers = await self._consumer._client._wait_on_metadata(self._name)
        partitions = [TopicPartition(self._name, number) for number in sorted(numbers)]
        self._consumer.assign(partitions)
        self._begins = await self._consumer.beginning_offsets(partitions)
        await self.refresh()
        moment = max(since // 1000 - _SKEW_MS, 0)
        found = await self._consumer.offsets_for_times(dict.fromkeys(partitions, moment))
        for partition in partitions:
            at = found.get(partition)
            self._next[partition] = self._ends[partition] if at is None else at.offset
            self._last[partition] = 0
            self._consumer.seek(partition, self._next[partition])

    async def stop(self) -> None:
        """Disconnect."""
        await self._consumer.stop()

    async def refresh(self) -> None:
        """Read as far as there is something now."""
        self._ends = await self._consumer.end_offsets(list(self._begins))

    async def kept_since(self) -> int:
        """Microseconds from which on every record is still there; 0 when none was dropped."""
        dropped = [partition for partition, offset in self._begins.items() if offset]
        if not dropped:
            return 0
        first = await self._consumer.offsets_for_times(dict.fromkeys(dropped, 0))
        times = [at.timestamp for at in first.values() if at is not None]
        return (max(times, default=0) + _SKEW_MS) * 1000

    async def some(self, at_most: int) -> Sequence[Any]:
        """The next records of the partition that is behind the others; none at the ends."""
        open_ = [p for p, offset in self._next.items() if offset < self._ends[p]]
        if not open_:
            return ()
        partition = min(open_, key=lambda p: self._last[p])
        deadline = time.monotonic() + _SILENCE_S
        while True:
            got = await self._consumer.getmany(partition, timeout_ms=1000, max_records=at_most)
            records: Sequence[Any] = got.get(partition, ())
            if records:
                self._next[partition] = records[-1].offset + 1
                self._last[partition] = records[-1].timestamp
                return records
            if time.monotonic() > deadline:
                raise Problem(f"Kafka gives nothing of {self._name}")
