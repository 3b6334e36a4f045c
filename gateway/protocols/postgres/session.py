"""Everything after sign-in: requests judged one by one, responses recorded before release.

State, in the order bytes take:

    client -> splitter -> _parts (messages since the last Execute, Sync or Flush; a server may
              answer them no earlier, so waiting is invisible) -> _outbox (wait for decisions)
           -> target, and _expected (what it will answer)
    target -> _stream -> _held (response bytes) with _facts (their record)
           -> _inbox (wait for receipts) -> client
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable
from itertools import count
from typing import Any, Final

from gateway.machine import (
    Abort,
    Ask,
    CatalogView,
    Close,
    Closed,
    Command,
    Decided,
    Ended,
    Expired,
    Fact,
    Idle,
    Input,
    NotDurable,
    Outcome,
    Received,
    Record,
    Recorded,
    Request,
    RequestData,
    Rows,
    Send,
    Shutdown,
    Side,
    Verdict,
)
from gateway.policy import sql
from gateway.policy.sql import Statement
from gateway.protocols.postgres import pipeline, requests, wire
from gateway.protocols.postgres.pipeline import (
    Expect,
    Expectation,
    Held,
    Item,
    Part,
    Portal,
    Prepared,
    Run,
)
from gateway.protocols.postgres.requests import Language
from gateway.protocols.postgres.startup import NOT_DURABLE_HINT, NOT_DURABLE_TEXT
from gateway.protocols.postgres.wire import ProtocolViolation, Splitter, fatal
from schemas.events import NONE_ID

_CLIENT: Final = b"QPBDECSHdcfFX"
_LARGEST_HELD: Final = 64 * 1024 * 1024
_NOTICES: Final = 100
_COLUMNS: Final = 1000
_LENGTH: Final = struct.Struct(">I")
# Statements whose relations their text does not name.
_INDIRECT: Final = frozenset({"execute", "fetch", "call", "do", sql.UNPARSEABLE})

_D, _d, _C, _T, _Z, _E, _N, _S, _A = (ord(c) for c in "DdCTZENSA")


class Session:
    """One signed-in client and its target. See gateway.machine.Machine."""

    def __init__(
        self,
        language: Language,
        catalog: CatalogView,
        new_id: Callable[[], bytes],
        chunk_bytes: int,
        now_ns: int,
    ) -> None:
        self.catalog = catalog
        self._language = language
        self._new_id = new_id
        self._chunk_bytes = chunk_bytes
        self._now = self._opened = now_ns
        self._tickets = count(1000)
        self._waiting: dict[int, Item | Held] = {}
        self._commands: list[Command] = []
        # client -> target
        self._splitter = Splitter(_CLIENT)
        self._parts: list[Part] = []
        self._parts_bytes = 0
        self._fresh: dict[Prepared, Part] = {}
        self._bound: dict[Portal, Part] = {}
        self._copied: list[bytes] = []
        self._outbox: deque[Item] = deque()
        self._outbox_bytes = 0
        self._statements: dict[bytes, object] = {}
        self._portals: dict[bytes, object] = {}
        self._discarding = False
        self._clean = True  # the target has nothing of ours since its last ReadyForQuery
        self._terminating = False
        # target -> client
        self._expected: deque[Expectation] = deque()
        self._skipping = False
        self._last_run: Run | None = None
        self._stream = bytearray()
        self._fragment_left = 0
        self._fragment: list[bytes] = []
        self._fragment_bytes = 0
        self._held: list[bytes] = []
        self._facts: list[Fact] = []
        self._recorded_runs: list[Run] = []
        self._inbox: deque[Held] = deque()
        self._inbox_bytes = 0
        self._transaction = ord("I")
        self._target_said_fatal = False
        self._columns: dict[tuple[bytes, tuple[int, ...], bool, int], Any] = {}
        self._ending = ""
        self._over = False
        # figures
        self._statements_seen = 0
        self._rows = 0
        self._bytes_in = 0
        self._bytes_out = 0
        self._handlers: dict[type[Any], Callable[[Any], None]] = {
            Received: self._received,
            Decided: self._decided,
            Recorded: self._recorded,
            NotDurable: self._not_durable,
            Idle: lambda _: self._flush_rows(),
            Closed: self._closed,
            Expired: lambda _: self._stop("28000", "the token has expired", "token_expired"),
            Shutdown: lambda _: self._stop("57P01", "the gateway is shutting down", "shutdown"),
        }

    # --- what the driver watches ---

    @property
    def waiting(self) -> bool:
        """Response bytes wait for more of their kind; an Idle releases them."""
        return bool(self._held)

    @property
    def unrecorded_bytes(self) -> int:
        """Response bytes that wait for receipts: too many, and the target is not read."""
        return self._inbox_bytes

    @property
    def unsent_requests(self) -> int:
        """Size of what the client has asked and the target not yet answered: too much, and
        the client is not read. A pending decision must not cost unlimited memory.
        """
        return self._outbox_bytes + self._parts_bytes + 512 * len(self._expected)

    def handle(self, event: Input, now_ns: int) -> list[Command]:
        """See gateway.machine.Machine."""
        self._now = now_ns
        commands: list[Command] = []
        self._commands = commands
        if self._over:
            return commands
        handler = self._handlers.get(type(event))
        if handler is not None:
            handler(event)
        if not self._over:
            self._pump()
            if self._facts or (self._held and not self._unfinished_rows()):
                self._release()
        return commands

    def _received(self, event: Received) -> None:
        try:
            if event.side is Side.TARGET:
                self._from_target(event.data)
            elif not self._ending:
                self._from_client(event.data)
        except ProtocolViolation as violation:
            self._stop(violation.sqlstate, str(violation), "protocol_error")

    # --- client to target ---

    def _from_client(self, data: bytes) -> None:
        self._bytes_in += len(data)
        for kind, whole in self._splitter.feed(data):
            if self._discarding:
                self._discard(kind)
            elif kind == _d:
                self._copied.append(whole)
            else:
                if self._copied:
                    self._flush_copied()
                self._message(kind, whole)
            if self._ending or self._over:
                return
        if self._copied:
            self._flush_copied()

    def _message(self, kind: int, whole: bytes) -> None:
        match chr(kind):
            case "Q":
                self._query(whole)
            case "P":
                self._parse(whole)
            case "B":
                self._bind(whole)
            case "D":
                self._describe(whole)
            case "E":
                self._execute(whole)
            case "C":
                self._close(whole)
            case "S":
                self._add(Part(whole, Expectation(Expect.SYNC)))
                self._segment()
            case "H":
                self._add(Part(whole))
                self._segment()
            case "c" | "f":
                self._enqueue(Item(0, [Part(whole)], []))
            case "F":
                refused = sql.unparseable(
                    "", "function calls through the protocol are refused", sqlstate="0A000"
                )
                self._simple(whole, (refused,))
            case _:
                self._terminating = True
                self._enqueue(Item(0, [Part(whole)], []))

    def _query(self, whole: bytes) -> None:
        if whole.find(b"\0", 5) != len(whole) - 1:
            raise ProtocolViolation("invalid string in message")
        self._segment()
        statements = self._language.statements(whole[5:-1])
        self._simple(whole, statements or (self._language.prepared(b""),))

    def _simple(self, whole: bytes, statements: tuple[Statement, ...]) -> None:
        expectation = Expectation(Expect.QUERY)
        part = Part(whole, expectation)
        runs = [Run(self._new_id(), statement, None) for statement in statements]
        expectation.runs = list(runs)
        self._ask([part], runs, dict.fromkeys(runs, part), "execute")

    def _add(self, part: Part) -> None:
        self._parts.append(part)
        self._parts_bytes += len(part.data)
        if self._parts_bytes > wire.MAX_MESSAGE:
            # As if the client had sent a Flush: the target may answer early, and we hold less.
            self._segment()

    def _parse(self, whole: bytes) -> None:
        name, text, oids = requests.read_parse(whole[5:])
        prepared = Prepared(self._language.prepared(text), oids)
        expectation = Expectation(Expect.PARSE)
        expectation.undo = (self._statements, name, self._statements.get(name) if name else None)
        self._statements[name] = prepared
        part = Part(whole, expectation)
        self._fresh[prepared] = part
        self._add(part)

    def _bind(self, whole: bytes) -> None:
        portal_name, name = requests.bound_names(whole[5:])
        prepared = self._statements.get(name)
        if not isinstance(prepared, Prepared):
            shown = name.decode("utf-8", "replace")
            text = (
                f'prepared statement "{shown}" does not exist'
                if name
                else ("unnamed prepared statement does not exist")
            )
            prepared = Prepared(sql.unparseable("", text, sqlstate="26000"), ())
        portal = requests.read_bind(whole[5:], prepared)
        expectation = Expectation(Expect.BIND)
        expectation.undo = (self._portals, portal_name, self._portals.get(portal_name))
        self._portals[portal_name] = portal
        part = Part(whole, expectation)
        self._bound[portal] = part
        self._add(part)

    def _describe(self, whole: bytes) -> None:
        expectation = Expectation(Expect.DESCRIBE)
        names = self._statements if whole[5:6] == b"S" else self._portals
        target = names.get(whole[6:-1])
        if isinstance(target, Prepared | Portal):
            expectation.target = target
        self._add(Part(whole, expectation))

    def _close(self, whole: bytes) -> None:
        expectation = Expectation(Expect.CLOSE)
        names = self._statements if whole[5:6] == b"S" else self._portals
        previous = names.pop(whole[6:-1], None)
        expectation.undo = (names, whole[6:-1], previous)
        self._add(Part(whole, expectation))

    def _execute(self, whole: bytes) -> None:
        name = wire.Reader(whole[5:]).cstring()
        portal = self._portals.get(name)
        if not isinstance(portal, Portal):
            text = f'portal "{name.decode("utf-8", "replace")}" does not exist'
            refused = sql.unparseable("", text, sqlstate="34000")
            portal = Portal(Prepared(refused, ()), (), ())
        prepared = portal.prepared
        run = Run(self._new_id(), prepared.statement, portal)
        run.described = portal.described
        run.formats = portal.formats
        part = Part(whole, Expectation(Expect.EXECUTE, run, completes=True))
        parsed, bound = self._fresh.pop(prepared, None), self._bound.pop(portal, None)
        for earlier in (parsed, bound):
            if earlier is not None and earlier.expectation is not None:
                earlier.expectation.run = run
        self._parts.append(part)
        self._segment(run, parsed or bound or part)
        if parsed is not None:
            prepared.statement_id = run.statement_id

    def _segment(self, run: Run | None = None, poisoned: Part | None = None) -> None:
        """Ask for what has gathered: Parses and Binds that nothing executes yet, then `run`."""
        parts, self._parts, self._parts_bytes = self._parts, [], 0
        if not parts:
            return
        runs: list[Run] = []
        refusals: dict[Run, Part] = {}
        for prepared, part in self._fresh.items():
            bound = next((p for p in self._bound if p.prepared is prepared), None)
            alone = self._prepare_run(prepared, bound, part)
            prepared.statement_id = alone.statement_id
            runs.append(alone)
            refusals[alone] = part
            if bound is not None:
                self._finish_at(alone, self._bound.pop(bound))
        for portal, part in self._bound.items():
            alone = self._prepare_run(portal.prepared, portal, part)
            runs.append(alone)
            refusals[alone] = part
        self._fresh.clear()
        self._bound.clear()
        prepared_runs = len(runs)
        if run is not None and poisoned is not None:
            runs.append(run)
            refusals[run] = poisoned
        for part in parts:
            if part.expectation is not None and part.expectation.run is None and runs:
                part.expectation.run = runs[-1]
        if runs:
            self._ask(parts, runs, refusals, "execute", prepared_runs)
        else:
            self._enqueue(Item(0, parts, []))

    def _prepare_run(self, prepared: Prepared, portal: Portal | None, part: Part) -> Run:
        run = Run(self._new_id(), prepared.statement, portal)
        self._finish_at(run, part)
        return run

    @staticmethod
    def _finish_at(run: Run, part: Part) -> None:
        """The run is complete when this part's response comes; an earlier part's is not it."""
        assert part.expectation is not None  # noqa: S101 (narrowing)
        part.expectation.run = run
        part.expectation.completes = True

    def _ask(
        self,
        parts: list[Part],
        runs: list[Run],
        refusals: dict[Run, Part],
        action: str,
        prepares: int = 0,
    ) -> None:
        item = Item(next(self._tickets), parts, runs)
        item.poisoned = refusals
        asked = tuple(
            self._request(run, "prepare" if index < prepares else action)
            for index, run in enumerate(runs)
        )
        self._statements_seen += len(runs) - prepares
        self._enqueue(item)
        self._commands.append(Ask(item.ticket, asked))

    def _request(self, run: Run, action: str) -> Request:
        statement = run.statement
        kinds, relations = statement.kinds, statement.relations
        if statement.kind == "execute":
            # EXECUTE does what its PREPARE said.
            inner = self._statements.get(statement.prepared_name.encode())
            if isinstance(inner, Prepared):
                kinds = kinds | inner.statement.kinds
                relations = inner.statement.relations
        run.classified = self._reads_classified(kinds, relations)
        portal = run.portal
        return Request(
            statement_id=run.statement_id,
            action=action,
            kind=statement.kind,
            kinds=kinds,
            relations=relations,
            statement=statement.recorded,
            parameters=portal.parameters if portal is not None else (),
            prepared_id=portal.prepared.statement_id if portal is not None else NONE_ID,
            refusal=statement.error,
        )

    def _reads_classified(self, kinds: frozenset[str], relations: tuple[str, ...]) -> bool:
        known = self.catalog.classified
        if not known:
            return False
        if kinds & _INDIRECT:
            return True
        return any(name in known or name.rpartition(".")[2] in known for name in relations)

    def _flush_copied(self) -> None:
        messages, self._copied = self._copied, []
        data = b"".join(whole[5:] for whole in messages)
        run = self._last_asked()
        item = Item(next(self._tickets), [Part(b"".join(messages))], [])
        chunk = 0
        if run is not None:
            chunk = run.data_chunk
            run.data_chunk += 1
        fact = RequestData(run.statement_id if run else NONE_ID, chunk, data)
        self._enqueue(item)
        self._commands.append(Record(item.ticket, (fact,)))

    def _last_asked(self) -> Run | None:
        for item in reversed(self._outbox):
            if item.runs:
                return item.runs[-1]
        for expectation in reversed(self._expected):
            if expectation.run is not None:
                return expectation.run
            if expectation.runs:
                return expectation.runs[0]
        return self._last_run

    def _enqueue(self, item: Item) -> None:
        if item.ticket:
            self._waiting[item.ticket] = item
        self._outbox.append(item)
        self._outbox_bytes += item.size

    def _decided(self, event: Decided) -> None:
        item = self._waiting.pop(event.ticket, None)
        if not isinstance(item, Item):
            return
        for index, (run, decision) in enumerate(zip(item.runs, event.decisions, strict=True)):
            if decision.verdict is Verdict.ALLOW:
                continue
            run.refuse(decision)
            part = item.poisoned[run]
            if part.data[:1] == b"Q" and index:
                # The statements before it run, as they would before a missing privilege.
                before = ";\n".join(earlier.statement.text for earlier in item.runs[:index])
                text = self._language.encode(before) + b';\nSELECT * FROM "' + run.token + b'"'
                part.data = wire.message(b"Q", text + b"\0")
                break
            part.data = pipeline.poison(part, run)
            if part.data[:1] == b"Q":
                break
        item.ready = True

    def _pump(self) -> None:
        """Forward what is decided, in order."""
        outbox = self._outbox
        if not outbox or not outbox[0].ready:
            return
        out: list[bytes] = []
        while outbox and outbox[0].ready:
            item = outbox.popleft()
            self._outbox_bytes -= item.size
            for run in item.runs:
                run.started_ns = self._now
            for part in item.parts:
                out.append(part.data)
                if part.expectation is not None:
                    self._expect(part.expectation)
        self._clean = False
        self._commands.append(Send(Side.TARGET, b"".join(out)))
        if self._terminating and not outbox:
            self._end("client_closed")

    def _expect(self, expectation: Expectation) -> None:
        if self._skipping:
            if expectation.kind is not Expect.SYNC:
                self._skip(expectation)
                return
            self._skipping = False
        self._expected.append(expectation)

    # --- target to client ---

    def _from_target(self, data: bytes) -> None:
        stream: bytes | bytearray = data
        if self._fragment_left:
            data = self._continue_fragment(data)
            stream = data
        if self._stream:
            self._stream += data
            stream = self._stream
        at, size = 0, len(stream)
        rows_from, rows, whole_from = -1, 0, 0
        unpack = _LENGTH.unpack_from
        while size - at >= 5:
            kind = stream[at]
            end = at + 1 + unpack(stream, at + 1)[0]
            if end > size:
                break
            if kind == _D:
                if rows_from < 0:
                    rows_from = at
                rows += 1
                at = end
                continue
            if rows_from >= 0:
                self._add_rows(bytes(stream[rows_from:at]), rows)
                rows_from, rows = -1, 0
            if end < at + 5:
                raise ProtocolViolation("the target sent an invalid length")
            self._response(kind, bytes(stream[at:end]))
            at = end
            if self._over or self._ending:
                return
        if rows_from >= 0:
            self._add_rows(bytes(stream[rows_from:at]), rows)
        whole_from = at
        if size - at >= 5:
            length = unpack(stream, at + 1)[0]
            if length > max(4 * self._chunk_bytes, 1 << 20):
                self._begin_fragment(stream[at], length + 1, bytes(stream[at:]))
                whole_from = size
        if stream is self._stream:
            del self._stream[:whole_from]
        elif whole_from < size:
            self._stream += memoryview(data)[whole_from:]

    def _begin_fragment(self, kind: int, size: int, first: bytes) -> None:
        """A value too large to hold: recorded and released piece by piece."""
        if kind not in (_D, _d):
            raise ProtocolViolation("the target sent a message that is too large", "54000")
        run = self._current()
        self._rows_fact(run)
        self._fragment_left = size
        self._continue_fragment(first)

    def _continue_fragment(self, data: bytes) -> bytes:
        piece, rest = data[: self._fragment_left], data[self._fragment_left :]
        self._fragment_left -= len(piece)
        self._fragment.append(piece)
        self._fragment_bytes += len(piece)
        if self._fragment_left == 0 or self._fragment_bytes >= self._chunk_bytes:
            whole = b"".join(self._fragment)
            self._fragment, self._fragment_bytes = [], 0
            run = self._current()
            done = int(self._fragment_left == 0)
            run.rows += done
            run.byte_count += len(whole)
            self._rows += done
            self._facts.append(
                Rows(run.statement_id, run.chunk, "fragment", (), run.classified, done, whole)
            )
            run.chunk += 1
            self._held.append(whole)
            self._release()
        return rest

    def _current(self) -> Run:
        """The run that rows belong to now."""
        if self._expected:
            head = self._expected[0]
            if head.kind is Expect.EXECUTE and head.run is not None:
                return head.run
            if head.kind is Expect.QUERY and head.runs:
                return head.runs[0]
        raise ProtocolViolation("the target sent rows that nothing asked for", "08P01")

    def _add_rows(self, data: bytes, rows: int) -> None:
        run = self._current()
        run.pending.append(data)
        run.pending_rows += rows
        run.rows += rows
        run.byte_count += len(data)
        self._rows += rows
        self._held.append(data)
        if sum(map(len, run.pending)) >= self._chunk_bytes:
            self._rows_fact(run)
            self._release()

    def _rows_fact(self, run: Run) -> None:
        if not run.pending:
            return
        data = b"".join(run.pending)
        rows, run.pending, run.pending_rows = run.pending_rows, [], 0
        columns = self._described(run) if run.encoding == "rows" else ()
        self._facts.append(
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
        key = (body, formats, run.classified, id(self.catalog))
        known = self._columns.get(key)
        if known is None:
            if len(self._columns) >= _COLUMNS:
                self._columns.clear()
            known = self._columns[key] = tuple(
                (name, table, number, kind, _format(formats, index, shown), source)
                for index, (name, table, number, kind, shown) in enumerate(pipeline.columns(body))
                for source in (self._source(table, number, run.classified),)
            )
        result: tuple[tuple[str, int, int, int, int, str], ...] = known
        return result

    def _source(self, table: int, number: int, classified: bool) -> str:
        found = self.catalog.columns.get((table, number))
        if found is not None:
            return found
        # Computed, or of a table the catalog does not know yet: it may be anything.
        unknown = table >= 16384 and table not in self.catalog.relations
        return "?" if classified or unknown else ""

    def _response(self, kind: int, whole: bytes) -> None:
        expected = self._expected
        head = expected[0] if expected else None
        match chr(kind):
            case "C":
                self._command_complete(whole)
            case "Z":
                self._ready(whole)
            case "1" | "2" | "3":
                want = (Expect.PARSE, Expect.BIND, Expect.CLOSE)[kind - ord("1")]
                if head is None or head.kind is not want:
                    raise ProtocolViolation("the target answers something else")
                expected.popleft()
                if head.completes and head.run is not None:
                    self._complete(head.run, "completed")
            case "T":
                if head is not None and head.kind is Expect.DESCRIBE:
                    expected.popleft()
                    if head.target is not None:
                        head.target.described = whole[5:]
                    if isinstance(head.target, Portal):
                        self._describe_runs(head.target, whole[5:])
                else:
                    run = self._current()
                    run.described = whole[5:]
            case "n":
                if head is None or head.kind is not Expect.DESCRIBE:
                    raise ProtocolViolation("the target answers something else")
                expected.popleft()
            case "s":
                self._finish_execute("")
            case "I":
                self._command_complete(b"C\0\0\0\5\0")
            case "G" | "H":
                self._current().encoding = "copy"
            case "d":
                run = self._current()
                run.pending.append(whole[5:])
                run.pending_rows += 1
                run.rows += 1
                run.byte_count += len(whole) - 5
                self._rows += 1
            case "E":
                whole = self._error(whole)
            case "N":
                self._notice(whole)
            case "S":
                reader = wire.Reader(whole[5:])
                name, value = reader.cstring(), reader.cstring()
                self._language.status(
                    name.decode("utf-8", "replace"), value.decode("utf-8", "replace")
                )
            case "A":
                self._facts.append(Rows(NONE_ID, 0, "notification", (), False, 0, whole))
            case "t" | "c":
                pass
            case _:
                raise ProtocolViolation("the target sent an unexpected message")
        self._held.append(whole)
        if kind == _d and sum(map(len, self._current().pending)) >= self._chunk_bytes:
            self._rows_fact(self._current())
            self._release()

    def _describe_runs(self, portal: Portal, body: bytes) -> None:
        """A portal described after its Execute was asked for: the run learns its columns."""
        for expectation in self._expected:
            if expectation.run is not None and expectation.run.portal is portal:
                expectation.run.described = body

    def _command_complete(self, whole: bytes) -> None:
        tag = whole[5:-1].decode("utf-8", "replace")
        head = self._expected[0] if self._expected else None
        if head is not None and head.kind is Expect.QUERY:
            if head.runs:
                self._complete(head.runs.pop(0), "completed", tag)
            return
        self._finish_execute(tag)

    def _finish_execute(self, tag: str) -> None:
        head = self._expected[0] if self._expected else None
        if head is None or head.kind is not Expect.EXECUTE or head.run is None:
            raise ProtocolViolation("the target answers something else")
        self._expected.popleft()
        self._complete(head.run, "completed", tag)

    def _ready(self, whole: bytes) -> None:
        head = self._expected[0] if self._expected else None
        if head is None or head.kind not in (Expect.SYNC, Expect.QUERY):
            raise ProtocolViolation("the target is ready out of turn")
        self._expected.popleft()
        for run in head.runs:
            self._complete(run, "failed")
        self._transaction = whole[5]
        if not self._expected:
            self._clean = True
            if self._transaction == ord("I") and not (self._outbox or self._parts):
                self._portals.clear()

    def _error(self, whole: bytes) -> bytes:
        """Attribute an ErrorResponse; returns what the client gets."""
        fields = wire.fields(whole[5:])
        if fields.get("V", fields.get("S")) in ("FATAL", "PANIC"):
            self._target_said_fatal = True
        head = self._expected[0] if self._expected else None
        if head is None or head.kind is Expect.SYNC:
            # Nothing runs: a FATAL from the server, or a commit that failed at Sync.
            if head is not None and self._last_run is not None:
                self._last_run.completed = False
                self._complete(self._last_run, "failed", error=fields)
            else:
                self._facts.append(Rows(NONE_ID, 0, "notification", (), False, 0, whole))
            return whole
        run = head.runs[0] if head.runs else head.run
        if run is not None and run.refusal and run.token in whole:
            whole = run.refusal
            fields = wire.fields(whole[5:])
        if run is not None:
            outcome = "cancelled" if fields.get("C") == "57014" else "failed"
            self._complete(run, outcome, error=fields)
        if head.kind is Expect.QUERY:
            for skipped in head.runs:
                self._complete(skipped, "failed")
            head.runs = []
            return whole
        while self._expected and self._expected[0].kind is not Expect.SYNC:
            self._skip(self._expected.popleft())
        self._skipping = not self._expected
        return whole

    def _skip(self, expectation: Expectation) -> None:
        """The target ignores this message: an earlier one failed."""
        expectation.restore()
        for run in (*expectation.runs, *((expectation.run,) if expectation.run else ())):
            self._complete(run, "failed")

    def _notice(self, whole: bytes) -> None:
        head = self._expected[0] if self._expected else None
        run = None if head is None else head.runs[0] if head.runs else head.run
        if run is None or run.completed:
            self._facts.append(Rows(NONE_ID, 0, "notification", (), False, 0, whole))
        elif len(run.notices) < _NOTICES:
            run.notices.append(wire.fields(whole[5:]))

    def _complete(
        self, run: Run, outcome: str, tag: str = "", error: dict[str, str] | None = None
    ) -> None:
        if run.completed:
            return
        run.completed = True
        self._rows_fact(run)
        if run.refusal:
            outcome = "denied"
        sqlstate = (error or {}).get("C", run.sqlstate if run.refusal else "")
        self._facts.append(
            Outcome(
                run.statement_id,
                outcome,
                tag,
                sqlstate,
                run.rows,
                run.byte_count,
                self._now - run.started_ns if run.started_ns else 0,
                error or {},
                tuple(run.notices),
            )
        )
        self._recorded_runs.append(run)
        self._last_run = run
        if outcome == "completed" and run.portal is None:
            self._remember(run.statement)

    def _remember(self, statement: Statement) -> None:
        """PREPARE, DEALLOCATE and DISCARD in SQL change what Bind and EXECUTE may name."""
        name = statement.prepared_name.encode()
        if statement.kind == "prepare" and name:
            self._statements[name] = Prepared(statement, ())
        elif statement.kind == "deallocate" and name:
            self._statements.pop(name, None)
        elif statement.kind in ("deallocate", "discard"):
            self._statements.clear()

    def _unfinished_rows(self) -> bool:
        head = self._expected[0] if self._expected else None
        if head is None:
            return False
        run = head.runs[0] if head.runs else head.run
        return run is not None and bool(run.pending)

    def _flush_rows(self) -> None:
        if self._unfinished_rows():
            self._rows_fact(self._current())
        self._release()

    def _release(self) -> None:
        """Queue what is held for the client behind its record."""
        data, facts, runs = b"".join(self._held), self._facts, self._recorded_runs
        self._held, self._facts, self._recorded_runs = [], [], []
        if facts:
            held = Held(next(self._tickets), data, runs)
            self._waiting[held.ticket] = held
            self._inbox.append(held)
            self._inbox_bytes += len(data)
            self._commands.append(Record(held.ticket, tuple(facts)))
        elif data:
            self._inbox.append(Held(0, data, []))
            self._inbox_bytes += len(data)
            self._drain()

    def _recorded(self, event: Recorded) -> None:
        waiting = self._waiting.pop(event.ticket, None)
        if waiting is None:
            return
        waiting.ready = True
        if isinstance(waiting, Held):
            self._drain()

    def _drain(self) -> None:
        inbox = self._inbox
        out = []
        while inbox and inbox[0].ready:
            data = inbox.popleft().data
            self._inbox_bytes -= len(data)
            out.append(data)
        if out:
            data = b"".join(out)
            self._bytes_out += len(data)
            self._commands.append(Send(Side.CLIENT, data))
        if self._ending and not inbox:
            self._finish()

    # --- endings ---

    def _unfinished(self) -> list[Run]:
        """Runs that were asked for and are not complete, each once, in order."""
        runs: dict[Run, None] = {}
        for expectation in self._expected:
            for run in expectation.runs:
                runs[run] = None
            if expectation.run is not None:
                runs[expectation.run] = None
        for item in self._outbox:
            for run in item.runs:
                runs[run] = None
        return [run for run in runs if not run.completed]

    def _closed(self, event: Closed) -> None:
        if event.side is Side.CLIENT:
            self._end("client_closed" if self._terminating else "client_lost")
        elif not self._ending:
            text = "the connection to the target was lost"
            self._stop("08006", text, "target_lost", silent=self._target_said_fatal)

    def _stop(self, sqlstate: str, text: str, reason: str, silent: bool = False) -> None:
        """End the session with a FATAL, after what is already on its way to the client."""
        if self._ending or self._over:
            return
        self._ending = reason
        for run in self._unfinished():
            self._complete(run, "lost", error={"C": sqlstate, "M": text})
        if not silent:
            self._held.append(fatal(sqlstate, text))
        self._release()
        self._drain()

    def _finish(self) -> None:
        self._over = True
        self._commands.append(Record(0, (self._ended(self._ending),)))
        self._commands.append(Close())

    def _end(self, reason: str) -> None:
        """End the session now: nobody reads what is still on its way."""
        self._over = True
        for run in self._unfinished():
            self._complete(run, "lost")
        facts = (*self._facts, self._ended(reason))
        self._facts = []
        self._commands.append(Record(0, facts))
        self._commands.append(Close())

    def _ended(self, reason: str) -> Ended:
        return Ended(
            reason,
            self._statements_seen,
            self._rows,
            self._bytes_in,
            self._bytes_out,
            self._now - self._opened,
        )

    def abort(self, reason: str) -> list[Command]:
        """A fault of ours: end at once, in the book where that is still possible."""
        self._over = True
        return [Record(0, (*self._facts, self._ended("protocol_error"))), Abort(reason)]

    # --- the journal does not answer ---

    def _not_durable(self, event: NotDurable) -> None:
        waiting = self._waiting.pop(event.ticket, None)
        if isinstance(waiting, Item):
            self._request_not_durable(waiting)
        elif waiting is not None:
            self._response_not_durable()

    def _request_not_durable(self, item: Item) -> None:
        """Nothing of `item` reached the target, and nothing will."""
        starts = self._clean and self._transaction == ord("I") and self._outbox[0] is item
        if not starts or not item.runs:
            # A transaction or a pipeline is under way at the target. Only the end of the
            # connection undoes it: an error of our own would let the client commit it.
            self._fail_all("failed", NOT_DURABLE_TEXT)
            return
        simple = item.parts[0].data[:1] in b"QF"
        self._discarding = not simple
        while self._outbox and (self._discarding or self._outbox[0] is item):
            dropped = self._outbox.popleft()
            self._outbox_bytes -= dropped.size
            self._waiting.pop(dropped.ticket, None)
            for part in reversed(dropped.parts):
                if part.expectation is not None:
                    part.expectation.restore()
                    if part.expectation.kind is Expect.SYNC:
                        self._discarding = False
            for run in dropped.runs:
                self._complete(run, "failed", error={"C": "58030", "M": NOT_DURABLE_TEXT})
        if self._discarding:
            for part in reversed(self._parts):
                if part.expectation is not None:
                    part.expectation.restore()
            self._parts, self._parts_bytes = [], 0
            self._fresh.clear()
            self._bound.clear()
        # Recorded as soon as the journal answers again; the client does not wait for that.
        self._commands.append(Record(0, tuple(self._facts)))
        self._facts, self._recorded_runs = [], []
        error = wire.error("58030", NOT_DURABLE_TEXT, hint=NOT_DURABLE_HINT)
        self._held.append(error if self._discarding else error + _READY)
        self._release()

    def _discard(self, kind: int) -> None:
        """Skip to Sync, as the target would have."""
        if kind == ord("S"):
            self._discarding = False
            self._held.append(_READY)
            self._release()
        elif kind == ord("X"):
            self._end("client_closed")

    def _response_not_durable(self) -> None:
        """The target executed; the response is withheld, and nobody can say what was seen."""
        for held in self._inbox:
            for run in held.runs:
                run.completed = False
                self._complete(run, "unknown", error={"C": "58030"})
        text = "the response could not be recorded and is withheld; the statement may have run"
        self._inbox.clear()
        self._fail_all("unknown", text)

    def _fail_all(self, outcome: str, text: str) -> None:
        for run in self._unfinished():
            sent = run.started_ns > 0
            self._complete(run, "unknown" if sent else outcome, error={"C": "58030", "M": text})
        self._over = True
        self._commands.append(Record(0, (*self._facts, self._ended("not_durable"))))
        self._facts = []
        self._commands.append(Send(Side.CLIENT, fatal("58030", text, hint=NOT_DURABLE_HINT)))
        self._commands.append(Close())


_READY: Final = wire.message(b"Z", b"I")


def _format(formats: tuple[int, ...], index: int, described: int) -> int:
    """A column's format: what Bind asked for, or what its description says."""
    if not formats:
        return described
    if len(formats) == 1:
        return formats[0]
    return formats[index] if index < len(formats) else described
