from __future__ import annotations

import io
import struct
from hashlib import sha256

import pytest
from fastavro import schemaless_reader, schemaless_writer
from hypothesis import given
from hypothesis import strategies as st

from schemas import chain, codec
from schemas.chain import GENESIS, Chain, Envelope
from schemas.codec import CodecError

SCHEMA = bytes(range(32))
ENVELOPE = codec.load("Envelope").parsed
FIELDS = [field["name"] for field in ENVELOPE["fields"]]
streams = st.text(st.characters(codec="utf-8"), min_size=1, max_size=40)


def by_fastavro(envelope: Envelope) -> bytes:
    buffer = io.BytesIO()
    schemaless_writer(buffer, ENVELOPE, {name: getattr(envelope, name) for name in FIELDS})
    return buffer.getvalue()


@given(streams, st.lists(st.binary(max_size=300), max_size=5))
def test_links_are_numbered_chained_and_hashed(stream: str, payloads: list[bytes]) -> None:
    pen, previous = Chain(stream), GENESIS
    for seq, payload in enumerate(payloads):
        link = chain.read(pen.append(SCHEMA, payload))
        assert (link.stream, link.seq, link.prev_hash) == (stream, seq, previous)
        assert (link.schema_sha256, link.payload) == (SCHEMA, payload)
        previous = link.event_hash
    assert pen.head == previous
    assert pen.seq == len(payloads)


@given(streams, st.binary(max_size=300))
def test_an_envelope_is_what_its_schema_says(stream: str, payload: bytes) -> None:
    value = Chain(stream).append(SCHEMA, payload)
    link = chain.read(value)
    assert by_fastavro(link) == value
    assert schemaless_reader(io.BytesIO(value), ENVELOPE, None) == {
        name: getattr(link, name) for name in FIELDS
    }


def test_the_hash_is_the_documented_one() -> None:
    """Written out, so that a verifier in another language has a vector to check against."""
    expected = sha256(
        b"gatebook/event/v1\0"
        + struct.pack(">I", 7)
        + b"gw/in/0"
        + struct.pack(">Q", 3)
        + b"\1" * 32
        + b"\2" * 32
        + struct.pack(">Q", 7)
        + b"payload"
    )
    assert chain.event_hash("gw/in/0", 3, b"\1" * 32, b"\2" * 32, b"payload") == expected.digest()
    assert (
        expected.hexdigest() == "b061dbaca9971b974c3591df37b95c9a692ca97099d4845d4b89fe47ad54707e"
    )


@given(streams, st.binary(max_size=100), st.data())
def test_no_bit_can_be_changed(stream: str, payload: bytes, data: st.DataObject) -> None:
    pen = Chain(stream)
    pen.append(SCHEMA, b"before")
    value = bytearray(pen.append(SCHEMA, payload))
    bit = data.draw(st.integers(0, 8 * len(value) - 1))
    value[bit // 8] ^= 1 << bit % 8
    with pytest.raises(CodecError):
        chain.read(bytes(value))


@given(st.binary(max_size=200), st.data())
def test_nothing_can_be_added_or_taken_away(payload: bytes, data: st.DataObject) -> None:
    value = Chain("gw/in/0").append(SCHEMA, payload)
    with pytest.raises(CodecError):
        chain.read(value + data.draw(st.binary(min_size=1, max_size=5)))
    with pytest.raises(CodecError):
        chain.read(value[: data.draw(st.integers(0, len(value) - 1))])


@given(st.binary(max_size=300))
def test_noise_is_a_codec_error_and_nothing_else(noise: bytes) -> None:
    with pytest.raises(CodecError):
        chain.read(noise)


def test_one_number_has_one_spelling() -> None:
    """Otherwise two values would carry one hash."""
    link = chain.read(Chain("gw").append(SCHEMA, b"x"))
    rest = link.prev_hash + SCHEMA + link.event_hash + b"\2x"
    assert chain.read(b"\4gw\0" + rest) == link
    for seq in (b"\x80\0", b"\1", b"\x80\x80\0", b"\xff" * 10):
        with pytest.raises(CodecError):
            chain.read(b"\4gw" + seq + rest)


def test_a_number_that_64_bits_cannot_hold_is_refused() -> None:
    link = chain.read(Chain("gw").append(SCHEMA, b"x"))
    rest = link.prev_hash + SCHEMA + link.event_hash + b"\2x"
    with pytest.raises(CodecError, match="number"):
        chain.read(b"\4gw" + b"\xfe" + b"\xff" * 8 + b"\x07" + rest)


@pytest.mark.parametrize("stream", ["", "x" * 1025])
def test_a_stream_has_a_name_of_bounded_length(stream: str) -> None:
    with pytest.raises(ValueError, match="1 to 1,024"):
        Chain(stream)


def test_fields_cannot_be_shifted_into_each_other() -> None:
    """Lengths are hashed: moving a byte from the stream to the payload changes the hash."""
    a = chain.event_hash("ab", 0, GENESIS, SCHEMA, b"c")
    assert a != chain.event_hash("a", 0, GENESIS, SCHEMA, b"bc")
