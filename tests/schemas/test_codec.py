from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from fastavro import schemaless_writer
from hypothesis import given
from hypothesis import strategies as st

from schemas import codec, events
from schemas.codec import Archive, CodecError, UnknownSchema
from schemas.events import Completed, Context, Decided, KeyWraps, Masked
from tests.schemas.events_strategy import KINDS, records

ARCHIVE = Path(__file__).parent / "archive"
EARLIER = Path(codec.__file__).parent / "avro" / "earlier"


def an(kind: type[Any], data: st.DataObject) -> Any:
    return data.draw(records(kind, codec.CURRENT[kind].parsed))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@given(data=st.data())
def test_every_kind_survives_a_round_trip(kind: type[Any], data: st.DataObject) -> None:
    event = an(kind, data)
    context = codec.encode_context(event.context)
    archive = Archive()
    sha256, payload = codec.CURRENT[kind].sha256, codec.encode(event, context)
    for _ in range(2):  # the second time, the context comes from the cache
        assert archive.decode(sha256, payload) == (event, context)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@given(data=st.data())
def test_what_we_write_is_what_fastavro_writes(kind: type[Any], data: st.DataObject) -> None:
    event = an(kind, data)
    buffer = io.BytesIO()
    schemaless_writer(
        buffer, codec.CURRENT[kind].parsed, msgspec.to_builtins(event, builtin_types=(bytes,))
    )
    assert codec.encode(event, codec.encode_context(event.context)) == buffer.getvalue()


@pytest.mark.parametrize("kind", events.ORIGINALS, ids=lambda kind: kind.__name__)
@given(data=st.data())
def test_every_original_survives_a_round_trip(kind: type[Any], data: st.DataObject) -> None:
    schema = codec.CURRENT[kind]
    original = data.draw(records(events.ORIGINALS[kind], schema.original))
    encoded = codec.encode_original(original)
    assert Archive().decode_original(schema.sha256, encoded) == original
    with pytest.raises(CodecError):
        Archive().decode_original(schema.sha256, encoded + b"\0")


@given(data=st.data())
def test_framed_records_survive_a_round_trip(data: st.DataObject) -> None:
    masked, wraps = an(Masked, data), an(KeyWraps, data)
    context = codec.encode_context(masked.context)
    assert Archive().decode_masked(codec.encode_masked(masked, context)) == masked
    assert Archive().decode_wraps(codec.encode_wraps(wraps)) == wraps


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@given(data=st.data())
def test_one_byte_more_or_less_is_refused(kind: type[Any], data: st.DataObject) -> None:
    event = an(kind, data)
    sha256 = codec.CURRENT[kind].sha256
    payload = codec.encode(event, codec.encode_context(event.context))
    archive = Archive()
    cut = data.draw(st.integers(1, len(payload)))
    for broken in (payload + b"\0", payload[:-1], payload[:-cut]):
        with pytest.raises(CodecError):
            archive.decode(sha256, broken)
        archive.decode(sha256, payload)  # fills the cache, which must be as strict


@given(st.binary(max_size=200), st.sampled_from(KINDS))
def test_noise_is_a_codec_error_and_nothing_else(noise: bytes, kind: type[Any]) -> None:
    archive = Archive()
    for decode in (
        lambda: archive.decode(codec.CURRENT[kind].sha256, noise),
        lambda: archive.decode_wraps(noise),
        lambda: archive.decode_masked(codec.frame(codec.CURRENT[Masked].sha256, noise)),
    ):
        with pytest.raises(CodecError):
            decode()


def test_another_kinds_schema_is_refused() -> None:
    payload = codec.encode(DECIDED, codec.encode_context(CONTEXT))
    archive = Archive()
    for kind in KINDS:
        if kind is not Decided:
            with pytest.raises(CodecError):
                archive.decode(codec.CURRENT[kind].sha256, payload)


def test_an_unknown_schema_says_which() -> None:
    with pytest.raises(UnknownSchema, match="07" * 32) as caught:
        Archive().decode(b"\7" * 32, b"")
    assert caught.value.sha256 == b"\7" * 32


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '"string"', '{"type":"enum"}', '{"name":"X","fields":[{}]}', "{"]
)
def test_what_is_no_record_schema_is_refused(text: str) -> None:
    with pytest.raises(CodecError):
        codec.parse(text)


