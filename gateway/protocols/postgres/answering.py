"""Target to client: what the target answers, attributed, recorded, then released."""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable
from itertools import takewhile
from typing import Any, Final

from gateway.machine import CatalogView, Command, Fact, Outcome, Record, Rows, Send, Side
from gateway.masking.pump import Pump, PumpError
from gateway.masking.veil import Veil
from gateway.policy import sql
from gateway.protocols.postgres import limits, pipeline, wire
from gateway.protocols.postgres.pipeline import (
    Expect,
    Expectation,
    Held,
    Item,
    Portal,
    Run,
)
from gateway.protocols.postgres.requests import Language
from gateway.protocols.postgres.wire import ProtocolViolation
from schemas.events import NONE_ID

# Notices are recorded with the statement's end, in one event, which must fit in one record.
_NOTICES: Final = 100
_NOTICE_BYTES: Final = 1024 * 1024
_NOT_COPY: Final = "unexpected message during COPY from stdin"
_FURTHER: Final = {"S": "NOTICE", "C": "00000", "M": "further notices are not held here"}
_COLUMNS: Final = 1000
_CACHED_BYTES: Final = 8 * 1024
"""Longer descriptions are read anew: a thousand of them would be gigabytes."""
_LENGTH: Final = struct.Struct(">I")
_D, _d, _V = ord("D"), ord("d"), ord("V")


