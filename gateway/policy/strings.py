r"""Texts that the target reads while standard_conforming_strings is off. Pure.

There `'it\'s'` is one constant; to the grammar we judge by, it is `'it\'` and more. `escaped` puts
an E before each constant with a backslash: a text that means the same under either setting. That it
does is not taken from the way the E's were found, but read off the parser's own tokens (`agrees`):
the two lexers differ in nothing but the constants that begin with a bare quote, so that they run in
step as long as each of these has no backslash, or an E that nothing but the constant is touched by.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from dataclasses import dataclass
from typing import Final

from pglast import parser

_LETTER: Final = r"A-Za-z_\x80-\U0010FFFF"
_LEXEME: Final = re.compile(
    rf"""
      (?P<line> --[^\n\r]*+ )
    | (?P<block> /\* )
    | (?P<dollar> \$ (?: [{_LETTER}] [{_LETTER}0-9]*+ )?+ \$ )
    | (?P<escape> [eE]' )
    | (?P<plain> ' )
    | (?P<other> (?: [bBxX] | [uU]& ) ' )
    | (?P<name> " )
    | (?P<word> [{_LETTER}] [{_LETTER}0-9$]*+ )
    """,
    re.VERBOSE,
)
_ESCAPING_END: Final = re.compile(r"(?:[^'\\]++|''|\\.)*+'", re.DOTALL)
_ENDS: Final = {
    "escape": _ESCAPING_END,
    "plain": _ESCAPING_END,
    "other": re.compile(r"(?:[^']++|'')*+'"),
    "name": re.compile(r'(?:[^"]++|"")*+"'),
}
_BLOCK: Final = re.compile(r"/\*|\*/")
# Behind one of these an E would belong to a word or a number, or take a prefix from its quote.
_TOUCHING: Final = re.compile(rf"[{_LETTER}0-9$&'\"]")
_CONSTANTS: Final = frozenset({"SCONST", "USCONST", "BCONST", "XCONST"})
_COMMENTS: Final = frozenset({"SQL_COMMENT", "C_COMMENT"})


@dataclass(frozen=True, slots=True)
class Escaped:
    """A text with an E at each of `inserted`, which are indexes in `text`, in order.

    `unicode` is where the text had its first U&'', or -1: the target refuses all of it for that.
    """

    text: str
    inserted: tuple[int, ...]
    unicode: int = -1

    def original(self, index: int) -> int:
        """Where the text had what is at `index` now."""
        return index - bisect_left(self.inserted, index)

    def agrees(self) -> bool:
        """Whether the parser's lexer finds here what the target's finds in the text as it was."""
        try:
            tokens = parser.scan(self.text)
        except (parser.ParseError, ValueError, UnicodeError):
            return False
        missing = set(self.inserted)
        before = ""
        for token in tokens:
            if token.name in _COMMENTS:
                continue
            constant = self.text[token.start : token.end + 1] if token.name == "SCONST" else ""
            if token.start in missing:
                # After another constant, the E may have cut what the target reads as one.
                if not constant.startswith("E'") or before in _CONSTANTS:
                    return False
                missing.remove(token.start)
            elif constant.startswith("'") and "\\" in constant:
                return False
            before = token.name
        return not missing


def escaped(text: str) -> Escaped | None:
    """`text` with its constants' backslashes told, or None where that cannot be done."""
    pieces: list[str] = []
    inserted: list[int] = []
    kept = at = 0
    unicode = -1
    while (found := _LEXEME.search(text, at)) is not None:
        end = _end(text, found)
        if end is None:
            return None
        if found.lastgroup == "plain" and text.find("\\", found.end(), end) != -1:
            start = found.start()
            if start and _TOUCHING.match(text, start - 1):
                return None
            inserted.append(start + len(inserted))
            pieces += [text[kept:start], "E"]
            kept = start
        if unicode < 0 and found.group() in ("U&'", "u&'"):
            unicode = found.start()
        at = end
    return Escaped("".join((*pieces, text[kept:])), tuple(inserted), unicode)


def _end(text: str, found: re.Match[str]) -> int | None:
    """The index behind the lexeme that begins with `found`; None when it has no end."""
    kind = found.lastgroup or ""
    if kind in _ENDS:
        whole = _ENDS[kind].match(text, found.end())
        return None if whole is None else whole.end()
    if kind == "dollar":
        close = text.find(found.group(), found.end())
        return None if close == -1 else close + len(found.group())
    if kind == "block":
        depth = 0
        for mark in _BLOCK.finditer(text, found.start()):
            depth += 1 if mark.group() == "/*" else -1
            if depth == 0:
                return mark.end()
        return None
    return found.end()
