"""One PostgreSQL connection, from accept to close: start-up, the target's sign-in, the session."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from gateway.large import LARGE
from gateway.machine import (
    Abort,
    CatalogView,
    Close,
    Closed,
    Command,
    Ended,
    Expired,
    Fact,
    Input,
    NotDurable,
    Opened,
    Received,
    Record,
    Recorded,
    Send,
    Shutdown,
    Side,
    TargetConnected,
    TargetUnreachable,
    Withdrawn,
)
from gateway.masking.veil import Veil
from gateway.policy.facts import UNKNOWN, Facts, SessionNames
from gateway.policy.sql import Statement
from gateway.protocols.postgres import upstream, wire
from gateway.protocols.postgres.requests import Language
from gateway.protocols.postgres.session import Session
from gateway.protocols.postgres.startup import (
    NOT_DURABLE_HINT,
    NOT_DURABLE_TEXT,
    Door,
    Startup,
)
from gateway.protocols.postgres.upstream import Credential, TargetRefused, Upstream
from gateway.protocols.postgres.wire import fatal, message

_REASONS: Final = {"58030": "not_durable", "08006": "client_lost"}

# A client may know these: they are about the server's capacity, not about our role on it.
_PATH: Final = frozenset({"options", "search_path", "role", "session_authorization"})
_LONG_KEYS: Final = 2
_TOLD: Final = ("53", "57", "3D")


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a machine is given: the world's randomness and knowledge, as values.

    `cancel_secret` is what the client learns, of its 32 bytes only four before
    protocol 3.2; `session` is the session's id as text; `nonce` is for the target's SCRAM;
    `resolve` says what a statement does at a target. A text of more bytes than `large` is
    read aside.
    """

    door: Door
    credential: Callable[[str], Credential]
    catalog: Callable[[str], CatalogView]
    analyse: Callable[[str], tuple[Statement, ...]]
    new_id: Callable[[], bytes]
    chunk_bytes: int
    prepared_max_bytes: int
    cancel_secret: bytes
    nonce: str
    session: str = ""
    resolve: Callable[
        [str, Statement, SessionNames, Statement | None, Mapping[str, Facts]], Facts
    ] = lambda target, statement, meaning, inner, given: UNKNOWN
    veil: Callable[[], Veil | None] = lambda: None
    large: int = LARGE


