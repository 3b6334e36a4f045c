"""Client to target: what a client asks, gathered, asked for and kept in order."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from gateway.large import Found, Reading, Spoken, Wanted
from gateway.machine import (
    Ask,
    CatalogView,
    Command,
    Decision,
    Record,
    Request,
    RequestData,
    Verdict,
)
from gateway.masking.plan import Plan
from gateway.masking.probes import Tried, tried
from gateway.masking.veil import Veil
from gateway.policy import sql
from gateway.policy.facts import Facts, Resolve, SessionNames
from gateway.policy.sql import Statement
from gateway.protocols.postgres import limits, pipeline, replication, requests, wire
from gateway.protocols.postgres.aside import Readings, with_made
from gateway.protocols.postgres.names import Effect, Ledger, Meaning, Names, Together
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
from gateway.protocols.postgres.portals import Portals
from gateway.protocols.postgres.requests import Language
from gateway.protocols.postgres.wire import ProtocolViolation
from schemas.events import NONE_ID
from schemas.masking.detect import scrub

# Statements whose relations their text does not name.
_INDIRECT: Final = replication.READS | {
    *("execute", "fetch", "call", "do", sql.FUNCTION_CALL, sql.UNPARSEABLE)
}
# Statements of those that name one that was judged before.
_NAMING: Final = frozenset({"execute", "fetch"})
_MAY_NAME: Final = re.compile(rb"execute|fetch|move", re.IGNORECASE)
# They may open and close cursors that we know by name.
_UNSEEN: Final = frozenset({"call", "do", sql.FUNCTION_CALL})

_UNCOUNTED: Final = "the values that it looks up cannot be counted: bind them, as text or numbers"
OUTDATED: Final = Plan("refuse", "what you may not see has changed: connect again")
_REPLAN: Final = Plan("refuse", "cached plan must not change result type", sqlstate="0A000")
_COPIED: Final = frozenset(b"dcf")
# Messages with which what has gathered is asked.
_JUDGING: Final = frozenset(b"QESHF")
_BEGUN: Final = SessionNames()


class Asking:
    """One client's messages.

    They gather in `_parts` until an Execute, Sync or Flush: a server may answer them no earlier,
    so waiting is invisible. Then they are one Item in `outbox`, where it waits for its decision.
    `commands` and `waiting` are the session's.
    """

    def __init__(
        self,
        *,
        language: Language,
        catalog: Callable[[], CatalogView],
        new_id: Callable[[], bytes],
        next_ticket: Callable[[], int],
        waiting: dict[int, Item | Held],
        last_sent: Callable[[], Run | None],
        resolve: Resolve,
        meaning: SessionNames,
        prepared_max_bytes: int,
        veil: Callable[[], Veil | None],
        settings: Mapping[str, str],
        large: int,
    ) -> None:
        self._language = language
        self._large = large
        self._veil = veil
        self._settings = settings
        self._readings = Readings(catalog, veil, large)
        self._has_large = False  # whether some statement that was prepared or declared is large
        self._made: frozenset[str] = frozenset()  # relations that this session has made
        self._catalog = catalog
        self._new_id = new_id
        self._next_ticket = next_ticket
        self._waiting = waiting
        self._last_sent = last_sent
        self._resolve = resolve
        # What decides which relation a name means: by what was asked, whether or not it has run.
        self._meaning = meaning
        self._prepared_max_bytes = prepared_max_bytes
        self._ledger = Ledger()
        self._parts: list[Part] = []
        self._parts_bytes = 0
        self._fresh: dict[Prepared, Part] = {}
        self._bound: dict[Portal, Part] = {}
        self._segment_number = 0
        # Whether something in this segment may change how texts are read, or take a change back.
        self._unsettled = self._restored = False
        self._copied: list[bytes] = []
        self.commands: list[Command] = []
        self.outbox: deque[Item] = deque()
        self.outbox_bytes = 0
        self.statements: Names[Prepared] = Names(self._ledger)
        self.portals = Portals(self._ledger)
        self.open_segments = 0
        self.statements_seen = 0
        self.terminating = False
        # Whether the session would have to begin anew with other settings.
        self.outdated = False
        self._own_name = b""

    @property
    def empty(self) -> bool:
        """Nothing waits here."""
        return not self.outbox and not self._parts

    def must_wait(self, kind: int, whole: bytes) -> bool:
        """Whether what this message means depends on an answer that has not come.

        Judged before, it might be judged as something else than what the target will run.
        """
        if not self.open_segments:
            return False
        match chr(kind):
            case "Q" | "P":
                text = whole[5:] if kind == ord("Q") else requests.read_parse(whole[5:])[1]
                if len(text) > self._large:
                    # To look whether it does takes longer than that answer, mostly.
                    return True
                return requests.ambiguous(text) or _MAY_NAME.search(text) is not None
            case "B":
                name = requests.bound_names(whole[5:])[1]
                return self._uncertain(self.statements, name) or self._naming(name)
            case "E":
                return self._uncertain(self.portals, wire.Reader(whole[5:]).cstring())
            case "D":
                return self._uncertain(self._names(whole), whole[6:-1])
        return False

    def wanted(self, kind: int, whole: bytes) -> Wanted | None:
        """What has to be read aside before this message can be taken."""
        if (len(whole) <= self._large and not self._has_large) or kind in _COPIED:
            return None
        raw, alone = b"", kind == ord("P")
        if kind == ord("Q"):
            raw = whole[5:-1]
        elif alone:
            raw = requests.read_parse(whole[5:])[1]
        if len(raw) > self._large:
            spoken = self._language.spoken(self._unsettled, self._restored)
            wanted = self._want(raw, spoken, alone)
            if self._readings.lacks(wanted):
                return wanted
        judges = self._has_large and kind in _JUDGING
        return self._wanted_again(kind, whole, raw) if judges else None

    def _wanted_again(self, kind: int, whole: bytes, raw: bytes) -> Wanted | None:
        """The same, of what was prepared or declared before and is judged with this message."""
        judged = [*self._fresh, *(portal.prepared for portal in self._bound)]
        if kind == ord("E"):
            portal = self.portals.get(wire.Reader(whole[5:]).cstring())
            judged += [portal.prepared] if portal is not None else []
        naming = [prepared.statement for prepared in judged]
        if kind == ord("Q") and _MAY_NAME.search(raw):
            naming += self._statements(raw, alone=False)
        named = [self._named(statement) for statement in naming]
        for prepared in (*judged, *(each for each in named if each is not None)):
            statement = prepared.statement
            if len(statement.text) > self._large and not statement.error:
                wanted = self._want(b"", self._language.spoken(), True, statement)
                if self._readings.lacks(wanted):
                    return wanted
        return None

    def _want(
        self, raw: bytes, spoken: Spoken, alone: bool, statement: Statement | None = None
    ) -> Wanted:
        return Wanted(
            raw, spoken, alone, statement, self._meaning, self._made, self._language.converted
        )

    def read(self, reading: Reading) -> None:
        """What was wanted for the next message."""
        self._readings.add(reading)

    def _statements(self, raw: bytes, *, alone: bool) -> tuple[Statement, ...]:
        if len(raw) <= self._large:
            return self._language.statements(raw, self._unsettled, self._restored)
        spoken = self._language.spoken(self._unsettled, self._restored)
        return self._readings.statements(self._want(raw, spoken, alone))

    def _uncertain(self, names: Names[Any], name: bytes) -> bool:
        here = names.given_in(name, self._segment_number)
        if here is None:
            # A statement stays; a portal may go with the transaction that an open segment ends.
            return names is self.portals
        return not here

    def _naming(self, name: bytes) -> bool:
        """Whether that prepared statement executes or fetches from what another one made."""
        prepared = self.statements.get(name)
        return prepared is not None and bool(prepared.statement.kinds & _NAMING)

    def _names(self, whole: bytes) -> Names[Any]:
        """What a Describe or Close speaks of."""
        return self.statements if whole[5:6] == b"S" else self.portals

    def take(self, kind: int, whole: bytes) -> None:
        """A message, of which everything `wanted` was read. Raises ProtocolViolation."""
        if kind == ord("d"):
            self._copied.append(whole)
            return
        self._take(kind, whole)
        self._readings.taken()

    def _take(self, kind: int, whole: bytes) -> None:
        if self._copied:
            self.flush_copied()
        if kind & wire.TOO_LARGE:
            self._too_large(whole)
            return
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
                self._segment_ends()
            case "H":
                self._add(Part(whole))
                self._segment()
            case "c" | "f":
                self._enqueue(Item(0, [Part(whole, Expectation(Expect.COPY_END))], []))
            case "F":
                self._function_call(whole)
            case _:
                self.terminating = True
                self._enqueue(Item(0, [Part(whole)], []))

    def _query(self, whole: bytes) -> None:
        if whole.find(b"\0", 5) != len(whole) - 1:
            raise ProtocolViolation("invalid string in message")
        self._segment()
        statements = self._statements(whole[5:-1], alone=False)
        self._simple(whole, statements or (requests.prepared(()),))

    def _function_call(self, whole: bytes) -> None:
        """A function by its OID, outside of any statement: libpq's large objects, mostly."""
        portal = requests.read_function_call(whole[5:])
        self._segment()
        self._simple(whole, (portal.prepared.statement,), portal)

    def _too_large(self, beginning: bytes) -> None:
        """A request of which only this was kept, refused as it would be for its content."""
        kind, size = beginning[:1], int.from_bytes(beginning[1:5], "big")
        why = f"a message may have at most {wire.MAX_MESSAGE} bytes, and this has {size}"
        body = beginning[5:]
        whole = wire.message(kind, body)
        if kind == b"P":
            name, _, text = body.partition(b"\0")
            self._prepare(whole, name, Prepared(_cut_off(text, why), ()))
        elif kind == b"B":
            portal_name, _, rest = body.partition(b"\0")
            known = self.statements.get(rest.partition(b"\0")[0])
            refused = _refused(known, why, "54000") if known else Prepared(_cut_off(b"", why), ())
            self._open(whole, portal_name, Portal(refused, (), ()))
        else:
            self._segment()
            statement = (
                _cut_off(body, why)
                if kind == b"Q"
                else sql.refused(sql.function_call(wire.Reader(body).uint32()), why, "54000")
            )
            self._simple(whole, (statement,))

    def _simple(
        self, whole: bytes, statements: tuple[Statement, ...], portal: Portal | None = None
    ) -> None:
        expectation = Expectation(Expect.QUERY)
        runs = [Run(self._new_id(), self._affordable(each), portal) for each in statements]
        part = Part(self._veiled(whole, runs), expectation)
        expectation.runs = list(runs)
        why = limits.uncounted(whole[5:-1], [run.statement for run in runs])
        for run in runs:
            run.uncounted = why
        self._ask([part], runs, dict.fromkeys(runs, part), "execute")
        self._segment_ends()

    def _plan(self, statement: Statement) -> Plan | None:
        """How a statement runs for a person who may not see everything."""
        veil = self._veil()
        needed = veil.settings if veil is not None else {}
        if needed is not None and needed != self._settings:
            # Also where it needs fewer: it could change them now, and need them later.
            self.outdated = True
            return OUTDATED
        converted = self._language.converted
        plan = self._readings.plan(statement, veil, self._made, converted=converted)
        self._made = with_made(self._made, plan)
        return plan

    def _veiled(self, whole: bytes, runs: list[Run]) -> bytes:
        """What is sent of a Query: its statements as they are planned."""
        pieces: list[str] = []
        moved = 0
        for run in runs:
            found = self._found(run.statement)
            run.runs_as(self._plan(run.statement), found=found)
            run.offset = run.statement.offset + moved
            if run.ran:
                moved += len(run.ran) - len(run.statement.text)
        if not any(run.ran for run in runs):
            return whole
        typed = self._language.read(whole[5:-1])
        at = 0
        for run in runs:
            start = run.statement.offset
            pieces += [typed[at:start], run.ran or run.statement.text]
            at = start + len(run.statement.text)
        pieces.append(typed[at:])
        return wire.message(b"Q", self._language.write("".join(pieces)) + b"\0")

    def _found(self, statement: Statement) -> Found | None:
        return self._readings.found(statement.text, self._made) if self._readings else None

    def _stale(self, prepared: Prepared) -> Plan | None:
        """Its plan, or a refusal where what is hidden has changed since it was prepared."""
        now = self._plan(prepared.statement)
        if now is None:
            # Nothing is hidden any more; what was prepared masked stays so.
            return prepared.plan
        before = prepared.plan.edits if prepared.plan is not None else ()
        return now if now.action == "refuse" or now.edits == before else _REPLAN

    def _segment_ends(self) -> None:
        self.open_segments += 1
        self.segment_skipped()

    def segment_answered(self, transaction_ended: bool = False, failed: bool = False) -> None:
        """The target is ready: everything up to a Sync or Query has its answer."""
        self.open_segments -= 1
        if transaction_ended:
            self.portals.ended(committed=not failed)

    def segment_skipped(self) -> None:
        """A Sync was taken here that the target will not see."""
        self._segment_number += 1
        self._unsettled = self._restored = False

    def _change(self, run: Run) -> Effect | None:
        """What running it does to the names of statements and cursors."""
        statement, segment = run.statement, self._segment_number
        self._has_large = self._has_large or len(statement.text) > self._large
        if statement.transaction:
            return self.portals.step(statement.transaction, statement.savepoint, segment)
        if statement.forgets_all:
            # The unnamed statement stays.
            forgotten = self.statements.change(filter(None, self.statements), None, segment)
            if statement.kind == "deallocate":
                return forgotten
            return Together(forgotten, self.portals.change(list(self.portals), None, segment))
        if statement.kinds & _UNSEEN:
            return self.portals.change(self.portals.declared(), None, segment)
        name, cursor = statement.prepared_name.encode(), statement.cursor_name.encode()
        match statement.kind:
            case "prepare":
                return self.statements.change((name,), _executed(run, "execute"), segment)
            case "deallocate":
                return self.statements.change((name,), None, segment)
            case "declare":
                fetched = Portal(_executed(run, "fetch"), (), (), True, statement.holds_cursor)
                fetched.grow(fetched.prepared.size)
                return self.portals.change((cursor,), fetched, segment)
            case "close":
                names = (cursor,) if cursor else list(self.portals)
                return self.portals.change(names, None, segment)
        return None

    def _add(self, part: Part) -> None:
        self._parts.append(part)
        self._parts_bytes += len(part.data) + pipeline.STATEMENT_BYTES
        if self._parts_bytes > wire.MAX_MESSAGE:
            # As if the client had sent a Flush: the target may answer early, and we hold less.
            self._segment()

    def _parse(self, whole: bytes) -> None:
        name, text, oids = requests.read_parse(whole[5:])
        statement = requests.prepared(self._statements(text, alone=True))
        found = self._found(statement)
        prepared = Prepared(statement, oids, self._plan(statement))
        if prepared.plan is not None and prepared.plan.edits:
            ran = self._language.write(prepared.rewritten(prepared.plan, found).text)
            whole = wire.message(b"P", name + b"\0" + ran + b"\0" + whole[-2 - 4 * len(oids) :])
        self._prepare(whole, name, prepared)

    def _prepare(self, whole: bytes, name: bytes, prepared: Prepared) -> None:
        _in_ascii(name)
        if self._too_much(prepared, self.statements.get(name)) and not prepared.statement.error:
            prepared = _refused(prepared, self._full(), "53200")
        self._has_large = self._has_large or len(prepared.statement.text) > self._large
        expectation = Expectation(Expect.PARSE)
        expectation.change = self.statements.change((name,), prepared, self._segment_number)
        part = Part(whole, expectation)
        self._fresh[prepared] = part
        self._add(part)

    def _bind(self, whole: bytes) -> None:
        portal_name, name = requests.bound_names(whole[5:])
        _in_ascii(name)
        prepared = self.statements.get(name)
        if prepared is None:
            shown = name.decode("utf-8", "replace")
            text = (
                f'prepared statement "{shown}" does not exist'
                if name
                else ("unnamed prepared statement does not exist")
            )
            prepared = Prepared(sql.unparseable("", text, sqlstate="26000"), ())
        self._open(whole, portal_name, requests.read_bind(whole[5:], prepared))

    def _open(self, whole: bytes, portal_name: bytes, portal: Portal) -> None:
        _in_ascii(portal_name)
        earlier = self.portals.get(portal_name)
        if (
            earlier is not None
            and earlier not in self._bound
            and self.portals.given_in(portal_name, self._segment_number)
        ):
            # Thousands of rows may be inserted so before the target answers. If it refuses the
            # new portal, the transaction is aborted, and the earlier one of no use.
            earlier.forget_values()
        if self._too_much(portal, earlier) and not portal.prepared.statement.error:
            portal.prepared = _refused(portal.prepared, self._full(), "53200")
        expectation = Expectation(Expect.BIND)
        expectation.change = self.portals.change((portal_name,), portal, self._segment_number)
        part = Part(whole, expectation)
        self._bound[portal] = part
        self._add(part)

    def _affordable(self, statement: Statement) -> Statement:
        """The statement, refused if it would have more remembered than may be."""
        if statement.kind not in ("prepare", "declare") or statement.error:
            return statement
        before = self.statements.get(statement.prepared_name.encode())
        if not self._too_much(Prepared(statement, ()), before):
            return statement
        return sql.refused(statement, self._full(), "53200")

    def _too_much(self, meaning: Meaning, instead_of: Meaning | None) -> bool:
        saved = instead_of.size if instead_of is not None else 0
        return self._ledger.total + meaning.size - saved > self._prepared_max_bytes

    def _full(self) -> str:
        return (
            "prepared statements and portals of a session may hold at most "
            f"{self._prepared_max_bytes} bytes (prepared_max_bytes): close some"
        )

    def _describe(self, whole: bytes) -> None:
        _in_ascii(whole[6:-1])
        expectation = Expectation(Expect.DESCRIBE)
        expectation.target = self._names(whole).get(whole[6:-1])
        self._add(Part(whole, expectation))

    def _close(self, whole: bytes) -> None:
        expectation = Expectation(Expect.CLOSE)
        names = self._names(whole)
        expectation.change = names.change((whole[6:-1],), None, self._segment_number)
        self._add(Part(whole, expectation))

    def _execute(self, whole: bytes) -> None:
        name = wire.Reader(whole[5:]).cstring()
        portal = self.portals.get(name)
        if portal is None:
            text = f'portal "{name.decode("utf-8", "replace")}" does not exist'
            refused = sql.unparseable("", text, sqlstate="34000")
            portal = Portal(Prepared(refused, ()), (), ())
        prepared = portal.prepared
        run = Run(self._new_id(), self._affordable(prepared.statement), portal)
        run.described = portal.described
        run.formats = portal.formats
        run.runs_as(self._stale(prepared), prepared)
        part = Part(whole, Expectation(Expect.EXECUTE, run, completes=True))
        parsed, bound = self._fresh.pop(prepared, None), self._bound.pop(portal, None)
        for earlier in (parsed, bound):
            if earlier is not None and earlier.expectation is not None:
                earlier.expectation.run = run
        if run.plan is not None and run.described is None and prepared.described is None:
            # Rows that nobody asked to have described cannot be masked.
            described = Expectation(Expect.DESCRIBE, run)
            described.target, described.ours = portal, True
            self._parts.append(Part(wire.message(b"D", b"P" + name + b"\0"), described))
        self._parts.append(part)
        self._segment(run, parsed or bound or part)
        if parsed is not None:
            prepared.statement_id = run.statement_id
        self._unsettled = self._unsettled or run.statement.changes_settings
        self._restored = self._restored or run.statement.restores_settings

    def _segment(self, run: Run | None = None, poisoned: Part | None = None) -> None:
        """Ask for what has gathered: Parses and Binds that nothing executes yet, then `run`."""
        parts, self._parts, self._parts_bytes = self._parts, [], 0
        if not parts:
            return
        runs: list[Run] = []
        refusals: dict[Run, Part] = {}
        first_bound = (
            {portal.prepared: portal for portal in reversed(self._bound)} if self._fresh else {}
        )
        for prepared, part in self._fresh.items():
            bound = first_bound.get(prepared)
            alone = self._prepare_run(prepared, bound, part)
            prepared.statement_id = alone.statement_id
            runs.append(alone)
            refusals[alone] = part
            if bound is not None:
                assert part.expectation is not None  # noqa: S101 (narrowing)
                part.expectation.completes = False
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
        run.runs_as(self._stale(prepared), prepared)
        self._finish_at(run, part)
        return run

    @staticmethod
    def _finish_at(run: Run, part: Part) -> None:
        """The run is complete when this part's response comes."""
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
        item = Item(self._next_ticket(), parts, runs)
        item.poisoned = refusals
        asked = []
        for index, run in enumerate(runs):
            asked.append(self._request(run, "prepare" if index < prepares else action))
            if index >= prepares:
                self._meaning = asked[-1].facts.after(self._meaning)
                # Before the next one is judged, which may fetch from the cursor it declares.
                run.change = self._change(run)
        self.statements_seen += len(runs) - prepares
        self._enqueue(item)
        self.commands.append(Ask(item.ticket, tuple(asked)))

    def _request(self, run: Run, action: str) -> Request:
        statement = run.statement
        given: dict[str, Facts] = {}
        copied: tuple[str, ...] | None = None
        if self._readings or len(statement.text) > self._large:
            statement = run.statement = self._judged(statement, given)
            copied = self._readings.copied(statement.text)
        kinds, relations = statement.kinds, statement.relations
        run.counted = run.portal
        if statement.kind == "fetch":
            cursor = self.portals.get(statement.cursor_name.encode())
            if cursor is not None:
                run.counted, run.binary = cursor, limits.in_binary(cursor)
        named = self._named(statement)
        inner = named.statement if named is not None else None
        if inner is not None and len(inner.text) > self._large:
            judged = self._judged(inner, given)
            if judged.error and not inner.error:
                statement = sql.refused(statement, judged.error, judged.sqlstate)
                run.statement, kinds = statement, statement.kinds
                inner = named = None
        facts = self._resolve(statement, self._meaning, inner, given)
        if named is not None:
            # It does what that one's PREPARE or DECLARE said.
            kinds = kinds | named.statement.kinds
            relations = tuple(sorted({*relations, *named.statement.relations}))
        indirect = kinds & _INDIRECT
        if named is not None or not (statement.prepared_name or statement.cursor_name):
            indirect -= _NAMING
        run.classified = self._reads_classified(indirect, relations)
        probes = run.plan.probes if run.plan is not None else ()
        executes = named is not None and statement.kind == "execute"
        if named is not None and run.plan is not None and run.plan.action != "refuse":
            # EXECUTE runs what was planned when it was prepared.
            fresh = self._stale(named)
            if executes and fresh is not None:
                probes = fresh.probes
            run.plan = fresh if fresh is not None and fresh.action == "refuse" else run.plan
        portal = run.portal
        parameters = portal.parameters if portal is not None else ()
        compared: tuple[Tried, ...] | None = ()
        unmasked = ""
        if run.plan is not None and run.plan.action == "refuse":
            # Recorded in clear; a name may be any text.
            unmasked = scrub(run.plan.reason)[0]
        elif run.plan is not None and (action != "prepare" or portal is not None):
            compared = tried(probes, None if executes else parameters, self._language.encoding)
            if compared is None:
                unmasked = _UNCOUNTED
        size = len(statement.recorded) + sum(len(value or b"") for _, _, value in parameters)
        if size > wire.MAX_MESSAGE and not statement.error:
            # They are recorded in one event, which must fit in one record.
            statement = sql.refused(
                statement,
                f"a statement and its parameters may have at most {wire.MAX_MESSAGE} bytes",
                "54000",
            )
            run.statement, kinds, parameters = statement, statement.kinds, ()
        return Request(
            statement_id=run.statement_id,
            action=action,
            kind=statement.kind,
            kinds=kinds,
            relations=relations,
            statement=statement.recorded,
            parameters=parameters,
            prepared_id=_prepared_id(named, portal),
            refusal=statement.error,
            facts=facts,
            ran=run.ran_recorded,
            masks=run.plan.columns if run.plan is not None else (),
            tried=compared or (),
            unmasked=unmasked,
            uncounted=run.uncounted,
            # Those of what was not understood may be anything.
            # What is compared in clear is counted, a planner's guess about it would not be.
            settled=not facts.unknown and self._meaning == _BEGUN and not probes,
            copied=copied,
        )

    def _judged(self, statement: Statement, given: dict[str, Facts]) -> Statement:
        """The statement, refused if it should have been read and was not; what it does is added
        to `given` if that is known.
        """
        facts = self._readings.facts(statement.text, self._meaning)
        if facts is not None:
            given[statement.text] = facts
        return self._readings.judged(statement, facts)

    def _named(self, statement: Statement) -> Prepared | None:
        """What an EXECUTE or FETCH in SQL runs, where we know it."""
        if not statement.kinds & _NAMING:
            return None
        if statement.prepared_name:
            return self.statements.get(statement.prepared_name.encode())
        portal = self.portals.get(statement.cursor_name.encode())
        return None if portal is None else portal.prepared

    def _reads_classified(self, indirect: frozenset[str], relations: tuple[str, ...]) -> bool:
        known = self._catalog().classified
        if not known:
            return False
        if indirect:
            return True
        return any(name in known or name.rpartition(".")[2] in known for name in relations)

    def flush_copied(self) -> None:
        """Record the COPY data that has come, then forward it."""
        if not self._copied:
            return
        messages, self._copied = self._copied, []
        data = b"".join(whole[5:] for whole in messages)
        run = self._last_asked()
        item = Item(self._next_ticket(), [Part(b"".join(messages))], [])
        chunk = 0
        if run is not None:
            chunk = run.data_chunk
            run.data_chunk += 1
        fact = RequestData(run.statement_id if run else NONE_ID, chunk, data)
        self._enqueue(item)
        self.commands.append(Record(item.ticket, (fact,)))

    def _last_asked(self) -> Run | None:
        for item in reversed(self.outbox):
            if item.runs:
                return item.runs[-1]
        return self._last_sent()

    def _enqueue(self, item: Item) -> None:
        if item.ticket:
            self._waiting[item.ticket] = item
        self.outbox.append(item)
        self.outbox_bytes += item.size

    def decided(self, item: Item, decisions: tuple[Decision, ...]) -> None:
        """Put poison in the place of what is refused; the item may go on its way."""
        if any(decision.limit is not None for decision in decisions):
            self._limit(item, decisions)
            if item.ready:
                return
        for index, (run, decision) in enumerate(zip(item.runs, decisions, strict=True)):
            if decision.verdict is Verdict.ALLOW:
                continue
            run.refuse(decision)
            part = item.poisoned[run]
            if part.data[:1] == b"Q" and index:
                # The statements before it run, as they would before a missing privilege, and
                # their errors still point to where they are in the text.
                before = self._language.prefix(part.data[5:-1], run.offset)
                text = before + b'SELECT * FROM "' + run.token + b'"'
                part.data = wire.message(b"Q", text + b"\0")
                break
            part.data = pipeline.poison(part, run)
            if part.data[:1] == b"Q":
                break
        item.ready = True

    def _limit(self, item: Item, decisions: tuple[Decision, ...]) -> None:
        """See limits.py; an item that is a Query whose rows may be too many is ready then."""
        for run, decision in zip(item.runs, decisions, strict=True):
            if decision.verdict is Verdict.ALLOW:
                run.limit = decision.limit
                limits.begin(run)
        if item.parts[0].data[:1] != b"Q":
            for part in item.parts:
                expectation = part.expectation
                if expectation is not None and expectation.kind is Expect.EXECUTE:
                    run_of = expectation.run
                    part.limited = run_of if run_of and limits.is_limited(run_of) else None
        elif any(map(limits.is_limited, item.runs)):
            for run, decision in zip(item.runs, decisions, strict=True):
                if decision.verdict is not Verdict.ALLOW:
                    run.refuse(decision)
            self._own_name = self._own_name or b"gatebook_" + self._new_id().hex().encode()
            item.parts = limits.taken_apart(item.runs, self._own_name, self._language)
            item.ready = True

    def drop_parts(self) -> None:
        """Forget what has gathered: the client is skipping to its Sync."""
        for part in self._parts:
            if part.expectation is not None:
                part.expectation.drop()
        self._parts, self._parts_bytes = [], 0
        self._fresh.clear()
        self._bound.clear()


