"""Reading a target's system catalog: everything that is known of it, at one moment.

What policies know of a target and what masking knows of it are two views of these rows
(gateway/policy/catalog.py, gateway/masking/knowledge.py), so that they cannot differ.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

FIRST: Final = 16384
"""The first OID that is not PostgreSQL's own."""

OWN_NAMES: Final = "SET LOCAL search_path = ''"
"""Names mean PostgreSQL's own from then on. Whoever may create something in a schema of the path
can make a function or an operator that fits a call better than the one that is meant: it would run
as the gateway's role, and could say that nothing ever changes.
"""

# Comments that classify their column, and the roles that could have made them: the relation's
# owner, its members by whatever grant, and where those may make members (before PostgreSQL 16)
# all that may create roles. Superusers may do anything, to this gateway's own role as well. What
# is temporary is its session's own.
_COMMENTS: Final = """
SELECT d.objoid::int8, d.objsubid::int4, d.description,
       ARRAY(SELECT r.rolname::text FROM pg_catalog.pg_roles r
              WHERE r.oid = c.relowner
                 OR NOT r.rolsuper AND (pg_catalog.pg_has_role(r.oid, c.relowner, 'MEMBER')
                    OR r.rolcreaterole AND NOT o.rolsuper
                   AND pg_catalog.current_setting('server_version_num')::int < 160000)
              ORDER BY 1)
  FROM pg_catalog.pg_description d
  JOIN pg_catalog.pg_class c ON c.oid = d.objoid
  JOIN pg_catalog.pg_roles o ON o.oid = c.relowner
 WHERE d.classoid = 'pg_catalog.pg_class'::regclass AND d.objsubid > 0
   AND d.description ILIKE '%gatebook:%' AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
   AND c.relpersistence <> 't'
"""

