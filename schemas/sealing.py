"""Boxes: what a person typed or a database returned, readable by named recipients only.

A data key per session seals the boxes of its events (AES-256-GCM). The key is wrapped to each
recipient's X25519 key with HPKE (RFC 9180, base mode: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256,
AES-256-GCM) and the gateway forgets it when the session closes, so that a gateway can write
originals and never read them back. Wraps travel in the compacted topic gatebook.keys, not in the
events: deleting a wrap erases originals without touching a chain (docs/decisions/0003).

A box is: version (1 byte) | flags (1 byte, bit 0: zstd) | layout (1 byte) | split (4 bytes)
| root (32 bytes) | nonce (12 bytes) | ciphertext and tag. Compression comes first, since sealed
bytes do not compress. What is in clear is authenticated with the rest. The root
(schemas/commitments.py) binds each field, and makes a box open to one original alone: AES-GCM by
itself can be made to open under two keys. Version 1 had neither layout, split nor root.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import zstandard
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

from schemas import commitments
from schemas.events import KeyWraps, Wrap
from schemas.quorum import Quorum, QuorumError, raw

KEY_BYTES: Final = 32
MAX_ORIGINAL: Final = 64 * 1024 * 1024
"""Largest plaintext of a box; a decompression bomb stops here."""

_WITHOUT_ROOT: Final = 1
_VERSION: Final = 2
_ZSTD: Final = 1
_PLAIN: Final = bytes((_VERSION, 0))
_COMPRESSED: Final = bytes((_VERSION, _ZSTD))
_ROOT_AT: Final = 7
_NONCE_AT: Final = _ROOT_AT + commitments.ROOT_BYTES
_NONCE_BYTES: Final = 12
_TAG_BYTES: Final = 16
_COMPRESS_FROM: Final = 512
_SUITE: Final = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


class SealingError(Exception):
    """A box or a wrap that does not open, or a key that cannot be read. Names no content."""


def public_key(pem: bytes) -> X25519PublicKey:
    """A recipient's key. Raises SealingError."""
    try:
        key = load_pem_public_key(pem)
    except ValueError:
        raise SealingError("not a PEM public key") from None
    if not isinstance(key, X25519PublicKey):
        raise SealingError("not an X25519 public key")
    return key


def private_key(pem: bytes) -> X25519PrivateKey:
    """A recipient's own key. Raises SealingError."""
    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError):
        raise SealingError("not an unencrypted PEM private key") from None
    if not isinstance(key, X25519PrivateKey):
        raise SealingError("not an X25519 private key")
    return key


def _info(key_id: bytes, recipient: str) -> bytes:
    return b"gatebook/wrap/v1\0" + key_id + recipient.encode()


def _aad(session_id: bytes, event_id: bytes) -> bytes:
    return b"gatebook/box/v1\0" + session_id + event_id


@dataclass(frozen=True, slots=True)
class Recipients:
    """Everyone who may open what is sealed from now on."""

    keys: tuple[tuple[str, X25519PublicKey], ...]
    quorums: tuple[Quorum, ...] = ()

    def __post_init__(self) -> None:
        if not self.keys and not self.quorums:
            raise SealingError("no recipient: what nobody can open would be lost")

    @classmethod
    def of(
        cls,
        pems: Iterable[tuple[str, bytes]],
        quorums: Iterable[tuple[str, int, Iterable[tuple[str, bytes]]]] = (),
    ) -> Recipients:
        """From (name, PEM) pairs, and of quorums (name, threshold, such pairs)."""
        try:
            boards = tuple(Quorum(name, needed, _keys(of)) for name, needed, of in quorums)
        except QuorumError as error:
            raise SealingError(str(error)) from None
        return cls(_keys(pems), boards)

    def also_alone(self) -> list[tuple[str, str]]:
        """(quorum, member) of those who can open without their quorum."""
        alone = {raw(key) for _, key in self.keys}
        return [
            (quorum.name, name)
            for quorum in self.quorums
            for name, key in quorum.members
            if raw(key) in alone
        ]

    def wrap(self, key_id: bytes, key: bytes) -> KeyWraps:
        """The data key, encrypted to each."""
        return KeyWraps(
            key_id,
            [
                Wrap(name, _SUITE.encrypt(key, public, info=_info(key_id, name)))
                for name, public in self.keys
            ],
            [quorum.wrap(key_id, key) for quorum in self.quorums],
        )


def _keys(pems: Iterable[tuple[str, bytes]]) -> tuple[tuple[str, X25519PublicKey], ...]:
    return tuple((name, public_key(pem)) for name, pem in pems)


def unwrap(wraps: KeyWraps, recipient: str, private: X25519PrivateKey) -> bytes:
    """The data key. Raises SealingError when it was not wrapped to `recipient`."""
    for wrap in wraps.wraps:
        if wrap.recipient == recipient:
            try:
                key = _SUITE.decrypt(wrap.ciphertext, private, info=_info(wraps.key_id, recipient))
            except (InvalidTag, ValueError):
                raise SealingError(f"the wrap for {recipient} does not open") from None
            if len(key) != KEY_BYTES:
                raise SealingError("a data key has 32 bytes")
            return key
    raise SealingError(f"the key is not wrapped to {recipient}")


