"""The chain: every event of a gateway stream has a number, its predecessor's hash and its own.

    event_hash = SHA-256("gatebook/event/v1\\0" | u32 len stream | stream | u64 seq
                         | prev_hash | schema_sha256 | u64 len payload | payload)

Integers are big-endian. What is hashed are the writer's bytes, never a re-encoding. Everything
is in the record's value: Kafka's headers can be rewritten without touching it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from typing import Final

from schemas.binary import write_long
from schemas.codec import CodecError

GENESIS: Final = bytes(32)
"""prev_hash of seq 0."""

_TAG: Final = b"gatebook/event/v1\0"
_MAX_STREAM: Final = 1024
_STREAMS: Final = 1000


@dataclass(frozen=True, slots=True)
class Envelope:
    """One link (schemas/avro/Envelope.avsc)."""

    stream: str
    seq: int
    prev_hash: bytes
    schema_sha256: bytes
    event_hash: bytes
    payload: bytes

    @property
    def intact(self) -> bool:
        """Whether its hash is that of its content."""
        made = event_hash(self.stream, self.seq, self.prev_hash, self.schema_sha256, self.payload)
        return made == self.event_hash


def event_hash(
    stream: str, seq: int, prev_hash: bytes, schema_sha256: bytes, payload: bytes
) -> bytes:
    """The hash of a link, 32 bytes."""
    digest = sha256(
        _tagged(stream)
        + seq.to_bytes(8, "big")
        + prev_hash
        + schema_sha256
        + len(payload).to_bytes(8, "big")
    )
    digest.update(payload)
    return digest.digest()


@lru_cache(_STREAMS)
def _tagged(stream: str) -> bytes:
    name = stream.encode()
    return _TAG + len(name).to_bytes(4, "big") + name


class Chain:
    """Writes the envelopes of one stream."""

    def __init__(self, stream: str) -> None:
        name = stream.encode()
        if not 0 < len(name) <= _MAX_STREAM:
            raise ValueError("a stream's name has 1 to 1,024 bytes")
        self.stream = stream
        self.seq = 0
        self.head = GENESIS
        self._avro_name = write_long(len(name)) + name
        self._tagged = _tagged(stream)

    def append(self, schema_sha256: bytes, payload: bytes) -> bytes:
        """The next envelope, in Avro binary."""
        seq, previous = self.seq, self.head
        digest = sha256(
            self._tagged
            + seq.to_bytes(8, "big")
            + previous
            + schema_sha256
            + len(payload).to_bytes(8, "big")
        )
        digest.update(payload)
        self.head = digest.digest()
        self.seq = seq + 1
        return b"".join(
            (
                self._avro_name,
                write_long(seq),
                previous,
                schema_sha256,
                self.head,
                write_long(len(payload)),
                payload,
            )
        )


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    result = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise CodecError("truncated envelope")
        byte = data[at]
        at += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
        shift += 7
    # What has no place in 64 bits cannot be hashed.
    if result & 1 or result >> 64 or (shift and byte == 0):
        raise CodecError("negative or non-canonical number in an envelope")
    return result >> 1, at


def read(value: bytes) -> Envelope:
    """An envelope from a record's value, its hash checked. Raises CodecError."""
    length, at = _read_varint(value, 0)
    if not 0 < length <= _MAX_STREAM or at + length > len(value):
        raise CodecError("truncated envelope")
    try:
        stream = value[at : at + length].decode()
    except UnicodeDecodeError:
        raise CodecError("the stream's name is not UTF-8") from None
    seq, at = _read_varint(value, at + length)
    previous, schema, claimed = (
        value[at : at + 32],
        value[at + 32 : at + 64],
        value[at + 64 : at + 96],
    )
    size, at = _read_varint(value, at + 96)
    if at + size != len(value):
        raise CodecError("truncated envelope, or trailing bytes after it")
    payload = value[at:]
    if event_hash(stream, seq, previous, schema, payload) != claimed:
        raise CodecError(f"event_hash of {stream} #{seq} does not match its content")
    return Envelope(stream, seq, previous, schema, claimed, payload)
