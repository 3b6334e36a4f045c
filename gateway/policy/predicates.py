"""Whether a WHERE or LIMIT restricts anything. Pure.

Constants are folded; what cannot be judged counts as a restriction only where a column is
compared with something that is not made of that same column.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from enum import Enum
from typing import Any, Final

# Names a column in a comparison; None where the name leads to nothing known.
Key = tuple[str, str]
Columns = Callable[[dict[str, Any]], tuple[Key, ...]]


class Truth(Enum):
    """What a condition is. OPAQUE may be anything, and counts as no restriction."""

    TRUE = 1
    FALSE = 2
    REAL = 3
    OPAQUE = 4


_COMPARE: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "=": operator.eq,
    "<>": operator.ne,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
# True of a value and itself.
_REFLEXIVE: Final = frozenset(
    {"=", "<=", ">=", "@>", "<@", "~=", "&&", "~~", "~~*", "^@", "~<=~", "~>=~", "=~", "*=", "|=|"}
)
_IRREFLEXIVE: Final = frozenset({"<>", "!=", "<", ">"})
_RANGES: Final = frozenset({"<", "<=", ">", ">=", "<>", "!="})
_UP: Final = frozenset({">", ">="})
_DOWN: Final = frozenset({"<", "<="})
_PATTERNS: Final = frozenset({"~~", "~~*"})
_REGEXPS: Final = frozenset({"~", "~*"})
_EVERYTHING: Final = frozenset({"", "^", "$", "^.*$", ".*", "^.*", ".*$", "(.*)", ".*?", "()"})
_IGNORED: Final = frozenset({"location", "rexpr_list_start", "rexpr_list_end"})
_LIMITS: Final = 2**31
_MOST_DEPTH: Final = 60
_MOST_PAIRS: Final = 4096


def same(left: Any, right: Any) -> bool:
    """Whether two expressions are written alike."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        keys = left.keys() - _IGNORED
        return keys == right.keys() - _IGNORED and all(same(left[k], right[k]) for k in keys)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    return bool(left == right)


def constant(node: Any) -> tuple[bool, Any]:
    """(whether it is a constant, its value): numbers, booleans and strings through casts."""
    while isinstance(node, dict):
        if "TypeCast" in node:
            node = node["TypeCast"].get("arg")
        elif "CollateClause" in node:
            node = node["CollateClause"].get("arg")
        elif "A_Const" in node:
            return True, _value(node["A_Const"])
        else:
            return False, None
    return False, None


def _value(const: dict[str, Any]) -> Any:
    if "ival" in const:
        return const["ival"].get("ival", 0)
    if "fval" in const:
        text = const["fval"].get("fval", "0")
        try:
            return float(text)
        except ValueError:
            return text
    if "boolval" in const:
        return bool(const["boolval"].get("boolval", False))
    if "sval" in const:
        return const["sval"].get("sval", "")
    if "bsval" in const:
        return const["bsval"].get("bsval", "")
    return None


