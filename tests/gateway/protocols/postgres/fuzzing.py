"""Millions of inputs for the machine: `make fuzz`, or `python -m ...fuzzing --inputs 10000000`.

Each case starts from what real clients sent to a real server (sessions/, made by
record_sessions.py) and from a session made of every message there is; it drops, repeats, swaps and
splices messages, then changes bytes. Three things are asked of it, in turn: cut anywhere, it must
say and record the same; whatever the client sends, every promise of rig.py holds; and so it does
whatever the target answers. A case is its number: a failure is repeated with `--case`.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from random import Random
from typing import Final

from tests.gateway.protocols.postgres import messages as pg
from tests.gateway.protocols.postgres.rig import Rig

SESSIONS: Final = Path(__file__).parent / "sessions"
_MESSAGES: Final = 24
"""Of one case: more would say nothing new and find it more slowly."""
_CASES: Final = 500
"""That a process runs before it says how far it is."""

Message = bytes


def corpus() -> list[list[Message]]:
    """The recorded sessions, and one of every message."""
    recorded = [pg.split(path.read_bytes()) for path in sorted(SESSIONS.glob("*.bin"))]
    every = [
        pg.query("select 1; drop table t; select 2"),
        pg.query("begin"),
        pg.query("prepare p as select 1"),
        pg.query("execute p"),
        pg.query("copy t from stdin"),
        pg.copy_data(b"1\n"),
        pg.COPY_DONE,
        pg.copy_fail("no"),
        pg.parse("select 1", "s"),
        pg.parse('select "quo\'ted" -- comment'),
        pg.bind([b"1", None], "s", "p"),
        pg.describe_statement("s"),
        pg.describe_portal("p"),
        pg.execute("p", 1),
        pg.FLUSH,
        pg.close_portal("p"),
        pg.close_statement("s"),
        pg.SYNC,
        pg.query("commit"),
    ]
    return [*recorded, every]


class Case:
    """One case, made of its number alone."""

    def __init__(self, number: int, sessions: list[list[Message]]) -> None:
        self.random = Random(number)
        self.number = number
        self._sessions = sessions

    def said(self) -> list[Message]:
        """Messages in an order nobody would send them in."""
        random = self.random
        session = random.choice(self._sessions)
        start = random.randrange(max(1, len(session) - _MESSAGES))
        chosen = session[start : start + random.randint(1, _MESSAGES)]
        for _ in range(random.randrange(6)):
            at = random.randrange(len(chosen) + 1)
            match random.randrange(5):
                case 0:
                    del chosen[at : at + random.randint(1, 3)]
                case 1:
                    chosen[at:at] = chosen[at : at + random.randint(1, 3)]
                case 2:
                    chosen[at:at] = [random.choice(random.choice(self._sessions))]
                case 3:
                    random.shuffle(chosen)
                case 4:
                    chosen[at:at] = [pg.SYNC]
        return [*chosen, pg.SYNC]

    def garbled(self, data: bytes) -> bytes:
        """With some bytes changed, some of them lengths and types."""
        random = self.random
        changed = bytearray(data)
        for _ in range(random.randint(1, 4)):
            at = random.randrange(len(changed) or 1)
            match random.randrange(4):
                case 0:
                    changed[at : at + 1] = random.randbytes(1)
                case 1:
                    changed[at:at] = random.randbytes(random.randint(1, 9))
                case 2:
                    del changed[at : at + random.randint(1, 9)]
                case 3:
                    number = random.choice([0, 3, 4, 5, 255, 1 << 16, 1 << 24, (1 << 31) - 1])
                    changed[at : at + 4] = number.to_bytes(4, "big")
        return bytes(changed)

    def pieces(self, data: bytes) -> Iterator[bytes]:
        """`data`, cut in a few places or after every byte."""
        random = self.random
        most = random.choice([1, 7, 64, 4096])
        at = 0
        while at < len(data):
            size = random.randint(1, most)
            yield data[at : at + size]
            at += size

    # --- what is asked; each returns how many inputs the machine took ---

    def run(self) -> int:
        """Raises what it finds."""
        return (self._same_in_pieces, self._client, self._target)[self.number % 3]()

    def _same_in_pieces(self) -> int:
        data = b"".join(self.said())
        once = Rig()
        once.say(data)
        once.settle()
        cut = Rig(self.number)
        for piece in self.pieces(data):
            if not cut.closed:
                cut.say(piece)
            cut.settle(cut=True)
        _assert_alike(once, cut)
        for rig in (once, cut):
            rig.finish()
        return once.inputs + cut.inputs

    def _client(self) -> int:
        rig = Rig(self.number, failing=self.random.choice([0.0, 0.0, 0.1]))
        rig.endure(self.pieces(self.garbled(b"".join(self.said()))))
        return rig.inputs

    def _target(self) -> int:
        rig = Rig(self.number)
        for piece in self.pieces(b"".join(self.said())):
            if rig.closed:
                break
            rig.say(piece)
            if self.random.random() < 0.2:
                rig.corrupt()
            rig.step(cut=True)
        rig.finish()
        return rig.inputs


def _assert_alike(once: Rig, cut: Rig) -> None:
    """The same answers, statements and book.

    Whoever breaks the protocol is told so at once, before what is under way is answered; and how
    much of what came behind had left for the target by then is the packets' doing. What each rig
    checks by itself holds for both: nothing ran that was not asked for and recorded.
    """
    answers, in_pieces = pg.split(bytes(once.to_client)), pg.split(bytes(cut.to_client))
    if answers and b"SFATAL\0" in answers[-1]:
        assert in_pieces[-1] == answers.pop(), "another end in pieces"
        del in_pieces[len(answers) :]
    else:
        assert cut.book() == once.book(), "another book in pieces"
        assert cut.server.executed == once.server.executed, "other statements ran in pieces"
    assert in_pieces == answers, "another answer in pieces"


def run(first: int, count: int) -> tuple[int, list[tuple[int, str]]]:
    """Inputs taken, and (case, what it found)."""
    sessions = corpus()
    inputs, found = 0, []
    for number in range(first, first + count):
        try:
            inputs += Case(number, sessions).run()
        except Exception:
            found.append((number, traceback.format_exc(limit=-4)))
    return inputs, found


def main() -> int:
    """Run cases until the machine has had enough inputs. 1 when one of them found something."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=10_000_000)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--case", type=int, help="run this case only")
    chosen = parser.parse_args()
    if chosen.case is not None:
        print(Case(chosen.case, corpus()).run(), "inputs")
        return 0
    workers = os.cpu_count() or 1
    began, said = time.monotonic(), 0.0
    inputs, cases = 0, 0
    failures: list[tuple[int, str]] = []
    with ProcessPoolExecutor(workers) as pool:
        while inputs < chosen.inputs and len(failures) < 20:
            starts = [chosen.first + cases + worker * _CASES for worker in range(2 * workers)]
            for taken, found in pool.map(run, starts, [_CASES] * len(starts)):
                inputs += taken
                failures += found
            cases += len(starts) * _CASES
            if time.monotonic() - said > 10:
                said = time.monotonic()
                print(f"{inputs:,} inputs, {cases:,} cases, {len(failures)} failures", flush=True)
    for number, text in failures:
        print(f"\ncase {number} (--case {number}):\n{text}")
    seconds = time.monotonic() - began
    print(f"{inputs:,} inputs in {cases:,} cases, {seconds:.0f} s: {len(failures)} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
