"""What is on its way: statements, what is sent for them, and what must come back."""

from __future__ import annotations

import sys
from enum import IntEnum
from typing import Final

import msgspec

from gateway.large import Found
from gateway.machine import Decision, Limit
from gateway.masking.plan import Plan
from gateway.masking.pump import Pump
from gateway.policy import sql
from gateway.policy.sql import Statement
from gateway.protocols.postgres import wire
from gateway.protocols.postgres.names import Effect, Meaning
from gateway.protocols.postgres.wire import Reader, message

# What a message and a statement cost while they are on their way, beside their own bytes.
MESSAGE_BYTES: Final = 512
STATEMENT_BYTES: Final = 4096
_DENIED: Final = "42501"
_LIMITED: Final = "54000"
_NEW: Final = "What was made or changed a moment ago is known to the gateway in another one."

# What a name costs while it means something, beside its text and values, and each value.
_NAME_BYTES: Final = 512
_VALUE_BYTES: Final = 128


class Expect(IntEnum):
    """Which response of the target comes next (section 54.2.3: strictly in order).

    COPY_END brings none: it marks where a client ends a COPY.
    """

    PARSE = 1
    BIND = 2
    DESCRIBE = 3
    EXECUTE = 4
    CLOSE = 5
    SYNC = 6
    QUERY = 7
    COPY_END = 8


class Rewritten:
    """A statement's text as it runs by a plan, and how that is recorded."""

    __slots__ = ("plan", "recorded", "size", "text")

    def __init__(self, plan: Plan, statement: Statement, found: Found | None = None) -> None:
        self.plan = plan
        if found is not None and found.ran and found.plan is plan:
            self.text, self.recorded = found.ran, found.ran_recorded
        else:
            self.text = plan.apply(statement.text)
            self.recorded = sql.redact(self.text, statement.kinds)
        self.size = sys.getsizeof(self.text) + sys.getsizeof(self.recorded)


class Prepared(Meaning):
    """A prepared statement. `described` is the body of its RowDescription, once seen; `plan` is how
    it was prepared for a person who may not see everything.
    """

    __slots__ = ("_rewritten", "described", "oids", "plan", "statement", "statement_id")

    def __init__(
        self, statement: Statement, oids: tuple[int, ...], plan: Plan | None = None
    ) -> None:
        texts = sys.getsizeof(statement.text) + sys.getsizeof(statement.recorded)
        planned = plan.size if plan is not None else 0
        super().__init__(_NAME_BYTES + texts + 36 * len(oids) + planned)
        self.statement = statement
        self.oids = oids
        self.plan = plan
        self.statement_id = bytes(16)
        self.described: bytes | None = None
        self._rewritten: Rewritten | None = None

    def rewritten(self, plan: Plan, found: Found | None = None) -> Rewritten:
        """What runs by a plan: made once, and not at every execution."""
        known = self._rewritten
        if known is None or (known.plan is not plan and known.plan != plan):
            before = known.size if known is not None else 0
            known = self._rewritten = Rewritten(plan, self.statement, found)
            self.grow(known.size - before)
        return known

    def describe(self, body: bytes) -> None:
        """The body of its RowDescription."""
        self.grow(len(body) - len(self.described or b""))
        self.described = body


class Portal(Meaning):
    """A bound statement. `formats` are the result formats its Bind asked for.

    `declared`: it is a cursor that SQL declared, `held` one WITH HOLD. `given` is how many rows it
    has returned.
    """

    __slots__ = ("declared", "described", "formats", "given", "held", "parameters", "prepared")

    def __init__(
        self,
        prepared: Prepared,
        parameters: tuple[tuple[int, int, bytes | None], ...],
        formats: tuple[int, ...],
        declared: bool = False,
        held: bool = False,
    ) -> None:
        values = sum(len(value or b"") for _, _, value in parameters)
        super().__init__(_NAME_BYTES + values + _VALUE_BYTES * len(parameters))
        self.prepared = prepared
        self.declared = declared
        self.held = held
        self.given = 0
        self.parameters = parameters
        self.formats = formats
        self.described: bytes | None = None

    def describe(self, body: bytes) -> None:
        """The body of its RowDescription."""
        self.grow(len(body) - len(self.described or b""))
        self.described = body

    def forget_values(self) -> None:
        """Nothing executes it any more, and its values are in the book."""
        self.parameters = ()
        self.grow(_NAME_BYTES - self.size)


