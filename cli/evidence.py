"""Looks for classified values in clear where none may be."""

from __future__ import annotations

import mmap
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SSN = re.compile(rb"(?<!\d)\d{3}-\d{2}-\d{4}(?!\d)")


@dataclass(frozen=True, slots=True)
class Scan:
    """What was looked through, and what was found where."""

    places: int
    bytes_read: int
    found: tuple[str, ...]


def seeded_ssns(customers_copy: Path) -> frozenset[bytes]:
    """Every ssn of the seeded shop, from the rows it was filled with."""
    with customers_copy.open("rb") as rows:
        return frozenset(row.split(b"\t")[4] for row in rows)


def in_files(files: Iterator[Path], ssns: frozenset[bytes]) -> Scan:
    """Search the raw bytes of files."""
    places, read, found = 0, 0, []
    for path in files:
        size = path.stat().st_size
        if size == 0:
            continue
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            places, read = places + 1, read + size
            found += [str(path) for match in SSN.finditer(data) if match[0] in ssns]
    return Scan(places, read, tuple(found))


async def in_topics(
    bootstrap_servers: str, topics: tuple[str, ...], ssns: frozenset[bytes]
) -> Scan:
    """Search every record's key, value and headers, decompressed.

    A producer may compress its batches; in the files such a value would be in clear and yet
    not be found.
    """
    from aiokafka import AIOKafkaConsumer

    consumer = AIOKafkaConsumer(
        *topics, bootstrap_servers=bootstrap_servers, group_id=None, auto_offset_reset="earliest"
    )
    await consumer.start()
    places, read, found = 0, 0, []
    try:
        ends = await consumer.end_offsets(list(consumer.assignment()))
        while any([await consumer.position(p) < end for p, end in ends.items()]):
            for batch in (await consumer.getmany(timeout_ms=200)).values():
                for record in batch:
                    parts = [record.key, record.value, *(value for _, value in record.headers)]
                    data = b"\0".join(part for part in parts if part)
                    places, read = places + 1, read + len(data)
                    found += [
                        f"{record.topic}/{record.partition}@{record.offset}"
                        for match in SSN.finditer(data)
                        if match[0] in ssns
                    ]
    finally:
        await consumer.stop()
    return Scan(places, read, tuple(found))
