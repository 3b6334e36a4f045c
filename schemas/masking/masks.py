"""What replaces a classified value. Every mask is a pure function of the value alone, so that a
replay, or an auditor who opens the original, arrives at the same text.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from typing import Final, Literal

Mask = Literal["full", "partial", "email"]

HIDDEN: Final = "***"
"""Nothing of the value is left, not even its length."""

_KEPT: Final = 4
_SHOWN: Final = frozenset("PSZ")
"""Unicode's punctuation, symbols and separators."""
_PARTIAL_FROM: Final = 8


def _hideable(character: str) -> bool:
    return unicodedata.category(character)[0] not in _SHOWN


def shape(value: str, keep: int = 0) -> str:
    """Letters and digits as `*`, the last `keep` of them and all punctuation as they were.

    A mark that is written with a letter goes with it.
    """
    hidden = sum(map(_hideable, value)) - keep
    out = []
    for character in value:
        if _hideable(character):
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
    if sum(map(_hideable, value)) < _PARTIAL_FROM:
        return HIDDEN
    return shape(value, _KEPT)


def email(value: str) -> str:
    """`a***@example.com`; what is no e-mail address is hidden in full."""
    local, at, domain = value.strip(" ").rpartition("@")
    if not at or "." not in domain:
        return HIDDEN
    # A local part of one letter would survive whole.
    return f"{local[:1] if len(local) > 1 else ''}{HIDDEN}@{domain}"


BY_NAME: Final[dict[Mask, Callable[[str], str]]] = {
    "full": full,
    "partial": partial,
    "email": email,
}


def of_audit_copy(name: str) -> Mask:
    """The mask of that name where a text can be masked by it, else in full."""
    known: dict[str, Mask] = {"partial": "partial", "email": "email"}
    return known.get(name, "full")


SEVERITY: Final[dict[Mask, int]] = {"email": 0, "partial": 1, "full": 2}
"""Of two masks for one column the more severe is applied."""
