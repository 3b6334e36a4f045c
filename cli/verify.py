"""`gatebook verify`: the blind verifier, where an auditor's key is; and proofs of single fields."""

from __future__ import annotations

import gc
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from cli.problems import Problem
from cli.running import StateDirOption, running
from schemas.codec import CodecError

if TYPE_CHECKING:
    from cli.blind import Expected, Judge, Keys, MaskedCopies, Scope, Verdict
    from cli.blind_tables import Tables
    from cli.blind_topics import Topic
    from schemas.masking.applied import Applied
    from schemas.settings import Settings

_STRETCH: Final = 20_000
_STRETCH_BYTES: Final = 32 * 1024 * 1024
_AHEAD_BYTES: Final = 128 * 1024 * 1024
_EXTRA: Final = 1001
_AGAIN: Final = 20_000

_TRUST = {
    "kafka": "gatebook.events and gatebook.keys in Kafka; every hash and link was computed again",
    "vault": "the vault in ClickHouse; every hash was computed again, but only Kafka, or a seal,"
    " shows that no event is missing with its original",
}


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(
        epilog="[bold]Examples[/bold]\n\n"
        "  gatebook verify --masks --since 1d --key carol.pem\n\n"
        "  gatebook verify --masks --session 0199f3c2-... --key carol.pem --source vault"
    )(verify)


def verify(  # noqa: PLR0917 (a command line's options are its parameters)
    masks: Annotated[
        bool, typer.Option("--masks", help="Masked copies and the history against the originals.")
    ] = False,
    proof: Annotated[
        Path | None, typer.Option("--proof", help="A field that was disclosed, against its event.")
    ] = None,
    key: Annotated[
        Path | None, typer.Option("--key", help="Your private key (X25519, PEM).")
    ] = None,
    since: Annotated[
        str | None, typer.Option(help="ISO time, or how long ago: 90m, 24h, 7d.")
    ] = None,
    until: Annotated[str | None, typer.Option(help="Likewise; not within.")] = None,
    session: Annotated[str | None, typer.Option(help="One session's id.")] = None,
    statement: Annotated[str | None, typer.Option(help="One statement's id.")] = None,
    source: Annotated[
        str, typer.Option(help="Where originals come from: kafka, vault or auto.")
    ] = "auto",
    config: Annotated[
        list[Path] | None,
        typer.Option(
            "--config",
            "-c",
            help="Settings with the targets; repeat it with those that were in force earlier.",
            show_default="those of the stack in --state-dir",
            dir_okay=False,
        ),
    ] = None,
    patience: Annotated[
        float, typer.Option(help="Seconds to wait for copies that are not there yet.")
    ] = 30.0,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
    state_dir: StateDirOption = None,
) -> None:
    """Mask the originals again and compare: is each copy exactly what the masks make of it?

    With --proof, whether a field that was disclosed is what its event's root binds; offline.
    Prints counts, and of what is wrong the event, the statement and the field; never a value.
    Exit codes: 0 all is as it must be; 3 something was altered, is missing or was added; 4 nothing
    is wrong with what could be compared, but not everything could be.
    """
    import asyncio

    from cli import originals, policy
    from cli.blind import Judge, Keys
    from cli.blind_tables import Tables
    from processors.mask import Masker

    if proof is not None:
        from cli.disclose import checked

        print(json.dumps(checked(proof), ensure_ascii=False, indent=2))
        return
    if not masks:
        raise Problem("say what is to be verified: --masks, or --proof FILE", 2)
    if key is None:
        raise Problem("originals open with an auditor's key: --key FILE", 2)
    if source not in ("auto", "kafka", "vault"):
        raise Problem("--source is kafka, vault or auto", 2)
    _, document = running(state_dir)
    files: list[Path | None] = [*config] if config else [None]
    found = [policy.settings_of(path, state_dir) for path in files]
    settings = [each for each in found if each is not None]
    if not settings:
        raise Problem("name the settings with the targets: --config FILE", 2)
    scope = _scope(since, until, session, statement)
    tables = Tables(document, scope)
    keys = Keys(originals.private_of(key), tables.erased())
    applied = [_applied(each) for each in settings]
    judge = Judge([Masker(each) for each in applied], keys, scope)
    run = _Run(judge, keys, tables=tables, applied=applied, settings=settings[0], patience=patience)
    chosen = asyncio.run(run.through(source))
    _show(judge.verdict, scope, chosen, as_json=as_json)
    if judge.verdict.exit_code:
        raise typer.Exit(judge.verdict.exit_code)


def _applied(settings: Settings) -> Applied:
    """What these settings give the mask processor; and what they give a gateway, which is all
    there is to know where nobody classifies by comments."""
    from gateway.catalog import declared
    from processors.mask_service import classification
    from schemas.codec import Archive, encode_classification
    from schemas.masking.applied import Applied

    applied = Applied({target.name: classification(target) for target in settings.targets})
    for target in settings.targets:
        applied.learn(*encode_classification(declared(target)), Archive())
    return applied


