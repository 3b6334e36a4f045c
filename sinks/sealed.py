"""gatebook.events and gatebook.keys records -> columns of the vault. Pure.

Nothing is opened here, and nothing could be: a box needs a data key, and a data key the private
key of a recipient.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa

from schemas import chain
from schemas.codec import Archive, CodecError
from schemas.events import NONE_ID, KeyWraps, Masked
from schemas.shamir import MOST
from sinks.ranges import Record
from sinks.rows import Poison, storable

_ID: Final = pa.binary(16)
_HASH: Final = pa.binary(32)
_BOXES: Final = pa.schema(
    [
        ("event_id", _ID),
        ("session_id", _ID),
        ("statement_id", _ID),
        ("key_id", _ID),
        ("kind", pa.string()),
        ("ts", pa.timestamp("us", "UTC")),
        ("stream", pa.string()),
        ("seq", pa.uint64()),
        ("prev_hash", _HASH),
        ("event_hash", _HASH),
        ("schema_sha256", _HASH),
        ("payload", pa.binary()),
    ]
)
_WRAPS: Final = pa.schema(
    [
        ("key_id", _ID),
        ("recipient", pa.string()),
        ("quorum", pa.string()),
        ("ciphertext", pa.binary()),
        ("threshold", pa.uint8()),
        ("position", pa.uint8()),
        ("public_key", pa.binary()),
        ("commitment", pa.binary()),
        ("version", pa.uint64()),
    ]
)


def boxes(archive: Archive, records: Sequence[Record]) -> tuple[pa.Table, list[Poison]]:
    """Rows of vault_boxes: the events that have a box. The chain's hash of each is checked."""
    rows: list[tuple[Any, ...]] = []
    poison = []
    for record in records:
        try:
            row = _box(archive, record.value)
        except CodecError as error:
            poison.append(Poison(record.offset, str(error)))
            continue
        if row is not None:
            rows.append(row)
    return _table(rows, _BOXES), poison


def _box(archive: Archive, value: bytes | None) -> tuple[Any, ...] | None:
    if value is None:
        raise CodecError("a record without a value")
    envelope = chain.read(value)
    event, _ = archive.decode(envelope.schema_sha256, envelope.payload)
    if isinstance(event, Masked):
        raise CodecError("Masked is not an event")
    if not getattr(event, "box", b""):
        return None
    if not storable(event.at):
        raise CodecError("a time that cannot be stored")
    return (
        event.event_id,
        event.context.session_id,
        getattr(event, "statement_id", NONE_ID),
        event.context.key_id,
        type(event).__name__,
        event.at,
        envelope.stream,
        envelope.seq,
        envelope.prev_hash,
        envelope.event_hash,
        envelope.schema_sha256,
        envelope.payload,
    )


@dataclass(frozen=True, slots=True)
class Wraps:
    """What a range of gatebook.keys comes to: wraps to keep, and keys that were destroyed, each
    with the offset of its tombstone."""

    kept: pa.Table
    erased: dict[bytes, int]

    def keys(self) -> list[bytes]:
        """Whose wraps are to be kept."""
        return list(dict.fromkeys(self.kept.column("key_id").to_pylist()))

    def without(self, destroyed: Mapping[bytes, int]) -> pa.Table:
        """What is to be kept, less that of keys which a tombstone has destroyed since."""
        if not destroyed:
            return self.kept
        pairs = zip(
            self.kept.column("key_id").to_pylist(),
            self.kept.column("version").to_pylist(),
            strict=True,
        )
        return self.kept.filter(
            pa.array([version > destroyed.get(key, -1) for key, version in pairs])
        )


def wraps(archive: Archive, records: Sequence[Record]) -> tuple[Wraps, list[Poison]]:
    """Rows of vault_wraps and tombstones. A key that the range destroys is not kept first."""
    latest: dict[bytes, list[tuple[Any, ...]]] = {}
    erased: dict[bytes, int] = {}
    poison = []
    for record in records:
        key = record.key
        if key is None or len(key) != len(NONE_ID):
            poison.append(Poison(record.offset, "a wrap without a key id"))
        elif record.value is None:
            latest.pop(key, None)
            erased[key] = record.offset
        else:
            try:
                made = archive.decode_wraps(record.value)
                if made.key_id != key:
                    raise CodecError("a wrap under another key id")
            except CodecError as error:
                poison.append(Poison(record.offset, str(error)))
                continue
            latest[key] = _rows(made, record.offset)
    rows = [row for found in latest.values() for row in found]
    return Wraps(_table(rows, _WRAPS), erased), poison


def _rows(made: KeyWraps, version: int) -> list[tuple[Any, ...]]:
    key = made.key_id
    rows: list[tuple[Any, ...]] = [
        (key, wrap.recipient, "", wrap.ciphertext, 0, 0, b"", b"", version) for wrap in made.wraps
    ]
    for quorum in made.quorums:
        if max(quorum.threshold, len(quorum.members)) > MOST or quorum.threshold < 1:
            raise CodecError("a quorum that cannot be")
        for position, member in enumerate(quorum.members, 1):
            rows.append(
                (key, member.recipient, quorum.name, member.ciphertext, quorum.threshold, position,
                 member.public_key, member.commitment, version)
            )  # fmt: skip
    return rows


def _table(rows: Sequence[tuple[Any, ...]], schema: pa.Schema) -> pa.Table:
    columns = zip(*rows, strict=True) if rows else ((),) * len(schema)
    return pa.table(
        [pa.array(column, kind) for column, kind in zip(columns, schema.types, strict=True)],
        schema=schema,
    )
