"""Signing in to the target with the gateway's own credential."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from gateway.protocols.postgres import scram, wire
from gateway.protocols.postgres.wire import ProtocolViolation, Reader, Splitter, message

_ALLOWED: Final = b"RSKZENv"
_LARGEST: Final = 64 * 1024
# They are recorded in one event, which must fit in one record.
_NOTICES: Final = 20
# Texts the server reports back unchanged and that cannot change what SQL means or who runs it.
_KEPT: Final = frozenset({"database", "user"})


@dataclass(frozen=True, slots=True)
class Credential:
    """How to sign in to a target. `encrypted` says whether the socket is in TLS; `person` is how
    the target learns whose session it is (schemas.settings.Target).
    """

    database: str
    user: str
    password: str = field(repr=False)
    encrypted: bool
    person: str = "none"


def with_person(
    parameters: Mapping[str, str], person: str, name: str, session: str
) -> dict[str, str]:
    """Start-up settings by which the target's own log can be reconciled with ours.

    The server folds their names: a client's `GATEBOOK.Principal` must not come after ours.
    """
    theirs = {key: value for key, value in parameters.items() if not _is_ours(key)}
    match person:
        case "setting":
            return {**theirs, "gatebook.principal": name, "gatebook.session": session}
        case "application_name":
            application = theirs.get("application_name", "")
            return {**theirs, "application_name": f"{application} ({name} {session})".strip()}
        case _:
            return theirs


def _is_ours(name: str) -> bool:
    return name.lower().startswith("gatebook.")


def _about_settings(sqlstate: str) -> bool:
    """Whether a server that knows who we are means a start-up setting: unknown, or no such value.

    A missing privilege may be our role's, which is nothing a client should hear of.
    """
    return sqlstate.startswith(("22", "42")) and sqlstate != "42501"


class TargetRefused(Exception):
    """The target did not let us in. `sqlstate` is the server's, or 08004; `words` is its
    ErrorResponse when it is about a setting that the client asked for.
    """

    def __init__(self, reason: str, sqlstate: str = "08004", words: bytes = b"") -> None:
        super().__init__(reason)
        self.sqlstate = sqlstate
        self.words = words


class Upstream:
    """One sign-in. `ready` once ReadyForQuery came; then `statuses` and `key` are the server's, and
    `notices` what it says of the client's start-up settings, or to whoever signs in.
    """

    def __init__(
        self,
        credential: Credential,
        parameters: Mapping[str, str],
        nonce: str,
        replication: str = "",
    ) -> None:
        self._credential = credential
        self._replication = {"replication": replication} if replication else {}
        self._parameters = {
            name: value for name, value in parameters.items() if name not in _KEPT | {"replication"}
        }
        self._splitter = Splitter(_ALLOWED, _LARGEST)
        self._scram = scram.Client(credential.password, nonce)
        self._authenticated = False
        self._proven = True
        self.ready = False
        self.statuses: dict[str, str] = {}
        self.notices: list[bytes] = []
        self.key: tuple[int, bytes] = (0, b"")

    def start(self) -> bytes:
        """The StartupMessage to send."""
        own = {"user": self._credential.user, "database": self._credential.database}
        return wire.startup({**self._parameters, **own, **self._replication})

    def feed(self, data: bytes) -> bytes:
        """Bytes to answer with. Raises TargetRefused."""
        try:
            return b"".join(self._message(kind, whole) for kind, whole in self._splitter.feed(data))
        except ProtocolViolation as violation:
            raise TargetRefused(f"the target does not speak the protocol: {violation}") from None
        except scram.ScramError as error:
            raise TargetRefused(str(error)) from None

    def _message(self, kind: int, whole: bytes) -> bytes:
        reader = Reader(whole[5:])
        match chr(kind):
            case "R":
                return self._authentication(reader)
            case "S":
                name, value = reader.cstring(), reader.cstring()
                self.statuses[name.decode("utf-8", "replace")] = value.decode("utf-8", "replace")
            case "N" if self._authenticated and len(self.notices) < _NOTICES:
                sqlstate = wire.fields(whole[5:]).get("C", "")
                if sqlstate == "00000" or _about_settings(sqlstate):
                    self.notices.append(whole)
            case "K":
                self.key = (reader.uint32(), whole[9:])
            case "Z":
                if not self._authenticated or not self._proven:
                    raise TargetRefused("the target was ready before it authenticated")
                self.ready = True
            case "E":
                sqlstate = wire.fields(whole[5:]).get("C", "08004")
                words = whole if self._authenticated and _about_settings(sqlstate) else b""
                raise TargetRefused("the target refused the sign-in", sqlstate, words)
        return b""

    def _authentication(self, reader: Reader) -> bytes:
        code = reader.uint32()
        password = self._credential.password.encode()
        match code:
            case 0:
                self._authenticated = True
                return b""
            case 3 if self._credential.encrypted:
                return message(b"p", password + b"\0")
            case 5:
                inner = hashlib.md5(  # noqa: S324 (the protocol's own, for old servers)
                    password + self._credential.user.encode()
                ).hexdigest()
                outer = hashlib.md5(inner.encode() + reader.take(4)).hexdigest()  # noqa: S324
                return message(b"p", b"md5" + outer.encode() + b"\0")
            case 10:
                mechanisms = []
                while name := reader.cstring():
                    mechanisms.append(name)
                if b"SCRAM-SHA-256" not in mechanisms:
                    raise TargetRefused("the target offers no SASL mechanism we know")
                self._proven = False
                first = self._scram.first()
                return message(b"p", b"SCRAM-SHA-256\0" + struct.pack(">I", len(first)) + first)
            case 11:
                return message(b"p", self._scram.final(reader.rest()))
            case 12:
                self._scram.verify(reader.rest())
                self._proven = True
                return b""
        # A server that asks for the password in clear over an open socket may be an impostor.
        raise TargetRefused(f"the target asks for authentication {code}, which is refused here")
