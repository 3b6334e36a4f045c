"""What must be known of a target to hide its classified columns: read as rows, made into `Hidden`.

Classification follows data. A child of a classified table is classified as its parent; a view's
column that is a classified column is classified as that, one computed from it is hidden in full,
and where a view's definition leaves that open all of its columns are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from pglast import parser

from gateway.introspection import FIRST, Rows
from gateway.masking import allowed, ordering
from gateway.masking.choosing import chooses
from gateway.masking.hidden import COMPUTED, Column, Hidden, Mask, Relation, computed
from gateway.masking.tree import STAR, Reading, read, strings

# Of these, columns that hold data belong to nobody's tables.
_SYSTEM: Final = frozenset({"pg_catalog", "information_schema", "pg_toast"})
_FOLLOWED: Final = frozenset("rpvmf")
_NAMED: Final = frozenset("rpvmfS")
_READING: Final = re.compile("st_|_?postgis|find_")
"""Functions of PostGIS, written in C, that read tables."""


@dataclass(frozen=True, slots=True)
class Knowledge:
    """What masking knows of a catalog (`known`).

    `columns` are (relation OID, schema, relation, name, number, base type, declared type, length).
    """

    columns: tuple[tuple[int, str, str, str, int, str, str, int], ...]
    relations: tuple[tuple[str, str], ...]
    inherited: tuple[tuple[int, int], ...]
    views: tuple[tuple[int, str], ...]
    generated: tuple[tuple[int, str, str], ...]
    functions: tuple[tuple[str, bool, bool], ...]
    operators: tuple[str, ...]
    database: str
    path: tuple[str, ...]
    composites: tuple[tuple[int, str, int], ...] = ()
    referring: tuple[tuple[int, str, int, str], ...] = ()
    ruled: tuple[tuple[str, str], ...] = ()
    unique: tuple[tuple[str, str, str], ...] = ()
    types: tuple[tuple[str, str], ...] = ()
    together: tuple[tuple[int, tuple[int, ...]], ...] = ()
    derived: tuple[tuple[int, int], ...] = ()
    indexes: tuple[ordering.Index, ...] = ()
    virtual: frozenset[tuple[int, str]] = frozenset()
    comments: tuple[tuple[int, str, str, tuple[str, ...]], ...] = ()

    def safe(self, declared: Iterable[str] = ()) -> frozenset[str]:
        """Functions that read nothing but their arguments; `declared` are the owner's own."""
        pure = {name for name, builtin, pure in self.functions if builtin and pure}
        own = {name for name, builtin, _ in self.functions if not builtin}
        return frozenset(((pure | allowed.FUNCTIONS) - own) | set(declared))


