"""Accepts clients."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl

import structlog

from gateway.driver import Connection
from gateway.node import Node
from gateway.protocols.postgres import wire
from schemas.settings import Listener as ListenerSettings
from schemas.settings import SettingsError

_BACKLOG = 1024
_ACCEPT_RETRY_S = 0.1
_HANDSHAKE_S = 10.0
_TLS_HANDSHAKE = b"\x16"

log = structlog.get_logger("listener")


def tls_context(settings: ListenerSettings) -> ssl.SSLContext | None:
    """The listener's TLS; None for clear text. Raises SettingsError."""
    if settings.certificate is None or settings.private_key is None:
        if not settings.cleartext_loopback:
            raise SettingsError(
                "gateway.postgres: certificate and private_key are needed "
                "(or cleartext_loopback on a loopback address)"
            )
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols([wire.ALPN])
    try:
        context.load_cert_chain(settings.certificate, settings.private_key)
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(f"gateway.postgres: certificate does not load: {error}") from None
    return context


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Listener:
    """An open port. A client's first byte tells what it begins with: TLS at once ("direct SSL",
    PostgreSQL 17) or a packet of the protocol.
    """

    def __init__(self, node: Node, tls: ssl.SSLContext | None, opened: socket.socket) -> None:
        self._node = node
        self._settings = node.settings.gateway.postgres
        self._tls = tls
        self._socket = opened
        self._loop = asyncio.get_running_loop()
        self._silent: set[asyncio.Task[None]] = set()
        self._task = self._loop.create_task(self._run())

    @property
    def port(self) -> int:
        """The port taken."""
        return int(self._socket.getsockname()[1])

    def close(self) -> None:
        """Accept no one any more."""
        for task in (self._task, *self._silent):
            task.cancel()
        self._socket.close()

    async def _run(self) -> None:
        while True:
            try:
                accepted, _ = await self._loop.sock_accept(self._socket)
                accepted.setblocking(False)
                accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            except OSError as error:
                # Out of descriptors, or a client that is gone already: others still come.
                log.warning("accept_failed", error=type(error).__name__)
                await asyncio.sleep(_ACCEPT_RETRY_S)
                continue
            task = self._loop.create_task(self._welcome(accepted))
            self._silent.add(task)
            task.add_done_callback(self._silent.discard)

    async def _welcome(self, accepted: socket.socket) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 (narrowing)
        deadline = self._loop.time() + self._settings.login_timeout_s
        login = self._node.logins.begin(deadline, task.cancel)

        def connection() -> Connection:
            return Connection(self._node, self._tls, self._settings.cleartext_loopback, login)

        try:
            async with asyncio.timeout_at(deadline):
                direct = await self._first_byte(accepted) == _TLS_HANDSHAKE
            if direct and self._tls is not None:
                await self._loop.connect_accepted_socket(
                    connection, accepted, ssl=self._tls, ssl_handshake_timeout=_HANDSHAKE_S
                )
            else:
                await self._loop.connect_accepted_socket(connection, accepted)
        except (OSError, TimeoutError, asyncio.CancelledError):
            login.over()
            accepted.close()

    async def _first_byte(self, accepted: socket.socket) -> bytes:
        """Seen, not taken. Raises OSError when the client leaves without one."""
        readable = asyncio.Event()
        self._loop.add_reader(accepted.fileno(), readable.set)
        try:
            await readable.wait()
        finally:
            self._loop.remove_reader(accepted.fileno())
        first = accepted.recv(1, socket.MSG_PEEK)
        if not first:
            raise ConnectionAbortedError("the client left")
        return first


async def listen(node: Node) -> Listener:
    """Bind and serve. Raises SettingsError."""
    settings = node.settings.gateway.postgres
    if settings.cleartext_loopback and not _is_loopback(settings.host):
        raise SettingsError("gateway.postgres: cleartext_loopback needs a loopback address")
    context = tls_context(settings)
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        opened = socket.socket(family, kind, protocol)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind(address)
        opened.listen(_BACKLOG)
        opened.setblocking(False)
    except OSError as error:
        raise SettingsError(
            f"gateway.postgres: cannot bind {settings.host}:{settings.port}: {error.strerror}"
        ) from None
    return Listener(node, context, opened)
