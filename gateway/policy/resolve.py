"""What a statement does: its parse tree read against a target's catalog. Pure.

Every place where a relation, a column or a function may be named is visited; a node that is not
known makes the statement unknown. Names mean what they mean to the server, and where that
depends on something we cannot see, everything they may mean.
"""

from __future__ import annotations

import functools
import re
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final

import msgspec
import orjson
from pglast import parser

from gateway.policy import grammar, plpgsql, risk, sql
from gateway.policy.catalog import (
    SYSTEM,
    Function,
    Relation,
    Snapshot,
    full_relation,
    is_temporary,
    name_of,
)
from gateway.policy.facts import (
    NONE,
    UNKNOWN,
    Facts,
    Output,
    Reference,
    SessionNames,
    together,
)
from gateway.policy.predicates import Key, Predicates, constant, has_limit
from gateway.policy.scope import Cte, Found, Item, Origins, Scope, look_up, parts_of
from gateway.policy.sql import Statement

_UNSURE: Final = SessionNames(certain=False, opaque=True)
_MOST_NESTED: Final = 24
_SHAPE: Final = re.compile(r"[A-Za-z0-9_\s.,()=<>*+;-]*")
_NUMBER: Final = re.compile(r"(?<![\w.])[0-9]+(?![\w.])")
_FUNCTION_CALL: Final = re.compile(r"FUNCTION CALL ([0-9]+)")
_LONGEST: Final = 64 * 1024
_TOO_DEEP: Final = "it is nested too deeply"
_DROPS_WITH: Final = "DROP_CASCADE"


class Work:
    """What has been found so far. Also what a view, rule or function body adds wherever used."""

    __slots__ = (
        "columns", "ddl", "executes", "files", "functions", "kinds", "limit", "links", "notes",
        "numbers", "opaque", "outputs", "reads", "references", "selects", "temporary",
        "uncertain", "unknown", "unsettles", "views", "wheres", "writes", "written_columns",
    )  # fmt: skip

    def __init__(self) -> None:
        self.kinds: set[str] = set()
        self.reads: set[str] = set()
        self.writes: set[str] = set()
        self.columns: set[str] = set()
        self.written_columns: set[str] = set()
        self.functions: set[str] = set()
        self.ddl: set[str] = set()
        self.files: set[str] = set()
        self.links: set[str] = set()
        self.unknown: set[str] = set()
        # What is risky for reasons that no other field shows: (class, words).
        self.notes: set[tuple[str, str]] = set()
        # One entry for each UPDATE and DELETE: whether its WHERE restricts.
        self.wheres: list[bool] = []
        # Whether the outermost query has a WHERE, a LIMIT, and which number.
        self.selects = False
        self.limit: tuple[bool, int] = (False, -1)
        self.uncertain = self.unsettles = self.opaque = self.numbers = False
        self.temporary: set[str] = set()
        self.views: set[str] = set()
        self.executes: set[str] = set()
        self.references: list[Reference] = []
        self.outputs: list[Output] = []

    def add(self, other: Work) -> None:
        """Take over what `other` found, but where it found it."""
        self.kinds |= other.kinds
        self.reads |= other.reads
        self.writes |= other.writes
        self.columns |= other.columns
        self.written_columns |= other.written_columns
        self.functions |= other.functions
        self.ddl |= other.ddl
        self.files |= other.files
        self.links |= other.links
        self.unknown |= other.unknown
        self.notes |= other.notes
        self.wheres += other.wheres
        self.uncertain = self.uncertain or other.uncertain
        self.unsettles = self.unsettles or other.unsettles
        self.opaque = self.opaque or other.opaque
        self.temporary |= other.temporary
        self.views |= other.views
        self.executes |= other.executes


class Source:
    """What reading a relation reads: `tables`, and for each column what it is computed of.
    `always` is read with any column of it (a view's conditions, its functions).
    """

    __slots__ = ("always", "bases", "columns", "tables")

    def __init__(
        self,
        tables: frozenset[str],
        columns: dict[str, Origins],
        always: Work | None,
        bases: tuple[Relation, ...] = (),
    ) -> None:
        self.tables = tables
        self.columns = columns
        self.always = always
        self.bases = bases


