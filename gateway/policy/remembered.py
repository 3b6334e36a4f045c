"""Decisions that were taken before. Pure.

What a statement's facts hold is as much as whoever asks has written into it: a few hundred
statements of a million names each would be all of a gateway's memory. So it is names that are
counted here, and not decisions alone.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, Final

from gateway.machine import Decision

_MOST: Final = 50_000
_MOST_BYTES: Final = 64 * 1024 * 1024


class Remembered:
    """The latest ones, of so many and so many bytes at most."""

    def __init__(self, most: int = _MOST, most_bytes: int = _MOST_BYTES) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._found: OrderedDict[tuple[Any, ...], tuple[Decision, int]] = OrderedDict()
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._found)

    def get(self, key: tuple[Any, ...]) -> Decision | None:
        """The decision, if it is remembered."""
        found = self._found.get(key)
        return found[0] if found is not None else None

    def keep(self, key: tuple[Any, ...], decision: Decision, size: int) -> None:
        """Remember one of that cost, that is not remembered."""
        self._found[key] = decision, size
        self.bytes += size
        while len(self._found) > self._most or self.bytes > self._most_bytes:
            _, (_, gone) = self._found.popitem(last=False)
            self.bytes -= gone
