"""Identifiers: UUIDv7 for what we create, UUIDv5 for what we derive."""

from __future__ import annotations

from uuid import UUID, uuid5

_DERIVED = UUID("6f0c1c1e-7d0b-5b0e-9d55-7a1f3a6c9e10")


def uuid7(unix_ms: int, random_bytes: bytes) -> UUID:
    """A UUIDv7 (RFC 9562, section 5.7) from a clock in milliseconds and ten random bytes."""
    value = (unix_ms & 0xFFFF_FFFF_FFFF) << 80 | int.from_bytes(random_bytes[:10], "big")
    value = value & ~(0xF000 << 64) | 0x7000 << 64
    value = value & ~(0xC000 << 48) | 0x8000 << 48
    return UUID(int=value)


def derived(event_id: UUID, stage: str) -> UUID:
    """The id of what `stage` makes of an event: the same at every replay."""
    return uuid5(_DERIVED, f"{event_id}/{stage}")