class Resolver:
    """Facts of statements against one snapshot, remembering recent ones.

    A new snapshot needs a new resolver. `remembered` bounds the statements kept.
    """

    def __init__(self, snapshot: Snapshot, remembered: int = 20_000) -> None:
        self.snapshot = snapshot
        self._remembered = remembered
        self._known: OrderedDict[tuple[str, SessionNames], Facts] = OrderedDict()
        self._shapes: OrderedDict[tuple[str, SessionNames], Facts] = OrderedDict()
        self._interned: dict[tuple[object, ...], Facts] = {}
        self._combined: dict[tuple[Facts, Facts | None], Facts] = {}
        self._sources: dict[tuple[int, bool], Source] = {}
        self._bodies: dict[int, Work] = {}
        self._effects: dict[tuple[int, str], Work] = {}
        self._open: set[tuple[str, int]] = set()
        self._depth = 0

    def __call__(
        self, statement: Statement, meaning: SessionNames, inner: Statement | None = None
    ) -> Facts:
        """The facts of a statement of this target. See `facts.Resolve`."""
        facts = self._facts(statement, meaning)
        if inner is not None or facts.executes:
            ran = None if inner is None else self._facts(inner, meaning)
            return self._executing(facts, ran)
        return facts

    def _facts(self, statement: Statement, meaning: SessionNames) -> Facts:
        key = (statement.text, meaning)
        known = self._known.get(key)
        if known is not None:
            return known
        if statement.kind == sql.EMPTY:
            return NONE
        if statement.error:
            return UNKNOWN
        shape = _shape(statement.text)
        if shape is not None:
            known = self._shapes.get((shape, meaning))
            if known is not None:
                return known
        facts, numbers = self._analyse(statement, meaning)
        if shape is not None and not numbers:
            _keep(self._shapes, (shape, meaning), facts, self._remembered)
        elif len(statement.text) <= _LONGEST:
            _keep(self._known, key, facts, self._remembered)
        return facts

    def _executing(self, outer: Facts, ran: Facts | None) -> Facts:
        """A statement that runs a prepared one, or fetches from a declared one."""
        known = self._combined.get((outer, ran))
        if known is not None:
            return known
        if ran is None:
            names = ", ".join(sorted(outer.executes))
            combined = msgspec.structs.replace(
                outer,
                unknown=outer.unknown | {f"prepared statement {names}"},
                risk="high",
                risks=(*outer.risks, "it runs a statement that is not known"),
            )
        else:
            combined = together(outer, ran)
        if len(self._combined) >= self._remembered:
            self._combined.clear()
        self._combined[outer, ran] = combined
        return combined

    def _analyse(self, statement: Statement, meaning: SessionNames) -> tuple[Facts, bool]:
        work = Work()
        if not self.snapshot.known:
            work.unknown.add("the target's catalog has not been read yet")
        call = _FUNCTION_CALL.fullmatch(statement.text)
        if statement.replication:
            work.notes.add(("high", "it reads the server's whole log, or acts on it"))
            if "copy_program" in statement.kinds:
                work.files.add("BASE_BACKUP TARGET")
        elif statement.kind == sql.FUNCTION_CALL and call is not None:
            self._call_by_oid(int(call.group(1)), work, meaning)
        else:
            self.read_text(statement.text, work, meaning)
        work.kinds |= statement.kinds
        return self.finished(work), work.numbers

    def _call_by_oid(self, oid: int, work: Work, meaning: SessionNames) -> None:
        called = self.snapshot.functions.get(oid)
        if called is None:
            work.unknown.add(f"function {oid}")
        else:
            Reader(self, work, meaning).runs(called, [])

    def read_text(
        self, text: str, work: Work, meaning: SessionNames, lenient: bool = False
    ) -> None:
        """Add what the statements of `text` do."""
        if self._depth >= _MOST_NESTED:
            work.unknown.add(_TOO_DEEP)
            return
        self._depth += 1
        try:
            tree = parser.parse_sql_json(text)
            work.kinds |= sql.kinds_of(tree)
            document = orjson.loads(tree)
            for statement in document.get("stmts", []):
                reader = Reader(self, work, meaning)
                reader.lenient = lenient
                reader.statement(statement.get("stmt", {}))
        except parser.ParseError:
            work.unknown.add("a text that does not parse")
        except (orjson.JSONDecodeError, RecursionError):
            work.unknown.add(_TOO_DEEP)
            work.unsettles = work.opaque = True
        finally:
            self._depth -= 1

    def finished(self, work: Work) -> Facts:
        """`work` as facts; equal ones are one object."""
        level, reasons = risk.assess(work)
        facts = Facts(
            kinds=frozenset(work.kinds),
            tables_read=frozenset(work.reads),
            tables_written=frozenset(work.writes),
            columns_read=frozenset(work.columns),
            columns_written=frozenset(work.written_columns),
            functions=frozenset(work.functions),
            ddl=frozenset(work.ddl),
            files=frozenset(work.files),
            links=frozenset(work.links),
            unknown=frozenset(work.unknown),
            risk=level,
            risks=reasons,
            has_where=all(work.wheres) if work.wheres else work.selects,
            has_limit=work.limit[0],
            limit=work.limit[1],
            uncertain=work.uncertain,
            unsettles=work.unsettles,
            opaque=work.opaque,
            temporary=frozenset(work.temporary),
            views=frozenset(work.views),
            owners=self._owners(work),
            executes=frozenset(work.executes),
            references=tuple(work.references),
            outputs=tuple(work.outputs),
        )
        key = msgspec.structs.astuple(facts)
        known = self._interned.get(key)
        if known is not None:
            return known
        if len(self._interned) >= self._remembered:
            self._interned.clear()
        self._interned[key] = facts
        return facts

    def _owners(self, work: Work) -> frozenset[tuple[str, str]]:
        owner = self.snapshot.owner
        return frozenset((name, owner.get(name, "")) for name in work.reads | work.writes)

    # --- what names mean ---

    def relations(
        self, schema: str, name: str, meaning: SessionNames, work: Work
    ) -> list[Relation]:
        """The relations a name may mean."""
        named = self.snapshot.named(name)
        if schema:
            if is_temporary(schema):
                made = self._temporary(name, named, meaning, work)
                return made or [r for r in named if is_temporary(r.schema)]
            return [r for r in named if r.schema == schema]
        found = self._temporary(name, named, meaning, work)
        if not meaning.certain:
            found += [r for r in named if not is_temporary(r.schema)]
            work.uncertain = work.uncertain or len(found) > 1
            return found
        if named:
            for place in self.snapshot.path:
                for one in named:
                    if one.schema == place:
                        found.append(one)
                        return found
        return found

    def _temporary(
        self, name: str, named: list[Relation], meaning: SessionNames, work: Work
    ) -> list[Relation]:
        """Temporary relations that may shadow others of this name in this session."""
        made = name in meaning.temporary or name in meaning.views
        if not made and not meaning.opaque:
            return []
        found = [r for r in named if is_temporary(r.schema)]
        work.uncertain = work.uncertain or bool(found)
        if made and not found:
            work.uncertain = True
            if name in meaning.views:
                work.unknown.add(f"temporary view {name}")
            # It holds what this session put there, which was judged then.
            found = [full_relation(Relation(0, "pg_temp", name, "r", (), persistence="t"))]
        return found

    def functions(
        self, names: list[str], count: int, meaning: SessionNames, spread: bool
    ) -> tuple[list[Function], bool]:
        """(the functions a call may mean, whether that is one)."""
        named = self.snapshot.functions_named(names[-1])
        fitting = [f for f in named if spread or f.takes(count)]
        if len(names) > 1:
            found = [f for f in fitting if f.schema == names[-2]]
        elif meaning.certain:
            found = [f for f in fitting if f.schema in self.snapshot.path]
        else:
            found = fitting
        return found, len({f.full for f in found}) == 1

    # --- what relations are made of ---

    def source(self, relation: Relation, inherited: bool = True) -> Source:
        """What reading `relation` reads."""
        if not relation.oid:
            return Source(frozenset({relation.full}), relation.origins, None)
        key = (relation.oid, inherited)
        known = self._sources.get(key)
        if known is None:
            known = self._make_source(relation, inherited)
            self._sources[key] = known
        return known

    def _make_source(self, relation: Relation, inherited: bool) -> Source:
        relatives = self.snapshot.ancestors(relation)
        if inherited:
            relatives = relatives + self.snapshot.descendants(relation)
        tables = {relation.full, *(relative.full for relative in relatives)}
        columns = relation.origins
        if relatives:
            columns = {
                name: origins + tuple(o for r in relatives for o in r.origins.get(name, ()))
                for name, origins in columns.items()
            }
        always: Work | None = None
        bases: list[Relation] = []
        if relation.is_view and relation.schema not in SYSTEM:
            always, outputs, bases = self._view(relation)
            tables |= always.reads
            columns = {
                column.name: relation.origins[column.name] + (
                    outputs[index].origins if index < len(outputs) else tuple(always.columns)
                )
                for index, column in enumerate(relation.columns)
            }  # fmt: skip
        return Source(frozenset(tables), columns, always, tuple(bases))

    def _view(self, relation: Relation) -> tuple[Work, list[Output], list[Relation]]:
        """(what any use of a view reads and does, its outputs, what it selects from)."""
        work = Work()
        bases: list[Relation] = []
        if not self._enter("view", relation.oid, work):
            return work, [], []
        try:
            reader = Reader(self, work, _UNSURE)
            reader.bases = bases
            document = orjson.loads(parser.parse_sql_json(relation.definition))
            (statement,) = document["stmts"]
            reader.statement(statement["stmt"])
        except (parser.ParseError, orjson.JSONDecodeError, RecursionError, ValueError, KeyError):
            work.unknown.add(f"what {relation.full} is made of")
        finally:
            self._leave("view", relation.oid)
        outputs = work.outputs
        # What a view's names mean is decided; only what its functions' bodies name is not.
        work.references, work.outputs, work.limit = [], [], (False, -1)
        if len(outputs) == len(relation.columns):
            # Of its outputs' columns only those are read that are asked for.
            only = {o for output in outputs for o in output.origins} - reader.elsewhere
            work.columns -= only
        return work, outputs, bases

    def body(self, function: Function) -> Work:
        """What a function does when it is called."""
        known = self._bodies.get(function.oid)
        if known is not None:
            return known
        work = Work()
        if not self._enter("function", function.oid, work, quietly=True):
            return work
        try:
            self._read_body(function, work)
        finally:
            self._leave("function", function.oid)
        self._bodies[function.oid] = work
        return work

    def _read_body(self, function: Function, work: Work) -> None:
        for oid in function.calls:
            called = self.snapshot.functions.get(oid)
            if called is not None:
                Reader(self, work, _UNSURE).runs(called, [])
        if function.is_own:
            return
        if function.volatility == "v":
            # It may set search_path, or make temporary relations, in ways its text does not show.
            work.unsettles = work.opaque = True
        if not function.calls and not self._read_definition(function, work):
            work.unknown.add(f"what {function.full} does")

    def _read_definition(self, function: Function, work: Work) -> bool:
        try:
            document = orjson.loads(parser.parse_sql_json(function.definition))
            value = document["stmts"][0]["stmt"]["CreateFunctionStmt"]
        except (parser.ParseError, orjson.JSONDecodeError, KeyError, IndexError):
            return False
        if "sql_body" in value:
            work.kinds |= sql.kinds_of(orjson.dumps(value["sql_body"]).decode())
            reader = Reader(self, work, _UNSURE)
            reader.lenient = True
            reader.walk(value["sql_body"], Scope(None, {}, lenient=True))
            return True
        return self._read_source(value, function.definition, work)

    def _read_source(self, value: dict[str, Any], definition: str, work: Work) -> bool:
        """Read the body of a function or DO block; False where it cannot be read."""
        language, source = plpgsql.options(value)
        found = plpgsql.body_of(language or "plpgsql", definition, source)
        if found is None:
            return False
        if found.dynamic:
            work.unknown.add("SQL that is made at run time")
        for text in found.texts:
            self.read_text(text, work, _UNSURE, lenient=True)
        return True

    def block(self, value: dict[str, Any], work: Work) -> None:
        """A DO block."""
        _, source = plpgsql.options(value)
        # What stands around the body is of no matter; its own quotes are.
        tag = "$gatebook$"
        while tag in source:
            tag = tag[:-1] + "x$"
        if not self._read_source(value, f"DO {tag}{source}{tag}", work):
            work.unknown.add("what a DO block does")

    def writing(self, relation: Relation, event: str) -> Work:
        """What an INSERT, UPDATE or DELETE on `relation` does besides: its rules, its triggers'
        functions, what foreign keys pass on, and what a view passes it on to.
        """
        key = (relation.oid, event)
        known = self._effects.get(key)
        if known is not None:
            return known
        work = Work()
        if not self._enter(event, relation.oid, work, quietly=True):
            return work
        try:
            for text in relation.rules:
                self._rule(text, event, work)
            for oid in relation.triggers:
                called = self.snapshot.functions.get(oid)
                if called is None:
                    work.unknown.add(f"what a trigger of {relation.full} does")
                else:
                    work.functions.add(called.full)
                    work.add(self.body(called))
            self._pass_on(relation, event, work)
            if relation.is_view:
                source = self.source(relation)
                for base in source.bases:
                    work.writes.add(base.full)
                    work.add(self.writing(base, event))
            for descendant in self.snapshot.descendants(relation):
                work.add(self.writing(descendant, event))
        finally:
            self._leave(event, relation.oid)
        self._effects[key] = work
        return work

    def _pass_on(self, relation: Relation, event: str, work: Work) -> None:
        for cascade in relation.cascades:
            does = cascade.on_delete if event == "DELETE" else cascade.on_update
            referring = self.snapshot.relations.get(cascade.oid)
            acts = event == "TRUNCATE" or (event in ("DELETE", "UPDATE") and does in "cnd")
            if not acts or referring is None:
                continue
            work.writes.add(referring.full)
            passed = "DELETE" if event == "DELETE" and does == "c" else "UPDATE"
            work.add(self.writing(referring, "TRUNCATE" if event == "TRUNCATE" else passed))

    def _rule(self, text: str, event: str, work: Work) -> None:
        inner = Work()
        try:
            document = orjson.loads(parser.parse_sql_json(text))
            (statement,) = document["stmts"]
            rule = statement["stmt"]["RuleStmt"]
        except (parser.ParseError, orjson.JSONDecodeError, ValueError, KeyError):
            work.unknown.add("what a rule does")
            return
        if rule.get("event", "").removeprefix("CMD_") != event:
            return
        inner.kinds |= sql.kinds_of(orjson.dumps(rule.get("actions", [])).decode())
        Reader(self, inner, _UNSURE).rule(rule)
        inner.references, inner.outputs = [], []
        work.add(inner)

    def _enter(self, what: str, oid: int, work: Work, quietly: bool = False) -> bool:
        """Whether to look into it: not while we are inside of it already."""
        if (what, oid) in self._open or self._depth >= _MOST_NESTED:
            if not quietly or self._depth >= _MOST_NESTED:
                work.unknown.add(_TOO_DEEP)
            return False
        self._open.add((what, oid))
        self._depth += 1
        return True

    def _leave(self, what: str, oid: int) -> None:
        self._open.discard((what, oid))
        self._depth -= 1


