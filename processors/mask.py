"""The audit copy of an event: what people may read of it. Pure.

What is in an event's box is masked here and nowhere else (docs/masking.md). The result depends on
the event, what it says was classified and the configuration alone, so that a replay makes the same
bytes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from typing import Any, Final, TypeVar
from uuid import UUID

import orjson

from processors import copydata, diagnostics, rows, values
from schemas.chain import Envelope
from schemas.codec import Archive, CodecError
from schemas.events import (
    AuthenticationFailed,
    AuthenticationFailedOriginal,
    ClassificationChanged,
    Completed,
    CompletedOriginal,
    Context,
    Decided,
    Erased,
    Event,
    Masked,
    Original,
    PolicyLoaded,
    RequestData,
    RequestDataOriginal,
    Requested,
    RequestedOriginal,
    Responded,
    RespondedOriginal,
    SessionClosed,
    SessionOpened,
    SessionOpenedOriginal,
    ShareGiven,
    StreamBegan,
    TargetsLoaded,
    Unsealed,
)
from schemas.masking.applied import Applied
from schemas.masking.columns import Classification
from schemas.masking.sql import MaskedStatement, mask_statement
from schemas.sealing import Opener

V = TypeVar("V")

_TARGETS: Final = 64
"""Each holds megabytes of what it remembers."""
_CACHED_TEXT: Final = 16 * 1024
"""Longer statements are not cached: they do not repeat, and 10,000 of them would be gigabytes."""


class _Lru:
    """A bounded cache of a pure function's results."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._entries: OrderedDict[Hashable, Any] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], V]) -> V:
        entry: V | None = self._entries.get(key)
        if entry is None:
            entry = self._entries[key] = make()
            if len(self._entries) > self._size:
                self._entries.popitem(last=False)
        return entry


class Target:
    """Masks for one target."""

    def __init__(self, classification: Classification) -> None:
        self.classification = classification
        self._statements = _Lru(10_000)
        self._plans = _Lru(2_000)

    def statement(self, text: str) -> MaskedStatement:
        """`text`, masked."""
        if len(text) > _CACHED_TEXT:
            return mask_statement(text, self.classification)
        return self._statements.get(text, lambda: mask_statement(text, self.classification))

    def plan(self, original: RespondedOriginal) -> rows.Plan:
        """How to mask rows of these columns."""
        columns = tuple(original.columns)
        return self._plans.get(
            (columns, original.classified),
            lambda: rows.plan(columns, original.classified, self.classification),
        )


class Masker:
    """Masks events of all targets by what is classified there, and by what values look like."""

    def __init__(self, applied: Applied) -> None:
        self._applied = applied
        self._targets: OrderedDict[Classification, Target] = OrderedDict()

    def possible(self, context: Context, digest: str) -> bool:
        """Whether a copy may say that it was masked by that classification (`Applied.possible`)."""
        return self._applied.possible(context, digest)

    def _target(self, classification: Classification) -> Target:
        target = self._targets.get(classification)
        if target is None:
            target = self._targets[classification] = Target(classification)
            if len(self._targets) > _TARGETS:
                self._targets.popitem(last=False)
        return target

    def mask(self, envelope: Envelope, event: Event, original: Original | None) -> Masked:
        """The audit copy. Raises UnknownClassification, and CodecError when the original is not
        what its kind holds.
        """
        target = self._target(self._applied.of(event.context))
        fields = _MAKERS[type(event)](event, original, target)
        return Masked(
            context=event.context,
            event_id=event.event_id,
            event_type=type(event).__name__,
            at=event.at,
            monotonic_ns=event.monotonic_ns,
            stream=envelope.stream,
            seq=envelope.seq,
            prev_hash=envelope.prev_hash,
            event_hash=envelope.event_hash,
            classification=target.classification.digest,
            **fields,
        )


def audit_copy(
    archive: Archive, masker: Masker, opener: Callable[[bytes], Opener], envelope: Envelope
) -> tuple[Masked, bytes]:
    """(audit copy, its context's bytes) of an event whose data key `opener` finds by its id.

    Raises CodecError, SealingError, and whatever `opener` raises.
    """
    event, context = archive.decode(envelope.schema_sha256, envelope.payload)
    if isinstance(event, Masked):
        raise CodecError("Masked is not an event")
    box: bytes = getattr(event, "box", b"")
    original: Original | None = None
    if box:
        plaintext = opener(event.context.key_id).open(event.context.session_id, event.event_id, box)
        original = archive.decode_original(envelope.schema_sha256, plaintext)
    return masker.mask(envelope, event, original), context


