"""What a target's catalog holds, as one immutable snapshot. Pure.

Names are written `schema.relation.column`. A part that holds a dot or a quote is quoted, so that
two different things never have one name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from gateway.introspection import Rows

SYSTEM: Final = frozenset({"pg_catalog", "information_schema", "pg_toast"})
_OWN_LANGUAGES: Final = frozenset({"internal", "c"})


def name_of(*parts: str) -> str:
    """`a.b.c`, quoted where that would be ambiguous."""
    return ".".join(
        '"' + part.replace('"', '""') + '"' if "." in part or '"' in part or not part else part
        for part in parts
    )


def parts_of(name: str) -> list[str]:
    """The parts of a full name."""
    if '"' not in name:
        return name.split(".")
    parts, at = [], 0
    while at < len(name):
        if name[at] == '"':
            end = at + 1
            while name[end : end + 2] == '""' or name[end] != '"':
                end += 2 if name[end : end + 2] == '""' else 1
            parts.append(name[at + 1 : end].replace('""', '"'))
            at = end + 2
        else:
            end = name.find(".", at)
            end = len(name) if end < 0 else end
            parts.append(name[at:end])
            at = end + 1
    return parts


def is_temporary(schema: str) -> bool:
    """Whether it is a schema of some session's temporary relations."""
    return schema == "pg_temp" or schema.startswith("pg_temp_")


class Column(msgspec.Struct, frozen=True):
    """A column. `type` as format_type writes it."""

    name: str
    number: int
    type: str = ""
    not_null: bool = False


class Cascade(msgspec.Struct, frozen=True):
    """What a foreign key does to the relation `oid` when a row it refers to is deleted or
    updated: `a` and `r` do nothing, others write.
    """

    oid: int
    on_delete: str
    on_update: str


class Relation(msgspec.Struct, frozen=True, eq=False):
    """A table, view, sequence, … `kind` and `persistence` are pg_class's letters.

    `definition` is a view's query, `rules` the texts of rules for writing, `triggers` the OIDs of
    the functions that writing calls. `children` inherit from it or are its partitions.
    `full` is its name, `origins` maps its columns' names to their full names. `tagged` are columns
    whose comment classifies them, whoever made it.
    """

    oid: int
    schema: str
    name: str
    kind: str
    columns: tuple[Column, ...]
    persistence: str = "p"
    owner: str = ""
    definition: str = ""
    parents: tuple[int, ...] = ()
    children: tuple[int, ...] = ()
    rules: tuple[str, ...] = ()
    triggers: tuple[int, ...] = ()
    cascades: tuple[Cascade, ...] = ()
    full: str = ""
    origins: dict[str, tuple[str, ...]] = {}
    tagged: frozenset[str] = frozenset()

    @property
    def is_view(self) -> bool:
        """Whether what it holds is read elsewhere. PostgreSQL's own views are what they say."""
        return bool(self.definition)


class Function(msgspec.Struct, frozen=True, eq=False):
    """A function, procedure or aggregate. `volatility` is `i`, `s` or `v`; `definition` is its
    CREATE FUNCTION where its language is one that we read. `calls` are functions it calls for
    what it is (an aggregate's transition function).
    """

    oid: int
    schema: str
    name: str
    volatility: str = "v"
    language: str = "internal"
    definer: bool = False
    least: int = 0
    most: int = 0
    definition: str = ""
    calls: tuple[int, ...] = ()
    full: str = ""

    @property
    def is_own(self) -> bool:
        """Whether PostgreSQL or a library brings it, rather than the target's people."""
        return self.schema in SYSTEM or self.language in _OWN_LANGUAGES

    def takes(self, count: int) -> bool:
        """Whether it can be called with so many arguments."""
        return self.least <= count <= self.most


class Operator(msgspec.Struct, frozen=True):
    """An operator that is not PostgreSQL's own, and the function it calls."""

    schema: str
    name: str
    function: int


