"""Messages as bytes: building, reading and splitting them."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import Final

PROTOCOL_3_0: Final = 196608
NEWEST_MINOR: Final = 2
"""3.2 (PostgreSQL 18): longer cancel keys."""

SSL_REQUEST: Final = 80877103
GSSENC_REQUEST: Final = 80877104
CANCEL_REQUEST: Final = 80877102

ALPN: Final = "postgresql"
"""Name of the protocol in TLS; a client that begins with TLS must ask for it (section 54.2.9)."""

MAX_STARTUP: Final = 10_000
"""Length of a start-up packet at most, as PostgreSQL's MAX_STARTUP_PACKET_LENGTH."""

MAX_MESSAGE: Final = 16 * 1024 * 1024
"""Length of one message from a client at most; it must fit in one event."""

MAX_COPY_DATA: Final = 1024 * 1024
"""Bytes of one CopyData of a client at most; longer ones are passed on in pieces."""

TOO_LARGE: Final = 0x100
"""Marks the type of a message of which only the head and KEPT bytes of the body were kept."""

KEPT: Final = 1024

_COPY_DATA: Final = ord("d")
_LARGE: Final = frozenset(b"QPBF")
"""Types that PostgreSQL, too, expects to be large; no other has a reason to be."""
_LONGEST: Final = (1 << 30) - 2
"""Length of any message at most, as PostgreSQL's PQ_LARGE_MESSAGE_LIMIT."""

_LENGTH: Final = struct.Struct(">I")
_UINT16: Final = struct.Struct(">H")
_INT32: Final = struct.Struct(">i")


class ProtocolViolation(Exception):
    """Why a session must end: what came is not the protocol, unless `reason`, which is recorded,
    says otherwise. `sqlstate` and the text go to the client. Quotes nothing.
    """

    def __init__(
        self, message: str, sqlstate: str = "08P01", reason: str = "protocol_error"
    ) -> None:
        super().__init__(message)
        self.sqlstate = sqlstate
        self.reason = reason


def message(kind: bytes, body: bytes = b"") -> bytes:
    """A message: type, length, body."""
    return kind + _LENGTH.pack(len(body) + 4) + body


def error(
    sqlstate: str,
    text: str,
    *,
    severity: str = "ERROR",
    detail: str = "",
    hint: str = "",
    position: int = 0,
) -> bytes:
    """ErrorResponse (section 54.8)."""
    fields = [("S", severity), ("V", severity), ("C", sqlstate), ("M", text)]
    if detail:
        fields.append(("D", detail))
    if hint:
        fields.append(("H", hint))
    if position:
        fields.append(("P", str(position)))
    body = b"".join(code.encode() + cstring(value) for code, value in fields)
    return message(b"E", body + b"\0")


def fatal(sqlstate: str, text: str, *, detail: str = "", hint: str = "") -> bytes:
    """ErrorResponse after which the connection ends."""
    return error(sqlstate, text, severity="FATAL", detail=detail, hint=hint)


def fields(body: bytes, codec: str = "utf-8") -> dict[str, str]:
    """The fields of an ErrorResponse or NoticeResponse by code; undecodable bytes as \\xNN."""
    return {
        chr(part[0]): part[1:].decode(codec, "backslashreplace")
        for part in body.split(b"\0")
        if part
    }


def cstring(text: str) -> bytes:
    """A zero-terminated string. A zero inside is dropped: it would end the string early."""
    return text.encode("utf-8", "replace").replace(b"\0", b"") + b"\0"


def startup(parameters: Mapping[str, str]) -> bytes:
    """StartupMessage of protocol 3.0."""
    body = _LENGTH.pack(PROTOCOL_3_0)
    body += b"".join(cstring(key) + cstring(value) for key, value in parameters.items()) + b"\0"
    return _LENGTH.pack(len(body) + 4) + body


def read_parameters(body: bytes) -> dict[str, str]:
    """Name-value pairs of a StartupMessage. Raises ProtocolViolation."""
    parts = body.split(b"\0")
    if len(parts) < 2 or parts[-1] or parts[-2] or len(parts) % 2:
        raise ProtocolViolation("invalid startup packet layout: expected terminator as last byte")
    try:
        texts = [part.decode() for part in parts[:-2]]
    except UnicodeDecodeError:
        raise ProtocolViolation("invalid startup packet: parameters must be UTF-8") from None
    return dict(zip(texts[::2], texts[1::2], strict=True))


