"""Topic names, keys and explicit configuration (docs/architecture.md, "Topics")."""

from __future__ import annotations

from dataclasses import dataclass, field

EVENTS = "gatebook.events"
MASKED = "gatebook.masked"
KEYS = "gatebook.keys"
SCHEMAS = "gatebook.schemas"
CLASSIFICATIONS = "gatebook.classifications"
CONTROL = "gatebook.control"
DEAD_LETTERS = "gatebook.dead-letters"

MAX_RECORD_BYTES = 24 * 1024 * 1024
"""Largest record a topic takes: a chunk of rows is about 256 KiB, a statement may be megabytes."""


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic and the configuration it must be created with.

    `retention_ms` of -1 keeps records for ever; a compacted topic has no time limit.
    """

    name: str
    partitions: int
    compacted: bool = False
    retention_ms: int = -1
    extra: dict[str, str] = field(default_factory=dict)

    def config(self, brokers: int) -> dict[str, str]:
        """Kafka topic configuration for a cluster of `brokers` nodes."""
        return {
            "cleanup.policy": "compact" if self.compacted else "delete",
            "retention.ms": str(self.retention_ms),
            "retention.bytes": "-1",
            "min.insync.replicas": "2" if brokers >= 3 else "1",
            "max.message.bytes": str(MAX_RECORD_BYTES),
            "message.timestamp.type": "CreateTime",
            # A follower that missed acknowledged records must never lead.
            "unclean.leader.election.enable": "false",
            **self.extra,
        }


TOPICS: tuple[Topic, ...] = (
    Topic(EVENTS, partitions=8),
    Topic(MASKED, partitions=4),
    Topic(
        KEYS,
        partitions=1,
        compacted=True,
        extra={
            # What was erased is gone from the brokers' disks soon after, however little is written;
            # whoever was away for a month still learns of it.
            "max.compaction.lag.ms": "3600000",
            "delete.retention.ms": "2592000000",
        },
    ),
    Topic(SCHEMAS, partitions=1, compacted=True),
    # By their own SHA-256: compaction drops repetitions, and nothing else.
    Topic(CLASSIFICATIONS, partitions=1, compacted=True),
    # Commands, not history: worthless a minute later.
    Topic(CONTROL, partitions=1, retention_ms=86_400_000),
    Topic(DEAD_LETTERS, partitions=1),
)
