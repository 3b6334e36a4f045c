"""Avro encoding and strict decoding.

A schema's text is its `.avsc` with the named types it uses written out in place; its SHA-256
names it everywhere. Hashing the full text matters: Avro's parsing canonical form drops logical
types, so that milliseconds and microseconds would share a fingerprint.

Every event begins with its session's `context`. It is encoded once per session and reused as
bytes; a decoder recognises those bytes and decodes only the rest.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections import OrderedDict
from dataclasses import dataclass
from functools import cache
from importlib import resources
from operator import attrgetter
from typing import Any, Final, TypeVar

import msgspec
from fastavro import parse_schema, schemaless_reader

from schemas import binary, events
from schemas.events import (
    Context,
    Control,
    Event,
    KeyWraps,
    Masked,
    Original,
    TargetClassification,
)

T = TypeVar("T")

MAGIC: Final = b"GB\x01"
"""Begins every framed record: magic, the writer schema's SHA-256, Avro binary."""


class CodecError(Exception):
    """Bytes that are not exactly what their schema says. The text names no content."""


class UnknownSchema(CodecError):
    """The writer's schema is not in the archive (yet): read topic gatebook.schemas and retry."""

    def __init__(self, sha256: bytes) -> None:
        super().__init__(f"unknown schema {sha256.hex()}")
        self.sha256 = sha256


@dataclass(frozen=True, slots=True)
class Schema:
    """A record schema. `rest` is it without `context`, which is as we write it where it is
    `familiar`; `original` is what its box holds.
    """

    name: str
    text: str
    sha256: bytes
    parsed: Any
    rest: Any
    fields: tuple[str, ...]
    original: Any
    familiar: bool


def _inline(node: Any, seen: set[str]) -> Any:
    """Write each `gatebook.X` reference out in full where it is first used, as Avro requires."""
    if isinstance(node, str):
        name = node.removeprefix("gatebook.")
        if name == node or name in seen:
            return node
        return _inline(json.loads(_avsc(name)), seen)
    if isinstance(node, list):
        return [_inline(branch, seen) for branch in node]
    if isinstance(node, dict):
        if node.get("type") in ("record", "fixed"):
            seen.add(node["name"])
        result = dict(node)
        for key in ("type", "items", "values"):
            if key in result:
                result[key] = _inline(result[key], seen)
        if "fields" in result:
            result["fields"] = [_inline(field, seen) for field in result["fields"]]
        return result
    return node


def _avsc(name: str) -> str:
    return resources.files("schemas").joinpath("avro", f"{name}.avsc").read_text()


def _without_logical_types(node: Any) -> Any:
    """The same binary form, read as plain integers: conversions to datetime cost microseconds."""
    if isinstance(node, dict):
        return {k: _without_logical_types(v) for k, v in node.items() if k != "logicalType"}
    if isinstance(node, list):
        return [_without_logical_types(branch) for branch in node]
    return node


