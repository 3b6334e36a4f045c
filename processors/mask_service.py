"""`python -m processors mask`: gatebook.events in, gatebook.masked out, nothing lost.

Offsets are committed after the brokers acknowledged every output of a batch. What is processed
again after a crash comes out the same, byte for byte.
"""

from __future__ import annotations

import asyncio
import time
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

import prometheus_client as prometheus
import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import (
    CommitFailedError,
    IllegalStateError,
    KafkaError,
    RebalanceInProgressError,
)
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from processors.compacted import CompactedTopic
from processors.health import serving
from processors.keyring import RECIPIENT, Keyring, MissingKey, WrapStore
from processors.mask import Masker, audit_copy
from schemas import chain, codec, sealing, topics
from schemas.codec import Archive, CodecError, UnknownSchema
from schemas.events import Masked
from schemas.kafka import options
from schemas.masking.applied import Applied, UnknownClassification
from schemas.masking.columns import Classification, ColumnMask
from schemas.masking.masks import of_audit_copy
from schemas.sealing import SealingError
from schemas.settings import Recipient, Settings, SettingsError, Target

log = structlog.get_logger()

_FLUSH_BYTES: Final = 8 * 1024 * 1024
"""Outputs held before they are sent, whatever the number of records."""
_BATCH_BYTES: Final = 512 * 1024
_RECORD_OVERHEAD: Final = 1024
_PAUSE_S: Final = 0.05
"""Longest stretch of computing between two turns of the loop, which must send heartbeats."""
_REFRESH_S: Final = 5.0
"""How often erased keys are looked for."""
_STOP_S: Final = 10.0
_SILENCE_S: Final = 15.0
"""Without an answer from Kafka for so long, this process is not ready."""


class TooLarge(CodecError):
    """An audit copy that no record can hold."""


def classification(target: Target) -> Classification:
    """A target's classified columns, from its settings."""
    return Classification(
        {
            source: ColumnMask(column.classification, of_audit_copy(column.mask))
            for source, column in target.classified.items()
        }
    )


def private_key(settings: Settings) -> X25519PrivateKey:
    """The key that opens what is sealed to this processor. Raises SettingsError."""
    if settings.mask.private_key is None:
        raise SettingsError("mask.private_key: the mask processor needs its X25519 private key")
    try:
        private = sealing.private_key(settings.mask.private_key.read().encode())
        for recipient in settings.recipients:
            if not isinstance(recipient, Recipient) or recipient.name != RECIPIENT:
                continue
            public = sealing.public_key(recipient.public_key.read_bytes())
            # With another key every single event would become a dead letter.
            if public != private.public_key():
                raise SettingsError(
                    f"mask.private_key does not belong to the public key of recipient {RECIPIENT}"
                )
    except SealingError as error:
        raise SettingsError(f"mask.private_key: {error}") from None
    except OSError as error:
        raise SettingsError(f"recipients: {error.filename}: {error.strerror}") from None
    return private


class Metrics:
    """What operators watch."""

    def __init__(self) -> None:
        self.registry = prometheus.CollectorRegistry()
        self.events = prometheus.Counter(
            "gatebook_mask_events", "Events masked.", ["kind"], registry=self.registry
        )
        self.dead_letters = prometheus.Counter(
            "gatebook_mask_dead_letters",
            "Records put aside.",
            ["reason"],
            registry=self.registry,
        )
        self.masks = prometheus.Counter(
            "gatebook_mask_masks", "Masks applied, by class.", ["class"], registry=self.registry
        )
        self.lag = prometheus.Gauge(
            "gatebook_mask_lag", "Records not processed yet.", ["partition"], registry=self.registry
        )
        self.keys = prometheus.Gauge(
            "gatebook_mask_keys", "Wrapped keys known.", registry=self.registry
        )
        self.batch = prometheus.Histogram(
            "gatebook_mask_batch_seconds",
            "From a batch's first record to its commit.",
            registry=self.registry,
        )

    def count(self, outbox: Outbox) -> None:
        """What a batch brought; a labelled increment per event would cost as much as its hash."""
        for kind, number in outbox.kinds.items():
            self.events.labels(kind).inc(number)
        for mask, number in outbox.masks.items():
            self.masks.labels(mask.partition(":")[0]).inc(number)
        for reason, number in outbox.reasons.items():
            self.dead_letters.labels(reason).inc(number)


