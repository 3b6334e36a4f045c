"""The nouns of a protocol machine: inputs in, commands out.

A machine is pure: it never awaits, never reads a clock, never opens a socket. The driver feeds
it inputs and performs its commands in order. An error inside a machine is a final `Abort`, never
an exception, so that commands already produced are not lost.

The unsafe order cannot be written: bytes of a request leave a machine only on `Decided`, and
those of a response only on `Recorded`, and both carry a `Receipt` that only the journal makes.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Protocol

import msgspec

from gateway.identity.principal import Principal
from gateway.large import Reading, Wanted
from gateway.masking.probes import Tried
from gateway.policy.facts import UNKNOWN, Facts


class Side(IntEnum):
    """The two ends of a connection."""

    CLIENT = 0
    TARGET = 1


class Receipt:
    """Proof that events are durable. Made by `Journal` alone (its `_receipt`)."""

    __slots__ = ()


class Verdict(StrEnum):
    """What the policies say. HOLD is decided in a later release and refuses until then."""

    ALLOW = "ALLOW"
    DENY = "DENY"
    HOLD = "HOLD"


class Limit(msgspec.Struct, frozen=True):
    """How many rows a statement may return, by which policies, and what its end is told with."""

    rows: int
    policies: tuple[str, ...]
    reason: str
    hint: str


class Decision(msgspec.Struct, frozen=True):
    """Verdict, the policies that determined it, and the reason in the rule's own words. What is
    allowed may be so within a limit.
    """

    verdict: Verdict
    policies: tuple[str, ...]
    reason: str
    hint: str = ""
    limit: Limit | None = None


class Request(msgspec.Struct, frozen=True):
    """Principal and target are the session's. `statement` never holds a credential.

    A request with a `refusal` is denied for what it is, whatever the policies say. One to connect
    says which kind of `replication` it is for, if it is. `facts` are what the statement does at
    this target. `ran` is what runs in place of `statement` for a person who may not see everything,
    `masks` names the hidden columns it mentions, `tried` what it compares in clear; `unmasked` says
    why it cannot be run for them, whatever else permits it, and `uncounted` why it cannot be for
    those whose rows are limited. `settled`: its names mean what they mean to a session that has
    just begun; `row_estimate` is how many rows the planner expects, -1 where that is not known.
    `copied` are the classified columns that it would copy, where that was found aside.
    """

    statement_id: bytes
    action: str
    kind: str
    kinds: frozenset[str]
    relations: tuple[str, ...]
    statement: str
    parameters: tuple[tuple[int, int, bytes | None], ...] = ()
    prepared_id: bytes = bytes(16)
    refusal: str = ""
    replication: str = ""
    facts: Facts = UNKNOWN
    ran: str = ""
    masks: tuple[str, ...] = ()
    tried: tuple[Tried, ...] = ()
    unmasked: str = ""
    uncounted: str = ""
    settled: bool = False
    row_estimate: int = -1
    copied: tuple[str, ...] | None = None


# --- facts: what a machine wants recorded; the recorder makes events of them ---


class RequestData(msgspec.Struct, frozen=True):
    """Bytes a client streams into a running statement."""

    statement_id: bytes
    chunk: int
    data: bytes


class Rows(msgspec.Struct, frozen=True):
    """A chunk of response. `columns` is (name, table_oid, attnum, type_oid, format, source)."""

    statement_id: bytes
    chunk: int
    encoding: str
    columns: tuple[tuple[str, int, int, int, int, str], ...]
    classified: bool
    rows: int
    data: bytes


class Outcome(msgspec.Struct, frozen=True):
    """How a statement ended."""

    statement_id: bytes
    outcome: str
    command_tag: str
    error_code: str
    rows: int
    byte_count: int
    duration_ns: int
    error: dict[str, str]
    notices: tuple[dict[str, str], ...]


class Opened(msgspec.Struct, frozen=True):
    """A session reached its target."""

    protocol: str
    user: str
    parameters: dict[str, str]


class Ended(msgspec.Struct, frozen=True):
    """A session is over."""

    reason: str
    statements: int
    rows: int
    bytes_in: int
    bytes_out: int
    duration_ns: int


Fact = RequestData | Rows | Outcome | Opened | Ended


# --- inputs ---


class Received(msgspec.Struct, frozen=True):
    """Bytes from one side."""

    side: Side
    data: bytes


class Closed(msgspec.Struct, frozen=True):
    """One side's stream ended."""

    side: Side


class SaidAll(msgspec.Struct, frozen=True):
    """The client says nothing more, but may still read: it has closed its half of the stream."""


class TlsStarted(msgspec.Struct, frozen=True):
    """The client's TLS handshake is done."""

    version: str


class Authenticated(msgspec.Struct, frozen=True):
    """The credential was verified, and the session's key is in the book."""

    principal: Principal


