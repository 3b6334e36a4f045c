"""What a statement compares with a hidden column in clear, where its class permits equality.

Each comparison tells whether a value is there. So that nobody tries a whole dictionary, distinct
values are counted; the same text must therefore mean the same value every time. A constant counts
as one only where no setting has a say in it: `'2000-01-01'` is another moment in every time zone,
`'people'::regclass` another number for every table of that name.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from gateway.masking.hidden import TEXT, Column, Relation
from gateway.masking.tree import Reading, strings

_NUMBERS: Final = frozenset({"int2", "int4", "int8", "float4", "float8", "numeric"})
_STEADY: Final = TEXT | _NUMBERS | {"uuid", "bool"}
"""Types whose values are the same whatever is set."""
_CASTS: Final = frozenset({"text", "varchar", "bpchar", "uuid", "bool"}) | _NUMBERS
_STEADY_OIDS: Final = frozenset({0, 16, 19, 20, 21, 23, 25, 700, 701, 705, 1042, 1043, 1700, 2950})
"""Of those types, and of what the server is left to find out."""


@dataclass(frozen=True, slots=True)
class Probe:
    """A comparison of the values of `origin`, schema.table.column, with a constant: as it is
    `written`, or with the value of a `parameter`. 0: of none.
    """

    origin: str
    reason: str
    budget: int
    written: str
    parameter: int = 0


@dataclass(frozen=True, slots=True)
class Tried:
    """A value that a statement compares; `value` is a spelling of it, and no more shown than it."""

    origin: str
    reason: str
    budget: int
    value: bytes

    def __repr__(self) -> str:
        return f"Tried({self.origin!r})"


class TooMany(Exception):
    """A statement writes out more values than a column's budget."""


def beyond(origin: str, budget: int) -> str:
    """Why no more of a column's values may be looked up, for people."""
    return f"at most {budget} distinct values of {origin} may be looked up in an hour"


def probes_of(
    reading: Reading, relations: Iterable[Relation], prepares: bool
) -> tuple[tuple[Probe, ...], list[tuple[str, ...]]]:
    """What may be compared in clear, and the columns of comparisons that may not.

    `prepares`: its parameters' values will not be known. Raises TooMany.
    """
    columns: dict[str, list[Column]] = {}
    for relation in relations:
        for column in relation.columns:
            if column.mask is not None:
                columns.setdefault(column.name, []).append(column)
    probes: dict[Probe, None] = {}
    literals: dict[str, set[str]] = {}
    others = []
    for path, constants in reading.equalities:
        permitted = [
            (column.mask.origin, column.mask.equality)
            for column in columns.get(path[-1], [])
            if column.mask is not None and column.type in _STEADY
        ]
        spelled = None
        if permitted and len(permitted) == len(columns[path[-1]]):
            limits = [(origin, each.budget) for origin, each in permitted if each is not None]
            if len(limits) == len(permitted):
                spelled = _spelled(constants, reading, prepares, limits, literals)
        if spelled is None:
            others.append(path)
            continue
        for origin, equality in permitted:
            assert equality is not None  # noqa: S101 (narrowing)
            for each in spelled:
                probes[Probe(origin, equality.reason, equality.budget, *each)] = None
    return tuple(probes), others


def _spelled(
    constants: Iterable[Any],
    reading: Reading,
    prepares: bool,
    limits: list[tuple[str, int]],
    literals: dict[str, set[str]],
) -> Iterable[tuple[str, int]] | None:
    """Each way in which they are written, once; None where one may mean more values than one.
    `limits` are columns and their budgets, `literals` what was written for each.

    Nobody waits for the end of a list that is refused in any case: it may have a million. Raises
    TooMany.
    """
    found: dict[tuple[str, int], None] = {}
    for each in constants:
        spelled = _constant(each, reading, prepares)
        if spelled is None:
            return None
        found[spelled] = None
        if not spelled[1]:
            for origin, budget in limits:
                written = literals.setdefault(origin, set())
                written.add(spelled[0])
                if len(written) > budget:
                    raise TooMany(beyond(origin, budget))
    return found


def _constant(node: Any, reading: Reading, prepares: bool) -> tuple[str, int] | None:
    """How it is written, and its number if it is a parameter. None where it may mean more values
    than one.
    """
    cast: Any = None
    if "TypeCast" in node:
        cast = node["TypeCast"]["typeName"]
        names = strings(cast.get("names", []))
        if names[-1] not in _CASTS or names[:-1] not in ((), ("pg_catalog",)):
            return None
        if cast.get("arrayBounds"):
            return None
        cast = [
            names[-1],
            [each.get("A_Const", {}).get("ival") for each in cast.get("typmods", [])],
        ]
        node = node["TypeCast"]["arg"]
    if "A_Const" in node:
        value = {key: each for key, each in node["A_Const"].items() if key != "location"}
        return json.dumps([value, cast], sort_keys=True), 0
    number = node.get("ParamRef", {}).get("number", 0)
    # Elsewhere it may be given a type that reads its text by some setting.
    if not number or prepares or reading.parameters[number] != 1:
        return None
    return json.dumps(cast), number


def tried(
    probes: Sequence[Probe],
    parameters: Sequence[tuple[int, int, bytes | None]] | None,
    encoding: str,
) -> tuple[Tried, ...] | None:
    """The values that a statement compares, given those of its parameters as (type OID, format,
    value), or None where it has none. None where they cannot be told. In another `encoding` of the
    client the same bytes are another value.
    """
    found: dict[Tried, None] = {}
    for probe in probes:
        value = probe.written.encode()
        if probe.parameter:
            if parameters is None:
                return None
            if probe.parameter > len(parameters):
                # The target refuses it.
                continue
            oid, form, given = parameters[probe.parameter - 1]
            if given is None:
                continue
            if oid not in _STEADY_OIDS:
                return None
            value += b"\0%d\0%d\0%s\0" % (oid, form, encoding.encode()) + given
        found[Tried(probe.origin, probe.reason, probe.budget, value)] = None
    return tuple(found)
