"""A small PostgreSQL: enough of its protocol to disagree with a gateway that gets it wrong.

It keeps names of statements and portals, skips to Sync, aborts transactions, copies, and reports
settings with ReadyForQuery only, as PostgreSQL 14 and later do. `executed` is what it ran, by
text: the truth that a gateway's records are compared with, also in how it was read: a constant
with a backslash has an E there if it was read while standard_conforming_strings is off, so that a
text judged otherwise is an attack that came through. Behind a gateway (`guarded`) one that is
refused must never arrive.
"""

from __future__ import annotations

import re
from typing import TypeVar

from tests.gateway.protocols.postgres import messages as pg

T = TypeVar("T")
ON, OFF = "on", "off"
_CONSTANT = re.compile(r"'[^']*\\[^']*'")
_NAMED = re.compile(r"(prepare|execute|deallocate) (\w+)")


class Failed(Exception):
    """Becomes an ErrorResponse."""

    def __init__(self, sqlstate: str, text: str) -> None:
        super().__init__(text)
        self.sqlstate = sqlstate


class Named(dict[bytes, T]):
    """By names of which 63 bytes count."""

    def __contains__(self, name: object) -> bool:
        return isinstance(name, bytes) and super().__contains__(name[:63])

    def __getitem__(self, name: bytes) -> T:
        return super().__getitem__(name[:63])

    def __setitem__(self, name: bytes, value: T) -> None:
        super().__setitem__(name[:63], value)

    def forget(self, name: bytes) -> None:
        super().pop(name[:63], None)


