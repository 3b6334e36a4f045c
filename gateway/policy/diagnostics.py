"""What PostgreSQL's grammar says besides its messages, which its library leaves out. Pure."""

from __future__ import annotations

import re
from typing import Final

from pglast import parser

_DETAILS: Final = {
    "invalid publication object list": (
        "One of TABLE or TABLES IN SCHEMA must be specified before a standalone table or schema "
        "name."
    ),
}
_HINTS: Final = {
    "missing argument": "Use NONE to denote the missing argument of a unary operator.",
}
_OPTION: Final = re.compile(r'unrecognized row security option ".*"', re.DOTALL)
_OPTION_HINT: Final = "Only PERMISSIVE or RESTRICTIVE policies are supported currently."
_ESCAPE: Final = "invalid Unicode escape"
_IN_ESCAPING: Final = r"Unicode escapes must be \uXXXX or \UXXXXXXXX."
_IN_UNICODE: Final = r"Unicode escapes must be \XXXX or \+XXXXXX."


def said_more(text: str, message: str) -> tuple[str, str]:
    """(DETAIL, HINT) of what the parser says of a text, as far as it has them."""
    if message == _ESCAPE:
        # An E'' fails in the lexer, a U&'' behind it.
        return "", _IN_UNICODE if _lexes(text) else _IN_ESCAPING
    if _OPTION.fullmatch(message):
        return "", _OPTION_HINT
    return _DETAILS.get(message, ""), _HINTS.get(message, "")


def _lexes(text: str) -> bool:
    try:
        parser.scan(text)
    except (parser.ParseError, ValueError, UnicodeError):
        return False
    return True
