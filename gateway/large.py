"""Large texts, and what is found of them aside: not where every session's words are handled. Pure.

To parse a text of megabytes, to tell what it does and how it is masked takes up to seconds. Whoever
handles a client's words asks for that with `Wanted`, and goes on when the `Reading` is there.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from gateway.masking.plan import Plan
from gateway.policy.facts import Facts, SessionNames
from gateway.policy.sql import Statement

LARGE: Final = 16 * 1024
"""Bytes of a text that is read at once, in 25 ms at worst; what has more is read aside."""
MOST_MADE: Final = 10_000
_MOST_FOUND: Final = 8 * 1024 * 1024


class Spoken(msgspec.Struct, frozen=True):
    """How a text is read: by Python's codec of that name, by what standard_conforming_strings is,
    as a walsender's command or SQL. `uncertain`: settings may be others by the time it is.
    """

    codec: str
    standard_strings: bool
    replication: str
    uncertain: bool


class Wanted(msgspec.Struct, frozen=True):
    """What is to be read: a text as it came, of a Parse if it is `alone`; or a statement of one.

    What it means depends on the session's names (`meaning`), how it is masked on the relations
    that the session has `made`, and on whether the target's letters are `converted`.
    """

    raw: bytes
    spoken: Spoken
    alone: bool
    statement: Statement | None
    meaning: SessionNames
    made: frozenset[str]
    converted: bool

    @property
    def size(self) -> int:
        """In bytes or characters."""
        return len(self.raw) if self.statement is None else len(self.statement.text)


class Found(msgspec.Struct, frozen=True):
    """A statement of the text, what it does, and the classified columns it would have `copied`:
    None where what may not be was not known, which says nothing about what it copies now.

    `plan` is how it is masked for who may not see everything, `ran` and `ran_recorded` what then
    runs in its place, if anything does.
    """

    statement: Statement
    facts: Facts
    plan: Plan | None
    copied: tuple[str, ...] | None
    ran: str = ""
    ran_recorded: str = ""

    @property
    def size(self) -> int:
        """Roughly its bytes in memory."""
        texts = len(self.statement.text) + len(self.statement.recorded)
        texts += len(self.ran) + len(self.ran_recorded)
        return texts + self.facts.cost() + (self.plan.size if self.plan is not None else 0)

    @property
    def excessive(self) -> bool:
        """Whether more was found than is to be remembered, decided on and asked of anybody."""
        planned = self.plan.size if self.plan is not None else 0
        return self.facts.cost() + planned > _MOST_FOUND


class Reading(msgspec.Struct, frozen=True, eq=False):
    """What was found of what was `wanted`, by what is known of the target in that `view` and
    through that `veil`; or `why` nothing was, under which SQLSTATE.
    """

    wanted: Wanted
    found: tuple[Found, ...]
    view: Any
    veil: Any
    why: str = ""
    sqlstate: str = ""
