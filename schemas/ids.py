"""Identifiers: UUIDv7 for what we create, UUIDv5 for what we derive."""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID, uuid5

_DERIVED = UUID("6f0c1c1e-7d0b-5b0e-9d55-7a1f3a6c9e10")


_VERSION_7 = bytes(0x70 | high & 0x0F for high in range(256))
_VARIANT = bytes(0x80 | high & 0x3F for high in range(256))
_RANDOM = 10
_DRAWN = 400


def _marked(random_bytes: bytes) -> bytes:
    """Version and variant put into every ten random bytes."""
    marked = bytearray(random_bytes)
    marked[::_RANDOM] = marked[::_RANDOM].translate(_VERSION_7)
    marked[2::_RANDOM] = marked[2::_RANDOM].translate(_VARIANT)
    return bytes(marked)


def uuid7(unix_ms: int, random_bytes: bytes) -> bytes:
    """A UUIDv7 (RFC 9562, section 5.7) from a clock in milliseconds and ten random bytes."""
    return (unix_ms & 0xFFFF_FFFF_FFFF).to_bytes(6, "big") + _marked(random_bytes[:_RANDOM])


class Ids:
    """UUIDv7s; randomness is drawn for hundreds at a time.

    `wall_ns` is a clock in nanoseconds since 1970, `random` gives so many random bytes.
    """

    def __init__(self, wall_ns: Callable[[], int], random: Callable[[int], bytes]) -> None:
        self._wall_ns = wall_ns
        self._random = random
        self._pool = b""
        self._at = 0
        self._ms = -1
        self._stamp = b""

    def __call__(self) -> bytes:
        ms = self._wall_ns() // 1_000_000
        if ms != self._ms:
            self._ms = ms
            self._stamp = (ms & 0xFFFF_FFFF_FFFF).to_bytes(6, "big")
        at = self._at
        if at >= len(self._pool):
            self._pool = _marked(self._random(_RANDOM * _DRAWN))
            at = 0
        self._at = at + _RANDOM
        return self._stamp + self._pool[at : at + _RANDOM]


def derived(event_id: UUID, stage: str) -> UUID:
    """The id of what `stage` makes of an event: the same at every replay."""
    return uuid5(_DERIVED, f"{event_id}/{stage}")
