"""What replaces a classified value. Every mask is a pure function of the value alone, so that a
replay, or an auditor who opens the original, arrives at the same text.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal

Mask = Literal["full", "partial", "email"]

HIDDEN: Final = "***"
"""Nothing of the value is left, not even its length."""

_KEPT: Final = 4
_PARTIAL_FROM: Final = 8


def shape(value: str, keep: int = 0) -> str:
    """Letters and digits as `*`, the last `keep` of them and all punctuation as they were."""
    hidden = sum(map(str.isalnum, value)) - keep
    out = []
    for character in value:
        if character.isalnum():
            hidden -= 1
            out.append("*" if hidden >= 0 else character)
        else:
            out.append(character)
    return "".join(out)


def full(value: str) -> str:
    """`***`."""
    return HIDDEN


def partial(value: str) -> str:
    """`**** **** **** 1234`: the last four stay.

    Of fewer than eight letters and digits nothing stays: four of five would be the value.
    """
    if sum(map(str.isalnum, value)) < _PARTIAL_FROM:
        return HIDDEN
    return shape(value, _KEPT)


def email(value: str) -> str:
    """`a***@example.com`; what is no e-mail address is hidden in full."""
    local, at, domain = value.strip().rpartition("@")
    if not at or "." not in domain:
        return HIDDEN
    # A local part of one letter would survive whole.
    return f"{local[:1] if len(local) > 1 else ''}{HIDDEN}@{domain}"


BY_NAME: Final[dict[Mask, Callable[[str], str]]] = {
    "full": full,
    "partial": partial,
    "email": email,
}
SEVERITY: Final[dict[Mask, int]] = {"email": 0, "partial": 1, "full": 2}
"""Of two masks for one column the more severe is applied."""