class Answering:
    """One target's messages.

    Each is attributed to the head of `expected`. Bytes for the client gather in `held`, what is
    to be recorded of them in `facts`; `release` makes them one Held in `inbox`, where it waits
    for its receipt. `commands` and `waiting` are the session's; `boundary` learns that all up to
    a Sync or Query is answered, whether no transaction is open then, and whether one failed.
    """

    def __init__(
        self,
        *,
        language: Language,
        catalog: Callable[[], CatalogView],
        next_ticket: Callable[[], int],
        waiting: dict[int, Item | Held],
        veil: Callable[[], Veil | None],
        boundary: Callable[[bool, bool], None],
        chunk_bytes: int,
    ) -> None:
        self._language = language
        self._veil = veil
        self._catalog = catalog
        self._next_ticket = next_ticket
        self._waiting = waiting
        self._boundary = boundary
        self._chunk_bytes = chunk_bytes
        self._largest = max(4 * chunk_bytes, 1 << 20)
        self._skipping = False
        self._copying = False
        self._failed = False  # since the target was ready
        self._unread = False  # a text let through that we cannot read may be many statements
        self._stream = bytearray()
        self._fragment_left = 0
        self._returns = False  # the fragments are a function's result: its run ends with them
        self._fragment: list[bytes] = []
        self._fragment_bytes = 0
        self._withheld = False  # the fragments are of a row too many
        self.torn = False  # the client has the beginning of a message, not its end
        self._columns: dict[tuple[bytes, tuple[int, ...], bool], Any] = {}
        self._columns_of: CatalogView | None = None
        self._described_fields: dict[bytes, list[tuple[str, int, int, int, int]]] = {}
        self.now = 0
        self.commands: list[Command] = []
        self.expected: deque[Expectation] = deque()
        self.last_run: Run | None = None
        self._uncommitted: Run | None = None
        self.held: list[bytes] = []
        self.facts: list[Fact] = []
        self._noticed: list[tuple[Run, bytes]] = []
        self.recorded_runs: list[Run] = []
        self.inbox: deque[Held] = deque()
        self.inbox_bytes = 0
        self.transaction = ord("I")
        self.clean = True  # the target has nothing of ours since its last ReadyForQuery
        self.said_fatal = False
        self.running = 0  # statements forwarded and not complete
        self.limited: Run | None = None  # what follows this one waits for its end
        self.ended_late = False  # it has ended at the target, with more rows than are permitted
        self.rows = 0
        self.bytes_out = 0

    def last_sent(self) -> Run | None:
        """The run that was forwarded last."""
        for expectation in reversed(self.expected):
            if expectation.run is not None:
                return expectation.run
            if expectation.runs:
                return expectation.runs[0]
        return self.last_run

    def unfinished(self) -> list[Run]:
        """Runs that were forwarded and are not complete, each once, in order."""
        runs: dict[Run, None] = {}
        for expectation in self.expected:
            for run in (*expectation.runs, expectation.run):
                if run is not None and not run.completed:
                    runs[run] = None
        return list(runs)

    def expect(self, expectation: Expectation) -> None:
        """A message was forwarded. Raises ProtocolViolation."""
        if self._copying:
            self._while_copying(expectation)
            return
        if self._skipping:
            if expectation.kind is not Expect.SYNC:
                self._skip(expectation)
                return
            self._skipping = False
        self.expected.append(expectation)

    def feed(self, data: bytes) -> None:
        """Bytes from the target. Raises ProtocolViolation."""
        # Whether a message is large enough to be taken in pieces must not depend on how it came.
        step = self._largest - 8
        if len(data) <= step:
            self._feed(data)
        else:
            for at in range(0, len(data), step):
                self._feed(data[at : at + step])

    def _feed(self, data: bytes) -> None:
        stream: bytes | bytearray = data
        if self._fragment_left:
            data = self._continue_fragment(data)
            stream = data
        if self._stream:
            self._stream += data
            stream = self._stream
        at, size = 0, len(stream)
        rows_from, rows = -1, 0
        unpack = _LENGTH.unpack_from
        while size - at >= 5:
            kind = stream[at]
            end = at + 1 + unpack(stream, at + 1)[0]
            if end > size:
                break
            if end < at + 5:
                raise ProtocolViolation("the target sent an invalid length")
            if kind == _D:
                if rows_from < 0:
                    rows_from = at
                rows += 1
                at = end
                continue
            if rows_from >= 0:
                self._add_data_rows(stream, rows_from, at, rows)
                rows_from, rows = -1, 0
            self._response(kind, bytes(stream[at:end]))
            at = end
        if rows_from >= 0:
            self._add_data_rows(stream, rows_from, at, rows)
        if size - at >= 5:
            length = unpack(stream, at + 1)[0]
            if length > self._largest and stream[at] in (_D, _d, _V) and self._pump() is None:
                self._returns = stream[at] == _V
                self._begin_fragment(length + 1, bytes(stream[at:]))
                at = size
            elif length > wire.MAX_MESSAGE:
                raise ProtocolViolation("the target sent a message that is too large", "54000")
        if stream is self._stream:
            del self._stream[:at]
        elif at < size:
            self._stream += memoryview(data)[at:]

    def _add_data_rows(self, stream: bytes | bytearray, start: int, end: int, rows: int) -> None:
        run = self._current()
        if run.limit is not None:
            end, rows = self._within(run, stream, start, end, rows)
            if not rows:
                return
        elif run.counted is not None:
            run.counted.given += rows
        data = bytes(stream[start:end])
        pump = self._pump()
        self._add_rows(run, data if pump is None else self._masked(pump, data), data, rows)

    def _within(
        self, run: Run, stream: bytes | bytearray, start: int, end: int, rows: int
    ) -> tuple[int, int]:
        """Where the rows end that may be let through, and how many those are."""
        room = limits.room(run)
        if rows > room:
            self._overrun(run)
            rows, end = room, start
            for _ in range(room):
                end += 1 + _LENGTH.unpack_from(stream, end + 1)[0]
        limits.count(run, rows)
        return end, rows

    def _overrun(self, run: Run) -> None:
        """A row too many has come. Raises ProtocolViolation where only the end undoes it."""
        if run is not self.limited:
            raise limits.too_many_rows()
        if not run.overran:
            run.overrun()

    def _masked(self, pump: Pump, data: bytes) -> bytes:
        try:
            return pump.rows(data)
        except (PumpError, struct.error):
            raise ProtocolViolation("the target sent rows that cannot be masked") from None

    def _pump(self) -> Pump | None:
        """What masks the rows that come now. Raises ProtocolViolation for rows not described."""
        veil = self._veil()
        if veil is None:
            return None
        run = self._current()
        if run.encoding == "copy" or run.pumped:
            return run.pump
        body = run.described
        if body is None and run.portal is not None:
            body = run.portal.described or run.portal.prepared.described
        if body is None:
            raise ProtocolViolation("rows that are not described cannot be masked", "42501")
        run.pump, run.pumped = veil.pump(self._fields(body), self._language.codec), True
        return run.pump

    @property
    def copying(self) -> bool:
        """The target waits for data of the client's."""
        return self._copying

    @property
    def in_fragment(self) -> bool:
        """The client gets the beginning of a large message, and not its end yet."""
        return self._fragment_left > 0 and not self._withheld

    def _begin_fragment(self, size: int, first: bytes) -> None:
        """A value too large to hold: recorded and released piece by piece."""
        run = self._current()
        self._rows_fact(run)
        self._fragment_left = size
        self._withheld = run.limit is not None and not limits.passes(run, b"")
        if self._withheld:
            self._overrun(run)
        elif run.limit is None and run.counted is not None:
            run.counted.given += 1
        self._continue_fragment(first)

    def _continue_fragment(self, data: bytes) -> bytes:
        piece, rest = data[: self._fragment_left], data[self._fragment_left :]
        self._fragment_left -= len(piece)
        if self._withheld:
            self._withheld = self._fragment_left > 0
            return rest
        self._fragment.append(piece)
        self._fragment_bytes += len(piece)
        if self._fragment_left == 0 or self._fragment_bytes >= self._chunk_bytes:
            whole = b"".join(self._fragment)
            self._fragment, self._fragment_bytes = [], 0
            run = self._current()
            done = int(self._fragment_left == 0)
            run.rows += done
            run.byte_count += len(whole)
            self.rows += done
            self.facts.append(
                Rows(run.statement_id, run.chunk, "fragment", (), run.classified, done, whole)
            )
            run.chunk += 1
            self.held.append(whole)
            if done and self._returns:
                self._returns = False
                self._function_returned()
            self.release()
        return rest

    def _head(self) -> Expectation | None:
        """What the next response answers."""
        expected = self.expected
        while expected and expected[0].kind is Expect.COPY_END:
            # Outside of a COPY the target ignores it.
            expected.popleft()
        return expected[0] if expected else None

    def _current(self) -> Run:
        """The run that rows belong to now."""
        head = self._head()
        if head is not None:
            if head.kind is Expect.EXECUTE and head.run is not None:
                return head.run
            if head.kind is Expect.QUERY and head.runs:
                return head.runs[0]
        raise ProtocolViolation("the target sent rows that nothing asked for", "08P01")

    def _add_rows(self, run: Run, whole: bytes, data: bytes, rows: int) -> None:
        """`data` is what is recorded of the messages in `whole`."""
        run.pending.append(data)
        run.pending_bytes += len(data)
        run.pending_rows += rows
        run.rows += rows
        run.byte_count += len(data)
        self.rows += rows
        self.held.append(whole)
        if run.pending_bytes >= self._chunk_bytes:
            self.release()

    def _rows_fact(self, run: Run) -> None:
        if not run.pending:
            return
        data = b"".join(run.pending)
        rows, run.pending, run.pending_bytes, run.pending_rows = run.pending_rows, [], 0, 0
        columns = self._described(run) if run.encoding == "rows" else ()
        self.facts.append(
            Rows(run.statement_id, run.chunk, run.encoding, columns, run.classified, rows, data)
        )
        run.chunk += 1

    def _described(self, run: Run) -> tuple[tuple[str, int, int, int, int, str], ...]:
        body = run.described
        formats = run.formats
        if body is None and run.portal is not None:
            # The client described the statement once and executes it many times.
            body = run.portal.prepared.described
        if body is None:
            return ()
        catalog = self._catalog()
        if catalog is not self._columns_of or len(self._columns) >= _COLUMNS:
            self._columns_of = catalog
            self._columns.clear()
        key = (body, formats, run.classified)
        known = self._columns.get(key)
        if known is None:
            known = tuple(
                (name, table, number, kind, _format(formats, index, shown), source)
                for index, (name, table, number, kind, shown) in enumerate(self._fields(body))
                for source in (self._source(table, number, run.classified),)
            )
            if len(body) <= _CACHED_BYTES:
                self._columns[key] = known
        result: tuple[tuple[str, int, int, int, int, str], ...] = known
        return result

    def _fields(self, body: bytes) -> list[tuple[str, int, int, int, int]]:
        """The fields of a RowDescription. Raises ProtocolViolation."""
        fields = self._described_fields.get(body)
        if fields is None:
            if len(self._described_fields) >= _COLUMNS:
                self._described_fields.clear()
            fields = pipeline.columns(body)
            if len(body) <= _CACHED_BYTES:
                self._described_fields[body] = fields
        return fields

    def _source(self, table: int, number: int, classified: bool) -> str:
        found = self._catalog().columns.get((table, number))
        if found is not None:
            return found
        # Computed, or of a table the catalog does not know yet: it may be anything.
        unknown = table >= 16384 and table not in self._catalog().relations
        return "?" if classified or unknown else ""

    def _response(self, kind: int, whole: bytes) -> None:
        head, expected = self._head(), self.expected
        match chr(kind):
            case "C" | "s" | "c" if head is not None and head.run is not None and head.run.overran:
                # The client has an error to come, and none of this.
                self.ended_late = self.ended_late or kind != ord("c")
                return
            case "C":
                self._command_complete(whole)
            case "Z":
                self._ready(whole)
            case "1" | "2" | "3":
                want = (Expect.PARSE, Expect.BIND, Expect.CLOSE)[kind - ord("1")]
                if head is None or head.kind is not want:
                    raise ProtocolViolation("the target answers something else")
                expected.popleft()
                if head.change is not None:
                    head.change.settle()
                if head.completes and head.run is not None:
                    self.complete(head.run, "completed")
                if head.unsaid:
                    return
            case "T":
                self._fields(whole[5:])
                if head is not None and head.kind is Expect.DESCRIBE:
                    expected.popleft()
                    if head.target is not None:
                        head.target.describe(whole[5:])
                    if isinstance(head.target, Portal):
                        self._describe_runs(head.target, whole[5:])
                    if head.unsaid and head.run is not None:
                        head.run.described = whole[5:]
                    if head.ours:
                        return
                else:
                    shown = self._begin_data("rows")
                    # A statement may have several results, each described: by a rule, for one.
                    shown.described, shown.pump, shown.pumped = whole[5:], None, False
            case "n":
                if head is None or head.kind is not Expect.DESCRIBE:
                    raise ProtocolViolation("the target answers something else")
                expected.popleft()
                if head.ours or head.unsaid:
                    return
            case "s":
                self._finish_execute("")
            case "I":
                self._command_complete(b"C\0\0\0\5\0")
            case "G":
                self._begin_data("copy")
                self._begin_copy()
            case "H":
                self._begin_data("copy")
            case "W":
                if not self._begin_data("copy").statement.replication:
                    raise ProtocolViolation("the target sent an unexpected message")
                self._begin_copy()
            case "d":
                run = self._current()
                if run.limit is not None and not limits.passes(run, whole[5:]):
                    self._overrun(run)
                else:
                    self._add_rows(run, whole, whole[5:], 1)
                return
            case "V":
                # One row of one value, as SELECT would have returned it.
                self._add_rows(self._current(), whole, wire.message(b"D", b"\0\1" + whole[5:]), 1)
                self._function_returned()
                return
            case "E":
                running = self._running()
                whole = self._told(self._error(whole), running)
            case "N":
                self._notice(whole)
                whole = self._told(whole, self._running())
            case "S":
                reader = wire.Reader(whole[5:])
                name, value = reader.cstring(), reader.cstring()
                self._language.status(
                    name.decode("utf-8", "replace"), value.decode("utf-8", "replace")
                )
                # A function can put whatever it reads into a setting.
                self._unasked(whole)
            case "A":
                self._unasked(whole)
            case "t" | "c":
                pass
            case _:
                raise ProtocolViolation("the target sent an unexpected message")
        self.held.append(whole)

    def _running(self) -> Run | None:
        """What a message that is no row speaks of."""
        head = self._head()
        return None if head is None else head.runs[0] if head.runs else head.run

    def _told(self, whole: bytes, run: Run | None) -> bytes:
        """An error or notice as the client reads it: who may not see everything, reads no data."""
        veil = self._veil()
        # Of a text that was sent by itself, the target says where in that text something is.
        moved = run.statement.offset if run is not None and run.apart and b"\0P" in whole else 0
        if (veil is None and not moved) or (run is not None and whole is run.refusal):
            return whole
        codec = self._language.codec
        typed = run.statement.text if run is not None else ""
        fields = wire.fields(whole[5:], codec)
        if veil is not None:
            fields = veil.words(fields, typed)
        if run is not None and run.ran and run.plan is not None and "P" in fields:
            statement = run.statement
            within = int(fields["P"]) - run.offset
            fields["P"] = str(run.plan.typed_at(statement.text, within) + statement.offset)
        elif moved and "P" in fields:
            fields["P"] = str(int(fields["P"]) + moved)
        body = b"".join(
            code.encode() + text.encode(codec, "replace") + b"\0" for code, text in fields.items()
        )
        return wire.message(whole[:1], body + b"\0")

    def _begin_data(self, encoding: str) -> Run:
        """What comes for this run from here on is encoded so."""
        run = self._current()
        self._rows_fact(run)
        run.encoding = encoding
        return run

    def _begin_copy(self) -> None:
        """The target takes data now; what the client has sent beyond them is read as such."""
        later = list(self.expected)[1:]
        for expectation in takewhile(lambda each: each.kind is not Expect.COPY_END, later):
            if expectation.kind is not Expect.SYNC:
                raise ProtocolViolation(_NOT_COPY)
        self._copying = True
        self.expected = deque((self.expected[0],))
        for expectation in later:
            self.expect(expectation)

    def _while_copying(self, expectation: Expectation) -> None:
        """What a client sends into a COPY: the target ignores a Sync, and takes nothing else."""
        if expectation.kind is Expect.SYNC:
            self._boundary(False, False)
        elif expectation.kind is Expect.COPY_END:
            self._copying = False
        else:
            raise ProtocolViolation(_NOT_COPY)

    def _describe_runs(self, portal: Portal, body: bytes) -> None:
        """A portal described after its Execute was asked for: the run learns its columns."""
        for expectation in self.expected:
            if expectation.run is not None and expectation.run.portal is portal:
                expectation.run.described = body

    def _command_complete(self, whole: bytes) -> None:
        tag = whole[5:-1].decode("utf-8", "replace")
        head = self._head()
        if head is not None and head.kind is Expect.QUERY:
            if head.runs:
                run = head.runs[0]
                if run.statement.replication and tag.lower() != run.statement.kind:
                    # One of several results (BASE_BACKUP), or the stream's end, not the command's.
                    run.tag = tag
                    self._begin_data("rows")
                    return
                del head.runs[0]
                self._unread = run.statement.kind == sql.UNPARSEABLE
                self.complete(run, "completed", tag)
            elif not self._unread:
                # Nobody was asked about it, and its end would be told without a record.
                raise ProtocolViolation("the target ran more statements than were asked for")
            return
        self._finish_execute(tag)

    def _function_returned(self) -> None:
        """A FunctionCall has no CommandComplete."""
        run = self._current()
        if run.statement.kind != sql.FUNCTION_CALL:
            raise ProtocolViolation("the target answers something else")
        self.expected[0].runs.remove(run)
        self.complete(run, "completed", "FUNCTION CALL")

    def _finish_execute(self, tag: str) -> None:
        head = self._head()
        if head is None or head.kind is not Expect.EXECUTE or head.run is None:
            raise ProtocolViolation("the target answers something else")
        self.expected.popleft()
        self.complete(head.run, "completed", tag)

    def _ready(self, whole: bytes) -> None:
        head = self._head()
        if head is None or head.kind not in (Expect.SYNC, Expect.QUERY):
            raise ProtocolViolation("the target is ready out of turn")
        if len(whole) != 6:
            raise ProtocolViolation("the target sent an invalid length")
        self.expected.popleft()
        for run in head.runs:
            # Servers before 13 end a replication command without naming it.
            self.complete(run, "completed" if run.tag else "failed", run.tag)
        self.transaction = whole[5]
        self._uncommitted = None
        self._copying = False
        failed, self._failed = self._failed, False
        self._boundary(self.transaction == ord("I"), failed)
        if self._head() is None:
            self.clean = True

    def _error(self, whole: bytes) -> bytes:
        """Attribute an ErrorResponse; returns what the client gets."""
        self._copying = False
        self._failed = True
        fields = wire.fields(whole[5:])
        if fields.get("V", fields.get("S")) in ("FATAL", "PANIC"):
            self.said_fatal = True
        head = self._head()
        if head is None or head.kind is Expect.SYNC:
            # Nothing runs: a FATAL from the server, or a commit that failed at Sync.
            run, self._uncommitted = self._uncommitted, None
            if head is not None and run is not None:
                run.completed = False
                self.running += 1
                self.complete(run, "failed", error=fields)
            else:
                self._unasked(whole)
            return whole
        run = head.runs[0] if head.runs else head.run
        if (
            run is not None
            and run.refusal
            and (run.token in whole or (run.overran and not self.said_fatal))
        ):
            whole = run.refusal
            fields = wire.fields(whole[5:])
        if run is not None and not run.completed:
            outcome = "cancelled" if fields.get("C") == "57014" else "failed"
            self.complete(run, outcome, error=fields)
        else:
            # A Describe or Close, after the last statement of its segment or without one.
            self._unasked(whole)
        if head.kind is Expect.QUERY:
            for skipped in head.runs:
                self.complete(skipped, "failed")
            head.runs = []
            return whole
        while self.expected and self.expected[0].kind is not Expect.SYNC:
            self._skip(self.expected.popleft())
        self._skipping = not self.expected
        return whole

    def _skip(self, expectation: Expectation) -> None:
        """The target ignores this message: an earlier one failed."""
        expectation.drop()
        if expectation.kind is Expect.QUERY:
            self._boundary(False, False)
        for run in (*expectation.runs, *((expectation.run,) if expectation.run else ())):
            self.complete(run, "failed")

    def _unasked(self, whole: bytes) -> None:
        """Record a message that is part of no statement's record."""
        self.facts.append(Rows(NONE_ID, 0, "notification", (), False, 0, whole))

    def _notice(self, whole: bytes) -> None:
        head = self._head()
        run = None if head is None else head.runs[0] if head.runs else head.run
        if run is None or run.completed:
            self._unasked(whole)
        elif len(run.notices) < _NOTICES and run.notice_bytes < _NOTICE_BYTES:
            run.notice_bytes += len(whole)
            self._noticed.append((run, whole))
            run.notices.append(
                {key: value[:_NOTICE_BYTES] for key, value in wire.fields(whole[5:]).items()}
            )
        else:
            if run.notices[-1] != _FURTHER:
                run.notices.append(_FURTHER)
            self._unasked(whole)

    def complete(
        self, run: Run, outcome: str, tag: str = "", error: dict[str, str] | None = None
    ) -> None:
        if run.completed:
            return
        run.completed = True
        self.running -= bool(run.started_ns)
        if run.change is not None:
            if outcome == "completed":
                run.change.settle(tag)
            else:
                run.change.drop()
        self._rows_fact(run)
        if run.overran:
            outcome = "limited" if outcome in ("failed", "cancelled") else outcome
        elif run.refusal:
            outcome = "denied"
        sqlstate = (error or {}).get("C", run.sqlstate if run.refusal else "")
        self.facts.append(
            Outcome(
                run.statement_id,
                outcome,
                tag,
                sqlstate,
                run.rows,
                run.byte_count,
                self.now - run.started_ns if run.started_ns else 0,
                error or {},
                tuple(run.notices),
            )
        )
        self.recorded_runs.append(run)
        self.last_run = run
        if outcome == "completed":
            self._uncommitted = run

    def unfinished_rows(self) -> bool:
        head = self._head()
        if head is None:
            return False
        run = head.runs[0] if head.runs else head.run
        return run is not None and bool(run.pending)

    def release(self) -> None:
        """Queue what is held for the client behind its record."""
        if self.unfinished_rows():
            # They may follow another statement's end in one packet, and are held with it.
            self._rows_fact(self._current())
        noticed, self._noticed = self._noticed, []
        for run, notice in noticed:
            if not run.completed:
                # It leaves before the statement's end, and so before the record that holds it.
                self._unasked(notice)
        data, facts, runs = b"".join(self.held), self.facts, self.recorded_runs
        self.held, self.facts, self.recorded_runs = [], [], []
        if facts:
            held = Held(self._next_ticket(), data, runs, self.in_fragment)
            self._waiting[held.ticket] = held
            self.inbox.append(held)
            self.inbox_bytes += len(data)
            self.commands.append(Record(held.ticket, tuple(facts)))
        elif data:
            self.inbox.append(Held(0, data, []))
            self.inbox_bytes += len(data)
            self.drain()

    def drain(self) -> None:
        inbox = self.inbox
        out = []
        while inbox and inbox[0].ready:
            held = inbox.popleft()
            self.inbox_bytes -= len(held.data)
            self.torn = held.torn
            out.append(held.data)
        if out:
            data = b"".join(out)
            self.bytes_out += len(data)
            self.commands.append(Send(Side.CLIENT, data))


def _format(formats: tuple[int, ...], index: int, described: int) -> int:
    """A column's format: what Bind asked for, or what its description says."""
    if not formats:
        return described
    if len(formats) == 1:
        return formats[0]
    return formats[index] if index < len(formats) else described
