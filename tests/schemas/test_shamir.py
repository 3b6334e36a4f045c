from __future__ import annotations

import itertools
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.shamir import _inverse, _times, combine, split


def slow_times(a: int, b: int) -> int:
    """Polynomials over GF(2), multiplied and then divided by x^8 + x^4 + x^3 + x + 1."""
    product = 0
    for bit in range(8):
        if b >> bit & 1:
            product ^= a << bit
    for bit in range(15, 7, -1):
        if product >> bit & 1:
            product ^= 0x11B << (bit - 8)
    return product


def test_the_field_is_that_of_aes() -> None:
    # FIPS 197, section 4.2.
    assert _times(0x57, 0x83, 1) == 0xC1
    assert _times(0x57, 0x13, 1) == 0xFE
    for a, b in itertools.product(range(256), repeat=2):
        assert _times(a, b, 1) == slow_times(a, b)
    assert all(_times(a, _inverse(a), 1) == 1 for a in range(1, 256))


@given(st.binary(min_size=1, max_size=64), st.integers(0, 255))
def test_bytes_side_by_side_do_not_touch(vector: bytes, factor: int) -> None:
    product = _times(int.from_bytes(vector, "big"), factor, len(vector))
    assert product.to_bytes(len(vector), "big") == bytes(slow_times(b, factor) for b in vector)


@settings(deadline=None)
@given(st.binary(min_size=32, max_size=32), st.integers(1, 6), st.integers(0, 4), st.data())
def test_any_that_are_enough_give_it_back(
    secret: bytes, needed: int, more: int, data: st.DataObject
) -> None:
    shares = dict(enumerate(split(secret, needed, needed + more, os.urandom), 1))
    for chosen in itertools.combinations(shares, needed):
        assert combine({at: shares[at] for at in chosen}) == secret
    some = data.draw(st.permutations(sorted(shares)))
    assert combine({at: shares[at] for at in some}) == secret


@pytest.mark.parametrize("secret", [0, 1, 0x53, 255])
def test_one_fewer_says_nothing_at_all(secret: int) -> None:
    """Each pair of two shares comes of exactly one choice, whatever the secret of three is."""
    choices = [bytes(pair) for pair in itertools.product(range(256), repeat=2)]
    for first, second in ((0, 1), (1, 3)):
        seen = set()
        for choice in choices:
            drawn = iter(choice)
            shares = split(bytes((secret,)), 3, 4, lambda size, drawn=drawn: bytes((next(drawn),)))
            seen.add((shares[first], shares[second]))
        assert len(seen) == len(choices)


@pytest.mark.parametrize(("needed", "count"), [(0, 3), (4, 3), (2, 256)])
def test_numbers_that_make_no_sense_are_refused(needed: int, count: int) -> None:
    with pytest.raises(ValueError, match="needed"):
        split(b"k" * 32, needed, count, os.urandom)
