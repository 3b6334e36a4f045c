"""Why a request was decided as it was, and what would have to be otherwise. Pure.

Each rule is tried alone, part by part, with the same Cedar that decides.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

import cedarpy
import msgspec

from gateway.machine import Decision, Verdict
from gateway.policy.decide import Policies, PolicyError
from gateway.policy.source import Piece, pieces

_ALL: Final = {"op": "All"}
# Cedar writes (context.ddl).contains("drop").
_NEEDLESS: Final = re.compile(r"(?<!\w)\(([\w.]+)\)")
_PERMIT: Final = {"id": "tried", "unknown": "permitted"}

Ask = Callable[[Policies], Decision]
"""The request, asked of some policies."""


class Rule(msgspec.Struct, frozen=True):
    """A rule, where it is, and which of its parts do not hold for the request."""

    name: str
    file: str
    line: int
    effect: str
    fails: tuple[str, ...]


class Explanation(msgspec.Struct, frozen=True):
    """A decision, the rules that made it, and the permits that came close, closest first.

    `otherwise` is the decision if no rule forbade anything.
    """

    decision: Decision
    deciding: tuple[Rule, ...]
    permits: tuple[Rule, ...]
    otherwise: Decision | None


def explain(files: Iterable[tuple[str, str]], ask: Ask) -> Explanation:
    """Of a set that can be used. Raises PolicyError."""
    given = sorted(files)
    decision = ask(Policies(given))
    rules = [
        (piece, document)
        for name, text in given
        for piece in pieces(name, text)
        for document in _documents(piece.text)
    ]
    deciding = tuple(
        _rule(piece, document, ())
        for piece, document in rules
        if _name(document) in decision.policies
    )
    if decision.verdict is Verdict.ALLOW:
        return Explanation(decision, deciding, (), None)
    permits = [
        _rule(piece, document, tuple(_failing(document, ask)))
        for piece, document in rules
        if document["effect"] == "permit" and _may_act(document, ask)
    ]
    permits.sort(key=lambda rule: len(rule.fails))
    otherwise = None
    if any(rule.effect == "forbid" for rule in deciding):
        left = [piece.text for piece, document in rules if document["effect"] == "permit"]
        otherwise = ask(Policies([("permits.cedar", "\n".join(left))]))
    return Explanation(decision, deciding, tuple(permits), otherwise)


def _documents(text: str) -> Iterator[dict[str, Any]]:
    try:
        yield from json.loads(cedarpy.policies_to_json_str(text))["staticPolicies"].values()
    except ValueError as error:
        raise PolicyError(str(error)) from None


def _name(document: Mapping[str, Any]) -> str:
    return str((document.get("annotations") or {}).get("id") or "")


def _rule(piece: Piece, document: Mapping[str, Any], fails: tuple[str, ...]) -> Rule:
    return Rule(_name(document), piece.file, piece.line, str(document["effect"]), fails)


def _try(parts: Mapping[str, Any], ask: Ask) -> bool:
    """Whether a permit of these parts alone would permit the request."""
    policy = {
        "effect": "permit",
        "principal": _ALL,
        "action": _ALL,
        "resource": _ALL,
        "conditions": [],
        **parts,
        "annotations": _PERMIT,
    }
    return ask(Policies([("tried.cedar", _text(policy))])).verdict is Verdict.ALLOW


def _text(policy: Mapping[str, Any]) -> str:
    whole = {"staticPolicies": {"tried": policy}, "templates": {}, "templateLinks": []}
    return str(cedarpy.policies_from_json_str(json.dumps(whole)))


def _may_act(document: Mapping[str, Any], ask: Ask) -> bool:
    return _try({"action": document["action"]}, ask)


def _failing(document: Mapping[str, Any], ask: Ask) -> Iterator[str]:
    resource = document["resource"]
    for part in ("principal", "resource"):
        if not _try({part: document[part]}, ask):
            if part == "resource":
                resource = _ALL
            yield _scope(document, part)
    for condition in document["conditions"]:
        for body in _conjuncts(condition):
            alone = {"kind": condition["kind"], "body": body}
            if not _try({"resource": resource, "conditions": [alone]}, ask):
                yield _condition(alone)


def _conjuncts(condition: Mapping[str, Any]) -> Iterator[Any]:
    """What must hold each: of `when` the parts joined by &&, of `unless` those by ||."""
    joint = "&&" if condition["kind"] == "when" else "||"
    ahead = [condition["body"]]
    while ahead:
        one = ahead.pop()
        if isinstance(one, dict) and joint in one:
            ahead += [one[joint]["right"], one[joint]["left"]]
        else:
            yield one


def _scope(document: Mapping[str, Any], part: str) -> str:
    constraint = document[part]
    entity = constraint.get("entity") or (constraint.get("in") or {}).get("entity")
    words = [part, constraint["op"]]
    if constraint["op"] == "is":
        words.append(constraint["entity_type"])
        words += ["in"] if entity else []
    if entity:
        words.append(f"{entity['type']}::{json.dumps(entity['id'], ensure_ascii=False)}")
    return " ".join(words)


def _condition(condition: Mapping[str, Any]) -> str:
    policy = {"effect": "permit", "principal": _ALL, "action": _ALL, "resource": _ALL}
    text = _text({**policy, "conditions": [condition], "annotations": {}})
    _, brace, rest = text.partition("{")
    body = " ".join(rest.rpartition("}")[0].split()) if brace else text
    return f"{condition['kind']} " + _NEEDLESS.sub(r"\1", body)
