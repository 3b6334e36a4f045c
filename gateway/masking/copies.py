"""Whether a statement would copy classified values to where nobody knows them to be classified.

Views, children and generated columns are followed; a table that rows are written to is not. For
people who see the values, where the plans of gateway.masking.plan do not apply: a guard-rail, not a
wall, since who reads a value can type it in again. What a predicate reads is not copied.

Values are followed by name, from the columns of the relations that a statement reads through
subqueries, CTEs and functions in FROM: too many at worst.
"""

from __future__ import annotations

import json
import re
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any, Final

from pglast import parser

from gateway.masking.hidden import Hidden, Relation
from gateway.masking.tree import STAR, nodes, strings

WRITING: Final = frozenset(
    {"insert", "update", "merge", "create_table_as", "copy_file", "copy_program", "alter_table"}
)
"""Kinds of statements that may copy."""
UNKNOWN: Final = "?"
"""Stands for columns that cannot be told."""

_INSERTING: Final = frozenset({"insert", "select", "prepare"})
_READING: Final = re.compile(r"select|table|conflict|u&", re.IGNORECASE)
_LARGEST: Final = 64 * 1024
_REMEMBERED: Final = 4096
_PREDICATES: Final = frozenset(
    {"whereClause", "havingClause", "quals", "sortClause", "groupClause", "limitCount",
     "limitOffset", "windowClause", "distinctClause", "infer", "joinCondition", "condition",
     "agg_filter", "usingClause", "typeName", "alias"}
)  # fmt: skip
_STARRED: Final[dict[str, Any]] = {"ColumnRef": {"fields": [{"A_Star": {}}]}}
_BOOLEAN: Final = frozenset({"EXISTS_SUBLINK", "ANY_SUBLINK", "ALL_SUBLINK"})
_WRITES: Final = frozenset(
    {
        "InsertStmt",
        "UpdateStmt",
        "MergeStmt",
        "CreateTableAsStmt",
        "SelectStmt",
        "CopyStmt",
        "AlterTableStmt",
    }
)
_FUNCTIONS: Final = frozenset({"RangeFunction", "RangeTableFunc", "JsonTable"})

_DERIVED: Final = _FUNCTIONS | {"RangeSubselect", "CommonTableExpr", "JoinExpr", "RangeVar"}


class Copies:
    """What may not be copied at one target. `hidden` holds everything that is classified."""

    def __init__(self, hidden: Hidden) -> None:
        self.hidden: Final = hidden
        self._kept = any(_kept(relation) for relation in hidden.protected.values())
        self._bare = tuple({name for _, name in hidden.protected})
        self._known: OrderedDict[str, tuple[str, ...]] = OrderedDict()

    def of(self, kinds: frozenset[str], relations: tuple[str, ...], text: str) -> tuple[str, ...]:
        """The classified columns whose values it would copy; `?` for those of a statement that is
        not known. `kinds` and `relations` are the statement's own.
        """
        if not self._kept or not kinds & WRITING:
            return ()
        executes = "execute" in kinds and "create_table_as" in kinds
        # COPY names no relation here when it has a query.
        if not executes and relations and not any(map(self._concerns, relations)):
            return ()
        if kinds <= _INSERTING and _READING.search(text) is None:
            # INSERT of VALUES alone.
            return ()
        found = self._known.get(text)
        if found is None:
            found = copied(text, self.hidden)
            if len(text) <= _LARGEST:
                self._known[text] = found
                if len(self._known) > _REMEMBERED:
                    self._known.popitem(last=False)
        return found

    def _concerns(self, relation: str) -> bool:
        return relation.endswith(self._bare)


def _kept(relation: Relation) -> frozenset[str]:
    return frozenset(
        column.name
        for column in relation.columns
        if column.mask is not None and column.mask.copies == "refuse"
    )


def said(columns: tuple[str, ...]) -> str:
    """Why a statement that would copy them is refused."""
    shown = "what may be classified" if UNKNOWN in columns else ", ".join(columns)
    return f"it would copy {shown} to where it is not classified"


