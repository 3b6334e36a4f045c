"""Queries: WITH, FROM, the outputs, set operations. Pure."""

from __future__ import annotations

from typing import Any

from gateway.policy.facts import Output
from gateway.policy.predicates import constant, has_limit
from gateway.policy.reading.expressions import Expressions
from gateway.policy.reading.labels import function_name, hidden, joined, label, named, renamed
from gateway.policy.scope import Cte, Item, Origins, Scope, parts_of


class Queries(Expressions):
    """See the module."""

    def _select_statement(self, value: dict[str, Any], scope: Scope) -> None:
        top, self.is_top = self.is_top, False
        outputs = self.select(value, scope, judged=top)
        if top:
            self._work.outputs = outputs
            self._work.selects = self._where
            self._work.limit = has_limit(value)
            self._work.numbers = self._work.numbers or self._work.limit[1] >= 0

    def select(self, value: dict[str, Any], outer: Scope, judged: bool = False) -> list[Output]:
        """A query; returns its output columns. `judged`: whether it restricts is asked."""
        scope = Scope(outer, outer.ctes, self.lenient)
        if "withClause" in value:
            self._with(value["withClause"], scope)
        if value.get("op", "SETOP_NONE") != "SETOP_NONE":
            return self._set_operation(value, scope, judged)
        into = value.get("intoClause")
        if into is not None:
            self._work.ddl.add("create")
            self._creates(into.get("rel", {}))
        for element in value.get("fromClause", ()):
            self._from(element, scope)
        outputs = self._targets(value.get("targetList", ()), scope)
        scope.outputs = {output.name for output in outputs}
        inside, self._in_output = self._in_output, False
        where = value.get("whereClause")
        if where is not None:
            self.walk(where, scope)
        values = value.get("valuesLists")
        if values is not None:
            # Constants name nothing, and there may be hundreds of thousands of them.
            for entry in values:
                items = entry.get("List", {}).get("items", ())
                self.walk([item for item in items if "A_Const" not in item], scope)
            row = values[0].get("List", {}).get("items", ()) if values else ()
            outputs = [Output(f"column{n}", (), False) for n in range(1, len(row) + 1)]
        for key in (
            "distinctClause", "groupClause", "havingClause", "windowClause", "sortClause",
            "limitCount", "limitOffset",
        ):  # fmt: skip
            part = value.get(key)
            if part is not None:
                self.walk(part, scope)
                if self.bases is not None:
                    self._by_position(part, outputs)
        self._in_output = inside
        # What a locking clause names are names of the FROM clause, read already.
        if judged:
            self._where = self._restricts(where, scope)
        return outputs

    def _by_position(self, clause: Any, outputs: list[Output]) -> None:
        """ORDER BY 1 and GROUP BY an output's name use that output, whoever reads it."""
        for entry in clause if isinstance(clause, list) else [clause]:
            node = entry.get("SortBy", {}).get("node", entry)
            position = constant(node)[1]
            reference = node.get("ColumnRef")
            names = parts_of(reference.get("fields", []))[0] if reference is not None else []
            for index, output in enumerate(outputs, 1):
                if index == position or names == [output.name]:
                    self.elsewhere.update(output.origins)

    def _set_operation(self, value: dict[str, Any], scope: Scope, judged: bool) -> list[Output]:
        """UNION, INTERSECT, EXCEPT: a chain of thousands is no deeper for us than one."""
        arms: list[dict[str, Any]] = []
        ahead = [value]
        while ahead:
            one = ahead.pop()
            if one is not value and (
                "withClause" in one or "sortClause" in one or "limitCount" in one
            ):
                # It has names of its own.
                arms.append(one)
            elif one.get("op", "SETOP_NONE") != "SETOP_NONE":
                ahead.append(one.get("rarg", {}))
                ahead.append(one.get("larg", {}))
            else:
                arms.append(one)
        results, restricted = [], True
        for arm in arms:
            results.append(self.select(arm, scope, judged))
            restricted = restricted and self._where
        self._where = restricted
        first = results[0]
        outputs = []
        for index, output in enumerate(first):
            origins = [
                o for result in results if index < len(result) for o in result[index].origins
            ]
            outputs.append(Output(output.name, tuple(dict.fromkeys(origins)), False))
        scope.outputs = {output.name for output in outputs}
        # ORDER BY of a set operation knows the first arm's names alone.
        for key in ("sortClause", "limitCount", "limitOffset"):
            if key in value:
                self.walk(value[key], scope)
        return outputs

    def _with(self, clause: dict[str, Any], scope: Scope) -> None:
        recursive = bool(clause.get("recursive"))
        scope.ctes = dict(scope.ctes)
        ctes = [cte["CommonTableExpr"] for cte in clause.get("ctes", ())]
        if recursive:
            for cte in ctes:
                names = [name["String"].get("sval", "") for name in cte.get("aliascolnames", ())]
                scope.ctes[cte["ctename"]] = Cte(dict.fromkeys(names, ()), is_open=True)
        for cte in ctes:
            columns, is_open = self._cte(cte, scope)
            scope.ctes[cte["ctename"]] = Cte(columns, is_open or recursive)

    def _cte(self, cte: dict[str, Any], scope: Scope) -> tuple[dict[str, Origins], bool]:
        outputs: list[Output] | None = None
        for kind, query in cte.get("ctequery", {}).items():
            inner = Scope(None, scope.ctes, self.lenient)
            inner.outer, inner.depth = scope.outer, scope.depth + 1
            if kind == "SelectStmt":
                outputs = self.select(query, inner)
            else:
                before, self.is_top = self.is_top, False
                self._returned = []
                self._statement(kind, query, inner)
                self.is_top = before
                outputs = self._returned
        names = [name["String"].get("sval", "") for name in cte.get("aliascolnames", ())]
        for key in ("search_clause", "cycle_clause"):
            if key in cte:
                return named(outputs or [], names), True
        open_ended = any(output.name == "*" for output in outputs or ())
        return named(outputs or [], names), outputs is None or open_ended

    def _targets(self, targets: Any, scope: Scope) -> list[Output]:
        outputs: list[Output] = []
        work = self._work
        inside, self._in_output = self._in_output, True
        for target in targets:
            node = target.get("ResTarget")
            if node is None:
                self.walk(target, scope)
                continue
            value = node.get("val", {})
            reference = value.get("ColumnRef")
            if reference is not None:
                outputs += self._bare(node, reference, scope)
                continue
            columns, work.columns = work.columns, set()
            self.walk(value, scope)
            found = work.columns
            work.columns = columns | found
            outputs.append(Output(node.get("name") or label(value), tuple(sorted(found)), False))
        self._in_output = inside
        return outputs

    def _bare(self, node: dict[str, Any], reference: dict[str, Any], scope: Scope) -> list[Output]:
        names, star = parts_of(reference.get("fields", []))
        found = self.column(reference, scope)
        if not star:
            whole = not any(names[-1] in item.columns for item in found.items)
            name = node.get("name") or (names[-1] if names else "?column?")
            return [Output(name, found.origins, bare=not whole and len(found.items) == 1)]
        if not names:
            if scope.star is not None:
                return [Output(name, o, bool(o)) for name, o in scope.star]
        elif found.items and not any(item.is_open for item in found.items):
            return [
                Output(name, o, bool(o)) for item in found.items for name, o in item.columns.items()
            ]
        return [Output("*", found.origins, False)]

    def _from(self, element: dict[str, Any], scope: Scope) -> None:
        columns = self._from_element(element, scope)
        if columns is None or scope.star is None:
            scope.star = None
        else:
            scope.star += columns

    def _from_element(
        self, element: dict[str, Any], scope: Scope
    ) -> list[tuple[str, Origins]] | None:
        """Adds an element's items to the scope; returns its columns in order, None if unknown."""
        for kind, value in element.items():
            match kind:
                case "RangeVar":
                    item = self._relation_item(value, scope)
                case "JoinExpr":
                    return self._join(value, scope)
                case "RangeSubselect":
                    item = self._subselect(value, scope)
                case "RangeTableSample":
                    self.walk(value.get("args", []), scope)
                    return self._from_element(value.get("relation", {}), scope)
                case "RangeFunction" | "RangeTableFunc" | "JsonTable":
                    item = self._computed(kind, value, scope)
                case _:
                    self._work.unknown.add(f"node {kind}")
                    self.walk(element, scope)
                    return None
            scope.items.append(item)
            return None if item.is_open else list(item.columns.items())
        return None

    def _relation_item(self, value: dict[str, Any], scope: Scope) -> Item:
        """A relation that is read."""
        name, schema = value.get("relname", ""), value.get("schemaname", "")
        alias = value.get("alias", {})
        shown = alias.get("aliasname", name)
        if not schema and name in scope.ctes:
            cte = scope.ctes[name]
            columns = renamed(cte.columns, alias)
            return Item(shown, columns, cte.is_open, key=f"with {name}")
        found = self._found(value, reads=True, scope=scope)
        columns, is_open = self._columns_of(found, bool(value.get("inh")))
        if self.bases is not None and scope.depth <= 1:
            self.bases += found
        return Item(
            shown,
            renamed(columns, alias),
            is_open,
            schema="" if alias else (schema or ""),
            key=found[0].full if found else name,
        )

    def _subselect(self, value: dict[str, Any], scope: Scope) -> Item:
        outer = scope if value.get("lateral") else hidden(scope)
        alias = value.get("alias", {})
        query = value.get("subquery", {}).get("SelectStmt", {})
        bases, self.bases = self.bases, None
        top, self.is_top = self.is_top, False
        outputs = self.select(query, outer)
        self.bases, self.is_top = bases, top
        columns = named(outputs, [])
        is_open = any(output.name == "*" for output in outputs)
        return Item(alias.get("aliasname", ""), renamed(columns, alias), is_open)

    def _computed(self, kind: str, value: dict[str, Any], scope: Scope) -> Item:
        """A function, XMLTABLE or JSON_TABLE in FROM."""
        alias = value.get("alias", {})
        name = alias.get("aliasname", "")
        columns: dict[str, Origins] = {}
        if kind == "RangeFunction":
            self.walk(value.get("functions", []), scope)
            for definition in value.get("coldeflist", ()):
                columns[definition.get("ColumnDef", {}).get("colname", "")] = ()
            if not name:
                name = function_name(value)
        else:
            name = name or ("xmltable" if kind == "RangeTableFunc" else "json_table")
            rest = {key: part for key, part in value.items() if key != "alias"}
            self.walk(rest, scope)
        columns |= {c["String"].get("sval", ""): () for c in alias.get("colnames", ())}
        return Item(name, columns, is_open=True, key=f"function {name}")

    def _join(self, value: dict[str, Any], scope: Scope) -> list[tuple[str, Origins]] | None:
        first = len(scope.items)
        left = self._from_element(value.get("larg", {}), scope)
        middle = len(scope.items)
        right = self._from_element(value.get("rarg", {}), scope)
        using = [name["String"].get("sval", "") for name in value.get("usingClause", ())]
        if value.get("isNatural"):
            names = {n for item in scope.items[first:middle] for n in item.columns}
            others = {n for item in scope.items[middle:] for n in item.columns}
            using = [n for n, _ in left or () if n in others] or sorted(names & others)
        for name in using:
            for item in scope.items[first:]:
                self._use(item.columns.get(name, ()))
        if "quals" in value:
            inside, self._in_output = self._in_output, False
            self.walk(value["quals"], scope)
            self._in_output = inside
        columns = joined(left, right, using)
        using_alias = value.get("join_using_alias")
        if using_alias is not None:
            merged = {
                name: tuple(o for item in scope.items[first:] for o in item.columns.get(name, ()))
                for name in using
            }
            scope.items.append(Item(using_alias.get("aliasname", ""), merged, by_name=True))
        alias = value.get("alias")
        if alias is None:
            return columns
        # The names inside are hidden behind the join's own.
        inner = scope.items[first:]
        del scope.items[first:]
        merged = {}
        for name, origins in columns or [pair for item in inner for pair in item.columns.items()]:
            merged[name] = merged.get(name, ()) + origins
        is_open = columns is None
        item = Item(alias.get("aliasname", ""), renamed(merged, alias), is_open)
        scope.items.append(item)
        return None if is_open else list(item.columns.items())