def _shape(text: str) -> str | None:
    """The text without its numbers, where nothing else in it can hold one."""
    if len(text) > 4096 or _SHAPE.fullmatch(text) is None or "--" in text:
        return None
    return _NUMBER.sub("0", text)


def _keep(
    known: OrderedDict[tuple[str, SessionNames], Facts],
    key: tuple[str, SessionNames],
    facts: Facts,
    most: int,
) -> None:
    known[key] = facts
    if len(known) > most:
        known.popitem(last=False)


class Reader:
    """Reads one statement's tree into `work`."""

    def __init__(self, resolver: Resolver, work: Work, meaning: SessionNames) -> None:
        self._resolver = resolver
        self._snapshot = resolver.snapshot
        self._work = work
        self._meaning = meaning
        self._top = True
        # For a view: the relations of its FROM, and columns used elsewhere than in its outputs.
        self.bases: list[Relation] | None = None
        self.elsewhere: set[str] = set()
        self._in_output = False
        self._returned: list[Output] = []
        # Whether the last query read has a WHERE that restricts it.
        self._where = False
        self.lenient = False

    # --- statements ---

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

    def _select_statement(self, value: dict[str, Any], scope: Scope) -> None:
        top, self._top = self._top, False
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
            self.walk(values, scope)
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
                before, self._top = self._top, False
                self._returned = []
                self._statement(kind, query, inner)
                self._top = before
                outputs = self._returned
        names = [name["String"].get("sval", "") for name in cte.get("aliascolnames", ())]
        for key in ("search_clause", "cycle_clause"):
            if key in cte:
                return _named(outputs or [], names), True
        return _named(outputs or [], names), outputs is None

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
            outputs.append(Output(node.get("name") or _label(value), tuple(sorted(found)), False))
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

    # --- FROM ---

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
            columns = _renamed(cte.columns, alias)
            return Item(shown, columns, cte.is_open, key=f"with {name}")
        found = self._found(value, reads=True, scope=scope)
        columns, is_open = self._columns_of(found, bool(value.get("inh")))
        if self.bases is not None and scope.depth <= 1:
            self.bases += found
        return Item(
            shown,
            _renamed(columns, alias),
            is_open,
            schema="" if alias else (schema or ""),
            key=found[0].full if found else name,
        )

    def _found(
        self, value: dict[str, Any], reads: bool, scope: Scope | None = None, event: str = ""
    ) -> list[Relation]:
        """The relations a RangeVar may mean; what reading or writing them entails is noted."""
        work = self._work
        name, schema = value.get("relname", ""), value.get("schemaname", "")
        found = self._resolver.relations(schema, name, self._meaning, work)
        if not found:
            unknown = name_of(schema, name) if schema else name_of(name)
            work.unknown.add(f"relation {unknown}")
            (work.reads if reads else work.writes).add(unknown)
        inherited = bool(value.get("inh"))
        for relation in found:
            source = self._resolver.source(relation, inherited)
            if reads:
                work.reads |= source.tables
                if source.always is not None:
                    work.add(source.always)
            else:
                self._writes(relation, event, inherited)
        alias = value.get("alias", {}).get("aliasname", name)
        work.references.append(
            Reference(
                value.get("location", 0),
                alias,
                tuple(relation.full for relation in found),
                writes=not reads,
                only=not inherited,
                depth=scope.depth if scope is not None else 0,
            )
        )
        return found

    def _writes(self, relation: Relation, event: str, inherited: bool = True) -> None:
        work = self._work
        work.writes.add(relation.full)
        work.writes |= {one.full for one in self._snapshot.ancestors(relation)}
        if inherited:
            work.writes |= {one.full for one in self._snapshot.descendants(relation)}
        if relation.full == "pg_catalog.pg_settings":
            work.unsettles = True
        if event:
            work.add(self._resolver.writing(relation, event))

    def _columns_of(
        self, found: list[Relation], inherited: bool
    ) -> tuple[dict[str, Origins], bool]:
        if len(found) == 1:
            return self._resolver.source(found[0], inherited).columns, not found[0].oid
        merged: dict[str, Origins] = {}
        for relation in found:
            for name, origins in self._resolver.source(relation, inherited).columns.items():
                merged[name] = merged.get(name, ()) + origins
        return merged, not all(one.oid for one in found) or not found

    def _subselect(self, value: dict[str, Any], scope: Scope) -> Item:
        outer = scope if value.get("lateral") else _hidden(scope)
        alias = value.get("alias", {})
        query = value.get("subquery", {}).get("SelectStmt", {})
        bases, self.bases = self.bases, None
        top, self._top = self._top, False
        outputs = self.select(query, outer)
        self.bases, self._top = bases, top
        columns = _named(outputs, [])
        is_open = any(output.name == "*" for output in outputs)
        return Item(alias.get("aliasname", ""), _renamed(columns, alias), is_open)

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
                name = _function_name(value)
        else:
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
        columns = _joined(left, right, using)
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
        item = Item(alias.get("aliasname", ""), _renamed(merged, alias), is_open)
        scope.items.append(item)
        return None if is_open else list(item.columns.items())

    # --- expressions ---

    def walk(self, node: Any, scope: Scope) -> None:
        """Visit everything in `node`, however deep."""
        stack: list[Any] = [node]
        handlers = _NODES
        while stack:
            one = stack.pop()
            if type(one) is list:
                stack += one
                continue
            if type(one) is not dict:
                continue
            if "relname" in one:
                self._mentioned(one, scope)
                continue
            for key, value in one.items():
                kind = type(value)
                if kind is not dict and kind is not list:
                    continue
                handler = handlers.get(key)
                if handler is not None:
                    handler(self, value, scope, stack)
                elif key in grammar.LEAVES:
                    continue
                elif key[0].isupper() and key not in grammar.PLAIN_NODES:
                    if key.endswith("Stmt"):
                        self._nested(key, value, scope)
                    else:
                        self._work.unknown.add(f"node {key}")
                        stack.append(value)
                else:
                    stack.append(value)

    def _nested(self, kind: str, value: dict[str, Any], scope: Scope) -> None:
        """A statement in a statement: EXPLAIN, PREPARE, DECLARE, a rule's action, …"""
        self._statement(kind, value, Scope(None, scope.ctes, self.lenient))

    def _mentioned(self, value: dict[str, Any], scope: Scope) -> None:
        """A relation outside of FROM. A definition of something changes what it mentions."""
        if value.get("schemaname") or value.get("relname", "") not in scope.ctes:
            self._found(value, reads=not self._work.ddl, scope=scope)

    def column(self, reference: dict[str, Any], scope: Scope) -> Found:
        """Note what a ColumnRef reads."""
        names, star = parts_of(reference.get("fields", []))
        found = look_up(names, star, scope)
        self._use(found.origins)
        for item in found.items:
            if item.read:
                self._work.reads |= item.read
        if found.call:
            called = self._functions([found.call], 1, False)
            for one in called:
                self.runs(one, [])
            if called:
                return found
        if found.missing:
            self._work.unknown.add(f"column {'.'.join(names)}")
        return found

    def _use(self, origins: Origins) -> None:
        self._work.columns.update(origins)
        if not self._in_output:
            self.elsewhere.update(origins)

    def _column_node(self, value: dict[str, Any], scope: Scope, stack: list[Any]) -> None:
        self.column(value, scope)

    def _select_node(self, value: dict[str, Any], scope: Scope, stack: list[Any]) -> None:
        top, self._top = self._top, False
        bases, self.bases = self.bases, None
        if top:
            self._top = True
            self._select_statement(value, scope)
        else:
            self.select(value, scope)
        self._top, self.bases = top, bases

    def _sublink_node(self, value: dict[str, Any], scope: Scope, stack: list[Any]) -> None:
        if "testexpr" in value:
            stack.append(value["testexpr"])
        self._operators(value.get("operName"))
        query = value.get("subselect", {}).get("SelectStmt")
        top, self._top = self._top, False
        bases, self.bases = self.bases, None
        if query is not None:
            for output in self.select(query, scope):
                if not self._in_output:
                    self.elsewhere.update(output.origins)
        else:
            stack.append(value.get("subselect", {}))
        self._top, self.bases = top, bases

    def _function_node(self, value: dict[str, Any], scope: Scope, stack: list[Any]) -> None:
        names = [name["String"].get("sval", "") for name in value.get("funcname", ())]
        arguments = value.get("args", [])
        count = len(arguments)
        spread = bool(value.get("func_variadic")) or bool(value.get("agg_within_group"))
        if value.get("agg_star"):
            count = 0
        called = self._functions(names, count, spread)
        if not called and count == 1 and len(names) == 1:
            # `ssn(customers)` is `customers.ssn`, whose row is counted below; `uuid('…')` a cast.
            if names[0] not in _TYPES and names[0] not in self._snapshot.column_names:
                self._work.unknown.add(f"function {names[0]}")
        elif not called:
            self._work.unknown.add(f"function {'.'.join(names)}")
        for one in called:
            self.runs(one, arguments)
        for key, part in value.items():
            if key != "funcname" and type(part) in (dict, list):
                stack.append(part)

    def _functions(self, names: list[str], count: int, spread: bool) -> list[Function]:
        called, certain = self._resolver.functions(names, count, self._meaning, spread)
        if not certain and called:
            self._work.uncertain = self._work.uncertain or len({f.full for f in called}) > 1
        return called

    def runs(self, function: Function, arguments: list[Any]) -> None:
        """Note what calling a function does."""
        work = self._work
        work.functions.add(function.full)
        if function.is_own and _is_special(function.name):
            self._special(function, arguments)
        work.add(self._resolver.body(function))

    def _special(self, function: Function, arguments: list[Any]) -> None:
        """A function of PostgreSQL's own, or of a library, that does what its name says."""
        work, name, full = self._work, function.name, function.full
        if grammar.FILES.fullmatch(name):
            work.files.add(full)
        if grammar.LINKS.fullmatch(name):
            work.links.add(full)
        if grammar.ADMINISTERS.fullmatch(name):
            work.notes.add(("high", f"{full} acts on the server or on other sessions"))
        if name in grammar.SETTERS:
            work.unsettles = True
        first = constant(arguments[0]) if arguments else (False, None)
        text = first[1] if first[0] and isinstance(first[1], str) else None
        if grammar.TEXTS.fullmatch(name) and text is not None:
            self._resolver.read_text(text, work, self._meaning)
        elif grammar.NAMED_READS.fullmatch(name) and text is not None:
            self._by_text(text, reads=True)
        elif name in grammar.NAMED_WRITES and function.schema in SYSTEM:
            if text is None:
                work.unknown.add(f"which sequence {full} advances")
            else:
                self._by_text(text, reads=False)
        elif grammar.UNSEEN.fullmatch(name):
            work.unknown.add(f"what {full} reads")

    def _by_text(self, text: str, reads: bool) -> None:
        """A relation named in a string, as `'hr.payroll'::regclass` does."""
        try:
            document = orjson.loads(parser.parse_sql_json(f"table {text}"))
            select = document["stmts"][0]["stmt"]["SelectStmt"]
            value = select["fromClause"][0]["RangeVar"]
        except (parser.ParseError, orjson.JSONDecodeError, KeyError, IndexError):
            self._work.unknown.add("a relation named in a text")
            return
        value["location"] = 0
        found = self._found(value, reads)
        if reads:
            for relation in found:
                for origins in self._resolver.source(relation).columns.values():
                    self._use(origins)

    def _operators(self, names: Any) -> None:
        if not names:
            return
        parts = [name.get("String", {}).get("sval", "") for name in names]
        for operator in self._snapshot.operators_named(parts[-1]):
            if len(parts) > 1 and operator.schema != parts[-2]:
                continue
            reachable = not self._meaning.certain or operator.schema in self._snapshot.path
            if len(parts) > 1 or reachable:
                function = self._snapshot.functions.get(operator.function)
                if function is None:
                    self._work.unknown.add(f"operator {name_of(*parts)}")
                else:
                    self.runs(function, [])

    def _operator_node(self, value: dict[str, Any], scope: Scope, stack: list[Any]) -> None:
        if self._snapshot.operators_named(value["name"][-1].get("String", {}).get("sval", "")):
            self._operators(value["name"])
        stack += [value.get("lexpr"), value.get("rexpr")]

    def _sort_node(self, value: dict[str, Any], scope: Scope, stack: list[Any]) -> None:
        self._operators(value.get("useOp"))
        stack.append(value.get("node", {}))

    def _cast_node(self, value: dict[str, Any], scope: Scope, stack: list[Any]) -> None:
        stack.append(value.get("arg", {}))

    def _indirection_node(self, value: dict[str, Any], scope: Scope, stack: list[Any]) -> None:
        """`(t).f` is `f(t)` where f is no column."""
        for part in value.get("indirection", ()):
            name = part.get("String", {}).get("sval")
            if name is not None:
                for one in self._functions([name], 1, False):
                    if not one.is_own:
                        self.runs(one, [])
        stack += [value.get("arg", {}), value.get("indirection", [])]

    def _range_var_node(self, value: dict[str, Any], scope: Scope, stack: list[Any]) -> None:
        self._mentioned(value, scope)

    def _restricts(self, where: Any, scope: Scope, target: str = "") -> bool:
        def columns(reference: dict[str, Any]) -> tuple[Key, ...]:
            names, star = parts_of(reference.get("fields", []))
            found = look_up(names, star, scope)
            if found.origins:
                return tuple((origin, "") for origin in dict.fromkeys(found.origins))
            return () if found.missing else (("", ".".join(names)),)

        def nullable(reference: dict[str, Any]) -> bool:
            names, star = parts_of(reference.get("fields", []))
            found = look_up(names, star, scope)
            return star or not any(names[-1] in item.not_null for item in found.items)

        judge = Predicates(columns, nullable, target)
        result = judge.restricts(where)
        self._work.numbers = self._work.numbers or judge.numbers
        return result

    # --- statements that write ---

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
        if self._top:
            self._work.outputs = outputs

    def _insert(self, value: dict[str, Any], outer: Scope) -> None:
        work = self._work
        scope = Scope(outer, outer.ctes, self.lenient)
        if "withClause" in value:
            self._with(value["withClause"], scope)
        top, self._top = self._top, False
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
                for relation in found:
                    work.add(self._resolver.writing(relation, "UPDATE"))
                self._assignments(conflict.get("targetList", ()), target, found, inner)
            if "whereClause" in conflict:
                self.walk(conflict["whereClause"], inner)
        self._top = top
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
        top, self._top = self._top, False
        target, found = self._target(value.get("relation", {}), scope, "UPDATE")
        for element in value.get("fromClause", ()):
            self._from(element, scope)
        self._assignments(value.get("targetList", ()), target, found, scope)
        self._changed_where(value, scope)
        self._top = top
        self._returning(value, scope, target)

    def _delete(self, value: dict[str, Any], outer: Scope) -> None:
        scope = Scope(outer, outer.ctes, self.lenient)
        if "withClause" in value:
            self._with(value["withClause"], scope)
        top, self._top = self._top, False
        target, _ = self._target(value.get("relation", {}), scope, "DELETE")
        # A list of FROM elements here; the names of columns elsewhere.
        for element in value.get("usingClause", ()):
            self._from(element, scope)
        self._changed_where(value, scope)
        self._top = top
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
        top, self._top = self._top, False
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
        self._top = top
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

    # --- definitions ---

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
        if isinstance(relation, dict):
            found = self._resolver.relations(
                relation.get("schemaname", ""), relation.get("relname", ""), self._meaning, work
            )
            columns, _ = self._columns_of(found, True)
            inner.items.append(Item(relation.get("relname", ""), columns, is_open=True))
            if kind == "RenameStmt" and any(is_temporary(r.schema) for r in found):
                work.temporary.add(value.get("newname", ""))
        self.walk(value, inner)

    def _create_table(self, value: dict[str, Any], scope: Scope) -> None:
        inner = Scope(scope, scope.ctes, lenient=True)
        inner.items.append(Item("", {}, is_open=True))
        body = value.get("base", value)
        self._creates(body.get("relation", {}))
        if "base" in value:
            # A foreign table reads what its server says, and file_fdw's runs programs.
            self._work.links.add("foreign table")
        for entry in body.get("tableElts", ()):
            like = entry.get("TableLikeClause")
            if like is not None:
                self._found({**like.get("relation", {}), "inh": True}, reads=True, scope=inner)
            else:
                self._constraints(entry, inner)
        rest = {
            key: part
            for key, part in body.items()
            if key not in ("relation", "tableElts") and isinstance(part, (dict, list))
        }
        self.walk(rest, inner)

    def _constraints(self, entry: dict[str, Any], scope: Scope) -> None:
        self.walk(entry, scope)

    def _constraint_node(self, value: dict[str, Any], scope: Scope, stack: list[Any]) -> None:
        referred = value.get("pktable")
        if referred is not None:
            self._found({**referred, "inh": True}, reads=True, scope=scope)
        stack.append(
            {
                key: part
                for key, part in value.items()
                if key not in ("pktable", "fk_attrs", "pk_attrs", "keys")
            }
        )

    def _creates(self, value: dict[str, Any], is_view: bool = False) -> None:
        """A relation that is made, or replaced."""
        name, schema = value.get("relname", ""), value.get("schemaname", "")
        work = self._work
        if value.get("relpersistence") == "t" or is_temporary(schema):
            (work.views if is_view else work.temporary).add(name)
            work.writes.add(name_of("pg_temp", name))
            work.ddl.discard("create")
            work.ddl.add("temporary")
            return
        if schema:
            work.writes.add(name_of(schema, name))
            return
        for place in self._snapshot.path:
            if place not in SYSTEM:
                work.writes.add(name_of(place, name))
                break
        if not self._meaning.certain:
            work.writes |= {name_of(place, name) for place in self._snapshot.schemas - SYSTEM}

    def _create_as(self, value: dict[str, Any], scope: Scope) -> None:
        top, self._top = self._top, False
        self.walk(value.get("query", {}), scope)
        self._top = top
        self._creates(value.get("into", {}).get("rel", {}))

    def _create_view(self, value: dict[str, Any], scope: Scope) -> None:
        top, self._top = self._top, False
        before = set(self._work.ddl)
        self._work.ddl.clear()
        self.walk(value.get("query", {}), scope)
        self._work.ddl |= before
        self._top = top
        self._creates(value.get("view", {}), is_view=True)

    def _create_sequence(self, value: dict[str, Any], scope: Scope) -> None:
        self._creates(value.get("sequence", {}))

    def rule(self, value: dict[str, Any]) -> None:
        """A rule's actions, with the rows it calls OLD and NEW."""
        scope = Scope(None, {})
        found = self._resolver.relations(
            value.get("relation", {}).get("schemaname", ""),
            value.get("relation", {}).get("relname", ""),
            _UNSURE,
            self._work,
        )
        columns, is_open = self._columns_of(found, True)
        for name in ("old", "new"):
            scope.items.append(Item(name, columns, is_open, by_name=True))
        if "whereClause" in value:
            self.walk(value["whereClause"], scope)
        self._top = False
        for action in value.get("actions", ()):
            for kind, inner in action.items():
                self._statement(kind, inner, Scope(scope, {}))

    def _create_rule(self, value: dict[str, Any], scope: Scope) -> None:
        self._found({**value.get("relation", {}), "inh": True}, reads=False, scope=scope)
        self.rule(value)

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

    def _explain(self, value: dict[str, Any], scope: Scope) -> None:
        self.walk({key: part for key, part in value.items() if key != "options"}, scope)

    def _drop(self, value: dict[str, Any], scope: Scope) -> None:
        self._named_objects(value.get("removeType", ""), value.get("objects", []), True)
        if value.get("behavior") == _DROPS_WITH:
            self._work.notes.add(("high", "DROP … CASCADE drops what depends on it"))
        if value.get("removeType") in ("OBJECT_SCHEMA", "OBJECT_DATABASE"):
            self._work.notes.add(("critical", "a whole schema is dropped"))
        if value.get("removeType") in _EXTENDING:
            self._work.ddl.add("extension")

    def _named_objects(self, kind: str, objects: list[dict[str, Any]], drops: bool) -> None:
        for entry in objects:
            names = [
                part.get("String", {}).get("sval", "")
                for part in entry.get("List", {}).get("items", [entry])
            ]
            if kind == "OBJECT_SCHEMA":
                self._schema(names[-1])
            elif kind in grammar.RELATION_TYPES:
                self._changed(names)
            elif kind in grammar.PART_TYPES:
                self._changed(names[:-1])

    def _changed(self, names: list[str]) -> None:
        if not names:
            return
        schema = names[-2] if len(names) > 1 else ""
        self._found(
            {"relname": names[-1], "schemaname": schema, "inh": True, "location": 0}, reads=False
        )

    def _schema(self, schema: str) -> None:
        self._work.writes |= {
            r.full for r in self._snapshot.relations.values() if r.schema == schema
        }

    def _comment(self, value: dict[str, Any], scope: Scope) -> None:
        kind = value.get("objtype", "")
        if kind in grammar.RELATION_TYPES or kind in grammar.PART_TYPES:
            self._named_objects(kind, [value.get("object", {})], False)

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

    def _extension(self, value: dict[str, Any], scope: Scope) -> None:
        self._work.links.add("extension")
        self._work.unsettles = True


