"""Accepts clients."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl

import structlog
from prometheus_client import Counter

from gateway.driver import Connection
from gateway.node import Node
from gateway.protocols.postgres import wire
from schemas.settings import Listener, SettingsError

_REFUSED = Counter("gatebook_connections_refused_total", "Clients beyond max_connections.")
_BACKLOG = 1024

log = structlog.get_logger("listener")


def tls_context(settings: Listener) -> ssl.SSLContext | None:
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


async def listen(node: Node) -> asyncio.Server:
    """Bind and serve. Raises SettingsError."""
    settings = node.settings.gateway.postgres
    if settings.cleartext_loopback and not _is_loopback(settings.host):
        raise SettingsError("gateway.postgres: cleartext_loopback needs a loopback address")
    context = tls_context(settings)

    def accept() -> asyncio.Protocol:
        if len(node.sessions) >= settings.max_connections:
            _REFUSED.inc()
            return _Full()
        return Connection(node, context, settings.cleartext_loopback)

    try:
        server = await asyncio.get_running_loop().create_server(
            accept, settings.host, settings.port, backlog=_BACKLOG, reuse_address=True
        )
    except OSError as error:
        raise SettingsError(
            f"gateway.postgres: cannot bind {settings.host}:{settings.port}: {error.strerror}"
        ) from None
    return server


def bound_port(server: asyncio.Server) -> int:
    """The port a server took."""
    sock: socket.socket = server.sockets[0]
    return int(sock.getsockname()[1])


class _Full(asyncio.Protocol):
    """Says so, and closes."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)  # noqa: S101 (narrowing)
        transport.write(wire.fatal("53300", "sorry, too many clients already"))
        transport.close()