class Reader:
    """Reads one message's body from the front. Raises ProtocolViolation past its end."""

    __slots__ = ("_at", "_body")

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._at = 0

    def take(self, size: int) -> bytes:
        """The next `size` bytes."""
        end = self._at + size
        if size < 0 or end > len(self._body):
            raise ProtocolViolation("insufficient data left in message")
        data = self._body[self._at : end]
        self._at = end
        return data

    def cstring(self) -> bytes:
        """Bytes up to a zero."""
        end = self._body.find(b"\0", self._at)
        if end < 0:
            raise ProtocolViolation("invalid string in message")
        data = self._body[self._at : end]
        self._at = end + 1
        return data

    def uint16(self) -> int:
        """An unsigned 16-bit integer."""
        return int(_UINT16.unpack(self.take(2))[0])

    def int32(self) -> int:
        """A signed 32-bit integer."""
        return int(_INT32.unpack(self.take(4))[0])

    def uint32(self) -> int:
        """An unsigned 32-bit integer, such as an OID."""
        return int(_LENGTH.unpack(self.take(4))[0])

    def rest(self) -> bytes:
        """Everything that is left."""
        return self.take(len(self._body) - self._at)

    def end(self) -> None:
        """Nothing may be left."""
        if self._at != len(self._body):
            raise ProtocolViolation("invalid message format")


class Splitter:
    """Cuts a stream into whole messages, whatever the packets.

    Keeps one buffer and an offset, since re-joining the rest with each packet costs quadratic
    time on large messages. Raises ProtocolViolation for lengths that lie.

    CopyData of more than MAX_COPY_DATA bytes is cut into several of that size, which is the same
    to a target: where they begin and end means nothing in a COPY (section 54.2.6).

    Of a request that is too large the beginning is kept and the rest passed over, so that it can
    be refused in its turn: to end the connection instead would lose the error on its way to a
    client that is still sending.
    """

    __slots__ = ("_allowed", "_beginning", "_buffer", "_copy_left", "_largest", "_to_pass_over")

    def __init__(self, allowed: bytes, largest: int = MAX_MESSAGE) -> None:
        self._allowed = frozenset(allowed)
        self._buffer = bytearray()
        self._copy_left = 0
        self._to_pass_over = 0
        self._beginning = b""
        self._largest = largest

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """(type, whole message including its five-byte head) of each message completed."""
        buffer = self._buffer
        buffer += data
        at, size = 0, len(buffer)
        try:
            while size - at >= 5 or self._copy_left or self._to_pass_over:
                if self._to_pass_over:
                    piece = min(self._to_pass_over, size - at)
                    room = max(0, KEPT + 5 - len(self._beginning))
                    self._beginning += bytes(buffer[at : at + min(piece, room)])
                    at += piece
                    self._to_pass_over -= piece
                    if self._to_pass_over:
                        break
                    yield self._beginning[0] | TOO_LARGE, self._beginning
                    continue
                if self._copy_left:
                    piece = min(self._copy_left, MAX_COPY_DATA)
                    if size - at < piece:
                        break
                    whole = message(b"d", bytes(buffer[at : at + piece]))
                    at += piece
                    self._copy_left -= piece
                    yield _COPY_DATA, whole
                    continue
                kind = buffer[at]
                if kind not in self._allowed:
                    raise ProtocolViolation(f"invalid frontend message type {kind}")
                length = int.from_bytes(buffer[at + 1 : at + 5], "big")
                if length < 4:
                    raise ProtocolViolation("invalid message length")
                if kind == _COPY_DATA and MAX_COPY_DATA + 4 < length <= _LONGEST:
                    self._copy_left = length - 4
                    at += 5
                    continue
                if length > self._largest:
                    if kind in _LARGE and length <= _LONGEST:
                        self._beginning = bytes(buffer[at : at + 5])
                        self._to_pass_over = length - 4
                        at += 5
                        continue
                    raise ProtocolViolation(
                        f"a message may have at most {self._largest} bytes", "54000"
                    )
                end = at + 1 + length
                if end > size:
                    break
                whole = bytes(buffer[at:end])
                at = end
                yield kind, whole
        finally:
            del buffer[:at]

    @property
    def within_message(self) -> bool:
        """What came ends in the middle of a message."""
        return bool(self._buffer) or self._copy_left > 0

    @property
    def buffered(self) -> int:
        """Bytes of a message that is not complete."""
        return len(self._buffer)
