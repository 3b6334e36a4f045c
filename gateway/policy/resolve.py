"""What a statement does: its parse tree read against a target's catalog. Pure.

Every place where a relation, a column or a function may be named is visited; a node that is not
known makes the statement unknown. Names mean what they mean to the server, and where that
depends on something we cannot see, everything they may mean.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Final

import msgspec
import orjson
from pglast import parser

from gateway.policy import plpgsql, risk, sql, trees
from gateway.policy.catalog import (
    SYSTEM,
    Function,
    Relation,
    Snapshot,
    full_relation,
    is_temporary,
)
from gateway.policy.facts import (
    NONE,
    UNKNOWN,
    Facts,
    Output,
    SessionNames,
    together,
)
from gateway.policy.reading.classifying import COMMENTS
from gateway.policy.reading.reader import Reader
from gateway.policy.scope import Scope
from gateway.policy.sql import Statement
from gateway.policy.work import UNSURE, Source, Work

_MOST_NESTED: Final = 24
_FUNCTION_CALL: Final = re.compile(r"FUNCTION CALL ([0-9]+)")
_LONGEST: Final = 64 * 1024
_MOST_BYTES: Final = 64 * 1024 * 1024
_TOO_DEEP: Final = "it is nested too deeply"
_DROPS_WITH: Final = "DROP_CASCADE"
_NOTHING_GIVEN: Final[Mapping[str, Facts]] = {}


class Resolver:
    """Facts of statements against one snapshot, remembering recent ones.

    A new snapshot needs a new resolver. `remembered` bounds the statements kept.
    """

    def __init__(self, snapshot: Snapshot, remembered: int = 20_000) -> None:
        self.snapshot = snapshot
        self._remembered = remembered
        self._known = _Recent(remembered)
        self._shapes = _Recent(remembered)
        self._interned: dict[tuple[object, ...], Facts] = {}
        self._combined: dict[tuple[Facts, Facts | None], Facts] = {}
        self._bytes = 0
        self._sources: dict[tuple[int, bool], Source] = {}
        self._bodies: dict[int, Work] = {}
        self._effects: dict[tuple[int, str], Work] = {}
        # What is being looked into, and of that what was come to again: until that is done, what
        # lies between is not known in full.
        self._open: set[tuple[str, int]] = set()
        self._again: set[tuple[str, int]] = set()
        self._depth = 0

    def __call__(
        self,
        statement: Statement,
        meaning: SessionNames,
        inner: Statement | None = None,
        given: Mapping[str, Facts] = _NOTHING_GIVEN,
    ) -> Facts:
        """The facts of a statement of this target. See `facts.Resolve`."""
        facts = given.get(statement.text)
        if facts is None:
            facts = self.alone(statement, meaning)
        if inner is not None or facts.executes:
            ran = None
            if inner is not None:
                ran = given.get(inner.text)
                if ran is None:
                    ran = self.alone(inner, meaning)
            return self._executing(facts, ran)
        return facts

    def alone(self, statement: Statement, meaning: SessionNames) -> Facts:
        """The facts of a statement, but for what an EXECUTE in it runs."""
        key = (statement.text, meaning)
        known = self._known.get(key)
        if known is not None:
            return known
        if statement.kind == sql.EMPTY:
            return NONE
        if statement.error:
            return UNKNOWN
        shape = sql.shape(statement.text)
        if shape is not None:
            known = self._shapes.get((shape, meaning))
            if known is not None:
                return known
        facts, numbers = self._analyse(statement, meaning)
        if shape is not None and not numbers:
            self._shapes.keep((shape, meaning), facts)
        elif len(statement.text) <= _LONGEST:
            self._known.keep(key, facts)
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
        self._make_room(combined)
        self._combined[outer, ran] = combined
        return combined

    def _make_room(self, facts: Facts) -> None:
        self._bytes += facts.cost()
        both = len(self._interned) + len(self._combined)
        if both >= self._remembered or self._bytes > _MOST_BYTES:
            self._interned.clear()
            self._combined.clear()
            self._bytes = facts.cost()

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
            self._read_whole(statement.text, work, meaning)
        work.kinds |= statement.kinds
        return self.finished(work), work.numbers

    def _read_whole(self, text: str, work: Work, meaning: SessionNames) -> None:
        try:
            self.read_text(text, work, meaning)
        except Exception as error:
            # A tree of a shape nobody thought of: not understood, whatever was found of it.
            work.unknown.add(f"the statement ({type(error).__name__})")
            work.unsettles = work.opaque = True

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
            if self._depth > 1:
                # The statement's own are known.
                work.kinds |= sql.kinds_of(trees.tree(text))

            def read(tree: dict[str, Any]) -> None:
                for statement in tree.get("stmts", []):
                    reader = Reader(self, work, meaning)
                    reader.lenient = lenient
                    # What a text within a statement returns, the statement does not.
                    reader.is_top = self._depth == 1
                    reader.statement(statement.get("stmt", {}))

            trees.look_into(text, read)
        except parser.ParseError:
            work.unknown.add("a text that does not parse")
        except (orjson.JSONDecodeError, RecursionError):
            work.unknown.add(_TOO_DEEP)
            work.unsettles = work.opaque = True
        finally:
            self._depth -= 1

    def finished(self, work: Work) -> Facts:
        """`work` as facts; equal ones are one object."""
        if COMMENTS in work.writes:
            work.classifies.add(f"{COMMENTS}.description")
        if work.classifies:
            work.ddl.add("classify")
        level, reasons = risk.assess(work)
        facts = Facts(
            kinds=frozenset(work.kinds),
            tables_read=frozenset(work.reads),
            tables_written=frozenset(work.writes),
            columns_read=frozenset(work.columns),
            columns_written=frozenset(work.written_columns),
            functions=frozenset(work.functions),
            ddl=frozenset(work.ddl),
            classifies=frozenset(work.classifies),
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
        self._make_room(facts)
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

    def family(self, relation: Relation, inherited: bool = True) -> set[str]:
        """It, what it is a part of, and its parts where they are meant."""
        family = {relation.full, *(one.full for one in self.snapshot.ancestors(relation))}
        if inherited:
            family |= {one.full for one in self.snapshot.descendants(relation)}
        return family

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
            reader = Reader(self, work, UNSURE)
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
        if not self._again:
            self._bodies[function.oid] = work
        return work

    def _read_body(self, function: Function, work: Work) -> None:
        for oid in function.calls:
            called = self.snapshot.functions.get(oid)
            if called is not None:
                Reader(self, work, UNSURE).runs(called, [])
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
            reader = Reader(self, work, UNSURE)
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
            self.read_text(text, work, UNSURE, lenient=True)
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
                    work.writes |= self.family(base)
                    work.add(self.writing(base, event))
            for descendant in self.snapshot.descendants(relation):
                work.add(self.writing(descendant, event))
        finally:
            self._leave(event, relation.oid)
        if not self._again:
            self._effects[key] = work
        return work

    def _pass_on(self, relation: Relation, event: str, work: Work) -> None:
        for cascade in relation.cascades:
            does = cascade.on_delete if event == "DELETE" else cascade.on_update
            referring = self.snapshot.relations.get(cascade.oid)
            acts = event == "TRUNCATE" or (event in ("DELETE", "UPDATE") and does in "cnd")
            if not acts or referring is None:
                continue
            work.writes |= self.family(referring)
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
        Reader(self, inner, UNSURE).rule_actions(rule)
        inner.references, inner.outputs = [], []
        work.add(inner)

    def _enter(self, what: str, oid: int, work: Work, quietly: bool = False) -> bool:
        """Whether to look into it: not while we are inside of it already."""
        if (what, oid) in self._open or self._depth >= _MOST_NESTED:
            if not quietly or self._depth >= _MOST_NESTED:
                work.unknown.add(_TOO_DEEP)
            self._again.add((what, oid))
            return False
        self._open.add((what, oid))
        self._depth += 1
        return True

    def _leave(self, what: str, oid: int) -> None:
        self._open.discard((what, oid))
        self._again.discard((what, oid))
        self._depth -= 1


class _Recent:
    """Facts by text, of so many statements and so many characters at most."""

    _CHARACTERS: Final = 16 * 1024 * 1024

    def __init__(self, most: int) -> None:
        self._most = most
        self._facts: OrderedDict[tuple[str, SessionNames], Facts] = OrderedDict()
        self._characters = 0
        self.get = self._facts.get

    def keep(self, key: tuple[str, SessionNames], facts: Facts) -> None:
        """Remember."""
        self._facts[key] = facts
        self._characters += len(key[0])
        while len(self._facts) > self._most or self._characters > self._CHARACTERS:
            oldest, _ = self._facts.popitem(last=False)
            self._characters -= len(oldest[0])
