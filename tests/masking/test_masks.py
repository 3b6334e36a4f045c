from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.masking import masks


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("4111 1111 1111 1234", "**** **** **** 1234"),
        ("4111-1111-1111-1234", "****-****-****-1234"),
        ("123-45-6789", "***-**-6789"),
        ("1234567", "***"),
        ("1234", "***"),
        ("", "***"),
        ("ÄÖÜäöüßé", "****öüßé"),
    ],
)
def test_partial_keeps_the_last_four_of_what_is_long_enough(value: str, expected: str) -> None:
    assert masks.partial(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("bob.smith@example.com", "b***@example.com"),
        ("b@example.com", "***@example.com"),
        ("a@b@example.com", "a***@example.com"),
        ("not an address", "***"),
        ("root@localhost", "***"),
        ("@example.com", "***@example.com"),
    ],
)
def test_email_keeps_a_letter_and_the_domain(value: str, expected: str) -> None:
    assert masks.email(value) == expected


@given(st.text())
def test_full_says_nothing_of_the_value(value: str) -> None:
    assert masks.full(value) == "***"


@given(st.text(min_size=8), st.sampled_from(["partial", "email"]))
def test_no_mask_returns_a_value_of_eight_letters_unchanged(value: str, name: masks.Mask) -> None:
    if sum(map(str.isalnum, value)) >= 8:
        assert masks.BY_NAME[name](value) != value


@given(st.text())
def test_masks_are_functions_of_the_value_alone(value: str) -> None:
    for mask in masks.BY_NAME.values():
        assert mask(value) == mask(value)
