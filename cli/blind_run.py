"""One run of the blind verifier: originals from Kafka or the vault, copies from where they are."""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack
from typing import Any, Final

from aiokafka.errors import KafkaError

from cli import clickhouse, vault
from cli.blind import Expected, Finding, HistoryRows, Judge, Keys, MaskedCopies, uuid
from cli.blind_tables import Tables
from cli.blind_topics import Topic
from cli.problems import Problem
from gateway.catalog import declared
from processors.compacted import CompactedTopic
from processors.mask_service import classification
from schemas import chain, topics
from schemas.chain import GENESIS
from schemas.codec import Archive, CodecError, encode_classification
from schemas.kafka import options
from schemas.masking.applied import Applied
from schemas.settings import Settings

_STRETCH: Final = 20_000
_STRETCH_BYTES: Final = 32 * 1024 * 1024
_AHEAD_BYTES: Final = 128 * 1024 * 1024
_EXTRA: Final = 1001
_AGAIN: Final = 20_000


def applied(settings: Settings) -> Applied:
    """What these settings give the mask processor; and what they give a gateway, which is all
    there is to know where nobody classifies by comments."""
    made = Applied({target.name: classification(target) for target in settings.targets})
    for target in settings.targets:
        made.learn(*encode_classification(declared(target)), Archive())
    return made


