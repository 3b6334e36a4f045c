"""Gives memory back to the system after many connections have ended.

A connection's objects refer to each other, and Python looks for such garbage by the number of
objects, whatever they hold. A TLS handshake holds 300 KB of the C library's heap, most of it never
touched; once freed the heap stays ours, and the next handshakes touch other pages of it. Together
they would let a client grow us for hours that begins handshakes by the thousand and ends none.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
from collections.abc import Callable
from typing import Any, Final

_INTERVAL_S: Final = 5.0
_MANY: Final = 200


def _trim_function() -> Callable[[int], Any]:
    try:
        trim: Callable[[int], Any] = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        # Another C library than glibc: its heap is its own affair.
        return lambda _: None
    return trim


async def give_back(connections: Callable[[], int]) -> None:
    """For ever: collect and trim whenever `connections` has fallen by many."""
    trim = _trim_function()
    # What was imported stays: without it a collection takes a millisecond instead of fifty.
    gc.freeze()
    most = connections()
    while True:
        await asyncio.sleep(_INTERVAL_S)
        now = connections()
        if most - now >= _MANY:
            gc.collect()
            trim(0)
            most = now
        most = max(most, now)
