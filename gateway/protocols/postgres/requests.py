"""Reading what a client asks: texts, Parse and Bind messages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from gateway.large import Spoken
from gateway.policy import sql, strings
from gateway.policy.sql import Statement
from gateway.protocols.postgres import replication
from gateway.protocols.postgres.pipeline import Portal, Prepared
from gateway.protocols.postgres.wire import ProtocolViolation, Reader

# Encodings in which every byte below 0x80 is that ASCII character. In the others a quote or a
# backslash may be the second half of a character, and a parser that reads it otherwise than the
# server does is blind: only ASCII texts pass there.
_CODECS: Final = {
    "UTF8": "utf-8",
    "UNICODE": "utf-8",
    "SQL_ASCII": "utf-8",
    "LATIN1": "iso8859-1",
    "LATIN2": "iso8859-2",
    "LATIN5": "iso8859-9",
    "LATIN9": "iso8859-15",
    "WIN1250": "cp1250",
    "WIN1251": "cp1251",
    "WIN1252": "cp1252",
    "KOI8R": "koi8-r",
}


_UNCONVERTED: Final = ("UTF8", "SQL_ASCII")
"""Encodings of clients into which every text of a target can be brought."""


Analyse = Callable[[str], tuple[Statement, ...]]


class Language:
    """How the target reads texts at this moment, from its ParameterStatus messages."""

    __slots__ = (
        "_analyse", "_codec", "_replication", "_settings_changed", "_standard_strings",
        "converted", "encoding",
    )  # fmt: skip

    def __init__(
        self,
        analyse: Analyse,
        statuses: Mapping[str, str],
        replicating: str = "",
    ) -> None:
        self._analyse = analyse
        self._replication = replicating
        self._codec = "utf-8"
        self.encoding = _UNCONVERTED[0]
        self._standard_strings = True
        for name, value in statuses.items():
            self.status(name, value)
        self._settings_changed = False
        # As the session began: RESET comes back to it.
        encoding = statuses.get("client_encoding", _UNCONVERTED[0])
        # Written so that mypyc takes it: no star within `not in`.
        server = statuses.get("server_encoding")
        self.converted = encoding not in _UNCONVERTED and encoding != server

    def status(self, name: str, value: str) -> None:
        """A ParameterStatus."""
        if name == "client_encoding":
            self.encoding = value
            self._codec = _CODECS.get(value.upper().replace("-", ""), "ascii")
            self._settings_changed = True
        elif name == "standard_conforming_strings":
            self._standard_strings = value == "on"
            self._settings_changed = True

    @property
    def codec(self) -> str:
        """Python's name of the client's encoding, `ascii` where it is one we do not read."""
        return self._codec

    def read(self, raw: bytes) -> str:
        """A text that `statements` took."""
        return raw.decode(self._codec)

    def write(self, text: str) -> bytes:
        """A text, as the target will read it. Raises UnicodeEncodeError."""
        return text.encode(self._codec)

    def prefix(self, raw: bytes, length: int) -> bytes:
        """The first characters of a text, as the target reads it."""
        return raw.decode(self._codec)[:length].encode(self._codec)

    def spoken(self, unsettled: bool = False, restored: bool = False) -> Spoken:
        """How a text is read that comes now.

        Settings are reported after the next Sync. `unsettled`: a statement that may change them
        precedes the text; `restored`: one that may take back what was changed before.
        """
        uncertain = unsettled or (restored and self._settings_changed)
        return Spoken(self._codec, self._standard_strings, self._replication, uncertain)

    def statements(
        self, raw: bytes, unsettled: bool = False, restored: bool = False
    ) -> tuple[Statement, ...]:
        """The statements of a text. See `spoken`."""
        return statements(raw, self.spoken(unsettled, restored), self._analyse)


def statements(raw: bytes, spoken: Spoken, analyse: Analyse) -> tuple[Statement, ...]:
    """The statements of a text."""
    if spoken.uncertain and ambiguous(raw):
        return (
            sql.unparseable(
                raw.decode("utf-8", "backslashreplace"),
                "backslashes and characters beyond ASCII are refused after a statement that "
                "may change how they are read, until the next Sync",
                sqlstate="0A000",
            ),
        )
    try:
        text = raw.decode(spoken.codec)
    except UnicodeDecodeError:
        return (
            sql.unparseable(
                raw.decode("utf-8", "backslashreplace"),
                "invalid byte sequence for the client's encoding",
                sqlstate="22021",
            ),
        )
    if spoken.replication:
        command = replication.command(text, spoken.replication)
        if command is not None:
            return (command,)
    if not spoken.standard_strings and ("\\" in text or "&'" in text):
        return _escaped(text, analyse)
    return analyse(text)


def _escaped(text: str, analyse: Analyse) -> tuple[Statement, ...]:
    """The statements of a text in whose constants a backslash escapes.

    They are recorded with an E before such constants: as they are judged, and as whoever reads
    the book reads them. The target gets the text itself.
    """
    read = strings.escaped(text)
    if read is not None:
        found = analyse(read.text)
        too_much = bool(found) and found[0].sqlstate.startswith("54")
        if too_much or read.agrees():
            placed = tuple(_placed(statement, read) for statement in found)
            if 0 <= read.unicode < max((one.position for one in placed), default=0):
                # The target says no more of it than that.
                return (_unsafe(read),)
            return placed
    return (
        sql.unparseable(
            text,
            "a backslash is refused where it may be read otherwise than it was judged, "
            "while standard_conforming_strings is off",
            sqlstate="0A000",
        ),
    )


def prepared(found: tuple[Statement, ...]) -> Statement:
    """The statement of a Parse; several are the server's error, judged together."""
    if len(found) == 1:
        return found[0]
    if not found:
        return Statement("", "", sql.EMPTY, frozenset({sql.EMPTY}), ())
    return Statement(
        text="; ".join(statement.text for statement in found),
        recorded="; ".join(statement.recorded for statement in found),
        kind=found[0].kind,
        kinds=frozenset().union(*(statement.kinds for statement in found)),
        relations=tuple(sorted({name for s in found for name in s.relations})),
        changes_settings=any(statement.changes_settings for statement in found),
        restores_settings=any(statement.restores_settings for statement in found),
    )


