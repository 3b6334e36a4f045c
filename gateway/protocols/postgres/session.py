"""Everything after sign-in: requests judged one by one, responses recorded before release.

client -> Asking (outbox: wait for decisions) -> target
target -> Answering (inbox: wait for receipts) -> client
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from enum import Enum
from itertools import count
from typing import Any, Final

from gateway.large import LARGE, Wanted
from gateway.machine import (
    Abort,
    Analyse,
    Analysed,
    CancelRunning,
    CatalogView,
    Close,
    Closed,
    Command,
    Decided,
    Ended,
    Expired,
    Idle,
    Input,
    NotDurable,
    Received,
    Record,
    Recorded,
    RowsStopped,
    SaidAll,
    Send,
    Shutdown,
    Side,
    StopRows,
    Withdrawn,
)
from gateway.masking.veil import Veil
from gateway.policy.facts import Resolve, SessionNames
from gateway.protocols.postgres import limits, wire
from gateway.protocols.postgres.answering import Answering
from gateway.protocols.postgres.asking import OUTDATED, Asking
from gateway.protocols.postgres.pipeline import (
    MESSAGE_BYTES,
    STATEMENT_BYTES,
    Expect,
    Held,
    Item,
    Run,
)
from gateway.protocols.postgres.requests import Language
from gateway.protocols.postgres.startup import NOT_DURABLE_HINT, NOT_DURABLE_TEXT
from gateway.protocols.postgres.wire import ProtocolViolation, Splitter, fatal

_CLIENT: Final = b"QPBDECSHdcfFX"
_X: Final = ord("X")
_TERMINATE: Final = wire.message(b"X")
_READY: Final = wire.message(b"Z", b"I")
_OUTDATED: Final = Withdrawn(OUTDATED.reason, "target_changed")


class _Stopping(Enum):
    """How far the end of a statement is that has returned too many rows."""

    NO = 0
    ASKED = 1
    TOLD = 2
    POISONED = 3


class Session:
    """One signed-in client and its target. See gateway.machine.Machine."""

    def __init__(
        self,
        language: Language,
        catalog: Callable[[], CatalogView],
        new_id: Callable[[], bytes],
        *,
        chunk_bytes: int,
        prepared_max_bytes: int,
        now_ns: int,
        resolve: Resolve,
        meaning: SessionNames,
        veil: Callable[[], Veil | None] = lambda: None,
        settings: Mapping[str, str] = {},
        large: int = LARGE,
    ) -> None:
        self._now = self._opened = now_ns
        self._waiting: dict[int, Item | Held] = {}
        self._commands: list[Command] = []
        self._splitter = Splitter(_CLIENT)
        tickets = count(1000)
        self._asking = Asking(
            language=language,
            veil=veil,
            settings=settings,
            large=large,
            catalog=catalog,
            new_id=new_id,
            next_ticket=lambda: next(tickets),
            waiting=self._waiting,
            last_sent=lambda: self._answering.last_sent(),  # noqa: PLW0108 (made below)
            resolve=resolve,
            meaning=meaning,
            prepared_max_bytes=prepared_max_bytes,
        )
        self._answering = Answering(
            language=language,
            veil=veil,
            catalog=catalog,
            next_ticket=lambda: next(tickets),
            waiting=self._waiting,
            boundary=self._asking.segment_answered,
            chunk_bytes=chunk_bytes,
        )
        self._backlog: deque[tuple[int, bytes]] = deque()
        self._backlog_bytes = 0
        # What is being read aside for the first in the backlog.
        self._analysing: Analyse | None = None
        self._analyses = count(1)
        self._unheard = False
        self._discarding = False
        self._ending = ""
        self._leaving: tuple[str, str, str] | None = None
        self._uncancelled: int | None = None
        self._stopping = _Stopping.NO
        self._goodbye = self._over = False
        self._bytes_in = 0
        self._handlers: dict[type[Any], Callable[[Any], None]] = {
            Received: self._received,
            Decided: self._decided,
            Recorded: self._recorded,
            NotDurable: self._not_durable,
            Idle: lambda _: self._answering.release(),
            Closed: self._closed,
            SaidAll: self._said_all,
            Expired: lambda _: self._leave("28000", "the token has expired", "token_expired"),
            Shutdown: lambda _: self._leave("57P01", "the gateway is shutting down", "shutdown"),
            Withdrawn: self._withdrawn,
            Analysed: self._analysed,
            RowsStopped: self._rows_stopped,
        }

    # --- what the driver watches ---

    @property
    def waiting(self) -> bool:
        """Response bytes wait for more of their kind; an Idle releases them."""
        return bool(self._answering.held)

    @property
    def in_transaction(self) -> bool:
        """Whether the target was in a transaction when it last was ready."""
        return self._answering.transaction != ord("I")

    @property
    def at_rest(self) -> bool:
        """Whether the target has answered everything, outside a transaction: what the client did
        is committed, or never will be.
        """
        return self._answering.clean and not self.in_transaction

    @property
    def analysing(self) -> Analyse | None:
        """What is being read aside, while nothing that was asked before is under way."""
        if self._asking.outbox or self._answering.running:
            return None
        return self._analysing

    @property
    def unrecorded_bytes(self) -> int:
        """Response bytes that wait for receipts: too many, and the target is not read."""
        return self._answering.inbox_bytes

    @property
    def unsent_requests(self) -> int:
        """Size of what the client has asked and the target not yet answered: too much, and
        the client is not read. A pending decision must not cost unlimited memory.

        What gathers for an Execute or a Sync does not count: only the client can end its waiting.
        """
        messages = len(self._answering.expected) + len(self._backlog)
        return (
            self._asking.outbox_bytes
            + self._backlog_bytes
            + MESSAGE_BYTES * messages
            + STATEMENT_BYTES * self._answering.running
        )

    def handle(self, event: Input, now_ns: int) -> list[Command]:
        """See gateway.machine.Machine."""
        commands: list[Command] = []
        if self._over:
            return commands
        asking, answering = self._asking, self._answering
        self._now = answering.now = now_ns
        self._commands = asking.commands = answering.commands = commands
        handler = self._handlers.get(type(event))
        try:
            if handler is not None:
                handler(event)
                if self._backlog and self._analysing is None:
                    self._take_backlog()
                if self._asking.outdated and not self._ending and not self._over:
                    self._withdrawn(_OUTDATED)
            if self._leaving is not None:
                self._left()
            elif not self._over and not self._ending:
                self._pump()
        except ProtocolViolation as violation:
            self._stop(violation.sqlstate, str(violation), violation.reason)
        if not self._over:
            if answering.facts or (answering.held and not answering.unfinished_rows()):
                answering.release()
            if self._ending and not answering.inbox:
                self._finish()
            elif asking.terminating and not self._ending and not self._going_on():
                self._end("client_closed")
        return commands

    def _received(self, event: Received) -> None:
        if self._ending:
            return
        if event.side is Side.TARGET:
            self._answering.feed(event.data)
        else:
            self._from_client(event.data)

    def _from_client(self, data: bytes) -> None:
        self._bytes_in += len(data)
        if self._goodbye or self._leaving is not None:
            # Nothing is behind a Terminate, and nothing new is begun before the end.
            return
        for kind, whole in self._splitter.feed(data):
            if self._backlog or (not self._discarding and self._waits_first(kind, whole)):
                self._backlog.append((kind, whole))
                self._backlog_bytes += len(whole)
            else:
                self._take(kind, whole)
                if self._over:
                    return
            if kind == _X:
                self._goodbye = True
                break
        self._asking.flush_copied()

    def _take(self, kind: int, whole: bytes) -> None:
        if self._discarding:
            self._discard(kind)
        else:
            self._asking.take(kind, whole)

    def _waits_first(self, kind: int, whole: bytes) -> bool:
        """Whether it must wait for an answer, or for being read."""
        asking = self._asking
        return asking.must_wait(kind, whole) or asking.wanted(kind, whole) is not None

    def _take_backlog(self) -> None:
        """Take what has waited for an answer of the target, or for being read."""
        backlog = self._backlog
        while backlog and not self._over and not self._ending:
            if not self._discarding:
                if self._asking.must_wait(*backlog[0]):
                    break
                wanted = self._asking.wanted(*backlog[0])
                if wanted is not None:
                    self._analyse(wanted)
                    break
            kind, whole = backlog.popleft()
            self._backlog_bytes -= len(whole)
            self._take(kind, whole)
        self._asking.flush_copied()
        if self._unheard and backlog and self._analysing is None and not self._over:
            # The client has left: see _closed.
            self._end("client_closed")

    def _analyse(self, wanted: Wanted) -> None:
        if self._leaving is None:
            self._analysing = Analyse(next(self._analyses), wanted)
            self._commands.append(self._analysing)

    def _analysed(self, event: Analysed) -> None:
        if self._analysing is not None and self._analysing.ticket == event.ticket:
            self._analysing = None
            self._asking.read(event.reading)

    def _decided(self, event: Decided) -> None:
        item = self._waiting.pop(event.ticket, None)
        if isinstance(item, Item):
            self._asking.decided(item, event.decisions)

    def _recorded(self, event: Recorded) -> None:
        waiting = self._waiting.pop(event.ticket, None)
        if waiting is not None:
            waiting.ready = True
            if isinstance(waiting, Held):
                self._answering.drain()

    def _pump(self) -> None:
        """Forward what is decided, in order."""
        asking, answering = self._asking, self._answering
        outbox = asking.outbox
        if answering.limited is not None:
            self._see_to(answering.limited)
        out: list[bytes] = []
        while outbox and outbox[0].ready:
            if self._held_up():
                break
            item = outbox[0]
            if not item.sent:
                for run in item.runs:
                    run.started_ns = self._now
                answering.running += len(item.runs)
            if self._send_of(item, out):
                outbox.popleft()
                asking.outbox_bytes -= item.size
        if out:
            answering.clean = False
            self._commands.append(Send(Side.TARGET, b"".join(out)))

    def _held_up(self) -> bool:
        # A method: mypyc would compile the attribute, once it was None, as None for good.
        return self._answering.limited is not None

    def _send_of(self, item: Item, out: list[bytes]) -> bool:
        """Send an item's parts up to one that the next must wait for; whether that were all."""
        while item.sent < len(item.parts):
            part = item.parts[item.sent]
            item.sent += 1
            out.append(part.data)
            if part.expectation is not None:
                self._answering.expect(part.expectation)
            run = part.limited
            if run is not None and not run.completed:
                out.append(limits.FLUSH)
                self._answering.limited, self._answering.ended_late = run, False
                self._stopping = _Stopping.NO
                break
        return item.sent == len(item.parts)

    def _see_to(self, run: Run) -> None:
        """End a statement that has returned too many rows; or go on, if it is over.

        Nothing is sent while a cancellation is on its way: it would meet what is sent.
        """
        answering = self._answering
        if self._stopping is _Stopping.ASKED:
            return
        if run.completed:
            answering.limited, answering.ended_late = None, False
        elif answering.ended_late:
            if self._stopping is not _Stopping.POISONED:
                self._stopping = _Stopping.POISONED
                self._commands.append(Send(Side.TARGET, limits.ending(run)))
        elif run.overran and self._stopping is _Stopping.NO:
            self._stopping = _Stopping.ASKED
            self._commands.append(StopRows())

    def _rows_stopped(self, event: RowsStopped) -> None:
        self._stopping = _Stopping.TOLD
        if not event.settled:
            raise limits.too_many_rows()

    # --- endings ---

    def _unfinished(self) -> list[Run]:
        waiting = [run for item in self._asking.outbox for run in item.runs if not run.completed]
        return [*self._answering.unfinished(), *waiting]

    def _leave(self, sqlstate: str, text: str, reason: str) -> None:
        """End the session; what runs is cancelled first, so that the book says how it ended.

        The target would go on with it, for hours perhaps, after the end of its connection. It
        does not go on with a COPY from the client. Told again, the session waits no longer.
        """
        if self._waits() and self._uncancelled is None:
            self._leaving = self._leaving or (sqlstate, text, reason)
            self._uncancelled = self._asking.open_segments
            self._commands.append(CancelRunning())
        else:
            self._stop(*(self._leaving or (sqlstate, text, reason)))

    def _withdrawn(self, event: Withdrawn) -> None:
        """End the session once what has begun is done, and begin nothing more."""
        told = "57P01", event.text, event.reason
        if self._leaving is not None:
            return
        if self._waits():
            self._leaving = told
        else:
            self._stop(*told)

    def _waits(self) -> bool:
        answering = self._answering
        return bool(answering.running) and not answering.copying and not self._ending

    def _left(self) -> None:
        """See how far the target is with what is being cancelled."""
        if self._over or self._ending or self._leaving is None:
            return
        if not self._answering.running or self._answering.ended_late:
            self._stop(*self._leaving)
        elif self._uncancelled is not None and self._asking.open_segments < self._uncancelled:
            # What follows a Sync or Query is another command, and has not been cancelled.
            self._uncancelled = self._asking.open_segments
            self._commands.append(CancelRunning())

    def _closed(self, event: Closed) -> None:
        if event.side is Side.CLIENT:
            if self._uncancelled is not None:
                # The end of what is being cancelled is awaited all the same.
                return
            self._unheard = True
            if not self._goodbye:
                self._end("client_lost")
            elif (self._backlog and self._analysing is None) or not self._going_on():
                # What waits here for an answer may wait for ever: a COPY gets no more data.
                self._end("client_closed")
        elif self._goodbye:
            self._stop("08006", "the session is over", "client_closed", silent=True)
        elif not self._ending:
            text = "the connection to the target was lost"
            self._stop("08006", text, "target_lost", silent=self._answering.said_fatal)

    def _said_all(self, event: SaidAll) -> None:
        """As PostgreSQL takes it: what was said is done and answered, and then it is over."""
        if self._splitter.within_message:
            self._closed(Closed(Side.CLIENT))
        elif not self._ending:
            self._from_client(_TERMINATE)

    def _going_on(self) -> bool:
        """Whether the target still works on what was said before a Terminate.

        It does so for a client that has left, too, and closes its connection when it comes to
        the Terminate; in a COPY that is an error, and it stays.
        """
        answering = self._answering
        waits = self._asking.outbox or self._backlog or answering.expected or answering.inbox
        return bool(waits or answering.held)

    def _stop(self, sqlstate: str, text: str, reason: str, silent: bool = False) -> None:
        """End the session with a FATAL, after what is already on its way to the client."""
        if self._ending or self._over:
            return
        self._ending = reason
        for run in self._unfinished():
            self._answering.complete(run, "lost", error={"C": sqlstate, "M": text})
        if not silent and not self._answering.in_fragment:
            # Within a message an error would be read as its content.
            self._answering.held.append(fatal(sqlstate, text))
        self._answering.release()
        self._answering.drain()

    def _finish(self) -> None:
        self._over = True
        self._commands.append(Record(0, (self._ended(self._ending),)))
        self._commands.append(Close(drain=True))

    def _end(self, reason: str) -> None:
        """End the session now: nobody reads what is still on its way."""
        self._over = True
        for run in self._unfinished():
            self._answering.complete(run, "lost")
        facts = (*self._answering.facts, self._ended(reason))
        self._answering.facts = []
        self._commands.append(Record(0, facts))
        self._commands.append(Close())

    def _ended(self, reason: str) -> Ended:
        return Ended(
            reason,
            self._asking.statements_seen,
            self._answering.rows,
            self._bytes_in,
            self._answering.bytes_out,
            self._now - self._opened,
        )

    def abort(self, reason: str) -> list[Command]:
        """A fault of ours: end at once, in the book, after the commands that came before it."""
        self._over = True
        for run in self._unfinished():
            # What of its rows came to be part of the fault is left out.
            run.pending = []
            self._answering.complete(run, "lost")
        facts = (*self._answering.facts, self._ended("protocol_error"))
        return [*self._commands, Record(0, facts), Abort(reason)]

    # --- the journal does not answer ---

    def _not_durable(self, event: NotDurable) -> None:
        waiting = self._waiting.pop(event.ticket, None)
        if isinstance(waiting, Item):
            if not self._ending and self._leaving is None:
                self._request_not_durable(waiting)
        elif waiting is not None:
            self._response_not_durable()

    def _request_not_durable(self, item: Item) -> None:
        """Nothing of `item` reached the target, and nothing will."""
        starts = (
            self._answering.clean
            and self._answering.transaction == ord("I")
            and self._asking.outbox[0] is item
        )
        if not starts or not item.runs:
            # A transaction or a pipeline is under way at the target. Only the end of the
            # connection undoes it: an error of our own would let the client commit it.
            self._fail_all("failed", NOT_DURABLE_TEXT)
            return
        simple = item.parts[0].data[:1] in b"QF"
        self._discarding = not simple
        while self._asking.outbox and (self._discarding or self._asking.outbox[0] is item):
            dropped = self._asking.outbox.popleft()
            self._asking.outbox_bytes -= dropped.size
            self._waiting.pop(dropped.ticket, None)
            for part in dropped.parts:
                if part.expectation is not None:
                    part.expectation.drop()
                    if part.expectation.kind is Expect.SYNC:
                        self._discarding = False
                    if part.expectation.kind in (Expect.SYNC, Expect.QUERY):
                        self._asking.segment_answered()
            for run in dropped.runs:
                self._answering.complete(run, "failed", error={"C": "58030", "M": NOT_DURABLE_TEXT})
        if self._discarding:
            self._asking.drop_parts()
        # Recorded as soon as the journal answers again; the client does not wait for that.
        self._commands.append(Record(0, tuple(self._answering.facts)))
        self._answering.facts, self._answering.recorded_runs = [], []
        error = wire.error("58030", NOT_DURABLE_TEXT, hint=NOT_DURABLE_HINT)
        self._answering.held.append(error if self._discarding else error + _READY)
        self._answering.release()
        if self._asking.terminating:
            self._end("client_closed")

    def _discard(self, kind: int) -> None:
        """Skip to Sync, as the target would have."""
        if kind == ord("S"):
            self._discarding = False
            self._asking.segment_skipped()
            self._answering.held.append(_READY)
            self._answering.release()
        elif kind == _X:
            self._end("client_closed")

    def _response_not_durable(self) -> None:
        """The target executed; the response is withheld, and nobody can say what was seen."""
        # A run may be there twice: complete, and then failed by its commit.
        for run in dict.fromkeys(run for held in self._answering.inbox for run in held.runs):
            run.completed = False
            self._answering.complete(run, "unknown", error={"C": "58030"})
        text = "the response could not be recorded and is withheld; the statement may have run"
        self._answering.inbox.clear()
        self._fail_all("unknown", text)

    def _fail_all(self, outcome: str, text: str) -> None:
        for run in self._unfinished():
            sent = run.started_ns > 0
            self._answering.complete(
                run, "unknown" if sent else outcome, error={"C": "58030", "M": text}
            )
        self._over = True
        self._commands.append(Record(0, (*self._answering.facts, self._ended("not_durable"))))
        self._answering.facts = []
        if not self._answering.torn:
            self._commands.append(Send(Side.CLIENT, fatal("58030", text, hint=NOT_DURABLE_HINT)))
        self._commands.append(Close(drain=True))
