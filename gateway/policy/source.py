"""Where each policy of a Cedar file begins, so that what is said of it can name a line. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

# What may hold a semicolon that ends nothing: texts and comments.
_TOKEN: Final = re.compile(r'"(?:[^"\\]|\\.)*"|//[^\n]*|;', re.DOTALL)
_BLANK: Final = re.compile(r"(?:\s+|//[^\n]*)*")
_QUOTED: Final = re.compile(r"`([^`]+)`")
_FOR: Final = re.compile(r"(?:\[policy\d+\] )?(?:for policy `policy\d+`, )?")


@dataclass(frozen=True, slots=True)
class Piece:
    """One policy's text; `line` is where it begins in its file."""

    file: str
    line: int
    text: str

    def line_of(self, words: str) -> int:
        """The line that an error in the parser's or validator's `words` is about, as near as its
        quoted names tell; else where the policy begins.
        """
        for name in reversed(_QUOTED.findall(words)):
            at = self.text.find(name)
            if at >= 0 and not name.startswith("policy"):
                return self.line + self.text.count("\n", 0, at)
        return self.line


def pieces(file: str, text: str) -> list[Piece]:
    """The policies of a file, in their order."""
    found = []
    begin = 0
    for token in _TOKEN.finditer(text):
        if token[0] == ";":
            found.append(_piece(file, text, begin, token.end()))
            begin = token.end()
    rest = _piece(file, text, begin, len(text))
    return [*found, rest] if rest.text.strip() else found


def _piece(file: str, text: str, begin: int, end: int) -> Piece:
    blank = _BLANK.match(text, begin, end)
    start = blank.end() if blank else begin
    return Piece(file, text.count("\n", 0, start) + 1, text[start:end])


def plain(words: str) -> str:
    """An error of Cedar's in one line, without the names it gives to policies."""
    return _FOR.sub("", " ".join(words.split()), count=1)
