"""How a statement runs for a person who may not see everything.

One rule: no expression sees a classified value. A statement that mentions none passes as it is. A
hidden column as a bare output of the outermost query is fetched and masked in the rows as they
pass. Any other mention makes every protected table in FROM a subselect whose hidden columns are
masked by the target itself. What can be neither is refused, and so is whatever is not understood.

Mentions are found by name alone, wherever a name stands: too many at worst, never too few.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final, Literal

from pglast import parser

from gateway.masking import allowed, ordering, sqlmask
from gateway.masking.hidden import Hidden, Relation
from gateway.masking.probes import Probe, TooMany, probes_of
from gateway.masking.tree import STAR, Reading, Reference, constant, nodes, read, strings
from gateway.policy import trees

_SYSTEM: Final = frozenset({"ctid", "xmin", "xmax", "cmin", "cmax", "tableoid"})
_DOT: Final = "ASCII_46"
_ASTERISK: Final = "ASCII_42"
_CLOSE: Final = "ASCII_41"
_PLAN_BYTES: Final = 1024
_PROBE_BYTES: Final = 200

Action = Literal["pass", "pump", "rewrite", "refuse"]

_PROTECTED: Final = "42501"
_UNDEFINED: Final = "42P01"
_QUERIES: Final = frozenset({"SelectStmt", "InsertStmt", "UpdateStmt", "DeleteStmt", "MergeStmt"})
_HARMLESS: Final = frozenset(
    {
        "TransactionStmt", "DeallocateStmt", "ClosePortalStmt", "FetchStmt", "DiscardStmt",
        "UnlistenStmt", "VariableShowStmt", "ConstraintsSetStmt", "CheckPointStmt", "LockStmt",
        "VacuumStmt", "ReindexStmt", "TruncateStmt", "DropStmt", "CreateSeqStmt",
        "AlterSeqStmt", "CreateEnumStmt", "AlterEnumStmt",
    }
)  # fmt: skip
# They may be run on anything but what is protected.
_UNPROTECTED_ONLY: Final = frozenset(
    {"CreateStmt", "IndexStmt", "AlterTableStmt", "RenameStmt", "CommentStmt", "CreateStatsStmt",
     "ViewStmt", "AlterObjectSchemaStmt", "CreateSchemaStmt"}
)  # fmt: skip

_RENAMED: Final = frozenset(
    {"OBJECT_TABLE", "OBJECT_COLUMN", "OBJECT_INDEX", "OBJECT_VIEW", "OBJECT_SEQUENCE",
     "OBJECT_TABCONSTRAINT", "OBJECT_MATVIEW"}
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Edit:
    """`text` stands for the bytes from `start` to `end` of what was typed."""

    start: int
    end: int
    text: str


@dataclass(frozen=True, slots=True)
class Plan:
    """`edits` make what runs of what was typed. `reason` says what is masked, or why it is refused
    with `sqlstate`. `columns` are the hidden columns that are mentioned. `creates` is a relation
    that the statement makes, `probes` what it compares in clear.
    """

    action: Action
    reason: str = ""
    edits: tuple[Edit, ...] = ()
    columns: tuple[str, ...] = ()
    creates: str = ""
    probes: tuple[Probe, ...] = ()
    sqlstate: str = _PROTECTED

    @property
    def size(self) -> int:
        """Roughly its bytes in memory: a statement may look up as many values as are typed."""
        probes = sum(_PROBE_BYTES + len(probe.written) for probe in self.probes)
        return _PLAN_BYTES + probes + sum(len(edit.text) for edit in self.edits)

    def apply(self, text: str) -> str:
        """What runs."""
        raw, out, at = text.encode(), [], 0
        for edit in self.edits:
            out += [raw[at : edit.start], edit.text.encode()]
            at = edit.end
        return b"".join([*out, raw[at:]]).decode()

    def typed_at(self, text: str, position: int) -> int:
        """Where in `text`, as typed, a character of what ran stands; both count from 1.

        Positions within what was put in are where it was put.
        """
        raw = text.encode()
        moved = 0
        for edit in self.edits:
            start = len(raw[: edit.start].decode())
            typed = len(raw[edit.start : edit.end].decode())
            if position - 1 - moved < start:
                break
            if position - 1 - moved < start + len(edit.text):
                return start + 1
            moved += len(edit.text) - typed
        return position - moved


PASS: Final = Plan("pass")


class _Refused(Exception):
    def __init__(self, reason: str, columns: Iterable[str] = (), sqlstate: str = _PROTECTED):
        super().__init__(reason)
        self.plan = Plan("refuse", reason, columns=tuple(sorted(columns)), sqlstate=sqlstate)


def plan(
    text: str, hidden: Hidden, own: frozenset[str] = frozenset(), *, converted: bool = False
) -> Plan:
    """For one statement. `own` are the relations that this session has made itself.

    `converted`: the target converts what it sends into the client's encoding, and fails where a
    letter is not in that; so nothing that is hidden may leave it.
    """
    try:
        planner = _Planner(text.encode(), hidden, own, converted)
        return trees.look_into(text, planner.only)
    except _Refused as refused:
        return refused.plan
    except TooMany as many:
        return Plan("refuse", str(many))
    except (parser.ParseError, ValueError, KeyError, TypeError, RecursionError, UnicodeError):
        return Plan("refuse", "the statement is not understood")


class _Names:
    """What the first part of a column reference may be, anywhere in the statement."""

    def __init__(self, reading: Reading, protected: list[tuple[Reference, Relation]]) -> None:
        self._reading = reading
        self._columns: dict[str, set[str]] = {}
        for reference, relation in protected:
            # RETURNING knows a row as it was and as it is.
            versions = ("old", "new") if reference.writes else ()
            for name in (reference.alias or reference.name, *versions):
                columns = self._columns.setdefault(name, set())
                columns.update(column.name for column in relation.columns)
        called = {reference.alias or reference.name for reference in reading.references}
        # A subquery or CTE with something hidden in it mentions that itself.
        self._others = (called | reading.derived) - self._columns.keys() - reading.joins

    def elsewhere(self, path: tuple[str, ...]) -> bool:
        """Whether it is of something that is not protected."""
        return len(path) > 1 and path[-2] in self._others

    def whole(self, path: tuple[str, ...]) -> bool:
        """Whether it may be a whole row: `c`, `j.x` of a join, or `c.f`, which may be f(c)."""
        if len(path) == 1:
            return path[0] in self._reading.aliases or path[0] in self._columns
        columns = self._columns.get(path[-2])
        if columns is None:
            return path[-2] in self._reading.joins or not path[-2]
        return path[-1] not in columns and path[-1] not in _SYSTEM


class _Planner:
    """One statement's planning. `own` are relations that the session has made."""

    def __init__(self, raw: bytes, hidden: Hidden, own: frozenset[str], converted: bool) -> None:
        self._converted = converted
        self._raw = raw
        self._text = raw.decode()
        self._hidden = hidden
        self._own = own
        self._prepares = False

    def only(self, tree: dict[str, Any]) -> Plan:
        """Of a text that is one statement. Raises _Refused."""
        statements = tree["stmts"]
        if len(statements) != 1:
            raise _Refused("the statement is not understood")
        ((kind, node),) = statements[0]["stmt"].items()
        return self.plan(kind, node)

    def plan(self, kind: str, node: dict[str, Any]) -> Plan:
        """Raises _Refused."""
        if kind in _QUERIES:
            into = node.get("intoClause")
            if into:
                rest = {key: value for key, value in node.items() if key != "intoClause"}
                return self._copying("SELECT INTO", "SelectStmt", rest, into["rel"])
            return self._query(kind, node)
        match kind:
            case "PrepareStmt" | "DeclareCursorStmt":
                # What an EXECUTE gives for its parameters is not looked at.
                self._prepares = kind == "PrepareStmt"
                return self._inner(node["query"])
            case "ExplainStmt":
                if "ExecuteStmt" in node["query"]:
                    # What was prepared may be a rewrite, and a token's key stands in its text.
                    raise _Refused("its plan would show how columns are masked")
                inner = self._inner(node["query"])
                if inner.action == "rewrite":
                    raise _Refused("its plan would show how columns are masked", inner.columns)
                return inner
            case "ExecuteStmt":
                self._expressions(node.get("params", []))
                return PASS
            case "CopyStmt":
                return self._copy(node)
            case "CreateTableAsStmt":
                ((inner_kind, query),) = node["query"].items()
                if inner_kind == "ExecuteStmt":
                    raise _Refused("CREATE TABLE AS EXECUTE may copy hidden columns")
                return self._copying("CREATE TABLE AS", inner_kind, query, node["into"]["rel"])
            case "VariableSetStmt":
                self._setting(node)
                return PASS
            case "NotifyStmt":
                if node.get("payload"):
                    raise _Refused("a notification's payload is not masked")
                return PASS
            case "CallStmt":
                raise _Refused("a procedure may read what you may not see")
            case _ if kind in _HARMLESS:
                return PASS
            case _ if kind in _UNPROTECTED_ONLY:
                return self._definition(kind, node)
            case _:
                name = kind.removesuffix("Stmt")
                raise _Refused(f"{name} is not open to those who may not see everything")

    def _inner(self, wrapped: dict[str, Any]) -> Plan:
        ((kind, node),) = wrapped.items()
        return self.plan(kind, node)

    # --- queries ---

    def _query(self, kind: str, node: dict[str, Any], *, rows_pass: bool = True) -> Plan:
        """`rows_pass`: its rows reach the client as DataRows, where they can be masked."""
        reading = read(kind, node)
        self._check_calls(reading)
        protected = self._protected(reading)
        self._check_constraints(kind, node)
        if not protected:
            return PASS
        self._check_probing(kind, node, reading)
        hidden = frozenset().union(*(relation.hidden for _, relation in protected))
        probes, others = probes_of(reading, [each for _, each in protected], self._prepares)
        reading.columns += others
        _fold(reading, hidden)
        inner = self._mentions(reading, protected, hidden)
        if any(reference.renames for reference, _ in protected):
            # Its columns go by other names.
            inner = hidden
        outputs = self._outputs(reading, protected)
        columns = self._named((relation for _, relation in protected), inner | outputs)
        if not inner and not outputs:
            return replace(PASS, probes=probes) if probes else PASS
        bare = kind == "SelectStmt" and self._bare(node, reading, hidden)
        self._check_use(protected, inner if bare or kind != "SelectStmt" else inner | outputs)
        if kind != "SelectStmt" or reading.nested_writes:
            if inner:
                raise _Refused("it would use hidden columns in a change", columns)
            if not self._pumpable(protected, outputs):
                raise _Refused("RETURNING cannot be masked for these columns", columns)
            return Plan("pump", "", columns=columns, probes=probes)
        if rows_pass and not inner and bare and self._pumpable(protected, outputs):
            return Plan("pump", "", columns=columns, probes=probes)
        # What compares in clear would now compare with what is masked: that is what a rewrite is.
        edits = tuple(sorted(self._edits(node, protected), key=lambda edit: edit.start))
        return Plan("rewrite", "", edits, columns)

    def _check_calls(self, reading: Reading) -> None:
        hidden = self._hidden
        if reading.unknown:
            raise _Refused(f"{reading.unknown} is not understood here")
        for path in reading.functions:
            name = path[-1]
            if (len(path) > 1 and path[-2] != "pg_catalog") or len(path) > 2:
                shown = ".".join(path)
                if not (path[-2] == "information_schema" and name in allowed.FUNCTIONS):
                    raise _Refused(f"function {shown} may read what you may not see")
            if len(path) == 1 and name in hidden.shadowing:
                raise _Refused(f"function {name} may read what you may not see")
            if name not in hidden.functions and name not in allowed.FUNCTIONS:
                raise _Refused(f"function {name} may read what you may not see")
        for path in reading.operators:
            if (len(path) > 1 and path[0] != "pg_catalog") or (
                len(path) == 1 and path[0] in hidden.operators
            ):
                raise _Refused(f"operator {path[-1]} may read what you may not see")
        for name in reading.settings:
            if name.lower() == "client_min_messages" or not allowed.setting(name, "notice"):
                raise _Refused(f"setting {name or 'by an expression'} may change what is masked")
            self._check_fixed(name)
        for name in sorted(reading.types & hidden.types):
            raise _Refused(f"type {name} may read what you may not see")
        for path in reading.notations:
            # c.f may be f(c), whatever c is: ('select ...').ts_stat runs it.
            name = path[-1]
            uncallable = name in hidden.uncallable or name in hidden.shadowing
            if uncallable and not self._is_column(path, reading):
                raise _Refused(f"function {name} may read what you may not see")

    def _is_column(self, path: tuple[str, ...], reading: Reading) -> bool:
        """Whether every relation that it may be of has such a column: then it is no function."""
        meant = [
            reference
            for reference in reading.references
            if (reference.alias or reference.name) == path[-2]
        ]
        return bool(meant) and not any(self._lacks(reference, path[-1]) for reference in meant)

    def _lacks(self, reference: Reference, column: str) -> bool:
        if reference.renames:
            return True
        schemas = (reference.schema,) if reference.schema else self._hidden.path
        for schema in schemas:
            known = self._hidden.attributes.get((schema, reference.name))
            if known is not None:
                return column not in known
        return True

    def _check_probing(self, kind: str, node: dict[str, Any], reading: Reading) -> None:
        """Many values tried at once against a unique index of what is hidden. Raises _Refused.

        One at a time a person learns what any writer learns, that a value is taken; a thousand at a
        time they find an unknown one by halving.
        """
        if reading.conflicts and any(self._probes_conflict(each) for each in reading.conflicts):
            for reference in reading.references:
                relation = self._resolve(reference) if reference.writes else None
                if relation is not None and self._unique(relation):
                    raise _Refused("ON CONFLICT would tell which hidden values exist")
        writes = [(kind, node), *_changes(node)] if reading.nested_writes else [(kind, node)]
        for each, change in writes:
            if each not in ("InsertStmt", "UpdateStmt", "MergeStmt"):
                continue
            relation = self._resolve(_reference(change["relation"]))
            unique = self._unique(relation) if relation is not None else frozenset()
            if relation is None or not unique:
                continue
            if each == "MergeStmt":
                raise _Refused("MERGE would tell which hidden values exist", [relation.full_name])
            if each == "InsertStmt":
                source = change.get("selectStmt", {}).get("SelectStmt", {})
                listed = {target["ResTarget"]["name"] for target in change.get("cols", [])}
                many = bool(source) and len(source.get("valuesLists", [])) != 1
                if many and (not listed or listed & unique):
                    raise _Refused(
                        "many rows at once would tell which hidden values exist",
                        self._named([relation], unique),
                    )
                continue
            for target in change.get("targetList", []):
                result = target["ResTarget"]
                if result["name"] in unique and not constant(result.get("val")):
                    raise _Refused("a value that is computed would tell which hidden ones exist")

    def _check_constraints(self, kind: str, node: dict[str, Any]) -> None:
        """What is set must not be measured against what is hidden in the same row, nor what is
        hidden against other rows. Raises _Refused.
        """
        if not self._hidden.together or (kind == "SelectStmt" and "withClause" not in node):
            return
        for _, change in ((kind, node), *_changes(node)):
            named = change.get("relation", {})
            if "relname" not in named:
                continue
            reference = _reference(named)
            schemas = (reference.schema,) if reference.schema else self._hidden.path
            groups = [self._hidden.together.get((each, reference.name), ()) for each in schemas]
            targets = _set(change)
            given = {name for name, value in targets if constant(value)}
            names = {name for name, _ in targets}
            for together, secret in (group for found in groups for group in found):
                if names & together and not secret <= given:
                    raise _Refused(
                        "a constraint would compare it with what you may not see",
                        [f"{reference.name}.{name}" for name in secret if name],
                    )

    @staticmethod
    def _probes_conflict(clause: dict[str, Any]) -> bool:
        infer = clause.get("infer") or {}
        return bool(infer.get("conname")) or not infer.get("indexElems")

    def _unique(self, relation: Relation) -> frozenset[str]:
        named = self._hidden.unique.get((relation.schema, relation.name), frozenset())
        return named & relation.hidden

    def _protected(self, reading: Reading) -> list[tuple[Reference, Relation]]:
        found = []
        for reference in reading.references:
            relation = self._resolve(reference)
            if relation is not None:
                found.append((reference, relation))
        return found

    def _candidates(self, reference: Reference) -> list[Relation]:
        schemas = (reference.schema,) if reference.schema else self._hidden.path
        keys = [(schema, reference.name) for schema in schemas]
        return [self._hidden.protected[key] for key in keys if key in self._hidden.protected]

    def _resolve(self, reference: Reference) -> Relation | None:
        """The protected relation that a name means, or None for another. Raises _Refused."""
        hidden, schema, name = self._hidden, reference.schema, reference.name
        if reference.catalog and reference.catalog != hidden.database:
            raise _Refused("cross-database references are not implemented", sqlstate="0A000")
        if schema == "pg_catalog" or (not schema and name.startswith("pg_")):
            if reference.writes:
                # UPDATE of pg_settings is SET by another name.
                raise _Refused(f"writing to {name} may change what is masked")
            if name in allowed.CATALOGS:
                return None
            raise _Refused(f"{name} may hold what you may not see")
        if schema == "information_schema":
            return None
        places = [
            place
            for place in ((schema,) if schema else hidden.path)
            if (place, name) in hidden.protected or (place, name) in hidden.known
        ]
        if reference.writes and any((place, name) in hidden.ruled for place in places):
            raise _Refused(f"a rule on {name} may read what you may not see")
        found = [
            hidden.protected[place, name] for place in places if (place, name) in hidden.protected
        ]
        if any((place, name) in hidden.closed for place in places):
            raise _Refused(f"which rows {name} has depends on what you may not see")
        if found and (places[0], name) not in hidden.protected:
            # An open transaction may have dropped the first.
            raise _Refused(f"{name} is in several schemas: say which")
        if found:
            return found[0]
        # What is known comes first: a name that this session made, or tried to, may be another's.
        if places or (name if schema in ("", "pg_temp") else f"{schema}.{name}") in self._own:
            return None
        shown = f"{schema}.{name}" if schema else name
        raise _Refused(f'relation "{shown}" does not exist', sqlstate=_UNDEFINED)

    def _check_use(self, protected: list[tuple[Reference, Relation]], used: frozenset[str]) -> None:
        """Whether all of these may be used, if masked. Raises _Refused."""
        strict = {
            f"{relation.full_name}.{column.name}"
            for _, relation in protected
            for column in relation.columns
            if column.name in used and column.mask is not None and column.mask.use == "refuse"
        }
        if strict:
            raise _Refused(
                f"{', '.join(sorted(strict))} may be shown, masked, and not used otherwise", strict
            )

    @staticmethod
    def _mentions(
        reading: Reading, protected: list[tuple[Reference, Relation]], hidden: frozenset[str]
    ) -> frozenset[str]:
        """Hidden names that stand anywhere but as an output of the outermost query."""
        names = _Names(reading, protected)
        found: set[str] = set(reading.merged & hidden)
        whole = reading.natural
        for path in reading.columns:
            if names.elsewhere(path):
                continue
            if path[-1] in hidden:
                found.add(path[-1])
            else:
                whole |= path[-1] == STAR or names.whole(path)
        for _, path, _ in reading.outputs:
            whole |= path[-1] != STAR and not names.elsewhere(path) and names.whole(path)
        return hidden if whole else frozenset(found)

    @staticmethod
    def _outputs(reading: Reading, protected: list[tuple[Reference, Relation]]) -> frozenset[str]:
        """Hidden names among the outputs of the outermost query."""
        names = _Names(reading, protected)
        hidden = {name for _, relation in protected for name in relation.hidden}
        found: set[str] = set()
        for _, path, _ in reading.outputs:
            if path[-1] == STAR and not names.elsewhere(path):
                return frozenset(hidden)
            found.add(path[-1])
        return frozenset(found & hidden)

    def _pumpable(
        self, protected: list[tuple[Reference, Relation]], outputs: frozenset[str]
    ) -> bool:
        return not self._converted and all(
            column.pumped
            for _, relation in protected
            for column in relation.columns
            if column.name in outputs
        )

    @staticmethod
    def _bare(node: dict[str, Any], reading: Reading, hidden: frozenset[str]) -> bool:
        """Whether the outermost SELECT does nothing with its outputs but return them."""
        if node.get("op", "SETOP_NONE") != "SETOP_NONE" or node.get("distinctClause"):
            return False
        shown = {name for _, path, name in reading.outputs if path[-1] in hidden and name}
        places = {place for place, path, _ in reading.outputs if path[-1] in hidden}
        starred = any(path[-1] == STAR for _, path, _ in reading.outputs)
        # GROUP BY the primary key, as ORMs do: what is hidden follows from it.
        for kind, grouped in nodes(node.get("groupClause", [])):
            if kind == "A_Const":
                place = grouped.get("ival", {}).get("ival", 0) - 1
                if starred or place in places or place < 0:
                    return False
            elif kind == "ColumnRef" and strings(grouped["fields"])[-1] in shown:
                return False
        for each in node.get("sortClause", []):
            sorted_by = each["SortBy"]["node"]
            if "A_Const" in sorted_by:
                place = sorted_by["A_Const"].get("ival", {}).get("ival", 0) - 1
                if starred or place in places or place < 0:
                    return False
            elif (
                "ColumnRef" in sorted_by and strings(sorted_by["ColumnRef"]["fields"])[-1] in shown
            ):
                return False
        return True

    @staticmethod
    def _named(relations: Iterable[Relation], names: frozenset[str]) -> tuple[str, ...]:
        """Hidden columns of these names, for people."""
        named = {
            f"{relation.full_name}.{name}"
            for relation in relations
            for name in names & relation.hidden
        }
        return tuple(sorted(named))

    # --- rewriting ---

    def _edits(
        self, node: dict[str, Any], protected: list[tuple[Reference, Relation]]
    ) -> Iterable[Edit]:
        for pair in protected:
            yield self._edit(*pair)
        # A subselect has a name, and is in no schema.
        bare = {(r.schema, r.name) for reference, r in protected if not reference.alias}
        for kind, value in nodes(node):
            if kind == "ColumnRef":
                path = strings(value["fields"])
                if len(path) > 2 and path[-3:-1] in bare:
                    at = value.get("location", 0)
                    yield Edit(
                        at, self._end(at, len(path) - 1, more=True), sqlmask.identifier(path[-2])
                    )

    def _edit(self, reference: Reference, relation: Relation) -> Edit:
        if reference.writes:
            raise _Refused("it would use hidden columns in a change", [relation.full_name])
        if reference.only or reference.sampled:
            raise _Refused("ONLY and TABLESAMPLE cannot be masked here", [relation.full_name])
        start, end = self._span(reference)
        subselect = self._masked(relation)
        if not reference.alias:
            subselect += f" AS {sqlmask.identifier(relation.name)}"
        return Edit(start, end, subselect)

    def _masked(self, relation: Relation) -> str:
        """A subselect with the relation's columns, the hidden ones masked."""
        outputs = [self._output(column) for column in relation.columns]
        source = f"{sqlmask.identifier(relation.schema)}.{sqlmask.identifier(relation.name)}"
        return f"(SELECT {', '.join(outputs)} FROM {source})"

    def _output(self, column: Any) -> str:
        name = sqlmask.identifier(column.name)
        if column.mask is None:
            return name
        return f"{sqlmask.expression(column, self._hidden.token_keys)} AS {name}"

    @cached_property
    def _scanned(self) -> list[Any]:
        return list(parser.scan(self._text))

    def _span(self, reference: Reference) -> tuple[int, int]:
        """Where the (qualified) name stands. Raises _Refused."""
        parts = sum(bool(part) for part in (reference.catalog, reference.schema, reference.name))
        return reference.at, self._end(reference.at, parts)

    def _end(self, at: int, parts: int, *, more: bool = False) -> int:
        """Behind a name of so many parts, or of `more`. Raises _Refused."""
        start = len(self._raw[:at].decode())
        wanted = 2 * parts - 1
        tokens = [token for token in self._scanned if token.start >= start]
        named = [token for token in tokens if not token.name.endswith("_COMMENT")]
        if (
            len(named) < wanted
            or named[0].start != start
            or any(token.name != _DOT for token in named[1:wanted:2])
            # `customers *` is how inheritance was asked for once.
            or any(
                token.name == _ASTERISK or (token.name == _DOT and not more)
                for token in named[wanted : wanted + 1]
            )
        ):
            raise _Refused("the statement is not understood")
        return len(self._text[: named[wanted - 1].end + 1].encode())

    def _list_end(self, at: int) -> int:
        """Behind the list of columns at `at`: a comment in it may hold a parenthesis."""
        start = len(self._raw[:at].decode())
        for token in self._scanned:
            if token.start >= start and token.name == _CLOSE:
                return len(self._text[: token.end + 1].encode())
        raise _Refused("the statement is not understood")

    # --- other statements ---

    def _copy(self, node: dict[str, Any]) -> Plan:
        if node.get("filename") or node.get("is_program"):
            raise _Refused("COPY with files or programs is not masked")
        if node.get("query"):
            ((kind, query),) = node["query"].items()
            found = self._query(kind, query, rows_pass=False)
            if found.action == "pump":
                raise _Refused("COPY of a change cannot be masked", found.columns)
            return found
        relation = self._target(node["relation"])
        if node.get("is_from"):
            given = {each["String"]["sval"] for each in node.get("attlist", [])}
            unique = self._unique(relation) if relation is not None else frozenset()
            if unique and (not given or given & unique):
                raise _Refused("many rows at once would tell which hidden values exist")
            self._expressions(node.get("whereClause"))
            return PASS
        if relation is None:
            return PASS
        chosen = [each["String"]["sval"] for each in node.get("attlist", [])]
        if chosen and not relation.hidden & set(chosen):
            return PASS
        reference = _reference(node["relation"])
        start, end = self._span(reference)
        if chosen:
            end = self._list_end(end)
        listed = ", ".join(map(sqlmask.identifier, chosen)) or "*"
        text = f"(SELECT {listed} FROM {self._masked(relation)} AS t)"
        columns = [f"{relation.full_name}.{name}" for name in sorted(relation.hidden)]
        return Plan("rewrite", "", (Edit(start, end, text),), tuple(columns))

    def _copying(self, what: str, kind: str, query: dict[str, Any], made: dict[str, Any]) -> Plan:
        if kind != "SelectStmt":
            raise _Refused("the statement is not understood")
        found = self._query(kind, query)
        if found.columns or found.probes:
            raise _Refused(f"{what} would copy hidden columns", found.columns)
        return Plan("pass", creates=self._made(made))

    def _made(self, made: dict[str, Any]) -> str:
        """A relation's name, as the session may use it from now on. Raises _Refused."""
        name, schema = str(made["relname"]), made.get("schemaname", "")
        if any(name == known for _, known in self._hidden.protected):
            raise _Refused(f"a relation named {name} would be taken for the protected one")
        return name if schema in ("", "pg_temp") else f"{schema}.{name}"

    def _target(self, node: dict[str, Any]) -> Relation | None:
        return self._resolve(_reference(node))

    def _expressions(self, node: Any) -> None:
        """Expressions without any relation: what they call. Raises _Refused."""
        reading = read("SelectStmt", {"whereClause": {"List": {"items": [node]}}})
        if reading.references:
            raise _Refused("the statement is not understood")
        self._check_calls(reading)

    def _setting(self, node: dict[str, Any]) -> None:
        if node.get("kind") in ("VAR_RESET_ALL",):
            return
        name = str(node.get("name", ""))
        if node.get("kind") == "VAR_SET_MULTI":
            return
        if name == "client_encoding" and node.get("kind") == "VAR_SET_DEFAULT":
            return
        values = [
            str(each.get("A_Const", {}).get("sval", {}).get("sval", ""))
            for each in node.get("args", [])
        ]
        if not allowed.setting(name, values[0] if values else "notice"):
            raise _Refused(f"setting {name} may change what is masked")
        if node.get("kind") not in ("VAR_RESET", "VAR_SET_DEFAULT"):
            # Otherwise it becomes again what the session began with.
            self._check_fixed(name)

    def _check_fixed(self, name: str) -> None:
        if ordering.fixed(self._hidden.scans, name):
            raise _Refused(f"setting {name} may put rows in the order of what you may not see")

    def _definition(self, kind: str, node: dict[str, Any]) -> Plan:
        """DDL: it must not mention anything protected, nor call what may read it."""
        created = ""
        if kind == "CreateSchemaStmt" and node.get("schemaElts"):
            raise _Refused("a schema's objects are to be made one by one")
        if kind in ("RenameStmt", "AlterObjectSchemaStmt") and (
            node.get("renameType", node.get("objectType")) not in _RENAMED
        ):
            # An open transaction's new names are not known to anybody else.
            raise _Refused("another name may hide what it reads")
        for name, schema in _names(_without_safe_keys(node, self._hidden)):
            if any(
                key[1] == name and (not schema or key[0] == schema)
                for key in self._hidden.protected
            ):
                raise _Refused(f"{name} is protected: its definition is not yours to change")
        if kind == "CreateStmt":
            created = self._made(node["relation"])
        if kind == "ViewStmt":
            ((inner_kind, query),) = node["query"].items()
            self._query(inner_kind, query)
            created = self._made(node["view"])
        self._check_calls(_called(node))
        return Plan("pass", creates=created)