def copied(text: str, hidden: Hidden) -> tuple[str, ...]:
    """See Copies.of."""
    try:
        tree = json.loads(parser.parse_sql_json(text))
        # Each write is followed with all of the statement in view: it may read a CTE.
        parts = [each for each in nodes(tree["stmts"]) if isinstance(each[1], dict)]
        found: set[str] = set()
        for kind, node in parts:
            if kind in _WRITES:
                found |= _Write(parts, hidden).copies(kind, node)
        return tuple(sorted(found))
    except (parser.ParseError, ValueError, KeyError, TypeError, RecursionError, UnicodeError):
        return (UNKNOWN,)


class _Write:
    """One write, in the statement that it stands in."""

    def __init__(self, parts: list[tuple[str, Any]], hidden: Hidden) -> None:
        self._parts = parts
        self._hidden = hidden
        self._names: set[str] = set()
        self._rows: set[str] = set()
        self._others: set[str] = set()
        self._attributes: set[str] = set()
        self._vague = False
        self._sources: list[Relation] = []

    def copies(self, kind: str, node: dict[str, Any]) -> frozenset[str]:
        """The classified columns that it copies."""
        match kind:
            case "InsertStmt" | "UpdateStmt" | "MergeStmt" | "AlterTableStmt":
                pass
            case "CreateTableAsStmt":
                if node.get("objtype") == "OBJECT_MATVIEW" or node["into"].get("skipData"):
                    # A materialized view is followed.
                    return frozenset()
                if "ExecuteStmt" in node["query"]:
                    return frozenset({UNKNOWN})
            case "SelectStmt":
                if "intoClause" not in node:
                    return frozenset()
            case _:
                if node.get("is_from") or not (node.get("filename") or node.get("is_program")):
                    return frozenset()
        self._taint()
        if not self._sources:
            return frozenset()
        if not any(True for _ in self._leaks(kind, node)):
            return frozenset()
        return self._mentioned()

    def _mentioned(self) -> frozenset[str]:
        named = {strings(value["fields"])[-1] for kind, value in self._parts if kind == "ColumnRef"}
        all_of = {
            f"{relation.full_name}.{name}": name
            for relation in self._sources
            for name in _kept(relation)
        }
        # A star, or a whole row, names none of them.
        shown = {full for full, name in all_of.items() if name in named}
        return frozenset(shown or all_of)

    # --- which names hold what is classified ---

    def _taint(self) -> None:
        for kind, value in self._parts:
            if kind in ("RangeVar", "relation") and "relname" in value:
                self._relation(value)
        derived = [each for each in self._parts if each[0] in _DERIVED] if self._sources else []
        before = -1
        while before != (now := len(self._names) + len(self._rows) + self._vague):
            before = now
            for kind, value in derived:
                self._derive(kind, value)

    def _relation(self, value: dict[str, Any]) -> None:
        schema, name = value.get("schemaname", ""), value["relname"]
        alias = value.get("alias") or {}
        for place in (schema,) if schema else self._hidden.path:
            self._attributes |= self._hidden.attributes.get((place, name), frozenset())
            relation = self._hidden.protected.get((place, name))
            called = alias.get("aliasname") or name
            if relation is None or not _kept(relation):
                self._others.add(called)
                continue
            self._sources.append(relation)
            self._names |= _kept(relation)
            self._rows.add(called)
            self._names.update(strings(alias.get("colnames", [])))

    def _derive(self, kind: str, value: Any) -> None:
        """A subquery's or function's names, where what is classified goes into it."""
        if kind in ("RangeSubselect", "CommonTableExpr"):
            if kind == "RangeSubselect":
                alias = value.get("alias") or {}
                inner, names = value["subquery"], strings(alias.get("colnames", []))
                called = alias.get("aliasname", "")
            else:
                inner, names = value["ctequery"], strings(value.get("aliascolnames", []))
                called = value["ctename"]
            outputs = [
                each
                for query in _selects(inner)
                for each in _outputs(query)
                if self._shows(query, each.get("val"))
            ]
            listed = any(
                self._classified(query.get("valuesLists", [])) for query in _selects(inner)
            )
            if outputs or listed:
                self._rows.add(called)
                self._names.update(names)
            # The columns of VALUES are called column1 and so on.
            self._vague = self._vague or (listed and not names)
            for each in outputs if not names else []:
                self._output(each)
        elif kind in _FUNCTIONS and self._classified(
            {key: each for key, each in value.items() if key != "alias"}
        ):
            alias = value.get("alias") or {}
            self._rows.add(alias.get("aliasname", ""))
            self._names.update(strings(alias.get("colnames", [])))
            # Its columns may go by any name.
            self._vague = True
        elif kind == "JoinExpr" and value.get("alias"):
            if _called([value["larg"], value["rarg"]]) & self._rows:
                self._rows.add(value["alias"].get("aliasname", ""))
                self._names.update(strings(value["alias"].get("colnames", [])))
        elif kind == "RangeVar" and value["relname"] in self._rows:
            alias = value.get("alias") or {}
            self._rows.add(alias.get("aliasname") or value["relname"])
            self._names.update(strings(alias.get("colnames", [])))

    def _output(self, output: dict[str, Any]) -> None:
        if output.get("name"):
            self._names.add(output["name"])
        elif "ColumnRef" not in output.get("val", {}):
            self._vague = True

    def _shows(self, select: dict[str, Any], value: Any) -> bool:
        """Whether an output of that SELECT may hold what is classified."""
        if _path(value) == (STAR,) and "fromClause" in select:
            return bool(_called(select["fromClause"]) & self._rows)
        return self._classified(value)

    def _classified(self, value: Any) -> bool:
        """Whether an expression, or a query, may hold what is classified."""
        return any(self._means(path) for path in _columns(value, predicates=False))

    def _means(self, path: tuple[str, ...]) -> bool:
        name = path[-1]
        if len(path) > 1 and path[-2] in self._others - self._rows:
            return False
        if name == STAR:
            return len(path) == 1 or path[-2] in self._rows
        if len(path) == 1 and name in self._rows:
            return True
        if name in self._names:
            return True
        return self._vague and name not in self._attributes

    # --- what is written where ---

    def _leaks(self, kind: str, node: dict[str, Any]) -> Iterator[str]:
        """Places that are not classified and get what is."""
        match kind:
            case "CreateTableAsStmt":
                yield from self._selected(node["query"], None, [])
            case "SelectStmt":
                yield from self._selected({"SelectStmt": node}, None, [])
            case "CopyStmt" if node.get("query"):
                yield from self._selected(node["query"], None, [])
            case "CopyStmt":
                relation = self._target(node["relation"])
                chosen = set(strings(node.get("attlist", [])))
                if relation is not None and (not chosen or chosen & _kept(relation)):
                    yield STAR
            case "AlterTableStmt":
                target = self._target(node["relation"])
                for each in node.get("cmds", []):
                    command = each["AlterTableCmd"]
                    if command["subtype"] == "AT_AlterColumnType":
                        # ALTER COLUMN … TYPE … USING sets what is in every row.
                        value = command["def"]["ColumnDef"].get("raw_default")
                        yield from self._placed([value], target, [command["name"]])
            case "InsertStmt":
                target = self._target(node["relation"])
                listed = [each["ResTarget"]["name"] for each in node.get("cols", [])]
                if "selectStmt" in node:
                    yield from self._selected(node["selectStmt"], target, listed)
                conflict = node.get("onConflictClause") or {}
                yield from self._assigned(conflict.get("targetList", []), target)
            case "UpdateStmt":
                yield from self._assigned(
                    node.get("targetList", []), self._target(node["relation"])
                )
            case _:
                target = self._target(node["relation"])
                for each in node.get("mergeWhenClauses", []):
                    clause = each["MergeWhenClause"]
                    if clause.get("commandType") == "CMD_INSERT":
                        names = [t["ResTarget"]["name"] for t in clause.get("targetList", [])]
                        yield from self._placed(clause.get("values", []), target, names)
                    else:
                        yield from self._assigned(clause.get("targetList", []), target)

    def _selected(self, query: Any, target: Relation | None, listed: list[str]) -> Iterator[str]:
        for select in _selects(query):
            for row in select.get("valuesLists", []):
                yield from self._placed(row["List"].get("items", []), target, listed)
            values = [each.get("val") for each in _outputs(select)]
            if (STAR,) in map(_path, values) and not self._shows(select, _STARRED):
                continue
            if any(STAR in path for path in map(_path, values) if path):
                values = self._expanded(select, values)
            yield from self._placed(values, target, listed)

    def _expanded(self, select: dict[str, Any], values: list[Any]) -> list[Any]:
        """Of `SELECT * FROM one` the columns; else the values as they are."""
        sources = select.get("fromClause", [])
        if len(values) != 1 or len(sources) != 1 or "RangeVar" not in sources[0]:
            return values
        relation = self._target(sources[0]["RangeVar"])
        if relation is None:
            return values
        return [
            {"ColumnRef": {"fields": [{"String": {"sval": column.name}}]}}
            for column in relation.columns
        ]

    def _placed(
        self, values: list[Any], target: Relation | None, listed: list[str]
    ) -> Iterator[str]:
        names = listed or [column.name for column in target.columns] if target is not None else []
        for place, value in enumerate(values):
            name = names[place] if place < len(names) else ""
            path = _path(value)
            starred = path is not None and STAR in path
            known = target is not None and name in target.hidden and not starred
            if not known and self._classified(value):
                yield name
            if starred:
                # What comes after it is somewhere.
                names = []

    def _assigned(self, targets: list[Any], target: Relation | None) -> Iterator[str]:
        for each in targets:
            name, value = each["ResTarget"]["name"], each["ResTarget"].get("val")
            if target is not None and name in target.hidden:
                continue
            several = value.get("MultiAssignRef") if isinstance(value, dict) else None
            if several:
                row = several["source"].get("RowExpr", {}).get("args")
                value = row[several["colno"] - 1] if row else several["source"]
            if self._classified(value):
                yield name

    def _target(self, node: dict[str, Any]) -> Relation | None:
        schema, name = node.get("schemaname", ""), node["relname"]
        for place in (schema,) if schema else self._hidden.path:
            if (place, name) in self._hidden.protected:
                return self._hidden.protected[place, name]
            if (place, name) in self._hidden.known:
                return None
        return None