_Fields = dict[str, Any]


def _json(value: Any) -> str:
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()
    except orjson.JSONEncodeError:
        raise CodecError("text that is not Unicode") from None


def _where(found: set[str], where: str) -> list[str]:
    return sorted(f"{kind}:{where}" for kind in found)


def _began(event: StreamBegan, original: Original | None, target: Target) -> _Fields:
    return {
        "policy_digest": event.policy_digest,
        "details": _json(
            {
                "follows": event.follows,
                "instance": str(UUID(bytes=event.instance)),
                "version": event.version,
            }
        ),
    }


def _opened(event: SessionOpened, original: Original | None, target: Target) -> _Fields:
    found: set[str] = set()
    details: dict[str, Any] = {
        "protocol": event.protocol,
        "tls": event.tls,
        "token_id": event.token_id,
    }
    if isinstance(original, SessionOpenedOriginal):
        details["user"] = values.scrubbed(original.user, found)
        details["parameters"] = _parameters(original.parameters, found)
    return {
        "policies": event.policies,
        "policy_digest": event.policy_digest,
        "details": _json(details),
        "masks": _where(found, "details"),
    }


def _parameters(parameters: Mapping[str, str], found: set[str]) -> dict[str, str]:
    return {
        values.scrubbed(name, found): values.scrubbed(value, found)
        for name, value in parameters.items()
    }


def _refused(event: AuthenticationFailed, original: Original | None, target: Target) -> _Fields:
    found: set[str] = set()
    details: dict[str, Any] = {"method": event.method}
    if isinstance(original, AuthenticationFailedOriginal):
        details["user"] = values.scrubbed(original.user, found)
        details["database"] = values.scrubbed(original.database, found)
        details["parameters"] = _parameters(original.parameters, found)
    return {
        "reason": event.reason,
        "error_code": event.error_code,
        "details": _json(details),
        "masks": _where(found, "details"),
    }


def _requested(event: Requested, original: Original | None, target: Target) -> _Fields:
    fields: _Fields = {
        "statement_id": event.statement_id,
        "prepared_id": event.prepared_id,
        "action": event.action,
        "kind": event.kind,
        "kinds": event.kinds,
        "relations": event.relations,
    }
    if isinstance(original, RequestedOriginal):
        statement = target.statement(original.statement)
        fields["statement"] = statement.text
        applied = list(statement.masks)
        if original.parameters:
            fields["parameters"], more = _bind_values(original, statement)
            applied += more
        fields["masks"] = applied
    return fields


def _bind_values(original: RequestedOriginal, statement: MaskedStatement) -> tuple[str, list[str]]:
    found: set[str] = set()
    out = []
    for number, parameter in enumerate(original.parameters, 1):
        if parameter.value is None:
            out.append(b"null")
            continue

        def hides(length: int, number: int = number) -> bool:
            hidden = statement.hides(number, length)
            if hidden:
                found.add("classified")
            return hidden

        out.append(
            values.parameter(
                parameter.type_oid, parameter.format == 1, parameter.value, hides, found
            )
        )
    return (b"[" + b",".join(out) + b"]").decode(), _where(found, "parameters")


def _request_data(event: RequestData, original: Original | None, target: Target) -> _Fields:
    fields: _Fields = {
        "statement_id": event.statement_id,
        "chunk": event.chunk,
        "byte_count": event.byte_count,
    }
    if isinstance(original, RequestDataOriginal):
        found: set[str] = set()
        # Which columns the data is for is known to the statement alone, which is another event.
        fields["parameters"] = copydata.encode(
            original.data,
            hide=bool(target.classification),
            first=event.chunk == 0,
            whole=False,
            found=found,
        ).decode()
        fields["masks"] = _where(found, "parameters")
    return fields


def _decided(event: Decided, original: Original | None, target: Target) -> _Fields:
    return {
        "statement_id": event.statement_id,
        "decision": event.decision,
        "policies": event.policies,
        "policy_digest": event.policy_digest,
        "reason": event.reason,
        "details": _json({"max_rows": event.max_rows}) if event.max_rows else "",
    }


