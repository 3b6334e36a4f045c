"""Topic ids, which aiokafka does not tell."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import UnknownTopicOrPartitionError

from schemas.kafka import options
from schemas.settings import Kafka
from sinks.kafka import topic_identity

pytestmark = pytest.mark.integration


@pytest.fixture
async def admin(kafka: str) -> AsyncIterator[AIOKafkaAdminClient]:
    client = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await client.start()
    yield client
    await client.close()


async def identity(admin: AIOKafkaAdminClient, topic: str) -> tuple[str, bytes]:
    """As soon as the broker knows the topic."""
    while True:
        try:
            return await topic_identity(admin, topic)
        except UnknownTopicOrPartitionError:
            await asyncio.sleep(0.02)


async def test_a_topic_that_is_created_anew_has_another_id(admin: AIOKafkaAdminClient) -> None:
    topic = f"id-{uuid4()}"
    await admin.create_topics([NewTopic(topic, 2, 1)])
    cluster, first = await identity(admin, topic)
    assert (await topic_identity(admin, topic)) == (cluster, first)
    assert len(cluster) == 22
    assert len(first) == 16
    assert first != bytes(16)
    await admin.delete_topics([topic])
    await admin.create_topics([NewTopic(topic, 2, 1)])
    async with asyncio.timeout(20):
        while (found := (await identity(admin, topic))[1]) == first:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    assert found != bytes(16)


async def test_an_unknown_topic_is_an_error(admin: AIOKafkaAdminClient) -> None:
    with pytest.raises(UnknownTopicOrPartitionError):
        await topic_identity(admin, "no-such-topic")


def test_options_of_a_secured_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_PASSWORD", "hush")
    settings = Kafka.model_validate(
        {
            "bootstrap_servers": "kafka:9093",
            "security_protocol": "SASL_SSL",
            "sasl_mechanism": "SCRAM-SHA-512",
            "username": "sink",
            "password": {"env": "KAFKA_PASSWORD"},
        }
    )
    made = options(settings)
    assert made.pop("ssl_context").check_hostname
    assert made == {
        "bootstrap_servers": "kafka:9093",
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_plain_username": "sink",
        "sasl_plain_password": "hush",
    }
