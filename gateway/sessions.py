"""The sessions of this process: their number, and the keys by which statements are cancelled."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import secrets
from typing import Final, Protocol

from prometheus_client import Gauge

_AT_ONCE_S: Final = 1.0
_OPEN = Gauge("gatebook_connections", "Client connections open now.")


def cancel_proof(process_id: int, secret: bytes) -> bytes:
    """That whoever asks knows a session's secret, without saying it in Kafka. 32 bytes."""
    return hashlib.sha256(b"gatebook/cancel/v1\0" + process_id.to_bytes(4, "big") + secret).digest()


class Cancellable(Protocol):
    """A connection whose running statement can be cancelled by who knows its key."""

    def cancel(self) -> None:
        """Ask the target to cancel what runs."""
        ...

    def shut_down(self) -> None:
        """End politely; told again, at once."""
        ...

    def reconsider(self) -> None:
        """End, if who is connected may connect no longer."""
        ...

    def target_over(self) -> None:
        """End, if its target is offered no longer, or has changed."""
        ...


class Sessions:
    """The open connections: which have signed in, and which a CancelRequest means.

    A client is told the process id that the target has for its session, since notifications carry
    it, and statements such as pg_terminate_backend() take it; only the secret is ours. Several
    targets may have the same process id, so that a connection is known by both.
    """

    def __init__(self) -> None:
        self._open: dict[Cancellable, bytes] = {}
        # A proof is a hash of what only the client knows, and tells nothing by how long it takes
        # to find.
        self._by_proof: dict[bytes, Cancellable] = {}
        self._signed_in: set[Cancellable] = set()
        self._none = asyncio.Event()
        self._none.set()

    def __len__(self) -> int:
        return len(self._open)

    def add(self, connection: Cancellable) -> bytes:
        """A new connection: the 32 bytes of its secret."""
        self._open[connection] = b""
        self._none.clear()
        _OPEN.set(len(self._open))
        return secrets.token_bytes(32)

    @property
    def signed_in(self) -> int:
        """Connections whose people are known."""
        return len(self._signed_in)

    def sign_in(self, connection: Cancellable) -> None:
        """Its person is known."""
        self._signed_in.add(connection)

    def know(self, connection: Cancellable, process_id: int, secret: bytes) -> None:
        """Its client is told this key: 4 bytes of the secret, or 32 in protocol 3.2."""
        proof = cancel_proof(process_id, secret)
        self._open[connection] = proof
        self._by_proof[proof] = connection

    def remove(self, connection: Cancellable) -> None:
        """The connection is over."""
        self._signed_in.discard(connection)
        proof = self._open.pop(connection, b"")
        if self._by_proof.get(proof) is connection:
            del self._by_proof[proof]
        _OPEN.set(len(self._open))
        if not self._open:
            self._none.set()

    async def end(self, within_s: float) -> None:
        """Shut every connection down; those that are not over in time are told again."""
        for seconds in (within_s, _AT_ONCE_S):
            for connection in self.all():
                connection.shut_down()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._none.wait()

    def cancel(self, proof: bytes) -> bool:
        """Cancel what the proof is for. False when that is no session of this node."""
        connection = self._by_proof.get(proof)
        if connection is None:
            return False
        connection.cancel()
        return True

    def all(self) -> list[Cancellable]:
        """Every connection, now."""
        return list(self._open)
