"""aiokafka over uvloop, whose transports refuse what is written to a closed socket."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import uvloop
from aiokafka.conn import AIOKafkaConnection
from aiokafka.errors import KafkaConnectionError
from aiokafka.protocol.metadata import MetadataRequest

import schemas.kafka  # noqa: F401 (what it does to aiokafka is tried)

SENDS: list[Callable[[Any], Any]] = [
    lambda connection: connection.send(MetadataRequest([])),
    lambda connection: connection._send_sasl_token(b"token"),
]


async def _connected(port: int) -> Any:
    connection = AIOKafkaConnection("127.0.0.1", port)
    connection._versions = {3: (0, 5)}
    connection._reader, connection._writer = await asyncio.open_connection("127.0.0.1", port)
    # It has not noticed yet that nothing more will come.
    connection._read_task = asyncio.get_running_loop().create_future()
    return connection


@pytest.mark.parametrize("send", SENDS)
def test_what_is_sent_to_a_broker_that_is_gone_is_a_lost_connection(
    send: Callable[[Any], Any],
) -> None:
    async def lost() -> None:
        server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
        connection = await _connected(server.sockets[0].getsockname()[1])
        writer = connection._writer
        await connection._reader.read()
        writer.close()
        await writer.wait_closed()
        with pytest.raises(RuntimeError, match="closed"):
            writer.transport.write(b"x")
        with pytest.raises(KafkaConnectionError):
            send(connection)
        assert not connection.connected()
        server.close()

    uvloop.run(lost())


@pytest.mark.parametrize("send", SENDS)
def test_other_faults_stay_what_they_are(send: Callable[[Any], Any]) -> None:
    async def broken() -> None:
        server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
        connection = await _connected(server.sockets[0].getsockname()[1])

        def fail(_: bytes) -> None:
            raise RuntimeError("something else")

        writer = connection._writer
        writer.write = fail
        with pytest.raises(RuntimeError, match="something else"):
            send(connection)
        writer.close()
        server.close()

    uvloop.run(broken())
