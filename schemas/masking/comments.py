"""`gatebook:<class>` in a column's comment. Pure.

    COMMENT ON COLUMN people.ssn IS 'as printed on the card. gatebook:pii mask=partial';

It goes from the word to the end of its line; what stands before it, and on other lines, is for
people. Whatever begins so classifies: what is wrong with it costs the mask, never the class.
"""

from __future__ import annotations

import re
from typing import Final, Literal, get_args

import msgspec

MaskName = Literal["full", "partial", "email", "token", "year", "bucket", "null", "literal"]
MASKS: Final = frozenset(get_args(MaskName))

_TAG: Final = re.compile(r"gatebook:([^\r\n]*)", re.IGNORECASE)
_CLASS: Final = re.compile(r"[a-z0-9](?:[a-z0-9_-]{0,62}[a-z0-9])?", re.IGNORECASE)
UNNAMED: Final = "unnamed"
"""The class of a tag that names none."""


class Tag(msgspec.Struct, frozen=True):
    """What a comment says of its column. `fault` is what is wrong with it; then it is masked in
    full. `says_mask`: it names a mask.
    """

    classification: str
    mask: MaskName = "full"
    size: int = 0
    fault: str = ""
    says_mask: bool = False


def is_tagged(comment: str | None) -> bool:
    """Whether a comment classifies its column."""
    return comment is not None and _TAG.search(comment) is not None


def read(comment: str | None) -> Tag | None:
    """What it says; None where it classifies nothing."""
    found = _TAG.findall(comment or "")
    if not found:
        return None
    named = _CLASS.match(found[0])
    if named is None:
        return Tag(UNNAMED, fault="it names no class")
    name = named.group().lower()
    if len(found) > 1:
        return Tag(name, fault="it classifies more than once")
    rest = found[0][named.end() :]
    if rest and not rest[0].isspace():
        return Tag(name, fault="the class is not a name")
    options: dict[str, str] = {}
    for word in rest.split():
        key, equals, value = word.partition("=")
        if not equals or key not in ("mask", "size") or key in options:
            return Tag(name, fault="what follows the class is not mask=NAME or size=NUMBER, once")
        options[key] = value
    mask = options.get("mask", "full")
    if mask not in MASKS:
        return Tag(name, fault="there is no such mask")
    if (mask == "bucket") != ("size" in options):
        return Tag(name, fault="a bucket needs a size, and nothing else has one")
    size = options.get("size", "0")
    if not (size.isascii() and size.isdigit() and len(size) < 16) or (
        mask == "bucket" and int(size) < 1
    ):
        return Tag(name, fault="the size is not a number from 1 on")
    says = "mask" in options
    return Tag(name, mask, int(size), says_mask=says)  # type: ignore[arg-type]


def written(classification: str, mask: str, size: int = 0) -> str:
    """The tag that says this."""
    options = "" if mask == "full" else f" mask={mask}"
    return f"gatebook:{classification}{options}" + (f" size={size}" if mask == "bucket" else "")
