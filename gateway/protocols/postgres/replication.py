"""The walsender's commands (PostgreSQL 18 documentation, section 54.4), which are not SQL.

A connection with `replication=true` takes nothing else; one with `replication=database` reads
what does not begin with one of their words as SQL, and so does the gateway.
"""

from __future__ import annotations

import re
from typing import Final

from gateway.policy import sql
from gateway.policy.sql import Statement
from gateway.protocols.postgres.wire import ProtocolViolation

PHYSICAL: Final = "true"
DATABASE: Final = "database"

READS: Final = frozenset({"start_replication", "base_backup"})
"""Commands that read what no relation is named for: whatever there is."""

_KINDS: Final = frozenset(
    {
        "alter_replication_slot",
        "base_backup",
        "create_replication_slot",
        "drop_replication_slot",
        "identify_system",
        "read_replication_slot",
        "show",
        "start_replication",
        "timeline_history",
        "upload_manifest",
    }
)
_SPACE: Final = r"[ \t\n\r\f\v]"
_WORD: Final = r"[A-Za-z_\u0080-\U0010ffff][A-Za-z0-9_$\u0080-\U0010ffff]*"
_FIRST: Final = re.compile(rf"{_SPACE}*({_WORD})")
_WHOLE: Final = re.compile(
    # Possessive: otherwise a long word could be many short ones, in exponentially many ways.
    rf"(?:{_SPACE}+|[0-9A-Fa-f]+/[0-9A-Fa-f]+|{_WORD}|'[^']*+'|\"[^\"]*+\"|\d+|[(),.])*+"
    rf";?{_SPACE}*"
)
_TARGET: Final = re.compile(rf"\btarget{_SPACE}+'((?:[^']|'')*)'", re.IGNORECASE)
_HERE: Final = frozenset({"client", "blackhole"})


def mode(value: str | None) -> str:
    """What the start-up setting `replication` asks for: PHYSICAL, DATABASE or nothing.

    As the server reads it. Raises ProtocolViolation.
    """
    if value is None:
        return ""
    if value == DATABASE:
        return DATABASE
    given = value.lower()
    if given == "1" or (given and (_begins("true", given) or _begins("yes", given))):
        return PHYSICAL
    if given == "0" or (given and (_begins("false", given) or _begins("no", given))):
        return ""
    if given in ("on", "of", "off"):
        return PHYSICAL if given == "on" else ""
    raise ProtocolViolation('invalid value for parameter "replication"', "22023")


def _begins(word: str, given: str) -> bool:
    return word.startswith(given)


def command(text: str, mode: str) -> Statement | None:
    """The command that a text is in a connection of that mode; None when it is SQL."""
    first = _FIRST.match(text)
    kind = first.group(1).lower() if first and first.group(1).isascii() else ""
    if kind not in _KINDS:
        if mode == DATABASE:
            return None
        return sql.unparseable(
            text,
            "cannot execute SQL commands in WAL sender for physical replication",
            sqlstate="0A000",
        )
    if _WHOLE.fullmatch(text) is None:
        return sql.unparseable(text, "syntax error")
    kinds = {kind}
    if kind == "base_backup" and not _HERE.issuperset(
        found.lower() for found in _TARGET.findall(text)
    ):
        # Its target is a folder of the server, or what a module makes of it: a shell command.
        kinds |= {"copy_file", "copy_program"}
    return Statement(text, text, kind, frozenset(kinds), (), replication=True)