class Snapshot:
    """A target's catalog at one moment. `version` is equal where the catalogs are."""

    def __init__(
        self,
        relations: Iterable[Relation],
        functions: Iterable[Function] = (),
        operators: Iterable[Operator] = (),
        path: tuple[str, ...] = ("pg_catalog", "public"),
        version: str = "",
    ) -> None:
        self.version = version
        # The server looks in pg_catalog first unless the path itself names it.
        self.path: Final = path if "pg_catalog" in path else ("pg_catalog", *path)
        self.relations: Final[Mapping[int, Relation]] = {r.oid: r for r in relations}
        self.functions: Final[Mapping[int, Function]] = {f.oid: f for f in functions}
        self._relations: dict[str, list[Relation]] = {}
        self._functions: dict[str, list[Function]] = {}
        self._operators: dict[str, list[Operator]] = {}
        self.schemas: Final = {r.schema for r in self.relations.values()}
        for relation in self.relations.values():
            self._relations.setdefault(relation.name, []).append(relation)
        for function in self.functions.values():
            self._functions.setdefault(function.name, []).append(function)
        for operator in operators:
            self._operators.setdefault(operator.name, []).append(operator)
        self.owner: Final = {r.full: r.owner for r in self.relations.values()}
        self.column_names: Final = {n for r in self.relations.values() for n in r.origins}
        self.tagged: Final = [r for r in self.relations.values() if r.tagged]
        self.known = bool(version)

    def named(self, name: str) -> list[Relation]:
        """Relations of this name, in any schema."""
        return self._relations.get(name, [])

    def functions_named(self, name: str) -> list[Function]:
        """Functions of this name, in any schema."""
        return self._functions.get(name, [])

    @property
    def operators(self) -> list[Operator]:
        """Those that are not PostgreSQL's own."""
        return [operator for named in self._operators.values() for operator in named]

    def operators_named(self, name: str) -> list[Operator]:
        """Operators of this name that are not PostgreSQL's own."""
        return self._operators.get(name, [])

    def descendants(self, relation: Relation) -> list[Relation]:
        """Its partitions and the tables that inherit from it, at any depth."""
        return self._reach(relation, "children")

    def ancestors(self, relation: Relation) -> list[Relation]:
        """What it is a partition of or inherits from."""
        return self._reach(relation, "parents")

    def _reach(self, relation: Relation, link: str) -> list[Relation]:
        found: dict[int, Relation] = {}
        ahead = list(getattr(relation, link))
        while ahead:
            oid = ahead.pop()
            next_one = self.relations.get(oid)
            if next_one is not None and oid not in found:
                found[oid] = next_one
                ahead += getattr(next_one, link)
        return list(found.values())


EMPTY: Final = Snapshot(())
"""Before a catalog is read, nothing is known."""


def build(rows: Rows) -> Snapshot:
    """A snapshot of what was read."""
    columns: dict[int, tuple[Column, ...]] = {
        oid: tuple(map(Column, names, numbers, types, not_null))
        for oid, names, numbers, types, not_null, *_ in rows.columns
    }
    parents = _gathered(rows.inherits)
    children = _gathered((parent, child) for child, parent in rows.inherits)
    rules = _gathered(rows.rules)
    triggers = _gathered(rows.triggers)
    cascades = _gathered(
        (referred, Cascade(oid, on_delete, on_update))
        for oid, referred, on_delete, on_update, *_ in rows.references
    )
    tagged: dict[int, set[str]] = {}
    for oid, number, *_ in rows.comments:
        found = (column.name for column in columns.get(oid, ()) if column.number == number)
        tagged.setdefault(oid, set()).update(found)
    relations = [
        full_relation(
            Relation(
                oid=oid,
                schema=schema,
                name=name,
                kind=kind,
                persistence=persistence,
                owner=owner,
                definition=definition or "",
                columns=columns.get(oid, ()),
                parents=parents.get(oid, ()),
                children=children.get(oid, ()),
                rules=rules.get(oid, ()),
                triggers=triggers.get(oid, ()),
                cascades=cascades.get(oid, ()),
                tagged=frozenset(tagged.get(oid, ())),
            )
        )
        for oid, schema, name, kind, persistence, owner, definition in rows.relations
    ]
    functions = [
        full_function(
            Function(
                oid=oid,
                schema=schema,
                name=name,
                volatility=volatility,
                language=language,
                definer=definer,
                least=least,
                most=most,
                definition=definition or "",
                calls=tuple(calls or ()),
            )
        )
        for (
            oid, schema, name, volatility, language, definer, least, most, definition, calls, *_
        ) in rows.functions
    ]  # fmt: skip
    operators = [Operator(*row[:3]) for row in rows.operators]
    return Snapshot(relations, functions, operators, rows.path, rows.version)


def full_relation(given: Relation) -> Relation:
    """The same with `full` and `origins`."""
    # One's own temporary relations are all that one sees of them.
    full = name_of("pg_temp" if is_temporary(given.schema) else given.schema, given.name)
    origins = {column.name: (f"{full}.{name_of(column.name)}",) for column in given.columns}
    return msgspec.structs.replace(given, full=full, origins=origins)


def full_function(given: Function) -> Function:
    """The same with `full`."""
    return msgspec.structs.replace(given, full=name_of(given.schema, given.name))


def _gathered(pairs: Iterable[tuple[Any, ...]]) -> dict[int, tuple[Any, ...]]:
    lists: dict[int, list[Any]] = {}
    for key, value in pairs:
        lists.setdefault(key, []).append(value)
    return {key: tuple(values) for key, values in lists.items()}