# What tells a row of each catalog from its next version, and of which rows. Those of system objects
# never change but by an upgrade, and OIDs are those of ordinary objects.
_OWN_ROWS: Final = f"WHERE oid >= {FIRST}"
_VERSIONS: Final = (
    ("oid || ':' || xmin", f"pg_catalog.pg_class {_OWN_ROWS}"),
    (
        "attrelid || ':' || attnum || ':' || xmin",
        f"pg_catalog.pg_attribute WHERE attrelid >= {FIRST}",
    ),
    ("oid || ':' || xmin", f"pg_catalog.pg_proc {_OWN_ROWS}"),
    ("oid || ':' || xmin", f"pg_catalog.pg_rewrite {_OWN_ROWS}"),
    ("inhrelid || ':' || inhparent", "pg_catalog.pg_inherits"),
    ("oid || ':' || xmin", f"pg_catalog.pg_trigger {_OWN_ROWS}"),
    ("oid || ':' || xmin", f"pg_catalog.pg_constraint {_OWN_ROWS}"),
    ("oid || ':' || xmin", f"pg_catalog.pg_operator {_OWN_ROWS}"),
    ("oid || ':' || xmin", f"pg_catalog.pg_cast {_OWN_ROWS}"),
    ("row(comments.*)::text", f"({_COMMENTS}) comments"),
    ("oid || ':' || xmin", "pg_catalog.pg_namespace"),
    ("setdatabase || ':' || setrole || ':' || xmin", "pg_catalog.pg_db_role_setting"),
)
_PARTS: Final = " UNION ALL ".join(
    f"SELECT '{number}:' || count(*) || ':' || coalesce(sum(hashtextextended({row}, 0)), 0) AS part"
    f" FROM {rows}"
    for number, (row, rows) in enumerate(_VERSIONS)
)
_FINGERPRINT: Final = f"SELECT md5(string_agg(part, ',')) FROM ({_PARTS}) parts"
_SESSION: Final = """
SELECT pg_catalog.current_database()::text, pg_catalog.current_schemas(true)::text[],
       pg_catalog.current_schemas(false)::text[]
"""
# Extensions whose functions and operators read nothing but their arguments.
_TRUSTED: Final = """
    SELECT d.objid FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid
     WHERE d.deptype = 'e' AND d.refclassid = 'pg_catalog.pg_extension'::regclass
       AND e.extname IN ('btree_gin', 'btree_gist', 'citext', 'cube', 'earthdistance',
           'fuzzystrmatch', 'hstore', 'intarray', 'isn', 'ltree', 'pg_trgm', 'pgcrypto', 'postgis',
           'seg', 'unaccent', 'uuid-ossp', 'vector')
"""
_RELATIONS: Final = """
SELECT c.oid::int8, n.nspname::text, c.relname::text, c.relkind::text, c.relpersistence::text,
       pg_catalog.pg_get_userbyid(c.relowner)::text,
       CASE WHEN c.relkind IN ('v', 'm') AND c.oid >= 16384
            THEN pg_catalog.pg_get_viewdef(c.oid) END
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S', 'i', 'I') AND n.nspname <> 'pg_toast'
   AND n.nspname NOT LIKE 'pg\\_toast\\_temp\\_%' AND c.oid::int8 >= $1
 ORDER BY 1
"""
# Per column: name, number, type, NOT NULL; of a domain's base type the name, how it is declared
# and the length of char(n) and varchar(n); what a generated one is computed by; the relation
# whose whole rows it holds.
_COLUMNS: Final = """
SELECT a.attrelid::int8, array_agg(a.attname::text ORDER BY a.attnum),
       array_agg(a.attnum::int4 ORDER BY a.attnum),
       array_agg(pg_catalog.format_type(a.atttypid, a.atttypmod) ORDER BY a.attnum),
       array_agg(a.attnotnull ORDER BY a.attnum),
       array_agg(coalesce(b.typname, t.typname)::text ORDER BY a.attnum),
       array_agg(pg_catalog.format_type(coalesce(b.oid, t.oid),
           CASE WHEN t.typtype = 'd' THEN t.typtypmod ELSE a.atttypmod END) ORDER BY a.attnum),
       array_agg(CASE WHEN coalesce(b.typname, t.typname) IN ('bpchar', 'varchar')
           THEN greatest(CASE WHEN t.typtype = 'd' THEN t.typtypmod ELSE a.atttypmod END - 4, 0)
           ELSE 0 END::int4 ORDER BY a.attnum),
       array_agg(CASE WHEN a.attgenerated <> '' THEN pg_catalog.pg_get_expr(d.adbin, d.adrelid) END
           ORDER BY a.attnum),
       array_agg(coalesce(b.typrelid, e.typrelid, t.typrelid)::int8 ORDER BY a.attnum)
  FROM pg_catalog.pg_attribute a
  JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
  JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
  LEFT JOIN pg_catalog.pg_type b ON t.typtype = 'd' AND b.oid = t.typbasetype
  LEFT JOIN pg_catalog.pg_type e ON t.typcategory = 'A' AND e.oid = t.typelem
  LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
 WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND c.relnamespace <> 'pg_toast'::regnamespace
   AND a.attnum > 0 AND NOT a.attisdropped AND a.attrelid::int8 >= $1
 GROUP BY 1 ORDER BY 1
"""
# Columns that are computed whenever they are read (from PostgreSQL 18 on).
_VIRTUAL: Final = """
SELECT attrelid::int8, attnum::int4 FROM pg_catalog.pg_attribute
 WHERE attgenerated = 'v' AND NOT attisdropped
"""
_INHERITS: Final = """
SELECT inhrelid::int8, inhparent::int8 FROM pg_catalog.pg_inherits ORDER BY inhrelid, inhseqno
"""
_RULES: Final = """
SELECT ev_class::int8, pg_catalog.pg_get_ruledef(oid) FROM pg_catalog.pg_rewrite
 WHERE rulename <> '_RETURN' AND oid >= 16384 ORDER BY 1, rulename
"""
_TRIGGERS: Final = """
SELECT tgrelid::int8, tgfoid::int8 FROM pg_catalog.pg_trigger
 WHERE NOT tgisinternal AND tgenabled <> 'D' ORDER BY 1, tgname
"""
# Foreign keys: whose, to which relation, what it does, and the numbers of its columns and theirs.
_REFERENCES: Final = """
SELECT conrelid::int8, confrelid::int8, confdeltype::text, confupdtype::text,
       conkey::int4[], confkey::int4[]
  FROM pg_catalog.pg_constraint WHERE contype = 'f' ORDER BY oid
"""
_FUNCTIONS: Final = f"""
SELECT p.oid::int8, n.nspname::text, p.proname::text, p.provolatile::text, l.lanname::text,
       p.prosecdef, (p.pronargs - p.pronargdefaults - (p.provariadic <> 0)::int)::int4,
       CASE WHEN p.provariadic <> 0 THEN 100 ELSE p.pronargs END::int4,
       CASE WHEN p.oid >= 16384 AND p.prokind IN ('f', 'p') AND l.lanname IN ('sql', 'plpgsql')
            THEN pg_catalog.pg_get_functiondef(p.oid) END,
       CASE WHEN p.oid >= 16384 THEN (
            SELECT array_remove(ARRAY[a.aggtransfn::oid::int8, a.aggfinalfn::oid::int8,
                   a.aggcombinefn::oid::int8, a.aggmtransfn::oid::int8], 0)
              FROM pg_catalog.pg_aggregate a WHERE a.aggfnoid = p.oid) END,
       p.oid >= 16384 AND p.oid IN ({_TRUSTED})
  FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
  JOIN pg_catalog.pg_language l ON l.oid = p.prolang
 WHERE p.oid::int8 >= $1
 ORDER BY 1
"""
_OPERATORS: Final = f"""
SELECT n.nspname::text, o.oprname::text, o.oprcode::oid::int8, o.oid IN ({_TRUSTED})
  FROM pg_catalog.pg_operator o JOIN pg_catalog.pg_namespace n ON n.oid = o.oprnamespace
 WHERE o.oid >= 16384 AND o.oprcode <> 0 ORDER BY o.oid
"""
# (relation, the relation it takes its rows from): views by their rules, children by inheritance.
_DERIVED: Final = """
SELECT r.ev_class::int8, d.refobjid::int8
  FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_rewrite r ON r.oid = d.objid
 WHERE d.classid = 'pg_catalog.pg_rewrite'::regclass
   AND d.refclassid = 'pg_catalog.pg_class'::regclass AND r.ev_class <> d.refobjid
UNION
SELECT inhrelid::int8, inhparent::int8 FROM pg_catalog.pg_inherits
"""
# An index on an expression may be on any of its columns.
_UNIQUE: Final = """
SELECT DISTINCT n.nspname::text, c.relname::text, a.attname::text
  FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indrelid
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
   AND (i.indexprs IS NOT NULL OR a.attnum = ANY (i.indkey::int2[]))
 WHERE (i.indisunique OR i.indisexclusion) AND c.oid >= 16384
"""
# Columns that one constraint, index or generated column is of: an error about one tells of others.
_TOGETHER: Final = """
SELECT conrelid::int8, conkey::int4[] FROM pg_catalog.pg_constraint
 WHERE contype = 'c' AND conrelid <> 0
UNION ALL
SELECT i.indrelid::int8, ARRAY(
         SELECT a.attnum::int4 FROM pg_catalog.pg_attribute a
          WHERE a.attrelid = i.indrelid AND a.attnum > 0
            AND ((i.indisunique OR i.indisexclusion) AND a.attnum = ANY (i.indkey::int2[])
              -- Within what is computed, for which an index depends on more than its columns.
              OR EXISTS (
                 SELECT FROM pg_catalog.pg_depend d
                  WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = i.indexrelid
                    AND d.refclassid = 'pg_catalog.pg_class'::regclass
                    AND d.refobjid = i.indrelid AND d.refobjsubid = a.attnum)
                 AND (a.attnum <> ALL (i.indkey::int2[]) OR pg_catalog.strpos(
                   coalesce(pg_catalog.pg_get_expr(i.indexprs, i.indrelid), '')
                   || coalesce(pg_catalog.pg_get_expr(i.indpred, i.indrelid), ''),
                   pg_catalog.quote_ident(a.attname)) > 0)))
  FROM pg_catalog.pg_index i
 WHERE i.indexrelid >= 16384 AND (i.indisunique OR i.indisexclusion OR i.indexprs IS NOT NULL
    OR i.indpred IS NOT NULL)
UNION ALL
SELECT k.adrelid::int8, array_agg(DISTINCT d.refobjsubid::int4)
  FROM pg_catalog.pg_attrdef k
  JOIN pg_catalog.pg_attribute a ON a.attrelid = k.adrelid AND a.attnum = k.adnum
  JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_attrdef'::regclass
   AND d.objid = k.oid AND d.refclassid = 'pg_catalog.pg_class'::regclass
   AND d.refobjid = k.adrelid AND d.refobjsubid NOT IN (0, k.adnum)
 WHERE a.attgenerated <> '' GROUP BY k.oid, 1
"""
# Indexes whose scans return rows in an order: by which columns, and which ones it depends on beside
# (in INCLUDE, and in WHERE). What an expression is of is a guess by name: too many at worst.
INDEXES: Final = """
SELECT i.indrelid::int8,
       ARRAY(SELECT a.attnum::int4 FROM pg_catalog.pg_attribute a
              WHERE a.attrelid = i.indrelid AND a.attnum > 0 AND (
                    a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1])
                 OR pg_catalog.strpos(e.keys, pg_catalog.quote_ident(a.attname)) > 0
                 OR pg_catalog.strpos(e.keys, '.*') > 0)),
       ARRAY(SELECT a.attnum::int4 FROM pg_catalog.pg_attribute a
              WHERE a.attrelid = i.indrelid AND a.attnum > 0 AND (
                    a.attnum = ANY ((i.indkey::int2[])[i.indnkeyatts:])
                 OR pg_catalog.strpos(e.only, pg_catalog.quote_ident(a.attname)) > 0
                 OR pg_catalog.strpos(e.only, '.*') > 0))
  FROM pg_catalog.pg_index i CROSS JOIN LATERAL (
       SELECT coalesce(pg_catalog.pg_get_expr(i.indexprs, i.indrelid), '') AS keys,
              coalesce(pg_catalog.pg_get_expr(i.indpred, i.indrelid), '') AS only) e
 WHERE i.indexrelid >= 16384
   AND pg_catalog.pg_index_has_property(i.indexrelid, 'index_scan') IS NOT FALSE
"""
# Types whose values somebody's function makes, by a cast or a constraint.
_TYPES: Final = """
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
_QUERIES: Final = {
    "relations": _RELATIONS,
    "columns": _COLUMNS,
    "virtual": _VIRTUAL,
    "inherits": _INHERITS,
    "rules": _RULES,
    "triggers": _TRIGGERS,
    "references": _REFERENCES,
    "functions": _FUNCTIONS,
    "operators": _OPERATORS,
    "derived": _DERIVED,
    "unique": _UNIQUE,
    "together": _TOGETHER,
    "indexes": INDEXES,
    "types": _TYPES,
    "comments": _COMMENTS,
}

Table = list[tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class Rows:
    """A catalog as it is read: tuples in the order of the queries above, whose names they have.

    `version` is the fingerprint of what they are, `path` the search path with the schemas that
    are in it unsaid, `named_path` without.
    """

    relations: Table = field(default_factory=list)
    columns: Table = field(default_factory=list)
    virtual: Table = field(default_factory=list)
    inherits: Table = field(default_factory=list)
    rules: Table = field(default_factory=list)
    triggers: Table = field(default_factory=list)
    references: Table = field(default_factory=list)
    functions: Table = field(default_factory=list)
    operators: Table = field(default_factory=list)
    derived: Table = field(default_factory=list)
    unique: Table = field(default_factory=list)
    together: Table = field(default_factory=list)
    indexes: Table = field(default_factory=list)
    types: Table = field(default_factory=list)
    comments: Table = field(default_factory=list)
    path: tuple[str, ...] = ("pg_catalog", "public")
    named_path: tuple[str, ...] = ("public",)
    database: str = ""
    version: str = ""

    def builtin(self) -> Rows:
        """PostgreSQL's own objects alone, which are most of a catalog."""
        return Rows(
            relations=[row for row in self.relations if row[0] < FIRST],
            columns=[row for row in self.columns if row[0] < FIRST],
            functions=[row for row in self.functions if row[0] < FIRST],
        )


async def fingerprint(connection: Any) -> str:
    """Of the catalog as it is now; by an asyncpg connection."""
    async with connection.transaction(readonly=True):
        await connection.execute(OWN_NAMES)
        return str(await connection.fetchval(_FINGERPRINT))


async def read(connection: Any, builtin: Rows | None = None) -> Rows:
    """The whole catalog at one moment; `builtin` are rows that need not be read again."""
    first = FIRST if builtin is not None else 0
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        database, path, named = await connection.fetchrow(_SESSION)
        # Then definitions name every relation with its schema, too.
        await connection.execute(OWN_NAMES)
        # What a definition is made of is newer than this moment where it has changed since: then
        # the next look finds another version.
        version = str(await connection.fetchval(_FINGERPRINT))
        tables = {
            name: [
                tuple(row)
                for row in await connection.fetch(query, *((first,) if "$1" in query else ()))
            ]
            for name, query in _QUERIES.items()
        }
    if builtin is not None:
        for name in ("relations", "columns", "functions"):
            tables[name] = getattr(builtin, name) + tables[name]
    return Rows(
        **tables, path=tuple(path), named_path=tuple(named), database=database, version=version
    )
