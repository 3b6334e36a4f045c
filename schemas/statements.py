"""The four events of every statement, written field by field.

A gateway writes them for each transaction of each client, and `codec.encode` spends more on finding
fields than on writing them. What repeats (the session's context, a statement's kinds, a result's
columns) comes in ready; `codec.encode` is the oracle in the tests, and an event whose schema has
got other fields fails at import.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from schemas import codec
from schemas.binary import write_bytes, write_long, write_string
from schemas.events import Completed, Decided, Event, Requested, Responded

_HEAD: Final = ("context", "event_id", "at", "monotonic_ns", "statement_id")
_WRITTEN: Final[dict[type[Event], tuple[str, ...]]] = {
    Requested: (*_HEAD, "prepared_id", "action", "kind", "kinds", "relations", "box"),
    Decided: (*_HEAD, "decision", "policies", "policy_digest", "reason", "masks", "max_rows"),
    Responded: (*_HEAD, "chunk", "rows", "byte_count", "box"),
    Completed: (
        *_HEAD,
        *("outcome", "command_tag", "error_code", "rows", "byte_count", "duration_us", "box"),
    ),
}
for _kind, _fields in _WRITTEN.items():
    if codec.CURRENT[_kind].fields != _fields:
        raise AssertionError(f"schemas/statements.py does not write {_kind.__name__}'s fields")

_ID: Final = 16


def moment(at: int, monotonic_ns: int) -> bytes:
    """Both clocks, for every event of one moment."""
    return write_long(at) + write_long(monotonic_ns)


def head(context: bytes, event_id: bytes, when: bytes, statement_id: bytes) -> bytes:
    """What all four begin with: `context` as `codec.encode_context` made it, `when` as `moment`."""
    if len(event_id) != _ID or len(statement_id) != _ID:
        raise ValueError("an id has 16 bytes")
    return context + event_id + when + statement_id


def _strings(values: Sequence[str]) -> bytes:
    if not values:
        return b"\0"
    return write_long(len(values)) + b"".join([write_string(each) for each in values]) + b"\0"


def asked(action: str, kind: str, kinds: Sequence[str], relations: Sequence[str]) -> bytes:
    """What of a Requested is the same for every execution of a statement."""
    return write_string(action) + write_string(kind) + _strings(kinds) + _strings(relations)


def requested(begin: bytes, prepared_id: bytes, what: bytes, box: bytes) -> bytes:
    """A Requested; `what` as `asked` made it."""
    if len(prepared_id) != _ID:
        raise ValueError("an id has 16 bytes")
    return begin + prepared_id + what + write_bytes(box)


def judged(
    decision: str,
    policies: Sequence[str],
    policy_digest: str,
    reason: str,
    masks: Sequence[str],
    *,
    max_rows: int,
) -> bytes:
    """What follows a Decided's head."""
    return (
        write_string(decision)
        + _strings(policies)
        + write_string(policy_digest)
        + write_string(reason)
        + _strings(masks)
        + write_long(max_rows)
    )


def responded(begin: bytes, chunk: int, rows: int, byte_count: int, box: bytes) -> bytes:
    """A Responded."""
    return begin + write_long(chunk) + write_long(rows) + write_long(byte_count) + write_bytes(box)


def completed(
    begin: bytes,
    outcome: str,
    command_tag: str,
    error_code: str,
    *,
    rows: int,
    byte_count: int,
    duration_us: int,
    box: bytes,
) -> bytes:
    """A Completed."""
    return b"".join(
        (
            begin,
            write_string(outcome),
            write_string(command_tag),
            write_string(error_code),
            write_long(rows),
            write_long(byte_count),
            write_long(duration_us),
            write_bytes(box),
        )
    )


def requested_original(
    statement: str, parameters: tuple[tuple[int, int, bytes | None], ...], executed: str
) -> bytes:
    """What a Requested's box holds."""
    if not parameters:
        return write_string(statement) + b"\0" + write_string(executed)
    parts = [write_string(statement), write_long(len(parameters))]
    for type_oid, shown, value in parameters:
        parts.append(write_long(type_oid))
        parts.append(write_long(shown))
        parts.append(b"\0" if value is None else b"\2" + write_bytes(value))
    parts.append(b"\0")
    parts.append(write_string(executed))
    return b"".join(parts)


def described(
    encoding: str, columns: tuple[tuple[str, int, int, int, int, str], ...], classified: bool
) -> bytes:
    """What of a Responded's box is the same for every chunk of a result."""
    parts = [write_string(encoding)]
    if columns:
        parts.append(write_long(len(columns)))
    for name, table_oid, attnum, type_oid, shown, source in columns:
        parts.append(write_string(name))
        parts += [write_long(number) for number in (table_oid, attnum, type_oid, shown)]
        parts.append(write_string(source))
    parts.append(b"\0\1" if classified else b"\0\0")
    return b"".join(parts)


def responded_original(described_by: bytes, data: bytes) -> bytes:
    """What a Responded's box holds; `described_by` as `described` made it."""
    return described_by + write_bytes(data)
