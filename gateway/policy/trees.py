"""Parse trees as JSON text, by PostgreSQL's own grammar (libpg_query). Pure.

A new statement is looked into three times, one right after the other: for its kinds, for what it
does, and for how it is masked. Each asks here, so that it is parsed once.
"""

from __future__ import annotations

import gc
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final, TypeVar

import orjson
from pglast import parser

T = TypeVar("T")

_LARGE: Final = 1024 * 1024


class Trees:
    """Trees of the latest texts, up to `most` characters of both: of one statement of 2 MB, too."""

    def __init__(self, most: int = 24 * 1024 * 1024) -> None:
        self._most = most
        self._held = 0
        self._known: OrderedDict[str, str] = OrderedDict()

    def __call__(self, text: str) -> str:
        """The tree of a text. Raises what pglast raises: ParseError, ValueError and others."""
        known = self._known.get(text)
        if known is not None:
            return known
        made = str(parser.parse_sql_json(text))
        self._known[text] = made
        self._held += len(text) + len(made)
        while self._held > self._most:
            old, gone = self._known.popitem(last=False)
            self._held -= len(old) + len(gone)
        return made


tree: Final = Trees()
"""What a text means to the parser depends on nothing else: one for the process."""


def look_into(text: str, use: Callable[[dict[str, Any]], T]) -> T:
    """What `use` makes of the tree of a text, given as objects. Raises as `tree` does, and
    JSONDecodeError where it is nested too deeply.
    """
    made = tree(text)
    if len(made) < _LARGE or not gc.isenabled():
        return use(orjson.loads(made))
    # A million new objects, none of them garbage: to look through them time and again takes five
    # times as long as all else.
    gc.disable()
    try:
        return use(orjson.loads(made))
    finally:
        gc.enable()
