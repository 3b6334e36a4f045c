"""Makes events of a session's requests and facts: ids, times, sealed boxes, Avro."""

from __future__ import annotations

from collections.abc import Callable

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
from schemas import codec, events
from schemas.events import Context
from schemas.masking.detect import scrub
from schemas.sealing import Sealer


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
        self._prefix = codec.encode_context(context)
        self._sealer = sealer
        self._clock = clock
        self._new_id = new_id
        self.tls = ""
        self.token_id = ""
        self.connected_by: tuple[str, ...] = ()
        self.policy_digest = ""

    def _encode(self, event: events.Event) -> Encoded:
        schema = codec.CURRENT[type(event)]
        return schema.sha256, codec.encode(event, self._prefix)

    def _box(self, event_id: bytes, original: events.Original) -> bytes:
        plaintext = codec.encode_original(original)
        return self._sealer.seal(self._context.session_id, event_id, plaintext)

    def request(self, request: Request, decision: Decision) -> tuple[Encoded, Encoded]:
        """Requested and Decided."""
        event_id, now = self._new_id(), self._clock.wall() // 1000
        original = events.RequestedOriginal(
            request.statement, [events.Parameter(*p) for p in request.parameters]
        )
        requested = events.Requested(
            self._context,
            event_id,
            now,
            self._clock.monotonic(),
            request.statement_id,
            request.prepared_id,
            request.action,
            request.kind,
            sorted(request.kinds),
            # Recorded in clear; a name may be any text.
            [scrub(relation)[0] for relation in request.relations],
            self._box(event_id, original),
        )
        decided = events.Decided(
            self._context,
            self._new_id(),
            now,
            self._clock.monotonic(),
            request.statement_id,
            decision.verdict.value,
            list(decision.policies),
            self.policy_digest,
            decision.reason,
        )
        return self._encode(requested), self._encode(decided)

    def fact(self, fact: Fact) -> Encoded:
        """The event of a fact."""
        event_id, now = self._new_id(), self._clock.wall() // 1000
        head = (self._context, event_id, now, self._clock.monotonic())
        event: events.Event
        match fact:
            case Rows():
                original = events.RespondedOriginal(
                    fact.encoding,
                    [events.Column(*column) for column in fact.columns],
                    fact.classified,
                    fact.data,
                )
                event = events.Responded(
                    *head,
                    fact.statement_id,
                    fact.chunk,
                    fact.rows,
                    len(fact.data),
                    self._box(event_id, original),
                )
            case Outcome():
                box = b""
                if fact.error or fact.notices:
                    box = self._box(
                        event_id, events.CompletedOriginal(fact.error, list(fact.notices))
                    )
                event = events.Completed(
                    *head,
                    fact.statement_id,
                    fact.outcome,
                    fact.command_tag,
                    fact.error_code,
                    fact.rows,
                    fact.byte_count,
                    fact.duration_ns // 1000,
                    box,
                )
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
