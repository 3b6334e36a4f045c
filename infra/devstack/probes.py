"""Whether a process really serves. Each probe speaks the process's own protocol."""

from __future__ import annotations

import asyncio
import ssl
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path

from infra.kafka import admin


def http_ready(
    port: int, path: str = "/readyz", ca_file: Path | None = None
) -> Callable[[], Awaitable[bool]]:
    """Probe: GET over HTTP (HTTPS when `ca_file` is given) on loopback answers 200."""
    tls = ssl.create_default_context(cafile=str(ca_file)) if ca_file else None
    request = f"GET {path} HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: close\r\n\r\n".encode()

    async def probe() -> bool:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=tls, server_hostname="localhost" if tls else None
        )
        try:
            writer.write(request)
            status = await reader.readline()
            return status.split(b" ")[1:2] == [b"200"]
        finally:
            writer.close()

    return probe


def kafka_answers(port: int) -> Callable[[], Awaitable[bool]]:
    """Probe: a broker answers an API request."""

    async def probe() -> bool:
        return await admin.answers("127.0.0.1", port)

    return probe


def postgres_accepts(port: int) -> Callable[[], Awaitable[bool]]:
    """Probe: PostgreSQL asks for a password, which it does only when it accepts connections.

    While it starts or recovers it answers a start-up message with an error instead.
    """
    body = struct.pack(">i", 196608) + b"user\0gatebook_probe\0database\0postgres\0\0"
    message = struct.pack(">i", len(body) + 4) + body

    async def probe() -> bool:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(message)
            return await reader.readexactly(1) == b"R"
        finally:
            writer.close()

    return probe
