"""One statement's parse tree, read once: what it refers to, and where.

The tree is libpg_query's JSON. It is walked with a stack of its own, since a statement may be
nested deeper than Python recurses. A node that is not listed here is not understood, and what is
not understood is refused.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

_QUERIES: Final = frozenset({"SelectStmt", "InsertStmt", "UpdateStmt", "DeleteStmt", "MergeStmt"})
_WRITES: Final = _QUERIES - {"SelectStmt"}
_UNDERSTOOD: Final = _QUERIES | {
    "A_ArrayExpr", "A_Const", "A_Expr", "A_Indices", "A_Indirection", "A_Star", "BitString",
    "BoolExpr", "Boolean", "BooleanTest", "CaseExpr", "CaseWhen", "CoalesceExpr", "CollateClause",
    "ColumnDef", "ColumnRef", "CommonTableExpr", "CurrentOfExpr", "DefElem", "Float", "FuncCall",
    "GroupingFunc", "GroupingSet", "IndexElem", "Integer", "JoinExpr", "JsonAggConstructor",
    "JsonArgument", "JsonArrayAgg", "JsonArrayConstructor", "JsonArrayQueryConstructor",
    "JsonBehavior", "JsonFuncExpr", "JsonIsPredicate", "JsonKeyValue", "JsonObjectAgg",
    "JsonObjectConstructor", "JsonOutput", "JsonParseExpr", "JsonScalarExpr", "JsonSerializeExpr",
    "JsonTable", "JsonTableColumn", "JsonTablePathSpec", "JsonValueExpr", "List",
    "LockingClause", "MergeWhenClause", "MinMaxExpr", "MultiAssignRef", "NamedArgExpr",
    "NullTest", "ParamRef", "RangeFunction", "RangeSubselect", "RangeTableFunc",
    "RangeTableFuncCol", "RangeTableSample", "RangeVar", "ResTarget", "RowExpr",
    "SQLValueFunction", "SetToDefault", "SortBy", "String", "SubLink", "TypeCast", "TypeName",
    "WindowDef", "XmlExpr", "XmlSerialize",
}  # fmt: skip
# Names of what is created or given another name, not references.
_NAMES_ONLY: Final = frozenset({"alias", "join_using_alias"})


@dataclass(frozen=True, slots=True)
class Reference:
    """A name in FROM, or the target of a write. `at` is its offset in the statement, in bytes."""

    schema: str
    name: str
    catalog: str
    alias: str
    renames: bool
    only: bool
    sampled: bool
    writes: bool
    at: int


@dataclass(slots=True)
class Reading:
    """What a statement's tree says.

    `columns` are the column references that are not outputs of the outermost query, `outputs` those
    that are: place, name, alias. `equalities` are columns that the outermost WHERE compares with
    constants, and those; `parameters` counts how often each one stands there. `settings` are what
    set_config is called for, empty where that is no constant. Of the `aliases` of all that is in
    FROM, `derived` are those of subqueries, CTEs and functions, `joins` those of joins. `notations`
    are names that may be calls of functions (`x.f` is `f(x)`), `types` those of casts, `conflicts`
    what an ON CONFLICT speaks of.
    """

    references: list[Reference] = field(default_factory=list)
    columns: list[tuple[str, ...]] = field(default_factory=list)
    outputs: list[tuple[int, tuple[str, ...], str]] = field(default_factory=list)
    equalities: list[tuple[tuple[str, ...], list[Any]]] = field(default_factory=list)
    parameters: Counter[int] = field(default_factory=Counter)
    functions: list[tuple[str, ...]] = field(default_factory=list)
    operators: set[tuple[str, ...]] = field(default_factory=set)
    settings: list[str] = field(default_factory=list)
    notations: list[tuple[str, ...]] = field(default_factory=list)
    merged: set[str] = field(default_factory=set)
    aliases: set[str] = field(default_factory=set)
    derived: set[str] = field(default_factory=set)
    joins: set[str] = field(default_factory=set)
    natural: bool = False
    nested_writes: bool = False
    conflicts: list[dict[str, Any]] = field(default_factory=list)
    types: set[str] = field(default_factory=set)
    unknown: str = ""


STAR: Final = "*"


def strings(nodes: list[Any]) -> tuple[str, ...]:
    """The names in a list of String nodes; A_Star is `*`."""
    return tuple(
        node["String"].get("sval", "") if "String" in node else STAR
        for node in nodes
        if "String" in node or "A_Star" in node
    )


def nodes(node: Any) -> Iterator[tuple[str, Any]]:
    """Everything within, with its name."""
    stack = [node]
    while stack:
        each = stack.pop()
        if isinstance(each, list):
            stack += each
        elif isinstance(each, dict):
            for key, value in each.items():
                yield key, value
                stack.append(value)


def _column(node: Any) -> tuple[str, ...] | None:
    found = node.get("ColumnRef") if isinstance(node, dict) else None
    return strings(found["fields"]) if found else None


def _constant_setting(args: list[Any]) -> str:
    """The name in set_config's arguments, empty where it is no constant."""
    first = (args or [{}])[0].get("A_Const", {})
    return str(first.get("sval", {}).get("sval", ""))


