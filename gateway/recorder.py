"""Makes events of a session's requests and facts: ids, times, sealed boxes, Avro."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Final

import msgspec

from gateway.journal import Encoded
from gateway.machine import (
    Decision,
    Ended,
    Fact,
    Opened,
    Outcome,
    Request,
    RequestData,
    Rows,
)
from schemas import codec, commitments, events, statements
from schemas.events import Context
from schemas.masking.detect import scrub
from schemas.sealing import Sealer

_REQUESTED: Final = codec.CURRENT[events.Requested].sha256
_DECIDED: Final = codec.CURRENT[events.Decided].sha256
_RESPONDED: Final = codec.CURRENT[events.Responded].sha256
_COMPLETED: Final = codec.CURRENT[events.Completed].sha256
# What is remembered is counted in entries: larger ones are made anew.
_FEW: Final = 64


def _ask(action: str, kind: str, kinds: frozenset[str], relations: tuple[str, ...]) -> bytes:
    # Recorded in clear; a name may be any text.
    scrubbed = [scrub(relation)[0] for relation in relations]
    return statements.asked(action, kind, sorted(kinds), scrubbed)


_judged = lru_cache(8192)(statements.judged)
_known_asked = lru_cache(8192)(_ask)
_known_described = lru_cache(1024)(statements.described)


def _asked(action: str, kind: str, kinds: frozenset[str], relations: tuple[str, ...]) -> bytes:
    make = _known_asked if len(relations) <= _FEW else _ask
    return make(action, kind, kinds, relations)


def _described(
    encoding: str, columns: tuple[tuple[str, int, int, int, int, str], ...], classified: bool
) -> bytes:
    make = _known_described if len(columns) <= _FEW else statements.described
    return make(encoding, columns, classified)


def _layout(fact: Rows) -> int:
    """A leaf for each value of a small result; for many, that would cost more than all the rest."""
    values = fact.rows * len(fact.columns)
    if fact.encoding == "rows" and 0 < values <= commitments.MAX_FIELDS:
        return commitments.FIELDS
    return commitments.BLOCKS


class Clock:
    """Where times come from; both in nanoseconds."""

    def __init__(self, wall: Callable[[], int], monotonic: Callable[[], int]) -> None:
        self.wall = wall
        self.monotonic = monotonic


class Recorder:
    """One session's events. The policy digest is that of the moment."""

    def __init__(
        self, context: Context, sealer: Sealer, clock: Clock, new_id: Callable[[], bytes]
    ) -> None:
        self._context = context
        self._session_id = context.session_id
        self._prefix = codec.encode_context(context)
        self._sealer = sealer
        self._clock = clock
        self._new_id = new_id
        self.tls = ""
        self.token_id = ""
        self.connected_by: tuple[str, ...] = ()
        self.policy_digest = ""

    def classified(self, digest: bytes) -> None:
        """What is classified at the target from now on: see schemas/masking/applied.py."""
        if digest != self._context.classification:
            self._context = msgspec.structs.replace(self._context, classification=digest)
            self._prefix = codec.encode_context(self._context)

    def _encode(self, event: events.Event) -> Encoded:
        schema = codec.CURRENT[type(event)]
        return schema.sha256, codec.encode(event, self._prefix)

    def _now(self) -> bytes:
        return statements.moment(self._clock.wall() // 1000, self._clock.monotonic())

    def _box(self, event_id: bytes, original: events.Original) -> bytes:
        return self._sealer.seal(self._session_id, event_id, codec.encode_original(original))

    def request(self, request: Request, decision: Decision) -> tuple[Encoded, Encoded]:
        """Requested and Decided."""
        event_id, when = self._new_id(), self._now()
        box = self._sealer.seal(
            self._session_id,
            event_id,
            statements.requested_original(request.statement, request.parameters, request.ran),
            commitments.REQUESTED,
        )
        requested = statements.requested(
            statements.head(self._prefix, event_id, when, request.statement_id),
            request.prepared_id,
            _asked(request.action, request.kind, request.kinds, request.relations),
            box,
        )
        decided = statements.head(
            self._prefix, self._new_id(), when, request.statement_id
        ) + _judged(
            decision.verdict,
            decision.policies,
            self.policy_digest,
            decision.reason,
            request.masks,
            max_rows=decision.limit.rows if decision.limit else 0,
        )
        return (_REQUESTED, requested), (_DECIDED, decided)

    def fact(self, fact: Fact) -> Encoded:
        """The event of a fact."""
        event_id = self._new_id()
        if isinstance(fact, Rows):
            described = _described(fact.encoding, fact.columns, fact.classified)
            box = self._sealer.seal(
                self._session_id,
                event_id,
                statements.responded_original(described, fact.data),
                _layout(fact),
                len(described),
            )
            begin = statements.head(self._prefix, event_id, self._now(), fact.statement_id)
            return _RESPONDED, statements.responded(
                begin, fact.chunk, fact.rows, len(fact.data), box
            )
        if isinstance(fact, Outcome):
            box = b""
            if fact.error or fact.notices:
                box = self._box(event_id, events.CompletedOriginal(fact.error, list(fact.notices)))
            return _COMPLETED, statements.completed(
                statements.head(self._prefix, event_id, self._now(), fact.statement_id),
                fact.outcome,
                fact.command_tag,
                fact.error_code,
                rows=fact.rows,
                byte_count=fact.byte_count,
                duration_us=fact.duration_ns // 1000,
                box=box,
            )
        return self._rare(event_id, fact)

    def _rare(self, event_id: bytes, fact: RequestData | Opened | Ended) -> Encoded:
        head = (self._context, event_id, self._clock.wall() // 1000, self._clock.monotonic())
        event: events.Event
        match fact:
            case RequestData():
                data = events.RequestDataOriginal("copy", fact.data)
                event = events.RequestData(
                    *head, fact.statement_id, fact.chunk, len(fact.data), self._box(event_id, data)
                )
            case Opened():
                opened = events.SessionOpenedOriginal(fact.user, fact.parameters)
                event = events.SessionOpened(
                    *head,
                    fact.protocol,
                    self.tls,
                    self.token_id,
                    self.policy_digest,
                    list(self.connected_by),
                    self._box(event_id, opened),
                )
            case Ended():
                event = events.SessionClosed(
                    *head,
                    fact.reason,
                    fact.statements,
                    fact.rows,
                    fact.bytes_in,
                    fact.bytes_out,
                    fact.duration_ns // 1000,
                )
        return self._encode(event)

    def authentication_failed(
        self,
        reason: str,
        error_code: str,
        original: events.AuthenticationFailedOriginal,
    ) -> Encoded:
        """A refused sign-in. The credential is not an argument, and so never recorded."""
        event_id = self._new_id()
        event = events.AuthenticationFailed(
            self._context,
            event_id,
            self._clock.wall() // 1000,
            self._clock.monotonic(),
            "oidc",
            reason,
            error_code,
            self._box(event_id, original),
        )
        return self._encode(event)