class Predicates:
    """Judges conditions of one query. `columns` says what a ColumnRef means there, `nullable`
    whether it may be null, `returned` what a subquery returns; `target` is what is changed.

    `numbers` is set once a number decided anything: then a text with other numbers may differ.
    """

    def __init__(
        self,
        columns: Columns,
        nullable: Callable[[dict[str, Any]], bool],
        returned: Columns,
        target: str = "",
    ) -> None:
        self._columns = columns
        self._returned = returned
        self._nullable = nullable
        self._target = target
        self.numbers = False

    def restricts(self, condition: Any) -> bool:
        """Whether `condition` is there and may leave out rows."""
        if condition is None:
            return False
        return self._judge(condition, 0) in (Truth.REAL, Truth.FALSE)

    def _judge(self, node: dict[str, Any], depth: int) -> Truth:
        if depth > _MOST_DEPTH:
            return Truth.OPAQUE
        for kind, value in node.items():
            match kind:
                case "BoolExpr":
                    return self._boolean(value, depth + 1)
                case "A_Expr":
                    return self._expression(value)
                case "A_Const":
                    return self._constant(_value(value))
                case "NullTest":
                    return self._null_test(value)
                case "BooleanTest":
                    return self._boolean_test(value, depth + 1)
                case "ColumnRef":
                    return Truth.REAL if self._columns(value) else Truth.OPAQUE
                case "SubLink":
                    return self._sublink(value, depth + 1)
                case "CurrentOfExpr":
                    return Truth.REAL
                case "TypeCast":
                    return self._judge(value.get("arg", {}), depth + 1)
                case _:
                    return Truth.OPAQUE
        return Truth.OPAQUE

    def _constant(self, value: Any) -> Truth:
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            self.numbers = True
        if value is None or value is False:
            return Truth.FALSE
        if isinstance(value, str):
            word = value.strip().lower()
            return Truth.FALSE if (word and "false".startswith(word)) or word in (
                "no", "n", "off", "of", "0",
            ) else Truth.TRUE  # fmt: skip
        return Truth.TRUE if value else Truth.FALSE

    def _boolean(self, value: dict[str, Any], depth: int) -> Truth:
        arguments = value.get("args", [])
        judged = [self._judge(argument, depth) for argument in arguments]
        match value.get("boolop"):
            case "AND_EXPR":
                if Truth.FALSE in judged:
                    return Truth.FALSE
                if Truth.REAL in judged:
                    return Truth.REAL
                return Truth.OPAQUE if Truth.OPAQUE in judged else Truth.TRUE
            case "OR_EXPR":
                if Truth.TRUE in judged:
                    return Truth.TRUE
                self.numbers = True
                left = [j for j in judged if j is not Truth.FALSE]
                if not left:
                    return Truth.FALSE
                if Truth.OPAQUE in left or self._covers(arguments):
                    return Truth.OPAQUE
                return Truth.REAL
            case _:
                negated = {Truth.TRUE: Truth.FALSE, Truth.FALSE: Truth.TRUE}
                return negated.get(judged[0], judged[0]) if judged else Truth.OPAQUE

    def _covers(self, arguments: list[dict[str, Any]]) -> bool:
        """Whether alternatives may together be true of everything: `a > 1 or a <= 1`."""
        # Of values that a column equals there is always one more.
        odd = [one for one in arguments if not self._equals(one)]
        if len(odd) * len(arguments) > _MOST_PAIRS:
            return True
        for index, one in enumerate(odd):
            for other in [*odd[index + 1 :], *(a for a in arguments if self._equals(a))]:
                if same(_inner_not(one), other) or same(one, _inner_not(other)):
                    return True
                if self._overlap(one, other):
                    return True
        return False

    def _equals(self, one: dict[str, Any]) -> bool:
        expression = one.get("A_Expr")
        return (
            expression is not None
            and _operator(expression) == "="
            and constant(expression.get("rexpr"))[0]
            and "ColumnRef" in expression.get("lexpr", {})
        )

    def _overlap(self, one: dict[str, Any], other: dict[str, Any]) -> bool:
        if "NullTest" in one and "NullTest" in other:
            return same(one["NullTest"].get("arg"), other["NullTest"].get("arg"))
        first, second = one.get("A_Expr"), other.get("A_Expr")
        if first is None or second is None:
            return False
        a, b = self._sides(first), self._sides(second)
        if a is None or b is None or not same(a[0], b[0]):
            return False
        (_, op, x), (_, op2, y) = a, b
        # Alternatives of one direction (`a = 1 or a = 2`, `a < 1 or a < 5`) leave something out.
        if "<>" in (op, op2) or "!=" in (op, op2):
            return True
        if op in _UP and op2 in _DOWN:
            (op, x), (op2, y) = (op2, y), (op, x)
        if op in _DOWN and op2 in _UP:
            self.numbers = True
            if isinstance(x, (int, float)) and isinstance(y, (int, float)):
                # a < x or a > y
                return bool(y <= x)
            return True
        return False

    def _sides(self, value: dict[str, Any]) -> tuple[dict[str, Any], str, Any] | None:
        """(column's side, operator, constant) with the column to the left."""
        if value.get("kind") != "AEXPR_OP":
            return None
        left, right, name = value.get("lexpr"), value.get("rexpr"), _operator(value)
        if left is None or right is None:
            return None
        fixed, number = constant(right)
        if fixed:
            return left, name, number
        fixed, number = constant(left)
        if fixed:
            mirrored = {"<": ">", ">": "<", "<=": ">=", ">=": "<="}
            return right, mirrored.get(name, name), number
        # Not constants: two of opposite direction may cover everything.
        return (left, name, None) if self._columns_in(left) else (right, name, None)

    def _null_test(self, value: dict[str, Any]) -> Truth:
        argument = value.get("arg", {})
        is_null = value.get("nulltesttype") == "IS_NULL"
        fixed, given = constant(argument)
        if fixed:
            return Truth.TRUE if (given is None) is is_null else Truth.FALSE
        reference = argument.get("ColumnRef")
        if reference is None or not self._columns(reference):
            return Truth.OPAQUE
        if is_null:
            return Truth.REAL
        # Of a column that is never null, IS NOT NULL says nothing.
        return Truth.REAL if self._nullable(reference) else Truth.TRUE

    def _boolean_test(self, value: dict[str, Any], depth: int) -> Truth:
        judged = self._judge(value.get("arg", {}), depth)
        if judged is Truth.REAL:
            kind = value.get("booltesttype", "")
            reference = value.get("arg", {}).get("ColumnRef")
            if kind in ("IS_NOT_UNKNOWN",) and (reference is None or not self._nullable(reference)):
                return Truth.OPAQUE
            return Truth.REAL
        if judged is Truth.OPAQUE:
            return Truth.OPAQUE
        true = judged is Truth.TRUE
        match value.get("booltesttype"):
            case "IS_TRUE" | "IS_NOT_FALSE":
                return Truth.TRUE if true else Truth.OPAQUE
            case "IS_FALSE" | "IS_NOT_TRUE":
                return Truth.FALSE if true else Truth.TRUE
            case "IS_NOT_UNKNOWN":
                return Truth.TRUE
            case _:
                return Truth.OPAQUE

    def _sublink(self, value: dict[str, Any], depth: int) -> Truth:
        inner = value.get("subselect", {}).get("SelectStmt", {})
        kind = value.get("subLinkType")
        restricted = (
            "whereClause" in inner
            and self._judge(inner["whereClause"], depth) in (Truth.REAL, Truth.FALSE)
        ) or self._limits(inner)
        sources = inner.get("fromClause", [])
        foreign = bool(sources) and all(
            "RangeVar" in source and source["RangeVar"].get("relname") != self._target
            for source in sources
        )
        if kind == "EXISTS_SUBLINK":
            return Truth.REAL if restricted and self._correlated(inner) else Truth.OPAQUE
        if kind == "ANY_SUBLINK":
            tested = self._columns_in(value.get("testexpr"))
            if not tested or set(tested) & set(self._returned(value)):
                return Truth.OPAQUE
            values = inner.get("valuesLists")
            if values is not None:
                return Truth.OPAQUE if self._columns_in(values) else Truth.REAL
            return Truth.REAL if restricted or foreign else Truth.OPAQUE
        return Truth.OPAQUE

    def _limits(self, select: dict[str, Any]) -> bool:
        limited = has_limit(select)
        self.numbers = self.numbers or limited[1] >= 0
        return limited[0]

    def _correlated(self, select: dict[str, Any]) -> bool:
        return bool(self._columns_in(select.get("whereClause")))

    def _expression(self, value: dict[str, Any]) -> Truth:
        kind, name = value.get("kind"), _operator(value)
        left, right = value.get("lexpr"), value.get("rexpr")
        if left is None or right is None:
            return Truth.OPAQUE
        fixed_left, a = constant(left)
        if isinstance(right, list) or "List" in right:
            return self._in_list(str(kind), name, left, right)
        fixed_right, b = constant(right)
        if fixed_left and fixed_right:
            return self._constants(str(kind), name, a, b)
        if not (fixed_right and "ColumnRef" in left):
            # How the two are written decides, and numbers are part of that.
            self.numbers = True
        if (fixed_right and b is None) or (fixed_left and a is None):
            return self._with_null(str(kind), left if fixed_right else right)
        if same(left, right):
            if kind == "AEXPR_NOT_DISTINCT" or (kind != "AEXPR_DISTINCT" and name in _REFLEXIVE):
                return Truth.TRUE
            if kind == "AEXPR_DISTINCT" or name in _IRREFLEXIVE:
                return Truth.FALSE
            return Truth.OPAQUE
        if fixed_right and self._matches_everything(name, b):
            return Truth.OPAQUE
        return self._comparison(str(kind), name, left, right)

    def _with_null(self, kind: str, other: dict[str, Any]) -> Truth:
        if kind == "AEXPR_DISTINCT":
            return self._null_test({"arg": other, "nulltesttype": "IS_NOT_NULL"})
        if kind == "AEXPR_NOT_DISTINCT":
            return self._null_test({"arg": other, "nulltesttype": "IS_NULL"})
        # Nothing compares with NULL but the operators of a few types.
        return Truth.OPAQUE

    def _constants(self, kind: str, name: str, a: Any, b: Any) -> Truth:
        self.numbers = True
        if kind in ("AEXPR_DISTINCT", "AEXPR_NOT_DISTINCT"):
            return Truth.TRUE if (a != b) is (kind == "AEXPR_DISTINCT") else Truth.FALSE
        compare = _COMPARE.get(name)
        if kind != "AEXPR_OP" or compare is None or a is None or b is None:
            return Truth.OPAQUE
        if type(a) is not type(b) and not (
            isinstance(a, (int, float)) and isinstance(b, (int, float))
        ):
            return Truth.OPAQUE
        # Strings may be values of any type and of any collation: only equality is certain.
        if isinstance(a, str) and not (name == "=" and a == b):
            return Truth.OPAQUE
        return Truth.TRUE if compare(a, b) else Truth.FALSE

    def _matches_everything(self, name: str, pattern: Any) -> bool:
        if name in _PATTERNS:
            return isinstance(pattern, str) and not pattern.strip("%")
        if name in _REGEXPS:
            return isinstance(pattern, str) and pattern in _EVERYTHING
        return name == "^@" and pattern == ""

    def _in_list(self, kind: str, name: str, left: dict[str, Any], right: Any) -> Truth:
        columns = self._columns_in(left)
        if not columns or set(columns) & set(self._columns_in(right)):
            return Truth.OPAQUE
        if "AEXPR_NOT" in kind or name == "<>":
            # All but a few is nearly all; it is a comparison all the same.
            return Truth.REAL if self._plain(left, columns) else Truth.OPAQUE
        return Truth.REAL

    def _comparison(self, kind: str, name: str, left: Any, right: Any) -> Truth:
        a, b = self._columns_in(left), self._columns_in(right)
        if not a and not b:
            return Truth.OPAQUE
        shared = set(a) & set(b)
        if shared:
            # One table joined with itself: `a.id < b.id` leaves rows out, `a.id = b.id` none.
            plain = self._plain(left, a) and self._plain(right, b)
            apart = plain and not same(left, right) and name in _IRREFLEXIVE
            return Truth.REAL if apart and _qualified(left) and _qualified(right) else Truth.OPAQUE
        for side, columns in ((left, a), (right, b)):
            if columns and not self._plain(side, columns):
                if len(columns) != len(set(columns)) or _multiplies_by_zero(side):
                    return Truth.OPAQUE
                if name in _RANGES or kind == "AEXPR_DISTINCT":
                    # `length(name) >= 0`, `abs(id) <> -1`: who knows.
                    return Truth.OPAQUE
        return Truth.REAL

    def _plain(self, node: Any, columns: tuple[Key, ...]) -> bool:
        """A column, or a row of columns, as it is."""
        while isinstance(node, dict) and "TypeCast" in node:
            node = node["TypeCast"].get("arg")
        if not isinstance(node, dict):
            return False
        if "RowExpr" in node:
            return len(columns) == len(set(columns))
        return "ColumnRef" in node

    def _columns_in(self, node: Any) -> tuple[Key, ...]:
        found: list[Key] = []
        ahead = [node]
        while ahead:
            one = ahead.pop()
            if isinstance(one, list):
                # There may be a million constants, and nothing is in one.
                ahead += [each for each in one if type(each) is not dict or "A_Const" not in each]
            elif isinstance(one, dict):
                reference, query = one.get("ColumnRef"), one.get("SubLink")
                if reference is not None:
                    found += self._columns(reference)
                elif query is not None:
                    found += self._returned(query)
                elif "A_Const" not in one:
                    ahead += one.values()
        return tuple(found)


