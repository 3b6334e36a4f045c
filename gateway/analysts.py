"""Large texts are read in processes of their own: see gateway.large and gateway.analyst.

To read one on the event loop would keep every other session waiting, and so would a thread: what
makes a tree of JSON holds the interpreter for all of it (docs/decisions/0014). Processes are begun
when they are first needed. One that dies or takes too long costs the statement that it was
reading, which is refused, and nobody else's.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import sys
from collections import Counter as Counts
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Final, NamedTuple

import msgspec
import structlog
from prometheus_client import Counter, Gauge, Histogram

from gateway.analyst import HEADER, Answer, Forget, Job, Learn, parts_of
from gateway.large import Found, Wanted
from gateway.masking.copies import Copies
from gateway.masking.hidden import Hidden
from gateway.masking.veil import Veil
from gateway.policy.catalog import Snapshot
from gateway.policy.facts import Facts

_READ = Counter(
    "gatebook_large_statements_total",
    "Statements read in a process of their own, by how that ended.",
    ["outcome"],
)
_SECONDS = Histogram(
    "gatebook_large_statement_seconds",
    "From when such a statement was there until it was read, waiting included.",
    buckets=(0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 30.0, 120.0),
)
_WAITING = Gauge("gatebook_large_statements_waiting", "Such statements that are not read yet.")

_MOST: Final = 2
_WITHIN_S: Final = 60.0
_WAITING_BYTES: Final = 128 * 1024 * 1024
_REMEMBERED_BYTES: Final = 32 * 1024 * 1024
_KNOWN: Final = 8
_PRIVATE: Final = "GATEBOOK_"
_PROGRAM: Final = "from gateway.analyst import main; main()"

log = structlog.get_logger("analysts")

_answer: Final = msgspec.msgpack.Decoder(Answer)


class NotAnalysed(Exception):
    """It cannot be said what a statement does. `text` and `sqlstate` are for the client."""

    def __init__(self, outcome: str, text: str, sqlstate: str) -> None:
        super().__init__(text)
        self.outcome = outcome
        self.text = text
        self.sqlstate = sqlstate


class By(NamedTuple):
    """What a text is read by: what is known of its target, what it is masked by if it is, and what
    may not be copied.
    """

    target: str
    snapshot: Snapshot
    veil: Veil | None
    copies: Copies | None


class _Task(NamedTuple):
    person: str
    wanted: Wanted
    by: By
    done: asyncio.Future[tuple[Found, ...]]


class _Analyst:
    """One process, and what it has been told."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        # By target for its latest snapshot, by identity for what is hidden from somebody there.
        self._told: OrderedDict[str | int, tuple[int, Snapshot | Hidden]] = OrderedDict()
        self._next = 1

    async def read(self, wanted: Wanted, by: By, within_s: float) -> tuple[tuple[Found, ...], bool]:
        """What was found, and whether it leaves. Raises OSError, EOFError, TimeoutError and
        msgspec.MsgspecError; then it is of no more use.
        """
        async with asyncio.timeout(within_s):
            hidden = by.veil.hidden if by.veil is not None else None
            job = Job(
                wanted,
                await self._tell(by.target, by.snapshot),
                by.veil is not None,
                await self._tell(id(hidden), hidden) if hidden is not None else None,
                (
                    await self._tell(id(by.copies.hidden), by.copies.hidden)
                    if by.copies is not None
                    else None
                ),
                within_s + 1,
            )
            await self._send(job)
            return await self._listen()

    def kill(self) -> None:
        """End it."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    async def gone(self) -> None:
        """Once it is over, and what it was spoken to by is closed."""
        given, out = self._process.stdin, self._process.stdout
        assert given is not None and out is not None  # noqa: S101 (they are pipes)
        given.close()
        await out.read()
        await self._process.wait()
        await asyncio.sleep(0)

    @property
    def alive(self) -> bool:
        """Whether it was, a moment ago."""
        out = self._process.stdout
        return self._process.returncode is None and out is not None and not out.at_eof()

    async def _tell(self, key: str | int, known: Snapshot | Hidden) -> int:
        told = self._told.pop(key, None)
        if told is not None and told[1] is known:
            self._told[key] = told
            return told[0]
        if told is None and len(self._told) >= _KNOWN:
            _, told = self._told.popitem(last=False)
        if told is not None:
            await self._send(Forget(told[0]))
        number, self._next = self._next, self._next + 1
        for part in parts_of(number, known):
            await self._send(part)
        self._told[key] = number, known
        return number

    async def _send(self, message: Learn | Forget | Job) -> None:
        data = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
        given = self._process.stdin
        assert given is not None  # noqa: S101 (it is a pipe)
        given.write(HEADER.pack(len(data)))
        given.write(data)
        await given.drain()
        await asyncio.sleep(0)  # others, between the parts of a large catalog

    async def _listen(self) -> tuple[tuple[Found, ...], bool]:
        found: list[Found] = []
        facts: list[Facts] = []
        out = self._process.stdout
        assert out is not None  # noqa: S101 (it is a pipe)
        while True:
            (size,) = HEADER.unpack(await out.readexactly(HEADER.size))
            answer = _answer.decode(await out.readexactly(size))
            for piece in answer.pieces:
                one = piece.found
                if piece.facts >= len(facts):
                    raise EOFError
                if piece.facts >= 0:
                    one = msgspec.structs.replace(one, facts=facts[piece.facts])
                else:
                    facts.append(one.facts)
                found.append(one)
            if answer.last:
                return tuple(found), answer.leaving


async def _begin() -> _Analyst:
    """Raises OSError."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(_PRIVATE)
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        # Our own modules, and not those of a folder that we happen to be in.
        "-P",
        "-c",
        _PROGRAM,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        # What it says when it fails may quote what it was reading.
        stderr=asyncio.subprocess.DEVNULL,
        env=environment,
    )
    return _Analyst(process)


