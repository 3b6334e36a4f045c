"""How every process connects to Kafka: aiokafka's arguments, and what it needs on uvloop.

Unlike most of `schemas` this is not pure; it is here because the planes share nothing else.
"""

from __future__ import annotations

import functools
import ssl
from collections.abc import Callable
from typing import Any

from aiokafka.conn import AIOKafkaConnection, CloseReason
from aiokafka.errors import KafkaConnectionError

from schemas.settings import Kafka


def options(kafka: Kafka) -> dict[str, Any]:
    """Keyword arguments of aiokafka's clients. Raises SettingsError for a missing secret."""
    chosen: dict[str, Any] = {
        "bootstrap_servers": kafka.bootstrap_servers,
        "security_protocol": kafka.security_protocol,
    }
    if kafka.security_protocol in ("SSL", "SASL_SSL"):
        chosen["ssl_context"] = ssl.create_default_context(
            cafile=str(kafka.ca_file) if kafka.ca_file else None
        )
    if kafka.security_protocol in ("SASL_SSL", "SASL_PLAINTEXT"):
        chosen["sasl_mechanism"] = kafka.sasl_mechanism
        chosen["sasl_plain_username"] = kafka.username
        chosen["sasl_plain_password"] = kafka.password.read() if kafka.password else None
    return chosen


def _told(write: Callable[..., Any]) -> Callable[..., Any]:
    """`write` with a closed socket told as aiokafka expects it.

    Where asyncio's transports only warn, uvloop's raise RuntimeError. aiokafka does not catch that:
    its task that learns where partitions are ends without a word when a broker dies at the wrong
    moment, and whoever waits for that task then waits for ever.
    """

    @functools.wraps(write)
    def told(connection: Any, *arguments: Any, **named: Any) -> Any:
        try:
            return write(connection, *arguments, **named)
        except RuntimeError as error:
            writer = connection._writer
            if writer is None or not writer.transport.is_closing():
                raise
            connection.close(reason=CloseReason.CONNECTION_BROKEN)
            raise KafkaConnectionError("the connection to the broker is closed") from error

    return told


AIOKafkaConnection.send = _told(AIOKafkaConnection.send)
AIOKafkaConnection._send_sasl_token = _told(AIOKafkaConnection._send_sasl_token)
