"""The mask processor as a process, with a gateway's pen before it and a reader behind it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import httpx
import yaml
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from schemas import codec, topics
from schemas.codec import Archive
from schemas.events import Masked
from schemas.sealing import Recipients
from tests.processors.recording import Pen, Session, private_pem, public_pem

# One key for all tests: they share a broker, and a processor reads every test's events.
PRIVATE = X25519PrivateKey.generate()
RECIPIENTS = Recipients((("mask", PRIVATE.public_key()),))
DEADLINE_S = 60.0


class Processor:
    """`python -m processors mask`."""

    def __init__(self, config: Path, run_dir: Path, log: Path) -> None:
        self._config = config
        self._run_dir = run_dir
        self._log = log
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "processors", "mask", "--config", str(self._config)),
                env=os.environ | {"GATEBOOK_RUN_DIR": str(self._run_dir)},
                stderr=log,
            )

    async def ready(self) -> None:
        await until(self._is_ready, "the processor is ready")

    async def _is_ready(self) -> bool:
        assert self._process is not None
        assert self._process.returncode is None, self.log
        try:
            return (await self._get("/readyz")).status_code == 200
        except (OSError, httpx.TransportError, ValueError):
            return False

    async def _get(self, path: str) -> httpx.Response:
        address = json.loads((self._run_dir / "mask.json").read_text())
        if self._process is None or address["pid"] != self._process.pid:
            raise ValueError("the address of an earlier process")
        async with httpx.AsyncClient() as client:
            return await client.get(address["metrics_url"].replace("/metrics", path))

    async def metric(self, name: str) -> float:
        text = (await self._get("/metrics")).text
        lines = [line for line in text.splitlines() if line.startswith(f"gatebook_mask_{name}")]
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines)

    async def kill(self) -> None:
        """kill -9."""
        assert self._process is not None
        self._process.kill()
        await self._process.wait()

    async def stop(self) -> int:
        """SIGTERM; the exit status."""
        assert self._process is not None
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGTERM)
        return await self._process.wait()

    async def exit_status(self) -> int:
        assert self._process is not None
        return await asyncio.wait_for(self._process.wait(), DEADLINE_S)

    def assigned(self) -> list[int]:
        """Partitions it was given last."""
        lines = [json.loads(line) for line in self.log.splitlines()]
        given: list[list[int]] = [line["partitions"] for line in lines if "partitions" in line]
        return given[-1] if given else []

    @property
    def log(self) -> str:
        return self._log.read_text()


class Bench:
    """Everything around a processor."""

    def __init__(self, bootstrap: str, folder: Path) -> None:
        self.bootstrap = bootstrap
        self.folder = folder
        self.pen = Pen(RECIPIENTS)
        self.archive = Archive()
        self.producer = AIOKafkaProducer(
            bootstrap_servers=bootstrap, acks="all", max_request_size=topics.MAX_RECORD_BYTES
        )
        self._processors: list[Processor] = []

    async def __aenter__(self) -> Bench:
        await self.producer.start()
        await self._skip_what_is_there()
        return self

    async def _skip_what_is_there(self) -> None:
        """Begin this test's consumer group behind the events of the tests before."""
        partitions = [TopicPartition(topics.EVENTS, number) for number in range(8)]
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self.bootstrap, group_id=self.folder.name, enable_auto_commit=False
        )
        await consumer.start()
        consumer.assign(partitions)
        await consumer.commit(await consumer.end_offsets(partitions))
        await consumer.stop()

    async def __aexit__(self, *_: object) -> None:
        await self.producer.stop()
        for processor in self._processors:
            await processor.stop()

    def config(self, **mask: Any) -> Path:
        """A settings file for a consumer group of this test's own."""
        private, public = self.folder / "mask.pem", self.folder / "mask.pub"
        private.write_bytes(private_pem(PRIVATE))
        public.write_bytes(public_pem(PRIVATE))
        document = {
            "kafka": {"bootstrap_servers": self.bootstrap},
            "recipients": [{"name": "mask", "public_key": str(public)}],
            "targets": [
                {
                    "name": "shop",
                    "host": "unused",
                    "database": "shop",
                    "user": "unused",
                    "password": {"env": "UNUSED"},
                    "classified": {"public.customers.ssn": {"class": "pii"}},
                }
            ],
            "mask": {
                "private_key": {"file": str(private)},
                "state_dir": str(self.folder / "state"),
                "group_id": self.folder.name,
                **mask,
            },
        }
        file = self.folder / "gatebook.yaml"
        file.write_text(yaml.safe_dump(document))
        return file

    async def processor(self, config: Path | None = None) -> Processor:
        """A started processor."""
        number = len(self._processors)
        processor = Processor(
            config or self.config(),
            self.folder / f"run-{number}",
            self.folder / f"processor-{number}.log",
        )
        self._processors.append(processor)
        await processor.start()
        return processor

    async def session(self, *, key: bool = True, classification: bytes = b"") -> Session:
        """A session, its key published unless told otherwise."""
        session = self.pen.session(classification=classification)
        if key:
            await self.publish_key(session)
        return session

    async def publish_key(self, session: Session) -> None:
        await self.producer.send_and_wait(
            topics.KEYS, codec.encode_wraps(session.wraps), key=session.context.key_id
        )

    async def write(self, values: Iterable[bytes | None], partition: int = 0) -> list[int]:
        """Records of gatebook.events; their offsets."""
        acks = [
            await self.producer.send(topics.EVENTS, value, key=b"stream", partition=partition)
            for value in values
        ]
        return [(await ack).offset for ack in acks]

    async def masked(self, sessions: Iterable[Session], events: int) -> list[tuple[bytes, Masked]]:
        """(value, audit copy) of these sessions, once there are so many distinct events."""
        wanted = {session.id for session in sessions}

        def enough(found: list[Any]) -> bool:
            return (
                len({self.archive.decode_masked(record.value).event_id for record in found})
                >= events
            )

        records = await self._read(topics.MASKED, lambda record: record.key in wanted, enough)
        return [(record.value, self.archive.decode_masked(record.value)) for record in records]

    async def dead_letters(self, offsets: Iterable[int], partition: int = 0) -> dict[int, Any]:
        """Dead letters of these records of gatebook.events, by offset."""
        wanted = {f"{topics.EVENTS}/{partition}/{offset}".encode(): offset for offset in offsets}
        records = await self._read(
            topics.DEAD_LETTERS,
            lambda record: record.key in wanted,
            lambda found: {record.key for record in found} == wanted.keys(),
        )
        return {wanted[record.key]: record for record in records}

    async def _read(
        self, topic: str, mine: Callable[[Any], bool], enough: Callable[[list[Any]], bool]
    ) -> list[Any]:
        consumer = AIOKafkaConsumer(bootstrap_servers=self.bootstrap, auto_offset_reset="earliest")
        await consumer.start()
        try:
            count = next(t.partitions for t in topics.TOPICS if t.name == topic)
            partitions = [TopicPartition(topic, number) for number in range(count)]
            consumer.assign(partitions)
            found: list[Any] = []
            async with asyncio.timeout(DEADLINE_S):
                while True:
                    ends = await consumer.end_offsets(partitions)
                    at_end = all([await consumer.position(p) >= ends[p] for p in partitions])
                    if at_end and enough(found):
                        return found
                    for records in (await consumer.getmany(timeout_ms=200)).values():
                        found += filter(mine, records)
        finally:
            await consumer.stop()


async def until(condition: Callable[[], Any], what: str) -> None:
    """Wait for a condition; fails with its name."""
    try:
        async with asyncio.timeout(DEADLINE_S):
            while not await condition():  # noqa: ASYNC110 (another process's condition)
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"never came: {what}") from None
