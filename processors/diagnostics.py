"""Errors and notices: the database quotes values in them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from schemas.masking import detect
from schemas.masking.columns import Classification
from schemas.masking.masks import HIDDEN
from schemas.masking.sql import mask_statement

_MESSAGES: Final = frozenset("MDHW")
"""Message, detail, hint and context: texts made around values (PostgreSQL 18, 54.8)."""

# The value may hold parentheses of its own; the last one closes it.
_KEY_VALUE: Final = re.compile(r"(\([^()]*\)\s*=\s*)\(.*\)", re.DOTALL)
_FAILING_ROW: Final = re.compile(r"(Failing row contains )\(.*\)", re.DOTALL)
_QUOTED: Final = re.compile(r'"[^"]*"|\'(?:[^\']|\'\')*\'')
_INNER_STATEMENT: Final = re.compile(r'(SQL statement ")(.*)(")', re.DOTALL)
_PARAMETER: Final = re.compile(r"(\$\d+ = )('(?:[^']|'')*'(?:\.\.\.)?)")


def scrub(
    fields: Mapping[str, str], classification: Classification, found: set[str]
) -> dict[str, str]:
    """ErrorResponse or NoticeResponse fields by code, masked; kinds are added to `found`."""
    # 22 is "data exception", 23 a violated constraint: their texts quote the value at fault.
    values = fields.get("C", "")[:2] in ("22", "23")
    quoted = bool(classification) and (
        values or any(classification.near(text) for text in fields.values())
    )
    result = {}
    for code, text in fields.items():
        if code == "q":
            masked = _statement(text, classification, found)
        elif code in _MESSAGES:
            masked = _message(text, code, quoted, classification, found)
        else:
            masked = text
        # RAISE ... USING puts any text into any field.
        result[code], kinds = detect.scrub(masked, whole=True)
        found.update(kinds)
    return result


def _message(
    text: str, code: str, quoted: bool, classification: Classification, found: set[str]
) -> str:
    masked = _KEY_VALUE.sub(rf"\1({HIDDEN})", text)
    masked = _FAILING_ROW.sub(rf"\1({HIDDEN})", masked)
    if code == "W":
        masked = _PARAMETER.sub(rf"\1'{HIDDEN}'", masked)
        masked = _INNER_STATEMENT.sub(
            lambda match: match[1] + _statement(match[2], classification, found) + match[3], masked
        )
    if quoted:
        masked = _QUOTED.sub(lambda match: f"{match[0][0]}{HIDDEN}{match[0][-1]}", masked)
    if masked != text:
        found.add("quoted")
    return masked


def _statement(text: str, classification: Classification, found: set[str]) -> str:
    masked = mask_statement(text, classification)
    found.update(mask.partition(":")[0] for mask in masked.masks)
    return masked.text