class Server:
    def __init__(self, guarded: bool = True) -> None:
        self._guarded = guarded
        self.executed: list[str] = []
        self.copied: list[bytes] = []
        self.closed = False
        self._buffer = b""
        # Of each statement its text, and the text that a book shows for it.
        self._statements: Named[tuple[str, str]] = Named()
        self._portals: Named[tuple[tuple[str, str], int]] = Named()
        self._skipping = False
        self._copying: str | None = None
        self._copying_in_query: list[tuple[str, str]] | None = None
        self._transaction = "I"
        self._deferred = False
        self._strings, self._strings_before, self._reported = ON, ON, ON
        self._out: list[bytes] = []

    def feed(self, data: bytes) -> bytes:
        """What the server answers."""
        self._out = []
        self._buffer += data
        while len(self._buffer) >= 5:
            end = 1 + int.from_bytes(self._buffer[1:5], "big")
            if len(self._buffer) < end:
                break
            whole, self._buffer = self._buffer[:end], self._buffer[end:]
            self._message(chr(whole[0]), whole[5:])
        return b"".join(self._out)

    # --- messages ---

    def _message(self, kind: str, body: bytes) -> None:
        if self._copying is not None:
            self._copy(kind, body)
            return
        if self._skipping and kind not in "SX":
            return
        match kind:
            case "Q":
                self._query(body[:-1].decode())
            case "S":
                self._skipping = False
                self._finish()
            case "X":
                self.closed = True
            case "H" | "d" | "c" | "f":
                pass
            case "P" | "B" | "D" | "E" | "C":
                try:
                    self._extended(kind, body)
                except Failed as failed:
                    self._fail(failed)
                    self._skipping = True
            case _:
                raise AssertionError(f"a target never gets {kind!r} from us")

    def _extended(self, kind: str, body: bytes) -> None:
        match kind:
            case "P":
                name, text = body.split(b"\0", 2)[:2]
                self._parse(name, text.decode())
                self._out.append(pg.PARSED)
            case "B":
                portal, name = body.split(b"\0", 2)[:2]
                self._bind(portal, name)
                self._out.append(pg.BOUND)
            case "D":
                self._describe(body[:1], body[1:-1])
            case "C":
                if body[:1] == b"S":
                    self._statements.forget(body[1:-1])
                else:
                    self._portals.forget(body[1:-1])
                self._out.append(pg.CLOSED)
            case "E":
                portal, _, limit = body.partition(b"\0")
                self._execute(portal, int.from_bytes(limit, "big"))

    def _parse(self, name: bytes, text: str) -> None:
        if not name:
            self._statements.forget(b"")
        self._read(text)
        if len(self.split(text)) > 1:
            raise Failed("42601", "cannot insert multiple commands into a prepared statement")
        self._refuse_in_aborted(text)
        self._analyse(text)
        if name and name in self._statements:
            raise Failed("42P05", f'prepared statement "{name.decode()}" already exists')
        self._statements[name] = (text, self._shown(text))

    def _bind(self, portal: bytes, name: bytes) -> None:
        statement = self._statement(name)
        self._refuse_in_aborted(statement[0])
        if portal and portal in self._portals:
            raise Failed("42P03", f'cursor "{portal.decode()}" already exists')
        self._portals[portal] = (statement, 0)

    def _statement(self, name: bytes) -> tuple[str, str]:
        if name not in self._statements:
            which = (
                f'prepared statement "{name.decode()}"' if name else "unnamed prepared statement"
            )
            raise Failed("26000", f"{which} does not exist")
        return self._statements[name]

    def _describe(self, what: bytes, name: bytes) -> None:
        if what == b"S":
            text = self._statement(name)[0]
            self._out.append(pg.parameter_types())
        else:
            if name not in self._portals:
                raise Failed("34000", f'portal "{name.decode()}" does not exist')
            text = self._portals[name][0][0]
        self._out.append(pg.columns("a") if text.startswith("select") else pg.NO_DATA)

    def _execute(self, portal: bytes, limit: int) -> None:
        if portal not in self._portals:
            raise Failed("34000", f'portal "{portal.decode()}" does not exist')
        (text, label), done = self._portals[portal]
        self._refuse_in_aborted(text)
        if not text:
            self._out.append(pg.EMPTY)
            return
        rows = self._rows(text)
        if limit and rows - done > limit:
            self.executed.append(label)
            self._out += [pg.row(b"%d" % number) for number in range(done, done + limit)]
            self._portals[portal] = ((text, label), done + limit)
            self._out.append(pg.SUSPENDED)
            return
        self._run(text, label, described=True, skip=done)
        if portal in self._portals:
            self._portals[portal] = ((text, label), rows)

    def _query(self, text: str) -> None:
        try:
            self._read(text)
            statements = [(part, self._shown(part)) for part in self.split(text)]
        except Failed as failed:
            self._fail(failed)
            self._finish()
            return
        if not statements:
            self._out.append(pg.EMPTY)
        self._run_query(statements)

    def _run_query(self, statements: list[tuple[str, str]]) -> None:
        try:
            while statements:
                text, label = statements.pop(0)
                self._refuse_in_aborted(text)
                self._analyse(text)
                self._run(text, label, described=False)
                if self._copying is not None:
                    self._copying_in_query = statements
                    return
        except Failed as failed:
            self._fail(failed)
        self._finish()

    def _finish(self) -> None:
        if self._transaction == "I":
            if self._deferred:
                self._fail(Failed("23503", "deferred constraint"))
            self._deferred = False
            self._portals.clear()
            self._strings_before = self._strings
        if self._strings != self._reported:
            self._reported = self._strings
            self._out.append(pg.status("standard_conforming_strings", self._strings))
        self._out.append(pg.ready(self._transaction))

    def _fail(self, failed: Failed) -> None:
        self._out.append(pg.error(failed.sqlstate, str(failed)))
        self._deferred = False
        if self._transaction != "I":
            self._transaction = "E"
        else:
            self._portals.clear()
        self._strings = self._strings_before

    # --- texts ---

    def _read(self, text: str) -> None:
        if text.startswith('"gatebook_refused_'):
            raise Failed("42601", f"syntax error at or near {text}")
        for forbidden in ("drop", "selec ", "from where"):
            assert not self._guarded or forbidden not in text, f"refused, and yet here: {text}"

    def _shown(self, text: str) -> str:
        return _CONSTANT.sub(r"E\g<0>", text) if self._strings == OFF else text

    @staticmethod
    def split(text: str) -> list[str]:
        return [part.strip() for part in text.split(";") if part.strip()]

    def _analyse(self, text: str) -> None:
        """Errors that come before execution."""
        if "gatebook_refused_" in text:
            raise Failed("42P01", f"relation {text[14:]} does not exist")
        if "nope" in text:
            raise Failed("42703", 'column "nope" does not exist')

    def _refuse_in_aborted(self, text: str) -> None:
        if self._transaction == "E" and text not in ("commit", "rollback", ""):
            raise Failed("25P02", "current transaction is aborted")

    @staticmethod
    def _rows(text: str) -> int:
        found = re.match(r"select (\d+)", text)
        return int(found.group(1)) % 10 if found else 1 if text.startswith("select") else 0

    def _run(self, text: str, label: str, described: bool, skip: int = 0) -> None:
        self.executed.append(label)
        tag = self._effect(text)
        if tag is None:
            return
        if text.startswith("select"):
            if not described:
                self._out.append(pg.columns("a"))
            rows = range(skip, self._rows(text))
            value = b"y" * 9000 if "wide" in text else b""
            self._out += [pg.row(b"%d" % number + value) for number in rows]
            tag = f"SELECT {len(rows)}"
        self._out.append(pg.done(tag))

    def _effect(self, text: str) -> str | None:
        """What a statement does; its command tag, or None when it goes on with data."""
        if "1/0" in text:
            raise Failed("22012", "division by zero")
        if text.startswith("do "):
            self._out += [pg.notice("noticed"), pg.notice("again")]
            return "DO"
        if text.startswith("set "):
            self._strings = text.rpartition(" ")[2]
            return "SET"
        if text == "begin":
            if self._transaction == "I":
                self._transaction, self._strings_before = "T", self._strings
            return "BEGIN"
        if text in ("commit", "rollback"):
            if self._transaction == "E" or text == "rollback":
                self._strings = self._strings_before
            tag = "ROLLBACK" if self._transaction == "E" else text.upper()
            self._transaction = "I"
            self._strings_before = self._strings
            self._portals.clear()
            return tag
        if text == "copy t from stdin":
            self._out.append(pg.COPY_IN)
            self._copying = text
            return None
        if text == "copy t to stdout":
            self._out += [pg.COPY_OUT, pg.copy_data(b"1\n"), pg.copy_data(b"2\n"), pg.COPY_DONE]
            return "COPY 2"
        return self._named(text)

    def _named(self, text: str) -> str:
        if text in ("deallocate all", "discard all"):
            unnamed = self._statements.get(b"")
            self._statements.clear()
            if unnamed is not None:
                self._statements[b""] = unnamed
            if text == "discard all":
                # It commits at once, and with a transaction go its portals.
                self._portals.clear()
            return text.upper()
        found = _NAMED.match(text)
        if found is None:
            if "deferred" in text:
                self._deferred = True
            return "INSERT 0 1" if text.startswith("insert") else text.partition(" ")[0].upper()
        verb, name = found.group(1), found.group(2).encode()
        if verb == "prepare":
            if name in self._statements:
                raise Failed("42P05", "already exists")
            self._statements[name] = (text.partition(" as ")[2], text)
        elif name not in self._statements:
            raise Failed("26000", f"no {name.decode()}")
        elif verb == "deallocate":
            self._statements.forget(name)
        return verb.upper()

    # --- COPY ---

    def _copy(self, kind: str, body: bytes) -> None:
        match kind:
            case "d":
                self.copied.append(body)
                if body == b"bad\n":
                    self._copy_failed(Failed("22P02", "invalid input syntax"))
            case "c":
                self._copying, rest = None, self._copying_in_query
                self._out.append(pg.done("COPY 1"))
                if rest is not None:
                    self._copying_in_query = None
                    self._run_query(rest)
            case "f":
                self._copy_failed(Failed("57014", "COPY from stdin failed"))
            case "S" | "H":
                pass
            case _:
                # Sent before anyone could know that the COPY had begun.
                self._copy_failed(Failed("08P01", f"unexpected message type {kind!r} during COPY"))

    def _copy_failed(self, failed: Failed) -> None:
        in_query, self._copying_in_query = self._copying_in_query is not None, None
        self._copying = None
        self._fail(failed)
        if in_query:
            self._finish()
        else:
            self._skipping = True
