"""One target as one kind of person sees it: plans for statements, pumps for rows, words of errors.

Shared by every session with the same hidden columns; immutable but for what it remembers.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Final

from gateway.masking import allowed, ordering
from gateway.masking.hidden import Column, Hidden, Mask
from gateway.masking.plan import PASS, Plan, plan
from gateway.masking.pump import Pump, described
from gateway.policy.sql import shape

_REMEMBERED_BYTES: Final = 8 * 1024 * 1024
_LARGEST: Final = 64 * 1024
_MOST_SHAPES: Final = 5_000
_QUOTED: Final = re.compile(r'"[^"]*"|\'[^\']*\'|«[^»]*»|„[^“]*“|`[^`]*`')
# What only ever names things (section 54.8): schema, table, column, data type, constraint, and
# where in the server's source it was raised.
_NAMING: Final = frozenset("SVCstcdnFLR")
# Classes of errors that speak of definitions, not of data: access rules and syntax, and integrity,
# whose message names a constraint and whose detail holds the row.
_OF_NAMES: Final = ("42", "3D", "3F", "23")
_DETAILED: Final = ("42", "3D", "3F")
# Where PostgreSQL's procedural languages raise what a function says.
_RAISING: Final = frozenset({"exec_stmt_raise", "exec_stmt_assert"})
_LANGUAGES: Final = ("plpy_", "plperl", "pltcl", "plv8")
_HIDDEN_WORDS: Final = "a function's message is not shown: it may hold what you may not see"
_NUMBER: Final = re.compile(r"\d{3,}")
_OWN: Final = ("user", "database", "application_name", "replication", "options")

NOT_KNOWN: Final = Plan("refuse", "what is classified at the target is not known yet")


class Veil:
    """What is hidden, and how. `hidden` None: nothing is known yet, and nothing passes."""

    def __init__(self, hidden: Hidden | None) -> None:
        self.hidden: Final = hidden
        self._keys = dict(hidden.token_keys) if hidden else {}
        self._origins: dict[tuple[int, int], Column] = hidden.by_origin() if hidden else {}
        self._plans: OrderedDict[tuple[str, frozenset[str], bool], Plan] = OrderedDict()
        self._passing: set[tuple[str, frozenset[str]]] = set()
        self._bytes = 0

    @property
    def masks(self) -> dict[str, Mask]:
        """How each hidden column is masked, by schema.table.column."""
        relations = self.hidden.protected.values() if self.hidden else ()
        return {
            f"{relation.full_name}.{column.name}": mask
            for relation in relations
            for column in relation.columns
            if (mask := column.mask) is not None
        }

    @property
    def settings(self) -> Mapping[str, str] | None:
        """What a session must have begun with; None where that is not known yet."""
        return ordering.settings(self.hidden.scans) if self.hidden else None

    def plan(
        self, text: str, own: frozenset[str] = frozenset(), *, converted: bool = False
    ) -> Plan:
        """See gateway.masking.plan."""
        if self.hidden is None:
            return NOT_KNOWN
        key = (text, own, converted)
        known = self._plans.get(key)
        if known is None:
            shaped = shape(text)
            if shaped is not None and (shaped, own) in self._passing:
                return PASS
            known = plan(text, self.hidden, own, converted=converted)
            if shaped is not None and known == PASS and len(self._passing) < _MOST_SHAPES:
                # A number may be the place of an output; here none is hidden.
                self._passing.add((shaped, own))
            elif len(text) <= _LARGEST:
                self._plans[key] = known
                self._bytes += _cost(text, known)
                while self._bytes > _REMEMBERED_BYTES:
                    (old, *_), oldest = self._plans.popitem(last=False)
                    self._bytes -= _cost(old, oldest)
        return known

    def pump(self, fields: Sequence[tuple[str, int, int, int, int]], codec: str) -> Pump | None:
        """For the rows of a RowDescription; None when nothing of them is hidden."""
        columns = described(fields, self._origins)
        if not columns:
            return None
        return Pump(columns, codec, self._keys)

    def startup(self, parameters: Mapping[str, str]) -> str:
        """Why a session may not begin with these settings; empty when it may."""
        given = [(name, value) for name, value in parameters.items() if name not in _OWN]
        if parameters.get("replication", "") not in ("", "0", "off", "false", "no"):
            return "replication would show what you may not see"
        options = _options(parameters.get("options", ""))
        if options is None:
            return "the option string is not understood"
        for name, value in (*given, *options):
            # What an encoding cannot say is not fetched from the beginning.
            if name.lower() != "client_encoding" and not allowed.setting(name, value):
                return f"setting {name} may change what is masked"
            if self.hidden is not None and ordering.fixed(self.hidden.scans, name):
                return f"setting {name} may put rows in the order of what you may not see"
        return ""

    def words(self, fields: Mapping[str, str], statement: str) -> dict[str, str]:
        """An error's or notice's fields without data: only what the person typed is quoted."""
        sqlstate = fields.get("C", "")
        if fields.get("R") in _RAISING or fields.get("F", "").startswith(_LANGUAGES):
            # A function chose every word, its SQLSTATE and the names it speaks of.
            said = {code: text for code, text in fields.items() if code in "SVCPFLR"}
            return {**said, "M": _HIDDEN_WORDS}
        kept = {code: text for code, text in fields.items() if code in _NAMING or code in "PM"}
        # A position is where a text is at fault before it reads anything.
        typed = "P" in fields
        within = "W" in fields or "q" in fields
        if typed and sqlstate.startswith(_DETAILED):
            kept.update({code: text for code, text in fields.items() if code in "DH"})
        if sqlstate.startswith("23") or (typed and sqlstate.startswith(_OF_NAMES)):
            return kept
        # Otherwise what is quoted may be data: of a view's expression, of a function's own query.
        # What the person typed is known to them, but a list of guesses must not find the right one.
        shown = statement if typed or not (within or sqlstate.startswith("22")) else ""
        kept["M"] = _QUOTED.sub(lambda found: _shown(found.group(), shown), fields.get("M", ""))
        if within:
            kept["M"] = _NUMBER.sub("***", kept["M"])
        return kept


def _shown(quoted: str, statement: str) -> str:
    # What a person typed is known to them.
    return quoted if quoted[1:-1] in statement else f"{quoted[0]}***{quoted[-1]}"


def _options(text: str) -> list[tuple[str, str]] | None:
    """The settings of a start-up packet's `options`: -c name=value or --name=value."""
    words = _words(text)
    found = []
    while words:
        word = words.pop(0)
        if word == "-c":
            word = words.pop(0) if words else ""
        elif word.startswith("-c"):
            word = word[2:]
        elif word.startswith("--"):
            word = word[2:].replace("-", "_")
        else:
            return None
        name, equals, value = word.partition("=")
        if not equals:
            return None
        found.append((name.strip(), value.strip()))
    return found


def _words(text: str) -> list[str]:
    """As PostgreSQL splits them: a backslash keeps the next character, quotes mean nothing."""
    return [
        re.sub(r"\\(.)", r"\1", word, flags=re.DOTALL)
        for word in re.findall(r"(?:\\.|[^\s\\])+", text, flags=re.DOTALL)
    ]


def _cost(text: str, known: Plan) -> int:
    return len(text) + known.size
