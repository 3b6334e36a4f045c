"""A process that reads large texts for a gateway, which alone starts it.

    -> u32 length, pickle: `Learn` (a part of what is known of a target), `Forget` or `Job`
    <- u32 length, msgpack: `Answer`, of each job as many as it takes

Pickles come from the gateway alone. What comes back is decoded by its type: a text that took this
process over could lie about those that are read after it, and would run as the gateway's user, but
would not be in the gateway's memory. It ends when the gateway does, when a job takes too long, and
after one that has taken much memory.
"""

from __future__ import annotations

import contextlib
import gc
import pickle
import resource
import signal
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgspec

from gateway.large import Found, Wanted
from gateway.masking.copies import Copies
from gateway.masking.hidden import Hidden
from gateway.masking.veil import Veil
from gateway.policy.catalog import Function, Operator, Relation, Snapshot
from gateway.policy.facts import Facts
from gateway.policy.resolve import Resolver
from gateway.protocols.postgres import aside

HEADER: Final = struct.Struct(">I")
_PART: Final = 500
_FRAME_BYTES: Final = 256 * 1024
_MOST_MEMORY: Final = 4 * 1024 * 1024 * 1024
_MUCH_MEMORY: Final = 512 * 1024
"""Kilobytes."""


class Learn(msgspec.Struct, frozen=True):
    """A part of a snapshot, or what is hidden; `number` is its name from now on."""

    number: int
    path: tuple[str, ...] = ()
    version: str = ""
    relations: tuple[Relation, ...] = ()
    functions: tuple[Function, ...] = ()
    operators: tuple[Operator, ...] = ()
    hidden: Hidden | None = None
    last: bool = True


class Forget(msgspec.Struct, frozen=True):
    """It is not asked for again."""

    number: int


class Job(msgspec.Struct, frozen=True):
    """Read this, by what is known under these numbers. `veiled`: it is masked, by what `hidden`
    names, or else nothing is known that could be.
    """

    wanted: Wanted
    snapshot: int
    veiled: bool
    hidden: int | None
    copies: int | None
    within_s: float


class Piece(msgspec.Struct, frozen=True, array_like=True):
    """`found`, whose facts are those of an earlier one where `facts` is that one's number."""

    found: Found
    facts: int = -1


class Answer(msgspec.Struct, frozen=True, array_like=True):
    """A part of what was found. After the `last`, the process may be `leaving`."""

    pieces: list[Piece]
    last: bool = False
    leaving: bool = False


def parts_of(number: int, known: Snapshot | Hidden) -> Iterator[Learn]:
    """What to learn, in parts that each take a moment to make."""
    if isinstance(known, Hidden):
        yield Learn(number, hidden=known)
        return
    head = Learn(number, known.path, known.version if known.known else "", last=False)
    relations, functions = list(known.relations.values()), list(known.functions.values())
    for at in range(0, len(relations), _PART):
        yield msgspec.structs.replace(head, relations=tuple(relations[at : at + _PART]))
    for at in range(0, len(functions), _PART):
        yield msgspec.structs.replace(head, functions=tuple(functions[at : at + _PART]))
    yield msgspec.structs.replace(head, operators=tuple(known.operators), last=True)


class Mind:
    """What has been learned, by its numbers."""

    def __init__(self) -> None:
        self._learning: list[Learn] = []
        self._resolvers: dict[int, Resolver] = {}
        self._veils: dict[int, Veil] = {}
        self._copies: dict[int, Copies] = {}
        self._hidden: dict[int, Hidden] = {}

    def learn(self, part: Learn) -> None:
        """Take a part; they come one after the other."""
        if part.hidden is not None:
            self._hidden[part.number] = part.hidden
            return
        self._learning.append(part)
        if part.last:
            parts, self._learning = self._learning, []
            snapshot = Snapshot(
                [relation for each in parts for relation in each.relations],
                [function for each in parts for function in each.functions],
                [operator for each in parts for operator in each.operators],
                part.path,
                part.version,
            )
            # Most of what is asked here is remembered by who asks.
            self._resolvers[part.number] = Resolver(snapshot, remembered=1_000)

    def forget(self, number: int) -> None:
        """See Forget."""
        for known in (self._resolvers, self._veils, self._copies, self._hidden):
            known.pop(number, None)

    def find(self, job: Job) -> Iterator[Found]:
        """What a job wants."""
        veil = self._veil(job.hidden) if job.veiled else None
        copies: Copies | None = None
        if job.copies is not None:
            copies = self._copies.get(job.copies)
            if copies is None:
                copies = self._copies[job.copies] = Copies(self._hidden[job.copies])
        return aside.find(job.wanted, self._resolvers[job.snapshot].alone, veil, copies)

    def _veil(self, number: int | None) -> Veil:
        if number is None:
            return Veil(None)
        veil = self._veils.get(number)
        if veil is None:
            veil = self._veils[number] = Veil(self._hidden[number])
        return veil


def answers(found: Iterator[Found]) -> Iterator[Answer]:
    """In parts that are each read in a moment, but for statements that are large themselves."""
    numbers: dict[int, tuple[int, Facts]] = {}
    pieces: list[Piece] = []
    size = 0
    for one in found:
        number, _ = numbers.get(id(one.facts), (-1, None))
        if number < 0:
            numbers[id(one.facts)] = len(numbers), one.facts
            pieces.append(Piece(one))
            size += one.size
        else:
            pieces.append(Piece(msgspec.structs.replace(one, facts=Facts()), number))
            size += len(one.statement.text)
        if size > _FRAME_BYTES:
            yield Answer(pieces)
            pieces, size = [], 0
    yield Answer(pieces, last=True)


def write(out: BinaryIO, answer: Answer) -> None:
    """One frame."""
    data = msgspec.msgpack.encode(answer)
    out.write(HEADER.pack(len(data)) + data)
    out.flush()


def _read(given: BinaryIO) -> Any:
    head = given.read(HEADER.size)
    if len(head) < HEADER.size:
        return None
    return pickle.loads(given.read(HEADER.unpack(head)[0]))  # noqa: S301 (of the gateway alone)


def _most_taken() -> int:
    """The most memory that this process has had, in kilobytes."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1])
    # On Linux this begins with what the gateway had when it began this process.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _work(mind: Mind, job: Job, out: BinaryIO) -> bool:
    """Do it; whether to go on."""
    # The gateway kills who takes longer, unless it is gone itself.
    signal.setitimer(signal.ITIMER_REAL, job.within_s)
    leaving = False
    for answer in answers(mind.find(job)):
        leaving = answer.last and _most_taken() > _MUCH_MEMORY
        write(out, msgspec.structs.replace(answer, leaving=leaving))
    signal.setitimer(signal.ITIMER_REAL, 0)
    return not leaving


def main() -> None:
    """Read until the gateway is gone."""
    given, out = sys.stdin.buffer, sys.stdout.buffer
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    # Who types Control-C means the gateway, which tells us by closing our input.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_AS, (_MOST_MEMORY, _MOST_MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError):
        # Where memory runs out, one statement is to go, and not the gateway.
        Path("/proc/self/oom_score_adj").write_text("1000")
    # Trees are millions of new objects, none of them garbage.
    gc.disable()
    mind = Mind()
    while (told := _read(given)) is not None:
        match told:
            case Learn():
                mind.learn(told)
                if told.last:
                    # To look through all of a catalog after each job would take longer than most.
                    gc.freeze()
            case Forget():
                mind.forget(told.number)
            case Job():
                if not _work(mind, told, out):
                    return
                gc.collect()