def _fold(reading: Reading, hidden: frozenset[str]) -> None:
    """Names as a database in a single-byte encoding folds them, which the parser does not know:
    there GEHÄLTER is "gehälter".
    """

    def folded(name: str) -> str:
        lowered = name if name.isascii() or name in hidden else name.lower()
        return lowered if lowered in hidden else name

    reading.columns = [(*path[:-1], folded(path[-1])) for path in reading.columns]
    reading.outputs = [
        (place, (*path[:-1], folded(path[-1])), alias) for place, path, alias in reading.outputs
    ]
    reading.merged = {folded(name) for name in reading.merged}


def _reference(node: dict[str, Any]) -> Reference:
    return Reference(
        node.get("schemaname", ""), node["relname"], node.get("catalogname", ""), "", False, False,
        False, True, node.get("location", -1),
    )  # fmt: skip


def _names(node: Any) -> Iterable[tuple[str, str]]:
    """Every (name, schema) that a definition speaks of, in whatever way."""
    for key, value in (("", node), *nodes(node)):
        if isinstance(value, dict) and "relname" in value:
            yield value["relname"], value.get("schemaname", "")
        if key == "List":
            path = strings(value.get("items", []))
            for at, name in enumerate(path):
                yield name, path[at - 1] if at else ""


def _without_safe_keys(node: Any, hidden: Hidden) -> Any:
    """`node` without what foreign keys refer to, where that is no hidden column.

    A key on a hidden column would tell whether a value is there.
    """
    if isinstance(node, list):
        return [_without_safe_keys(each, hidden) for each in node]
    if not isinstance(node, dict):
        return node
    named = set(strings(node.get("pk_attrs", [])))
    secret = {name for relation in hidden.protected.values() for name in relation.hidden}
    safe = named and not named & secret
    return {
        key: _without_safe_keys(value, hidden)
        for key, value in node.items()
        if not (key == "pktable" and safe)
    }


