"""What a statement does, as far as it is known. Pure.

Facts err to one side: where more than one answer is possible they hold all of them, and what is
not understood is named in `unknown`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Protocol

import msgspec

from gateway.policy.sql import Statement

RISKS: Final = ("none", "low", "medium", "high", "critical")
_NOTHING: Final[frozenset[str]] = frozenset()


class Reference(msgspec.Struct, frozen=True):
    """A relation where a statement names it: `start` is the byte at which the name begins in the
    statement's text, `alias` by what its columns are called there. `relations` are those it may
    be. `writes`: it is the target of a change; `depth` counts the queries around it.
    """

    start: int
    alias: str
    relations: tuple[str, ...]
    writes: bool = False
    only: bool = False
    depth: int = 0


class Output(msgspec.Struct, frozen=True):
    """A column of the result. `origins` are the columns it is computed of; where it is `bare` it
    is the first of them, unchanged.
    """

    name: str
    origins: tuple[str, ...]
    bare: bool


class SessionNames(msgspec.Struct, frozen=True, cache_hash=True):
    """What of a session decides which relation a name means.

    `certain`: nothing has run that may change search_path. `temporary` are the names of temporary
    tables it made, `views` those of temporary views; `opaque`: something ran that may have made
    others.
    """

    certain: bool = True
    opaque: bool = False
    temporary: frozenset[str] = _NOTHING
    views: frozenset[str] = _NOTHING


_ENTRY_BYTES: Final = 1024
_NAME_BYTES: Final = 100
_PART_BYTES: Final = 400
_NAMES: Final = (
    "kinds", "tables_read", "tables_written", "columns_read", "columns_written", "functions", "ddl",
    "classifies", "files", "links", "unknown", "temporary", "views", "executes",
)  # fmt: skip


class Facts(msgspec.Struct, frozen=True, eq=False):
    """A statement's facts. Equal ones are one object (`Resolver`), so that they compare quickly.

    Relations, columns and functions are full names. `unknown` says what was not understood, each
    in words; `uncertain`: names may mean less than what is held here. `ddl` are classes
    (`create`, `alter`, `drop`, `truncate`, `grant`, `role`, `extension`, …), `files` and `links`
    what it does with files and programs of the server, and with other servers. `limit` is -1
    where none is known. `classifies` are columns whose comment, which classifies them, is set,
    moved or removed.

    `owners` are (relation, role that owns it). `unsettles`, `opaque`, `temporary` and `views` are
    what it does to the session (`after`); `executes` are prepared statements that it runs.
    """

    kinds: frozenset[str] = _NOTHING
    tables_read: frozenset[str] = _NOTHING
    tables_written: frozenset[str] = _NOTHING
    columns_read: frozenset[str] = _NOTHING
    columns_written: frozenset[str] = _NOTHING
    functions: frozenset[str] = _NOTHING
    ddl: frozenset[str] = _NOTHING
    classifies: frozenset[str] = _NOTHING
    files: frozenset[str] = _NOTHING
    links: frozenset[str] = _NOTHING
    unknown: frozenset[str] = _NOTHING
    risks: tuple[str, ...] = ()
    risk: str = "none"
    has_where: bool = False
    has_limit: bool = False
    limit: int = -1
    uncertain: bool = False
    unsettles: bool = False
    opaque: bool = False
    temporary: frozenset[str] = _NOTHING
    views: frozenset[str] = _NOTHING
    executes: frozenset[str] = _NOTHING
    owners: frozenset[tuple[str, str]] = frozenset()
    references: tuple[Reference, ...] = ()
    outputs: tuple[Output, ...] = ()

    def cost(self) -> int:
        """Roughly what they take of memory: as much as whoever asks has written into it."""
        found = _ENTRY_BYTES
        for field in _NAMES:
            names = getattr(self, field)
            if names:
                found += _NAME_BYTES * len(names) + sum(map(len, names))
        return found + _PART_BYTES * (len(self.owners) + len(self.references) + len(self.outputs))

    def after(self, session: SessionNames) -> SessionNames:
        """The session once the statement may have run."""
        if not (self.unsettles or self.opaque or self.temporary or self.views):
            return session
        return SessionNames(
            certain=session.certain and not self.unsettles,
            opaque=session.opaque or self.opaque,
            temporary=session.temporary | self.temporary,
            views=session.views | self.views,
        )


class Resolve(Protocol):
    """Says what a statement does. `inner` is what an EXECUTE in it runs, where that is known.
    `given` is what was found of either before, by their texts.
    """

    def __call__(
        self,
        statement: Statement,
        meaning: SessionNames,
        inner: Statement | None,
        given: Mapping[str, Facts],
        /,
    ) -> Facts: ...


NONE: Final = Facts()
"""Of a statement that does nothing."""
UNKNOWN: Final = Facts(
    unknown=frozenset({"the statement was not analysed"}),
    uncertain=True,
    unsettles=True,
    opaque=True,
    risk="high",
    risks=("the statement was not analysed",),
)
"""Of a statement that nobody looked into."""


def together(one: Facts, other: Facts) -> Facts:
    """What both do; what comes out is `other`'s."""
    return Facts(
        kinds=one.kinds | other.kinds,
        tables_read=one.tables_read | other.tables_read,
        tables_written=one.tables_written | other.tables_written,
        columns_read=one.columns_read | other.columns_read,
        columns_written=one.columns_written | other.columns_written,
        functions=one.functions | other.functions,
        ddl=one.ddl | other.ddl,
        classifies=one.classifies | other.classifies,
        files=one.files | other.files,
        links=one.links | other.links,
        unknown=one.unknown | other.unknown,
        risks=tuple(dict.fromkeys(other.risks + one.risks)),
        risk=max(one.risk, other.risk, key=RISKS.index),
        has_where=other.has_where,
        has_limit=other.has_limit,
        limit=other.limit,
        uncertain=one.uncertain or other.uncertain,
        unsettles=one.unsettles or other.unsettles,
        opaque=one.opaque or other.opaque,
        temporary=one.temporary | other.temporary,
        views=one.views | other.views,
        owners=one.owners | other.owners,
        references=other.references,
        outputs=other.outputs,
    )
