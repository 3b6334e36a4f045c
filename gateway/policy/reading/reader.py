"""Statements of every kind. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from gateway.policy import grammar
from gateway.policy.reading.definitions import Definitions
from gateway.policy.scope import Scope


class Reader(Definitions):
    """Reads one statement's tree into `work`."""

    def statement(self, node: dict[str, Any]) -> None:
        """One statement: `{"SelectStmt": {...}}`."""
        for kind, value in node.items():
            self._statement(kind, value, Scope(None, {}, self.lenient))

    def _statement(self, kind: str, value: dict[str, Any], scope: Scope) -> None:
        ddl = grammar.DDL.get(kind)
        if ddl is not None:
            self._work.ddl.add(ddl)
        special = _STATEMENTS.get(kind)
        if special is not None:
            special(self, value, scope)
        elif ddl is not None:
            self._define(kind, value, scope)
        elif kind in grammar.PLAIN_STATEMENTS:
            self.walk(value, scope)
        else:
            self._work.unknown.add(f"statement {kind}")
            self._work.unsettles = self._work.opaque = True
            self.walk(value, scope)

    def _explain(self, value: dict[str, Any], scope: Scope) -> None:
        self.walk({key: part for key, part in value.items() if key != "options"}, scope)

    def _lock(self, value: dict[str, Any], scope: Scope) -> None:
        for entry in value.get("relations", ()):
            self._found(entry.get("RangeVar", {}), reads=True, scope=scope)

    def _do(self, value: dict[str, Any], scope: Scope) -> None:
        self._work.unsettles = self._work.opaque = True
        self._resolver.block(value, self._work)

    def _call(self, value: dict[str, Any], scope: Scope) -> None:
        stack: list[Any] = []
        self._function_node(value.get("funccall", {}), scope, stack)
        self.walk(stack, scope)

    def _execute(self, value: dict[str, Any], scope: Scope) -> None:
        self._work.executes.add(value.get("name", ""))
        self._work.unsettles = self._work.opaque = True
        self.walk(value.get("params", []), scope)

    def _set(self, value: dict[str, Any], scope: Scope) -> None:
        if value.get("name", "").lower() in grammar.UNSETTLING:
            self._work.unsettles = True

    def _load(self, value: dict[str, Any], scope: Scope) -> None:
        self._work.files.add("LOAD")
        self._work.unsettles = True


_Special = Callable[[Reader, dict[str, Any], Scope], None]
_STATEMENTS: Final[dict[str, _Special]] = {
    "AlterExtensionStmt": Reader._extension,
    "CallStmt": Reader._call,
    "ClusterStmt": Reader._maintain,
    "CommentStmt": Reader._comment,
    "CopyStmt": Reader._copy,
    "CreateExtensionStmt": Reader._extension,
    "CreateForeignTableStmt": Reader._create_table,
    "CreateFunctionStmt": Reader._create_function,
    "CreateSeqStmt": Reader._create_sequence,
    "CreateStmt": Reader._create_table,
    "CreateTableAsStmt": Reader._create_as,
    "DeleteStmt": Reader._delete,
    "DoStmt": Reader._do,
    "DropStmt": Reader._drop,
    "ExecuteStmt": Reader._execute,
    "ExplainStmt": Reader._explain,
    "GrantStmt": Reader._grant,
    "InsertStmt": Reader._insert,
    "LoadStmt": Reader._load,
    "LockStmt": Reader._lock,
    "MergeStmt": Reader._merge,
    "RefreshMatViewStmt": Reader._refresh,
    "RuleStmt": Reader._create_rule,
    "SecLabelStmt": Reader._comment,
    "SelectStmt": Reader._select_statement,
    "TruncateStmt": Reader._truncate,
    "UpdateStmt": Reader._update,
    "VacuumStmt": Reader._maintain,
    "VariableSetStmt": Reader._set,
    "ViewStmt": Reader._create_view,
}
