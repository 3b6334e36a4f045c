"""What is wrong with a set of policies, before it decides about anyone. Pure.

Errors make a set unusable or a rule meaningless; warnings say what is allowed and hardly meant.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import cedarpy
import msgspec

from gateway.policy import row_limits, schema
from gateway.policy.catalog import parts_of
from gateway.policy.estimating import ATTRIBUTE
from gateway.policy.facts import RISKS
from gateway.policy.source import Piece, pieces, plain

ERROR: Final = "error"
WARNING: Final = "warning"

_NOTES: Final = frozenset({"id", "message", "how_to_ask", "unknown", row_limits.NOTE})
_ASKED_OF_STATEMENTS: Final = frozenset({"execute", "execute_with_approval", row_limits.UNLIMITED})
_ACTIONS: Final = _ASKED_OF_STATEMENTS | {"connect", "replicate", "see_clear", "classify"}
# Below which kinds of resource others are, and how many names their ids have.
_PARTS: Final = {"Target": 1, "Schema": 2, "Table": 3, "Function": 3, "Column": 4}
_WORDS: Final[dict[str, frozenset[str]]] = {
    "access": frozenset({"read", "write"}),
    "actor_type": frozenset({"person", "service", "agent"}),
    "risk": frozenset(RISKS),
    "weekday": frozenset(
        ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
    ),
    "ddl": frozenset(
        ("create", "alter", "drop", "truncate", "grant", "role", "extension", "system", "comment",
         "maintenance", "temporary", "classify")
    ),
}  # fmt: skip
_COMPARING: Final = ("==", "!=", "contains", "containsAll", "containsAny", "in")
_TRUE: Final = {"Value": True}
_FALSE: Final = {"Value": False}


class Finding(msgspec.Struct, frozen=True, order=True):
    """Something wrong, and where."""

    file: str
    line: int
    level: str
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.level}: {self.text}"


class Known(msgspec.Struct, frozen=True):
    """What there is besides the policies: targets, and the classified columns of each."""

    targets: Mapping[str, frozenset[str]]


@dataclass(frozen=True, slots=True)
class _Policy:
    """A policy that parses, in Cedar's JSON form."""

    piece: Piece
    name: str
    document: Mapping[str, Any]

    @property
    def effect(self) -> str:
        return str(self.document["effect"])

    @property
    def actions(self) -> frozenset[str]:
        action = self.document["action"]
        match action["op"]:
            case "==":
                return frozenset({str(action["entity"]["id"])})
            case "in":
                given = action.get("entities") or [action["entity"]]
                return frozenset(str(entity["id"]) for entity in given)
            case _:
                return _ACTIONS

    @property
    def conditions(self) -> frozenset[str]:
        """Each in a text, without those that always hold."""
        return frozenset(
            json.dumps(condition, sort_keys=True)
            for condition in self.document["conditions"]
            if (condition["kind"], condition["body"]) not in (("when", _TRUE), ("unless", _FALSE))
        )

    def says(self, level: str, text: str, line: int = 0) -> Finding:
        who = f"{self.name}: " if self.name else ""
        return Finding(self.piece.file, line or self.piece.line, level, who + text)


def findings(files: Iterable[tuple[str, str]], known: Known | None = None) -> list[Finding]:
    """What is wrong with these (file name, text), in their order. Without `known` nothing is said
    of targets and columns.
    """
    found: list[Finding] = []
    policies: list[_Policy] = []
    for file, text in sorted(files):
        for piece in pieces(file, text):
            policy = _read(piece, found)
            if policy is not None:
                policies.append(policy)
                found += _of_one(policy, known)
    found += _names(policies)
    found += _unreachable(policies)
    return sorted(set(found))


def errors(found: Iterable[Finding]) -> list[Finding]:
    """Those that make a set unusable."""
    return [finding for finding in found if finding.level == ERROR]


def _read(piece: Piece, found: list[Finding]) -> _Policy | None:
    try:
        document = json.loads(cedarpy.policies_to_json_str(piece.text))
    except ValueError as error:
        words = plain(str(error))
        found.append(Finding(piece.file, piece.line_of(words), ERROR, words))
        return None
    if document.get("templates"):
        text = "a template is never linked, so that it says nothing"
        found.append(Finding(piece.file, piece.line, ERROR, text))
        return None
    given = list(document["staticPolicies"].values())
    if len(given) != 1:
        found.append(Finding(piece.file, piece.line, ERROR, "a policy was expected"))
        return None
    name = str((given[0].get("annotations") or {}).get("id") or "")
    return _Policy(piece, name, given[0])


