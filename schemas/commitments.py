"""Commitments: one hash in clear that binds every field of an original, each of which can be shown
and checked by itself. Pure.

An original is cut into leaves, as its layout says; the root of their Merkle tree (RFC 6962) stands
in the event, in clear, and so in the chain:

    leaf = SHA-256(0x00 | "commit/v1" | salt | u8 len path | path | value)
    node = SHA-256(0x01 | left | right)

Salts come from the data key and the box's nonce. Without the key, a value that is one of few cannot
be found out by trying; whoever has one salt has none of the others; and when the key is destroyed,
nobody can try any more. Costs are why large results have leaves of 16 KiB (docs/decisions/0011).
"""

from __future__ import annotations

import hmac
from functools import lru_cache
from hashlib import sha256, shake_128
from typing import Final

WHOLE: Final = 0
"""Layout: blocks of the encoded original."""
REQUESTED: Final = 1
"""Layout: a statement, each of its bind values, what ran in its place."""
FIELDS: Final = 2
"""Layout: what describes the rows, then each value of each row."""
BLOCKS: Final = 3
"""Layout: what describes the rows, then blocks of them."""

ROOT_BYTES: Final = 32
SALT_BYTES: Final = 16
MAX_FIELDS: Final = 32
"""Values of a result that has a leaf for each."""

_BLOCK: Final = 16 * 1024
_COPIED: Final = 2048
_LEAF: Final = b"\0commit/v1"
_NODE: Final = b"\1"
_NEGATIVE: Final = 1 << 31
_LONG_BITS: Final = 63

Leaf = tuple[bytes, bytes]
"""Path and value."""


class CommitmentError(Exception):
    """An original that is not of its layout, or a proof that does not hold."""


def salt_key(data_key: bytes) -> bytes:
    """What salts are made of: not the key that encrypts."""
    return hmac.digest(data_key, b"gatebook/salts/v1", "sha256")


def leaves(layout: int, split: int, original: bytes) -> list[Leaf]:
    """The fields of an original in Avro binary. `split`: where the data of a result begins.

    Raises CommitmentError.
    """
    try:
        if layout == REQUESTED:
            return _requested(original)
        if layout == WHOLE:
            return _blocks(original, 0)
        if layout in (FIELDS, BLOCKS) and 0 < split < len(original):
            size, at = _long(original, split)
            if at + size != len(original):
                raise CommitmentError("a result does not end where it says")
            described = [(b"description", original[:split])]
            return described + (_fields if layout == FIELDS else _blocks)(original, at)
    except IndexError:
        pass
    raise CommitmentError("an original that is not of its layout")


def _blocks(data: bytes, at: int) -> list[Leaf]:
    return [
        (b"bytes/%d" % number, data[start : start + _BLOCK])
        for number, start in enumerate(range(at, max(len(data), at + 1), _BLOCK))
    ]


def _long(data: bytes, at: int) -> tuple[int, int]:
    """A non-negative Avro long."""
    result = shift = 0
    while True:
        byte = data[at]
        at += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
        shift += 7
        if shift > _LONG_BITS:
            raise CommitmentError("a length of more than 64 bits")
    if result & 1:
        raise CommitmentError("a negative length")
    return result >> 1, at


def _requested(data: bytes) -> list[Leaf]:
    size, at = _long(data, 0)
    found = [(b"statement", data[at : at + size])]
    at += size
    count, at = _long(data, at)
    if count:
        for number in range(count):
            start = at
            for _ in range(2):  # type and format, whatever they say
                while data[at] >= 0x80:
                    at += 1
                at += 1
            if data[at]:
                size, at = _long(data, at + 1)
                at += size
            else:
                at += 1
            found.append((b"parameters/%d" % number, data[start:at]))
        if data[at]:
            raise CommitmentError("bind values in more than one block")
        at += 1
    size, at = _long(data, at)
    if at + size != len(data):
        raise CommitmentError("a statement does not end where it says")
    if size:
        found.append((b"executed", data[at:]))
    return found


@lru_cache(MAX_FIELDS)
def _value_path(row: int, column: int) -> bytes:
    return b"rows/%d/%d" % (row, column)


def _fields(data: bytes, at: int) -> list[Leaf]:
    """Values of DataRow messages, each with its length before it: NULL is not empty."""
    found = []
    from_bytes = int.from_bytes
    row = 0
    end = len(data)
    while at < end:
        count = data[at + 5] << 8 | data[at + 6]
        at += 7
        for column in range(count):
            size = from_bytes(data[at : at + 4], "big")
            # NULL says that it has -1 byte.
            stop = at + 4 + (size if size < _NEGATIVE else 0)
            found.append((_value_path(row, column), data[at:stop]))
            at = stop
        row += 1
    if at != end or len(found) > MAX_FIELDS:
        raise CommitmentError("rows that do not end where they say")
    return found


def _leaf(salt: bytes, path: bytes, value: bytes) -> bytes:
    head = _LEAF + salt + _SIZES[len(path)] + path
    if len(value) < _COPIED:
        return sha256(head + value).digest()
    digest = sha256(head)
    digest.update(value)
    return digest.digest()


def _hashes(key: bytes, nonce: bytes, fields: list[Leaf]) -> tuple[bytes, list[bytes]]:
    """(salts, hashes of leaves)."""
    salts = shake_128(key + nonce).digest(SALT_BYTES * len(fields))
    hashes = []
    at = 0
    for path, value in fields:
        hashes.append(_leaf(salts[at : at + SALT_BYTES], path, value))
        at += SALT_BYTES
    return salts, hashes


_SIZES: Final = [bytes((size,)) for size in range(256)]


def _level(hashes: list[bytes]) -> list[bytes]:
    """The nodes above; a lone last one goes up as it is."""
    each = iter(hashes)
    above = [sha256(_NODE + left + right).digest() for left, right in zip(each, each, strict=False)]
    if len(hashes) & 1:
        above.append(hashes[-1])
    return above


def root(key: bytes, nonce: bytes, fields: list[Leaf]) -> bytes:
    """The root over an original's leaves; `key` as `salt_key` made it."""
    _, hashes = _hashes(key, nonce, fields)
    while len(hashes) > 1:
        hashes = _level(hashes)
    return hashes[0]


def proof(
    key: bytes, nonce: bytes, fields: list[Leaf], number: int
) -> tuple[bytes, list[tuple[str, bytes]]]:
    """(salt, the hashes beside the way to the root, each with its side) of one leaf."""
    salts, hashes = _hashes(key, nonce, fields)
    way: list[tuple[str, bytes]] = []
    at = number
    while len(hashes) > 1:
        beside = at ^ 1
        if beside < len(hashes):
            way.append(("left" if beside < at else "right", hashes[beside]))
        hashes = _level(hashes)
        at //= 2
    return salts[SALT_BYTES * number : SALT_BYTES * number + SALT_BYTES], way


def holds(
    root_: bytes, path: bytes, value: bytes, salt: bytes, way: list[tuple[str, bytes]]
) -> bool:
    """Whether a root binds that value at that path."""
    # A longer salt could end within a value, and the rest of that pass for another path and value.
    hashes = all(len(beside) == ROOT_BYTES for _, beside in way)
    if len(salt) != SALT_BYTES or len(path) >= len(_SIZES) or not hashes:
        return False
    found = _leaf(salt, path, value)
    for side, beside in way:
        both = beside + found if side == "left" else found + beside
        found = sha256(_NODE + both).digest()
    return hmac.compare_digest(found, root_)
