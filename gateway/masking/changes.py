"""What has changed of a target's classification, for the record. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.masking.comments import Comments
from schemas.events import ClassificationChange

Said = Mapping[str, ClassificationChange]


def said(configured: Mapping[str, tuple[str, str]], comments: Comments) -> Said:
    """What is said of each column, by `schema.table.column`, as if all of it were new."""
    return {
        **{
            source: ClassificationChange(source, "ignored", classification, "", "comment",
                                         f"could have been made by {makers}")
            for source, (classification, makers) in comments.ignored.items()
        },
        **{
            source: ClassificationChange(source, "added", mask.classification, mask.name, "comment",
                                         comments.faults.get(source, ""))
            for source, mask in comments.masks.items()
        },
        **{
            source: ClassificationChange(source, "added", classification, mask, "configuration", "")
            for source, (classification, mask) in configured.items()
        },
    }  # fmt: skip


def between(before: Said, after: Said) -> list[ClassificationChange]:
    """What is new, gone or otherwise, in the order of the columns' names."""
    found = []
    for source in sorted({*before, *after}):
        was, now = before.get(source), after.get(source)
        if was == now:
            continue
        if now is None:
            assert was is not None  # noqa: S101 (one of both is)
            if was.change != "ignored":
                found.append(_with(was, "removed"))
        elif now.change == "ignored":
            if was is not None and was.change != "ignored":
                found.append(_with(was, "removed"))
            found.append(now)
        else:
            known = was is not None and was.change != "ignored"
            found.append(_with(now, "changed") if known else now)
    return found


def _with(given: ClassificationChange, change: str) -> ClassificationChange:
    return ClassificationChange(
        given.column, change, given.classification, given.mask, given.source, given.reason
    )
