"""What must be known of a target to hide its classified columns: read as rows, made into `Hidden`.

Classification follows data. A child of a classified table is classified as its parent; a view's
column that is a classified column is classified as that, one computed from it is hidden in full,
and where a view's definition leaves that open all of its columns are.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from pglast import parser

from gateway.masking import allowed
from gateway.masking.hidden import Column, Hidden, Mask, Relation
from gateway.masking.tree import STAR, Reading, read, strings

COLUMNS: Final = """
SELECT c.oid::int8, n.nspname::text, c.relname::text, a.attname::text, a.attnum::int4,
       coalesce(b.typname, t.typname)::text,
       pg_catalog.format_type(coalesce(b.oid, t.oid),
           CASE WHEN t.typtype = 'd' THEN t.typtypmod ELSE a.atttypmod END),
       CASE WHEN coalesce(b.typname, t.typname) IN ('bpchar', 'varchar')
            THEN greatest(CASE WHEN t.typtype = 'd' THEN t.typtypmod ELSE a.atttypmod END - 4, 0)
            ELSE 0 END::int4
  FROM pg_catalog.pg_class c
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid
  JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
  LEFT JOIN pg_catalog.pg_type b ON t.typtype = 'd' AND b.oid = t.typbasetype
 WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND a.attnum > 0 AND NOT a.attisdropped
   AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
 ORDER BY c.oid, a.attnum
"""
RELATIONS: Final = """
SELECT n.nspname::text, c.relname::text
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND n.nspname !~ '^pg_temp_'
"""
INHERITED: Final = "SELECT inhrelid::int8, inhparent::int8 FROM pg_catalog.pg_inherits"
# A view's columns' own names may differ from those in its text: `CREATE VIEW v (a, b) AS ...`.
VIEWS: Final = """
SELECT c.oid::int8, pg_catalog.pg_get_viewdef(c.oid)
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('v', 'm') AND n.nspname NOT IN ('pg_catalog', 'information_schema')
 ORDER BY c.oid
"""
# Extensions whose functions and operators read nothing but their arguments.
_EXTENSIONS: Final = """
    SELECT d.objid FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid
     WHERE d.deptype = 'e' AND d.refclassid = 'pg_catalog.pg_extension'::regclass
       AND e.extname IN ('btree_gin', 'btree_gist', 'citext', 'cube', 'earthdistance',
           'fuzzystrmatch', 'hstore', 'intarray', 'isn', 'ltree', 'pg_trgm', 'pgcrypto', 'postgis',
           'seg', 'unaccent', 'uuid-ossp', 'vector')
"""
GENERATED: Final = """
SELECT a.attrelid::int8, a.attname::text, pg_catalog.pg_get_expr(d.adbin, d.adrelid)
  FROM pg_catalog.pg_attribute a
  JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
 WHERE a.attgenerated <> '' AND NOT a.attisdropped
"""
FUNCTIONS: Final = f"""
SELECT p.proname::text,
       (n.nspname = 'pg_catalog' AND p.oid < 16384) OR p.oid IN ({_EXTENSIONS}),
       pg_catalog.bool_and(p.oid >= 16384
           AND (p.provolatile = 'i' OR l.lanname = 'c' AND p.proname !~ '^(st_|_?postgis|find_)')
           OR (p.oid < 16384 AND p.provolatile = 'i' AND l.lanname IN ('internal', 'sql')))
  FROM pg_catalog.pg_proc p
  JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
  JOIN pg_catalog.pg_language l ON l.oid = p.prolang
 WHERE n.nspname <> 'information_schema'
 GROUP BY 1, 2
"""
OPERATORS: Final = f"""
SELECT DISTINCT oprname::text FROM pg_catalog.pg_operator
 WHERE oid >= 16384 AND oid NOT IN ({_EXTENSIONS})
"""
# Columns that hold whole rows of a relation.
COMPOSITES: Final = """
SELECT a.attrelid::int8, a.attname::text, coalesce(b.typrelid, e.typrelid, t.typrelid)::int8
  FROM pg_catalog.pg_attribute a
  JOIN pg_catalog.pg_class c ON c.oid = a.attrelid AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
  JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
  LEFT JOIN pg_catalog.pg_type b ON t.typtype = 'd' AND b.oid = t.typbasetype
  LEFT JOIN pg_catalog.pg_type e ON t.typcategory = 'A' AND e.oid = t.typelem
 WHERE a.attnum > 0 AND NOT a.attisdropped AND c.oid >= 16384
   AND coalesce(b.typrelid, e.typrelid, t.typrelid) <> 0
"""
# What refers to a column by a foreign key has that column's values.
REFERRING: Final = """
SELECT c.conrelid::int8, a.attname::text, c.confrelid::int8, f.attname::text
  FROM pg_catalog.pg_constraint c
 CROSS JOIN LATERAL unnest(c.conkey, c.confkey) AS k (mine, theirs)
  JOIN pg_catalog.pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = k.mine
  JOIN pg_catalog.pg_attribute f ON f.attrelid = c.confrelid AND f.attnum = k.theirs
 WHERE c.contype = 'f'
