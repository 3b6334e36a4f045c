"""Audit copies as the mask processor would publish them, for the tests of the sinks."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from schemas import codec
from schemas.events import NOBODY, Client, Context, Masked, Principal

NONE = bytes(16)
NOON = 1_790_000_000_000_000
"""Microseconds since 1970 of the first event: 2026-09-21 14:13:20 UTC."""


def context(**changes: Any) -> Context:
    """A session of alice's; keyword arguments change what differs."""
    principal = Principal(
        issuer="https://issuer.test",
        subject="0b5c",
        name=changes.pop("actor", "alice"),
        groups=changes.pop("groups", ["support"]),
        agent=changes.pop("agent", ""),
        actor_type="person",
    )
    client = Client(changes.pop("ip", "10.1.2.3"), 51234, changes.pop("application", "psql"))
    return Context(
        session_id=changes.pop("session_id", None) or os.urandom(16),
        key_id=os.urandom(16),
        tenant="default",
        gateway=changes.pop("gateway", "gateway-1"),
        target=changes.pop("target", "shop"),
        principal=principal,
        client=client,
    )


@dataclass
class Stream:
    """Events of one gateway stream, in order; `events` collects them."""

    name: str = "gateway-1/test/0"
    events: list[Masked] = field(default_factory=list)
    at: int = NOON
    seq: int = 0

    def event(self, event_type: str, who: Context, /, **fields: Any) -> Masked:
        at = fields.pop("at", None)
        made = Masked(
            context=who,
            event_id=fields.pop("event_id", None) or os.urandom(16),
            event_type=event_type,
            at=self.at if at is None else at,
            monotonic_ns=self.at * 1000,
            stream=self.name,
            seq=self.seq,
            prev_hash=os.urandom(32),
            event_hash=os.urandom(32),
            **fields,
        )
        self.at += 1000
        self.seq += 1
        self.events.append(made)
        return made

    def began(self, follows: str = "") -> Masked:
        """Its first event."""
        details = {"follows": follows, "instance": str(uuid4()), "version": "1"}
        return self.own("StreamBegan", details=json.dumps(details))

    def own(self, event_type: str, **fields: Any) -> Masked:
        """What its gateway says of itself, of no session."""
        gateway = self.name.partition("/")[0]
        nobody = Context(NONE, NONE, "default", gateway, "", NOBODY, Client("", 0, ""))
        return self.event(event_type, nobody, **fields)

    def statement(
        self,
        who: Context,
        outcome: str | None = "completed",
        *,
        action: str = "execute",
        decision: str | None = "ALLOW",
        statement: str = "SELECT 1",
        **completed: Any,
    ) -> bytes:
        """A statement's events; without an outcome it has no Completed. Returns its id."""
        statement_id = os.urandom(16)
        self.event(
            "Requested",
            who,
            statement_id=statement_id,
            action=action,
            kind="select",
            kinds=["select"],
            relations=["customers"],
            statement=statement,
        )
        if decision is not None:
            self.event(
                "Decided",
                who,
                statement_id=statement_id,
                decision=decision,
                policies=["support-reads"],
                policy_digest="ab" * 32,
                reason="because",
            )
        if outcome is not None:
            self.event("Completed", who, statement_id=statement_id, outcome=outcome, **completed)
        return statement_id


def encode(event: Masked) -> bytes:
    """The record's value."""
    return codec.encode_masked(event, codec.encode_context(event.context))


def many(
    statements: int, stream: str, sessions: int = 8, response: str = '[{"id": 1}]'
) -> list[Masked]:
    """`statements` executions of four events each, over `sessions` sessions."""
    made = Stream(stream)
    people = [context(actor=f"user{number}") for number in range(sessions)]
    for number in range(statements):
        who = people[number % sessions]
        statement_id = made.statement(who, None, statement=f"SELECT {number}")
        made.event(
            "Responded", who, statement_id=statement_id, rows=1, byte_count=20,
            response_rows=response, masks=["pii:email"],
        )  # fmt: skip
        made.event(
            "Completed", who, statement_id=statement_id, outcome="completed", rows=1,
            byte_count=20, duration_us=700, command_tag="SELECT 1",
        )  # fmt: skip
    return made.events


@dataclass(frozen=True)
class Record:
    """What a Kafka client gives, as far as the sink looks at it."""

    offset: int
    value: bytes | None
    timestamp: int = 0
    key: bytes | None = None


def records(events: list[Masked], first: int = 0) -> list[Record]:
    return [Record(first + number, encode(event)) for number, event in enumerate(events)]