def parse(text: str) -> Schema:
    """A schema from its full text. Raises CodecError when it is not a record schema."""
    try:
        document = json.loads(text)
        plain = _without_logical_types(document)
        fields = plain["fields"]
        has_context = bool(fields) and fields[0]["name"] == "context"
        rest = dict(plain, fields=_standalone(plain, fields[1:])) if has_context else plain
        original = next((f["original"] for f in fields if "original" in f), None)
        # With the mark that fastavro leaves on what it has parsed: without, it would parse a schema
        # anew for every record.
        return Schema(
            name=plain["name"],
            text=text,
            sha256=hashlib.sha256(text.encode()).digest(),
            parsed=parse_schema(plain),
            rest=parse_schema(rest),
            fields=tuple(f["name"] for f in fields),
            original=parse_schema(original) if original else None,
            familiar=has_context and document["fields"][0]["type"] == _CONTEXT,
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CodecError(f"not a record schema: {type(error).__name__}") from None


_CONTEXT: Final = _inline(json.loads(_avsc("Context")), set())


def _standalone(record: Any, fields: list[Any]) -> list[Any]:
    """`fields` with the named types written out that `context` had defined before them."""
    known: dict[str, Any] = {}

    def collect(node: Any) -> None:
        if isinstance(node, dict):
            if node.get("type") in ("record", "fixed") and "name" in node:
                known[f"{node.get('namespace', record.get('namespace'))}.{node['name']}"] = node
            for value in node.values():
                collect(value)
        elif isinstance(node, list):
            for value in node:
                collect(value)

    collect(record["fields"][0])
    written: set[str] = set()

    def write(node: Any) -> Any:
        if isinstance(node, str) and node in known and node not in written:
            written.add(node)
            return known[node]
        if isinstance(node, list):
            return [write(branch) for branch in node]
        if isinstance(node, dict):
            return {k: write(v) if k in ("type", "items", "values") else v for k, v in node.items()}
        return node

    return [write(field) for field in fields]


def load(name: str) -> Schema:
    """The current schema of that name, from schemas/avro."""
    return parse(json.dumps(_inline(json.loads(_avsc(name)), set()), separators=(",", ":")))


@cache
def _earlier() -> dict[bytes, Schema]:
    """Schemas that are not current any more, from schemas/avro/earlier.

    During an upgrade a sink reads what the version before it wrote, and what the vault holds is
    read for years, by whom no topic gives its schema.
    """
    folder = resources.files("schemas").joinpath("avro", "earlier")
    schemas = [parse(file.read_text()) for file in folder.iterdir() if file.name.endswith(".avsc")]
    return {schema.sha256: schema for schema in schemas}


def _read(schema: Any, data: bytes, start: int = 0) -> dict[str, Any]:
    buffer = io.BytesIO(data)
    buffer.seek(start)
    try:
        record: Any = schemaless_reader(buffer, schema, None)
    # fastavro raises whatever its input provokes: EOFError, IndexError, MemoryError, ...
    except Exception as error:
        raise CodecError(f"not {schema['name']}: {type(error).__name__}") from None
    if buffer.tell() != len(data):
        raise CodecError(f"{len(data) - buffer.tell()} trailing bytes after {schema['name']}")
    if not isinstance(record, dict):
        raise CodecError(f"{schema['name']} is not a record")
    return record


def _typed(record: dict[str, Any], kind: type[T]) -> T:
    """Into our struct: unknown fields and wrong types are errors, absent ones take defaults."""
    try:
        return msgspec.convert(record, kind, builtin_types=(bytes,))
    except msgspec.ValidationError as error:
        raise CodecError(f"{kind.__name__}: {error}") from None


_FRAMED: Final[tuple[type[Any], ...]] = (Masked, KeyWraps, Control, TargetClassification)
CURRENT: Final[dict[type[Any], Schema]] = {
    kind: load(kind.__name__) for kind in (*events.KINDS, *_FRAMED)
}
_BY_NAME: Final = {schema.name: kind for kind, schema in CURRENT.items()}
_REST: Final[dict[type[Any], Any]] = {
    kind: (attrgetter(*schema.fields[1:]), binary.writers(schema.rest))
    for kind, schema in CURRENT.items()
    if schema.fields[0] == "context"
}
_ORIGINAL_KIND: Final[dict[str, type[Any]]] = {
    kind.__name__: original for kind, original in events.ORIGINALS.items()
}
_CONTEXT_WRITER: Final = binary.writer(load("Context").parsed)
_WRAPS_WRITER: Final = binary.writer(CURRENT[KeyWraps].parsed)
_CONTROL_WRITER: Final = binary.writer(CURRENT[Control].parsed)
_CLASSIFICATION_WRITER: Final = binary.writer(CURRENT[TargetClassification].parsed)
_ORIGINAL_WRITER: Final = {
    original: binary.writer(CURRENT[kind].original) for kind, original in events.ORIGINALS.items()
}


def encode_context(context: Context) -> bytes:
    """Bytes to reuse for every event of a session."""
    return _CONTEXT_WRITER(context)


def encode(event: Event | Masked, context: bytes) -> bytes:
    """`event` in Avro binary of its current schema, `context` as `encode_context` made it."""
    values, writers = _REST[type(event)]
    return context + b"".join(
        [write(value) for write, value in zip(writers, values(event), strict=True)]
    )


def encode_alone(event: Event) -> tuple[bytes, bytes]:
    """(SHA-256 of the schema, payload) of an event whose context no other shares."""
    return CURRENT[type(event)].sha256, encode(event, encode_context(event.context))


def encode_original(original: Original) -> bytes:
    """What a box holds, in Avro binary; the event's schema pins this one."""
    return _ORIGINAL_WRITER[type(original)](original)


def encode_wraps(wraps: KeyWraps) -> bytes:
    """A framed gatebook.keys value."""
    schema = CURRENT[KeyWraps]
    return frame(schema.sha256, _WRAPS_WRITER(wraps))


def encode_control(control: Control) -> bytes:
    """A framed gatebook.control value."""
    return frame(CURRENT[Control].sha256, _CONTROL_WRITER(control))


def encode_classification(classification: TargetClassification) -> tuple[bytes, bytes]:
    """(key, framed value) of a gatebook.classifications record: the key is the value's SHA-256."""
    payload = _CLASSIFICATION_WRITER(classification)
    value = frame(CURRENT[TargetClassification].sha256, payload)
    return hashlib.sha256(value).digest(), value


def frame(schema_sha256: bytes, payload: bytes) -> bytes:
    """A record value that names its writer's schema."""
    return MAGIC + schema_sha256 + payload


def unframe(value: bytes) -> tuple[bytes, bytes]:
    """(schema SHA-256, payload) of a framed value. Raises CodecError."""
    if len(value) < 35 or value[:3] != MAGIC:
        raise CodecError("not a framed record")
    return value[3:35], value[35:]


class Archive:
    """Decodes what any known schema wrote.

    Begins with the current schemas and all earlier ones; `add` takes others from gatebook.schemas.
    Not safe for concurrent use.
    """

    _CONTEXTS = 20_000

    def __init__(self) -> None:
        self._schemas = {schema.sha256: schema for schema in CURRENT.values()}
        self._contexts: OrderedDict[bytes, tuple[bytes, Context]] = OrderedDict()

    def add(self, text: str) -> bytes:
        """Add a schema by its full text; returns its SHA-256."""
        schema = parse(text)
        self._schemas[schema.sha256] = schema
        return schema.sha256

    def schema(self, sha256: bytes) -> Schema:
        """Raises UnknownSchema."""
        schema = self._schemas.get(sha256) or _earlier().get(sha256)
        if schema is None:
            raise UnknownSchema(sha256)
        return schema

    def decode_record(self, schema: Schema, payload: bytes) -> tuple[dict[str, Any], bytes]:
        """(fields with `context` decoded, the context's bytes) of an event or a Masked record."""
        if schema.fields[0] != "context":
            raise CodecError(f"{schema.name} has no context")
        session_id = payload[:16]
        # Of another version, which may have fewer fields, the bytes of one that has more could be
        # the beginning.
        cached = self._contexts.get(session_id) if schema.familiar else None
        if cached is not None and payload.startswith(cached[0]):
            record = _read(schema.rest, payload, len(cached[0]))
            record["context"] = cached[1]
            return record, cached[0]
        full = _read(schema.parsed, payload)
        context = _typed(full["context"], Context)
        # A context written by another schema version is decoded in full each time, and its own
        # bytes are never reused.
        encoded = encode_context(context)
        if schema.familiar and payload.startswith(encoded):
            self._contexts[session_id] = (encoded, context)
            if len(self._contexts) > self._CONTEXTS:
                self._contexts.popitem(last=False)
        full["context"] = context
        return full, encoded

    def decode(self, sha256: bytes, payload: bytes) -> tuple[Event | Masked, bytes]:
        """(event, its context's current bytes). Raises CodecError."""
        schema = self.schema(sha256)
        kind = _BY_NAME.get(schema.name)
        if kind is None or schema.fields[0] != "context":
            raise CodecError(f"{schema.name} is not an event")
        record, context = self.decode_record(schema, payload)
        decoded: Event | Masked = _typed(record, kind)
        return decoded, context

    def decode_original(self, sha256: bytes, plaintext: bytes) -> Original:
        """What a box held, by the schema of the event that carried it."""
        schema = self.schema(sha256)
        if schema.original is None:
            raise CodecError(f"{schema.name} has no box")
        original: Original = _typed(_read(schema.original, plaintext), _ORIGINAL_KIND[schema.name])
        return original

    def decode_wraps(self, value: bytes) -> KeyWraps:
        """A gatebook.keys value."""
        sha256, payload = unframe(value)
        return _typed(_read(self.schema(sha256).parsed, payload), KeyWraps)

    def decode_control(self, value: bytes) -> Control:
        """A gatebook.control value."""
        sha256, payload = unframe(value)
        return _typed(_read(self.schema(sha256).parsed, payload), Control)

    def decode_classification(self, value: bytes) -> TargetClassification:
        """A gatebook.classifications value."""
        sha256, payload = unframe(value)
        return _typed(_read(self.schema(sha256).parsed, payload), TargetClassification)

    def decode_masked(self, value: bytes) -> Masked:
        """A gatebook.masked value."""
        sha256, payload = unframe(value)
        decoded, _ = self.decode(sha256, payload)
        if not isinstance(decoded, Masked):
            raise CodecError(f"{type(decoded).__name__} is not Masked")
        return decoded


def encode_masked(masked: Masked, context: bytes) -> bytes:
    """A framed gatebook.masked value; `context` as `Archive.decode` returned it."""
    parts = [
        # Most fields of most copies are empty, and what is empty is a zero byte; but an id.
        write(value) if value or sized else b"\0"
        for write, value, sized in zip(_MASKED_WRITERS, _MASKED_VALUES(masked), _SIZED, strict=True)
    ]
    return b"".join((_MASKED_HEAD, context, *parts))


_MASKED_HEAD: Final = frame(CURRENT[Masked].sha256, b"")
_MASKED_VALUES, _MASKED_WRITERS = _REST[Masked]
_SIZED: Final = tuple(name.endswith(("_id", "_hash")) for name in CURRENT[Masked].fields[1:])
