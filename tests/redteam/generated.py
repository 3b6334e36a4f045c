"""Statements by chance, of a grammar that knows the twins: most of them run, most read secrets.

A seed always gives the same statements.
"""

# ruff: noqa: E501 (tables of rules)
from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import Final

from tests.redteam.watching import Script

_PEOPLE: Final = {
    "id": "int", "name": "text", "city": "text", "tenant": "int", "ceiling": "num", "ssn": "text",
    "email": "text", "phones": "array", "born": "date", "salary": "num", "profile": "json",
    "pin": "int", "code": "text", "score": "num", "photo": "bytes", "active": "bool",
    "home": "row", "label": "text", "at": "date", "digits": "text",
}  # fmt: skip
TABLES: Final = {
    "people": _PEOPLE,
    "public.people": _PEOPLE,
    "orders": {"id": "int", "person_id": "int", "item": "text", "amount": "num", "ssn": "text",
               "note": "text", "at": "date"},
    "referring": {"id": "int", "of": "text"},
    "events": {"id": "int", "at": "date", "note": "text"},
    "events_2026": {"id": "int", "at": "date", "note": "text"},
    "parent": {"id": "int", "note": "text"},
    "child": {"id": "int", "note": "text", "extra": "int"},
    "staff": {"id": "int", "badge": "text", "name": "text", "boss": "int"},
    "plain": {"id": "int", "word": "text", "n": "int", "doc": "json"},
    "cards": {"id": "int", "number": "text", "address": "text", "others": "array",
              "numbers": "array", "visited": "date", "left_at": "date", "hired": "date",
              "worth": "num", "wage": "int", "floating": "num", "badge": "int", "plate": "text",
              "doc": "json", "open": "text"},
    "papers": {"id": "int", "doc": "json", "old": "json", "tags": "array", "n": "int",
               "kept": "text"},
    "v_papers": {"id": "int", "doc": "json", "s": "text"},
    "v_plain": {"id": "int", "ssn": "text", "email": "text"},
    "v_renamed": {"id": "int", "tag": "text"},
    "v_computed": {"id": "int", "mixed": "text", "pay": "num", "name": "text"},
    "v_counts": {"city": "text", "n": "int", "top": "num"},
    "v_orders": {"id": "int", "item": "text", "name": "text"},
    "v_cards": {"id": "int", "number": "text", "address": "text", "others": "array",
                "worth": "num", "badge": "int", "doc": "json", "open": "text"},
    "v_case": {"id": "int", "kind": "text"},
    "v_null": {"id": "int", "other": "text", "rich": "text", "letters": "array"},
    "v_rich": {"id": "int", "name": "text"},
    "m_people": {"id": "int", "code": "text", "name": "text"},
}  # fmt: skip
_SECRET: Final = frozenset(
    {"ssn", "email", "phones", "born", "salary", "profile", "pin", "code", "score", "photo",
     "active", "home", "label", "digits", "of", "note", "badge", "tag", "mixed", "pay", "top", "doc", "tags", "s", "other",
     "rich", "letters", "number", "address", "others", "numbers", "visited", "left_at", "hired",
     "worth", "wage", "floating", "plate"}
)  # fmt: skip
_LITERALS: Final = {
    "int": ("0", "1", "3", "7394", "-1"),
    "num": ("0", "1.5", "500", "1000.25"),
    "text": ("''", "'417-55-9003'", "'c5'", "'m'", "'Rome'", "'name 3'"),
    "bool": ("true", "false", "null::boolean"),
    "date": ("date '1961-07-26'", "date '2026-05-05'", "date '1990-01-01'"),
    "json": ("'{}'::jsonb", '\'{"k": "kestrel 1"}\'::jsonb', "'[1, 2]'::jsonb"),
    "array": ("array['x']", "'{}'::text[]", "array['+155', 'y']"),
    "bytes": (r"'\x00ff'::bytea", "''::bytea"),
    "row": ("row('street 1', 1)::address", "null::address"),
}
# $a to $d are expressions of the types in the first part of a rule.
_RULES: Final = {
    "int": (
        ("int int", "($a + $b)"), ("int int", "($a - $b)"), ("int int", "($a % nullif($b, 0))"),
        ("int", "abs($a)"), ("text", "length($a)"), ("text", "ascii($a)"), ("bool", "$a::int"),
        ("text text", "position($a in $b)"), ("array", "cardinality($a)"), ("num", "$a::int"),
        ("array", "array_length($a, 1)"), ("bool int int", "case when $a then $b else $c end"),
        ("int int", "coalesce($a, $b)"), ("int int", "nullif($a, $b)"), ("bytes", "length($a)"),
        ("int int", "greatest($a, $b)"), ("date", "extract(year from $a)::int"),
        ("row", "($a).zip"), ("text", "hashtext($a)"), ("int int", "($a / $b)"),
        ("text", "$a::int"),
    ),
    "num": (
        ("num num", "($a * $b)"), ("num num", "($a + $b)"), ("int", "$a::numeric"),
        ("num", "round($a::numeric, 1)"), ("num", "floor($a)"), ("num num", "($a / $b)"),
        ("json", "($a ->> 'n')::numeric"), ("num", "sqrt(abs($a))"), ("num num", "least($a, $b)"),
        ("num", "(- $a)"), ("date", "extract(epoch from $a)"), ("int num", "mod($a, $b::numeric)"),
    ),
    "text": (
        ("text text", "($a || $b)"), ("text", "upper($a)"), ("text int", "substr($a, $b)"),
        ("text int", "left($a, $b)"), ("text", "reverse($a)"), ("text", "md5($a)"),
        ("int", "$a::text"), ("num", "$a::text"), ("date", "$a::text"), ("json", "$a::text"),
        ("array", "$a::text"), ("row", "$a::text"), ("bool", "$a::text"), ("array", "($a)[1]"),
        ("json", "($a ->> 'k')"), ("json", "($a ->> 'secret')"), ("json", "($a #>> '{many,0,x}')"), ("text text text", "replace($a, $b, $c)"), ("row", "($a).street"),
        ("text text", "coalesce($a, $b)"), ("bool text text", "case when $a then $b else $c end"),
        ("array text", "array_to_string($a, $b)"), ("text text", "concat_ws('/', $a, $b)"),
        ("text num", "format('%s-%s', $a, $b)"), ("bytes", "encode($a, 'hex')"),
        ("date", "to_char($a, 'YYYY')"), ("text text", "split_part($a, '-', 1) || $b"),
        ("text text text", "case $a when $b then $c else 'no' end"), ("text", "initcap($a)"),
        ("text", '($a collate "C")'), ("text", "regexp_replace($a, '[0-9]', 'd', 'g')"),
        ("text", "quote_literal($a)"), ("text text", "overlay($a placing $b from 1)"),
        ("json", "jsonb_path_query_first($a, '$.k')::text"), ("text", "to_tsvector($a)::text"),
        ("text int", "repeat($a, least($b, 3))"),
    ),
    "bool": (
        ("text text", "($a = $b)"), ("text text", "($a < $b)"), ("text text", "($a like $b)"),
        ("int int", "($a = $b)"), ("int int", "($a > $b)"), ("num num", "($a >= $b)"),
        ("num num", "($a <> $b)"), ("date date", "($a < $b)"), ("json json", "($a @> $b)"),
        ("array array", "($a && $b)"), ("text array", "($a = any ($b))"), ("bool", "(not $a)"),
        ("bool bool", "($a and $b)"), ("bool bool", "($a or $b)"), ("bool", "($a is true)"),
        ("text text", "($a is distinct from $b)"), ("text text text", "($a in ($b, $c))"),
        ("num num num", "($a between $b and $c)"), ("row row", "($a = $b)"), ("json", "($a ? 'k')"),
        ("text text", "($a ~ $b)"), ("text int text int", "(($a, $b) < ($c, $d))"),
        ("bytes bytes", "($a = $b)"), ("text text text", "($a between symmetric $b and $c)"),
        ("text", "($a is json)"), ("text", "($a similar to '4%')"), ("text", "starts_with($a, 'c')"),
        ("text", "pg_input_is_valid($a, 'integer')"), ("text", "(to_tsvector($a) @@ 'kestrel'::tsquery)"),
    ),
    "date": (
        ("date int", "($a + $b * interval '1 day')"), ("date", "date_trunc('year', $a)"),
        ("date date", "coalesce($a, $b)"), ("date date", "greatest($a, $b)"), ("date", "$a::date"),
    ),
    "json": (
        ("text", "to_jsonb($a)"), ("text int", "jsonb_build_object('a', $a, 'b', $b)"),
        ("json json", "($a || $b)"), ("json", "jsonb_strip_nulls($a)"), ("array", "to_jsonb($a)"),
        ("json", "($a -> 'k')"), ("json", "($a -> 'many')"), ("json", "($a - 'kept')"), ("text num", "jsonb_build_array($a, $b)"), ("row", "to_jsonb($a)"),
    ),
    "array": (
        ("text text", "array[$a, $b]"), ("array text", "array_append($a, $b)"),
        ("array", "($a)[1:1]"), ("text", "string_to_array($a, '-')"),
        ("array text", "array_remove($a, $b)"), ("text", "regexp_split_to_array($a, '')"),
    ),
    "bytes": (("text", "convert_to($a, 'UTF8')"), ("bytes bytes", "($a || $b)"),
              ("text", "sha256($a::bytea)")),
    "row": (("text int", "row($a, $b)::address"),),
}  # fmt: skip
_AGGREGATES: Final = (
    ("text", "max($a)", "text"), ("text", "count($a)", "int"), ("text", "count(distinct $a)", "int"),
    ("num", "sum($a)", "num"), ("num", "avg($a)", "num"), ("bool", "bool_or($a)", "bool"),
    ("text text", "string_agg($a, ',' order by $b)", "text"), ("int text", "min($a) filter (where $b > 'm')", "int"),
    ("num", "percentile_cont(0.5) within group (order by $a)", "num"), ("text", "jsonb_agg($a)", "json"),
    ("text", "mode() within group (order by $a)", "text"), ("text int", "jsonb_object_agg(coalesce($a, ''), $b)", "json"),
    ("text", "array_agg($a)", "array"), ("int", "count(*)", "int"), ("text", "any_value($a)", "text"),
    ("num num", "corr($a, $b)", "num"), ("int", "bit_xor($a)", "int"),
)  # fmt: skip
_WINDOWS: Final = (
    ("int", "rank()"), ("text", "lag($text)"), ("num", "sum($num)"), ("text", "first_value($text)"),
    ("int", "ntile(3)"), ("int", "count($text)"), ("num", "cume_dist()"), ("int", "row_number()"),
)  # fmt: skip