def known(rows: Rows) -> Knowledge:
    """What masking needs of a catalog as it was read."""
    names = {oid: (schema, name) for oid, schema, name, *_ in rows.relations}
    kinds = {oid: kind for oid, _, _, kind, *_ in rows.relations}
    columns: list[tuple[int, str, str, str, int, str, str, int]] = []
    generated: list[tuple[int, str, str]] = []
    composites: list[tuple[int, str, int]] = []
    numbered: dict[tuple[int, int], str] = {}
    for oid, *lists in rows.columns:
        schema, relation = names.get(oid, ("", ""))
        if kinds.get(oid) not in _FOLLOWED or schema in _SYSTEM:
            continue
        for name, number, _, _, kind, declared, length, expression, row_of in zip(
            *lists, strict=True
        ):
            columns.append((oid, schema, relation, name, number, kind, declared, length))
            numbered[oid, number] = name
            if expression is not None:
                generated.append((oid, name, expression))
            if row_of and oid >= FIRST:
                composites.append((oid, name, row_of))
    referring = [
        (oid, numbered[oid, mine], parent, numbered[parent, theirs])
        for oid, parent, _, _, ours, keys in rows.references
        for mine, theirs in zip(ours, keys, strict=True)
        if (oid, mine) in numbered and (parent, theirs) in numbered
    ]
    return Knowledge(
        columns=tuple(columns),
        relations=tuple(
            names[oid]
            for oid, kind in kinds.items()
            if kind in _NAMED and not names[oid][0].startswith("pg_temp_")
        ),
        inherited=tuple(rows.inherits),
        views=tuple(
            (oid, definition)
            for oid, schema, _, kind, _, _, definition in rows.relations
            if kind in "vm" and definition is not None and schema not in _SYSTEM
        ),
        generated=tuple(generated),
        virtual=frozenset(
            (oid, numbered[oid, number])
            for oid, number in rows.virtual
            if (oid, number) in numbered
        ),
        functions=_functions(rows),
        operators=tuple({name for _, name, _, trusted in rows.operators if not trusted}),
        database=rows.database,
        path=rows.named_path,
        composites=tuple(composites),
        referring=tuple(referring),
        ruled=tuple({names[oid] for oid, _ in rows.rules if oid in names}),
        unique=tuple(rows.unique),
        types=tuple(rows.types),
        together=tuple((oid, tuple(numbers)) for oid, numbers in rows.together),
        derived=tuple(rows.derived),
        indexes=tuple((oid, tuple(by), tuple(beside)) for oid, by, beside in rows.indexes),
        comments=tuple(
            (oid, numbered[oid, number], text, tuple(makers))
            for oid, number, text, makers in rows.comments
            if (oid, number) in numbered
        ),
    )


def _functions(rows: Rows) -> tuple[tuple[str, bool, bool], ...]:
    """(name, whether it is PostgreSQL's or a trusted extension's, whether all such are pure)."""
    pure: dict[tuple[str, bool], bool] = {}
    for oid, schema, name, volatility, language, *_, trusted in rows.functions:
        if schema == "information_schema":
            continue
        own = oid >= FIRST
        reads_nothing = volatility == "i" and (own or language in ("internal", "sql"))
        if own and language == "c" and not _READING.match(name):
            reads_nothing = True
        key = name, (schema == "pg_catalog" and not own) or trusted
        pure[key] = pure.get(key, True) and reads_nothing
    return tuple((name, builtin, all_pure) for (name, builtin), all_pure in pure.items())


def lineage(
    knowledge: Knowledge,
    classified: Mapping[str, Mask],
    functions: Iterable[str] = (),
    comments: Mapping[int, Mapping[str, Mask]] | None = None,
) -> dict[int, dict[str, Mask]]:
    """Masks of columns by relation OID, beginning with those declared as schema.table.column.

    `functions` are those of the target's own that read nothing classified. `comments` are masks of
    further columns, by relation OID: none of them makes less of what follows without them.
    """
    seeds: dict[int, dict[str, Mask]] = {}
    for oid, schema, relation, column, *_ in knowledge.columns:
        source = f"{schema}.{relation}.{column}"
        declared = classified.get(source)
        if declared is not None:
            seeds.setdefault(oid, {})[column] = replace(declared, origin=source)
    declared_alone = _follow(knowledge, seeds, functions) if seeds else {}
    if not comments:
        return declared_alone
    for oid, found in comments.items():
        known = declared_alone.get(oid, {})
        fresh = {name: mask for name, mask in found.items() if name not in known}
        seeds[oid] = {**fresh, **seeds.get(oid, {})}
    masks = _follow(knowledge, seeds, functions)
    for oid, found in declared_alone.items():
        for name, mask in found.items():
            # What is computed of more than one knew may be seen by nobody.
            if masks[oid][name].origin:
                masks[oid][name] = mask
    return masks


