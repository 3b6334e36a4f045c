"""Statements that change rows: INSERT, UPDATE, DELETE, MERGE, COPY. Pure."""

from __future__ import annotations

from typing import Any

from gateway.policy.catalog import Relation
from gateway.policy.facts import Output
from gateway.policy.reading.queries import Queries
from gateway.policy.scope import Item, Origins, Scope


class Changes(Queries):
    """See the module."""

    def _target(
        self, value: dict[str, Any], scope: Scope, event: str
    ) -> tuple[Item, list[Relation]]:
        """The relation a statement writes. It is read only where its columns are."""
        found = self._found(value, reads=False, scope=scope, event=event)
        inherited = bool(value.get("inh"))
        columns, is_open = self._columns_of(found, inherited)
        alias = value.get("alias", {})
        tables: set[str] = set()
        for relation in found:
            source = self._resolver.source(relation, inherited)
            tables |= source.tables
            if source.always is not None:
                self._work.add(source.always)
        not_null = frozenset(c.name for r in found for c in r.columns if c.not_null)
        item = Item(
            alias.get("aliasname", value.get("relname", "")),
            columns,
            is_open,
            schema="" if alias else value.get("schemaname", ""),
            read=frozenset(tables),
            key=found[0].full if found else value.get("relname", ""),
            not_null=not_null if len(found) == 1 else frozenset(),
        )
        scope.items.append(item)
        return item, found

    def _returning(self, value: dict[str, Any], scope: Scope, target: Item) -> None:
        clause = value.get("returningClause")
        outputs: list[Output] = []
        if clause is not None:
            names = {"old", "new"}
            for option in clause.get("options", ()):
                names.add(option.get("ReturningOption", {}).get("value", ""))
            inner = Scope(scope.outer, scope.ctes, self.lenient)
            inner.items = list(scope.items)
            inner.star = [pair for item in scope.items for pair in item.columns.items()]
            for name in names:
                inner.items.append(
                    Item(
                        name,
                        target.columns,
                        target.is_open,
                        read=target.read,
                        key=target.key,
                        by_name=True,
                    )
                )
            outputs = self._targets(clause.get("exprs", ()), inner)
        self._returned = outputs
        if self.is_top:
            self._work.outputs = outputs

    def _insert(self, value: dict[str, Any], outer: Scope) -> None:
        work = self._work
        scope = Scope(outer, outer.ctes, self.lenient)
        if "withClause" in value:
            self._with(value["withClause"], scope)
        top, self.is_top = self.is_top, False
        query = value.get("selectStmt", {}).get("SelectStmt")
        conflict = value.get("onConflictClause")
        if query is not None:
            source = Scope(outer, scope.ctes, self.lenient)
            inside, self._in_output = self._in_output, False
            self.select(query, source)
            self._in_output = inside
        target, found = self._target(value.get("relation", {}), scope, "INSERT")
        self._assigned(value.get("cols"), target, found)
        if conflict is not None:
            inner = Scope(scope, scope.ctes, self.lenient)
            # What would have been inserted is no column that is read.
            nothing: dict[str, Origins] = dict.fromkeys(target.columns, ())
            inner.items.append(Item("excluded", nothing, target.is_open, by_name=True))
            self.walk(conflict.get("infer", {}), scope)
            if conflict.get("action") == "ONCONFLICT_UPDATE":
                work.kinds.add("update")
                # It updates no more rows than are inserted.
                work.wheres.append(True)
                for relation in found:
                    work.add(self._resolver.writing(relation, "UPDATE"))
                self._assignments(conflict.get("targetList", ()), target, found, inner)
            if "whereClause" in conflict:
                self.walk(conflict["whereClause"], inner)
        self.is_top = top
        self._returning(value, scope, target)

    def _assigned(self, columns: Any, target: Item, found: list[Relation]) -> None:
        """Columns an INSERT or COPY writes: those named, or all."""
        names = [c.get("ResTarget", {}).get("name", "") for c in columns] if columns else None
        self._written(names, target, found)

    def _written(self, names: list[str] | None, target: Item, found: list[Relation]) -> None:
        work = self._work
        for name in target.columns if names is None else names:
            origins = target.columns.get(name)
            if origins is not None:
                work.written_columns.update(origins)
            elif found and not target.is_open:
                work.unknown.add(f"column {name}")

    def _assignments(self, targets: Any, target: Item, found: list[Relation], scope: Scope) -> None:
        names = []
        for entry in targets:
            node = entry.get("ResTarget", {})
            names.append(node.get("name", ""))
            self.walk([node.get("val", {}), node.get("indirection", [])], scope)
        self._written(names, target, found)

    def _update(self, value: dict[str, Any], outer: Scope) -> None:
        scope = Scope(outer, outer.ctes, self.lenient)
        if "withClause" in value:
            self._with(value["withClause"], scope)
        top, self.is_top = self.is_top, False
        target, found = self._target(value.get("relation", {}), scope, "UPDATE")
        for element in value.get("fromClause", ()):
            self._from(element, scope)
        self._assignments(value.get("targetList", ()), target, found, scope)
        self._changed_where(value, scope)
        self.is_top = top
        self._returning(value, scope, target)

    def _delete(self, value: dict[str, Any], outer: Scope) -> None:
        scope = Scope(outer, outer.ctes, self.lenient)
        if "withClause" in value:
            self._with(value["withClause"], scope)
        top, self.is_top = self.is_top, False
        target, _ = self._target(value.get("relation", {}), scope, "DELETE")
        # A list of FROM elements here; the names of columns elsewhere.
        for element in value.get("usingClause", ()):
            self._from(element, scope)
        self._changed_where(value, scope)
        self.is_top = top
        self._returning(value, scope, target)

    def _changed_where(self, value: dict[str, Any], scope: Scope) -> None:
        where = value.get("whereClause")
        if where is not None:
            self.walk(where, scope)
        target = value.get("relation", {}).get("relname", "")
        self._work.wheres.append(self._restricts(where, scope, target))

    def _merge(self, value: dict[str, Any], outer: Scope) -> None:
        work = self._work
        scope = Scope(outer, outer.ctes, self.lenient)
        if "withClause" in value:
            self._with(value["withClause"], scope)
        top, self.is_top = self.is_top, False
        target, found = self._target(value.get("relation", {}), scope, "")
        self._from(value.get("sourceRelation", {}), scope)
        self.walk(value.get("joinCondition", {}), scope)
        joined = self._restricts(
            value.get("joinCondition"), scope, value.get("relation", {}).get("relname", "")
        )
        for entry in value.get("mergeWhenClauses", ()):
            clause = entry.get("MergeWhenClause", {})
            event = clause.get("commandType", "").removeprefix("CMD_")
            if "condition" in clause:
                self.walk(clause["condition"], scope)
            if event not in ("INSERT", "UPDATE", "DELETE"):
                continue
            work.kinds.add(event.lower())
            for relation in found:
                work.add(self._resolver.writing(relation, event))
            if event != "INSERT":
                kind = clause.get("matchKind", "")
                narrowed = self._restricts(clause.get("condition"), scope)
                work.wheres.append(narrowed or (joined and kind == "MERGE_WHEN_MATCHED"))
            if event == "UPDATE":
                self._assignments(clause.get("targetList", ()), target, found, scope)
            elif event == "INSERT":
                self._assigned(clause.get("targetList"), target, found)
                self.walk(clause.get("values", []), scope)
        self.is_top = top
        self._returning(value, scope, target)

    def _copy(self, value: dict[str, Any], scope: Scope) -> None:
        work = self._work
        if value.get("is_program"):
            work.files.add("COPY PROGRAM")
        elif value.get("filename"):
            work.files.add("COPY FILE")
        if "query" in value:
            self.walk(value["query"], scope)
        self.walk(value.get("options", []), scope)
        relation = value.get("relation")
        if relation is None:
            return
        names = [name["String"].get("sval", "") for name in value.get("attlist", ())] or None
        if value.get("is_from"):
            target, found = self._target(relation, scope, "INSERT")
            self._written(names, target, found)
            if "whereClause" in value:
                self.walk(value["whereClause"], scope)
            return
        found = self._found({**relation, "inh": True}, reads=True, scope=scope)
        columns, is_open = self._columns_of(found, True)
        for name in columns if names is None else names:
            if name in columns:
                self._use(columns[name])
            elif not is_open:
                work.unknown.add(f"column {name}")