class PostgresMachine:
    """See gateway.machine.Machine. `session` exists once the target is ready."""

    def __init__(self, around: Surroundings) -> None:
        self._around = around
        self._startup = Startup(around.door, around.new_id)
        self._upstream: Upstream | None = None
        self._connecting = False
        self._settings: Mapping[str, str] = {}
        self._farewell: tuple[bytes, bool] | None = None
        self._late: list[Input] = []
        self._early = bytearray()
        self._over = False
        self.session: Session | None = None

    @property
    def connecting(self) -> bool:
        """The client may connect, and the target is not ready yet."""
        return self._connecting and self.session is None

    @property
    def target(self) -> str:
        """Name of the target, once permitted."""
        return self._startup.database

    @property
    def cancel_key(self) -> tuple[int, bytes]:
        """What a CancelRequest for this connection must hold: the target's process id, by which
        its notifications and functions know the session, and a secret of ours.
        """
        secret = self._around.cancel_secret
        return self.target_key[0], secret if self._startup.minor >= _LONG_KEYS else secret[:4]

    @property
    def target_key(self) -> tuple[int, bytes]:
        """The target's own cancel key, once signed in."""
        return self._upstream.key if self._upstream is not None else (0, b"")

    def handle(self, event: Input, now_ns: int) -> list[Command]:
        """See gateway.machine.Machine."""
        try:
            if self.session is not None:
                return self.session.handle(event, now_ns)
            if self._over:
                return []
            if self._connecting:
                return self._connect(event, now_ns)
            commands = self._startup.handle(event, now_ns)
            self._connecting = self._startup.done
            if self._connecting:
                self._early += self._startup.leftover
            return commands
        except Exception as error:
            self._over = True
            reason = f"{type(error).__name__} in the PostgreSQL machine"
            if self.session is not None:
                return self.session.abort(reason)
            ending = self._end("XX000", "internal error", now_ns) if self._connecting else []
            return [*ending, Abort(reason)]

    def _connect(self, event: Input, now_ns: int) -> list[Command]:
        match event:
            case TargetConnected():
                veil = self._around.veil()
                refused = veil.startup(self._startup.parameters) if veil is not None else ""
                if refused:
                    return self._fail("42501", f"permission denied: {refused}", now_ns)
                self._settings = (veil.settings or {}) if veil is not None else {}
                credential = self._around.credential(self.target)
                principal = self._startup.principal
                self._upstream = Upstream(
                    credential,
                    {
                        **upstream.with_person(
                            self._startup.parameters,
                            credential.person,
                            principal.name if principal else "",
                            self._around.session,
                        ),
                        **self._settings,
                    },
                    self._around.nonce,
                    self._startup.replication,
                )
                return [Send(Side.TARGET, self._upstream.start())]
            case TargetUnreachable(_):
                return self._fail("08001", f'target "{self.target}" cannot be reached', now_ns)
            case Received(Side.CLIENT, data):
                self._early += data
                if len(self._early) > wire.MAX_STARTUP:
                    return self._end("08P01", "too much data before the session", now_ns)
                return []
            case Closed(Side.CLIENT):
                return self._end("08006", "", now_ns)
            case Recorded() if self._farewell is not None:
                return self._said(self._farewell, now_ns)
            case NotDurable():
                return self._end("58030", NOT_DURABLE_TEXT, now_ns)
            case _ if self._farewell is not None:
                # The target is ready, the client not yet told: the session will hear of it.
                self._late.append(event)
                return []
            case Received(Side.TARGET, data) if self._upstream is not None:
                return self._sign_in(self._upstream, data, now_ns)
            case Closed(Side.TARGET):
                return self._fail("08001", f'target "{self.target}" closed the connection', now_ns)
            case Shutdown():
                return self._fail("57P01", "the gateway is shutting down", now_ns)
            case Expired():
                return self._fail("28000", "the token has expired", now_ns)
            case Withdrawn(text, _):
                return self._fail("57P01", text, now_ns)
            case _:
                return []

    def _sign_in(self, target: Upstream, data: bytes, now_ns: int) -> list[Command]:
        try:
            answer = target.feed(data)
        except TargetRefused as refused:
            if refused.words:
                return self._refused(refused.sqlstate, refused.words, now_ns)
            told = refused.sqlstate if refused.sqlstate.startswith(_TOLD) else "08004"
            return self._fail(told, f'target "{self.target}" refused the gateway', now_ns)
        commands: list[Command] = [Send(Side.TARGET, answer)] if answer else []
        if target.ready:
            elapsed = now_ns - self._startup.started_ns
            opened: tuple[Fact, ...] = (
                self._startup.outcome(
                    "completed",
                    "",
                    elapsed,
                    tuple(wire.fields(notice[5:]) for notice in target.notices),
                ),
                Opened(
                    f"postgres/3.{self._startup.minor}",
                    self._startup.user,
                    self._startup.parameters,
                ),
            )
            self._farewell = (self._welcome(target), True)
            commands.append(Record(3, opened))
        return commands

    def _welcome(self, target: Upstream) -> bytes:
        process_id, secret = self.cancel_key
        statuses = b"".join(
            message(b"S", wire.cstring(name) + wire.cstring(value))
            for name, value in target.statuses.items()
        )
        return b"".join(
            (
                message(b"R", bytes(4)),
                *target.notices,
                statuses,
                message(b"K", struct.pack(">I", process_id) + secret),
                message(b"Z", b"I"),
            )
        )

    def _said(self, farewell: tuple[bytes, bool], now_ns: int) -> list[Command]:
        text, ready = farewell
        if not ready:
            self._over = True
            return [Send(Side.CLIENT, text), Close(drain=True)]
        assert self._upstream is not None  # noqa: S101 (narrowing)
        self.session = Session(
            Language(self._around.analyse, self._upstream.statuses, self._startup.replication),
            lambda: self._around.catalog(self.target),
            self._around.new_id,
            prepared_max_bytes=self._around.prepared_max_bytes,
            resolve=lambda statement, meaning, inner, given: self._around.resolve(
                self.target, statement, meaning, inner, given
            ),
            # With options of its own a client may begin with another search_path.
            meaning=SessionNames(
                certain=not _PATH & {name.lower() for name in self._startup.parameters}
            ),
            chunk_bytes=self._around.chunk_bytes,
            now_ns=now_ns,
            veil=self._around.veil,
            settings=self._settings,
            large=self._around.large,
        )
        commands: list[Command] = [Send(Side.CLIENT, text)]
        for late in self._late:
            commands += self.session.handle(late, now_ns)
        if self._early:
            commands += self.session.handle(Received(Side.CLIENT, bytes(self._early)), now_ns)
        return commands

    def _fail(self, sqlstate: str, text: str, now_ns: int) -> list[Command]:
        return self._refused(sqlstate, fatal(sqlstate, text), now_ns)

    def _refused(self, sqlstate: str, words: bytes, now_ns: int) -> list[Command]:
        """Put the refusal into the book; the client reads `words` once it is there."""
        self._farewell = (words, False)
        elapsed = now_ns - self._startup.started_ns
        facts = (
            self._startup.outcome("failed", sqlstate, elapsed),
            Ended("target_refused", 0, 0, 0, len(words), elapsed),
        )
        return [Record(3, facts)]

    def _end(self, sqlstate: str, text: str, now_ns: int) -> list[Command]:
        """End at once. `text` is for the client; empty when it is gone."""
        self._over = True
        hint = NOT_DURABLE_HINT if sqlstate == "58030" else ""
        words = fatal(sqlstate, text, hint=hint) if text else b""
        commands: list[Command] = [Send(Side.CLIENT, words)] if words else []
        elapsed = now_ns - self._startup.started_ns
        facts: list[Fact] = []
        if self._farewell is None:
            facts.append(self._startup.outcome("failed" if text else "lost", sqlstate, elapsed))
        if self._farewell is None or self._farewell[1]:
            # A refusal's record, which is on its way already, says that the session ended.
            reason = _REASONS.get(sqlstate, "protocol_error")
            facts.append(Ended(reason, 0, 0, 0, len(words), elapsed))
        return [*([Record(0, tuple(facts))] if facts else []), *commands, Close(drain=bool(words))]
