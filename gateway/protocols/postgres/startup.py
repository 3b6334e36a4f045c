"""From the first byte to a permitted connection: TLS, start-up packet, credential, `connect`."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto

from gateway.identity.principal import Principal
from gateway.machine import (
    Ask,
    Authenticate,
    Authenticated,
    CancelStatement,
    Close,
    Closed,
    Command,
    ConnectTarget,
    Decided,
    Ended,
    Expired,
    Input,
    NotDurable,
    Outcome,
    Received,
    Record,
    Recorded,
    Refused,
    Request,
    Send,
    Shutdown,
    Side,
    StartTls,
    TlsStarted,
    Verdict,
    Withdrawn,
)
from gateway.protocols.postgres import replication, wire
from gateway.protocols.postgres.wire import ProtocolViolation, fatal, message

MAX_CREDENTIAL = 64 * 1024
"""Length of a PasswordMessage at most; identity providers with many groups make long tokens."""

NOT_DURABLE_TEXT = "the request could not be recorded; nothing was executed"
NOT_DURABLE_HINT = "The gateway's journal does not answer. Try again."


class _State(Enum):
    FIRST = auto()
    TLS = auto()
    CREDENTIAL = auto()
    VERIFYING = auto()
    DECIDING = auto()
    DENYING = auto()
    ENDING = auto()
    DONE = auto()


@dataclass(frozen=True, slots=True)
class Door:
    """What the listener offers. `targets` are the names a client may ask for."""

    tls: bool
    cleartext: bool
    targets: frozenset[str]


class Startup:
    """One client, not yet connected to its target. `done` once it may be."""

    def __init__(self, door: Door, new_id: Callable[[], bytes]) -> None:
        self._door = door
        self._new_id = new_id
        self._state = _State.FIRST
        self._buffer = bytearray()
        self._encrypted = False
        self._gss_answered = False
        self._last_words = b""
        self._denied_sqlstate = ""
        self.minor = 0
        self.parameters: dict[str, str] = {}
        self.database = ""
        self.user = ""
        self.replication = ""
        self.statement_id = bytes(16)
        self.principal: Principal | None = None
        self.started_ns = 0

    @property
    def done(self) -> bool:
        """The person may connect, and that is in the book."""
        return self._state is _State.DONE

    @property
    def leftover(self) -> bytes:
        """Bytes the client sent after its credential."""
        return bytes(self._buffer)

    @property
    def application(self) -> str:
        """application_name as the client sent it."""
        return self.parameters.get("application_name", "")

    def handle(self, event: Input, now_ns: int) -> list[Command]:
        """See gateway.machine.Machine."""
        if self._state is _State.ENDING:
            return []
        match event:
            case Received(Side.CLIENT, data):
                self._buffer += data
                commands: list[Command] = []
                try:
                    self._read(commands)
                except ProtocolViolation as violation:
                    commands += self._fail(
                        violation.sqlstate, str(violation), "protocol_error", now_ns
                    )
                return commands
            case TlsStarted():
                self._encrypted = True
                self._state = _State.FIRST
                return []
            case Authenticated(principal):
                self.principal = principal
                return self._ask(now_ns)
            case Refused(sqlstate, why):
                return self._fail(sqlstate, why, "denied", now_ns)
            case Decided(_, decisions, _):
                decision = decisions[0]
                if decision.verdict is Verdict.ALLOW:
                    self._state = _State.DONE
                    return [ConnectTarget()]
                return self._deny(decision.reason, decision.policies, decision.hint, now_ns)
            case Recorded() if self._state is _State.DENYING:
                self._state = _State.ENDING
                return [Send(Side.CLIENT, self._last_words), Close()]
            case NotDurable():
                return self._fail("58030", NOT_DURABLE_TEXT, "not_durable", now_ns)
            case Shutdown():
                return self._fail("57P01", "the gateway is shutting down", "shutdown", now_ns)
            case Withdrawn(text, reason):
                return self._fail("57P01", text, reason, now_ns)
            case Expired():
                return self._fail("28000", "the token has expired", "token_expired", now_ns)
            case Closed(Side.CLIENT):
                return self._fail("08006", "", "client_lost", now_ns)
            case _:
                return []

    def _read(self, commands: list[Command]) -> None:
        while self._state in (_State.FIRST, _State.CREDENTIAL):
            before = len(self._buffer)
            commands += self._first() if self._state is _State.FIRST else self._credential()
            if len(self._buffer) == before:
                break
        if self._state is _State.TLS and self._buffer:
            # In clear, and so not the client's handshake: see _ssl_request.
            raise ProtocolViolation("received unencrypted data after SSL request")
        if self._state not in (_State.FIRST, _State.CREDENTIAL) and (
            len(self._buffer) > wire.MAX_STARTUP
        ):
            raise ProtocolViolation("too much data before the connection is ready")

    def _first(self) -> list[Command]:
        if len(self._buffer) < 8:
            return []
        length, code = struct.unpack_from(">II", self._buffer)
        if not 8 <= length <= wire.MAX_STARTUP:
            raise ProtocolViolation("invalid length of startup packet")
        if len(self._buffer) < length:
            return []
        body = bytes(self._buffer[8:length])
        del self._buffer[:length]
        match code:
            case wire.SSL_REQUEST:
                return self._ssl_request()
            case wire.GSSENC_REQUEST:
                if self._gss_answered or self._encrypted:
                    raise ProtocolViolation("unexpected GSSENCRequest")
                self._gss_answered = True
                return [Send(Side.CLIENT, b"N")]
            case wire.CANCEL_REQUEST:
                if not 8 <= len(body) <= 260:
                    raise ProtocolViolation("invalid length of cancel request packet")
                self._state = _State.ENDING
                return [CancelStatement(int.from_bytes(body[:4], "big"), body[4:]), Close()]
        return self._startup_message(code, body)

    def _ssl_request(self) -> list[Command]:
        if self._encrypted:
            raise ProtocolViolation("unexpected SSLRequest")
        if self._buffer:
            # Bytes sent in clear before the handshake could be an attacker's, to be
            # taken for the client's own once TLS is on (CVE-2021-23214).
            raise ProtocolViolation("received unencrypted data after SSL request")
        if not self._door.tls:
            return [Send(Side.CLIENT, b"N")]
        self._state = _State.TLS
        return [Send(Side.CLIENT, b"S"), StartTls()]

    def _startup_message(self, code: int, body: bytes) -> list[Command]:
        major, minor = code >> 16, code & 0xFFFF
        if major != 3:
            raise ProtocolViolation(
                f"unsupported frontend protocol {major}.{minor}: server supports 3.0 to 3.2",
                "0A000",
            )
        parameters = wire.read_parameters(body)
        if not self._encrypted and not self._door.cleartext:
            raise ProtocolViolation(
                "this gateway accepts connections over TLS only (sslmode=require or stronger)",
                "28000",
            )
        self.user = parameters.pop("user", "")
        if not self.user:
            raise ProtocolViolation("no PostgreSQL user name specified in startup packet", "28000")
        self.replication = replication.mode(parameters.get("replication"))
        self.database = parameters.pop("database", "") or self.user
        if self.replication == replication.PHYSICAL:
            self.database = self._whole_server(parameters)
        extensions = sorted(name for name in parameters if name.startswith("_pq_."))
        for name in extensions:
            del parameters[name]
        self.parameters = parameters
        self.minor = min(minor, wire.NEWEST_MINOR)
        self._state = _State.CREDENTIAL
        reply = message(b"R", struct.pack(">I", 3))
        if minor > wire.NEWEST_MINOR or extensions:
            names = b"".join(wire.cstring(name) for name in extensions)
            spoken = wire.PROTOCOL_3_0 + self.minor
            body = struct.pack(">II", spoken, len(extensions)) + names
            reply = message(b"v", body) + reply
        return [Send(Side.CLIENT, reply)]

    def _credential(self) -> list[Command]:
        if len(self._buffer) < 5:
            return []
        kind, length = self._buffer[0], int.from_bytes(self._buffer[1:5], "big")
        if kind != ord("p") or not 5 <= length <= MAX_CREDENTIAL:
            raise ProtocolViolation("expected a password message", "28P01")
        if len(self._buffer) < length + 1:
            return []
        body = bytes(self._buffer[5 : length + 1])
        del self._buffer[: length + 1]
        if body.find(b"\0") != len(body) - 1:
            raise ProtocolViolation("invalid password message", "28P01")
        self._state = _State.VERIFYING
        return [
            Authenticate(
                credential=body[:-1].decode("utf-8", "replace"),
                user=self.user,
                database=self.database,
                application=self.application,
                parameters=self.parameters,
            )
        ]

    def _ask(self, now_ns: int) -> list[Command]:
        self._state = _State.DECIDING
        self.started_ns = now_ns
        self.statement_id = self._new_id()
        refusal = self._refusal()
        request = Request(
            statement_id=self.statement_id,
            action="connect",
            kind="connect",
            kinds=frozenset({"connect", "replication"} if self.replication else {"connect"}),
            relations=(),
            statement=f"connect {self.database}"
            + (f" replication={self.replication}" if self.replication else ""),
            refusal=refusal,
            replication=self.replication,
        )
        return [Ask(1, (request,))]

    def _whole_server(self, parameters: dict[str, str]) -> str:
        """The target of a connection that belongs to no database, whatever its packet names.

        Clients name `replication` there (pg_basebackup, pg_receivewal), and say it in `options`.
        """
        chosen = _CHOSEN.findall(_options(parameters))
        if chosen:
            return str(chosen[-1])
        if self.database not in self._door.targets and len(self._door.targets) == 1:
            return next(iter(self._door.targets))
        return self.database

    def _refusal(self) -> str:
        if self.database not in self._door.targets:
            self._denied_sqlstate = "3D000"
            return "there is no such target"
        if problem := _forbidden_option(self.parameters):
            return problem
        return ""

    def _deny(
        self, reason: str, policies: tuple[str, ...], hint: str, now_ns: int
    ) -> list[Command]:
        self._state = _State.DENYING
        sqlstate = self._denied_sqlstate or "42501"
        text = (
            f'database "{self.database}" does not exist'
            if sqlstate == "3D000"
            else f'permission denied for database "{self.database}"'
        )
        detail = f"{reason} (policy {', '.join(policies)})" if policies else reason
        self._last_words = fatal(sqlstate, text, detail=detail, hint=hint)
        elapsed = now_ns - self.started_ns
        facts = (
            self.outcome("denied", sqlstate, elapsed),
            Ended("denied", 0, 0, 0, len(self._last_words), elapsed),
        )
        return [Record(2, facts)]

    def _fail(self, sqlstate: str, text: str, reason: str, now_ns: int) -> list[Command]:
        """End here. `text` is for the client; empty when it is gone."""
        asked, self._state = self._state is _State.DECIDING, _State.ENDING
        hint = NOT_DURABLE_HINT if sqlstate == "58030" else ""
        words = fatal(sqlstate, text, hint=hint) if text else b""
        commands: list[Command] = [Send(Side.CLIENT, words)] if words else []
        if asked:
            # The request to connect is in the book, or on its way there: so must be its end.
            elapsed = now_ns - self.started_ns
            outcome = self.outcome("failed" if text else "lost", sqlstate, elapsed)
            facts = (outcome, Ended(reason, 0, 0, 0, len(words), elapsed))
            commands.insert(0, Record(0, facts))
        return [*commands, Close(drain=bool(words))]

    def outcome(
        self,
        outcome: str,
        sqlstate: str,
        duration_ns: int,
        notices: tuple[dict[str, str], ...] = (),
    ) -> Outcome:
        """How the `connect` request ended."""
        return Outcome(self.statement_id, outcome, "", sqlstate, 0, 0, duration_ns, {}, notices)


# How strings are read (standard_conforming_strings) is not among them: the target reports it before
# the first statement. backslash_quote is reported to nobody.
_NEVER = ("role", "session_authorization", "backslash_quote")
# Wherever one is assigned to: switches may share a dash (`-ecrole=x`), and a name may be a custom
# one's last part (`plugin.role`), which is harmless.
_ASSIGNED = re.compile(rf"(?<!\.)({'|'.join(_NEVER)})\s*=")


_CHOSEN = re.compile(r"(?:-c\s*|--)gatebook\.target=(\S+)")


def _options(parameters: dict[str, str]) -> str:
    """`options`, in which a backslash escapes the next character: `ro\\le` is `role`."""
    return parameters.get("options", "").replace("\\", "")


def _forbidden_option(parameters: dict[str, str]) -> str:
    """Start-up settings that would change who the target thinks we are, or how it reads SQL."""
    # A dash in a name is an underscore.
    options = _options(parameters).lower().replace("-", "_")
    names = [name for name in map(str.lower, parameters) if name in _NEVER]
    for name in (*names, *_ASSIGNED.findall(options)):
        return f"the start-up setting {name} is refused"
    return ""
