"""Statements whose rows are limited: which those are, how they are sent, and how they are ended.

The row after the last one that is permitted ends the statement. The client is told an error, so
the target must have had one: else what the client believes of its transaction is not what is so.
Therefore nothing that follows such a statement is forwarded before its end is known, and that
includes the Sync that would commit it. At one row too many the target is asked to cancel it. If
it is done before that arrives, an error of its own making (poison) takes the place of its end.

A Query holds its own Sync. A limited one is taken apart: what the extended protocol calls Parse,
Bind, Describe and Execute, statement by statement, and one Sync, none of which the client is told.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

import orjson
from pglast import parser

from gateway.policy.sql import Statement
from gateway.protocols.postgres import replication
from gateway.protocols.postgres.pipeline import Expect, Expectation, Part, Portal, Run, poison
from gateway.protocols.postgres.requests import Language, ambiguous
from gateway.protocols.postgres.wire import ProtocolViolation, message

FLUSH: Final = message(b"H")
SYNC: Final = message(b"S")
_SQLSTATE: Final = "54000"

# Statements that return rows. Of what else returns more than it may (a rule, for one, that makes
# a query of an INSERT), the whole session is ended.
_RETURNING: Final = frozenset({"insert", "update", "delete", "merge"})
_ROWS: Final = _RETURNING | {"select", "copy_to", "fetch", "execute", "explain", "show"}
# What is the same statement by statement as it is in one Query: nothing that begins or ends a
# transaction, or that must be alone in one.
_TAKEN_APART: Final = _ROWS | {"set"}
_SAYS_RETURNING: Final = re.compile("returning", re.IGNORECASE)
_BINARY: Final = re.compile(r"\s*declare\s+\S+\s+(?:\w+\s+)*?binary\b", re.IGNORECASE)
_TOGETHER: Final = "it came in one message with others: send its statements one by one"
_STREAM: Final = "what a walsender streams is not counted in rows"
# The last message of a COPY in binary format.
_TRAILER: Final = b"\xff\xff"


def too_many_rows() -> ProtocolViolation:
    """More than permitted came of what was not known to return any: its session must end."""
    # Not a class of its own: a compiled class has no subclasses in Python.
    text = "a statement returned more rows than are permitted"
    return ProtocolViolation(text, _SQLSTATE, "row_limit")


def returns_rows(statement: Statement) -> bool:
    """Whether rows may come of it; see too_many_rows for what is not foreseen."""
    if statement.kind in _RETURNING:
        return _SAYS_RETURNING.search(statement.text) is not None
    return statement.kind in _ROWS


def uncounted(raw: bytes, statements: Sequence[Statement]) -> str:
    """Why those of a Query cannot be limited; empty where they can be."""
    if any(statement.kind in replication.READS for statement in statements):
        return _STREAM
    if len(statements) < 2 or not any(map(returns_rows, statements)):
        return ""
    alike = all(statement.kind in _TAKEN_APART for statement in statements)
    # The target reads a Query as a whole, but one message after the other by what is set then.
    reads_alike = not ambiguous(raw) or not any(s.changes_settings for s in statements[:-1])
    return "" if alike and reads_alike else _TOGETHER


def is_limited(run: Run) -> bool:
    """Whether what follows it must wait for its end."""
    return run.limit is not None and returns_rows(run.statement)


def begin(run: Run) -> None:
    """What must be known of it before its rows come."""
    statement = run.statement
    if statement.kind == "copy_to":
        run.headings = _headings(run.ran or statement.text)


def _headings(text: str) -> int:
    """How many lines of a COPY are no rows."""
    try:
        tree = orjson.loads(parser.parse_sql_json(text))
        options = tree["stmts"][0]["stmt"]["CopyStmt"].get("options", ())
        given = [option["DefElem"] for option in options]
    except (parser.ParseError, ValueError, UnicodeError, LookupError, TypeError):
        return 0
    for option in given:
        if option.get("defname") == "header":
            return int(_on(option.get("arg")))
    return 0


def _on(argument: object) -> bool:
    """As defGetBoolean reads an option."""
    if not isinstance(argument, dict):
        return argument is None
    if "Integer" in argument:
        return bool(argument["Integer"].get("ival", 0))
    if "Boolean" in argument:
        return bool(argument["Boolean"].get("boolval", False))
    return str(argument.get("String", {}).get("sval", "")).lower() in ("true", "on")


def room(run: Run) -> int:
    """How many more rows it may return. Those of a portal or cursor count together."""
    if run.limit is None:
        raise ValueError("it has no limit")
    return 0 if run.overran else max(0, run.limit.rows - (run.counted or run).given)


def count(run: Run, rows: int) -> None:
    """These rows are let through."""
    (run.counted or run).given += rows


def passes(run: Run, data: bytes) -> bool:
    """Whether a message of a COPY is let through."""
    if run.overran:
        return False
    if run.headings:
        run.headings -= 1
        return True
    if data == _TRAILER:
        return True
    if not room(run):
        return False
    count(run, 1)
    return True


def ending(run: Run) -> bytes:
    """What the target refuses in place of the end of such a statement."""
    return message(b"E", run.token + b"\0\0\0\0\0") + FLUSH


def taken_apart(runs: Iterable[Run], name: bytes, language: Language) -> list[Part]:
    """The parts of a Query whose decisions are made. `name` is for a statement and a portal."""
    parts: list[Part] = []
    close = message(b"C", b"S" + name + b"\0"), message(b"C", b"P" + name + b"\0")

    def add(kind: Expect, data: bytes, run: Run | None, *, ends: bool = False) -> Part:
        expectation = Expectation(kind, run, completes=False)
        expectation.unsaid = not ends
        part = Part(data, expectation)
        parts.append(part)
        return part

    last: Run | None = None
    for run in runs:
        last = run
        run.apart, run.offset = True, 0
        # What an earlier one left that failed; it is no error to close what is not there.
        for data in close:
            add(Expect.CLOSE, data, run)
        text = language.write(run.ran or run.statement.text)
        parse = Part(message(b"P", name + b"\0" + text + b"\0\0\0"))
        if run.refusal:
            add(Expect.PARSE, poison(parse, run), run)
            continue
        formats = b"\0\1\0\1" if run.binary else b"\0\0"
        add(Expect.PARSE, parse.data, run)
        add(Expect.BIND, message(b"B", name + b"\0" + name + b"\0\0\0\0\0" + formats), run)
        add(Expect.DESCRIBE, message(b"D", b"P" + name + b"\0"), run)
        executed = add(Expect.EXECUTE, message(b"E", name + b"\0\0\0\0\0"), run, ends=True)
        executed.limited = run if is_limited(run) else None
    for data in close:
        add(Expect.CLOSE, data, last)
    parts.append(Part(SYNC, Expectation(Expect.SYNC)))
    return parts


def in_binary(portal: Portal) -> bool:
    """Whether a Query that fetches from this cursor gets its rows in binary format."""
    return portal.declared and _BINARY.match(portal.prepared.statement.text) is not None
