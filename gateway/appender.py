"""Idempotent produce requests to one partition, one at a time.

aiokafka's own sender passes each batch through four tasks and as many futures, which at one batch
in flight cost more than the batch. The client, its connections and its record batches are
aiokafka's; what is here is the request and what its answer means (Kafka protocol guide, "Produce
API"; KIP-98 for producer ids and sequence numbers).
"""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final

from aiokafka import TopicPartition
from aiokafka.errors import (
    KafkaError,
    LeaderNotAvailableError,
    NodeNotReadyError,
    for_code,
)
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.protocol.transaction import InitProducerIdRequest
from aiokafka.record.default_records import DefaultRecordBatchBuilder

_BACKOFF_S: Final = 0.05
_SEQUENCES: Final = 1 << 31
_NO_ERROR: Final = 0
_ACKS_ALL: Final = -1


class Appender:
    """Appends batches to one partition; each is in the log once, however often it was sent.

    `client` is an aiokafka client that is up. A batch that failed ends the appender: whether it
    is in the log can only be learnt by reading, and the next number would be refused.
    """

    def __init__(
        self, client: Any, topic: str, partition: int, *, timeout_s: float, batch_bytes: int
    ) -> None:
        self._client = client
        self._topic = topic
        self._partition = TopicPartition(topic, partition)
        self._timeout_s = timeout_s
        self._batch_bytes = batch_bytes
        self._producer_id = self._epoch = -1
        self._sequence = 0

    async def start(self) -> None:
        """Ask for a producer id. Raises KafkaError."""
        deadline = time.monotonic() + self._timeout_s
        while True:
            try:
                answer = await self._client.send(
                    self._client.get_random_node(),
                    InitProducerIdRequest(
                        transactional_id=None,
                        transaction_timeout_ms=int(self._timeout_s * 1000),
                    ),
                )
                if answer.error_code == _NO_ERROR:
                    self._producer_id, self._epoch = answer.producer_id, answer.producer_epoch
                    return
                raise for_code(answer.error_code)(self._topic)
            except KafkaError as error:
                await self._again(error, deadline)

    def batch(self) -> DefaultRecordBatchBuilder:
        """An empty batch, to be sent before the next one is asked for."""
        return DefaultRecordBatchBuilder(
            2,
            0,
            is_transactional=0,
            producer_id=self._producer_id,
            producer_epoch=self._epoch,
            base_sequence=self._sequence,
            batch_size=self._batch_bytes,
        )

    async def send(self, records: bytes, count: int) -> int:
        """Offset of the first record, once all replicas in sync have it.

        What may succeed later is sent again until the time is up. Raises KafkaError.
        """
        deadline = time.monotonic() + self._timeout_s
        request = ProduceRequest(
            transactional_id=None,
            required_acks=_ACKS_ALL,
            timeout=int(self._timeout_s * 1000),
            topics=[(self._topic, [(self._partition.partition, records)])],
        )
        while True:
            try:
                leader = self._client.cluster.leader_for_partition(self._partition)
                if leader is None or leader == -1:
                    raise LeaderNotAvailableError(self._topic)
                answer = await self._client.send(leader, request)
                ((_, ((_, code, offset, *_),)),) = answer.topics
                if code == _NO_ERROR:
                    self._sequence = (self._sequence + count) % _SEQUENCES
                    return int(offset)
                raise for_code(code)(self._topic)
            except KafkaError as error:
                await self._again(error, deadline)

    async def _again(self, error: KafkaError, deadline: float) -> None:
        """Before another attempt; raises `error` when there is to be none."""
        if not error.retriable or time.monotonic() >= deadline:
            raise error
        await asyncio.sleep(_BACKOFF_S)
        if error.invalid_metadata or isinstance(error, NodeNotReadyError):
            await self._client.force_metadata_update()
