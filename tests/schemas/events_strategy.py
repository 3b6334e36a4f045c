"""Any value of any event kind, for round trips."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from schemas import codec

LONG = st.integers(-(2**63), 2**63 - 1)
INT = st.integers(-(2**31), 2**31 - 1)
TEXT = st.text(st.characters(codec="utf-8"), max_size=30)


def values(node: Any, fixed: dict[str, int] | None = None) -> st.SearchStrategy[Any]:
    """Values of an Avro type, as fastavro takes them."""
    fixed = {} if fixed is None else fixed
    match node:
        case list():
            return st.one_of([values(branch, fixed) for branch in node])
        case {"type": "record", "fields": fields}:
            members = {field["name"]: values(field["type"], fixed) for field in fields}
            return st.fixed_dictionaries(members)
        case {"type": "array", "items": items}:
            return st.lists(values(items, fixed), max_size=3)
        case {"type": "map", "values": items}:
            return st.dictionaries(TEXT, values(items, fixed), max_size=3)
        case {"type": "fixed", "name": name, "size": size}:
            fixed[name] = size
            return st.binary(min_size=size, max_size=size)
        case {"type": primitive}:
            return values(primitive, fixed)
        case "null":
            return st.none()
        case "int":
            return INT
        case "long":
            return LONG
        case "string":
            return TEXT
        case "bytes":
            return st.binary(max_size=40)
        case "boolean":
            return st.booleans()
        case name:
            return st.binary(min_size=fixed[name], max_size=fixed[name])


def records(kind: type[Any], schema: Any) -> st.SearchStrategy[Any]:
    """Values of one of our structs, drawn from its schema."""
    return values(schema).map(lambda record: codec._typed(record, kind))


KINDS = [kind for kind in codec.CURRENT if codec.CURRENT[kind].fields[0] == "context"]
