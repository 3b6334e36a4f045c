"""Identifiers: UUIDv7 for what we create, UUIDv5 for what we derive."""

from __future__ import annotations

from uuid import UUID, uuid5

_DERIVED = UUID("6f0c1c1e-7d0b-5b0e-9d55-7a1f3a6c9e10")


_VERSION_7 = [bytes((0x70 | high & 0x0F,)) for high in range(256)]
_VARIANT = [bytes((0x80 | high & 0x3F,)) for high in range(256)]


def uuid7(unix_ms: int, random_bytes: bytes) -> bytes:
    """A UUIDv7 (RFC 9562, section 5.7) from a clock in milliseconds and ten random bytes."""
    return b"".join(
        (
            (unix_ms & 0xFFFF_FFFF_FFFF).to_bytes(6, "big"),
            _VERSION_7[random_bytes[0]],
            random_bytes[1:2],
            _VARIANT[random_bytes[2]],
            random_bytes[3:10],
        )
    )


def derived(event_id: UUID, stage: str) -> UUID:
    """The id of what `stage` makes of an event: the same at every replay."""
    return uuid5(_DERIVED, f"{event_id}/{stage}")