def _follow(
    knowledge: Knowledge, seeds: Mapping[int, Mapping[str, Mask]], functions: Iterable[str]
) -> dict[int, dict[str, Mask]]:
    """Masks of these columns, and of all that have their values."""
    masks = {oid: dict(found) for oid, found in seeds.items()}
    names: dict[int, list[str]] = {}
    by_name: dict[tuple[str, str], int] = {}
    for oid, schema, relation, column, *_ in knowledge.columns:
        names.setdefault(oid, []).append(column)
        by_name[schema, relation] = oid
    pure = Pure(knowledge.safe(functions), frozenset(knowledge.operators))

    def add(oid: int, found: Mapping[str, Mask]) -> bool:
        known, columns = masks.get(oid, {}), names.get(oid, [])
        fresh = {
            name: mask
            for name, mask in found.items()
            if name in columns and (name not in known or _stricter(mask, known[name]))
        }
        if fresh:
            masks[oid] = {**known, **fresh}
        return bool(fresh)

    changed = True
    while changed:
        changed = False
        for child, parent in knowledge.inherited:
            # A parent shows its children's rows.
            changed |= add(child, masks.get(parent, {})) | add(parent, masks.get(child, {}))
        for oid, column, expression in knowledge.generated:
            sources = masks.get(oid, {})
            if _computed(f"SELECT {expression}", set(sources) - {column}, pure):
                found = computed(sources.values())
                if (oid, column) not in knowledge.virtual:
                    # It is stored: fetched without a risk, and shown as NULL, whatever it is.
                    found = replace(found, name="null")
                changed |= add(oid, {column: found})
        for oid, definition in knowledge.views:
            columns = names.get(oid, [])
            within = _unread(masks, knowledge.virtual)
            shown = _view(definition, columns, within, by_name, knowledge.path, pure=pure)
            changed |= add(oid, shown)
        for oid, column, row_of in knowledge.composites:
            if masks.get(row_of):
                changed |= add(oid, {column: computed(masks[row_of].values())})
        for oid, column, parent, key in knowledge.referring:
            if key in masks.get(parent, {}):
                changed |= add(oid, {column: masks[parent][key]})
    return masks


def _unread(
    masks: Mapping[int, Mapping[str, Mask]], virtual: frozenset[tuple[int, str]]
) -> Mapping[int, Mapping[str, Mask]]:
    """`masks` as views have them: what is computed when it is read must not be read there."""
    if not virtual:
        return masks
    return {
        oid: {
            name: computed((mask,)) if (oid, name) in virtual else mask
            for name, mask in found.items()
        }
        for oid, found in masks.items()
    }


def _stricter(mask: Mask, known: Mask) -> bool:
    """Whether what is computed is of more than was known, whose class is stricter."""
    return known.classification == COMPUTED and (
        (mask.use == "refuse" and known.use != "refuse")
        or (mask.copies == "refuse" and known.copies != "refuse")
    )


@dataclass(frozen=True, slots=True)
class Pure:
    """What a definition may call: functions but these, and operators of these names, may read
    anything.
    """

    functions: frozenset[str]
    operators: frozenset[str]

    def reads(self, reading: Reading) -> bool:
        """Whether it calls what may read anything, or reads a catalog that holds data."""
        return bool(
            any(path[-1] not in self.functions for path in reading.functions)
            or any(path[-1] in self.operators for path in reading.operators if path)
            or reading.settings
            or any(
                reference.schema in ("", "pg_catalog")
                and reference.name.startswith("pg_")
                and reference.name not in allowed.CATALOGS
                for reference in reading.references
            )
        )


def _computed(query: str, hidden: set[str], pure: Pure) -> bool:
    """Whether a SELECT of one expression may hold what is hidden."""
    try:
        tree = json.loads(parser.parse_sql_json(query))
        reading = read("SelectStmt", tree["stmts"][0]["stmt"]["SelectStmt"])
    except (parser.ParseError, ValueError, KeyError, IndexError, TypeError, RecursionError):
        return True
    named = {path[-1] for path in reading.columns}
    named |= {path[-1] for _, path, _ in reading.outputs}
    return bool(named & hidden or pure.reads(reading) or reading.unknown)


