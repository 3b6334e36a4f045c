"""A machine between a client and a Server, with its promises checked at every step.

1. No byte reaches the target before the decision on it, and nothing runs there that was not
   asked for, by the text it was asked with.
2. No row reaches the client before its record is durable, nor does a notice or the end of a
   statement.
3. Every request ends exactly once, whatever happens; a commit that fails at Sync may turn its end
   from completed to failed, a journal that fails to unknown.
4. Nothing is a fault of ours.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Iterable
from random import Random

from gateway.machine import (
    Abort,
    Ask,
    CancelRunning,
    Close,
    Closed,
    Command,
    Decided,
    Ended,
    Fact,
    Idle,
    Input,
    NotDurable,
    Outcome,
    Received,
    Record,
    Recorded,
    Request,
    Rows,
    Send,
    Side,
)
from tests.gateway.protocols.postgres import messages as pg
from tests.gateway.protocols.postgres.dialogue import (
    ALLOW,
    CLIENT,
    DENY,
    RECEIPT,
    TARGET,
    signed_in,
)
from tests.gateway.protocols.postgres.server import Server

_COMMIT_FAILED = ("completed", "failed")
# When the journal fails, the driver withdraws what it can of the earlier end.
_AMENDED = {
    _COMMIT_FAILED,
    ("completed", "unknown"),
    ("failed", "unknown"),
    ("cancelled", "unknown"),
    ("lost", "unknown"),
    ("lost", "denied"),
    ("denied", "denied"),
}


class Rig:
    """`failing` is the probability that something cannot be made durable."""

    def __init__(self, seed: int = 0, failing: float = 0.0, **options: object) -> None:
        self._random = Random(seed)
        self._failing = failing
        self._talk = signed_in(chunk_bytes=4096, **options)
        self._pending: deque[Input | Ask | Record] = deque()
        self._allowed: Counter[str] = Counter()
        self._rows_durable, self._rows_told = bytearray(), bytearray()
        self._ends_durable = self._ends_told = 0
        self._texts_durable: Counter[str] = Counter()
        self._texts_told: Counter[str] = Counter()
        self._unread = b""
        self.server = Server()
        self.to_client = bytearray()
        self.to_target = bytearray()
        self.requests: dict[bytes, Request] = {}
        self.facts: list[Fact] = []
        self.outcomes: defaultdict[bytes, list[Outcome]] = defaultdict(list)
        self.closed = False
        self.inputs = 0

    # --- what a test does ---

    def say(self, data: bytes) -> None:
        """The client sends."""
        self.give(Received(CLIENT, data))

    def give(self, event: Input) -> None:
        """An input; its commands wait to be performed."""
        self.inputs += 1
        commands = self._talk.handle(event)
        assert not any(isinstance(command, Abort) for command in commands), commands
        for command in commands:
            self._command(command)

    def settle(self, cut: bool = False) -> None:
        """Decide, record and answer until nothing is under way; in pieces when `cut`."""
        while True:
            while self._pending:
                self.step(cut)
            session = self._talk.machine.session
            assert session is not None
            if self.closed or not session.waiting:
                return
            self.give(Idle())

    def step(self, cut: bool = False) -> None:
        """Perform one thing that is under way."""
        if not self._pending:
            return
        item = self._pending.popleft()
        if isinstance(item, Received) and cut and len(item.data) > 1:
            at = self._random.randrange(1, len(item.data))
            self._pending.appendleft(Received(item.side, item.data[at:]))
            item = Received(item.side, item.data[:at])
        if isinstance(item, Ask):
            self._decide(item)
        elif isinstance(item, Record):
            self._record(item)
        else:
            self.give(item)

    def finish(self) -> None:
        """The client leaves; nothing may be left open."""
        self.settle()
        # A target ends the session of a client that said goodbye, once it has come to that.
        for side in (CLIENT, TARGET):
            if not self.closed:
                self.give(Closed(side))
            self.settle()
        assert self.closed
        self._check_ends()

    def endure(self, pieces: Iterable[bytes]) -> None:
        """A client says garbage until it is cut off, and leaves."""
        try:
            for piece in pieces:
                if self.closed:
                    break
                self.say(piece)
                self.step(cut=True)
            self.finish()
        except UnicodeDecodeError:
            # The small server reads UTF-8 only, where PostgreSQL has an error of its own.
            return

    def corrupt(self) -> None:
        """Change some bytes of what the target has said and nobody has read yet."""
        for index, item in enumerate(self._pending):
            if isinstance(item, Received) and item.side is TARGET and item.data:
                data = bytearray(item.data)
                data[self._random.randrange(len(data))] = self._random.randrange(256)
                self._pending[index] = Received(TARGET, bytes(data))

    # --- the driver's and the journal's part ---

    def _decide(self, ask: Ask) -> None:
        if self._random.random() < self._failing:
            self.give(NotDurable(ask.ticket))
            return
        decisions = []
        for request in ask.requests:
            refused = request.refusal or "drop" in request.statement
            decisions.append(DENY if refused else ALLOW)
            if not refused and request.action == "execute":
                self._allowed.update(Server.split(request.statement))
        self.give(Decided(ask.ticket, tuple(decisions), RECEIPT))

    def _record(self, record: Record) -> None:
        if record.ticket and self._random.random() < self._failing:
            self.give(NotDurable(record.ticket))
            return
        self._durable(record.facts)
        self.give(Recorded(record.ticket, RECEIPT))

    def _durable(self, facts: Iterable[Fact]) -> None:
        for fact in facts:
            if isinstance(fact, Outcome):
                self._ends_durable += 1
                said = (*fact.notices, fact.error)
                self._texts_durable.update(notice.get("M", "") for notice in said)
            elif isinstance(fact, Rows) and fact.encoding == "notification":
                self._texts_durable[_text(fact.data)] += 1
            elif isinstance(fact, Rows):
                self._rows_durable += fact.data

    def _command(self, command: Command) -> None:
        if self.closed and not isinstance(command, Record):
            raise AssertionError(f"{command} after the end")
        match command:
            case Ask():
                for request in command.requests:
                    assert request.statement_id not in self.requests
                    self.requests[request.statement_id] = request
                self._pending.append(command)
            case Record(ticket, facts):
                self._note(facts)
                if ticket:
                    self._pending.append(command)
                else:
                    self._durable(facts)
            case Send(Side.TARGET, data):
                self._to_target(data)
            case Send(Side.CLIENT, data):
                self._to_client(data)
            case CancelRunning():
                # The small server's answers are under way already.
                pass
            case Close():
                self.closed = True
                self._pending = deque(
                    item for item in self._pending if not isinstance(item, Received | Ask)
                )
            case _:
                raise AssertionError(f"unexpected {command}")

    # --- promises ---

    def _to_target(self, data: bytes) -> None:
        self.to_target += data
        answer = self.server.feed(data)
        ran = Counter(self.server.executed)
        assert ran <= self._allowed, f"ran unasked: {ran - self._allowed}"
        if answer:
            self._pending.append(Received(TARGET, answer))
        if self.server.closed:
            self._pending.append(Closed(TARGET))

    def _to_client(self, data: bytes) -> None:
        self.to_client += data
        self._unread += data
        while len(self._unread) >= 5:
            end = 1 + int.from_bytes(self._unread[1:5], "big")
            if len(self._unread) < end:
                break
            whole, self._unread = self._unread[:end], self._unread[end:]
            match chr(whole[0]):
                case "D":
                    self._rows_told += whole
                case "d":
                    self._rows_told += whole[5:]
                case "C" | "I" | "s":
                    self._ends_told += 1
                case "N":
                    self._texts_told[_text(whole)] += 1
                case "E" if b"FATAL" not in whole and b"\0C58030\0" not in whole:
                    self._texts_told[_text(whole)] += 1
        told, durable = self._rows_told, self._rows_durable
        assert durable[: len(told)] == told, "rows told before they were durable"
        assert self._ends_told <= self._ends_durable, "an end told before it was durable"
        early = self._texts_told - self._texts_durable
        assert not early, f"told before it was durable: {early}"

    def _note(self, facts: Iterable[Fact]) -> None:
        for fact in facts:
            assert not any(isinstance(earlier, Ended) for earlier in self.facts), "after the end"
            self.facts.append(fact)
            if isinstance(fact, Outcome):
                earlier = self.outcomes[fact.statement_id]
                if earlier:
                    change = (earlier[-1].outcome, fact.outcome)
                    amended = change in _AMENDED if self._failing else change == _COMMIT_FAILED
                    assert amended, f"ends twice: {change}"
                earlier.append(fact)

    def _check_ends(self) -> None:
        open_requests = [
            request.statement
            for statement_id, request in self.requests.items()
            if not self.outcomes[statement_id]
        ]
        assert open_requests == [], "requests without an end"
        known = self.requests.keys()
        assert [one for one in self.outcomes if self.outcomes[one] and one not in known] == []
        assert isinstance(self.facts[-1], Ended)

    # --- what a test compares ---

    def book(self) -> list[tuple[str, str, str, str]]:
        """(action, statement, outcome, error) of all that was not skipped, in order.

        What the target skips after an error means nothing, and how it is judged depends on
        whether the error was known already.
        """
        return [
            (request.action, request.statement, end.outcome, end.error_code)
            for statement_id, request in self.requests.items()
            for end in self.outcomes[statement_id]
            if end.error or end.outcome not in ("failed", "denied")
        ]

    def idle(self) -> bool:
        """Nothing waits for anything."""
        session = self._talk.machine.session
        assert session is not None
        return session.unsent_requests == session.unrecorded_bytes == 0


def _text(report: bytes) -> str:
    """The M field of an ErrorResponse or NoticeResponse, as it is recorded."""
    said = [part[1:] for part in report[5:].split(b"\0") if part[:1] == b"M"]
    return said[-1].decode("utf-8", "backslashreplace") if said else ""


def directly(data: bytes) -> bytes:
    """What a client hears that has no gateway between it and the server."""
    return Server(guarded=False).feed(data)


def messages(data: bytes) -> str:
    """For a failing test's reader."""
    return pg.kinds(data)