@dataclass(slots=True)
class _Scope:
    """Columns by (alias, name); `aliases` of tables, for whole rows."""

    columns: list[tuple[str, str, str]] = field(default_factory=list)
    aliases: list[str] = field(default_factory=list)

    def joined(self, other: _Scope) -> _Scope:
        return _Scope(self.columns + other.columns, self.aliases + other.aliases)


class Generator:
    """Scripts, one after the other."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)
        self._aliases = 0
        self._ctes: list[tuple[str, dict[str, str]]] = []

    def script(self) -> Script:
        """One statement, or several that belong together."""
        self._aliases, self._ctes = 0, []
        if self._once_in(4):
            return self._wrapped(self._change() if self._once_in(3) else self._query()[0])
        return (self._change(),) if self._once_in(4) else (self._query()[0],)

    def view(self) -> str:
        """The definition of a view."""
        self._aliases, self._ctes = 0, []
        return self._query()[0]

    # --- chance ---

    def _once_in(self, times: int) -> bool:
        return self._random.randrange(times) == 0

    def _alias(self) -> str:
        self._aliases += 1
        return f"t{self._aliases}"

    # --- expressions ---

    def expression(self, kind: str, scope: _Scope, depth: int = 2) -> str:
        """Of a type, over columns in scope."""
        random = self._random
        fitting = [column for column in scope.columns if column[2] == kind]
        if fitting and (depth <= 0 or random.random() < 0.35):
            secret = [column for column in fitting if column[1] in _SECRET]
            alias, name, _ = random.choice(secret if secret and random.random() < 0.7 else fitting)
            return f"{alias}.{name}" if alias else name
        if depth <= 0 or random.random() < 0.1:
            return random.choice(_LITERALS[kind])
        if random.random() < 0.06:
            query, columns = self._query(scope, limited=True, kinds=(kind,))
            return f"({query})" if columns else random.choice(_LITERALS[kind])
        if kind == "bool" and random.random() < 0.08:
            query, _ = self._query(scope)
            return f"exists ({query})"
        if kind == "text" and scope.aliases and random.random() < 0.06:
            return random.choice(("$::text", "to_jsonb($)::text", "row_to_json($)::text")).replace(
                "$", random.choice(scope.aliases)
            )
        return self._rule(*random.choice(_RULES[kind]), scope, depth)

    def _rule(self, kinds: str, text: str, scope: _Scope, depth: int) -> str:
        for place, kind in zip("abcd", kinds.split(), strict=False):
            if f"${place}" in text:
                text = text.replace(f"${place}", self.expression(kind, scope, depth - 1))
        return text

    def _kind(self) -> str:
        return self._random.choice(
            ("text", "text", "text", "int", "int", "num", "bool", "date", "json", "array", "row")
        )

    def _window(self, scope: _Scope) -> tuple[str, str]:
        kind, text = self._random.choice(_WINDOWS)
        for each in ("text", "num"):
            if f"${each}" in text:
                text = text.replace(f"${each}", self.expression(each, scope, 1))
        parts = []
        if self._once_in(2):
            parts.append(f"partition by {self.expression(self._kind(), scope, 1)}")
        parts.append(f"order by {self.expression('text', scope, 1)}, {self._key(scope)}")
        return f"{text} over ({' '.join(parts)})", kind

    def _key(self, scope: _Scope) -> str:
        keys = [f"{a}.{n}" for a, n, _ in scope.columns if n in ("id", "city") and a]
        return ", ".join(keys) or "1"

    # --- what is in FROM ---

    def _source(self, outer: _Scope) -> tuple[str, _Scope]:
        random, alias = self._random, self._alias()
        chance = random.random()
        if chance < 0.12:
            query, columns = self._query()
            return f"({query}) {alias}", _of(alias, columns)
        if chance < 0.16 and outer.columns:
            query, columns = self._query(outer)
            return f"lateral ({query}) {alias}", _of(alias, columns)
        if chance < 0.2 and self._ctes:
            name, columns = random.choice(self._ctes)
            return f"{name} {alias}", _of(alias, columns)
        if chance < 0.24 and outer.columns:
            array = self.expression("array", outer, 1)
            return f"unnest({array}) {alias} (u)", _of(alias, {"u": "text"})
        if chance < 0.27:
            return f"(values (1, 'c5'), (2, null)) {alias} (v, w)", _of(
                alias, {"v": "int", "w": "text"}
            )
        table = random.choice(("people", *TABLES)) if self._once_in(2) else "people"
        columns = TABLES[table]
        if random.random() < 0.1:
            renamed = {f"{name[:2]}_{at}": kind for at, (name, kind) in enumerate(columns.items())}
            if table.endswith("people"):
                # `mood` is between `label` and `at`.
                return f"{table} {alias}", _of(alias, columns)
            return f"{table} as {alias} ({', '.join(renamed)})", _of(alias, renamed)
        only = "only " if random.random() < 0.03 else ""
        return f"{only}{table} {alias}", _of(alias, columns)

    def _from(self, outer: _Scope) -> tuple[str, _Scope]:
        random = self._random
        text, scope = self._source(outer)
        while random.random() < 0.35 and len(scope.aliases) < 3:
            other, more = self._source(outer.joined(scope))
            both = scope.joined(more)
            kind = random.choice(("join", "left join", "full join", "cross join", ",", "join"))
            shared = {n for _, n, _ in scope.columns} & {n for _, n, _ in more.columns}
            if kind == ",":
                text = f"{text}, {other}"
            elif kind == "cross join":
                text = f"{text} cross join {other}"
            elif shared and random.random() < 0.25:
                name = random.choice(sorted(shared))
                text = f"{text} {kind} {other} using ({name})"
                found = next(k for _, n, k in scope.columns if n == name)
                both.columns.append(("", name, found))
            elif random.random() < 0.05:
                text = f"{text} natural {kind} {other}"
            else:
                condition = self.expression("bool", scope.joined(more), 2)
                if kind == "full join":
                    condition = f"{self._equal(scope, more)}"
                text = f"{text} {kind} {other} on {condition}"
            scope = both
        return text, scope

    def _equal(self, one: _Scope, other: _Scope) -> str:
        return f"{self.expression('text', one, 0)} = {self.expression('text', other, 0)}"

    # --- queries ---

    def _query(
        self,
        outer: _Scope | None = None,
        *,
        limited: bool = False,
        kinds: tuple[str, ...] = (),
        depth: int = 0,
    ) -> tuple[str, dict[str, str]]:
        """A query, and its columns."""
        random = self._random
        if self._aliases > 9:
            kind = (kinds or ("text",))[0]
            return f"select {random.choice(_LITERALS[kind])} as a0", {"a0": kind}
        start = ""
        if outer is None and depth == 0 and not limited and self._once_in(7):
            query, columns = self._query(depth=1)
            name = f"w{self._alias()}"
            self._ctes.append((name, columns))
            hint = random.choice(("", "", "materialized ", "not materialized "))
            start = f"with {name} as {hint}({query}) "
        source, scope = self._from(outer or _Scope())
        seen = scope.joined(outer) if outer else scope
        wanted = kinds or tuple(self._kind() for _ in range(random.randint(1, 3)))
        outputs: list[tuple[str, str]] = []
        grouped = not limited and self._once_in(4)
        keys: list[str] = []
        if grouped:
            keys = [self.expression(self._kind(), scope, 1) for _ in range(random.randint(0, 2))]
            outputs = [(key, "text") for key in keys if self._once_in(2)]
            for _ in range(random.randint(1, 2)):
                of, text, kind = random.choice(_AGGREGATES)
                outputs.append((self._rule(of, text, scope, 2), kind))
        else:
            for kind in wanted:
                if not kinds and random.random() < 0.12:
                    outputs.append(self._window(seen))
                elif limited and self._once_in(3):
                    outputs.append((f"max({self.expression('text', scope, 1)})", "text"))
                else:
                    outputs.append((self.expression(kind, seen, random.choice((0, 1, 2, 3))), kind))
        columns = {f"a{at}": kind for at, (_, kind) in enumerate(outputs)}
        listed = ", ".join(f"{text} as a{at}" for at, (text, _) in enumerate(outputs))
        if not limited and not grouped and random.random() < 0.1:
            listed, columns = random.choice(("*", f"{random.choice(scope.aliases)}.*")), {}
        distinct = "distinct " if not limited and self._once_in(10) else ""
        if random.random() < 0.03 and not grouped:
            distinct = f"distinct on ({self.expression('text', scope, 1)}) "
        text = f"{start}select {distinct}{listed} from {source}"
        if self._once_in(2):
            text += f" where {self.expression('bool', seen, random.choice((1, 2, 3)))}"
        if grouped and keys:
            text += " group by " + random.choice(
                ("{}", "{}", "{}", "rollup ({})", "cube ({})")
            ).format(", ".join(keys))
            if self._once_in(3):
                text += f" having {self._rule('text text', 'max($a) > $b', scope, 1)}"
        if limited:
            return f"{text} limit 1", columns
        if not grouped and columns and self._once_in(12):
            other = "union all", "union", "intersect", "except"
            second, _ = self._query(outer, kinds=tuple(columns.values()), depth=1)
            return f"{text} {random.choice(other)} {second}", columns
        if self._once_in(2) and not grouped and not distinct:
            order = self.expression(self._kind(), seen, random.choice((0, 1)))
            text += f" order by {random.choice((order, order, '1', 'a0'))}"
            text += random.choice(("", " desc", " nulls first"))
            if self._once_in(2):
                text += f" limit {random.choice((1, 3))}"
        if random.random() < 0.02:
            text += " for update"
        return text, columns

    # --- changes ---

    def _change(self) -> str:
        random = self._random
        table = random.choice(
            ("people", "people", "papers", "orders", "plain", "staff", "v_plain", "v_orders")
        )
        columns, alias = TABLES[table], self._alias()
        scope = _of(alias, columns)
        own = [
            (n, k)
            for n, k in columns.items()
            if n not in ("id", "digits", "at", "boss", "person_id", "kept")
        ]
        returning = ""
        if self._once_in(2):
            outputs = [self.expression(self._kind(), scope, random.choice((0, 0, 1, 2)))]
            returning = f" returning {random.choice(('*', alias, *outputs * 4))}"
        chance = random.random()
        if chance < 0.45:
            chosen = random.sample(own, random.randint(1, 2))
            sets = ", ".join(
                f"{n} = {self.expression(k, scope, random.choice((0, 1)))}" for n, k in chosen
            )
            more, seen = "", scope
            if self._once_in(4):
                source, other = self._source(_Scope())
                more, seen = f" from {source}", scope.joined(other)
            where = self.expression("bool", seen, random.choice((1, 2)))
            return f"update {table} {alias} set {sets}{more} where {where}{returning}"
        if chance < 0.65:
            more, seen = "", scope
            if self._once_in(3):
                source, other = self._source(_Scope())
                more, seen = f" using {source}", scope.joined(other)
            return f"delete from {table} {alias}{more} where {self.expression('bool', seen)}{returning}"
        if chance < 0.8:
            source, other = self._source(_Scope())
            seen = scope.joined(other)
            name, kind = random.choice(own)
            does = random.choice(
                ("delete", f"update set {name} = {self.expression(kind, seen, 1)}", "do nothing")
            )
            return (
                f"merge into {table} {alias} using {source} on {self.expression('bool', seen, 1)}"
                f" when matched and {self.expression('bool', seen, 1)} then {does}"
            )
        name, kind = random.choice(own)
        if self._once_in(2):
            query, _ = self._query(limited=True, kinds=("int", kind))
            return f"insert into {table} as {alias} (id, {name}) {query}{returning}"
        value = self.expression(kind, _Scope(), 1)
        conflict = ""
        if self._once_in(2):
            conflict = f" on conflict (id) do update set {name} = {self.expression(kind, scope, 1)}"
            if self._once_in(2):
                conflict += f" where {self.expression('bool', scope, 1)}"
        return f"insert into {table} as {alias} (id, {name}) values ({random.choice((3, 500))}, {value}){conflict}{returning}"

    def _wrapped(self, statement: str) -> Script:
        return self._random.choice(
            (
                (f"prepare made as {statement}", "execute made"),
                (
                    f"declare made cursor for {statement}",
                    "fetch 3 from made",
                    "fetch all from made",
                ),
                (f"declare made binary cursor for {statement}", "fetch all from made"),
                (f"copy ({statement}) to stdout",),
                (f"copy ({statement}) to stdout (format csv, header)",),
                (f"explain (costs off) {statement}",),
                (f"explain (costs off, verbose) {statement}",),
                (f"explain (costs off, analyze, timing off, summary off) {statement}",),
                (f"create temp table made as {statement}", "select * from made"),
                (f"create temp view made as {statement}", "select * from made"),
                (f"create materialized view made as {statement}", "select * from made"),
                (f"with made as ({statement}) select * from made",),
                (
                    f"with made as ({statement}) select count(*), made::text from made group by made",
                ),
                ("savepoint a", statement, "rollback to a", statement),
                (f"select * into made from ({statement}) x", "table made"),
            )
        )


def _of(alias: str, columns: dict[str, str]) -> _Scope:
    return _Scope([(alias, name, kind) for name, kind in columns.items()], [alias])