def _view(
    definition: str,
    columns: list[str],
    masks: Mapping[int, Mapping[str, Mask]],
    by_name: Mapping[tuple[str, str], int],
    path: tuple[str, ...],
    *,
    pure: Pure,
) -> dict[str, Mask]:
    """Masks of a view's columns, by what its definition says."""
    everything = dict.fromkeys(columns, computed(()))
    try:
        tree = json.loads(parser.parse_sql_json(definition))
        query = tree["stmts"][0]["stmt"]["SelectStmt"]
        reading = read("SelectStmt", query)
    except (parser.ParseError, ValueError, KeyError, IndexError, TypeError, RecursionError):
        return everything
    sources: list[Mapping[str, Mask]] = []
    for reference in reading.references:
        schemas = (reference.schema,) if reference.schema else path
        oids = [by_name[key] for s in schemas if (key := (s, reference.name)) in by_name]
        sources += [masks[oid] for oid in oids[:1] if oid in masks]
    of_these = computed(mask for source in sources for mask in source.values())
    hidden: dict[str, Mask] = {}
    for source in sources:
        for name, mask in source.items():
            # Of two columns of one name, who may see one may not therefore see the other.
            hidden[name] = mask if hidden.get(name, mask) == mask else of_these
    everything = dict.fromkeys(columns, of_these)
    if pure.reads(reading) or reading.unknown:
        return everything
    if not hidden:
        return {}
    mentioned = {path[-1] for path in reading.columns} | reading.merged
    mentioned |= {path[-1] for _, path, _ in reading.outputs}
    renamed = any(reference.renames for reference in reading.references)
    whole = STAR in mentioned or mentioned & reading.aliases or reading.natural or renamed
    if not whole and not mentioned & hidden.keys():
        return {}
    targets = query.get("targetList", [])
    plain = (
        query.get("op", "SETOP_NONE") == "SETOP_NONE"
        and all(_plain(item) for item in query.get("fromClause", []))
        and not query.get("withClause")
        and not renamed
        and len(targets) == len(columns)
    )
    if not plain or STAR in {path[-1] for _, path, _ in reading.outputs}:
        return everything
    found: dict[str, Mask] = {}
    for column, target in zip(columns, targets, strict=True):
        value = target["ResTarget"]["val"]
        if "ColumnRef" in value:
            path_of = strings(value["ColumnRef"]["fields"])
            if path_of[-1] in hidden:
                found[column] = hidden[path_of[-1]]
            elif path_of[-1] in reading.aliases:
                found[column] = of_these
            continue
        inner = read("SelectStmt", {"whereClause": {"List": {"items": [value]}}})
        used = {each[-1] for each in inner.columns}
        if used & (hidden.keys() | reading.aliases | {STAR}) or inner.references or inner.unknown:
            found[column] = of_these
    return found


def _plain(item: Any) -> bool:
    """Whether a FROM item is tables alone: nothing in it gives a column another name."""
    stack = [item]
    while stack:
        each = stack.pop()
        if "JoinExpr" in each:
            if each["JoinExpr"].get("alias") or each["JoinExpr"].get("join_using_alias"):
                return False
            stack += [each["JoinExpr"]["larg"], each["JoinExpr"]["rarg"]]
        elif "RangeVar" not in each:
            return False
    return True