class Refused(msgspec.Struct, frozen=True):
    """The credential was refused, and that is in the book."""

    sqlstate: str
    message: str


class Decided(msgspec.Struct, frozen=True):
    """One decision for each request of the ticket; they are durable."""

    ticket: int
    decisions: tuple[Decision, ...]
    receipt: Receipt


class Recorded(msgspec.Struct, frozen=True):
    """The facts of the ticket are durable."""

    ticket: int
    receipt: Receipt


class NotDurable(msgspec.Struct, frozen=True):
    """The ticket's events could not be made durable within the deadline."""

    ticket: int


class TargetConnected(msgspec.Struct, frozen=True):
    """The target's socket is open, in TLS where configured."""


class TargetUnreachable(msgspec.Struct, frozen=True):
    """It could not be opened; `reason` is for operators and names no secret."""

    reason: str


class Expired(msgspec.Struct, frozen=True):
    """The token's lifetime is over."""


class Idle(msgspec.Struct, frozen=True):
    """Nothing has come from the target for a moment: release what waits for more."""


class Shutdown(msgspec.Struct, frozen=True):
    """The gateway is stopping."""


class Withdrawn(msgspec.Struct, frozen=True):
    """Whoever is connected may be so no longer, and that is in the book: what they are told, and
    how the session's end is recorded.
    """

    text: str
    reason: str


class Analysed(msgspec.Struct, frozen=True):
    """What Analyse wanted, or why it cannot be had."""

    ticket: int
    reading: Reading


class RowsStopped(msgspec.Struct, frozen=True):
    """What StopRows began is over. Unless `settled`, its cancellation may still arrive."""

    settled: bool


Input = (
    Received
    | Closed
    | SaidAll
    | TlsStarted
    | Authenticated
    | Refused
    | Decided
    | Recorded
    | NotDurable
    | TargetConnected
    | TargetUnreachable
    | Expired
    | Idle
    | Shutdown
    | Withdrawn
    | Analysed
    | RowsStopped
)


# --- commands ---


class Send(msgspec.Struct, frozen=True):
    """Write bytes to one side."""

    side: Side
    data: bytes


class StartTls(msgspec.Struct, frozen=True):
    """Handshake with the client; every byte received before it must be discarded."""


class Authenticate(msgspec.Struct, frozen=True):
    """Verify the credential. It is never recorded; the start-up texts are, sealed."""

    credential: str
    user: str
    database: str
    application: str
    parameters: dict[str, str]

    def __repr__(self) -> str:
        return "Authenticate(...)"


class Ask(msgspec.Struct, frozen=True):
    """Decide the requests and make requests and decisions durable; answer with `Decided`."""

    ticket: int
    requests: tuple[Request, ...]


class Analyse(msgspec.Struct, frozen=True):
    """Read a large text aside; answer with `Analysed`."""

    ticket: int
    wanted: Wanted


class Record(msgspec.Struct, frozen=True):
    """Make facts durable; answer with `Recorded`. Ticket 0 wants no answer."""

    ticket: int
    facts: tuple[Fact, ...]


class ConnectTarget(msgspec.Struct, frozen=True):
    """Open the target's socket."""


class CancelStatement(msgspec.Struct, frozen=True):
    """A CancelRequest for the session with this key."""

    process_id: int
    secret: bytes


class CancelRunning(msgspec.Struct, frozen=True):
    """Have the target cancel what runs for this client; send Shutdown when that takes too long."""


class StopRows(msgspec.Struct, frozen=True):
    """Have the target cancel what returns too many rows; answer with `RowsStopped`."""


class Close(msgspec.Struct, frozen=True):
    """Close both sides once what was sent is written. The session is over.

    `drain`: the client was told why and may still be sending. A socket that is closed with
    unread bytes in it is reset, and the client never reads what it was told.
    """

    drain: bool = False


class Abort(msgspec.Struct, frozen=True):
    """Close both sides; a fault of ours. `reason` is logged and holds no content."""

    reason: str


Command = (
    Send
    | StartTls
    | Authenticate
    | Ask
    | Analyse
    | Record
    | ConnectTarget
    | CancelStatement
    | CancelRunning
    | StopRows
    | Close
    | Abort
)


class Machine(Protocol):
    """One connection of one protocol."""

    def handle(self, event: Input, now_ns: int) -> list[Command]:
        """Commands to perform, in order. `now_ns` is monotonic."""
        ...


@dataclass(frozen=True, slots=True)
class CatalogView:
    """What a machine may know of the target's relations, read by gateway/catalog.py.

    `columns` maps (table OID, column number) to `schema.table.column`; `relations` are those the
    catalog knows, by OID; `classified` are the names, qualified and bare, of relations with a
    classified column or a view of one.
    """

    columns: dict[tuple[int, int], str]
    relations: frozenset[int]
    classified: frozenset[str]
