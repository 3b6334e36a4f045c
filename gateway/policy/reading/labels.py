"""Names of outputs and of what stands in FROM. Pure."""

from __future__ import annotations

from typing import Any

from gateway.policy.facts import Output
from gateway.policy.scope import Origins, Scope, parts_of


def named(outputs: list[Output], names: list[str]) -> dict[str, Origins]:
    """Outputs by name; the first of them are called `names`."""
    columns: dict[str, Origins] = {}
    for index, output in enumerate(outputs):
        name = names[index] if index < len(names) else output.name
        columns[name] = columns.get(name, ()) + output.origins
    for name in names[len(outputs) :]:
        columns[name] = ()
    return columns


def renamed(columns: dict[str, Origins], alias: dict[str, Any]) -> dict[str, Origins]:
    names = alias.get("colnames")
    if not names:
        return columns
    new = [name["String"].get("sval", "") for name in names]
    result: dict[str, Origins] = {}
    for index, (name, origins) in enumerate(columns.items()):
        shown = new[index] if index < len(new) else name
        result[shown] = result.get(shown, ()) + origins
    for name in new[len(columns) :]:
        result.setdefault(name, ())
    return result


def joined(
    left: list[tuple[str, Origins]] | None,
    right: list[tuple[str, Origins]] | None,
    using: list[str],
) -> list[tuple[str, Origins]] | None:
    if left is None or right is None:
        return None
    if not using:
        return left + right
    merged = []
    for name in using:
        origins = [o for n, origins in (*left, *right) if n == name for o in origins]
        merged.append((name, tuple(origins)))
    rest = [pair for pair in (*left, *right) if pair[0] not in using]
    return merged + rest


def hidden(scope: Scope) -> Scope:
    """The scope of a subquery in FROM that is not LATERAL: its neighbours are hidden."""
    inner = Scope(scope.outer, scope.ctes, scope.lenient)
    inner.depth = scope.depth
    return inner


def label(value: dict[str, Any]) -> str:
    """The name PostgreSQL gives an output that has none."""
    for kind, node in value.items():
        match kind:
            case "FuncCall":
                names = node.get("funcname", [])
                return str(names[-1].get("String", {}).get("sval", "")) if names else "?column?"
            case "TypeCast":
                inner = label(node.get("arg", {}))
                names = node.get("typeName", {}).get("names", [])
                if inner != "?column?" or not names:
                    return inner
                return str(names[-1].get("String", {}).get("sval", ""))
            case "ColumnRef":
                names = parts_of(node.get("fields", []))[0]
                return names[-1] if names else "?column?"
            case "A_Indirection":
                parts = [p.get("String", {}).get("sval") for p in node.get("indirection", ())]
                named = [str(part) for part in parts if part]
                return named[-1] if named else label(node.get("arg", {}))
            case "CaseExpr":
                return "case"
            case "CoalesceExpr":
                return "coalesce"
            case "SubLink":
                return sublink_label(node)
            case "A_ArrayExpr":
                return "array"
            case "RowExpr":
                return "row"
            case _:
                return "?column?"
    return "?column?"


def sublink_label(node: dict[str, Any]) -> str:
    if node.get("subLinkType") == "EXISTS_SUBLINK":
        return "exists"
    if node.get("subLinkType") == "ARRAY_SUBLINK":
        return "array"
    targets = node.get("subselect", {}).get("SelectStmt", {}).get("targetList", [])
    if not targets:
        return "?column?"
    first = targets[0].get("ResTarget", {})
    return str(first.get("name") or label(first.get("val", {})))


def function_name(value: dict[str, Any]) -> str:
    for entry in value.get("functions", ()):
        for part in entry.get("List", {}).get("items", ()):
            names = part.get("FuncCall", {}).get("funcname")
            if names:
                return str(names[-1].get("String", {}).get("sval", ""))
    return ""
