"""Which records go into one insert, and how that is remembered across a crash. Pure.

An insert is named by the range of offsets it covers. The range is persisted before the insert
(as metadata of the consumer group's committed offset, which stays at its first record), so that
after a crash exactly the same range is inserted again under the same name, and ClickHouse drops
what it already has. Cutting the records differently would make other names and store rows twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol


class Record(Protocol):
    """What a Kafka client gives for one record."""

    @property
    def offset(self) -> int: ...
    @property
    def timestamp(self) -> int: ...
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...


@dataclass(frozen=True, slots=True)
class Note:
    """Metadata of a committed offset: the topic's id and, while an insert is under way, the last
    offset of its range."""

    topic_id: bytes
    last: int | None = None

    def text(self) -> str:
        return f"v1 {self.topic_id.hex()} {'-' if self.last is None else self.last}"

    @classmethod
    def parse(cls, text: str) -> Note | None:
        """None when it is not ours (an operator reset the offsets, for instance)."""
        match text.split(" "):
            case ["v1", topic_id, last]:
                try:
                    return cls(bytes.fromhex(topic_id), None if last == "-" else int(last))
                except ValueError:
                    return None
        return None


@dataclass(frozen=True, slots=True)
class Range:
    """Records of one partition that form one insert. `replayed`: its note is already persisted."""

    partition: int
    first: int
    last: int
    records: Sequence[Record]
    replayed: bool

    def token(self, cluster: str, topic_id: bytes) -> str:
        """Name of the insert: the same for the same records, and for no others."""
        return f"{cluster}:{topic_id.hex()}:{self.partition}:{self.first}-{self.last}"


@dataclass(slots=True)
class _Queue:
    records: list[Record] = field(default_factory=list)
    bytes: int = 0
    replay: tuple[int, int] | None = None


class Pending:
    """Records that were fetched and not yet inserted, by partition."""

    def __init__(self, max_rows: int, max_bytes: int) -> None:
        self._max_rows = max_rows
        self._max_bytes = max_bytes
        self._queues: dict[int, _Queue] = {}

    def assign(self, partition: int, replay: tuple[int, int] | None) -> None:
        """Begin a partition; `replay` is a range (first, last) that a crash left unfinished."""
        self._queues[partition] = _Queue(replay=replay)

    def clear(self) -> None:
        """Forget everything: the partitions were taken away."""
        self._queues.clear()

    def add(self, partition: int, records: Sequence[Record]) -> None:
        queue = self._queues.get(partition)
        if queue is None:  # taken away while they were on their way
            return
        queue.records.extend(records)
        queue.bytes += sum(len(record.value or b"") for record in records)

    @property
    def empty(self) -> bool:
        return not any(queue.records for queue in self._queues.values())

    @property
    def full(self) -> bool:
        """No reason to wait for more: some range is as large as it may be.

        A range to replay has the size it had, whatever the limits are now.
        """
        return any(
            queue.replay is None
            and (len(queue.records) >= self._max_rows or queue.bytes >= self._max_bytes)
            for queue in self._queues.values()
        )

    def take(self, positions: Mapping[int, int]) -> list[Range]:
        """One range for each partition that has one; `positions` are the next offsets to fetch.

        A range to replay is given out whole or, until its last record has come, not at all.
        """
        taken = []
        for partition, queue in self._queues.items():
            records = queue.records
            if queue.replay is not None:
                first, last = queue.replay
                if positions.get(partition, 0) <= last:
                    continue
                count = sum(record.offset <= last for record in records)
                taken.append(Range(partition, first, last, records[:count], replayed=True))
                queue.replay = None
            elif records:
                count = self._fitting(records)
                taken.append(
                    Range(
                        partition,
                        records[0].offset,
                        records[count - 1].offset,
                        records[:count],
                        replayed=False,
                    )
                )
            else:
                continue
            queue.records = records[count:]
            queue.bytes = sum(len(record.value or b"") for record in queue.records)
        return taken

    def _fitting(self, records: Sequence[Record]) -> int:
        count = total = 0
        for record in records[: self._max_rows]:
            total += len(record.value or b"")
            if count and total > self._max_bytes:
                break
            count += 1
        return count
