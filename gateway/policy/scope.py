"""Which columns a name may mean where it stands. Pure."""

from __future__ import annotations

from typing import Any, Final

from gateway.policy.grammar import SYSTEM_COLUMNS

Origins = tuple[str, ...]
NO_ORIGINS: Final[Origins] = ()
_NO_TABLES: Final[frozenset[str]] = frozenset()


class Item:
    """What stands in a FROM clause under one name.

    `columns` maps its columns' names to what they are computed of; an `is_open` one may have
    others, too. `read` are the relations that reading a column reads, where merely naming the
    item does not. `key` tells one relation from another where columns are compared; `not_null`
    are columns that are never null. Columns of a `by_name` one are found only as `item.column`.
    """

    __slots__ = ("alias", "by_name", "columns", "is_open", "key", "not_null", "read", "schema")

    def __init__(
        self,
        alias: str,
        columns: dict[str, Origins],
        is_open: bool = False,
        *,
        schema: str = "",
        read: frozenset[str] = _NO_TABLES,
        key: str = "",
        not_null: frozenset[str] = _NO_TABLES,
        by_name: bool = False,
    ) -> None:
        self.alias = alias
        self.columns = columns
        self.is_open = is_open
        self.schema = schema
        self.read = read
        self.key = key
        self.not_null = not_null
        self.by_name = by_name

    def whole(self) -> Origins:
        """Everything a reference to the whole row reads."""
        return tuple(origin for origins in self.columns.values() for origin in origins)


class Cte:
    """A WITH query: its output columns, or an open one where it refers to itself."""

    __slots__ = ("columns", "is_open")

    def __init__(self, columns: dict[str, Origins], is_open: bool) -> None:
        self.columns = columns
        self.is_open = is_open


class Scope:
    """The names that can be used at one place: those of a query and of the queries around it.

    `outputs` are the names of the query's own results, which ORDER BY and GROUP BY may use.
    `lenient`: names that are found nowhere may be parameters or variables of a function.
    """

    __slots__ = ("ctes", "depth", "items", "lenient", "outer", "outputs", "star")

    def __init__(self, outer: Scope | None, ctes: dict[str, Cte], lenient: bool = False) -> None:
        self.outer = outer
        self.ctes = ctes
        self.items: list[Item] = []
        # Every column in the order of `SELECT *`; None where an open item hides the rest.
        self.star: list[tuple[str, Origins]] | None = []
        self.outputs: set[str] = set()
        self.lenient: bool = lenient or (outer is not None and outer.lenient)
        self.depth: int = outer.depth + 1 if outer is not None else 0


class Found:
    """What a name means: columns, the items they are of, and whether that is certain.

    `missing`: nothing of that name is known here. `call`: it may be a function of a row.
    """

    __slots__ = ("call", "items", "missing", "origins")

    def __init__(
        self, origins: Origins, items: tuple[Item, ...] = (), missing: bool = False, call: str = ""
    ) -> None:
        self.origins = origins
        self.items = items
        self.missing = missing
        self.call = call


_NOTHING: Final = Found(())
_MISSING: Final = Found((), missing=True)


def parts_of(fields: list[dict[str, Any]]) -> tuple[list[str], bool]:
    """The names of a ColumnRef, and whether `*` ends it."""
    names: list[str] = []
    for field in fields:
        text = field.get("String")
        if text is None:
            return names, True
        names.append(text.get("sval", ""))
    return names, False


def look_up(names: list[str], star: bool, scope: Scope) -> Found:
    """What a ColumnRef means in `scope`. More than one answer is all of them."""
    if star:
        return _star(names, scope)
    if len(names) == 1:
        return _unqualified(names[0], scope)
    return _qualified(names[-2], names[-1], names[-3] if len(names) > 2 else "", scope)


def _star(names: list[str], scope: Scope) -> Found:
    if not names:
        items = tuple(item for item in scope.items if not item.by_name)
        return Found(tuple(origin for item in items for origin in item.whole()), items)
    found = _items(names[-1], names[-2] if len(names) > 1 else "", scope)
    if not found:
        return _NOTHING if scope.lenient else _MISSING
    return Found(tuple(origin for item in found for origin in item.whole()), found)


def _unqualified(name: str, scope: Scope) -> Found:
    origins: list[str] = []
    items: list[Item] = []
    certain = True
    level: Scope | None = scope
    while level is not None:
        hit = False
        for item in level.items:
            if item.by_name:
                continue
            there = item.columns.get(name)
            if there is not None:
                origins += there
                items.append(item)
                hit = True
            elif item.is_open:
                certain = False
        if hit and certain:
            return Found(tuple(origins), tuple(items))
        level = level.outer
    whole = _items(name, "", scope)
    if whole:
        # A row may be named like one of its columns; the column goes before.
        if not items:
            return Found(tuple(origin for item in whole for origin in item.whole()), whole)
        return Found(tuple(origins), tuple(items))
    if items or not certain or name in SYSTEM_COLUMNS:
        return Found(tuple(origins), tuple(items))
    level = scope
    while level is not None:
        if name in level.outputs or level.lenient:
            return _NOTHING
        level = level.outer
    return _MISSING


def _items(alias: str, schema: str, scope: Scope) -> tuple[Item, ...]:
    """The items of this name, of the innermost query that has one."""
    level: Scope | None = scope
    while level is not None:
        found = tuple(
            item
            for item in level.items
            if item.alias == alias and (not schema or not item.schema or item.schema == schema)
        )
        if found:
            return found
        level = level.outer
    return ()


def _qualified(alias: str, name: str, schema: str, scope: Scope) -> Found:
    items = _items(alias, schema, scope)
    if not items:
        return _NOTHING if scope.lenient else _MISSING
    origins = [origin for item in items for origin in item.columns.get(name, NO_ORIGINS)]
    if any(name in item.columns for item in items):
        return Found(tuple(origins), items)
    if name in SYSTEM_COLUMNS:
        return Found((), items)
    # `t.f` is `f(t)` where t has no column f.
    whole = tuple(origin for item in items for origin in item.whole())
    return Found(whole, items, missing=not any(i.is_open for i in items), call=name)


def _is_lenient(scope: Scope) -> bool:
    return scope.lenient
