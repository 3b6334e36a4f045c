"""Of many policies those that can match at all, by their heads and first conditions. Pure.

Cedar looks at every policy of a set. One whose head names another group, person, target or action
cannot match, and its conditions are not evaluated. Nor can one whose condition begins with a test
of the context that fails, and nothing behind that is evaluated: to leave either out changes no
answer and no error. Where such a test would be an error (its attribute is absent, or no set), all
are asked. The rest is asked in parts, whose answers are put together as Cedar would.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from typing import Any, Final

import cedarpy

from gateway.policy.catalog import name_of

Uid = tuple[str, str]
Test = tuple[str, str, str]
"""("in", attribute, a value that the set must have or "" for any), ("is", attribute, its value), or
("who", "", type of the principal).
"""

_FEW: Final = 32
_REMEMBERED: Final = 1_000
_MOST_HELD: Final = 200_000
# To ask about one more set takes as long as this many more policies in one.
_SET_COSTS: Final = 30
_PARTS: Final = frozenset({"Schema", "Table", "Column", "Function"})
_ANY: Final = ""
_CONTEXT: Final = {"Var": "context"}
_PRINCIPAL: Final = {"Var": "principal"}


class Concerned:
    """The policies that concern somebody who does something at some target, in parts."""

    def __init__(self, chosen: dict[str, dict[str, Any]], whole: Any = None) -> None:
        self._chosen = chosen
        self._sets: dict[Test | None, Any] = {}
        self._whole = whole
        self._rest: dict[str, dict[str, Any]] = {}
        self._led: dict[Test, dict[str, dict[str, Any]]] = {}
        self._attributes: set[tuple[str, str]] = set()
        for name, policy in chosen.items():
            tests = first_tests(policy) if whole is None else None
            if tests is None:
                self._rest[name] = policy
                continue
            self._attributes.update(test[:2] for test in tests)
            for test in tests:
                self._led.setdefault(test, {})[name] = policy

    def __len__(self) -> int:
        return len(self._chosen)

    def sets(self, principal: str, context: dict[str, Any]) -> list[Any]:
        """Cedar's sets that hold every policy that can match, or fail, for a principal of this
        type in this context.
        """
        tests = self._passed(principal, context)
        if tests is None:
            return [self._all()]
        asked = sum(_SET_COSTS + len(self._led[test]) for test in tests)
        if asked + len(self._rest) >= len(self._chosen):
            return [self._all()]
        return [self._set(None, self._rest), *(self._set(each, self._led[each]) for each in tests)]

    def _passed(self, principal: str, context: dict[str, Any]) -> list[Test] | None:
        """The tests that do not fail; None where some cannot be made."""
        passed: set[Test] = set()
        for kind, attribute in self._attributes:
            if kind == "who":
                passed.add((kind, attribute, principal))
                continue
            value = context.get(attribute)
            if attribute not in context or (kind == "in" and not isinstance(value, list)):
                return None
            if kind == "is":
                passed |= {(kind, attribute, value)} if isinstance(value, str) else set()
            elif value:
                passed.update((kind, attribute, v) for v in value if isinstance(v, str))
                passed.add((kind, attribute, _ANY))
        return [test for test in passed if test in self._led]

    def _all(self) -> Any:
        if self._whole is None:
            self._whole = _parsed(self._chosen)
        return self._whole

    def _set(self, test: Test | None, policies: dict[str, dict[str, Any]]) -> Any:
        known = self._sets.get(test)
        if known is None:
            known = self._sets[test] = _parsed(policies)
        return known


class Scopes:
    """A policy set, and the parts of it that concern somebody at some target."""

    def __init__(self, whole: Any, document: dict[str, Any]) -> None:
        self._policies: dict[str, dict[str, Any]] = document.get("staticPolicies", {})
        few = len(self._policies) <= _FEW or bool(document.get("templates"))
        self._whole = Concerned(self._policies, whole) if few else None
        self._known: OrderedDict[tuple[frozenset[Uid], str, str], Concerned] = OrderedDict()
        self._held = 0

    def concerning(self, principals: frozenset[Uid], target: str, action: str) -> Concerned:
        """What concerns one who is all of `principals`, and does this at this target."""
        if self._whole is not None:
            return self._whole
        key = (principals, target, action)
        known = self._known.get(key)
        if known is None:
            prefix = name_of(target) + "."
            known = self._known[key] = Concerned(
                {
                    name: policy
                    for name, policy in self._policies.items()
                    if _principal(policy.get("principal", {}), principals)
                    and _resource(policy.get("resource", {}), target, prefix)
                    and _action(policy.get("action", {}), action)
                }
            )
            self._held += len(known)
            while len(self._known) > _REMEMBERED or (
                self._held > _MOST_HELD and len(self._known) > 1
            ):
                self._held -= len(self._known.popitem(last=False)[1])
        return known


def first_tests(policy: dict[str, Any]) -> frozenset[Test] | None:
    """Tests of which one must pass for the policy to match, and which are made before anything
    else in its conditions; None where it does not begin with such.
    """
    conditions = policy.get("conditions") or [{}]
    first = conditions[0]
    return _tests(first.get("body")) if first.get("kind") == "when" else None


def _tests(body: Any) -> frozenset[Test] | None:
    if not isinstance(body, dict) or len(body) != 1:
        return None
    ((operator, given),) = body.items()
    match operator:
        case "&&":
            return _tests(given["left"])
        case "||":
            left, right = _tests(given["left"]), _tests(given["right"])
            return None if left is None or right is None else left | right
        case "!":
            attribute = _attribute(given["arg"].get("isEmpty", {}).get("arg"))
            return frozenset({("in", attribute, _ANY)}) if attribute else None
        case "is" if given.get("left") == _PRINCIPAL and "in" not in given:
            return frozenset({("who", "", str(given["entity_type"]))})
        case "==" | "contains" | "containsAny":
            attribute, values = _attribute(given["left"]), _values(operator, given["right"])
            kind = "is" if operator == "==" else "in"
            if not attribute or values is None:
                return None
            return frozenset((kind, attribute, value) for value in values)
    return None


def _attribute(expression: Any) -> str:
    """The name of the context's attribute that it is; empty for anything else."""
    access = expression.get(".") if isinstance(expression, dict) else None
    if not isinstance(access, dict) or access.get("left") != _CONTEXT:
        return ""
    return str(access.get("attr", ""))


