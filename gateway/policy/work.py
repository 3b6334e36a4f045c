"""What is found of a statement while it is read. Pure."""

from __future__ import annotations

from typing import Final

from gateway.policy.catalog import Relation
from gateway.policy.facts import Output, Reference, SessionNames
from gateway.policy.scope import Origins

UNSURE: Final = SessionNames(certain=False, opaque=True)
"""Where a text may run under any search_path: the body of a function."""


class Work:
    """What has been found so far. Also what a view, rule or function body adds wherever used."""

    __slots__ = (
        "classifies", "columns", "ddl", "executes", "files", "functions", "kinds", "limit", "links",
        "notes", "numbers", "opaque", "outputs", "reads", "references", "selects", "temporary",
        "uncertain", "unknown", "unsettles", "views", "wheres", "writes", "written_columns",
    )  # fmt: skip

    def __init__(self) -> None:
        self.kinds: set[str] = set()
        self.reads: set[str] = set()
        self.writes: set[str] = set()
        self.columns: set[str] = set()
        self.written_columns: set[str] = set()
        self.functions: set[str] = set()
        self.ddl: set[str] = set()
        self.classifies: set[str] = set()
        self.files: set[str] = set()
        self.links: set[str] = set()
        self.unknown: set[str] = set()
        # What is risky for reasons that no other field shows: (class, words).
        self.notes: set[tuple[str, str]] = set()
        # One entry for each UPDATE and DELETE: whether its WHERE restricts.
        self.wheres: list[bool] = []
        # Whether the outermost query has a WHERE, a LIMIT, and which number.
        self.selects = False
        self.limit: tuple[bool, int] = (False, -1)
        self.uncertain = self.unsettles = self.opaque = self.numbers = False
        self.temporary: set[str] = set()
        self.views: set[str] = set()
        self.executes: set[str] = set()
        self.references: list[Reference] = []
        self.outputs: list[Output] = []

    def add(self, other: Work) -> None:
        """Take over what `other` found, but where it found it."""
        self.kinds |= other.kinds
        self.reads |= other.reads
        self.writes |= other.writes
        self.columns |= other.columns
        self.written_columns |= other.written_columns
        self.functions |= other.functions
        self.ddl |= other.ddl
        self.classifies |= other.classifies
        self.files |= other.files
        self.links |= other.links
        self.unknown |= other.unknown
        self.notes |= other.notes
        self.wheres += other.wheres
        self.uncertain = self.uncertain or other.uncertain
        self.unsettles = self.unsettles or other.unsettles
        self.opaque = self.opaque or other.opaque
        self.temporary |= other.temporary
        self.views |= other.views
        self.executes |= other.executes


class Source:
    """What reading a relation reads: `tables`, and for each column what it is computed of.
    `always` is read with any column of it (a view's conditions, its functions).
    """

    __slots__ = ("always", "bases", "columns", "tables")

    def __init__(
        self,
        tables: frozenset[str],
        columns: dict[str, Origins],
        always: Work | None,
        bases: tuple[Relation, ...] = (),
    ) -> None:
        self.tables = tables
        self.columns = columns
        self.always = always
        self.bases = bases
