"""Events with boxes and the wraps of their keys, as a gateway writes them."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from schemas import codec, events
from schemas.chain import Chain
from schemas.sealing import KEY_BYTES, Recipients, Sealer
from tests.sinks.recorded import NOON, Record, context


@dataclass
class Gateway:
    """One session of a gateway whose recipients are `mask` and `carol`."""

    carol: X25519PrivateKey = field(default_factory=X25519PrivateKey.generate)
    records: list[Record] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.context = context()
        self.chain = Chain("gateway-1/test/0")
        self.key = os.urandom(KEY_BYTES)
        self.sealer = Sealer(self.context.key_id, self.key)
        self.recipients = Recipients(
            (
                ("mask", X25519PrivateKey.generate().public_key()),
                ("carol", self.carol.public_key()),
            )
        )

    def wraps(self, offset: int) -> Record:
        """The record of gatebook.keys."""
        key_id = self.context.key_id
        value = codec.encode_wraps(self.recipients.wrap(key_id, self.key))
        return Record(offset, value, key=key_id)

    def tombstone(self, offset: int) -> Record:
        return Record(offset, None, key=self.context.key_id)

    def requested(self, statement: str) -> events.Requested:
        """Somebody asks."""
        event_id = os.urandom(16)
        original = codec.encode_original(events.RequestedOriginal(statement, []))
        event = events.Requested(
            context=self.context, event_id=event_id, at=NOON, monotonic_ns=0,
            statement_id=os.urandom(16), prepared_id=events.NONE_ID, action="execute",
            kind="select", kinds=["select"], relations=[],
            box=self.sealer.seal(self.context.session_id, event_id, original),
        )  # fmt: skip
        self.write(event)
        return event

    def decided(self, statement_id: bytes) -> None:
        """An event without a box."""
        self.write(
            events.Decided(
                self.context, os.urandom(16), NOON, 0, statement_id, "ALLOW", [], "", "because"
            )
        )

    def write(self, event: Any) -> None:
        payload = codec.encode(event, codec.encode_context(event.context))
        value = self.chain.append(codec.CURRENT[type(event)].sha256, payload)
        self.records.append(Record(len(self.records), value, key=b"gateway-1/test/0"))