def _values(operator: str, expression: Any) -> list[str] | None:
    """The texts that are compared with; None where it is anything else."""
    if not isinstance(expression, dict):
        return None
    listed = expression.get("Set") if operator == "containsAny" else [expression]
    if not isinstance(listed, list):
        return None
    given = [each.get("Value") if isinstance(each, dict) else None for each in listed]
    # An empty one would be taken for any. None at all never matches, but may be an error.
    values = [value for value in given if isinstance(value, str) and value]
    return values if values and len(values) == len(given) else None


def _parsed(policies: dict[str, dict[str, Any]]) -> Any:
    document = {"staticPolicies": policies, "templates": {}, "templateLinks": []}
    return cedarpy.PolicySet.from_json_str(json.dumps(document))


def _entity(head: dict[str, Any]) -> Uid | None:
    """The entity that a head compares with; None where it is no plain one."""
    within = head.get("in") or head
    entity = within.get("entity") if isinstance(within, dict) else None
    if not isinstance(entity, dict) or "type" not in entity or "id" not in entity:
        return None
    return str(entity["type"]), str(entity["id"])


def _principal(head: dict[str, Any], principals: frozenset[Uid]) -> bool:
    entity = _entity(head)
    return entity is None or entity in principals


def _action(head: dict[str, Any], action: str) -> bool:
    # An action may be in another: only what is equal is told apart.
    return head.get("op") != "==" or _entity(head) == ("Action", action)


def _resource(head: dict[str, Any], target: str, prefix: str) -> bool:
    entity = _entity(head)
    if entity is None:
        return True
    kind, name = entity
    if kind == "Target":
        return name == target
    return kind not in _PARTS or name.startswith(prefix)