def constant(node: Any) -> bool:
    """Whether it is a literal or a parameter, cast or not."""
    while isinstance(node, dict) and "TypeCast" in node:
        node = node["TypeCast"].get("arg")
    return isinstance(node, dict) and ("A_Const" in node or "ParamRef" in node)


def read(kind: str, statement: dict[str, Any]) -> Reading:
    """A SELECT, INSERT, UPDATE, DELETE or MERGE, `kind` being its node's name."""
    reading = Reading()
    reader = _Reader(reading)
    reader.top(kind, statement)
    while reader.stack:
        reader.step(*reader.stack.pop())
    return reading


class _Reader:
    """Walks a tree. Each entry of `stack` is a node and the names of the CTEs that it sees."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self.stack: list[tuple[Any, frozenset[str]]] = []

    def top(self, kind: str, statement: dict[str, Any]) -> None:
        """The outermost query: its outputs are told apart from other references."""
        reading = self._reading
        reading.operators.add(("=",))
        rest = dict(statement)
        simple = kind == "SelectStmt" and statement.get("op", "SETOP_NONE") == "SETOP_NONE"
        if kind in _WRITES:
            returning = rest.pop("returningClause", None) or {}
            outputs = returning.get("exprs", [])
            if returning.get("options"):
                reading.unknown = "RETURNING with options"
        else:
            outputs = rest.pop("targetList", []) if simple else []
        others = []
        for place, target in enumerate(outputs):
            result = target["ResTarget"]
            column = _column(result.get("val"))
            if column is None:
                others.append(target)
            else:
                reading.outputs.append((place, column, result.get("name", "")))
                if len(column) > 1:
                    reading.notations.append(column)
        if simple or kind in ("UpdateStmt", "DeleteStmt"):
            condition, reading.equalities = _equalities(rest.get("whereClause"))
            others += [each for _, constants in reading.equalities for each in constants]
            if condition is None:
                rest.pop("whereClause", None)
            else:
                rest["whereClause"] = condition
        env = self._query(kind, rest, frozenset())
        self.stack.append((others, env))

    def step(self, node: Any, env: frozenset[str]) -> None:
        """Take one node; what is in it comes later."""
        if isinstance(node, list):
            # There may be a million constants, and nothing is in one.
            self.stack += [
                (each, env) for each in node if not isinstance(each, dict) or "A_Const" not in each
            ]
            return
        if not isinstance(node, dict):
            return
        for key, value in node.items():
            if not key[:1].isupper():
                if key == "typeName":
                    self._reading.types.update(strings(value.get("names", []))[-1:])
                elif key not in _NAMES_ONLY:
                    self.stack.append((value, env))
                continue
            self._named(key, value, env)

    def _named(self, kind: str, value: Any, env: frozenset[str]) -> None:
        reading = self._reading
        if kind not in _UNDERSTOOD:
            reading.unknown = reading.unknown or kind
            return
        match kind:
            case "ColumnRef":
                path = strings(value["fields"])
                reading.columns.append(path)
                if len(path) > 1:
                    reading.notations.append(path)
            case "RangeVar":
                self._range(value, env, writes=False, sampled=False)
            case "RangeTableSample":
                relation = value.get("relation", {})
                if "RangeVar" in relation:
                    self._range(relation["RangeVar"], env, writes=False, sampled=True)
                else:
                    self.stack.append((relation, env))
                self.stack.append((value.get("args", []), env))
            case "FuncCall":
                path = strings(value["funcname"])
                if path in (("set_config",), ("pg_catalog", "set_config")):
                    reading.settings.append(_constant_setting(value.get("args", [])))
                else:
                    reading.functions.append(path)
                self.stack += [(v, env) for k, v in value.items() if k != "funcname"]
            case "A_Expr":
                reading.operators.add(strings(value.get("name", [])))
                self.stack += [
                    (v, env)
                    for k, v in value.items()
                    if k != "name"
                    and (isinstance(v, list) or (isinstance(v, dict) and "A_Const" not in v))
                ]
            case "SubLink":
                reading.operators.add(strings(value.get("operName", [])))
                self.stack += [(v, env) for k, v in value.items() if k != "operName"]
            case "SortBy":
                reading.operators.add(strings(value.get("useOp", [])))
                self.stack.append((value.get("node"), env))
            case "A_Indirection":
                for each in strings(value.get("indirection", [])):
                    reading.columns.append(("", each))
                    reading.notations.append(("", each))
                self.stack.append((value, env))
            case "JoinExpr":
                reading.natural |= bool(value.get("isNatural"))
                reading.merged.update(strings(value.get("usingClause", [])))
                self._alias(value)
                self.stack += [(v, env) for k, v in value.items() if k != "usingClause"]
            case "RangeSubselect" | "RangeFunction" | "RangeTableFunc" | "JsonTable":
                self._alias(value)
                self.stack.append((value, env))
            case "IndexElem":
                if value.get("name"):
                    reading.columns.append((value["name"],))
                reading.operators.add(strings(value.get("opclass", [])))
                self.stack.append((value.get("expr"), env))
            case "ParamRef":
                reading.parameters[value.get("number", 0)] += 1
            case "LockingClause":
                pass
            case "ResTarget" if value.get("indirection") and value.get("name"):
                # A part of a value is put into what is there.
                reading.columns.append((value["name"],))
                self.stack.append((value, env))
            case _ if kind in _QUERIES:
                if kind in _WRITES:
                    reading.nested_writes = True
                self._query(kind, value, env)
            case _:
                self.stack.append((value, env))

    def _alias(self, value: dict[str, Any]) -> None:
        for key in ("alias", "join_using_alias"):
            alias = value.get(key) or {}
            if alias.get("aliasname"):
                self._reading.aliases.add(alias["aliasname"])
                kind = self._reading.joins if "larg" in value else self._reading.derived
                kind.add(alias["aliasname"])
            # A join's columns go by other names.
            self._reading.natural |= "larg" in value and bool(alias.get("colnames"))

    def _query(self, kind: str, query: dict[str, Any], env: frozenset[str]) -> frozenset[str]:
        """A query's parts; returns the CTEs they see."""
        clause = query.get("withClause") or {}
        names = [each["CommonTableExpr"]["ctename"] for each in clause.get("ctes", [])]
        inner = env.union(names)
        before: set[str] = set()
        for each in clause.get("ctes", []):
            cte = each["CommonTableExpr"]
            # Without RECURSIVE a CTE sees those before it; its own name is still a table's.
            seen = inner if clause.get("recursive") else env.union(before)
            self.stack.append((cte["ctequery"], seen))
            before.add(cte["ctename"])
            self._reading.aliases.add(cte["ctename"])
            self._reading.derived.add(cte["ctename"])
            for clause_name in ("search_clause", "cycle_clause"):
                if clause_name in cte:
                    self._reading.unknown = self._reading.unknown or clause_name
        for key, value in query.items():
            if key == "withClause":
                continue
            if key == "intoClause":
                self._reading.unknown = self._reading.unknown or "SELECT INTO"
            elif key == "relation" and kind in _WRITES:
                self._range(value, frozenset(), writes=True, sampled=False)
            elif key in ("larg", "rarg") and kind == "SelectStmt":
                self._query("SelectStmt", value, inner)
            elif key == "onConflictClause":
                self._on_conflict(value, inner)
            else:
                self.stack.append((value, inner))
        return inner

    def _on_conflict(self, clause: dict[str, Any], env: frozenset[str]) -> None:
        """`SET email = excluded.email` is what the client itself sent."""
        kept = []
        self._reading.conflicts.append(clause)
        for target in clause.get("targetList", []):
            column = _column(target["ResTarget"].get("val"))
            part = target["ResTarget"].get("indirection")
            if part or column is None or len(column) != 2 or column[0] != "excluded":
                kept.append(target)
        self.stack.append(({**clause, "targetList": kept}, env))

    def _range(
        self, value: dict[str, Any], env: frozenset[str], *, writes: bool, sampled: bool
    ) -> None:
        schema, name = value.get("schemaname", ""), value["relname"]
        alias = value.get("alias") or {}
        self._reading.aliases.add(alias.get("aliasname") or name)
        if not schema and name in env:
            self._reading.derived.add(alias.get("aliasname") or name)
            return
        self._reading.references.append(
            Reference(
                schema=schema,
                name=name,
                catalog=value.get("catalogname", ""),
                alias=alias.get("aliasname", ""),
                renames=bool(alias.get("colnames")),
                only=not value.get("inh", False),
                sampled=sampled,
                writes=writes,
                at=value.get("location", -1),
            )
        )


