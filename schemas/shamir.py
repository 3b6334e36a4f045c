"""A secret in n shares, of which any m give it back and fewer say nothing about it. Pure.

Shamir (1979), byte by byte over GF(2^8) with AES's polynomial: each byte of the secret is where a
polynomial of degree m - 1, otherwise random, crosses zero; share x is its value at x. All bytes are
computed side by side in one integer. What is secret is only shifted and combined, by public
numbers: there is no branch on it and no table looked up by it
(docs/decisions/0013-quorums-share-the-data-key.md).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

MOST = 255
"""Shares of one secret: the field's points but zero, where the secret is."""


def split(secret: bytes, needed: int, count: int, random: Callable[[int], bytes]) -> list[bytes]:
    """Shares 1, 2, ... `count`; any `needed` of them give `secret` back."""
    if not 1 <= needed <= count <= MOST:
        raise ValueError("needed at most as many as there are, and at least one")
    size = len(secret)
    # From the highest power down to the secret. A coefficient of zero is as good as any other: to
    # exclude it would tell something about the secret.
    polynomial = [int.from_bytes(random(size), "big") for _ in range(needed - 1)]
    polynomial.append(int.from_bytes(secret, "big"))
    shares = []
    for x in range(1, count + 1):
        value = 0
        for coefficient in polynomial:
            value = _times(value, x, size) ^ coefficient
        shares.append(value.to_bytes(size, "big"))
    return shares


def combine(shares: Mapping[int, bytes]) -> bytes:
    """The secret, of as many shares as are needed, by their numbers. Others give another."""
    [size] = {len(share) for share in shares.values()}
    secret = 0
    for x, share in shares.items():
        weight = 1
        for other in shares:
            if other != x:
                weight = _times(weight, _times(other, _inverse(other ^ x), 1), 1)
        secret ^= _times(int.from_bytes(share, "big"), weight, size)
    return secret.to_bytes(size, "big")


def _times(vector: int, factor: int, size: int) -> int:
    """Each byte of `vector` times `factor`, which is public."""
    ones = int.from_bytes(b"\1" * size, "big")
    product = 0
    while factor:
        if factor & 1:
            product ^= vector
        factor >>= 1
        high = (vector >> 7) & ones
        vector = ((vector ^ (high << 7)) << 1) ^ (high * 0x1B)
    return product


def _inverse(number: int) -> int:
    """Of a public number: its 254th power, which is 2 + 4 + ... + 128."""
    power, square = 1, number
    for _ in range(7):
        square = _times(square, square, 1)
        power = _times(power, square, 1)
    return power
