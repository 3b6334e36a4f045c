"""Expressions: the columns, functions, operators and relations they name. Pure."""

from __future__ import annotations

import functools
from abc import abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import orjson
from pglast import parser

from gateway.policy import grammar
from gateway.policy.catalog import SYSTEM, Function, Relation, name_of
from gateway.policy.facts import Output, Reference, SessionNames
from gateway.policy.predicates import Key, Predicates, constant
from gateway.policy.scope import Found, Origins, Scope, look_up, parts_of
from gateway.policy.work import Work

if TYPE_CHECKING:
    from gateway.policy.resolve import Resolver


class Expressions:
    """Reads one statement's tree into `work`; what stands around an expression is read by those
    who derive from this.
    """

    def __init__(self, resolver: Resolver, work: Work, meaning: SessionNames) -> None:
        self._resolver = resolver
        self._snapshot = resolver.snapshot
        self._work = work
        self._meaning = meaning
        self.is_top = True
        # For a view: the relations of its FROM, and columns used elsewhere than in its outputs.
        self.bases: list[Relation] | None = None
        self.elsewhere: set[str] = set()
        self._in_output = False
        self._returned: list[Output] = []
        # Whether the last query read has a WHERE that restricts it.
        self._where = False
        self.lenient = False
        # What each subquery in an expression returns, by its node's identity.
        self._sublinks: dict[int, list[str]] = {}

    @abstractmethod
    def select(self, value: dict[str, Any], outer: Scope, judged: bool = False) -> list[Output]:
        """A query; returns its output columns. `judged`: whether it restricts is asked."""

    @abstractmethod
    def _select_statement(self, value: dict[str, Any], scope: Scope) -> None: ...

    @abstractmethod
    def _creates(self, value: dict[str, Any], is_view: bool = False) -> str:
        """A relation that is made, or replaced; its full name, or one of those it may have."""

    @abstractmethod
    def _statement(self, kind: str, value: dict[str, Any], scope: Scope) -> None: ...

    def walk(self, node: Any, scope: Scope) -> None:
        """Visit everything in `node`, however deep."""
        stack: list[Any] = [node]
        handlers = _NODES
        while stack:
            one = stack.pop()
            if type(one) is list:
                # There may be a million constants, and nothing is in one.
                stack += [each for each in one if type(each) is not dict or "A_Const" not in each]
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
        top, self.is_top = self.is_top, False
        bases, self.bases = self.bases, None
        if top:
            self.is_top = True
            self._select_statement(value, scope)
        else:
            self.select(value, scope)
        self.is_top, self.bases = top, bases

    def _sublink_node(self, value: dict[str, Any], scope: Scope, stack: list[Any]) -> None:
        if "testexpr" in value:
            stack.append(value["testexpr"])
        self._operators(value.get("operName"))
        query = value.get("subselect", {}).get("SelectStmt")
        top, self.is_top = self.is_top, False
        bases, self.bases = self.bases, None
        if query is not None:
            outputs = self.select(query, scope)
            self._sublinks[id(value)] = [o for output in outputs for o in output.origins]
            if not self._in_output:
                self.elsewhere.update(self._sublinks[id(value)])
        else:
            stack.append(value.get("subselect", {}))
        self.is_top, self.bases = top, bases

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

        def returned(sublink: dict[str, Any]) -> tuple[Key, ...]:
            return tuple((origin, "") for origin in self._sublinks.get(id(sublink), ()))

        judge = Predicates(columns, nullable, returned, target)
        result = judge.restricts(where)
        self._work.numbers = self._work.numbers or judge.numbers
        return result

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
        work.writes |= self._resolver.family(relation, inherited)
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
_Node = Callable[[Expressions, Any, Scope, list[Any]], None]
_NODES: Final[dict[str, _Node]] = {
    "A_Expr": Expressions._operator_node,
    "A_Indirection": Expressions._indirection_node,
    "ColumnRef": Expressions._column_node,
    "Constraint": Expressions._constraint_node,
    "FuncCall": Expressions._function_node,
    "RangeVar": Expressions._range_var_node,
    "SelectStmt": Expressions._select_node,
    "SortBy": Expressions._sort_node,
    "SubLink": Expressions._sublink_node,
    "TypeCast": Expressions._cast_node,
}