class MaskService(ConsumerRebalanceListener):  # type: ignore[misc]
    """One process's share of the work."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._client = options(settings.kafka) | {"client_id": "gatebook-mask"}
        self._archive = Archive()
        self._applied = Applied(
            {target.name: classification(target) for target in settings.targets}
        )
        self._masker = Masker(self._applied)
        self._classifications = CompactedTopic(
            topics.CLASSIFICATIONS, self._client, self._add_classifications
        )
        self._keyring = Keyring(
            WrapStore(settings.mask.state_dir), self._archive, private_key(settings), self._client
        )
        self._schemas = CompactedTopic(topics.SCHEMAS, self._client, self._add_schemas)
        self._consumer = AIOKafkaConsumer(
            **self._client,
            group_id=settings.mask.group_id,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            fetch_max_wait_ms=100,
            # A killed processor's share waits this long for another; brokers accept no less.
            session_timeout_ms=6_000,
            heartbeat_interval_ms=1_000,
        )
        self._producer = AIOKafkaProducer(
            **self._client,
            acks="all",
            enable_idempotence=True,
            max_batch_size=_BATCH_BYTES,
            max_request_size=topics.MAX_RECORD_BYTES,
        )
        self._metrics = Metrics()
        self._lock = asyncio.Lock()
        self._generation = 0
        self._unready = "starting"
        self._partitions = 0
        self._learned = False
        self._heard = 0.0

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set. Any error that is not a record's own ends the process."""
        settings = self._settings.mask
        folder = self._settings.run_dir
        async with serving(
            settings.metrics_host,
            settings.metrics_port,
            self._metrics.registry,
            self._missing,
            folder / "mask.json" if folder else None,
        ) as url:
            log.info("started", metrics=url, group=settings.group_id)
            try:
                await self._start()
                await self._loop(stop)
            finally:
                self._unready = "stopping"
                await self._stop()
        log.info("stopped")

    def _missing(self) -> str:
        """What this process lacks to do its work, or nothing."""
        if not self._unready and time.monotonic() - self._heard > _SILENCE_S:
            return "Kafka does not answer"
        return self._unready

    async def _start(self) -> None:
        await self._producer.start()
        masked = codec.CURRENT[Masked]
        await self._producer.send_and_wait(topics.SCHEMAS, masked.text.encode(), key=masked.sha256)
        await self._schemas.start()
        await self._schemas.catch_up()
        await self._classifications.start()
        await self._classifications.catch_up()
        self._unready = "reading keys"
        await self._keyring.start(await self._cluster_id())
        self._partitions = len(await self._producer.partitions_for(topics.MASKED))
        self._unready = "waiting for partitions"
        self._consumer.subscribe([topics.EVENTS], listener=self)
        await self._consumer.start()

    async def _stop(self) -> None:
        for client in (
            self._consumer,
            self._producer,
            self._schemas,
            self._classifications,
            self._keyring,
        ):
            try:
                async with asyncio.timeout(_STOP_S):
                    await client.stop()
            except (KafkaError, TimeoutError, asyncio.CancelledError) as error:
                # aiokafka cancels its own tasks and passes that on; the error that brought us
                # here is the one to report.
                if (task := asyncio.current_task()) and task.cancelling():
                    raise
                log.warning("a client did not stop cleanly", error=type(error).__name__)

    async def _cluster_id(self) -> str:
        admin = AIOKafkaAdminClient(**self._client)
        await admin.start()
        try:
            return str((await admin.describe_cluster())["cluster_id"])
        finally:
            await admin.close()

    def _add_schemas(self, records: Sequence[Any]) -> None:
        for record in records:
            if record.value is None:
                continue
            try:
                self._archive.add(record.value.decode())
            except (CodecError, UnicodeDecodeError):
                log.warning("not a schema", topic=record.topic, offset=record.offset)

    def _add_classifications(self, records: Sequence[Any]) -> None:
        for record in records:
            if record.value is None:
                continue
            try:
                self._applied.learn(record.key, record.value, self._archive)
            except CodecError as error:
                log.warning("not a classification", offset=record.offset, error=str(error))

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        """Wait for the batch at hand, so that it is committed before another reads on."""
        async with self._lock:
            self._generation += 1
            self._unready = "waiting for partitions"

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        """Note that there is work. Reading begins at the committed offsets again."""
        self._generation += 1
        self._unready = ""
        self._metrics.lag.clear()
        log.info("assigned", partitions=sorted(partition.partition for partition in assigned))

    async def _loop(self, stop: asyncio.Event) -> None:
        refreshed = self._heard = time.monotonic()
        while not stop.is_set():
            # Outside the lock: a rebalance must not wait for records to arrive.
            batches = await self._consumer.getmany(
                timeout_ms=200, max_records=self._settings.mask.batch_records
            )
            # Not earlier: records that came after a rebalance within that call are ours, and
            # would not come again.
            generation = self._generation
            async with self._lock:
                # What came before a rebalance is fetched again by whoever has it now.
                if batches and generation == self._generation:
                    with self._metrics.batch.time():
                        await self._process(batches)
            if time.monotonic() - refreshed > _REFRESH_S:
                await self._refresh()
                refreshed = time.monotonic()
            self._metrics.keys.set(len(self._keyring))

    async def _refresh(self) -> None:
        try:
            await self._keyring.catch_up()
        except KafkaError as error:
            # An outage while there is nothing to do: the clients reconnect by themselves.
            log.warning("Kafka does not answer", error=type(error).__name__)
        else:
            self._heard = time.monotonic()

    async def _process(self, batches: Mapping[TopicPartition, Sequence[Any]]) -> None:
        outbox = Outbox(self._producer, self._partitions)
        turn = time.monotonic()
        self._learned = False
        for records in batches.values():
            for record in records:
                await self._handle(record, outbox)
                if outbox.size > _FLUSH_BYTES:
                    await outbox.flush()
                if time.monotonic() - turn > _PAUSE_S:
                    await asyncio.sleep(0)
                    turn = time.monotonic()
        await outbox.flush()
        self._metrics.count(outbox)
        try:
            await self._consumer.commit(
                {partition: records[-1].offset + 1 for partition, records in batches.items()}
            )
        except (CommitFailedError, IllegalStateError, RebalanceInProgressError):
            # The group has moved on without us; the partition's next reader repeats the batch.
            log.warning("batch not committed: the group rebalanced")
        for partition in batches:
            highwater = self._consumer.highwater(partition)
            if highwater is not None:
                behind = highwater - batches[partition][-1].offset - 1
                self._metrics.lag.labels(partition.partition).set(behind)

    async def _handle(self, record: Any, outbox: Outbox) -> None:
        try:
            try:
                self._add(record, outbox)
            except MissingKey as missing:
                await self._learn()
                if missing.key_id not in self._keyring:
                    await self._keyring.verify()
                self._add(record, outbox)
            except (UnknownSchema, UnknownClassification):
                await self._learn()
                self._add(record, outbox)
        except (CodecError, SealingError, MissingKey) as error:
            await outbox.dead_letter(record, error)

    async def _learn(self) -> None:
        """Read new keys, schemas and classifications, once a batch.

        They are written before the events that need them, and so before the batch was fetched: to
        look again for the next event of it would let a flood of hopeless ones stop all others.
        """
        if not self._learned:
            self._learned = True
            await self._schemas.catch_up()
            await self._classifications.catch_up()
            await self._keyring.catch_up()

    def _add(self, record: Any, outbox: Outbox) -> None:
        masked, context = self._masked(record.value)
        value = codec.encode_masked(masked, context)
        if len(value) > topics.MAX_RECORD_BYTES - _RECORD_OVERHEAD:
            raise TooLarge(f"the audit copy has {len(value)} bytes")
        outbox.add(masked.context.session_id, value, record.timestamp)
        outbox.kinds[masked.event_type] += 1
        outbox.masks.update(masked.masks)

    def _masked(self, value: bytes | None) -> tuple[Masked, bytes]:
        if value is None:
            raise CodecError("a record without a value")
        return audit_copy(self._archive, self._masker, self._keyring.opener, chain.read(value))