def _of_one(policy: _Policy, known: Known | None) -> Iterator[Finding]:
    piece = policy.piece
    if not policy.name:
        yield policy.says(ERROR, "every policy needs an @id of its own")
    for words in schema.problems(piece.text):
        yield policy.says(ERROR, plain(words), piece.line_of(words))
    notes = policy.document.get("annotations") or {}
    for note in sorted(notes.keys() - _NOTES):
        yield policy.says(WARNING, f"@{note} has no meaning here", piece.line_of(f"`@{note}`"))
    if "unknown" in notes and (notes["unknown"] != "permitted" or policy.effect == "forbid"):
        line = piece.line_of("`@unknown`")
        yield policy.says(ERROR, '@unknown is "permitted", on a permit', line)
    wrong = row_limits.problem(policy.document)
    if wrong:
        yield policy.says(ERROR, wrong, piece.line_of("`@max_rows`"))
    if policy.effect == "permit" and policy.actions == {row_limits.UNLIMITED}:
        yield policy.says(WARNING, "adds nothing: all may whom no rule forbids it")
    yield from _unknown_estimate(policy)
    if policy.effect == "forbid" and not (notes.get("message") and notes.get("how_to_ask")):
        yield policy.says(WARNING, "say why and whom to ask in @message and @how_to_ask")
    yield from _words(policy)
    if known is not None:
        yield from _entities(policy, known)
    if any(
        (condition["kind"], condition["body"]) in (("when", _FALSE), ("unless", _TRUE))
        for condition in policy.document["conditions"]
    ):
        yield policy.says(ERROR, "its condition never holds")
    elif (
        policy.effect == "permit"
        and policy.actions <= _ASKED_OF_STATEMENTS
        and _kind(policy.document["resource"]) in ("Column", "Function")
    ):
        text = "permits nothing: a statement needs a permit for its target or for its tables"
        yield policy.says(ERROR, text)


def _walk(value: Any) -> Iterator[dict[str, Any]]:
    ahead = [value]
    while ahead:
        one = ahead.pop()
        if isinstance(one, list):
            ahead += one
        elif isinstance(one, dict):
            yield one
            ahead += one.values()


def _words(policy: _Policy) -> Iterator[Finding]:
    """Texts that are compared with what holds only a few words."""
    for node in _walk(policy.document["conditions"]):
        for operator in _COMPARING:
            sides = node.get(operator)
            if not isinstance(sides, dict):
                continue
            for one, other in (("left", "right"), ("right", "left")):
                access = sides.get(one)
                attribute = access.get(".") if isinstance(access, dict) else None
                words = _WORDS.get(attribute["attr"]) if isinstance(attribute, dict) else None
                if words is None:
                    continue
                for word in _texts(sides.get(other)):
                    if word not in words:
                        text = f'"{word}" is never in {attribute["attr"]}'  # type: ignore[index]
                        line = policy.piece.line_of(f'`"{word}"`')
                        yield policy.says(ERROR, text, line)


def _unknown_estimate(policy: _Policy) -> Iterator[Finding]:
    """Rules that let pass what the planner was not asked about."""
    lenient = "when" if policy.effect == "forbid" else "unless"
    has = {"left": {"Var": "context"}, "attr": ATTRIBUTE}
    for condition in policy.document["conditions"]:
        if condition["kind"] != lenient:
            continue
        nodes = list(_walk(condition["body"]))
        negated = [node for node in nodes if (node.get("!") or {}).get("arg") == {"has": has}]
        if any(node.get("has") == has for node in nodes) and not negated:
            text = f"passes what has no {ATTRIBUTE}: say what happens to that, as in"
            text += f" unless {{ context has {ATTRIBUTE} && context.{ATTRIBUTE} <= 1000 }}"
            line = policy.piece.line_of(f"`{ATTRIBUTE}`")
            yield policy.says(WARNING, text, line)


def _texts(value: Any) -> list[str]:
    return [node["Value"] for node in _walk(value) if isinstance(node.get("Value"), str)]


def _entities(policy: _Policy, known: Known) -> Iterator[Finding]:
    for node in _walk(dict(policy.document)):
        kind, name = node.get("type"), node.get("id")
        if not isinstance(kind, str) or not isinstance(name, str) or kind not in _PARTS:
            continue
        line = policy.piece.line_of(f'`"{name}"`')
        parts = [name] if kind == "Target" else parts_of(name)
        if len(parts) != _PARTS[kind]:
            like = {"Schema": "target.schema", "Column": "target.schema.table.column"}
            expected = like.get(kind, "target.schema.name")
            yield policy.says(ERROR, f'{kind}::"{name}" is not written as {expected}', line)
            continue
        if parts[0] not in known.targets:
            yield policy.says(ERROR, f'there is no target "{parts[0]}"', line)
        elif kind == "Column" and policy.actions == {"see_clear"}:
            column = ".".join(parts[1:])
            if column not in known.targets[parts[0]]:
                yield policy.says(WARNING, f"{column} is not classified: all see it clear", line)


