"""Ports on loopback: the usual one when free, the same again after a restart, never one twice.

Two stacks that start at once must not choose the same port before either listens on it, so
a choice is also a lock that lasts as long as the process that made it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import tempfile
from collections.abc import Mapping
from pathlib import Path

SEARCHED = 500
"""How many ports above the usual one are tried."""


class NoPort(Exception):
    """Every port of a range is taken."""


class Ports:
    """Chooses ports and holds them. Not for use from several threads."""

    def __init__(self, remembered: Mapping[str, int], locks: Path | None = None) -> None:
        """`remembered` are earlier choices by name, taken again where still free."""
        self._remembered = dict(remembered)
        self._locks = locks or Path(tempfile.gettempdir()) / f"gatebook-ports-{os.getuid()}"
        self._locks.mkdir(mode=0o700, exist_ok=True)
        self._held: dict[int, int] = {}
        self.chosen: dict[str, int] = {}

    def take(self, name: str, usual: int) -> int:
        """A free port for `name`: the remembered one, else the first free from `usual` up."""
        candidates = [*([self._remembered[name]] if name in self._remembered else [])]
        candidates += range(usual, min(usual + SEARCHED, 65536))
        for port in candidates:
            if port not in self._held and self._hold(port):
                self.chosen[name] = port
                return port
        raise NoPort(f"no free port for {name} from {usual} to {usual + SEARCHED}")

    def _hold(self, port: int) -> bool:
        lock = os.open(self._locks / str(port), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return False
        if not is_free(port):
            os.close(lock)
            return False
        self._held[port] = lock
        return True

    def release(self) -> None:
        """Give up every port, so that other stacks may take them."""
        for lock in self._held.values():
            with contextlib.suppress(OSError):
                os.close(lock)
        self._held.clear()


def is_free(port: int) -> bool:
    """Whether nothing listens on this port of either loopback address.

    `localhost` is tried as ::1 first by many clients, so a stranger there counts.
    """
    for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        try:
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                # Connections of an earlier run that linger in TIME_WAIT do not count.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((host, port))
                probe.listen(1)
        except OSError as error:
            if family == socket.AF_INET6 and error.errno in _NO_IPV6:
                continue
            return False
    return True


_NO_IPV6 = {97, 99}
"""EAFNOSUPPORT and EADDRNOTAVAIL: this machine has no ::1."""
