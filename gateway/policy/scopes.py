"""Of many policies those that can match at all, by the heads they begin with. Pure.

Cedar looks at every policy of a set. One whose head names another group, person or target cannot
match, and its conditions are not evaluated: leaving it out changes no answer and no error.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from typing import Any, Final

import cedarpy

from gateway.policy.catalog import name_of

Uid = tuple[str, str]

_FEW: Final = 32
_REMEMBERED: Final = 1_000
_PARTS: Final = frozenset({"Schema", "Table", "Column", "Function"})


class Scopes:
    """A policy set, and the parts of it that concern somebody at some target."""

    def __init__(self, whole: Any, document: dict[str, Any]) -> None:
        self._whole = whole
        self._policies: dict[str, dict[str, Any]] = document.get("staticPolicies", {})
        self._few = len(self._policies) <= _FEW or bool(document.get("templates"))
        self._known: OrderedDict[tuple[frozenset[Uid], str], Any] = OrderedDict()

    def concerning(self, principals: frozenset[Uid], target: str) -> Any:
        """Cedar's set of what concerns one who is all of `principals`, at this target."""
        if self._few:
            return self._whole
        key = (principals, target)
        known = self._known.get(key)
        if known is None:
            prefix = name_of(target) + "."
            chosen = {
                name: policy
                for name, policy in self._policies.items()
                if _principal(policy.get("principal", {}), principals)
                and _resource(policy.get("resource", {}), target, prefix)
            }
            document = {"staticPolicies": chosen, "templates": {}, "templateLinks": []}
            known = cedarpy.PolicySet.from_json_str(json.dumps(document))
            self._known[key] = known
            if len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        return known


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


def _resource(head: dict[str, Any], target: str, prefix: str) -> bool:
    entity = _entity(head)
    if entity is None:
        return True
    kind, name = entity
    if kind == "Target":
        return name == target
    return kind not in _PARTS or name.startswith(prefix)
