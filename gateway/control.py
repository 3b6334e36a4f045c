"""What nodes ask of each other, through gatebook.control.

A client's CancelRequest comes on a connection of its own, which a load balancer may lead to
another node than the session's. A node that does not know the session publishes the request, and
the node that does cancels.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError
from prometheus_client import Counter

from gateway.journal import Journal, NotDurable, stopped
from gateway.sessions import Sessions, cancel_proof
from schemas import codec, events, topics
from schemas.codec import Archive, CodecError
from schemas.kafka import options
from schemas.settings import Kafka

_CANCELS = Counter("gatebook_cancel_requests_total", "CancelRequests, by where they went.", ["to"])
_HERE, _ELSEWHERE, _DROPPED = (_CANCELS.labels(to) for to in ("here", "elsewhere", "dropped"))

# Anyone may send CancelRequests. Unknown ones must not become a flood of records.
_PER_SECOND: Final = 100
_STALE_US: Final = 60_000_000
_RETRY_S: Final = 1.0

log = structlog.get_logger("control")


class Control:
    """This node's end of gatebook.control."""

    def __init__(self, kafka: Kafka, gateway: str, sessions: Sessions, journal: Journal) -> None:
        self._kafka = kafka
        self._gateway = gateway
        self._sessions = sessions
        self._journal = journal
        self._archive = Archive()
        self._task: asyncio.Task[None] | None = None
        self._sending: set[asyncio.Task[None]] = set()
        self._second = 0
        self._sent = 0

    def start(self) -> None:
        """Listen; Kafka need not be there yet."""
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Stop."""
        tasks = [*self._sending, *([self._task] if self._task else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def cancel(self, process_id: int, secret: bytes) -> None:
        """A CancelRequest. Like PostgreSQL, nobody is told what came of it."""
        proof = cancel_proof(process_id, secret)
        if self._sessions.cancel(proof):
            _HERE.inc()
            return
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._sent = second, 0
        self._sent += 1
        if self._sent > _PER_SECOND:
            _DROPPED.inc()
            return
        _ELSEWHERE.inc()
        record = events.Control("cancel", process_id, proof, self._gateway, time.time_ns() // 1000)
        task = asyncio.create_task(self._send(record))
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    async def _send(self, record: events.Control) -> None:
        key = record.process_id.to_bytes(4, "big")
        try:
            await self._journal.publish(topics.CONTROL, key, codec.encode_control(record))
        except NotDurable:
            log.warning("cancel_not_sent")

    async def _run(self) -> None:
        while True:
            try:
                await self._listen()
            except (KafkaError, OSError) as error:
                log.warning("control_interrupted", error=type(error).__name__)
                await asyncio.sleep(_RETRY_S)

    async def _listen(self) -> None:
        consumer = AIOKafkaConsumer(
            **options(self._kafka), enable_auto_commit=False, auto_offset_reset="latest"
        )
        try:
            await consumer.start()
            consumer.assign([TopicPartition(topics.CONTROL, 0)])
            async for record in consumer:
                try:
                    self._obey(self._archive.decode_control(record.value or b""))
                except CodecError:
                    log.warning("control_unreadable", offset=record.offset)
        finally:
            await stopped(consumer)

    def _obey(self, control: events.Control) -> None:
        if control.action != "cancel" or control.gateway == self._gateway:
            return
        if time.time_ns() // 1000 - control.at <= _STALE_US:
            self._sessions.cancel(control.proof)
