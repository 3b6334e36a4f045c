"""Proposes classes for columns from samples of their values and from their names. Pure.

A proposal is a beginning for a person's review, not a classification: it carries its evidence, and
what it does not find may still be personal.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from schemas.masking import detect

_SHARE: Final = 0.2
"""Of a column's values that look classified, at least, for the column to be."""
_CLASSES: Final[dict[str, tuple[str, str]]] = {
    "email": ("pii", "email"),
    "card": ("pci", "partial"),
    "ssn": ("pii", "full"),
    "iban": ("pci", "partial"),
    "phone": ("pii", "partial"),
}
_NAMES: Final[tuple[tuple[str, str, str, str], ...]] = (
    ("secret", "full", r"passw(or)?d|pwd|secret|api_?key|private_?key|token|salt|otp", "a secret"),
    ("pii", "full", r"ssn|social_?sec\w*|tax_?id|passport\w*|national_?id|nino", "an identifier"),
    ("pii", "email", r"e_?mail\w*|mail", "an e-mail address"),
    ("pii", "partial", r"phone\w*|mobile|fax|tel", "a telephone number"),
    ("pci", "partial", r"(credit_?)?card(_?(no|num|number))?|pan|iban", "a card"),
    ("pci", "partial", r"account_?(no|number)", "an account"),
    ("pii", "full", r"(first|last|middle|sur|full|given|family)_?name", "a name of a person"),
    ("pii", "year", r"(date_?of_?)?birth(day|date|_?date)?|dob", "a date of birth"),
    ("pii", "full", r"street\w*|address\w*|postal_?code|zip(_?code)?", "an address"),
    ("phi", "full", r"diagnos\w*|icd(_?10)?|patient\w*|medication\w*|blood\w*", "of health"),
    ("pii", "bucket", r"salary|income|wage", "an income"),
)  # fmt: skip
_DATES: Final = frozenset({"date", "timestamp", "timestamptz"})
_NUMBERS: Final = frozenset({"int2", "int4", "int8", "numeric", "float4", "float8", "money"})
_TOKEN: Final = re.compile(r"[A-Za-z0-9_\-+/=.]{20,}\Z")
_BITS: Final = 3.6
"""Entropy per character from which a long word without spaces is rather a key than a name."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """`classification` and `mask` for one column, and why."""

    classification: str
    mask: str
    evidence: str


def propose(name: str, kind: str, values: Sequence[str]) -> Proposal | None:
    """For a column of that name and type (pg_type's) with a sample of its values, as text."""
    present = [value for value in values if value]
    by_value = _by_values(present) if kind not in _DATES | _NUMBERS else None
    return by_value or _by_name(name, kind, len(present))


def _by_values(values: Sequence[str]) -> Proposal | None:
    if not values:
        return None
    kinds = Counter(
        kind for value in values for kind in {each.kind for each in detect.find(value, whole=True)}
    )
    if kinds:
        kind, count = kinds.most_common(1)[0]
        if count >= max(_SHARE * len(values), 1):
            classification, mask = _CLASSES[kind]
            return Proposal(classification, mask, f"{count} of {len(values)} values are {kind}")
    keys = sum(_is_key(value) for value in values)
    if keys >= max(_SHARE * len(values), 2):
        return Proposal("secret", "full", f"{keys} of {len(values)} values look like keys")
    return None


def _is_key(value: str) -> bool:
    if not _TOKEN.match(value) or value.isdigit() or _hyphenated(value):
        return False
    counts = Counter(value)
    total = len(value)
    entropy = -sum(count / total * math.log2(count / total) for count in counts.values())
    return entropy >= _BITS and any(map(str.isdigit, value))


def _hyphenated(value: str) -> bool:
    """UUIDs and slugs are identifiers, not keys."""
    return value.count("-") >= 2 and len(value) <= 36


def _by_name(name: str, kind: str, values: int) -> Proposal | None:
    for classification, mask, pattern, what in _NAMES:
        if not re.search(rf"(?:^|_)(?:{pattern})(?:$|_)", name.lower()):
            continue
        fits = {"year": kind in _DATES, "bucket": kind in _NUMBERS}.get(mask)
        if fits is None:
            fits = kind not in _DATES | _NUMBERS | {"bool"}
        if fits:
            return Proposal(classification, mask, f"its name says {what}; {values} values sampled")
    return None