def _called(sources: Any) -> set[str]:
    """What may stand for a row of what is in a FROM."""
    found = set()
    for kind, value in nodes(sources):
        if kind == "RangeVar":
            found.add((value.get("alias") or {}).get("aliasname") or value["relname"])
        elif kind == "alias":
            found.add(value.get("aliasname", ""))
    return found


def _path(value: Any) -> tuple[str, ...] | None:
    found = value.get("ColumnRef") if isinstance(value, dict) else None
    return strings(found["fields"]) if found else None


def _outputs(select: dict[str, Any]) -> list[dict[str, Any]]:
    return [each["ResTarget"] for each in select.get("targetList", [])]


def _selects(query: Any) -> Iterator[dict[str, Any]]:
    """The SELECTs of a query without set operations; a change counts by what it returns."""
    stack = [query]
    while stack:
        ((kind, node),) = stack.pop().items()
        if kind != "SelectStmt":
            returning = node.get("returningClause") or {}
            yield {"targetList": returning.get("exprs", [])}
        elif node.get("op", "SETOP_NONE") != "SETOP_NONE":
            stack += [{"SelectStmt": node["larg"]}, {"SelectStmt": node["rarg"]}]
        else:
            yield node


def _columns(node: Any, *, predicates: bool = True) -> Iterator[tuple[str, ...]]:
    """Column references; those of predicates only where they are asked for."""
    stack = [node]
    while stack:
        each = stack.pop()
        if isinstance(each, list):
            stack += each
            continue
        if not isinstance(each, dict):
            continue
        for key, value in each.items():
            if key == "ColumnRef":
                yield strings(value["fields"])
            elif not predicates and key == "SubLink" and value.get("subLinkType") in _BOOLEAN:
                stack.append(value.get("testexpr"))
            elif predicates or key not in _PREDICATES:
                stack.append(value)