def test_a_text_is_named_by_all_of_it() -> None:
    """Avro's canonical form would call these two the same."""
    text = codec.CURRENT[Completed].text
    millis = text.replace("timestamp-micros", "timestamp-millis")
    assert codec.parse(millis).sha256 != codec.parse(text).sha256


def test_schemas_and_structs_name_the_same_fields() -> None:
    for kind, schema in codec.CURRENT.items():
        assert schema.fields == kind.__struct_fields__


def test_every_field_of_every_schema_is_documented() -> None:
    def undocumented(node: Any, path: str) -> list[str]:
        if isinstance(node, list):
            return [found for branch in node for found in undocumented(branch, path)]
        if not isinstance(node, dict):
            return []
        missing = [] if node.get("type") not in ("record", "fixed") or node.get("doc") else [path]
        for field in node.get("fields", []):
            where = f"{path}.{field['name']}"
            missing += [] if field.get("doc") is not None else [where]
            missing += undocumented(field["type"], where)
        return missing + undocumented(node.get("items"), path)

    for schema in codec.CURRENT.values():
        assert undocumented(json.loads(schema.text), schema.name) == []


# --- evolution: what an earlier release wrote stays readable for ever ---


def archived(name: str) -> tuple[Archive, bytes, bytes]:
    """(an archive that knows the schema, its SHA-256, bytes written with it)."""
    archive = Archive()
    sha256 = archive.add((ARCHIVE / f"{name}.avsc").read_text())
    return archive, sha256, bytes.fromhex((ARCHIVE / f"{name}.hex").read_text())


def test_an_event_written_with_an_earlier_schema_is_read() -> None:
    archive, sha256, payload = archived("Completed-earlier")
    event, context = archive.decode(sha256, payload)
    assert event == COMPLETED
    assert context == codec.encode_context(CONTEXT)


def test_an_audit_copy_without_the_latest_fields_takes_their_defaults() -> None:
    archive, sha256, payload = archived("Masked-earlier")
    masked = archive.decode_masked(codec.frame(sha256, payload))
    assert masked == Masked(CONTEXT, b"E" * 16, "Completed", 5, 6, "g/1/0", 7, b"p" * 32, b"h" * 32)


@pytest.mark.parametrize("file", sorted(EARLIER.glob("*.avsc")), ids=lambda file: file.stem)
def test_every_earlier_schema_is_known_without_being_told(file: Path) -> None:
    """A sink that is newer than what wrote a record must not put it aside."""
    text = file.read_text()
    schema = Archive().schema(hashlib.sha256(text.encode()).digest())
    assert schema.text == text
    assert file.name == f"{schema.name}-{schema.sha256.hex()[:8]}.avsc"
    assert schema.sha256 not in {current.sha256 for current in codec.CURRENT.values()}


def test_a_field_of_the_future_is_refused() -> None:
    """What this release cannot show it must not drop in silence."""
    archive, sha256, payload = archived("Completed-newer")
    with pytest.raises(CodecError, match="unknown field `waited_us`"):
        archive.decode(sha256, payload)


def test_earlier_and_current_events_of_one_session_do_not_disturb_each_other() -> None:
    archive, sha256, payload = archived("Completed-earlier")
    current = codec.encode(COMPLETED, codec.encode_context(CONTEXT))
    for _ in range(2):
        assert archive.decode(codec.CURRENT[Completed].sha256, current)[0] == COMPLETED
        assert archive.decode(sha256, payload)[0] == COMPLETED


CONTEXT = Context(
    b"S" * 16,
    b"K" * 16,
    "default",
    "gateway-1",
    "shop",
    events.Principal("https://issuer.example", "sub", "alice", ["support"], "", "person"),
    events.Client("192.0.2.1", 50_000, "psql"),
)
DECIDED = Decided(CONTEXT, b"E" * 16, 1, 2, b"T" * 16, "ALLOW", ["p"], "ab", "permitted")
COMPLETED = Completed(
    CONTEXT, b"E" * 16, 5, 6, b"T" * 16, "completed", "SELECT 1", "", 1, 2, 3, b"box"
)