def _scope(
    since: str | None, until: str | None, session: str | None, statement: str | None
) -> Scope:
    from cli.blind import Scope
    from cli.originals import uuid

    now = datetime.now(UTC)
    ids = [uuid(text).bytes if text else b"" for text in (session, statement)]
    begin = _moment(since, now) if since else 0
    if not since and any(ids):
        # A UUIDv7 begins with its milliseconds; nothing of a session is older than its id.
        begin = min(int.from_bytes(each[:6], "big") for each in ids if each) * 1000 - 60_000_000
    end = _moment(until, now) if until else int(now.timestamp() * 1e6)
    if end <= begin:
        raise Problem("--until is not after --since", 2)
    return Scope(max(begin, 0), end, *ids)


def _moment(text: str, now: datetime) -> int:
    units = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
    try:
        if text[-1:] in units:
            at = now - timedelta(**{units[text[-1]]: float(text[:-1])})
        else:
            at = datetime.fromisoformat(text)
            at = at if at.tzinfo else at.replace(tzinfo=UTC)
        return int(at.timestamp() * 1e6)
    except (ValueError, OverflowError):
        raise Problem(f"{text!r} is no time: 2026-01-31T12:00, or 24h", 2) from None


class _Run:
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
        from cli.blind import HistoryRows

        self._judge = judge
        self._keys = keys
        self._tables = tables
        self._applied = applied
        self._settings = settings
        self._deadline_s = patience
        self._history = HistoryRows(judge)
        self._covered: dict[str, tuple[int, int]] = {}
        self._heads: dict[str, tuple[int, bytes]] = {}
        self._whole = False

    async def through(self, source: str) -> str:
        """Verify; returns the source it took. Raises Problem."""
        from aiokafka.errors import KafkaError

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
        from schemas.kafka import options

        return options(self._settings.kafka) | {"client_id": "gatebook-verify"}

    async def _topics(self, stack: AsyncExitStack) -> tuple[Topic, Topic]:
        from cli.blind_topics import Topic
        from schemas import topics

        made = []
        for name in (topics.EVENTS, topics.MASKED):
            topic = Topic(name, self._client())
            stack.push_async_callback(topic.stop)
            await topic.start(self._judge.scope.since)
            made.append(topic)
        return made[0], made[1]

    async def _kafka(self, stack: AsyncExitStack, events: Topic, masked: Topic) -> None:
        import asyncio

        from cli.blind import MaskedCopies

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
        from processors.compacted import CompactedTopic
        from schemas import topics

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
        from cli.blind import Finding
        from schemas import chain
        from schemas.chain import GENESIS

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
        from cli.blind_topics import Topic
        from schemas import topics

        topic = Topic(topics.DEAD_LETTERS, self._client())
        stack.push_async_callback(topic.stop)
        await topic.start(self._judge.scope.since)
        sources: set[bytes] = set()
        while records := await topic.some(_STRETCH):
            sources.update(record.key or b"" for record in records)
        return sources

    async def _vault(self) -> None:
        import asyncio

        from aiokafka.errors import KafkaError

        from cli.blind import Finding, uuid

        judge = self._judge
        judge.verdict.unwitnessed = True
        try:
            # Their keys are their own hashes, which the events name: it is no matter who has them.
            async with AsyncExitStack() as stack:
                await (await self._compacted(stack, keys=False))()
        except (KafkaError, OSError):
            print("without Kafka: by the classifications of the settings alone", file=sys.stderr)
        for wraps in self._tables.wraps():
            self._keys.add(wraps)
        streams: set[str] = set()
        for since, last in self._tables.stretches():
            stretch = []
            for event_id, envelope in self._tables.boxes(since, last):
                expected = judge.expect(envelope) if envelope else None
                if envelope is None or (expected and expected.row[_event_id()] != event_id):
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


def _event_id() -> int:
    from sinks.rows import COLUMNS

    return list(COLUMNS).index("event_id")


def _show(verdict: Verdict, scope: Scope, source: str, *, as_json: bool) -> None:
    if as_json:
        print(
            json.dumps(
                {
                    "source": source,
                    "counts": dict(verdict.counts),
                    "found": [str(finding) for finding in verdict.found],
                    "exit_code": verdict.exit_code,
                }
            )
        )
        return
    for finding in verdict.found:
        print(finding)
    if verdict.more:
        print(f"... and {verdict.more} more")
    print(f"originals from {_TRUST[source]}", file=sys.stderr)
    for line in _lines(verdict, scope):
        print(line)


def _lines(verdict: Verdict, scope: Scope) -> Iterator[str]:
    since, until = (datetime.fromtimestamp(at / 1e6, UTC) for at in (scope.since, scope.until))
    yield f"from {since:%Y-%m-%d %H:%M:%S} to {until:%Y-%m-%d %H:%M:%S} UTC"
    for what, count in sorted(verdict.counts.items()):
        yield f"  {count:>12,}  {what}"
    yield {0: "everything is as it must be", 3: "NOT as it must be"}.get(
        verdict.exit_code, "nothing is wrong with what could be compared; not all could be"
    )
