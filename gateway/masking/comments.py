"""What the comments of a target's columns classify, and which of them count. Pure.

A comment counts where only roles that may classify could have made it. It is weaker than the
configuration: on a column that is declared there, or follows from one that is, it changes nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from gateway.masking.hidden import Mask
from gateway.masking.knowledge import Knowledge
from schemas.masking import comments
from schemas.masking.masks import HIDDEN


@dataclass(frozen=True, slots=True)
class Comments:
    """By `schema.table.column`: masks of those that count, why others do not, and what is wrong
    with one. `seeds` are the masks by relation OID and column.
    """

    masks: Mapping[str, Mask] = field(default_factory=dict)
    ignored: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    faults: Mapping[str, str] = field(default_factory=dict)
    seeds: Mapping[int, Mapping[str, Mask]] = field(default_factory=dict)


NONE = Comments()


def judge(
    knowledge: Knowledge,
    classifiers: Collection[str],
    classes: Mapping[str, Mask],
    configured: Collection[str],
    *,
    tokens: bool,
) -> Comments:
    """`classes` say how columns of a class are masked whose comment does not; `tokens`: whether
    there is a key for the mask of that name.
    """
    names = {oid: (schema, relation) for oid, schema, relation, *_ in knowledge.columns}
    masks: dict[str, Mask] = {}
    ignored: dict[str, tuple[str, str]] = {}
    faults: dict[str, str] = {}
    seeds: dict[int, dict[str, Mask]] = {}
    for oid, column, text, makers in knowledge.comments:
        tag = comments.read(text)
        if tag is None or oid not in names:
            continue
        source = ".".join((*names[oid], column))
        if source in configured:
            continue
        strangers = sorted(set(makers) - set(classifiers))
        if strangers:
            ignored[source] = (tag.classification, ", ".join(strangers))
            continue
        fault = tag.fault
        mask = _mask(tag, classes.get(tag.classification), source)
        if mask.name == "token" and not tokens:
            fault = "the target has no token_key"
        if fault:
            faults[source] = fault
            mask = Mask(tag.classification, "full", origin=source, use=mask.use, copies=mask.copies)
        masks[source] = seeds.setdefault(oid, {})[column] = mask
    return Comments(masks, ignored, faults, seeds)


def _mask(tag: comments.Tag, known: Mask | None, source: str) -> Mask:
    of_class = known if known is not None else Mask(tag.classification, "full")
    if not tag.says_mask:
        return replace(of_class, classification=tag.classification, origin=source)
    return replace(
        of_class,
        classification=tag.classification,
        name=tag.mask,
        literal=HIDDEN if tag.mask == "literal" else "",
        size=tag.size,
        equality=None,
        origin=source,
    )
