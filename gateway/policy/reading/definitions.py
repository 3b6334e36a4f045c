"""Statements that change what a database is: CREATE, ALTER, DROP, GRANT, TRUNCATE, … Pure."""

from __future__ import annotations

from typing import Any, Final

from gateway.policy import grammar
from gateway.policy.catalog import SYSTEM, Relation, is_temporary, name_of
from gateway.policy.reading.classifying import Classifying
from gateway.policy.scope import Item, Scope
from gateway.policy.work import UNSURE


class Definitions(Classifying):
    """See the module."""

    def _define(self, kind: str, value: dict[str, Any], scope: Scope) -> None:
        """A definition: what it mentions is changed, what it queries is read."""
        work = self._work
        if kind in _LINKING:
            work.links.add(_LINKING[kind])
        if kind in _FILING:
            work.files.add(_FILING[kind])
        inner = Scope(scope, scope.ctes, lenient=True)
        # Expressions in it are over columns that it may itself define.
        inner.items.append(Item("", {}, is_open=True))
        relation = value.get("relation")
        found: list[Relation] = []
        if isinstance(relation, dict):
            found = self._resolver.relations(
                relation.get("schemaname", ""), relation.get("relname", ""), self._meaning, work
            )
            columns, _ = self._columns_of(found, True)
            inner.items.append(Item(relation.get("relname", ""), columns, is_open=True))
            if kind == "RenameStmt" and any(is_temporary(r.schema) for r in found):
                work.temporary.add(value.get("newname", ""))
        if kind == "AlterTableStmt":
            self._altered(value, found)
        elif kind in _MOVING:
            self._renamed(value, found)
        elif kind in _HANDING_OVER:
            self._all_say()
        self.walk(value, inner)

    def _create_table(self, value: dict[str, Any], scope: Scope) -> None:
        inner = Scope(scope, scope.ctes, lenient=True)
        inner.items.append(Item("", {}, is_open=True))
        body = value.get("base", value)
        made = self._creates(body.get("relation", {}))
        if "base" in value:
            # A foreign table reads what its server says, and file_fdw's runs programs.
            self._work.links.add("foreign table")
        for entry in body.get("tableElts", ()):
            like = entry.get("TableLikeClause")
            if like is not None:
                source = self._found(
                    {**like.get("relation", {}), "inh": True}, reads=True, scope=inner
                )
                self._copied_like(like, source, made)
            else:
                self.walk(entry, inner)
        rest = {
            key: part
            for key, part in body.items()
            if key not in ("relation", "tableElts") and isinstance(part, (dict, list))
        }
        self.walk(rest, inner)

    def _creates(self, value: dict[str, Any], is_view: bool = False) -> str:
        """A relation that is made, or replaced; its full name, or one of those it may have."""
        name, schema = value.get("relname", ""), value.get("schemaname", "")
        work = self._work
        if value.get("relpersistence") == "t" or is_temporary(schema):
            (work.views if is_view else work.temporary).add(name)
            work.writes.add(name_of("pg_temp", name))
            work.ddl.discard("create")
            work.ddl.add("temporary")
            return name_of("pg_temp", name)
        if schema:
            work.writes.add(name_of(schema, name))
            return name_of(schema, name)
        made = name_of(name)
        for place in self._snapshot.path:
            if place not in SYSTEM:
                made = name_of(place, name)
                work.writes.add(made)
                break
        if not self._meaning.certain:
            work.writes |= {name_of(place, name) for place in self._snapshot.schemas - SYSTEM}
        return made

    def _create_as(self, value: dict[str, Any], scope: Scope) -> None:
        top, self.is_top = self.is_top, False
        self.walk(value.get("query", {}), scope)
        self.is_top = top
        self._creates(value.get("into", {}).get("rel", {}))

    def _create_view(self, value: dict[str, Any], scope: Scope) -> None:
        top, self.is_top = self.is_top, False
        before = set(self._work.ddl)
        self._work.ddl.clear()
        self.walk(value.get("query", {}), scope)
        self._work.ddl |= before
        self.is_top = top
        self._creates(value.get("view", {}), is_view=True)

    def _create_sequence(self, value: dict[str, Any], scope: Scope) -> None:
        self._creates(value.get("sequence", {}))

    def rule_actions(self, value: dict[str, Any]) -> None:
        """A rule's actions, with the rows it calls OLD and NEW."""
        scope = Scope(None, {})
        found = self._resolver.relations(
            value.get("relation", {}).get("schemaname", ""),
            value.get("relation", {}).get("relname", ""),
            UNSURE,
            self._work,
        )
        columns, is_open = self._columns_of(found, True)
        for name in ("old", "new"):
            scope.items.append(Item(name, columns, is_open, by_name=True))
        if "whereClause" in value:
            self.walk(value["whereClause"], scope)
        self.is_top = False
        for action in value.get("actions", ()):
            for kind, inner in action.items():
                self._statement(kind, inner, Scope(scope, {}))

    def _create_rule(self, value: dict[str, Any], scope: Scope) -> None:
        self._found({**value.get("relation", {}), "inh": True}, reads=False, scope=scope)
        self.rule_actions(value)

    def _create_function(self, value: dict[str, Any], scope: Scope) -> None:
        # A body that is only defined runs nothing; what it does counts when it is called.
        for option in value.get("options", ()):
            element = option.get("DefElem", {})
            if element.get("defname") == "language":
                language = element.get("arg", {}).get("String", {}).get("sval", "").lower()
                if grammar.UNTRUSTED.fullmatch(language):
                    self._work.notes.add(("critical", f"a function in {language} may do anything"))
                    self._work.files.add(f"LANGUAGE {language}")
        inner = Scope(scope, {}, lenient=True)
        before, self.lenient = self.lenient, True
        ddl, self._work.ddl = self._work.ddl, set()
        self.walk({key: part for key, part in value.items() if key != "options"}, inner)
        self._work.ddl |= ddl
        self.lenient = before

    def _drop(self, value: dict[str, Any], scope: Scope) -> None:
        found = self._named_objects(value.get("removeType", ""), value.get("objects", []))
        cascades = value.get("behavior") == _DROPS_WITH
        if value.get("removeType") in grammar.RELATION_TYPES:
            self._dropped(found, cascades)
        elif cascades:
            self._all_say()
        if cascades:
            self._work.notes.add(("high", "DROP … CASCADE drops what depends on it"))
        if value.get("removeType") in ("OBJECT_SCHEMA", "OBJECT_DATABASE"):
            self._work.notes.add(("critical", "a whole schema is dropped"))
        if value.get("removeType") in _EXTENDING:
            self._work.ddl.add("extension")

    def _named_objects(self, kind: str, objects: list[dict[str, Any]]) -> list[Relation]:
        """The relations that these are, or are parts of."""
        found: list[Relation] = []
        for entry in objects:
            names = [
                part.get("String", {}).get("sval", "")
                for part in entry.get("List", {}).get("items", [entry])
            ]
            if kind == "OBJECT_SCHEMA":
                self._schema(names[-1])
            elif kind in grammar.RELATION_TYPES:
                found += self._changed(names)
            elif kind in grammar.PART_TYPES:
                found += self._changed(names[:-1])
        return found

    def _changed(self, names: list[str]) -> list[Relation]:
        if not names:
            return []
        schema = names[-2] if len(names) > 1 else ""
        return self._found(
            {"relname": names[-1], "schemaname": schema, "inh": True, "location": 0}, reads=False
        )

    def _schema(self, schema: str) -> None:
        self._work.writes |= {
            r.full for r in self._snapshot.relations.values() if r.schema == schema
        }

    def _comment(self, value: dict[str, Any], scope: Scope) -> None:
        kind = value.get("objtype", "")
        if kind in grammar.RELATION_TYPES or kind in grammar.PART_TYPES:
            found = self._named_objects(kind, [value.get("object", {})])
            if kind == "OBJECT_COLUMN":
                items = value.get("object", {}).get("List", {}).get("items", [])
                names = [part.get("String", {}).get("sval", "") for part in items]
                self._comments(names, found, value.get("comment", value.get("label")))

    def _grant(self, value: dict[str, Any], scope: Scope) -> None:
        if value.get("targtype") == "ACL_TARGET_ALL_IN_SCHEMA":
            for entry in value.get("objects", ()):
                self._schema(entry.get("String", {}).get("sval", ""))
            return
        for entry in value.get("objects", ()):
            relation = entry.get("RangeVar")
            if relation is not None:
                self._found(relation, reads=False, scope=scope)

    def _truncate(self, value: dict[str, Any], scope: Scope) -> None:
        for entry in value.get("relations", ()):
            found = self._found(entry.get("RangeVar", {}), reads=False, scope=scope)
            for relation in found:
                cascades = value.get("behavior") == _DROPS_WITH
                if cascades:
                    self._work.add(self._resolver.writing(relation, "TRUNCATE"))
                for column in relation.origins.values():
                    self._work.written_columns.update(column)
        self._work.wheres.append(False)

    def _maintain(self, value: dict[str, Any], scope: Scope) -> None:
        relation = value.get("relation")
        if relation is not None:
            self._found(relation, reads=False, scope=scope)
        for entry in value.get("rels", ()):
            relation = entry.get("VacuumRelation", {}).get("relation")
            if relation is not None:
                self._found(relation, reads=False, scope=scope)

    def _refresh(self, value: dict[str, Any], scope: Scope) -> None:
        for relation in self._found(value.get("relation", {}), reads=False, scope=scope):
            source = self._resolver.source(relation)
            if source.always is not None:
                self._work.reads |= source.tables - {relation.full}
                self._work.add(source.always)

    def _extension(self, value: dict[str, Any], scope: Scope) -> None:
        self._work.links.add("extension")
        self._work.unsettles = True


_DROPS_WITH: Final = "DROP_CASCADE"
_MOVING: Final = frozenset({"RenameStmt", "AlterObjectSchemaStmt"})
_HANDING_OVER: Final = frozenset({"DropOwnedStmt", "ReassignOwnedStmt"})
_EXTENDING: Final = frozenset(
    {"OBJECT_EXTENSION", "OBJECT_LANGUAGE", "OBJECT_FDW", "OBJECT_ACCESS_METHOD"}
)
_LINKING: Final = {
    "AlterFdwStmt": "foreign-data wrapper",
    "AlterForeignServerStmt": "foreign server",
    "AlterSubscriptionStmt": "subscription",
    "AlterUserMappingStmt": "user mapping",
    "CreateFdwStmt": "foreign-data wrapper",
    "CreateForeignServerStmt": "foreign server",
    "CreatePublicationStmt": "publication",
    "CreateSubscriptionStmt": "subscription",
    "CreateUserMappingStmt": "user mapping",
    "ImportForeignSchemaStmt": "foreign schema",
}
_FILING: Final = {
    "AlterSystemStmt": "ALTER SYSTEM",
    "CreateAmStmt": "access method",
    "CreatePLangStmt": "language",
    "CreateTableSpaceStmt": "tablespace",
}
