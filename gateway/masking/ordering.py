"""In whose order rows come that nobody sorted.

A scan of an index returns rows in the index's order. Where that is also by a hidden column, the
order of rows tells the order of hidden values: of `unique (tenant, email)` those of one tenant come
by address. Settings of the session leave the planner scans in the order of storage (bitmaps of an
index, or the whole table), and must then stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from gateway.masking.hidden import Column, Mask, Scans

_TELLING_NOTHING: Final = frozenset({"full", "null", "literal"})
_PRICES: Final = frozenset(
    {"seq_page_cost", "random_page_cost", "cpu_tuple_cost", "cpu_index_tuple_cost",
     "cpu_operator_cost", "parallel_setup_cost", "parallel_tuple_cost"}
)  # fmt: skip
_SETTINGS: Final[Mapping[Scans, Mapping[str, str]]] = {
    "any": {},
    "not alone": {"enable_indexonlyscan": "off"},
    # A hint in a comment would have the last word, where that extension is loaded.
    "none": {
        "enable_indexscan": "off",
        "enable_indexonlyscan": "off",
        "pg_hint_plan.enable_hint": "off",
    },
}

Index = tuple[int, tuple[int, ...], tuple[int, ...]]
"""(relation OID, numbers of the columns in whose order it is, and of those it depends on beside)"""


def settings(scans: Scans) -> Mapping[str, str]:
    """With which settings a session must begin so that no other scans are made."""
    return _SETTINGS[scans]


def fixed(scans: Scans, name: str) -> bool:
    """Whether a setting must not be changed within such a session.

    Plans that are `off` are possible where every other is, too, or costs more than they.
    """
    name = name.lower()
    if scans == "none":
        return name.startswith("enable_") or name in _PRICES
    return name in _SETTINGS[scans]


def scans(indexes: Iterable[Index], columns: Mapping[int, Sequence[Column]]) -> Scans:
    """Which scans of indexes tell no order of what is hidden among a relation's `columns`."""
    found: Scans = "any"
    for oid, ordering, others in indexes:
        by = [column for column in columns.get(oid, ()) if column.number in ordering]
        beside = [column for column in columns.get(oid, ()) if column.number in others]
        hidden = [column.mask for column in by if column.mask is not None]
        if not hidden:
            continue
        several = len(by) + len(beside) > 1
        if any(each.mask is None or (several and each.mask.equality) for each in (*by, *beside)):
            # What shows, or may be compared, leads to rows whose order is of what is hidden.
            return "none"
        if any(map(_tells, hidden)):
            # Nothing leads to it but that it is smaller than the table.
            found = "not alone"
    return found


def _tells(mask: Mask) -> bool:
    """Whether the masks of two values may differ."""
    return mask.name not in _TELLING_NOTHING or bool(mask.parts)
