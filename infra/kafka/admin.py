"""What the stack asks of a running cluster: is it there, and does it have our topics."""

from __future__ import annotations

import asyncio
import logging
import struct
from collections.abc import Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from schemas.topics import TOPICS, Topic

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

TOPIC_ALREADY_EXISTS = 36

# ApiVersions v0 with correlation id 1 and no client id: the smallest request a broker answers
# from its request threads, so that an open socket of a hung broker does not pass for a service.
_API_VERSIONS = struct.pack(">ihhih", 10, 18, 0, 1, -1)


class ClusterUnusable(Exception):
    """The cluster cannot be reached, or cannot hold our topics as configured."""


async def answers(host: str, port: int) -> bool:
    """Whether a Kafka broker answers an API request on this port."""
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(_API_VERSIONS)
        size, correlation, error = struct.unpack(">iih", await reader.readexactly(10))
        return (size > 6, correlation, error) == (True, 1, 0)
    finally:
        writer.close()


async def create_topics(
    bootstrap_servers: str, brokers: int | None = None, topics: tuple[Topic, ...] = TOPICS
) -> list[str]:
    """Create the topics that are missing, each with its explicit configuration.

    Waits until `brokers` nodes are registered (None: takes the cluster as it is) and until
    every partition has a leader. Returns the settings of topics that existed already and
    differ from what we need, one line each. Raises ClusterUnusable.
    """
    try:
        async with connected(bootstrap_servers) as admin:
            size = await _registered(admin, brokers)
            answer = await admin.create_topics([_new(topic, size) for topic in topics])
            for name, code, *rest in answer.topic_errors:
                if code not in (0, TOPIC_ALREADY_EXISTS):
                    reason = rest[0] if rest and rest[0] else f"error {code}"
                    raise ClusterUnusable(f"cannot create topic {name}: {reason}")
            await _have_leaders(admin, [topic.name for topic in topics])
            return await _differences(admin, topics, size)
    except ClusterUnusable:
        raise
    except Exception as error:  # aiokafka raises its own, OSError and asyncio's alike
        raise ClusterUnusable(
            f"Kafka at {bootstrap_servers}: {error or type(error).__name__}"
        ) from error


@asynccontextmanager
async def connected(bootstrap_servers: str) -> AsyncIterator[Any]:
    """An aiokafka admin client. Raises aiokafka's errors when no broker answers."""
    from aiokafka.admin import AIOKafkaAdminClient

    # aiokafka logs each refused attempt of a start-up as an error with a traceback.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers, request_timeout_ms=15_000)
    await admin.start()
    try:
        yield admin
    finally:
        await admin.close()


def _new(topic: Topic, brokers: int) -> Any:
    from aiokafka.admin import NewTopic

    return NewTopic(
        topic.name,
        num_partitions=topic.partitions,
        replication_factor=min(3, brokers),
        topic_configs=topic.config(brokers),
    )


async def _registered(admin: Any, brokers: int | None) -> int:
    """Number of registered brokers, once there are enough."""
    while True:
        count = len((await admin.describe_cluster())["brokers"])
        if count >= (brokers or 1):
            return count
        await asyncio.sleep(0.05)


async def _have_leaders(admin: Any, names: list[str]) -> None:
    while True:
        described = await admin.describe_topics(names)
        partitions = [p for topic in described for p in topic["partitions"]]
        if (
            len(described) == len(names)
            and all(topic["error_code"] == 0 and topic["partitions"] for topic in described)
            and all(p["error_code"] == 0 and p["leader"] >= 0 for p in partitions)
        ):
            return
        await asyncio.sleep(0.05)


async def _differences(admin: Any, topics: tuple[Topic, ...], brokers: int) -> list[str]:
    actual = await topic_configs(admin, [topic.name for topic in topics])
    lines = []
    for topic in topics:
        for key, wanted in topic.config(brokers).items():
            value = actual[topic.name].get(key)
            if value != wanted:
                lines.append(f"topic {topic.name} has {key}={value}, not {wanted}")
    return lines


async def topic_configs(admin: Any, names: list[str]) -> Mapping[str, dict[str, str]]:
    """Configuration of topics as the cluster holds it, by topic name."""
    from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

    responses = await admin.describe_configs(
        [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
    )
    return {
        name: {entry[0]: entry[1] for entry in entries}
        for response in responses
        for _code, _message, _kind, name, entries in response.resources
    }
