from __future__ import annotations

import pytest

from schemas.topics import CLASSIFICATIONS, CONTROL, KEYS, MAX_RECORD_BYTES, SCHEMAS, TOPICS


@pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: topic.name)
def test_no_topic_forgets_or_elects_a_leader_that_missed_records(topic: object) -> None:
    for brokers in (1, 3):
        config = topic.config(brokers)  # type: ignore[attr-defined]
        if topic.name != CONTROL:  # type: ignore[attr-defined]
            assert config["retention.ms"] == config["retention.bytes"] == "-1"
        assert config["unclean.leader.election.enable"] == "false"
        assert config["max.message.bytes"] == str(MAX_RECORD_BYTES)
        assert config["min.insync.replicas"] == ("2" if brokers == 3 else "1")


def test_what_is_looked_up_by_its_key_is_compacted_in_one_partition_each() -> None:
    compacted = [topic for topic in TOPICS if topic.compacted]
    assert [topic.name for topic in compacted] == [KEYS, SCHEMAS, CLASSIFICATIONS]
    assert all(topic.partitions == 1 for topic in compacted)