def _called(node: Any) -> Reading:
    """What a definition calls, wherever: functions, operators, types."""
    reading = Reading()
    for key, value in nodes(node):
        match key:
            case "FuncCall":
                reading.functions.append(strings(value["funcname"]))
            case "A_Expr":
                reading.operators.add(strings(value.get("name", [])))
            case "typeName":
                reading.types.update(strings(value.get("names", []))[-1:])
            case "A_Indirection":
                reading.notations += [("", name) for name in strings(value.get("indirection", []))]
            case "ColumnRef":
                path = strings(value["fields"])
                reading.notations += [path] if len(path) > 1 else []
    return reading


def _changes(node: Any) -> Iterable[tuple[str, Any]]:
    for key, value in nodes(node):
        if key in ("InsertStmt", "UpdateStmt", "MergeStmt"):
            yield key, value


def _set(change: dict[str, Any]) -> list[tuple[str, Any]]:
    """What a change sets in rows that are there: names and values."""
    clauses = [each["MergeWhenClause"] for each in change.get("mergeWhenClauses", [])]
    lists = [each.get("targetList", []) for each in clauses if each["commandType"] == "CMD_UPDATE"]
    lists.append((change.get("onConflictClause") or {}).get("targetList", []))
    if "selectStmt" not in change:
        lists.append(change.get("targetList", []))
    return [
        (target["ResTarget"]["name"], target["ResTarget"].get("val"))
        for targets in lists
        for target in targets
    ]