def _placed(statement: Statement, read: strings.Escaped) -> Statement:
    """What is said of a text with E's, said of the text without them."""
    index = statement.position - 1
    error = statement.error
    if index in read.inserted:
        error = error.replace("at or near \"E'", "at or near \"'", 1)
    return msgspec.structs.replace(
        statement,
        error=error,
        offset=read.original(statement.offset),
        position=read.original(index) + 1 if statement.position else 0,
    )


def _unsafe(read: strings.Escaped) -> Statement:
    """What the target says of a text with a U&'' in which it has found no other error before."""
    return sql.unparseable(
        read.text,
        "unsafe use of string constant with Unicode escapes",
        read.unicode + 1,
        sqlstate="0A000",
        detail="String constants with Unicode escapes cannot be used when "
        "standard_conforming_strings is off.",
    )


def ambiguous(raw: bytes) -> bool:
    """Whether a text means one thing under some settings of a session and another under others.

    `'a\\', '` is one string or two, by standard_conforming_strings; characters beyond ASCII are
    what client_encoding says.
    """
    return not raw.isascii() or b"\\" in raw


def read_parse(body: bytes) -> tuple[bytes, bytes, tuple[int, ...]]:
    """(name, text, parameter type OIDs) of a Parse. Raises ProtocolViolation."""
    reader = Reader(body)
    name, text = reader.cstring(), reader.cstring()
    oids = tuple(reader.uint32() for _ in range(reader.uint16()))
    reader.end()
    return name, text, oids


def bound_names(body: bytes) -> tuple[bytes, bytes]:
    """(portal, statement) of a Bind. Raises ProtocolViolation."""
    reader = Reader(body)
    return reader.cstring(), reader.cstring()


def read_bind(body: bytes, prepared: Prepared) -> Portal:
    """The portal a Bind makes. Raises ProtocolViolation."""
    reader = Reader(body)
    reader.cstring()
    reader.cstring()
    parameters = _values(reader, prepared, "bind")
    results = tuple(reader.uint16() for _ in range(reader.uint16()))
    reader.end()
    return Portal(prepared, parameters, results)


def _values(
    reader: Reader, prepared: Prepared, message: str
) -> tuple[tuple[int, int, bytes | None], ...]:
    """(type OID, format, value) of each parameter of a Bind or a FunctionCall."""
    formats = tuple(reader.uint16() for _ in range(reader.uint16()))
    count = reader.uint16()
    if len(formats) > 1 and len(formats) != count:
        raise ProtocolViolation(
            f"{message} message has {len(formats)} parameter formats but {count} parameters"
        )
    parameters = []
    for index in range(count):
        size = reader.int32()
        if size < -1:
            raise ProtocolViolation(f"invalid parameter length in {message} message")
        value = None if size == -1 else reader.take(size)
        shown = formats[index] if len(formats) > 1 else formats[0] if formats else 0
        oid = prepared.oids[index] if index < len(prepared.oids) else 0
        parameters.append((oid, shown, value))
    return tuple(parameters)


def read_function_call(body: bytes) -> Portal:
    """What a FunctionCall executes, as a bound statement. Raises ProtocolViolation."""
    reader = Reader(body)
    prepared = Prepared(sql.function_call(reader.uint32()), ())
    parameters = _values(reader, prepared, "function call")
    result = reader.uint16()
    reader.end()
    return Portal(prepared, parameters, (result,))
