"""Reads the book as an auditor would who has the mask processor's key, and checks its chains."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaConsumer

from schemas import chain, sealing, topics
from schemas.chain import Envelope
from schemas.codec import Archive
from schemas.events import Event, Masked, Original
from schemas.sealing import Opener


@dataclass(frozen=True, slots=True)
class Entry:
    """One event where it stands, with what its box holds."""

    partition: int
    offset: int
    timestamp_ms: int
    envelope: Envelope
    event: Event
    original: Original | None


Place = dict[int, int]
"""Offsets in gatebook.events, by partition."""


async def end(bootstrap_servers: str) -> Place:
    """Where the book ends now."""
    consumer = AIOKafkaConsumer(topics.EVENTS, bootstrap_servers=bootstrap_servers, group_id=None)
    await consumer.start()
    try:
        ends = await consumer.end_offsets(list(consumer.assignment()))
        return {partition.partition: offset for partition, offset in ends.items()}
    finally:
        await consumer.stop()


async def records(
    bootstrap_servers: str, names: Iterable[str], since: Place | None = None
) -> list[Any]:
    """Every record of these topics, from their beginning to their present end; of the book only
    those after `since`.
    """
    consumer = AIOKafkaConsumer(
        *names,
        bootstrap_servers=bootstrap_servers,
        group_id=None,
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=topics.MAX_RECORD_BYTES,
    )
    await consumer.start()
    found: list[Any] = []
    try:
        ends = await consumer.end_offsets(list(consumer.assignment()))
        for partition in ends:
            if since is not None and partition.topic == topics.EVENTS:
                consumer.seek(partition, since[partition.partition])
        while any([await consumer.position(p) < end for p, end in ends.items()]):
            for batch in (await consumer.getmany(timeout_ms=200)).values():
                found += batch
    finally:
        await consumer.stop()
    return found


async def read(bootstrap_servers: str, keys: Path, since: Place | None = None) -> list[Entry]:
    """All of gatebook.events (after `since`), decoded and opened.

    Raises CodecError or SealingError.
    """
    private = sealing.private_key((keys / "mask.pem").read_bytes())
    archive = Archive()
    names = (topics.SCHEMAS, topics.KEYS, topics.EVENTS)
    everything = await records(bootstrap_servers, names, since)
    openers = {}
    for record in everything:
        if record.topic == topics.SCHEMAS:
            archive.add(record.value.decode())
        elif record.topic == topics.KEYS:
            wraps = archive.decode_wraps(record.value)
            openers[wraps.key_id] = Opener(sealing.unwrap(wraps, "mask", private))
    return [
        _entry(record, archive, openers) for record in everything if record.topic == topics.EVENTS
    ]


def _entry(record: Any, archive: Archive, openers: dict[bytes, Opener]) -> Entry:
    envelope = chain.read(record.value)
    event, _ = archive.decode(envelope.schema_sha256, envelope.payload)
    assert not isinstance(event, Masked)
    box: bytes = getattr(event, "box", b"")
    original = None
    if box:
        opener = openers[event.context.key_id]
        plaintext = opener.open(event.context.session_id, event.event_id, box)
        original = archive.decode_original(envelope.schema_sha256, plaintext)
    return Entry(record.partition, record.offset, record.timestamp, envelope, event, original)


def check_chains(entries: Iterable[Entry], whole: bool = True) -> dict[str, int]:
    """Length of each stream. Fails on a gap, a broken link, a fork or a repeated event.

    `whole`: each stream is there from its beginning.
    """
    streams: dict[str, list[Entry]] = defaultdict(list)
    for entry in sorted(entries, key=lambda entry: (entry.partition, entry.offset)):
        streams[entry.envelope.stream].append(entry)
    for stream, links in streams.items():
        first = links[0].envelope
        start, previous = (0, chain.GENESIS) if whole else (first.seq, first.prev_hash)
        for number, link in enumerate(links, start):
            assert (stream, link.envelope.seq) == (stream, number)
            assert link.envelope.prev_hash == previous, f"{stream} #{number}"
            previous = link.envelope.event_hash
    ids = Counter(link.event.event_id for links in streams.values() for link in links)
    assert [event_id.hex() for event_id, count in ids.items() if count > 1] == []
    return {stream: len(links) for stream, links in streams.items()}


async def count(bootstrap_servers: str, topic: str) -> int:
    """Number of records of a topic that loses none."""
    consumer = AIOKafkaConsumer(topic, bootstrap_servers=bootstrap_servers, group_id=None)
    await consumer.start()
    try:
        partitions = list(consumer.assignment())
        ends = await consumer.end_offsets(partitions)
        begins = await consumer.beginning_offsets(partitions)
        return sum(ends[p] - begins[p] for p in partitions)
    finally:
        await consumer.stop()


async def every_record(bootstrap_servers: str) -> list[Any]:
    """Every record of every topic there is, Kafka's own included, decompressed."""
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap_servers, group_id=None)
    await consumer.start()
    try:
        names = await consumer.topics()
    finally:
        await consumer.stop()
    return await records(bootstrap_servers, names)
