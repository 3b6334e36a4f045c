"""gatebook.masked records -> columns of audit_events. Pure.

Decoding is what limits the sink, so the current Masked schema is read by straight-line code here.
It knows only what our own writer produces; whatever else a record holds (another schema version,
an unusual but valid encoding, damage) is decided by `schemas.codec`, which is strict.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass
from operator import attrgetter, itemgetter
from typing import Any, Final

import pyarrow as pa

from schemas.codec import CURRENT, Archive, CodecError, frame, unframe
from schemas.events import Context, Masked

MASKED_FIELDS: Final = tuple(name for name in Masked.__struct_fields__ if name != "context")
"""Order of the values of a row."""

_EVENT_ID: Final = MASKED_FIELDS.index("event_id")
_AT: Final = MASKED_FIELDS.index("at")
_LINK: Final = itemgetter(MASKED_FIELDS.index("stream"), MASKED_FIELDS.index("seq"))
_COUNTS: Final = tuple(
    MASKED_FIELDS.index(name) for name in ("seq", "rows", "byte_count", "duration_us", "chunk")
)

# DateTime64(6) ends in 2299; a record beyond it could not be stored as what it says.
_LAST_AT: Final = 10_413_791_999_999_999
_FIRST_AT: Final = -2_208_988_800_000_000

_CONTEXTS: Final = 20_000

_TEXT: Final = pa.string()
_TEXTS: Final = pa.list_(pa.string())
_ID: Final = pa.binary(16)
_HASH: Final = pa.binary(32)

_RENAMED: Final = {"at": "ts", "byte_count": "bytes"}
_TYPES: Final[dict[str, pa.DataType]] = {
    "event_id": _ID,
    "at": pa.timestamp("us", "UTC"),
    "monotonic_ns": pa.int64(),
    "seq": pa.uint64(),
    "prev_hash": _HASH,
    "event_hash": _HASH,
    "statement_id": _ID,
    "prepared_id": _ID,
    "kinds": _TEXTS,
    "relations": _TEXTS,
    "policies": _TEXTS,
    "masks": _TEXTS,
    "rows": pa.uint64(),
    "byte_count": pa.uint64(),
    "duration_us": pa.uint64(),
    "chunk": pa.uint32(),
}
_CONTEXT_TYPES: Final[dict[str, pa.DataType]] = {
    "session_id": _ID,
    "tenant": _TEXT,
    "gateway": _TEXT,
    "target": _TEXT,
    "issuer": _TEXT,
    "subject": _TEXT,
    "actor": _TEXT,
    "groups": _TEXTS,
    "agent": _TEXT,
    "actor_type": _TEXT,
    "client_ip": _ID,
    "client_port": pa.uint16(),
    "application": _TEXT,
}
event_values: Final = attrgetter(*MASKED_FIELDS)
"""What an audit copy says beside its context, in the order of MASKED_FIELDS."""

COLUMNS: Final[dict[str, pa.DataType]] = {
    **_CONTEXT_TYPES,
    **{_RENAMED.get(name, name): _TYPES.get(name, _TEXT) for name in MASKED_FIELDS},
}
"""Columns of audit_events that say what an audit copy says, those of
its context first, in the order of `context_values`, then those of `event_values`."""

Values = tuple[Any, ...]

_NONE: Final[Sequence[str]] = ()


@dataclass(frozen=True, slots=True)
class Rows:
    """Decoded records, by column; `values` in the order of MASKED_FIELDS."""

    offsets: list[int]
    contexts: list[Context]
    values: list[Values]

    def __len__(self) -> int:
        return len(self.offsets)

    def links(self) -> list[tuple[str, int]]:
        """(stream, seq) of each."""
        return list(map(_LINK, self.values))

    def event_ids(self) -> list[bytes]:
        return [values[_EVENT_ID] for values in self.values]

    def times(self) -> list[int]:
        """Microseconds since 1970 UTC."""
        return [values[_AT] for values in self.values]

    def without(self, positions: Set[int]) -> Rows:
        """All but those at `positions`."""
        keep = [i for i in range(len(self.offsets)) if i not in positions]
        return Rows(
            [self.offsets[i] for i in keep],
            [self.contexts[i] for i in keep],
            [self.values[i] for i in keep],
        )


@dataclass(frozen=True, slots=True)
class Poison:
    """A record that no retry will ever decode, and why; `reason` quotes no content."""

    offset: int
    reason: str


class Decoder:
    """Decodes record values. Not safe for concurrent use."""

    def __init__(self) -> None:
        self._archive = Archive()
        self._current = frame(CURRENT[Masked].sha256, b"")
        self._contexts: OrderedDict[bytes, tuple[bytes, Context]] = OrderedDict()

    def decode(self, records: Iterable[tuple[int, bytes | None]]) -> tuple[Rows, list[Poison]]:
        """Rows and poison from (offset, value), each in the order of the offsets."""
        rows = Rows([], [], [])
        poison: list[Poison] = []
        for offset, value in records:
            try:
                context, values = self._record(value)
            except CodecError as error:
                poison.append(Poison(offset, str(error)))
            else:
                rows.offsets.append(offset)
                rows.contexts.append(context)
                rows.values.append(values)
        return rows, poison

    def _record(self, value: bytes | None) -> tuple[Context, Values]:
        if value is None:
            raise CodecError("the record has no value")
        if value.startswith(self._current):
            known = self._contexts.get(value[35:51])
            if known is not None and value.startswith(known[0], 35):
                values = read_rest(value, 35 + len(known[0]))
                if values is not None:
                    _check(values)
                    return known[1], values
        return self._strictly(value)

    def _strictly(self, value: bytes) -> tuple[Context, Values]:
        sha256, payload = unframe(value)
        decoded, context = self._archive.decode(sha256, payload)
        if not isinstance(decoded, Masked):
            raise CodecError(f"{type(decoded).__name__} is not Masked")
        values: Values = event_values(decoded)
        _check(values)
        if not 0 <= decoded.context.client.port <= 0xFFFF:
            raise CodecError("the client's port is none")
        # Context values repeat in every event of a session: remember the bytes they came from.
        if payload.startswith(context):
            self._contexts[context[:16]] = (context, decoded.context)
            if len(self._contexts) > _CONTEXTS:
                self._contexts.popitem(last=False)
        return decoded.context, values


def storable(at: int) -> bool:
    """Whether a time (microseconds) is one that DateTime64(6) can hold."""
    return _FIRST_AT <= at <= _LAST_AT


def _check(values: Values) -> None:
    """What Avro allows and our columns do not. Raises CodecError."""
    if not storable(values[_AT]):
        raise CodecError("the time is outside 1900 to 2299")
    for index in _COUNTS:
        if values[index] < 0:
            raise CodecError(f"{MASKED_FIELDS[index]} is negative")


class _Unusual(Exception):
    """Not the encoding our writer produces."""


def _long(data: bytes, at: int) -> tuple[int, int]:
    byte = data[at]
    at += 1
    number = byte & 0x7F
    shift = 7
    while byte & 0x80:
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        shift += 7
        if shift > 70:
            raise _Unusual
    if number >> 64:
        raise _Unusual
    return number >> 1 ^ -(number & 1), at


def _text(data: bytes, at: int) -> tuple[str, int]:
    size = data[at]
    if size < 0x80 and not size & 1:
        at += 1
        end = at + (size >> 1)
        return data[at:end].decode(), end
    size, at = _long(data, at)
    if size < 0:
        raise _Unusual
    end = at + size
    return data[at:end].decode(), end


def _texts(data: bytes, at: int) -> tuple[Sequence[str], int]:
    count, at = _long(data, at)
    if count < 0 or count > len(data):
        raise _Unusual
    items = []
    for _ in range(count):
        item, at = _text(data, at)
        items.append(item)
    if data[at]:
        raise _Unusual  # a further block
    return items, at + 1


def read_rest(data: bytes, at: int) -> Values | None:
    """Fields of the current Masked after `context`, from `at` to the end of `data`.

    None when the bytes are not exactly what our writer produces: then only a strict decoder
    can say what they are.
    """
    try:
        return _read_rest(data, at)
    except (_Unusual, IndexError, UnicodeDecodeError):
        return None


def _read_rest(data: bytes, at: int) -> Values | None:
    end = at + 16
    event_id = data[at:end]
    event_type, at = _text(data, end)
    wall, at = _long(data, at)
    monotonic_ns, at = _long(data, at)
    stream, at = _text(data, at)
    seq, at = _long(data, at)
    prev_hash = data[at : at + 32]
    event_hash = data[at + 32 : at + 64]
    statement_id = data[at + 64 : at + 80]
    prepared_id = data[at + 80 : at + 96]
    at += 96
    # Most fields of most events are empty: a zero byte.
    action = kind = decision = policy_digest = reason = outcome = command_tag = error_code = ""
    statement = parameters = response_rows = error = details = classification = ""
    kinds = relations = policies = masks = _NONE
    if data[at]:
        action, at = _text(data, at)
    else:
        at += 1
    if data[at]:
        kind, at = _text(data, at)
    else:
        at += 1
    if data[at]:
        kinds, at = _texts(data, at)
    else:
        at += 1
    if data[at]:
        relations, at = _texts(data, at)
    else:
        at += 1
    if data[at]:
        decision, at = _text(data, at)
    else:
        at += 1
    if data[at]:
        policies, at = _texts(data, at)
    else:
        at += 1
    if data[at]:
        policy_digest, at = _text(data, at)
    else:
        at += 1
    if data[at]:
        reason, at = _text(data, at)
    else:
        at += 1
    if data[at]:
        outcome, at = _text(data, at)
    else:
        at += 1
    if data[at]:
        command_tag, at = _text(data, at)
    else:
        at += 1
    if data[at]:
        error_code, at = _text(data, at)
    else:
        at += 1
    rows, at = _long(data, at)
    byte_count, at = _long(data, at)
    duration_us, at = _long(data, at)
    chunk, at = _long(data, at)
    if data[at]:
        statement, at = _text(data, at)
    else:
        at += 1
    if data[at]:
        parameters, at = _text(data, at)
    else:
        at += 1
    if data[at]:
        response_rows, at = _text(data, at)
    else:
        at += 1
    if data[at]:
        error, at = _text(data, at)
    else:
        at += 1
    if data[at]:
        details, at = _text(data, at)
    else:
        at += 1
    if data[at]:
        masks, at = _texts(data, at)
    else:
        at += 1
    if data[at]:
        classification, at = _text(data, at)
    else:
        at += 1
    # Slices beyond the end are short, not errors: the sum of the lengths tells. Avro's int is
    # narrower than what `_long` reads.
    if at != len(data) or not -(1 << 31) <= chunk < 1 << 31:
        return None
    return (
        event_id, event_type, wall, monotonic_ns, stream, seq, prev_hash, event_hash,
        statement_id, prepared_id, action, kind, kinds, relations, decision, policies,
        policy_digest, reason, outcome, command_tag, error_code, rows, byte_count, duration_us,
        chunk, statement, parameters, response_rows, error, details, masks, classification,
    )  # fmt: skip


def _address(ip: str) -> bytes:
    """IPv6 bytes, IPv4 mapped; zeros for a client that has no address (a Unix socket)."""
    try:
        address = ipaddress.ip_address(ip.partition("%")[0])
    except ValueError:
        return bytes(16)
    if isinstance(address, ipaddress.IPv4Address):
        return bytes(10) + b"\xff\xff" + address.packed
    return address.packed


def context_values(context: Context) -> Values:
    """What a context says, as `table` writes it."""
    who, client = context.principal, context.client
    return (
        context.session_id, context.tenant, context.gateway, context.target,
        who.issuer, who.subject, who.name, who.groups, who.agent, who.actor_type,
        _address(client.ip), client.port, client.application,
    )  # fmt: skip


def table(rows: Rows, topic: str, topic_id: bytes, partition: int) -> pa.Table:
    """Columns of audit_events for `rows`, which must not be empty, in their order."""
    # Rows of a session share one Context object, as the decoder remembers it.
    contexts = {id(context): context for context in rows.contexts}
    numbers = {identity: number for number, identity in enumerate(contexts)}
    taken = pa.array([numbers[id(context)] for context in rows.contexts], pa.int32())
    columns: dict[str, Any] = {}
    transposed = zip(*map(context_values, contexts.values()), strict=True)
    for (name, kind), values in zip(_CONTEXT_TYPES.items(), transposed, strict=True):
        columns[name] = pa.array(values, kind).take(taken)
    for name, values in zip(MASKED_FIELDS, zip(*rows.values, strict=True), strict=True):
        columns[_RENAMED.get(name, name)] = pa.array(values, _TYPES.get(name, _TEXT))
    columns["topic"] = pa.repeat(pa.scalar(topic), len(rows))
    columns["topic_id"] = pa.repeat(pa.scalar(topic_id, _ID), len(rows))
    columns["kafka_partition"] = pa.repeat(pa.scalar(partition, pa.uint16()), len(rows))
    columns["kafka_offset"] = pa.array(rows.offsets, pa.uint64())
    return pa.table(columns)
