"""A client that says exactly the bytes a test gives it, where drivers would be too polite."""

from __future__ import annotations

import socket
import ssl
from types import TracebackType

from tests.e2e.stack import Stack
from tests.gateway.protocols.postgres import messages as pg


def address(stack: Stack) -> tuple[str, int]:
    """Host and port of the gateway."""
    listener = stack.document["gateways"][0]["postgres"]
    return listener["host"], listener["port"]


class WireClient:
    """One connection. `hello` is what came with its ReadyForQuery."""

    def __init__(self, connection: socket.socket, timeout_s: float = 30.0) -> None:
        connection.settimeout(timeout_s)
        self.socket = connection
        self._buffer = bytearray()
        self.hello: list[bytes] = []

    @classmethod
    def plain(cls, stack: Stack, receive_bytes: int | None = None) -> WireClient:
        """Connected, nothing said. `receive_bytes`: what its kernel takes before it reads."""
        connection = socket.socket()
        if receive_bytes is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        connection.settimeout(10)
        connection.connect(address(stack))
        return cls(connection)

    @classmethod
    def over_tls(cls, stack: Stack) -> WireClient:
        """In TLS, nothing else said."""
        raw = socket.create_connection(address(stack), 10)
        raw.sendall(pg.SSL_REQUEST)
        assert raw.recv(1) == b"S"
        context = ssl.create_default_context(cafile=stack.document["ca_file"])
        return cls(context.wrap_socket(raw, server_hostname="localhost"))

    @classmethod
    def signed_in(cls, stack: Stack, user: str, **parameters: str) -> WireClient:
        """A session of that person."""
        client = cls.over_tls(stack)
        client.send(pg.startup(**{"user": user, "database": "shop", **parameters}))
        client.until("R")
        client.send(pg.password(stack.token(user)))
        client.hello = client.until("Z")
        return client

    def send(self, *data: bytes) -> None:
        self.socket.sendall(b"".join(data))

    def message(self) -> bytes:
        """The next one. Raises EOFError."""
        while True:
            if len(self._buffer) >= 5:
                end = 1 + int.from_bytes(self._buffer[1:5], "big")
                if len(self._buffer) >= end:
                    whole = bytes(self._buffer[:end])
                    del self._buffer[:end]
                    return whole
            data = self.socket.recv(1 << 16)
            if not data:
                raise EOFError
            self._buffer += data

    def until(self, kind: str, times: int = 1) -> list[bytes]:
        """Messages up to the times-th of a type."""
        found = []
        while times:
            found.append(self.message())
            times -= found[-1][:1] == kind.encode()
        return found

    def ask(self, *data: bytes, times: int = 1) -> list[bytes]:
        """Send, and read up to the times-th ReadyForQuery."""
        self.send(*data)
        return self.until("Z", times)

    def to_the_end(self) -> list[bytes]:
        """Everything until the gateway closes."""
        found = []
        try:
            while True:
                found.append(self.message())
        except (EOFError, ConnectionResetError):
            return found

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> WireClient:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
