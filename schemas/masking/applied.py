"""Which columns count as classified for an event's audit copy. Pure.

That is what the configuration says together with what the gateway knew when it made the event,
which the event names by its SHA-256: more severe of the two, and the same however often and
whenever the event is masked.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Final

from schemas.codec import Archive, CodecError
from schemas.events import ClassifiedColumn, Context, TargetClassification
from schemas.masking.columns import Classification, ColumnMask
from schemas.masking.masks import SEVERITY, of_audit_copy

_UNCLASSIFIED: Final = Classification({})
_REMEMBERED: Final = 256
_NONE: Final = b""


class UnknownClassification(CodecError):
    """The event names one that is not known (yet): read gatebook.classifications and retry."""

    def __init__(self, digest: bytes) -> None:
        super().__init__(f"unknown classification {digest.hex()}")
        self.digest = digest


def document(target: str, columns: Mapping[str, tuple[str, str]]) -> TargetClassification:
    """Of `schema.table.column` to class and mask. Equal ones have equal bytes."""
    return TargetClassification(
        target,
        [
            ClassifiedColumn(column, classification, mask)
            for column, (classification, mask) in sorted(columns.items())
        ],
    )


def together(classifications: Iterable[Classification]) -> Classification:
    """Columns of all of them; of two masks for one the more severe."""
    columns: dict[str, ColumnMask] = {}
    for classification in classifications:
        for source, column in classification.by_source.items():
            known = columns.get(source)
            if known is None or SEVERITY[column.mask] > SEVERITY[known.mask]:
                columns[source] = column
    return Classification(columns) if columns else _UNCLASSIFIED


class Applied:
    """The classification of an event."""

    def __init__(self, configured: Mapping[str, Classification]) -> None:
        self._configured = dict(configured)
        # A target that is not configured here may be configured at a gateway: all we know of
        # its columns are their names at the other targets.
        self._elsewhere = together(configured.values())
        self._known: dict[bytes, TargetClassification] = {}
        self._made: OrderedDict[tuple[str, bytes], Classification] = OrderedDict()
        self._possible: dict[tuple[str, bytes], frozenset[str]] = {}

    def learn(self, key: bytes, value: bytes, archive: Archive) -> None:
        """Take in a gatebook.classifications record. Raises CodecError for what is none."""
        if hashlib.sha256(value).digest() != key:
            raise CodecError("a classification that is not what its key says")
        self._known[key] = archive.decode_classification(value)
        self._possible.clear()

    def of(self, context: Context) -> Classification:
        """Equal ones are one object, while they are remembered. Raises UnknownClassification."""
        key = (context.target, context.classification)
        made = self._made.get(key)
        if made is None:
            made = self._made[key] = self._make(*key)
            if len(self._made) > _REMEMBERED:
                self._made.popitem(last=False)
        return made

    def possible(self, context: Context, digest: str) -> bool:
        """Whether a copy could have been masked by a classification of that digest, under whatever
        configuration a gateway has known: what an event names, together with anything that was
        ever known of its target. Raises UnknownClassification.
        """
        named = context.classification
        # Of an event that names none, the configuration of that time was all there was.
        if named == _NONE:
            return True
        key = (context.target, named)
        found = self._possible.get(key)
        if found is None:
            mine = self._columns(*key)
            found = self._possible[key] = frozenset(
                together((mine, self._columns(context.target, other))).digest
                for other, known in self._known.items()
                if known.target == context.target
            )
        return digest in found

    def _columns(self, target: str, digest: bytes) -> Classification:
        known = self._known.get(digest)
        if known is None or known.target != target:
            raise UnknownClassification(digest)
        return Classification(
            {
                each.column: ColumnMask(each.classification, of_audit_copy(each.mask))
                for each in known.columns
            }
        )

    def _make(self, target: str, digest: bytes) -> Classification:
        configured = self._configured.get(target, self._elsewhere)
        if digest == _NONE:
            return configured
        return together((configured, self._columns(target, digest)))
