"""Whether which rows a view has, or their order, depends on what is hidden.

Masking a view's columns does not hide who is in `people where salary > 1000`, nor what an order by
salary says. Columns are followed by name through what is in FROM: too many at worst.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, Final

from pglast import parser

from gateway.masking.tree import STAR, nodes, strings

_MANY: Final = re.compile(
    "unnest|generate_s.*|.*_each(_text)?|.*_elements(_text)?|.*_to_table|.*_matches|.*_keys"
    "|.*_recordset|.*_path_query(_tz)?|ts_.*|_pg_expandarray|aclexplode"
)
"""Functions that make several rows of one."""
_ALWAYS: Final = (
    "whereClause", "groupClause", "havingClause", "sortClause", "limitCount", "limitOffset",
)  # fmt: skip
_MERGED: Final = ("distinctClause", "targetList", "larg", "rarg")


def chooses(definition: str, hidden: Callable[[str, str], frozenset[str] | None]) -> bool:
    """Whether the rows of a view do. `hidden` are a relation's hidden columns by schema and name:
    None where it has none.
    """
    try:
        (statement,) = json.loads(parser.parse_sql_json(definition))["stmts"]
        return _Definition(statement["stmt"]["SelectStmt"], hidden).chooses()
    except (parser.ParseError, ValueError, KeyError, TypeError, RecursionError):
        return True


class _Definition:
    """`_tainted` are names that hidden columns may have in it, `_whole` those of whole rows."""

    def __init__(
        self, query: dict[str, Any], hidden: Callable[[str, str], frozenset[str] | None]
    ) -> None:
        self._query = query
        self._tainted: set[str] = set()
        self._whole: set[str] = set()
        self._harmless: set[str] = set()
        for key, value in nodes(query):
            if key != "RangeVar":
                continue
            alias = (value.get("alias") or {}).get("aliasname") or value["relname"]
            names = hidden(value.get("schemaname", ""), value["relname"])
            if names is not None:
                self._tainted |= names
                self._tainted.update(strings((value.get("alias") or {}).get("colnames", [])))
                self._whole.add(alias)
            elif value.get("schemaname"):
                self._harmless.add(alias)
        self._harmless -= self._whole

    def chooses(self) -> bool:
        if not self._tainted:
            return False
        self._rename()
        return any(self._row(key, value) for key, value in [("", self._query), *nodes(self._query)])

    def _rename(self) -> None:
        """Follow columns through other names."""
        before = -1
        while before != len(self._tainted):
            before = len(self._tainted)
            for key, value in nodes(self._query):
                if key == "ResTarget" and value.get("name") and self._shows(value.get("val")):
                    self._tainted.add(value["name"])
                elif isinstance(value, dict):
                    names = value.get("aliascolnames") or (value.get("alias") or {}).get("colnames")
                    if names and self._shows({"": value}):
                        self._tainted.update(strings(names))

    def _shows(self, node: Any) -> bool:
        """Whether it mentions what may be hidden, but for whether that is NULL."""
        stack = [node]
        while stack:
            each = stack.pop()
            if isinstance(each, list):
                stack += each
            elif isinstance(each, dict):
                for key, value in each.items():
                    if key == "ColumnRef":
                        if self._hidden(strings(value["fields"])):
                            return True
                    elif not (key == "NullTest" and "ColumnRef" in value.get("arg", {})):
                        stack.append(value)
        return False

    def _hidden(self, path: tuple[str, ...]) -> bool:
        if len(path) > 1 and path[-2] in self._harmless:
            return False
        return path[-1] in self._tainted or path[-1] == STAR or path[-1] in self._whole

    def _row(self, key: str, value: Any) -> bool:
        """Whether this part of it chooses rows by what is hidden."""
        match key:
            case "JoinExpr":
                using = self._tainted & set(strings(value.get("usingClause", [])))
                return bool(value.get("isNatural") or using or self._shows(value.get("quals")))
            case "RangeFunction" | "RangeTableFunc" | "JsonTable":
                return self._shows(value)
            case "RangeTableSample":
                return self._shows(value.get("args"))
            case "FuncCall" if _MANY.fullmatch(strings(value["funcname"])[-1]):
                return self._shows(value.get("args"))
        if not isinstance(value, dict) or "op" not in value or "limitOption" not in value:
            return False
        if any(self._shows(value.get(part)) for part in _ALWAYS):
            return True
        merged = value["op"] != "SETOP_NONE" and not (
            value["op"] == "SETOP_UNION" and value.get("all")
        )
        placed = any("A_Const" in each["SortBy"]["node"] for each in value.get("sortClause", []))
        if merged or placed or value.get("distinctClause"):
            return self._shows([value.get(part) for part in _MERGED])
        return False