def _executed(run: Run, kind: str) -> Prepared:
    """What a PREPARE or DECLARE made, as others will run it: a statement of that kind."""
    statement = run.statement
    executed = Prepared(
        msgspec.structs.replace(
            statement,
            kind=kind,
            kinds=statement.kinds | {kind},
            prepared_name="",
            cursor_name="",
        ),
        (),
        run.plan,
    )
    executed.statement_id = run.statement_id
    return executed


def _prepared_id(named: Prepared | None, portal: Portal | None) -> bytes:
    """The record that says what runs: of the PREPARE or DECLARE, or else of the Parse."""
    if named is not None and named.statement_id != NONE_ID:
        return named.statement_id
    return portal.prepared.statement_id if portal is not None else NONE_ID


def _cut_off(text: bytes, why: str) -> Statement:
    """A text that was not kept whole."""
    return sql.unparseable(text.decode("utf-8", "backslashreplace"), why, sqlstate="54000")


def _refused(prepared: Prepared, why: str, sqlstate: str) -> Prepared:
    """The same, refused whoever asks."""
    refused = Prepared(sql.refused(prepared.statement, why, sqlstate), prepared.oids)
    refused.statement_id = prepared.statement_id
    return refused


def _in_ascii(name: bytes) -> None:
    """Raises ProtocolViolation for other names: the target reads them by client_encoding, which
    may change, so that one name in bytes could be two there, or two be one.
    """
    if not name.isascii():
        text = "names of prepared statements and portals must be ASCII in messages"
        raise ProtocolViolation(text, "0A000")
