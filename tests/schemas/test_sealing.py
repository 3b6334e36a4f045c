from __future__ import annotations

import dataclasses
import os

import pytest
import zstandard
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    PublicFormat,
)
from hypothesis import given
from hypothesis import strategies as st

from schemas import commitments, sealing, statements
from schemas.events import KeyWraps, Wrap
from schemas.sealing import MAX_ORIGINAL, Opener, Recipients, Sealer, SealingError, unwrap
from tests.processors.recording import private_pem, public_pem

KEY, SESSION, EVENT = b"k" * 32, b"s" * 16, b"e" * 16
MASK, AUDITOR, STRANGER = (X25519PrivateKey.generate() for _ in range(3))
RECIPIENTS = Recipients((("mask", MASK.public_key()), ("auditor", AUDITOR.public_key())))


@given(st.binary(max_size=2_000))
def test_a_box_opens_for_its_session_and_event(plaintext: bytes) -> None:
    box = Sealer(b"id", KEY).seal(SESSION, EVENT, plaintext)
    assert Opener(KEY).open(SESSION, EVENT, box) == plaintext


@given(st.binary(max_size=1_500), st.data())
def test_no_bit_of_a_box_can_be_changed(plaintext: bytes, data: st.DataObject) -> None:
    box = bytearray(Sealer(b"id", KEY).seal(SESSION, EVENT, plaintext))
    bit = data.draw(st.integers(0, 8 * len(box) - 1))
    box[bit // 8] ^= 1 << bit % 8
    with pytest.raises(SealingError):
        Opener(KEY).open(SESSION, EVENT, bytes(box))


@given(st.binary(max_size=200))
def test_noise_is_a_sealing_error_and_nothing_else(noise: bytes) -> None:
    with pytest.raises(SealingError):
        Opener(KEY).open(SESSION, EVENT, noise)
    with pytest.raises(SealingError):
        Opener(KEY).open(SESSION, EVENT, b"\1\1" + noise)


@given(st.binary(max_size=2_000))
def test_a_box_of_version_1_still_opens(plaintext: bytes) -> None:
    assert Opener(KEY).open(SESSION, EVENT, forged(plaintext, 0)) == plaintext
    assert sealing.root_of(forged(plaintext, 0)) == b""
    with pytest.raises(SealingError, match="no root"):
        Opener(KEY).prove(SESSION, EVENT, forged(plaintext, 0), b"bytes/0")


def test_a_box_whose_root_is_another_originals_does_not_open() -> None:
    """What is in the box and its key are right: whoever has the key wrote another root."""
    other = sealing.root_of(Sealer(b"id", KEY).seal(SESSION, EVENT, b"other"))
    head = bytes((2, 0, 0)) + bytes(4) + other
    aad = b"gatebook/box/v1\0" + SESSION + EVENT + head
    nonce = (1).to_bytes(12, "big")
    box = head + nonce + AESGCM(KEY).encrypt(nonce, b"text", aad)
    with pytest.raises(SealingError, match="root"):
        Opener(KEY).open(SESSION, EVENT, box)


def test_a_field_is_shown_and_nothing_else() -> None:
    sealer, opener = Sealer(b"id", KEY), Opener(KEY)
    original = statements.requested_original("select 1", ((25, 0, b"Miller"),), "select 2")
    box = sealer.seal(SESSION, EVENT, original, commitments.REQUESTED)
    proof = opener.prove(SESSION, EVENT, box, b"statement")
    assert (proof.root, proof.value) == (sealing.root_of(box), b"select 1")
    assert proof.holds()
    assert b"Miller" not in repr(proof).encode()
    for changes in ({"value": b"select 3"}, {"path": b"executed"}, {"salt": bytes(16)},
                    {"root": bytes(32)}, {"way": proof.way[1:]}):  # fmt: skip
        assert not dataclasses.replace(proof, **changes).holds()
    with pytest.raises(SealingError, match=r"no such field.*parameters/0"):
        opener.prove(SESSION, EVENT, box, b"rows/0/0")


def test_what_is_not_of_its_layout_is_sealed_in_blocks() -> None:
    for layout in (commitments.REQUESTED, commitments.FIELDS, commitments.BLOCKS, 9):
        box = Sealer(b"id", KEY).seal(SESSION, EVENT, b"noise", layout, 3)
        assert box[2] == commitments.WHOLE
        assert Opener(KEY).open(SESSION, EVENT, box) == b"noise"


def test_a_box_does_not_open_elsewhere() -> None:
    box = Sealer(b"id", KEY).seal(SESSION, EVENT, b"text")
    for session, event, key in (
        (b"t" * 16, EVENT, KEY),
        (SESSION, b"f" * 16, KEY),
        (EVENT, SESSION, KEY),
        (SESSION, EVENT, b"l" * 32),
    ):
        with pytest.raises(SealingError, match="altered, or of another event or key"):
            Opener(key).open(session, event, box)


def test_equal_texts_give_different_boxes() -> None:
    sealer = Sealer(b"id", KEY)
    boxes = {sealer.seal(SESSION, EVENT, b"same") for _ in range(1_000)}
    assert len(boxes) == 1_000
    assert len({box[39:51] for box in boxes}) == 1_000  # nonces


def test_long_texts_are_compressed_and_incompressible_ones_are_not() -> None:
    sealer = Sealer(b"id", KEY)
    assert len(sealer.seal(SESSION, EVENT, b"x" * 100_000)) < 1_000
    noise = os.urandom(100_000)
    box = sealer.seal(SESSION, EVENT, noise)
    assert len(box) == len(noise) + 67
    assert Opener(KEY).open(SESSION, EVENT, box) == noise


def forged(plaintext: bytes, flags: int) -> bytes:
    """A box of whatever plaintext, as someone with the session's key could make it."""
    head = bytes((1, flags))
    aad = b"gatebook/box/v1\0" + SESSION + EVENT + head
    return head + bytes(12) + AESGCM(KEY).encrypt(bytes(12), plaintext, aad)


def test_a_decompression_bomb_is_refused_before_it_explodes() -> None:
    bomb = zstandard.ZstdCompressor().compress(bytes(MAX_ORIGINAL + 1))
    assert len(bomb) < 10_000
    with pytest.raises(SealingError, match="at most 64 MiB"):
        Opener(KEY).open(SESSION, EVENT, forged(bomb, 1))


def test_a_bomb_that_does_not_declare_its_size_is_refused() -> None:
    compressor = zstandard.ZstdCompressor(write_content_size=False).compressobj()
    bomb = compressor.compress(bytes(MAX_ORIGINAL + 1)) + compressor.flush()
    with pytest.raises(SealingError):
        Opener(KEY).open(SESSION, EVENT, forged(bomb, 1))


def test_a_bomb_that_lies_about_its_size_is_refused() -> None:
    liar = bytearray(zstandard.ZstdCompressor().compress(bytes(MAX_ORIGINAL + 1)))
    parameters = zstandard.get_frame_parameters(bytes(liar))
    assert parameters.content_size == MAX_ORIGINAL + 1
    at = bytes(liar).index((MAX_ORIGINAL + 1).to_bytes(4, "little"))
    liar[at : at + 4] = (100).to_bytes(4, "little")
    with pytest.raises(SealingError):
        Opener(KEY).open(SESSION, EVENT, forged(bytes(liar), 1))


def test_what_says_it_is_compressed_and_is_not_is_refused() -> None:
    for plaintext in (b"", b"text", zstandard.compress(b"x" * 1_000)[:-1]):
        with pytest.raises(SealingError, match="does not decompress"):
            Opener(KEY).open(SESSION, EVENT, forged(plaintext, 1))


def test_unknown_versions_and_flags_are_refused() -> None:
    for head in (b"\0\0", b"\3\0", b"\1\2", b"\1\xff", b"\2\2", b"\2\xff"):
        with pytest.raises(SealingError, match="not a box"):
            Opener(KEY).open(SESSION, EVENT, head + bytes(80))


def test_an_original_has_a_largest_size() -> None:
    with pytest.raises(SealingError, match="at most 64 MiB"):
        Sealer(b"id", KEY).seal(SESSION, EVENT, bytes(MAX_ORIGINAL + 1))


# --- wraps ---


def test_each_recipient_opens_its_own_wrap() -> None:
    wraps = RECIPIENTS.wrap(b"i" * 16, KEY)
    assert unwrap(wraps, "mask", MASK) == KEY
    assert unwrap(wraps, "auditor", AUDITOR) == KEY


@pytest.mark.parametrize(
    ("recipient", "private"),
    [("mask", AUDITOR), ("auditor", MASK), ("mask", STRANGER), ("nobody", MASK)],
)
def test_nobody_else_does(recipient: str, private: X25519PrivateKey) -> None:
    with pytest.raises(SealingError):
        unwrap(RECIPIENTS.wrap(b"i" * 16, KEY), recipient, private)


def test_a_wrap_is_bound_to_its_key_and_recipient() -> None:
    wraps = RECIPIENTS.wrap(b"i" * 16, KEY)
    ciphertext = wraps.wraps[0].ciphertext
    for moved in (
        KeyWraps(b"j" * 16, wraps.wraps),
        KeyWraps(wraps.key_id, [Wrap("mask", wraps.wraps[1].ciphertext)]),
        KeyWraps(wraps.key_id, [Wrap("mask", ciphertext[:-1])]),
        KeyWraps(wraps.key_id, [Wrap("mask", b"")]),
        KeyWraps(wraps.key_id, [Wrap("mask", ciphertext[:-1] + bytes((ciphertext[-1] ^ 1,)))]),
    ):
        with pytest.raises(SealingError):
            unwrap(moved, "mask", MASK)
    renamed = KeyWraps(wraps.key_id, [Wrap("another", ciphertext)])
    with pytest.raises(SealingError):
        unwrap(renamed, "another", MASK)


def test_a_wrapped_key_has_a_keys_length() -> None:
    with pytest.raises(SealingError, match="32 bytes"):
        unwrap(RECIPIENTS.wrap(b"i" * 16, b"short"), "mask", MASK)


def test_sealing_to_nobody_is_refused() -> None:
    with pytest.raises(SealingError, match="nobody can open"):
        Recipients(())


def test_keys_are_read_from_pem() -> None:
    key = sealing.private_key(private_pem(MASK))
    assert key.public_key() == sealing.public_key(public_pem(MASK))


def test_other_keys_are_refused() -> None:
    other = ed25519.Ed25519PrivateKey.generate()
    encrypted = MASK.private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"passphrase")
    )
    public = other.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    for pem in (b"", b"text", encrypted, private_pem(other), public_pem(MASK)):  # type: ignore[arg-type]
        with pytest.raises(SealingError):
            sealing.private_key(pem)
    for pem in (b"", b"text", public, private_pem(MASK)):
        with pytest.raises(SealingError):
            sealing.public_key(pem)


def test_errors_name_no_content() -> None:
    secret = b"canary-secret-canary"
    box = Sealer(b"id", KEY).seal(SESSION, EVENT, secret)
    with pytest.raises(SealingError) as caught:
        Opener(b"l" * 32).open(SESSION, EVENT, box)
    assert "canary" not in str(caught.value)
