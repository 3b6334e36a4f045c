"""What a client receives of twin databases, byte by byte, and where it differs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Final

from tests.e2e.stack import Stack
from tests.gateway.protocols.postgres import messages as pg
from tests.integration.wire_client import WireClient
from tests.redteam.twins import TWINS

Script = tuple[str, ...]
Way = Callable[[str], bytes]
_NAME: Final = re.compile(rb"twin_[abcm]")
# What EXPLAIN estimates: it knows how long values are on average.
_COST: Final = re.compile(
    rb"\(cost=[^)]*\)|Buffers: [^\0]*|Memory: [^\0]*|Memory Usage: [^\0]*"
    rb'|"(?:Startup Cost|Total Cost|Plan Rows|Plan Width)": [0-9.]+'
)
_SYNC: Final = pg.message("S")
_AFTER: Final = ("rollback", "deallocate all", "close all", "unlisten *", "reset all")


def simple(statement: str) -> bytes:
    """A Query."""
    return pg.query(statement)


def extended(statement: str) -> bytes:
    """Parse, Bind for binary results and Execute, without a Describe."""
    bound = pg.bind(results=(1,))
    return pg.parse(statement) + bound + pg.execute() + pg.message("S")


def described(statement: str) -> bytes:
    """All that can be described, and rows two at a time."""
    asked = (
        pg.parse(statement, "s"),
        pg.describe_statement("s"),
        pg.bind((), "s", "p"),
        pg.describe_portal("p"),
        pg.execute("p", 2),
        pg.message("H"),
        pg.execute("p", 3),
        pg.execute("p"),
        pg.close_statement("s"),
        pg.message("S"),
        pg.close_statement("s"),
        pg.message("S"),
    )
    return b"".join(asked)


WAYS: Final = (simple, extended, described)


@dataclass(frozen=True, slots=True)
class Difference:
    """Two answers to one script that tell the databases apart."""

    script: Script
    way: str
    first: bytes
    other: bytes

    def __str__(self) -> str:
        at = next(
            (i for i, (a, b) in enumerate(zip(self.first, self.other, strict=False)) if a != b),
            min(len(self.first), len(self.other)),
        )
        near = slice(max(0, at - 60), at + 60)
        return f"{'; '.join(self.script)} ({self.way}): {self.first[near]!r} {self.other[near]!r}"


class Watcher:
    """One person's session at each twin."""

    def __init__(self, stack: Stack, user: str, **parameters: str) -> None:
        self._stack, self._user, self._parameters = stack, user, parameters
        self._sessions: dict[str, WireClient] = {}
        self.ended: set[Script] = set()

    def close(self) -> None:
        for session in self._sessions.values():
            session.close()

    def differences(
        self,
        scripts: Iterable[Script],
        ways: Sequence[Way] = WAYS,
        batch: int = 20,
        told: Callable[[bytes], bytes] = bytes,
    ) -> list[Difference]:
        """Scripts whose answers differ between the databases, and not by chance, as `told`."""
        work = [(script, way) for script in scripts for way in ways]
        found = []
        with ThreadPoolExecutor(len(TWINS)) as threads:
            for start in range(0, len(work), batch):
                some = work[start : start + batch]
                answers = threads.map(partial(self.answers, work=some), TWINS)
                for (script, way), *heard in zip(some, *answers, strict=True):
                    one, two, three = map(told, heard)
                    if one != three and one == two:
                        found.append(Difference(script, way.__name__, one, three))
        return found

    def answers(self, twin: str, work: Sequence[tuple[Script, Way]]) -> list[bytes]:
        """All that is said to each script, in a transaction that is rolled back."""
        session = self._sessions.get(twin)
        if session is None:
            session = WireClient.signed_in(
                self._stack, self._user, database=twin, **self._parameters
            )
            self._sessions[twin] = session
        received: list[list[bytes]] = []
        try:
            self._ask(session, work, received)
        except (EOFError, ConnectionError):
            self._sessions.pop(twin).close()
            if len(work) > 1:
                # Which of them ended it shows one at a time.
                return [self.answers(twin, [each])[0] for each in work]
            self.ended.add(work[0][0])
        return [comparable(messages) for messages in received]

    @staticmethod
    def _ask(
        session: WireClient, work: Sequence[tuple[Script, Way]], received: list[list[bytes]]
    ) -> None:
        asked = [[*map(way, script)] for script, way in work]
        for messages in asked:
            session.send(pg.query("begin"), *messages, *map(pg.query, _AFTER))
        for messages in asked:
            session.until("Z")
            received.append([])
            times = sum(message.count(_SYNC) or 1 for message in messages)
            while times:
                received[-1].append(session.message())
                times -= received[-1][-1][:1] == b"Z"
            session.until("Z", len(_AFTER))


def failed(answer: bytes) -> bool:
    """Whether it holds an error."""
    return b"VERROR\0" in answer or b"VFATAL\0" in answer


def comparable(messages: Iterable[bytes]) -> bytes:
    """Without their lengths, in which what is left out would still stand."""
    whole = b"".join(message[:1] + message[5:] for message in messages)
    return _COST.sub(b"", _NAME.sub(b"twin_x", whole))