class Run:
    """One execution of one statement (or a Parse alone): one Requested, one Completed.

    `change` is what executing it does to the names of prepared statements and cursors; `plan` how
    it runs for a person who may not see everything, `ran` the text that then runs in place of what
    was typed. `offset` is where it begins in what is sent, in characters. `pump` masks its rows
    once they are described.

    Of one that may return so many rows (`limit`), `given` have been let through, together with
    those of the portal or cursor that it reads (`counted`); `overran`: there were more. See
    limits.py for `apart`, `binary`, `headings` and `uncounted`.
    """

    __slots__ = (
        "apart",
        "binary",
        "byte_count",
        "change",
        "chunk",
        "classified",
        "completed",
        "counted",
        "data_chunk",
        "described",
        "encoding",
        "formats",
        "given",
        "headings",
        "limit",
        "notice_bytes",
        "notices",
        "offset",
        "overran",
        "pending",
        "pending_bytes",
        "pending_rows",
        "plan",
        "portal",
        "pump",
        "pumped",
        "ran",
        "ran_recorded",
        "refusal",
        "rows",
        "started_ns",
        "statement",
        "statement_id",
        "tag",
        "token",
        "uncounted",
    )

    def __init__(self, statement_id: bytes, statement: Statement, portal: Portal | None) -> None:
        self.statement_id = statement_id
        self.statement = statement
        self.portal = portal
        self.offset = statement.offset
        self.plan: Plan | None = None
        self.ran = ""
        self.ran_recorded = ""  # without credentials
        self.pump: Pump | None = None
        self.pumped = False  # whether that is known
        self.started_ns = 0
        self.completed = False
        self.rows = 0
        self.byte_count = 0
        self.chunk = 0
        self.data_chunk = 0
        self.encoding = "rows"
        self.described: bytes | None = None
        self.formats: tuple[int, ...] = ()
        self.classified = False
        self.notice_bytes = 0
        self.notices: list[dict[str, str]] = []
        self.pending: list[bytes] = []
        self.pending_bytes = 0
        self.pending_rows = 0
        self.change: Effect | None = None
        self.refusal = b""
        self.token = b""
        self.tag = ""  # of the latest of a replication command's several results
        self.limit: Limit | None = None
        self.counted: Portal | None = None
        self.given = 0
        self.headings = 0  # messages to come that are no rows
        self.overran = False
        self.apart = False  # it came in a Query that was taken apart
        self.binary = False
        self.uncounted = ""

    def runs_as(
        self, plan: Plan | None, prepared: Prepared | None = None, found: Found | None = None
    ) -> None:
        """Take a plan for the statement, which may have been prepared, and what runs by it; that
        may have been `found` aside.
        """
        self.plan = plan
        if plan is not None and plan.edits:
            made = (
                Rewritten(plan, self.statement, found)
                if prepared is None
                else prepared.rewritten(plan)
            )
            self.ran, self.ran_recorded = made.text, made.recorded

    def refuse(self, decision: Decision) -> None:
        """Prepare what the client will read in place of the poison's error."""
        self.token = b"gatebook_refused_" + self.statement_id.hex().encode()
        statement = self.statement
        if statement.error:
            self.refusal = wire.error(
                statement.sqlstate,
                statement.error,
                detail=statement.detail,
                hint=statement.hint,
                position=statement.position,
            )
            return
        plan = self.plan
        if plan is not None and plan.sqlstate != _DENIED and not decision.policies:
            self.refusal = wire.error(plan.sqlstate, plan.reason, hint=_NEW)
            return
        by = f" (policy {', '.join(decision.policies)})" if decision.policies else ""
        self.refusal = wire.error(
            _DENIED,
            f"permission denied: {decision.reason}",
            detail=f"Refused by the gateway{by}.",
            hint=decision.hint,
        )

    def overrun(self) -> None:
        """There is a row too many: prepare what the client will read in place of the end."""
        assert self.limit is not None  # noqa: S101 (narrowing)
        self.overran = True
        self.token = b"gatebook_limited_" + self.statement_id.hex().encode()
        self.refusal = wire.error(
            _LIMITED,
            f"row limit exceeded: {self.limit.reason}",
            detail=f"Ended by the gateway after {self.limit.rows} rows"
            f" (policy {', '.join(self.limit.policies)}).",
            hint=self.limit.hint,
        )

    @property
    def sqlstate(self) -> str:
        """SQLSTATE of a refusal."""
        if self.overran:
            return _LIMITED
        if self.statement.error:
            return self.statement.sqlstate
        return self.plan.sqlstate if self.plan is not None else _DENIED


