"""Reading a large text, and holding what was found of it until its message is taken. See
gateway.large.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import msgspec

from gateway.large import MOST_MADE, Found, Reading, Wanted
from gateway.machine import CatalogView
from gateway.masking.copies import Copies
from gateway.masking.plan import Plan
from gateway.masking.veil import Veil
from gateway.policy import sql
from gateway.policy.facts import UNKNOWN, Facts, SessionNames
from gateway.policy.sql import Statement
from gateway.protocols.postgres import requests
from gateway.protocols.postgres.pipeline import Rewritten

_KEPT_BYTES: Final = 4 * 1024 * 1024
_FIRST_CHARACTERS: Final = 1024
_EXCESSIVE: Final = "a statement has too many parts"
_UNREAD: Final = "what the statement does is not known: send it alone"
_UNMASKED: Final = Plan("refuse", "a function by its number may read what you may not see")
_NOT_READ: Final = Plan("refuse", _UNREAD)
_TOO_MUCH: Final = Plan("refuse", _EXCESSIVE)


def planned(
    statement: Statement, veil: Veil | None, made: frozenset[str], *, converted: bool
) -> Plan | None:
    """How a statement runs for a person who may not see everything."""
    if veil is None or statement.error or statement.kind == sql.EMPTY:
        return None
    if statement.kind == sql.FUNCTION_CALL or statement.replication:
        return _UNMASKED
    return veil.plan(statement.text, made, converted=converted)


def with_made(made: frozenset[str], plan: Plan | None) -> frozenset[str]:
    """What the session has made once that has run."""
    creates = plan.creates if plan is not None else ""
    return made | {creates} if creates and len(made) < MOST_MADE else made


def find(
    wanted: Wanted,
    resolve: Callable[[Statement, SessionNames], Facts],
    veil: Veil | None,
    copies: Copies | None,
) -> Iterator[Found]:
    """What is wanted, statement by statement."""
    if wanted.statement is not None:
        statements: tuple[Statement, ...] = (wanted.statement,)
    else:
        statements = requests.statements(wanted.raw, wanted.spoken, sql.analyse)
        if wanted.alone:
            statements = (requests.prepared(statements),)
    meaning, made = wanted.meaning, wanted.made
    for statement in statements:
        facts = resolve(statement, meaning)
        plan = planned(statement, veil, made, converted=wanted.converted)
        copied: tuple[str, ...] | None = None
        if copies is not None and not statement.error:
            copied = copies.of(statement.kinds, statement.relations, statement.text)
        found = Found(statement, facts, plan, copied)
        if plan is not None and plan.edits:
            ran = Rewritten(plan, statement)
            found = msgspec.structs.replace(found, ran=ran.text, ran_recorded=ran.recorded)
        if found.excessive:
            refused = sql.refused(statement, _EXCESSIVE, "54001")
            found = Found(refused, UNKNOWN, _TOO_MUCH if veil is not None else None, ())
        yield found
        meaning, made = facts.after(meaning), with_made(made, plan)


class _Held:
    """One reading, by the texts of its statements."""

    def __init__(self, reading: Reading) -> None:
        self.reading = reading
        self.size = sum(found.size for found in reading.found)
        self.facts: dict[tuple[str, SessionNames], Facts] = {}
        self.plans: dict[tuple[str, frozenset[str]], Found] = {}
        self.copied: dict[str, tuple[str, ...] | None] = {}
        wanted = reading.wanted
        meaning, made = wanted.meaning, wanted.made
        for found in reading.found:
            text = found.statement.text
            if not found.statement.error:
                self.facts[text, meaning] = found.facts
                self.plans[text, made] = found
                self.copied[text] = found.copied
            meaning, made = found.facts.after(meaning), with_made(made, found.plan)

    def fits(self, wanted: Wanted) -> bool:
        """Whether it says what is wanted, or that it cannot be said."""
        if wanted == self.reading.wanted:
            return True
        if wanted.statement is None:
            return False
        text = wanted.statement.text
        return (text, wanted.meaning) in self.facts and (text, wanted.made) in self.plans


class Readings:
    """What is held for one session: what its next message needs, and a little of what came before.

    `view` and `veil` are what is known of the target now: what was found by another is of no use.
    A statement of more than `large` characters is judged by what was read, or refused.
    """

    def __init__(
        self, view: Callable[[], CatalogView], veil: Callable[[], Veil | None], large: int
    ) -> None:
        self._view = view
        self._veil = veil
        self._large = large
        self._held: list[_Held] = []
        self._needed = 0

    def __len__(self) -> int:
        return len(self._held)

    def add(self, reading: Reading) -> None:
        """Hold what was found for the next message."""
        self._held.append(_Held(reading))
        self._needed += 1
        self._trim()

    def taken(self) -> None:
        """The message was taken."""
        if self._needed:
            self._needed = 0
            # Whether there was an answer does not depend on what is asked; it is asked again.
            self._held = [held for held in self._held if not held.reading.why]
            # An idle session is not to hold more than a little.
            self._trim()

    def lacks(self, wanted: Wanted) -> bool:
        """Whether it has to be read."""
        return not any(held.fits(wanted) for held in self._current())

    def statements(self, wanted: Wanted) -> tuple[Statement, ...]:
        """The statements of a text."""
        for held in self._current():
            if held.reading.wanted == wanted and not held.reading.why:
                return tuple([found.statement for found in held.reading.found])
        why, sqlstate = self._why(wanted)
        # What is read no further may hold a credential anywhere; the book has its beginning.
        beginning = wanted.raw[:_FIRST_CHARACTERS].decode("utf-8", "backslashreplace")
        text = f"{why} (it has {wanted.size} bytes)"
        return (sql.unparseable(beginning, text, sqlstate=sqlstate),)

    def facts(self, text: str, meaning: SessionNames) -> Facts | None:
        """What a statement does where names mean that."""
        for held in self._current():
            found = held.facts.get((text, meaning))
            if found is not None:
                return found
        return None

    def found(self, text: str, made: frozenset[str]) -> Found | None:
        """How a statement is masked, and what runs in its place."""
        for held in self._current():
            found = held.plans.get((text, made))
            if found is not None:
                return found
        return None

    def copied(self, text: str) -> tuple[str, ...] | None:
        """What a statement copies, whatever the session has made; None where that is not known."""
        for held in self._current():
            if text in held.copied:
                return held.copied[text]
        return None

    def plan(
        self, statement: Statement, veil: Veil | None, made: frozenset[str], *, converted: bool
    ) -> Plan | None:
        """How a statement runs for a person who may not see everything."""
        if veil is not None and not statement.error:
            found = self.found(statement.text, made) if self._held else None
            if found is not None:
                return found.plan
            if len(statement.text) > self._large:
                return _NOT_READ
        return planned(statement, veil, made, converted=converted)

    def judged(self, statement: Statement, facts: Facts | None) -> Statement:
        """The statement, refused if it is large and was not read; `facts` are what it does."""
        if len(statement.text) <= self._large or statement.error or facts is not None:
            return statement
        for held in self._held:
            wanted = held.reading.wanted
            if (
                held.reading.why
                and wanted.statement is not None
                and (wanted.statement.text == statement.text)
            ):
                return sql.refused(statement, held.reading.why, held.reading.sqlstate)
        return sql.refused(statement, _UNREAD, "54001")

    def _why(self, wanted: Wanted) -> tuple[str, str]:
        for held in self._held:
            if held.reading.wanted == wanted and held.reading.why:
                return held.reading.why, held.reading.sqlstate
        return _UNREAD, "54001"

    def _current(self) -> Iterator[_Held]:
        if not self._held:
            return
        view, veil = self._view(), self._veil()
        for held in self._held:
            if held.reading.view is view and held.reading.veil is veil:
                yield held

    def _trim(self) -> None:
        size = sum(held.size for held in self._held)
        while len(self._held) > self._needed and size > _KEPT_BYTES:
            size -= self._held.pop(0).size