class Run:
    """One verification."""

    def __init__(
        self,
        judge: Judge,
        keys: Keys,
        *,
        tables: Tables,
        applied: Sequence[Applied],
        settings: Settings,
        patience: float,
    ) -> None:
        self._judge = judge
        self._keys = keys
        self._tables = tables
        self._applied = applied
        self._settings = settings
        self._deadline_s = patience
        self._history = HistoryRows(judge, clickhouse.row)
        self._covered: dict[str, tuple[int, int]] = {}
        self._heads: dict[str, tuple[int, bytes]] = {}
        self._whole = False

    async def through(self, source: str) -> str:
        """Verify; returns the source it took. Raises Problem."""
        # Tens of thousands of copies are held at a time, none in a cycle: to look for cycles among
        # them costs more than to open them.
        gc.freeze()
        gc.set_threshold(100_000, 50, 100)
        if source == "vault":
            await self._vault()
            return source
        try:
            async with AsyncExitStack() as stack:
                events, masked = await self._topics(stack)
                if source == "kafka" or await events.kept_since() <= self._judge.scope.since:
                    await self._kafka(stack, events, masked)
                    return "kafka"
        except (KafkaError, OSError) as error:
            if source == "kafka" or self._heads:
                raise Problem(f"Kafka does not answer: {type(error).__name__}") from None
        await self._vault()
        return "vault"

    def _client(self) -> dict[str, Any]:
        return options(self._settings.kafka) | {"client_id": "gatebook-verify"}

    async def _topics(self, stack: AsyncExitStack) -> tuple[Topic, Topic]:
        made = []
        for name in (topics.EVENTS, topics.MASKED):
            topic = Topic(name, self._client())
            stack.push_async_callback(topic.stop)
            await topic.start(self._judge.scope.since)
            made.append(topic)
        return made[0], made[1]

    async def _kafka(self, stack: AsyncExitStack, events: Topic, masked: Topic) -> None:
        learn = await self._compacted(stack)
        kept = await events.kept_since()
        self._whole = not kept and not self._judge.scope.since
        masked_kept = await masked.kept_since()
        copies = MaskedCopies(self._judge, lambda copy: copy.at >= kept)
        deadline = time.monotonic() + self._deadline_s
        while True:
            # Keys are written before what is sealed with them, and copies after: in this order,
            # everything that an event needs is there when it is read.
            await events.refresh()
            await learn()
            async for stretch in self._stretches(events):
                for expected in stretch:
                    copies.expect(expected)
                await self._read_masked(copies, masked)
                self._compare(stretch)
            await masked.refresh()
            while records := await masked.some(_STRETCH):
                self._take(copies, records)
            copies.settle()
            self._look_again()
            if not (copies or self._history.missing) or time.monotonic() > deadline:
                break
            await asyncio.sleep(0.5)
        dead = await self._dead_letters(stack) if copies or self._history.missing else set()

        def excused(expected: Expected) -> str:
            return "dead-lettered" if expected.source.encode() in dead else ""

        copies.finish(
            lambda expected: (
                "masked: no longer retained"
                if expected.masked.at < masked_kept
                else excused(expected)
            )
        )
        self._history.finish(excused)
        for row in self._tables.others(self._covered, _EXTRA):
            self._judge.find_row("added", row)

    async def _compacted(
        self, stack: AsyncExitStack, *, keys: bool = True
    ) -> Callable[[], Awaitable[None]]:
        read = []
        for name, apply in (
            (topics.SCHEMAS, self._add_schemas),
            (topics.CLASSIFICATIONS, self._add_classifications),
            *(((topics.KEYS, self._add_keys),) if keys else ()),
        ):
            topic = CompactedTopic(name, self._client(), apply)
            stack.push_async_callback(topic.stop)
            await topic.start()
            read.append(topic)

        async def learn() -> None:
            for topic in read:
                await topic.catch_up()

        return learn

    def _add_keys(self, records: Iterable[Any]) -> None:
        for record in records:
            if record.value is None:
                self._keys.drop(record.key)
                continue
            try:
                wraps = self._judge.archive.decode_wraps(record.value)
            except CodecError:
                continue
            if wraps.key_id == record.key:
                self._keys.add(wraps)

    def _add_schemas(self, records: Iterable[Any]) -> None:
        for record in records:
            try:
                self._judge.archive.add((record.value or b"").decode())
            except (CodecError, UnicodeDecodeError):
                continue

    def _add_classifications(self, records: Iterable[Any]) -> None:
        for record in records:
            for applied in self._applied:
                try:
                    applied.learn(record.key, record.value or b"", self._judge.archive)
                except CodecError:
                    continue

    async def _stretches(self, events: Topic) -> AsyncIterator[list[Expected]]:
        stretch: list[Expected] = []
        size = 0
        while records := await events.some(_STRETCH // 4):
            for record in records:
                size += len(record.value or b"")
                source = f"{record.topic}/{record.partition}/{record.offset}"
                if expected := self._event(record.value, source):
                    stretch.append(expected)
            if len(stretch) >= _STRETCH or size >= _STRETCH_BYTES:
                yield stretch
                stretch, size = [], 0
        if stretch:
            yield stretch

    def _event(self, value: bytes | None, source: str) -> Expected | None:
        try:
            envelope = chain.read(value or b"")
        except CodecError:
            self._judge.verdict.find(Finding("original", "altered", source, ""))
            return None
        before = (-1, GENESIS) if self._whole else (envelope.seq - 1, envelope.prev_hash)
        seq, head = self._heads.get(envelope.stream, before)
        if seq + 1 != envelope.seq or head != envelope.prev_hash:
            problem: Any = "missing" if envelope.seq > seq + 1 else "added"
            place = f"{envelope.stream} #{seq + 1}"
            self._judge.verdict.find(Finding("original", problem, place, ""))
        self._heads[envelope.stream] = (envelope.seq, envelope.event_hash)
        return self._judge.expect(envelope, source)

    async def _read_masked(self, copies: MaskedCopies, masked: Topic) -> None:
        while copies and copies.bytes_ahead < _AHEAD_BYTES:
            records = await masked.some(_STRETCH // 4)
            if not records:
                return
            self._take(copies, records)
        if copies.bytes_ahead >= _AHEAD_BYTES or copies.bytes_waiting >= _AHEAD_BYTES:
            copies.settle()

    @staticmethod
    def _take(copies: MaskedCopies, records: Iterable[Any]) -> None:
        for record in records:
            copies.found(record.value or b"")

    def _compare(self, stretch: list[Expected]) -> None:
        """A stretch of events against the history: from where the one before ended, so that no
        number is left out."""
        ranges: dict[str, tuple[int, int]] = {}
        for expected in stretch:
            stream, seq = expected.envelope.stream, expected.envelope.seq
            first, last = ranges.get(stream, (self._covered.get(stream, (0, seq - 1))[1] + 1, seq))
            ranges[stream] = (min(first, seq), max(last, seq))
        for stream, (first, last) in ranges.items():
            self._covered[stream] = (self._covered.get(stream, (first, last))[0], last)
        for row in self._history.compare(stretch, self._tables.of(ranges)):
            self._judge.find_row("added", row)

    def _look_again(self) -> None:
        """For rows that were not among those of their events: late, or of another time."""
        missing = list(self._history.missing)[:_AGAIN]
        if missing:
            self._history.again(self._tables.named(missing))

    async def _dead_letters(self, stack: AsyncExitStack) -> set[bytes]:
        topic = Topic(topics.DEAD_LETTERS, self._client())
        stack.push_async_callback(topic.stop)
        await topic.start(self._judge.scope.since)
        sources: set[bytes] = set()
        while records := await topic.some(_STRETCH):
            sources.update(record.key or b"" for record in records)
        return sources

    async def _vault(self) -> None:
        judge = self._judge
        judge.verdict.unwitnessed = True
        try:
            # Their keys are their own hashes, which the events name: it is no matter who has them.
            async with AsyncExitStack() as stack:
                await (await self._compacted(stack, keys=False))()
        except (KafkaError, OSError):
            print("without Kafka: by the classifications of the settings alone", file=sys.stderr)
        for wraps in vault.wraps(self._tables.document):
            self._keys.add(wraps)
        streams: set[str] = set()
        for since, last in self._tables.stretches():
            stretch = []
            for event_id, envelope in self._tables.boxes(since, last):
                expected = judge.expect(envelope) if envelope else None
                if envelope is None or (expected and expected.event_id != bytes.fromhex(event_id)):
                    judge.verdict.find(Finding("original", "altered", uuid(event_id), ""))
                elif expected:
                    streams.add(envelope.stream)
                    stretch.append(expected)
            for row in self._history.compare(stretch, self._tables.between(since, last)):
                self._history.without_original(row)
        deadline = time.monotonic() + self._deadline_s
        self._look_again()
        while self._history.missing and time.monotonic() < deadline:
            await asyncio.sleep(0.5)
            self._look_again()
        self._history.finish(lambda expected: "")
        if not (judge.scope.session or judge.scope.statement):
            for stream, missing in self._tables.gaps():
                name = stream if stream in streams else "an unknown stream"
                what = f"{missing} of {name}"
                judge.verdict.find(Finding("history", "missing", what, ""))