"""
RULED: Final = """
SELECT DISTINCT n.nspname::text, c.relname::text
  FROM pg_catalog.pg_rewrite r JOIN pg_catalog.pg_class c ON c.oid = r.ev_class
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE r.rulename <> '_RETURN' AND r.oid >= 16384
"""
# An index on an expression may be on any of its columns.
UNIQUE: Final = """
SELECT DISTINCT n.nspname::text, c.relname::text, a.attname::text
  FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indrelid
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
   AND (i.indexprs IS NOT NULL OR a.attnum = ANY (i.indkey::int2[]))
 WHERE (i.indisunique OR i.indisexclusion) AND c.oid >= 16384
"""
# Types whose values somebody's function makes, by a cast or a constraint.
TYPES: Final = """
SELECT t.typname::text, p.proname::text
  FROM pg_catalog.pg_cast k JOIN pg_catalog.pg_proc p ON p.oid = k.castfunc
  JOIN pg_catalog.pg_type t ON t.oid IN (k.castsource, k.casttarget)
 WHERE k.oid >= 16384
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
                    WHERE d.deptype = 'e' AND d.classid = 'pg_catalog.pg_proc'::regclass
                      AND d.objid = p.oid)
UNION
SELECT t.typname::text, p.proname::text
  FROM pg_catalog.pg_constraint c JOIN pg_catalog.pg_type t ON t.oid = c.contypid
  JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_constraint'::regclass
   AND d.objid = c.oid AND d.refclassid = 'pg_catalog.pg_proc'::regclass
  JOIN pg_catalog.pg_proc p ON p.oid = d.refobjid
 WHERE p.oid >= 16384
"""
SESSION: Final = """
SELECT pg_catalog.current_database()::text, pg_catalog.current_schemas(false)::text[]
"""

_COMPUTED: Final = "computed"


@dataclass(frozen=True, slots=True)
class Knowledge:
    """The rows of the queries above."""

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

    def safe(self, declared: Iterable[str] = ()) -> frozenset[str]:
        """Functions that read nothing but their arguments; `declared` are the owner's own."""
        pure = {name for name, builtin, pure in self.functions if builtin and pure}
        own = {name for name, builtin, _ in self.functions if not builtin}
        return frozenset(((pure | allowed.FUNCTIONS) - own) | set(declared))


def lineage(
    knowledge: Knowledge, classified: Mapping[str, Mask], functions: Iterable[str] = ()
) -> dict[int, dict[str, Mask]]:
    """Masks of columns by relation OID, beginning with those declared as schema.table.column.

    `functions` are those of the target's own that read nothing classified.
    """
    masks: dict[int, dict[str, Mask]] = {}
    names: dict[int, list[str]] = {}
    by_name: dict[tuple[str, str], int] = {}
    for oid, schema, relation, column, *_ in knowledge.columns:
        names.setdefault(oid, []).append(column)
        by_name[schema, relation] = oid
        source = f"{schema}.{relation}.{column}"
        declared = classified.get(source)
        if declared is not None:
            masks.setdefault(oid, {})[column] = replace(declared, origin=source)
    pure = Pure(knowledge.safe(functions), frozenset(knowledge.operators))

    def add(oid: int, found: Mapping[str, Mask]) -> bool:
        known, columns = masks.get(oid, {}), names.get(oid, [])
        fresh = {name: mask for name, mask in found.items() if name in columns}
        if fresh.keys() <= known.keys():
            return False
        masks[oid] = {**fresh, **known}
        return True

    changed = True
    while changed:
        changed = False
        for child, parent in knowledge.inherited:
            # A parent shows its children's rows.
            changed |= add(child, masks.get(parent, {})) | add(parent, masks.get(child, {}))
        for oid, column, expression in knowledge.generated:
            if _computed(f"SELECT {expression}", set(masks.get(oid, {})), pure):
                changed |= add(oid, {column: Mask(_COMPUTED, "full")})
        for oid, definition in knowledge.views:
            columns = names.get(oid, [])
            found = _view(definition, columns, masks, by_name, knowledge.path, pure=pure)
            changed |= add(oid, found)
        for oid, column, row_of in knowledge.composites:
            if masks.get(row_of):
                changed |= add(oid, {column: Mask(_COMPUTED, "full")})
        for oid, column, parent, key in knowledge.referring:
            if key in masks.get(parent, {}):
                changed |= add(oid, {column: masks[parent][key]})
    return masks


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
    everything = {column: Mask(_COMPUTED, "full") for column in columns}
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
    hidden = {name: mask for source in sources for name, mask in source.items()}
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
                found[column] = Mask(_COMPUTED, "full")
            continue
        inner = read("SelectStmt", {"whereClause": {"List": {"items": [value]}}})
        used = {each[-1] for each in inner.columns}
        if used & (hidden.keys() | reading.aliases | {STAR}) or inner.references or inner.unknown:
            found[column] = Mask(_COMPUTED, "full")
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
        columns.setdefault(oid, []).append(Column(name, number, kind, declared, length, mask))
    protected = {
        names[oid]: Relation(oid, *names[oid], tuple(listed))
        for oid, listed in columns.items()
        if any(column.mask for column in listed)
    }
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
        ruled=frozenset(knowledge.ruled),
        unique={key: frozenset(found) for key, found in unique.items()},
    )