def _named(outputs: list[Output], names: list[str]) -> dict[str, Origins]:
    """Outputs by name; the first of them are called `names`."""
    columns: dict[str, Origins] = {}
    for index, output in enumerate(outputs):
        name = names[index] if index < len(names) else output.name
        columns[name] = columns.get(name, ()) + output.origins
    for name in names[len(outputs) :]:
        columns[name] = ()
    return columns


def _renamed(columns: dict[str, Origins], alias: dict[str, Any]) -> dict[str, Origins]:
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


def _joined(
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


def _hidden(scope: Scope) -> Scope:
    """The scope of a subquery in FROM that is not LATERAL: its neighbours are hidden."""
    inner = Scope(scope.outer, scope.ctes, scope.lenient)
    inner.depth = scope.depth
    return inner


def _label(value: dict[str, Any]) -> str:
    """The name PostgreSQL gives an output that has none."""
    for kind, node in value.items():
        match kind:
            case "FuncCall":
                names = node.get("funcname", [])
                return str(names[-1].get("String", {}).get("sval", "")) if names else "?column?"
            case "TypeCast":
                inner = _label(node.get("arg", {}))
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
                return named[-1] if named else _label(node.get("arg", {}))
            case "CaseExpr":
                return "case"
            case "CoalesceExpr":
                return "coalesce"
            case "SubLink":
                return _sublink_label(node)
            case "A_ArrayExpr":
                return "array"
            case "RowExpr":
                return "row"
            case _:
                return "?column?"
    return "?column?"


def _sublink_label(node: dict[str, Any]) -> str:
    if node.get("subLinkType") == "EXISTS_SUBLINK":
        return "exists"
    if node.get("subLinkType") == "ARRAY_SUBLINK":
        return "array"
    targets = node.get("subselect", {}).get("SelectStmt", {}).get("targetList", [])
    if not targets:
        return "?column?"
    first = targets[0].get("ResTarget", {})
    return str(first.get("name") or _label(first.get("val", {})))


def _function_name(value: dict[str, Any]) -> str:
    for entry in value.get("functions", ()):
        for part in entry.get("List", {}).get("items", ()):
            names = part.get("FuncCall", {}).get("funcname")
            if names:
                return str(names[-1].get("String", {}).get("sval", ""))
    return ""


@functools.lru_cache(maxsize=8192)
def _is_special(name: str) -> bool:
    """Whether a function of PostgreSQL's own does something that policies ask for."""
    return name in _SPECIAL_NAMES or any(kind.fullmatch(name) for kind in _SPECIAL)


_SPECIAL_NAMES: Final = grammar.SETTERS | grammar.NAMED_WRITES
_SPECIAL: Final = (
    grammar.FILES,
    grammar.LINKS,
    grammar.ADMINISTERS,
    grammar.UNSEEN,
    grammar.TEXTS,
    grammar.NAMED_READS,
)
# Types that PostgreSQL lets be written like a function of one argument, without having one.
_TYPES: Final = frozenset({"uuid", "json", "jsonb", "bytea", "xml", "regclass", "regproc", "money"})
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
_Node = Callable[[Reader, Any, Scope, list[Any]], None]
_NODES: Final[dict[str, _Node]] = {
    "A_Expr": Reader._operator_node,
    "A_Indirection": Reader._indirection_node,
    "ColumnRef": Reader._column_node,
    "Constraint": Reader._constraint_node,
    "FuncCall": Reader._function_node,
    "RangeVar": Reader._range_var_node,
    "SelectStmt": Reader._select_node,
    "SortBy": Reader._sort_node,
    "SubLink": Reader._sublink_node,
    "TypeCast": Reader._cast_node,
}