class Outbox:
    """Outputs of a batch on their way to the brokers."""

    def __init__(self, producer: AIOKafkaProducer, partitions: int) -> None:
        self._producer = producer
        self._partitions = partitions
        self._full: list[tuple[int, Any]] = []
        self._open: dict[int, Any] = {}
        self._acks: list[asyncio.Future[Any]] = []
        self.size = 0
        self.kinds: Counter[str] = Counter()
        self.masks: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()

    def add(self, session_id: bytes, value: bytes, timestamp: int) -> None:
        """An audit copy; those of a session stay in their order."""
        partition = zlib.crc32(session_id) % self._partitions
        builder = self._open.get(partition)
        if builder is None:
            builder = self._open[partition] = self._producer.create_batch()
        if builder.append(timestamp=timestamp, key=session_id, value=value) is None:
            self._full.append((partition, builder))
            builder = self._open[partition] = self._producer.create_batch()
            builder.append(timestamp=timestamp, key=session_id, value=value)
        self.size += len(value)

    async def dead_letter(self, record: Any, error: Exception) -> None:
        """The record as it came, still sealed, with the reason beside it."""
        source = f"{record.topic}/{record.partition}/{record.offset}"
        reason = type(error).__name__
        # The first of a batch stands for all: a flood must not fill the disk with log lines.
        if reason not in self.reasons:
            log.error("dead letter", reason=reason, error=str(error), source=source)
        self.reasons[reason] += 1
        headers = [
            ("gatebook-stage", b"mask"),
            ("gatebook-error", reason.encode()),
            ("gatebook-reason", str(error).encode()),
            ("gatebook-topic", record.topic.encode()),
            ("gatebook-partition", str(record.partition).encode()),
            ("gatebook-offset", str(record.offset).encode()),
        ]
        self._acks.append(
            await self._producer.send(
                topics.DEAD_LETTERS,
                record.value,
                key=source.encode(),
                timestamp_ms=record.timestamp,
                headers=headers,
            )
        )

    async def flush(self) -> None:
        """Send what there is; returns when every output is acknowledged."""
        batches = [*self._full, *self._open.items()]
        self._full, self._open, self.size = [], {}, 0
        for partition, builder in batches:
            builder.close()
            self._acks.append(
                await self._producer.send_batch(builder, topics.MASKED, partition=partition)
            )
        acks, self._acks = self._acks, []
        # All of them, before the first failure is raised.
        for outcome in await asyncio.gather(*acks, return_exceptions=True):
            if isinstance(outcome, BaseException):
                raise outcome