class Expectation:
    """One response to come. `completes` says that it ends its run; `change` is what it confirms.

    `ours`: we asked, not the client, who is not told. `unsaid`: the client asked by a Query, and
    is told no more than what a Query is answered with.
    """

    __slots__ = ("change", "completes", "kind", "ours", "run", "runs", "target", "unsaid")

    def __init__(self, kind: Expect, run: Run | None = None, completes: bool = False) -> None:
        self.kind = kind
        self.run = run
        self.completes = completes
        self.ours = self.unsaid = False
        self.runs: list[Run] = []
        self.target: Prepared | Portal | None = None
        self.change: Effect | None = None

    def drop(self) -> None:
        """The target refused or skipped this message: it changes no name."""
        if self.change is not None:
            self.change.drop()


class Part(msgspec.Struct):
    """One message to forward, and the response it will bring. What follows one that is `limited`
    waits for the end of that run.
    """

    data: bytes
    expectation: Expectation | None = None
    limited: Run | None = None


class Item:
    """Parts that wait together, in their turn, for a ticket; ready when it is decided.

    `size` is what they cost in memory, roughly; `sent` how many of the parts are on their way.
    """

    __slots__ = ("parts", "poisoned", "ready", "runs", "sent", "size", "ticket")

    def __init__(self, ticket: int, parts: list[Part], runs: list[Run]) -> None:
        self.ticket = ticket
        self.parts = parts
        self.runs = runs
        self.sent = 0
        self.ready = ticket == 0
        self.poisoned: dict[Run, Part] = {}
        self.size = MESSAGE_BYTES * len(parts) + STATEMENT_BYTES * len(runs)
        for part in parts:
            self.size += len(part.data)


class Held:
    """Response bytes that wait, in their turn, for their record. `torn` ones end in a message."""

    __slots__ = ("data", "ready", "runs", "ticket", "torn")

    def __init__(self, ticket: int, data: bytes, runs: list[Run], torn: bool = False) -> None:
        self.torn = torn
        self.ticket = ticket
        self.data = data
        self.runs = runs
        self.ready = ticket == 0


def poison(part: Part, run: Run) -> bytes:
    """A message that the target itself refuses, in place of one it must not see.

    PostgreSQL then does what it does after any error: skip to Sync, abort the transaction. An
    ErrorResponse of our own invention would let clients commit what a real error rolls back.
    A relation that cannot exist fails after the statements before it ran, and only where the
    transaction is not aborted already, exactly as a missing privilege does; a text that does not
    parse is replaced by another one that does not.
    """
    kind = part.data[:1]
    if run.statement.replication and kind == b"Q":
        # Of what a walsender takes, the one that names in its error what it was asked for.
        return message(b"Q", b"SHOW " + run.token + b"\0")
    text = b'"' + run.token + b'"' if run.statement.error else b'SELECT * FROM "' + run.token + b'"'
    match kind:
        case b"P":
            name = Reader(part.data[5:]).cstring()
            return message(b"P", name + b"\0" + text + b"\0\0\0")
        case b"B":
            portal = Reader(part.data[5:]).cstring()
            return message(b"B", portal + b"\0" + run.token + b"\0\0\0\0\0\0\0")
        case b"E":
            return message(b"E", run.token + b"\0\0\0\0\0")
        case _:
            return message(b"Q", text + b"\0")


def columns(body: bytes) -> list[tuple[str, int, int, int, int]]:
    """(name, table OID, column number, type OID, format) of a RowDescription's fields."""
    reader = Reader(body)
    fields = []
    for _ in range(reader.uint16()):
        name = reader.cstring().decode("utf-8", "backslashreplace")
        table, number, kind = reader.uint32(), reader.uint16(), reader.uint32()
        reader.take(6)
        fields.append((name, table, number, kind, reader.uint16()))
    reader.end()
    return fields