def _names(policies: list[_Policy]) -> Iterator[Finding]:
    first: dict[str, _Policy] = {}
    for policy in policies:
        if policy.name:
            before = first.setdefault(policy.name, policy)
            if before is not policy:
                where = f"{before.piece.file}:{before.piece.line}"
                yield policy.says(ERROR, f"has the same @id as the policy at {where}")


# --- rules that others leave nothing to say ---


def _unreachable(policies: list[_Policy]) -> Iterator[Finding]:
    """Only broad rules can cover others: those without a condition, and those with the same."""
    by_condition: dict[frozenset[str], list[_Policy]] = {}
    for policy in policies:
        by_condition.setdefault(policy.conditions, []).append(policy)
    always = by_condition.get(frozenset(), [])
    for policy in policies:
        alike = by_condition[policy.conditions]
        covering = [*always, *(alike if alike is not always else ())]
        yield from _covered(policy, [other for other in covering if other is not policy])


def _covered(policy: _Policy, others: list[_Policy]) -> Iterator[Finding]:
    for other in others:
        if not _covers(other, policy):
            continue
        where = f"{other.name or 'a policy'} ({other.piece.file}:{other.piece.line})"
        if policy.effect == "permit" and other.effect == "forbid":
            yield policy.says(ERROR, f"never permits anything: {where} forbids all of it")
            return
        if not _says(other, policy):
            continue
        if _covers(policy, other) and _says(policy, other) and _place(policy) < _place(other):
            # The same twice: said of the second.
            continue
        yield policy.says(WARNING, f"adds nothing: {where} {other.effect}s all of it already")
        return


def _says(other: _Policy, policy: _Policy) -> bool:
    """Whether `other` says the same of what both speak of."""
    lenient = "unknown" in (policy.document.get("annotations") or {})
    same = "unknown" in (other.document.get("annotations") or {})
    limit, least = (row_limits.limit_of(one.document) for one in (policy, other))
    return (
        policy.effect == other.effect
        and (same or not lenient)
        and (not limit or 0 < least <= limit)
    )


def _place(policy: _Policy) -> tuple[str, int]:
    return policy.piece.file, policy.piece.line


def _covers(other: _Policy, policy: _Policy) -> bool:
    """Whether `other` speaks of everything that `policy` does, conditions apart."""
    if not policy.actions <= other.actions:
        return False
    if not _holds(other.document["principal"], policy.document["principal"]):
        return False
    broad, narrow = other.document["resource"], policy.document["resource"]
    if _holds(broad, narrow):
        return True
    target = _target(broad)
    # A statement is asked for its target as a whole first; and what is `in` a target is below it.
    beneath = broad["op"] == "in" or policy.actions <= _ASKED_OF_STATEMENTS
    forbids = other.effect == "forbid"
    return bool(target) and beneath and (forbids or broad["op"] == "in") and _of(narrow) == target


def _holds(broad: Mapping[str, Any], narrow: Mapping[str, Any]) -> bool:
    """Whether the one constraint holds wherever the other does, by their texts."""
    if broad["op"] == "All" or broad == narrow:
        return True
    entity = broad.get("entity") or (broad.get("in") or {}).get("entity")
    other = narrow.get("entity") or (narrow.get("in") or {}).get("entity")
    match broad["op"]:
        case "in":
            return other is not None and entity == other
        case "is":
            same = broad["entity_type"] == _kind(narrow)
            return same and (entity is None or entity == other)
        case _:
            return False


def _kind(constraint: Mapping[str, Any]) -> str:
    """The type of all resources that it holds for; empty where there may be several."""
    if constraint["op"] == "is":
        return str(constraint["entity_type"])
    return str(constraint["entity"]["type"]) if constraint["op"] == "==" else ""


def _target(constraint: Mapping[str, Any]) -> str:
    entity = constraint.get("entity") or {}
    return str(entity["id"]) if entity.get("type") == "Target" else ""


def _of(constraint: Mapping[str, Any]) -> str:
    """The target that everything it holds for is in."""
    entity = constraint.get("entity") or (constraint.get("in") or {}).get("entity") or {}
    kind = entity.get("type")
    if kind not in _PARTS:
        return ""
    return str(entity["id"]) if kind == "Target" else parts_of(entity["id"])[0]