def unwrap_any(
    wraps: KeyWraps, private: X25519PrivateKey, first: str = ""
) -> tuple[str, bytes] | None:
    """(recipient, data key) by whichever wrap this key opens, `first`'s before others'."""
    names = [wrap.recipient for wrap in wraps.wraps]
    for name in sorted(names, key=lambda name: name != first):
        try:
            return name, unwrap(wraps, name, private)
        except SealingError:
            continue
    return None


class Sealer:
    """Seals with one data key. Its nonces count, so a key must have only one Sealer, ever."""

    def __init__(self, key_id: bytes, key: bytes) -> None:
        self.key_id = key_id
        self._aead = AESGCM(key)
        self._salt_key = commitments.salt_key(key)
        self._count = 0
        self._zstd = zstandard.ZstdCompressor(level=1)

    def seal(
        self,
        session_id: bytes,
        event_id: bytes,
        plaintext: bytes,
        layout: int = commitments.WHOLE,
        split: int = 0,
    ) -> bytes:
        """A box bound to its session and event, and to each field that `layout` cuts it into."""
        if len(plaintext) > MAX_ORIGINAL:
            raise SealingError("an original has at most 64 MiB")
        self._count += 1
        nonce = self._count.to_bytes(_NONCE_BYTES, "big")
        try:
            fields = commitments.leaves(layout, split, plaintext)
        except commitments.CommitmentError:
            # Nothing may go unrecorded because it is cut otherwise than was thought.
            layout, split = commitments.WHOLE, 0
            fields = commitments.leaves(layout, split, plaintext)
        root = commitments.root(self._salt_key, nonce, fields)
        head = _PLAIN
        if len(plaintext) >= _COMPRESS_FROM:
            compressed = self._zstd.compress(plaintext)
            if len(compressed) < len(plaintext):
                plaintext, head = compressed, _COMPRESSED
        head = b"%b%c%b%b" % (head, layout, split.to_bytes(4, "big"), root)
        return (
            head + nonce + self._aead.encrypt(nonce, plaintext, _aad(session_id, event_id) + head)
        )


@dataclass(frozen=True, slots=True)
class Proof:
    """That one field is what a box's root binds."""

    root: bytes
    path: bytes
    value: bytes
    salt: bytes
    way: list[tuple[str, bytes]]

    def holds(self) -> bool:
        return commitments.holds(self.root, self.path, self.value, self.salt, self.way)


def root_of(box: bytes) -> bytes:
    """The root that stands in a box, in clear; none in one of version 1."""
    return box[_ROOT_AT:_NONCE_AT] if box[:1] == bytes((_VERSION,)) else b""


class Opener:
    """Opens boxes of one data key; of these events alone, where its key was shared for them."""

    def __init__(self, key: bytes, only: frozenset[bytes] | None = None) -> None:
        self._only = only
        self._aead = AESGCM(key)
        self._salt_key = commitments.salt_key(key)

    def open(self, session_id: bytes, event_id: bytes, box: bytes) -> bytes:
        """The plaintext. Raises SealingError for any alteration, or another event's box, and
        where a root is not that of what is in the box."""
        if self._only is not None and event_id not in self._only:
            raise SealingError("the shares of its key are for other events")
        nonce_at = 2 if box[:1] == bytes((_WITHOUT_ROOT,)) else _NONCE_AT
        begin = nonce_at + _NONCE_BYTES
        if (
            len(box) < begin + _TAG_BYTES
            or box[0] not in (_WITHOUT_ROOT, _VERSION)
            or box[1] & ~_ZSTD
        ):
            raise SealingError("not a box")
        aad = _aad(session_id, event_id) + box[:nonce_at]
        try:
            plaintext = self._aead.decrypt(box[nonce_at:begin], box[begin:], aad)
        except InvalidTag:
            raise SealingError(
                "the box does not open: altered, or of another event or key"
            ) from None
        if box[1] & _ZSTD:
            plaintext = _decompressed(plaintext)
        if box[0] == _VERSION:
            found = commitments.root(self._salt_key, box[nonce_at:begin], _leaves(box, plaintext))
            if found != box[_ROOT_AT:_NONCE_AT]:
                raise SealingError("the box's root is not that of what is in it")
        return plaintext

    def prove(self, session_id: bytes, event_id: bytes, box: bytes, path: bytes) -> Proof:
        """One field of a box, to be checked against its root alone. Raises SealingError."""
        fields = _leaves(box, self.open(session_id, event_id, box))
        paths = [each for each, _ in fields]
        if not root_of(box) or path not in paths:
            raise SealingError(
                "no such field; there are: " + b", ".join(paths).decode()
                if root_of(box)
                else "the box has no root"
            )
        number = paths.index(path)
        nonce = box[_NONCE_AT : _NONCE_AT + _NONCE_BYTES]
        salt, way = commitments.proof(self._salt_key, nonce, fields, number)
        return Proof(root_of(box), path, fields[number][1], salt, way)


def _leaves(box: bytes, plaintext: bytes) -> list[commitments.Leaf]:
    try:
        return commitments.leaves(box[2], int.from_bytes(box[3:7], "big"), plaintext)
    except commitments.CommitmentError as error:
        raise SealingError(str(error)) from None


def _decompressed(compressed: bytes) -> bytes:
    try:
        if zstandard.frame_content_size(compressed) > MAX_ORIGINAL:
            raise SealingError("an original has at most 64 MiB")
        return zstandard.ZstdDecompressor().decompress(compressed, MAX_ORIGINAL)
    except zstandard.ZstdError:
        raise SealingError("the box does not decompress") from None
