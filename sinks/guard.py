"""Which queries readers may run, beyond what the engine's grants and readonly refuse. Pure.

The embedded engine is `clickhouse local`, whose only user trusts whoever types: INTO OUTFILE
writes any file, the scalar function file() reads any file, and neither asks a grant. So each
query is first written out anew by the engine's own parser (formatQuerySingleLine), which leaves
one quoting style, no comments and one statement; that text is checked here and it, not what the
client sent, is run. Nothing depends on our reading SQL as ClickHouse does.
"""

from __future__ import annotations

import re
from typing import Final

ACCESS_DENIED: Final = 497
READONLY: Final = 164

_STATEMENTS: Final = frozenset({"SELECT", "WITH", "SHOW", "DESCRIBE", "EXPLAIN", "EXISTS"})

# `file` reads local files as a function, also by name alone: arrayMap(file, ...), APPLY(file).
# `python` reads objects of this very process. The ai* functions call out.
_NAMES: Final = frozenset(
    {
        "file",
        "python",
        "executable",
        "executablepool",
        "aiclassify",
        "aiembed",
        "aiextract",
        "aifilter",
        "aigenerate",
        "airedact",
        "aisimilarity",
        "aitranslate",
    }
)

_TOKEN: Final = re.compile(
    r"""
      (?P<string>'(?:[^'\\]|\\.)*')
    | (?P<quoted>`(?:[^`\\]|\\.)*`|"(?:[^"\\]|\\.)*")
    | (?P<word>[A-Za-z_][A-Za-z0-9_]*)
    | (?P<other>.)
    """,
    re.VERBOSE | re.DOTALL,
)


class Refused(Exception):
    """A query that is not run, with ClickHouse's error number for it."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


def check(formatted: str) -> None:
    """Raise Refused unless `formatted`, as formatQuerySingleLine wrote it, only reads tables."""
    words = []
    for token in _TOKEN.finditer(formatted):
        kind = token.lastgroup
        if kind == "word":
            words.append(token[0])
        elif kind == "quoted":
            words.append(token[0][1:-1])
        elif kind == "other" and token[0] in "'`\"":
            raise Refused(ACCESS_DENIED, "Unbalanced quotes")
    first = words[0].upper() if words else ""
    if first not in _STATEMENTS:
        raise Refused(READONLY, "Cannot execute query in readonly mode")
    for before, word in zip(["", *words], words, strict=False):
        if before.upper() == "INTO" and word.upper() == "OUTFILE":
            raise Refused(ACCESS_DENIED, "INTO OUTFILE is not available to readers of the history")
        if word.lower() in _NAMES:
            raise Refused(ACCESS_DENIED, f"{word} is not available to readers of the history")
