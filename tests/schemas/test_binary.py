from __future__ import annotations

import io
from typing import Any

import pytest
from fastavro import parse_schema, schemaless_writer
from hypothesis import example, given
from hypothesis import strategies as st

from schemas import binary, codec
from tests.schemas.events_strategy import LONG, TEXT, values


def by_fastavro(schema: Any, value: Any) -> bytes:
    buffer = io.BytesIO()
    schemaless_writer(buffer, parse_schema(schema), value)
    return buffer.getvalue()


@given(LONG)
@example(-(2**63))
@example(2**63 - 1)
@example(8191)
@example(8192)
@example(16_383)
@example(16_384)
@example(2**20)
def test_long(number: int) -> None:
    assert binary.write_long(number) == by_fastavro("long", number)


@pytest.mark.parametrize("number", [2**63, -(2**63) - 1])
def test_long_refuses_what_has_no_64_bits(number: int) -> None:
    with pytest.raises(ValueError, match="64 bits"):
        binary.write_long(number)


@given(TEXT, st.binary())
def test_string_and_bytes(text: str, data: bytes) -> None:
    assert binary.write_string(text) == by_fastavro("string", text)
    assert binary.write_bytes(data) == by_fastavro("bytes", data)


@pytest.mark.parametrize("kind", codec.CURRENT, ids=lambda kind: kind.__name__)
@given(data=st.data())
def test_every_field_of_every_schema_as_fastavro_writes_it(
    kind: type[Any], data: st.DataObject
) -> None:
    schema = codec.CURRENT[kind]
    record = data.draw(values(schema.rest))
    ours = b"".join(
        write(_as_struct(record[field["name"]], field["type"]))
        for write, field in zip(binary.writers(schema.rest), schema.rest["fields"], strict=True)
    )
    buffer = io.BytesIO()
    schemaless_writer(buffer, schema.rest, record)
    assert ours == buffer.getvalue()


def _as_struct(value: Any, node: Any) -> Any:
    """Nested records are written from structs."""
    if isinstance(node, dict) and node.get("type") == "array":
        return [_as_struct(item, node["items"]) for item in value]
    if isinstance(node, dict) and node.get("type") == "record":
        fields = {field["name"]: field["type"] for field in node["fields"]}
        return type("Struct", (), {name: _as_struct(value[name], fields[name]) for name in fields})
    return value


@pytest.mark.parametrize("data", [b"", bytes(15), bytes(17)])
def test_fixed_refuses_another_length(data: bytes) -> None:
    write = binary.writers(
        {"fields": [{"name": "id", "type": {"type": "fixed", "name": "Id", "size": 16}}]}
    )[0]
    with pytest.raises(ValueError, match="fixed of 16 bytes"):
        write(data)


@pytest.mark.parametrize("node", [["string", "null"], "double", {"type": "enum", "name": "E"}])
def test_types_that_no_event_has_are_refused_when_compiled(node: Any) -> None:
    with pytest.raises(KeyError):
        binary.writers({"fields": [{"name": "x", "type": node}]})
