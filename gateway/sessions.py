"""The sessions of this process: their number, and the keys by which statements are cancelled."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from typing import Protocol

from prometheus_client import Gauge

_OPEN = Gauge("gatebook_connections", "Client connections open now.")


def cancel_proof(process_id: int, secret: bytes) -> bytes:
    """That whoever asks knows a session's secret, without saying it in Kafka. 32 bytes."""
    return hashlib.sha256(b"gatebook/cancel/v1\0" + process_id.to_bytes(4, "big") + secret).digest()


class Cancellable(Protocol):
    """A connection whose running statement can be cancelled by who knows its secret."""

    @property
    def cancel_secret(self) -> bytes:
        """What its client was told: 4 bytes, or 32 in protocol 3.2."""
        ...

    def cancel(self) -> None:
        """Ask the target to cancel what runs."""
        ...

    def shut_down(self) -> None:
        """End politely."""
        ...


class Sessions:
    """Connections by the process id that their clients know."""

    def __init__(self) -> None:
        self._by_id: dict[int, Cancellable] = {}

    def __len__(self) -> int:
        return len(self._by_id)

    def add(self, connection: Cancellable) -> tuple[int, bytes]:
        """The (process id, secret) by which this connection's statements can be cancelled."""
        while (process_id := secrets.randbelow(2**31 - 1) + 1) in self._by_id:
            pass
        self._by_id[process_id] = connection
        _OPEN.set(len(self._by_id))
        return process_id, secrets.token_bytes(32)

    def remove(self, process_id: int) -> None:
        """The connection is over."""
        self._by_id.pop(process_id, None)
        _OPEN.set(len(self._by_id))

    def cancel(self, process_id: int, proof: bytes) -> bool:
        """Cancel, if the proof is right. False when the session is not of this node."""
        known = self._by_id.get(process_id)
        if known is None:
            return False
        if hmac.compare_digest(cancel_proof(process_id, known.cancel_secret), proof):
            known.cancel()
        return True

    def all(self) -> list[Cancellable]:
        """Every connection, now."""
        return list(self._by_id.values())