def hidden_from(
    knowledge: Knowledge,
    masks: Mapping[int, Mapping[str, Mask]],
    sees: Callable[[Mask], bool],
    allowed_functions: Iterable[str] = (),
    token_keys: Mapping[str, bytes] | None = None,
) -> Hidden:
    """What one person may not see, as `sees` tells."""
    columns: dict[int, list[Column]] = {}
    names: dict[int, tuple[str, str]] = {}
    for oid, schema, relation, name, number, kind, declared, length in knowledge.columns:
        names[oid] = (schema, relation)
        mask = masks.get(oid, {}).get(name)
        if mask is not None and sees(mask):
            mask = None
        virtual = (oid, name) in knowledge.virtual
        column = Column(name, number, kind, declared, length, mask, virtual)
        columns.setdefault(oid, []).append(column)
    protected = {
        names[oid]: Relation(oid, *names[oid], tuple(listed))
        for oid, listed in columns.items()
        if any(column.mask for column in listed)
    }
    closed = _closed(knowledge, protected, names)
    own = frozenset(allowed_functions)
    shadowing = {name for name, builtin, _ in knowledge.functions if not builtin} - own
    functions = {name for name, builtin, pure in knowledge.functions if builtin and pure} | own
    callable_ = functions | allowed.FUNCTIONS
    unique: dict[tuple[str, str], set[str]] = {}
    for schema, relation, name in knowledge.unique:
        unique.setdefault((schema, relation), set()).add(name)
    return Hidden(
        database=knowledge.database,
        protected=protected,
        known=frozenset(knowledge.relations),
        path=knowledge.path,
        functions=frozenset(functions),
        shadowing=frozenset(shadowing),
        operators=frozenset(knowledge.operators),
        token_keys=token_keys or {},
        uncallable=frozenset(name for name, _, _ in knowledge.functions if name not in callable_),
        types=frozenset(name for name, function in knowledge.types if function not in own),
        attributes={
            names[oid]: frozenset(column.name for column in listed)
            for oid, listed in columns.items()
        },
        ruled=frozenset(knowledge.ruled) | _setting(knowledge, names),
        closed=closed,
        together=_together(knowledge, columns, names),
        unique={key: frozenset(found) for key, found in unique.items()},
        scans=ordering.scans(knowledge.indexes, columns),
    )


def _setting(
    knowledge: Knowledge, names: Mapping[int, tuple[str, str]]
) -> frozenset[tuple[str, str]]:
    """Views of pg_settings, and views of those: the rule of that one is SET by another name."""
    found = {oid for oid, definition in knowledge.views if "pg_settings" in definition}
    grown = True
    while grown:
        fresh = {view for view, source in knowledge.derived if source in found} - found
        found |= fresh
        grown = bool(fresh)
    return frozenset(names[oid] for oid in found if oid in names)


def _closed(
    knowledge: Knowledge,
    protected: Mapping[tuple[str, str], Relation],
    names: Mapping[int, tuple[str, str]],
) -> frozenset[tuple[str, str]]:
    """Views whose rows, or their order, depend on what is hidden."""
    sources: dict[int, set[int]] = {}
    for view, source in knowledge.derived:
        sources.setdefault(view, set()).add(source)
    found: set[tuple[str, str]] = set()
    definitions = dict(knowledge.views)

    def hidden(schema: str, name: str) -> frozenset[str] | None:
        relation = protected.get((schema, name))
        return relation.hidden if relation is not None else None

    pending = set(definitions)
    while True:
        touched = {
            oid for oid in pending if any(names.get(s) in found for s in sources.get(oid, ()))
        }
        fresh = {names[oid] for oid in touched if oid in names}
        if not found:
            fresh |= {
                names[oid]
                for oid in pending
                if oid in names
                and any(names.get(source) in protected for source in sources.get(oid, ()))
                and chooses(definitions[oid], hidden)
            }
        if not fresh - found:
            return frozenset(found)
        found |= fresh


def _together(
    knowledge: Knowledge,
    columns: Mapping[int, list[Column]],
    names: Mapping[int, tuple[str, str]],
) -> dict[tuple[str, str], tuple[tuple[frozenset[str], frozenset[str]], ...]]:
    """See Hidden.together. A view over such a relation has one of all its columns."""
    found: dict[int, list[tuple[frozenset[str], frozenset[str]]]] = {}
    for oid, numbers in knowledge.together:
        of = [column for column in columns.get(oid, ()) if column.number in numbers]
        secret = frozenset(column.name for column in of if column.mask is not None)
        if secret and len(of) > 1:
            found.setdefault(oid, []).append((frozenset(column.name for column in of), secret))
    grown = True
    while grown:
        grown = False
        for view, source in knowledge.derived:
            if source in found and view in columns and view not in found:
                every = frozenset(column.name for column in columns[view])
                found[view] = [(every, frozenset({""}))]
                grown = True
    return {names[oid]: tuple(groups) for oid, groups in found.items()}
