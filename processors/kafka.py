"""Kafka clients for processors."""

from __future__ import annotations

import ssl
from typing import Any

from schemas.settings import Kafka


def options(kafka: Kafka) -> dict[str, Any]:
    """Connection arguments of every aiokafka client. Raises SettingsError for its secret."""
    arguments: dict[str, Any] = {
        "bootstrap_servers": kafka.bootstrap_servers,
        "security_protocol": kafka.security_protocol,
        "client_id": "gatebook-mask",
    }
    if kafka.security_protocol in ("SSL", "SASL_SSL"):
        arguments["ssl_context"] = ssl.create_default_context(
            cafile=str(kafka.ca_file) if kafka.ca_file else None
        )
    if kafka.sasl_mechanism is not None:
        arguments["sasl_mechanism"] = kafka.sasl_mechanism
        arguments["sasl_plain_username"] = kafka.username
        arguments["sasl_plain_password"] = kafka.password.read() if kafka.password else None
    return arguments
