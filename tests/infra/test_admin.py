"""The topics of a real cluster."""

from __future__ import annotations

import pytest

from infra.kafka import admin
from schemas.topics import TOPICS

pytestmark = pytest.mark.integration


async def test_topics_have_the_configuration_they_were_declared_with(kafka: str) -> None:
    async with admin.connected(kafka) as client:
        actual = await admin.topic_configs(client, [topic.name for topic in TOPICS])
        described = await client.describe_topics([topic.name for topic in TOPICS])
    for topic in TOPICS:
        for key, value in topic.config(1).items():
            assert actual[topic.name][key] == value, (topic.name, key)
    partitions = {entry["topic"]: len(entry["partitions"]) for entry in described}
    assert partitions == {topic.name: topic.partitions for topic in TOPICS}


async def test_creating_them_again_changes_nothing_and_finds_no_difference(kafka: str) -> None:
    assert await admin.create_topics(kafka) == []


async def test_a_socket_that_says_nothing_is_no_broker(kafka: str) -> None:
    host, _, port = kafka.partition(":")
    assert await admin.answers(host, int(port))
