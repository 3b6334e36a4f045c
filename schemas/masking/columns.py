"""What a target's owner declared classified."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from typing import Final

from schemas.masking.masks import SEVERITY, Mask

_NEVER: Final = re.compile(r"(?!)")


@dataclass(frozen=True, slots=True)
class ColumnMask:
    """How values of a column are masked, and the class they are said to be of."""

    classification: str
    mask: Mask


class Classification:
    """Classified columns of one target, by `schema.table.column`. Immutable."""

    def __init__(self, columns: Mapping[str, ColumnMask]) -> None:
        self.by_source: Final = dict(columns)
        by_name: dict[str, ColumnMask] = {}
        tables: set[str] = set()
        for source, column in columns.items():
            *path, name = source.lower().split(".")
            known = by_name.get(name)
            if known is None or SEVERITY[column.mask] > SEVERITY[known.mask]:
                by_name[name] = column
            if path:
                tables.add(path[-1])
        self.by_name: Final[Mapping[str, ColumnMask]] = by_name
        self.tables: Final = frozenset(tables)
        self._words = _pattern(by_name.keys() | tables, r"(?<!\w)", r"(?!\w)")
        self._parts = _pattern(by_name.keys() | tables, "", "")

    @cached_property
    def digest(self) -> str:
        """SHA-256 of what is classified and how it is masked, in hexadecimal: two that mask alike
        have one digest."""
        columns = sorted(
            (source, column.classification, column.mask)
            for source, column in self.by_source.items()
        )
        text = json.dumps(columns, separators=(",", ":"))
        return sha256(b"gatebook/classification/v1\0" + text.encode()).hexdigest()

    def __bool__(self) -> bool:
        return bool(self.by_source)

    def words(self, text: str) -> frozenset[str]:
        """Names of classified columns and of their tables that `text` holds as words."""
        return frozenset(match.lower() for match in self._words.findall(text))

    def near(self, text: str) -> bool:
        """Whether `text` holds such a name at all, even within a word (`customers_ssn_key`)."""
        return self._parts.search(text) is not None


def _pattern(names: set[str], before: str, after: str) -> re.Pattern[str]:
    if not names:
        return _NEVER
    choice = "|".join(sorted(map(re.escape, names), key=len, reverse=True))
    return re.compile(f"{before}(?:{choice}){after}", re.IGNORECASE)