class Analysts:
    """Those of one gateway, at most `most` of them. A text takes `within_s` seconds or is refused.

    Persons take turns. While another is free nobody gets the last one who has one already, so that
    who sends many large texts keeps only their own waiting.
    """

    def __init__(self, most: int = _MOST, within_s: float = _WITHIN_S) -> None:
        self._most = most
        self._within_s = within_s
        self._free: list[_Analyst] = []
        self._busy: dict[asyncio.Task[None], _Task] = {}
        self._waiting: OrderedDict[str, deque[_Task]] = OrderedDict()
        self._waiting_bytes: Counts[str] = Counts()  # of each person
        self._known: OrderedDict[tuple[Wanted, By], tuple[tuple[Found, ...], int]] = OrderedDict()
        self._known_bytes = 0
        self._snapshots: dict[str, Snapshot] = {}
        self._closed = False

    async def read(self, person: str, wanted: Wanted, by: By) -> tuple[Found, ...]:
        """What is wanted. Raises NotAnalysed. Whoever is cancelled wants it no more."""
        known = self._known.get((wanted, by))
        if known is not None:
            self._known.move_to_end((wanted, by))
            _READ.labels("remembered").inc()
            return known[0]
        if self._closed or not self._affords(person, wanted.size):
            _READ.labels("refused").inc()
            text = "too many large statements wait to be read: try again"
            raise NotAnalysed("refused", text, "53000")
        loop = asyncio.get_running_loop()
        task = _Task(person, wanted, by, loop.create_future())
        self._waiting.setdefault(person, deque()).append(task)
        self._waiting_bytes[person] += wanted.size
        _WAITING.inc()
        outcome, begun = "cancelled", loop.time()
        try:
            self._assign()
            found = await task.done
            outcome = "read"
        except NotAnalysed as error:
            outcome = error.outcome
            raise
        finally:
            self._waiting_bytes[person] -= wanted.size
            if not self._waiting_bytes[person]:
                del self._waiting_bytes[person]
            _WAITING.dec()
            _READ.labels(outcome).inc()
            _SECONDS.observe(loop.time() - begun)
        self._remember(wanted, by, found)
        return found

    async def close(self) -> None:
        """Stop."""
        self._closed = True
        for task in self._busy.values():
            # Who is at the end already is left to come to it.
            task.done.cancel()
        for tasks in self._waiting.values():
            for waiting in tasks:
                waiting.done.cancel()
        await asyncio.gather(*self._busy, return_exceptions=True)
        for analyst in self._free:
            analyst.kill()
            await analyst.gone()

    def _affords(self, person: str, size: int) -> bool:
        # With all of it one person could have everybody else's refused.
        waiting = self._waiting_bytes
        return (
            waiting[person] + size <= _WAITING_BYTES // 2
            and waiting.total() + size <= _WAITING_BYTES
        )

    def _remember(self, wanted: Wanted, by: By, found: tuple[Found, ...]) -> None:
        size = wanted.size + sum(one.size for one in found)
        if (wanted, by) in self._known or size > _REMEMBERED_BYTES // 2:
            return
        if self._snapshots.get(by.target) is not by.snapshot:
            self._snapshots[by.target] = by.snapshot
            for key, (_, gone) in list(self._known.items()):
                if key[1].target == by.target:
                    del self._known[key]
                    self._known_bytes -= gone
        self._known[wanted, by] = found, size
        self._known_bytes += size
        while self._known_bytes > _REMEMBERED_BYTES:
            _, (_, gone) = self._known.popitem(last=False)
            self._known_bytes -= gone

    def _assign(self) -> None:
        """Give whoever's turn it is to whoever is free."""
        while len(self._busy) < self._most and not self._closed:
            task = self._next()
            if task is None:
                return
            work = asyncio.get_running_loop().create_task(self._work(task))
            self._busy[work] = task
            work.add_done_callback(self._freed)
            # Who is gone wants nothing more of it.
            task.done.add_done_callback(_canceller(work))

    def _freed(self, work: asyncio.Task[None]) -> None:
        del self._busy[work]
        self._assign()

    def _next(self) -> _Task | None:
        last = len(self._busy) == self._most - 1
        served = {task.person for task in self._busy.values()}
        for person, tasks in list(self._waiting.items()):
            while tasks and tasks[0].done.done():
                tasks.popleft()
            if not tasks:
                del self._waiting[person]
            elif not (last and person in served):
                task = tasks.popleft()
                self._waiting.move_to_end(person)
                return task
        return None

    async def _work(self, task: _Task) -> None:
        analyst: _Analyst | None = None
        failed: NotAnalysed | None = None
        try:
            while self._free and analyst is None:
                analyst = self._free.pop()
                if not analyst.alive:
                    await analyst.gone()
                    analyst = None
            if analyst is None:
                beginning = asyncio.ensure_future(_begin())
                try:
                    analyst = await asyncio.shield(beginning)
                except asyncio.CancelledError:
                    # Half begun, nobody would end it.
                    analyst = await beginning
                    raise
            found, leaves = await analyst.read(task.wanted, task.by, self._within_s)
            if not leaves:
                self._free.append(analyst)
                analyst = None
            if not task.done.done():
                task.done.set_result(found)
        except TimeoutError:
            failed = NotAnalysed("too_long", "the statement takes too long to be read", "54001")
        except (OSError, EOFError, msgspec.MsgspecError):
            text = "the statement could not be read: it may be too large"
            failed = NotAnalysed("failed", text, "54001")
        finally:
            if failed is not None:
                log.warning("not_analysed", outcome=failed.outcome, bytes=task.wanted.size)
                if not task.done.done():
                    task.done.set_exception(failed)
            elif not task.done.done():
                task.done.cancel()
            if analyst is not None:
                analyst.kill()
                await analyst.gone()


def _canceller(
    work: asyncio.Task[None],
) -> Callable[[asyncio.Future[tuple[Found, ...]]], None]:
    def told(done: asyncio.Future[tuple[Found, ...]]) -> None:
        if done.cancelled():
            work.cancel()

    return told
