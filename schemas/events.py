"""The event kinds, as typed values. Their wire form is schemas/avro/*.avsc, field for field.

`box` holds what a person typed or a database returned, sealed (schemas/sealing.py); the
`*Original` structs are what is inside.
"""

from __future__ import annotations

from typing import Final

import msgspec

NONE_ID: Final = bytes(16)
"""The id that means "none": sixteen zero bytes."""


class _Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Avro record; decoding refuses fields it does not know."""


class Principal(_Record, frozen=True):
    issuer: str
    subject: str
    name: str
    groups: list[str]
    agent: str
    actor_type: str


NOBODY: Final = Principal("", "", "", [], "", "")


class Client(_Record, frozen=True):
    ip: str
    port: int
    application: str


class Context(_Record, frozen=True):
    session_id: bytes
    key_id: bytes
    tenant: str
    gateway: str
    target: str
    principal: Principal
    client: Client
    classification: bytes = b""


class Event(_Record, frozen=True):
    """What every kind begins with. `at` is microseconds since 1970 UTC."""

    context: Context
    event_id: bytes
    at: int
    monotonic_ns: int


class StreamBegan(Event, frozen=True):
    """The first event of each stream: of no session, so that ids and names are none."""

    instance: bytes
    follows: str
    version: str
    policy_digest: str


class SessionOpened(Event, frozen=True):
    protocol: str
    tls: str
    token_id: str
    policy_digest: str
    policies: list[str]
    box: bytes


class SessionOpenedOriginal(_Record, frozen=True):
    user: str
    parameters: dict[str, str]


class AuthenticationFailed(Event, frozen=True):
    method: str
    reason: str
    error_code: str
    box: bytes


class AuthenticationFailedOriginal(_Record, frozen=True):
    user: str
    database: str
    parameters: dict[str, str]


class Requested(Event, frozen=True):
    statement_id: bytes
    prepared_id: bytes
    action: str
    kind: str
    kinds: list[str]
    relations: list[str]
    box: bytes


class Parameter(_Record, frozen=True):
    type_oid: int
    format: int
    value: bytes | None


class RequestedOriginal(_Record, frozen=True):
    statement: str
    parameters: list[Parameter]
    executed: str = ""


class RequestData(Event, frozen=True):
    statement_id: bytes
    chunk: int
    byte_count: int
    box: bytes


class RequestDataOriginal(_Record, frozen=True):
    encoding: str
    data: bytes


class Decided(Event, frozen=True):
    statement_id: bytes
    decision: str
    policies: list[str]
    policy_digest: str
    reason: str
    masks: list[str] = []
    max_rows: int = 0


class Responded(Event, frozen=True):
    statement_id: bytes
    chunk: int
    rows: int
    byte_count: int
    box: bytes


class Column(_Record, frozen=True):
    name: str
    table_oid: int
    attnum: int
    type_oid: int
    format: int
    source: str


class RespondedOriginal(_Record, frozen=True):
    encoding: str
    columns: list[Column]
    classified: bool
    data: bytes


class Completed(Event, frozen=True):
    statement_id: bytes
    outcome: str
    command_tag: str
    error_code: str
    rows: int
    byte_count: int
    duration_us: int
    box: bytes


class CompletedOriginal(_Record, frozen=True):
    error: dict[str, str]
    notices: list[dict[str, str]]


class SessionClosed(Event, frozen=True):
    reason: str
    statements: int
    rows: int
    bytes_in: int
    bytes_out: int
    duration_us: int


class PolicyLoaded(Event, frozen=True):
    outcome: str
    policy_digest: str
    files: int
    policies: int
    reason: str


class TargetsLoaded(Event, frozen=True):
    outcome: str
    digest: str
    targets: int
    added: list[str]
    changed: list[str]
    removed: list[str]
    reason: str


class ClassificationChange(_Record, frozen=True):
    column: str
    change: str
    classification: str
    mask: str
    source: str
    reason: str


class ClassificationChanged(Event, frozen=True):
    """`context` is the gateway's, with the target and what is classified there from now on."""

    version: str
    previous: bytes
    changes: list[ClassificationChange]


class Unsealed(Event, frozen=True):
    """`context` is the auditor's, without a target."""

    events: list[bytes]
    reason: str


class ShareGiven(Event, frozen=True):
    """`context` is that of who gave it, without a target."""

    events: list[bytes]
    keys: list[bytes]
    quorum: str
    giver: str
    receiver: str
    reason: str


class Erased(Event, frozen=True):
    """`context` is that of who asked, without a target."""

    person: str
    sessions: list[bytes]
    keys: list[bytes]
    reason: str


Original = (
    SessionOpenedOriginal
    | AuthenticationFailedOriginal
    | RequestedOriginal
    | RequestDataOriginal
    | RespondedOriginal
    | CompletedOriginal
)


class Masked(_Record, frozen=True):
    """The audit copy of one event. Absent texts are empty, absent ids are NONE_ID."""

    context: Context
    event_id: bytes
    event_type: str
    at: int
    monotonic_ns: int
    stream: str
    seq: int
    prev_hash: bytes
    event_hash: bytes
    statement_id: bytes = NONE_ID
    prepared_id: bytes = NONE_ID
    action: str = ""
    kind: str = ""
    kinds: list[str] = []
    relations: list[str] = []
    decision: str = ""
    policies: list[str] = []
    policy_digest: str = ""
    reason: str = ""
    outcome: str = ""
    command_tag: str = ""
    error_code: str = ""
    rows: int = 0
    byte_count: int = 0
    duration_us: int = 0
    chunk: int = 0
    statement: str = ""
    parameters: str = ""
    response_rows: str = ""
    error: str = ""
    details: str = ""
    masks: list[str] = []
    classification: str = ""


class Control(_Record, frozen=True):
    """What one node asks of whichever node it concerns."""

    action: str
    process_id: int
    proof: bytes
    gateway: str
    at: int


class Wrap(_Record, frozen=True):
    recipient: str
    ciphertext: bytes


class MemberWrap(_Record, frozen=True):
    recipient: str
    public_key: bytes
    commitment: bytes
    ciphertext: bytes


class QuorumWraps(_Record, frozen=True):
    name: str
    threshold: int
    members: list[MemberWrap]


class KeyWraps(_Record, frozen=True):
    key_id: bytes
    wraps: list[Wrap]
    quorums: list[QuorumWraps] = []


class ClassifiedColumn(_Record, frozen=True):
    column: str
    classification: str
    mask: str


class TargetClassification(_Record, frozen=True):
    target: str
    columns: list[ClassifiedColumn]


KINDS: Final[tuple[type[Event], ...]] = (
    StreamBegan,
    SessionOpened,
    AuthenticationFailed,
    Requested,
    RequestData,
    Decided,
    Responded,
    Completed,
    SessionClosed,
    PolicyLoaded,
    TargetsLoaded,
    ClassificationChanged,
    Unsealed,
    ShareGiven,
    Erased,
)
ORIGINALS: Final[dict[type[Event], type[_Record]]] = {
    SessionOpened: SessionOpenedOriginal,
    AuthenticationFailed: AuthenticationFailedOriginal,
    Requested: RequestedOriginal,
    RequestData: RequestDataOriginal,
    Responded: RespondedOriginal,
    Completed: CompletedOriginal,
}