def _responded(event: Responded, original: Original | None, target: Target) -> _Fields:
    fields: _Fields = {
        "statement_id": event.statement_id,
        "chunk": event.chunk,
        "rows": event.rows,
        "byte_count": event.byte_count,
    }
    if not isinstance(original, RespondedOriginal):
        return fields
    found: set[str] = set()
    applied: tuple[str, ...] = ()
    match original.encoding:
        case "rows" if event.rows and not original.columns:
            encoded = rows.encode_undescribed(original.data, original.classified, found)
        case "fragment":
            # A piece of a row too large to hold: nothing in it can be told apart.
            encoded = b'[["***"]]'
            found.add("fragment")
        case "rows":
            plan = target.plan(original)
            encoded, applied = rows.encode(original.data, plan, found), plan.masks
        case "copy":
            encoded = copydata.encode(
                original.data,
                hide=original.classified,
                first=event.chunk == 0,
                whole=True,
                found=found,
            )
        case "notification":
            encoded = rows.notifications(original.data, target.classification, found)
        case _:
            raise CodecError("rows in an unknown encoding")
    fields["response_rows"] = encoded.decode()
    fields["masks"] = [*applied, *_where(found, "response_rows")]
    return fields


def _completed(event: Completed, original: Original | None, target: Target) -> _Fields:
    fields: _Fields = {
        "statement_id": event.statement_id,
        "outcome": event.outcome,
        "command_tag": event.command_tag,
        "error_code": event.error_code,
        "rows": event.rows,
        "byte_count": event.byte_count,
        "duration_us": event.duration_us,
    }
    if isinstance(original, CompletedOriginal):
        found: set[str] = set()
        if original.error:
            fields["error"] = _json(diagnostics.scrub(original.error, target.classification, found))
        if original.notices:
            notices = [
                diagnostics.scrub(notice, target.classification, found)
                for notice in original.notices
            ]
            fields["details"] = _json({"notices": notices})
        fields["masks"] = _where(found, "error")
    return fields


def _closed(event: SessionClosed, original: Original | None, target: Target) -> _Fields:
    return {
        "reason": event.reason,
        "rows": event.rows,
        "duration_us": event.duration_us,
        "details": _json(
            {
                "bytes_in": event.bytes_in,
                "bytes_out": event.bytes_out,
                "statements": event.statements,
            }
        ),
    }


def _policy_loaded(event: PolicyLoaded, original: Original | None, target: Target) -> _Fields:
    return {
        "outcome": event.outcome,
        "policy_digest": event.policy_digest,
        "reason": event.reason,
        "details": _json({"files": event.files, "policies": event.policies}),
    }


def _targets_loaded(event: TargetsLoaded, original: Original | None, target: Target) -> _Fields:
    details = {
        "added": event.added,
        "changed": event.changed,
        "digest": event.digest,
        "removed": event.removed,
        "targets": event.targets,
    }
    return {"outcome": event.outcome, "reason": event.reason, "details": _json(details)}


def _classification_changed(
    event: ClassificationChanged, original: Original | None, target: Target
) -> _Fields:
    changes = [
        {
            "change": each.change,
            "class": each.classification,
            "column": each.column,
            "mask": each.mask,
            "reason": each.reason,
            "source": each.source,
        }
        for each in event.changes
    ]
    details = {
        "changes": changes,
        "digest": event.context.classification.hex(),
        "previous": event.previous.hex(),
        "version": event.version,
    }
    return {"details": _json(details)}


def _ids(ids: list[bytes]) -> list[str]:
    return [str(UUID(bytes=value)) for value in ids]


def _unsealed(event: Unsealed, original: Original | None, target: Target) -> _Fields:
    return {"reason": event.reason, "details": _json({"events": _ids(event.events)})}


def _share_given(event: ShareGiven, original: Original | None, target: Target) -> _Fields:
    details = {
        "events": _ids(event.events),
        "giver": event.giver,
        "keys": _ids(event.keys),
        "quorum": event.quorum,
        "receiver": event.receiver,
    }
    return {"reason": event.reason, "details": _json(details)}


def _erased(event: Erased, original: Original | None, target: Target) -> _Fields:
    details = {
        "keys": _ids(event.keys),
        "person": event.person,
        "sessions": _ids(event.sessions),
    }
    return {"reason": event.reason, "details": _json(details)}


_MAKERS: Final[dict[type[Event], Callable[[Any, Original | None, Target], _Fields]]] = {
    StreamBegan: _began,
    SessionOpened: _opened,
    AuthenticationFailed: _refused,
    Requested: _requested,
    RequestData: _request_data,
    Decided: _decided,
    Responded: _responded,
    Completed: _completed,
    SessionClosed: _closed,
    PolicyLoaded: _policy_loaded,
    TargetsLoaded: _targets_loaded,
    ClassificationChanged: _classification_changed,
    Unsealed: _unsealed,
    ShareGiven: _share_given,
    Erased: _erased,
}
