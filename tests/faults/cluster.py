"""Changes a running cluster's configuration."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError

from infra.kafka import admin
from schemas.topics import TOPICS
from tests.e2e.stack import until


def alter(bootstrap_servers: str, name: str, changes: Mapping[str, str], brokers: int = 1) -> None:
    """Give one of our topics its configuration with `changes`, and wait until it has it."""
    [topic] = [topic for topic in TOPICS if topic.name == name]
    wanted = {**topic.config(brokers), **changes}
    until(lambda: asyncio.run(_took(bootstrap_servers, name, wanted)))


async def _took(bootstrap_servers: str, name: str, wanted: dict[str, str]) -> bool:
    try:
        async with admin.connected(bootstrap_servers) as client:
            await client.alter_configs([ConfigResource(ConfigResourceType.TOPIC, name, wanted)])
            actual = await admin.topic_configs(client, [name])
            return wanted.items() <= actual[name].items()
    except KafkaError:
        # Perhaps the controller is the node that was stopped.
        return False
