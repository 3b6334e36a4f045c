"""What one person may not see at one target, with what must be known of the target to hide it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

MaskName = Literal["full", "partial", "email", "token", "year", "bucket", "null", "literal"]
Use = Literal["rewrite", "refuse"]
Copying = Literal["refuse", "allow"]
Scans = Literal["any", "not alone", "none"]
"""Of indexes: any, not those that read the index alone, none but bitmaps."""

TEXT: Final = frozenset({"text", "varchar", "bpchar", "name", "citext"})
"""Types whose values are the same bytes in text and in binary format."""
JSON: Final = frozenset({"json", "jsonb"})
EVERY: Final = "*"
"""In a pointer: every element of an array, or member of an object."""
PUMPED: Final = frozenset({"full", "partial", "email", "token", "null", "literal"})
"""Masks that the gateway itself can put on a value of these types."""


COMPUTED: Final = "computed"
"""The class of what is made of hidden values."""


@dataclass(frozen=True, slots=True)
class Equality:
    """Predicates `column = constant` may be answered from the clear value, for a reason, with so
    many distinct values per person and hour.
    """

    reason: str
    budget: int


@dataclass(frozen=True, slots=True)
class Part:
    """What is at `pointer` in a JSON document: keys, or `*` for every element or member."""

    pointer: tuple[str, ...]
    mask: Mask


@dataclass(frozen=True, slots=True)
class Mask:
    """How values of a class are shown. `literal` and `size` are for the masks of these names.
    Where `parts` are given, those alone are masked in a JSON document.

    `use` is what a statement gets that uses the column otherwise than as an output, `copies` what
    one gets that would copy it to where nothing is classified. `origin` is
    the declared column, schema.table.column, that this one's values are; empty for computed ones.
    """

    classification: str
    name: MaskName
    literal: str = ""
    size: int = 0
    equality: Equality | None = None
    origin: str = ""
    use: Use = "rewrite"
    copies: Copying = "refuse"
    parts: tuple[Part, ...] = ()


def computed(sources: Iterable[Mask]) -> Mask:
    """Of a column that is made of these, in whatever way."""
    given = list(sources)
    strict = any(mask.use == "refuse" for mask in given)
    kept = not given or any(mask.copies == "refuse" for mask in given)
    return Mask(
        COMPUTED,
        "full",
        use="refuse" if strict else "rewrite",
        copies="refuse" if kept else "allow",
    )


@dataclass(frozen=True, slots=True)
class Column:
    """One column. `type` is its base type's name in pg_type, `length` of char(n) and varchar(n)
    or 0. `mask` is set where the person may not see it. A `virtual` one is computed when it is
    read, and may fail then by what it is computed of.
    """

    name: str
    number: int
    type: str
    declared: str
    length: int = 0
    mask: Mask | None = None
    virtual: bool = False

    @property
    def pumped(self) -> bool:
        """Whether the gateway can mask its values as they pass."""
        if self.mask is not None and self.virtual:
            return False
        if self.mask is None or (self.mask.name == "null" and not self.mask.parts):
            return True
        # What a view computes may fail, or be NULL, by what is hidden.
        computed = self.mask.classification == COMPUTED
        return self.type in TEXT and self.mask.name in PUMPED and not computed


@dataclass(frozen=True, slots=True)
class Relation:
    """A relation with a column that the person may not see."""

    oid: int
    schema: str
    name: str
    columns: tuple[Column, ...]
    hidden: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        names = frozenset(column.name for column in self.columns if column.mask)
        object.__setattr__(self, "hidden", names)

    @property
    def full_name(self) -> str:
        """For people."""
        return f"{self.schema}.{self.name}"


@dataclass(frozen=True, slots=True)
class Hidden:
    """`protected` by (schema, name). `known` are all relations, `path` is where unqualified names
    are looked for, after pg_catalog.

    `functions` may be called; `shadowing` are names that a user-defined function has, `operators`
    those that a user-defined operator has. `uncallable` are all functions' names that may not be
    called, `types` those whose casts or constraints run such a function. `attributes` are the
    columns of every relation; `ruled` relations have rules, `unique` columns unique indexes
    (a relation's hidden ones). The rows of `closed` relations depend on what is hidden. `together`
    are a relation's columns that one constraint or index is of, and which of them are hidden.
    `scans` of indexes tell no order of what is hidden.
    """

    database: str
    protected: Mapping[tuple[str, str], Relation]
    known: frozenset[tuple[str, str]]
    path: tuple[str, ...]
    functions: frozenset[str]
    shadowing: frozenset[str]
    operators: frozenset[str]
    token_keys: Mapping[str, bytes] = field(default_factory=dict)
    uncallable: frozenset[str] = frozenset()
    types: frozenset[str] = frozenset()
    attributes: Mapping[tuple[str, str], frozenset[str]] = field(default_factory=dict)
    ruled: frozenset[tuple[str, str]] = frozenset()
    unique: Mapping[tuple[str, str], frozenset[str]] = field(default_factory=dict)

    closed: frozenset[tuple[str, str]] = frozenset()
    together: Mapping[tuple[str, str], tuple[tuple[frozenset[str], frozenset[str]], ...]] = field(
        default_factory=dict
    )
    scans: Scans = "any"

    def by_origin(self) -> dict[tuple[int, int], Column]:
        """Hidden columns by (table OID, column number), as a RowDescription names them."""
        return {
            (relation.oid, column.number): column
            for relation in self.protected.values()
            for column in relation.columns
            if column.mask is not None
        }
