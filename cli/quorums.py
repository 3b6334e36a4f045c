"""Data keys that several auditors open together: shares given, in files, and taken."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final
from uuid import UUID

import msgspec

from cli.problems import Problem
from schemas import quorum
from schemas.events import KeyWraps, QuorumWraps
from schemas.quorum import QuorumError, Share

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.x25519 import (
        X25519PrivateKey,
        X25519PublicKey,
    )

_MOST: Final = 4 * 1024 * 1024


class _Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    key: UUID
    ciphertext: bytes


class ShareFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one member of a quorum gives another: nothing in it is readable to anyone else."""

    gatebook_share: int
    quorum: str
    giver: str
    receiver: str
    events: list[UUID]
    parts: list[_Part]

    @classmethod
    def read(cls, path: Path) -> ShareFile:
        """Raises Problem."""
        try:
            with path.open("rb") as file:
                text = file.read(_MOST + 1)
        except OSError as error:
            raise Problem(f"cannot read {path}: {error.strerror}") from None
        try:
            if len(text) > _MOST:
                raise Problem(f"{path} is too large for a share")
            made = msgspec.json.decode(text, type=cls)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            raise Problem(f"{path} is no share: `gatebook share` writes them") from None
        if made.gatebook_share != 1:
            raise Problem(f"{path} is of another version of Gatebook")
        return made

    def write(self, path: Path) -> None:
        """Raises Problem, also when the file is there already."""
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(msgspec.json.format(msgspec.json.encode(self)) + b"\n")
        except OSError as error:
            raise Problem(f"cannot write {path}: {error.strerror}") from None


def data_key(
    of: KeyWraps,
    private: X25519PrivateKey,
    events: Iterable[UUID],
    given: Iterable[ShareFile],
) -> bytes | None:
    """The data key, of one's own share and others'; None when one is no member of any.

    Raises Problem: too few shares, or one that is false or for something else.
    """
    short = ""
    key = UUID(bytes=of.key_id)
    try:
        for wraps in of.quorums:
            mine = quorum.own(of.key_id, wraps, private)
            if mine is None:
                continue
            shares = {mine.position: mine}
            for file in given:
                if file.quorum == wraps.name:
                    share = _taken(file, key, wraps, private, events)
                    # By position: a second share of the same person, or of oneself, adds none.
                    shares.setdefault(share.position, share)
            if len(shares) >= wraps.threshold:
                return quorum.open_with(wraps, shares)
            short = quorum.too_few(wraps, shares)
    except QuorumError as error:
        raise Problem(f"key {key}: {error}") from None
    if short:
        raise Problem(
            f"{short}. A member gives his share with"
            " `gatebook share ID --key HIS.pem --for YOURS.pub.pem`; then: --share FILE"
        )
    return None


def _taken(
    file: ShareFile,
    key: UUID,
    wraps: QuorumWraps,
    private: X25519PrivateKey,
    events: Iterable[UUID],
) -> Share:
    # One who is asked to share one event has not agreed to others of the session.
    if not set(events) <= set(file.events):
        raise QuorumError(f"the share of {file.giver} is for other events")
    parts = [part for part in file.parts if part.key == key]
    if not parts:
        raise QuorumError(f"the share of {file.giver} is for other keys")
    names = [member.recipient for member in wraps.members]
    if file.giver not in names:
        raise QuorumError(f"{file.giver}, whose share it is said to be, is no member")
    giver = names.index(file.giver) + 1
    ids = [event.bytes for event in file.events]
    return quorum.take(key.bytes, wraps, quorum.Given(giver, ids, parts[0].ciphertext), private)


def shares(
    keys: Iterable[KeyWraps],
    private: X25519PrivateKey,
    receiver: X25519PublicKey,
    events: list[UUID],
) -> ShareFile:
    """All that one member can give another for these events. Raises Problem."""
    files: dict[str, list[_Part]] = {}
    people: dict[str, tuple[str, str]] = {}
    try:
        for key in keys:
            for wraps in key.quorums:
                mine = quorum.own(key.key_id, wraps, private)
                to = quorum.position(wraps, receiver)
                if mine is None or to is None:
                    continue
                ids = [event.bytes for event in events]
                ciphertext = quorum.give(key.key_id, wraps, mine, to, ids)
                part = _Part(UUID(bytes=key.key_id), ciphertext)
                files.setdefault(wraps.name, []).append(part)
                pair = wraps.members[mine.position - 1], wraps.members[to - 1]
                people[wraps.name] = pair[0].recipient, pair[1].recipient
    except QuorumError as error:
        raise Problem(str(error)) from None
    if not files:
        raise Problem("these are not the keys of two members of a quorum that can open this")
    # Rarely are two people in two quorums of one session; any one of them will do.
    name = max(files, key=lambda one: len(files[one]))
    return ShareFile(1, name, *people[name], events, files[name])
