"""Which statements can be estimated, by what question, and what the answer says. Pure.

A planner evaluates what it takes for harmless, constants above all, and so runs functions that are
declared IMMUTABLE or STABLE, by whoever owns them. Therefore a statement is only planned if every
function in it is PostgreSQL's own and known to have no effect; everything else stays unknown.
"""

from __future__ import annotations

import re
from typing import Any, Final

import orjson
from pglast import parser

from gateway.machine import Request
from gateway.masking.allowed import FUNCTIONS
from gateway.policy.catalog import Snapshot
from gateway.policy.sql import REDACTED

ATTRIBUTE: Final = "row_estimate"
NAME: Final = "gatebook_estimate"
EXPLAIN: Final = "EXPLAIN (FORMAT JSON)"
PREPARE: Final = f"PREPARE {NAME} AS"
_PLAIN: Final = frozenset({"select", "insert", "update", "delete", "merge", "select_for_update"})
_OUTER: Final = _PLAIN - {"select_for_update"}
_PARAMETER: Final = re.compile(r"\$[0-9]")
_LONGEST: Final = 64 * 1024
_OWN: Final = "pg_catalog."


def question(request: Request, snapshot: Snapshot) -> str:
    """The EXPLAIN for a statement, or the PREPARE for one with parameters, whose plan for any of
    their values is asked for then; empty for one that is not to be planned.
    """
    # Of what runs, not of what is typed: a planner knows the values of a column, also of one that
    # is hidden from whoever asks, and what it expects of a comparison with one tells of them.
    facts, text = request.facts, request.ran or request.statement
    kinds = request.kinds | facts.kinds
    plain = request.kind in _OUTER and kinds <= _PLAIN and len(text) <= _LONGEST
    # Otherwise the same names might mean something else to another session.
    same = request.settled and not (facts.uncertain or facts.unsettles or facts.opaque)
    known = not (facts.unknown or facts.ddl or facts.files or facts.links or facts.executes)
    if not (plain and same and known) or request.refusal or REDACTED in text:
        return ""
    if not all(_is_harmless(name, snapshot) for name in facts.functions):
        return ""
    asked = f"{PREPARE if _PARAMETER.search(text) else EXPLAIN} {text}"
    return asked if _plans(asked) else ""


def _is_harmless(name: str, snapshot: Snapshot) -> bool:
    if not name.startswith(_OWN):
        return False
    if name.removeprefix(_OWN) in FUNCTIONS:
        return True
    found = snapshot.functions_named(name.removeprefix(_OWN))
    own = [function for function in found if function.schema == _OWN[:-1]]
    return bool(own) and all(function.volatility == "i" for function in own)


def _plans(text: str) -> bool:
    """Whether the text, read as a whole, is one statement that executes nothing."""
    try:
        (statement,) = orjson.loads(parser.parse_sql_json(text))["stmts"]
        ((kind, node),) = statement["stmt"].items()
        options = {option["DefElem"]["defname"] for option in node.get("options", ())}
    except (parser.ParseError, ValueError, UnicodeError, LookupError, TypeError):
        return False
    return kind in ("ExplainStmt", "PrepareStmt") and options <= {"format"}


def rows_of(answer: Any) -> int:
    """How many rows the plan returns, or else changes; -1 where it does not say."""
    try:
        (document,) = orjson.loads(answer) if isinstance(answer, str | bytes) else answer
        plan = document["Plan"]
        changes = plan["Node Type"] == "ModifyTable" and not plan["Plan Rows"]
        plans = plan["Plans"] if changes else [plan]
        outer = [one for one in plans if one.get("Parent Relationship") not in _BESIDE]
        return sum(max(0, int(one["Plan Rows"])) for one in outer)
    except (ValueError, LookupError, TypeError):
        return -1


_BESIDE: Final = frozenset({"InitPlan", "SubPlan"})