def _equalities(condition: Any) -> tuple[Any, list[tuple[tuple[str, ...], list[Any]]]]:
    """`condition` without its conjuncts `column = constant`, and those: columns and constants."""
    if not isinstance(condition, dict):
        return condition, []
    together = condition.get("BoolExpr")
    conjuncts = together["args"] if together and together["boolop"] == "AND_EXPR" else [condition]
    kept, found = [], []
    for each in conjuncts:
        equality = _equality(each.get("A_Expr"))
        if equality is None:
            kept.append(each)
        else:
            found.append(equality)
    if not found:
        return condition, []
    return ({"BoolExpr": {"boolop": "AND_EXPR", "args": kept}} if kept else None), found


def _equality(node: Any) -> tuple[tuple[str, ...], list[Any]] | None:
    """`column = constant` or `column IN (constants)`."""
    if not node or strings(node.get("name", [])) != ("=",):
        return None
    left, right = node.get("lexpr"), node.get("rexpr")
    if node.get("kind") == "AEXPR_IN":
        column, listed = _column(left), right.get("List", {}).get("items", [])
        if column is not None and STAR not in column and listed and all(map(constant, listed)):
            return column, listed
    if node.get("kind") != "AEXPR_OP":
        return None
    for one, other in ((left, right), (right, left)):
        column = _column(one)
        if column is not None and STAR not in column and constant(other):
            return column, [other]
    return None
