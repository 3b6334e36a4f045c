"""Events as a gateway writes them, without a gateway."""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from schemas import codec, commitments
from schemas.chain import Chain
from schemas.events import (
    NONE_ID,
    AuthenticationFailed,
    Client,
    Column,
    Completed,
    CompletedOriginal,
    Context,
    Decided,
    Event,
    KeyWraps,
    Original,
    Parameter,
    PolicyLoaded,
    Principal,
    RequestData,
    RequestDataOriginal,
    Requested,
    RequestedOriginal,
    Responded,
    RespondedOriginal,
    SessionClosed,
    SessionOpened,
    SessionOpenedOriginal,
    TargetsLoaded,
)
from schemas.ids import uuid7
from schemas.sealing import Recipients, Sealer


def new_id() -> bytes:
    return uuid7(time.time_ns() // 1_000_000, os.urandom(10))


def private_pem(private: X25519PrivateKey) -> bytes:
    return private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def public_pem(private: X25519PrivateKey) -> bytes:
    return private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def data_row(*values: bytes | None) -> bytes:
    """A DataRow message."""
    body = struct.pack(">H", len(values)) + b"".join(
        struct.pack(">i", -1) if value is None else struct.pack(">i", len(value)) + value
        for value in values
    )
    return b"D" + struct.pack(">i", len(body) + 4) + body


def column(name: str, type_oid: int = 25, *, source: str = "", binary: bool = False) -> Column:
    return Column(name, 16_400 if source not in ("", "?") else 0, 1, type_oid, int(binary), source)


@dataclass
class Session:
    """One person's session and its data key."""

    context: Context
    encoded: bytes
    sealer: Sealer
    wraps: KeyWraps

    @property
    def id(self) -> bytes:
        return self.context.session_id


@dataclass
class Pen:
    """Writes one stream."""

    recipients: Recipients
    stream: str = ""
    target: str = "shop"
    chain: Chain = field(init=False)

    def __post_init__(self) -> None:
        self.chain = Chain(self.stream or f"gateway-1/{os.urandom(8).hex()}/0")

    def session(
        self, *, target: str = "", name: str = "alice", classification: bytes = b""
    ) -> Session:
        session_id, key_id, key = new_id(), new_id(), os.urandom(32)
        context = Context(
            session_id,
            key_id,
            "default",
            "gateway-1",
            target or self.target,
            Principal("https://issuer.example", f"{name}-sub", name, ["support"], "", "person"),
            Client("127.0.0.1", 50_000, "psql"),
            classification,
        )
        return Session(
            context,
            codec.encode_context(context),
            Sealer(key_id, key),
            self.recipients.wrap(key_id, key),
        )

    def seal(self, session: Session, event_id: bytes, original: Original) -> bytes:
        layout, split = commitments.WHOLE, 0
        match original:
            case RequestedOriginal():
                layout = commitments.REQUESTED
            case RespondedOriginal():
                layout = commitments.FIELDS if original.encoding == "rows" else commitments.BLOCKS
                empty = msgspec.structs.replace(original, data=b"")
                split = len(codec.encode_original(empty)) - 1
        return session.sealer.seal(
            session.id, event_id, codec.encode_original(original), layout, split
        )

    def write(self, session: Session, event: Event) -> bytes:
        """The next envelope of the stream."""
        schema = codec.CURRENT[type(event)]
        return self.chain.append(schema.sha256, codec.encode(event, session.encoded))

    def _times(self) -> tuple[int, int]:
        return time.time_ns() // 1_000, time.monotonic_ns()

    def opened(self, session: Session, user: str, parameters: dict[str, str]) -> bytes:
        event_id = new_id()
        box = self.seal(session, event_id, SessionOpenedOriginal(user, parameters))
        return self.write(
            session,
            SessionOpened(
                session.context,
                event_id,
                *self._times(),
                "postgres/3.0",
                "TLSv1.3",
                "jti-1",
                "ab" * 32,
                ["connect"],
                box,
            ),
        )

    def requested(
        self,
        session: Session,
        statement_id: bytes,
        statement: str,
        parameters: Sequence[Parameter] = (),
    ) -> bytes:
        event_id = new_id()
        box = self.seal(session, event_id, RequestedOriginal(statement, list(parameters)))
        return self.write(
            session,
            Requested(
                session.context,
                event_id,
                *self._times(),
                statement_id,
                NONE_ID,
                "execute",
                "select",
                ["select"],
                ["customers"],
                box,
            ),
        )

    def request_data(
        self, session: Session, statement_id: bytes, data: bytes, chunk: int = 0
    ) -> bytes:
        event_id = new_id()
        box = self.seal(session, event_id, RequestDataOriginal("copy", data))
        return self.write(
            session,
            RequestData(
                session.context, event_id, *self._times(), statement_id, chunk, len(data), box
            ),
        )

    def decided(self, session: Session, statement_id: bytes, decision: str = "ALLOW") -> bytes:
        return self.write(
            session,
            Decided(
                session.context,
                new_id(),
                *self._times(),
                statement_id,
                decision,
                ["support-reads"],
                "ab" * 32,
                "permitted",
            ),
        )

    def responded(
        self,
        session: Session,
        statement_id: bytes,
        columns: Sequence[Column],
        rows: Sequence[bytes],
        *,
        classified: bool = False,
        encoding: str = "rows",
    ) -> bytes:
        event_id, data = new_id(), b"".join(rows)
        original = RespondedOriginal(encoding, list(columns), classified, data)
        return self.write(
            session,
            Responded(
                session.context,
                event_id,
                *self._times(),
                statement_id,
                0,
                len(rows),
                len(data),
                self.seal(session, event_id, original),
            ),
        )

    def completed(
        self, session: Session, statement_id: bytes, error: dict[str, str] | None = None
    ) -> bytes:
        event_id = new_id()
        box = self.seal(session, event_id, CompletedOriginal(error, [])) if error else b""
        return self.write(
            session,
            Completed(
                session.context,
                event_id,
                *self._times(),
                statement_id,
                "failed" if error else "completed",
                "" if error else "SELECT 1",
                error.get("C", "") if error else "",
                1,
                10,
                250,
                box,
            ),
        )

    def refused(self, session: Session) -> bytes:
        return self.write(
            session,
            AuthenticationFailed(
                session.context, new_id(), *self._times(), "oidc", "expired", "28000", b""
            ),
        )

    def closed(self, session: Session) -> bytes:
        return self.write(
            session,
            SessionClosed(
                session.context, new_id(), *self._times(), "client_closed", 3, 2, 100, 200, 9_000
            ),
        )

    def policy_loaded(self, session: Session) -> bytes:
        return self.write(
            session,
            PolicyLoaded(
                session.context, new_id(), *self._times(), "failed", "ab" * 32, 2, 7, "a.cedar:3: x"
            ),
        )

    def targets_loaded(self, session: Session) -> bytes:
        return self.write(
            session,
            TargetsLoaded(
                session.context, new_id(), *self._times(),
                "loaded", "ab" * 32, 3, ["a"], ["b", "c"], [], "",
            ),
        )  # fmt: skip

    def pgbench(self, session: Session, account: int) -> list[bytes]:
        """Four events of one small query."""
        statement_id = new_id()
        return [
            self.requested(
                session,
                statement_id,
                f"SELECT abalance FROM pgbench_accounts WHERE aid = {account};",
            ),
            self.decided(session, statement_id),
            self.responded(
                session,
                statement_id,
                [column("abalance", 23, source="public.pgbench_accounts.abalance")],
                [data_row(str(account % 997).encode())],
            ),
            self.completed(session, statement_id),
        ]
