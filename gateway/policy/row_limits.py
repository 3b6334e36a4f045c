"""How many rows a rule lets a statement return: its `@max_rows`. Pure.

    @max_rows("1000") forbid (principal, action == Action::"unlimited_rows", resource);
    @max_rows("50") permit (principal in Group::"interns", action == Action::"execute", resource);

The forbid limits whoever it speaks of, whatever permits them; the permit those it permits.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

UNLIMITED: Final = "unlimited_rows"
"""The action that is asked of what may be executed: whoever is forbidden it, is limited."""
NOTE: Final = "max_rows"

_NUMBER: Final = re.compile(r"[1-9][0-9]{0,17}", re.ASCII)


def limit_of(policy: Mapping[str, Any]) -> int:
    """The limit of a policy in Cedar's JSON form; 0 where it states none."""
    stated = _stated(policy)
    return int(stated) if stated is not None and _NUMBER.fullmatch(stated) else 0


def problem(policy: Mapping[str, Any]) -> str:
    """What is wrong with what a policy says of limits; empty where nothing is."""
    stated, named = _stated(policy), _actions(policy)
    if stated is None:
        # Without a number nobody could say where such a rule ends a statement.
        return f'a rule for "{UNLIMITED}" needs a @max_rows' if named == {UNLIMITED} else ""
    if not _NUMBER.fullmatch(stated):
        return "@max_rows is a whole number from 1, without signs, blanks or points"
    limits = (
        named == {UNLIMITED}
        if policy["effect"] == "forbid"
        else named is None or "execute" in named
    )
    return "" if limits else f'@max_rows goes on a permit to execute or a forbid of "{UNLIMITED}"'


def _stated(policy: Mapping[str, Any]) -> str | None:
    notes = policy.get("annotations") or {}
    return (notes[NOTE] or "") if NOTE in notes else None


def _actions(policy: Mapping[str, Any]) -> set[str] | None:
    """The actions it names; None where it speaks of all."""
    action = policy["action"]
    if action["op"] == "==":
        return {str(action["entity"]["id"])}
    if action["op"] == "in":
        given = action.get("entities") or [action["entity"]]
        return {str(entity["id"]) for entity in given}
    return None