def _inner_not(node: dict[str, Any]) -> Any:
    """What `node` denies, or None."""
    inner = node.get("BoolExpr")
    if inner is not None and inner.get("boolop") == "NOT_EXPR":
        return inner.get("args", [None])[0]
    return None


def _operator(value: dict[str, Any]) -> str:
    names = value.get("name", [])
    return str(names[-1].get("String", {}).get("sval", "")) if names else ""


def _qualified(node: dict[str, Any]) -> bool:
    while "TypeCast" in node:
        node = node["TypeCast"].get("arg", {})
    return len(node.get("ColumnRef", {}).get("fields", ())) > 1


def _multiplies_by_zero(node: Any) -> bool:
    ahead = [node]
    while ahead:
        one = ahead.pop()
        if isinstance(one, list):
            ahead += one
        elif isinstance(one, dict):
            expression = one.get("A_Expr")
            if expression is not None:
                for side in ("lexpr", "rexpr"):
                    fixed, number = constant(expression.get(side))
                    if fixed and number in (0, ""):
                        return True
            ahead += one.values()
    return False


def has_limit(select: dict[str, Any]) -> tuple[bool, int]:
    """(whether a SELECT has a LIMIT that limits, the number where it is one)."""
    limit = select.get("limitCount")
    if limit is None:
        return False, -1
    if "ParamRef" in limit:
        return True, -1
    fixed, number = constant(limit)
    if not fixed or isinstance(number, bool) or not isinstance(number, (int, float)):
        return False, -1
    return (True, int(number)) if 0 <= number < _LIMITS else (False, -1)
