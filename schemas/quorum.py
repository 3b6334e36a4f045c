"""Quorums: a data key that m of n people open together, and none of them alone.

The key is split among the members (schemas/shamir.py); each has a share, wrapped to a key of his
own with HPKE as every wrap is (schemas/sealing.py). Whoever opens gathers shares: his own, and what
others give him, wrapped by them to his key. A share is worth the key to whoever lacks just one.

Of each share there is a commitment, SHA-256 of it, in the clear: a share is as random as a key, so
that its hash tells nothing, and a false one is known by it, and by its position who gave it. The
names, keys and commitments of all members are bound into every member's wrap.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from schemas import shamir
from schemas.events import MemberWrap, QuorumWraps

_SUITE: Final = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


class QuorumError(Exception):
    """A share that is none, or too few. Names people, no content."""


@dataclass(frozen=True, slots=True)
class Quorum:
    """People of whom `threshold` can open what is sealed, in the order of their shares."""

    name: str
    threshold: int
    members: tuple[tuple[str, X25519PublicKey], ...]

    def __post_init__(self) -> None:
        if not 2 <= self.threshold <= len(self.members) <= shamir.MOST:
            raise QuorumError(f"{self.name}: at least two, and no more than there are members")
        names = {name for name, _ in self.members}
        if min(len(names), len({raw(key) for _, key in self.members})) < len(self.members):
            raise QuorumError(f"{self.name}: two members have one name, or one key")

    def wrap(
        self, key_id: bytes, key: bytes, random: Callable[[int], bytes] = os.urandom
    ) -> QuorumWraps:
        """The data key, shared out."""
        shares = shamir.split(key, self.threshold, len(self.members), random)
        blank = QuorumWraps(
            self.name,
            self.threshold,
            [
                MemberWrap(name, raw(public), _commitment(key_id, at, share), b"")
                for at, ((name, public), share) in enumerate(
                    zip(self.members, shares, strict=True), 1
                )
            ],
        )
        return QuorumWraps(
            self.name,
            self.threshold,
            [
                MemberWrap(
                    member.recipient,
                    member.public_key,
                    member.commitment,
                    _SUITE.encrypt(share, public, info=_info(key_id, blank, at)),
                )
                for at, (member, share, (_, public)) in enumerate(
                    zip(blank.members, shares, self.members, strict=True), 1
                )
            ],
        )


@dataclass(frozen=True, slots=True)
class Share:
    """One member's part of a data key; `position` counts from 1."""

    position: int
    secret: bytes


@dataclass(frozen=True, slots=True)
class Given:
    """A share on its way: from which member, to open which events."""

    giver: int
    events: Sequence[bytes]
    ciphertext: bytes


def raw(key: X25519PublicKey) -> bytes:
    """A public key's 32 bytes."""
    return key.public_bytes_raw()


def position(wraps: QuorumWraps, key: X25519PublicKey) -> int | None:
    """Which member has this key."""
    for at, member in enumerate(wraps.members, 1):
        if member.public_key == raw(key):
            return at
    return None


def own(key_id: bytes, wraps: QuorumWraps, private: X25519PrivateKey) -> Share | None:
    """The share of whoever has this key; None when he is no member. Raises QuorumError."""
    at = position(wraps, private.public_key())
    if at is None:
        return None
    member = wraps.members[at - 1]
    try:
        secret = _SUITE.decrypt(member.ciphertext, private, info=_info(key_id, wraps, at))
    except (InvalidTag, ValueError):
        raise QuorumError(
            f"the share of {member.recipient} in {wraps.name} does not open: it was altered"
        ) from None
    return _checked(key_id, wraps, Share(at, secret))


def give(
    key_id: bytes, wraps: QuorumWraps, share: Share, to: int, events: Iterable[bytes]
) -> bytes:
    """A member's share, wrapped to another member, for these events. Raises QuorumError."""
    if to == share.position:
        raise QuorumError("a share is given to another member, not to oneself")
    try:
        public = X25519PublicKey.from_public_bytes(wraps.members[to - 1].public_key)
    except ValueError:
        raise QuorumError(f"{wraps.name}: a member's key is none") from None
    info = _given(key_id, wraps, share.position, to, events)
    return _SUITE.encrypt(share.secret, public, info=info)


def take(key_id: bytes, wraps: QuorumWraps, given: Given, private: X25519PrivateKey) -> Share:
    """What a member gave whoever has this key. Raises QuorumError."""
    name = wraps.members[given.giver - 1].recipient
    to = position(wraps, private.public_key())
    if to is None:
        raise QuorumError(f"this key is no member's of {wraps.name}")
    try:
        info = _given(key_id, wraps, given.giver, to, given.events)
        secret = _SUITE.decrypt(given.ciphertext, private, info=info)
    except (InvalidTag, ValueError):
        raise QuorumError(
            f"the share of {name} does not open: it was altered, or given to another member, for"
            " another key or other events"
        ) from None
    return _checked(key_id, wraps, Share(given.giver, secret))


def open_with(wraps: QuorumWraps, shares: Mapping[int, Share]) -> bytes:
    """The data key. Raises QuorumError when too few have given their share."""
    missing = wraps.threshold - len(shares)
    if missing > 0:
        raise QuorumError(too_few(wraps, shares))
    chosen = sorted(shares)[: wraps.threshold]
    return shamir.combine({at: shares[at].secret for at in chosen})


def too_few(wraps: QuorumWraps, shares: Mapping[int, Share]) -> str:
    """What is missing, in words."""
    missing = wraps.threshold - len(shares)
    have = _names(wraps, sorted(shares))
    rest = _names(wraps, [at for at in range(1, len(wraps.members) + 1) if at not in shares])
    return (
        f"{wraps.name} opens with {wraps.threshold} of {len(wraps.members)} members:"
        f" {have} will do with {missing} more of {rest}"
    )


def _names(wraps: QuorumWraps, positions: Sequence[int]) -> str:
    return ", ".join(wraps.members[at - 1].recipient for at in positions)


def _checked(key_id: bytes, wraps: QuorumWraps, share: Share) -> Share:
    member = wraps.members[share.position - 1]
    actual = _commitment(key_id, share.position, share.secret)
    if not hmac.compare_digest(actual, member.commitment):
        raise QuorumError(f"the share of {member.recipient} is false: not the one of this key")
    return share


def _commitment(key_id: bytes, at: int, share: bytes) -> bytes:
    return hashlib.sha256(
        b"gatebook/share-commitment/v1\0" + key_id + bytes((at,)) + share
    ).digest()


def _info(key_id: bytes, wraps: QuorumWraps, at: int) -> bytes:
    return b"gatebook/quorum-wrap/v1\0" + key_id + _described(wraps) + bytes((at,))


def _given(
    key_id: bytes, wraps: QuorumWraps, giver: int, to: int, events: Iterable[bytes]
) -> bytes:
    of_events = hashlib.sha256(b"".join(sorted(events))).digest()
    pair = bytes((giver, to))
    return b"gatebook/share/v1\0" + key_id + _described(wraps) + pair + of_events


def _described(wraps: QuorumWraps) -> bytes:
    """Digest of what everyone sees of a quorum's wraps: who, of how many, with which shares."""
    parts = [wraps.name.encode(), bytes((wraps.threshold,))]
    for member in wraps.members:
        parts += [member.recipient.encode(), member.public_key, member.commitment]
    lengths = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    return hashlib.sha256(lengths).digest()
