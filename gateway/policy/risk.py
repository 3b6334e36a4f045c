"""How much harm a statement may do, with the reasons. Pure."""

from __future__ import annotations

from typing import Final, Protocol

from gateway.policy.facts import RISKS

_CRITICAL_KINDS: Final = {
    "alter_system": "it changes the server's settings",
    "createdb": "it makes a database",
    "dropdb": "it drops a database",
    "drop_owned": "it drops everything of a role",
}
_BY_CLASS: Final = {
    "drop": "high",
    "truncate": "high",
    "grant": "high",
    "role": "high",
    "extension": "high",
    "classify": "high",
    "system": "critical",
    "create": "medium",
    "alter": "medium",
    "comment": "medium",
    "maintenance": "low",
    "temporary": "low",
}
_WORDS: Final = {
    "drop": "it drops",
    "truncate": "it empties tables",
    "grant": "it changes privileges",
    "role": "it changes roles",
    "extension": "it changes extensions or languages",
    "system": "it changes the server's settings",
    "classify": "it changes what is classified",
    "create": "it creates",
    "alter": "it alters",
    "comment": "it comments",
    "maintenance": "it maintains tables",
    "temporary": "it makes a temporary relation",
}


class Found(Protocol):
    """What risk is judged by; see gateway.policy.resolve.Work."""

    kinds: set[str]
    reads: set[str]
    writes: set[str]
    functions: set[str]
    ddl: set[str]
    files: set[str]
    links: set[str]
    unknown: set[str]
    notes: set[tuple[str, str]]
    wheres: list[bool]
    opaque: bool


def assess(work: Found) -> tuple[str, tuple[str, ...]]:
    """(class, reasons, the gravest first)."""
    found = set(work.notes)
    found |= {("critical", words) for kind, words in _CRITICAL_KINDS.items() if kind in work.kinds}
    found |= {("critical", f"it reaches files or programs of the server: {f}") for f in work.files}
    found |= {("critical", f"it reaches outside of the database: {link}") for link in work.links}
    found |= {(_BY_CLASS[ddl], _WORDS[ddl]) for ddl in work.ddl}
    found |= {("high", f"not understood: {what}") for what in work.unknown}
    if not all(work.wheres) and "truncate" not in work.ddl:
        found.add(("high", "an UPDATE or DELETE without a WHERE that restricts it"))
    if work.writes and not work.ddl:
        found.add(("medium", "it writes"))
    if work.opaque:
        found.add(("medium", "it runs code that may change the session"))
    if not found:
        return ("low", ("it reads",)) if work.reads or work.functions else ("none", ())
    ordered = sorted(found, key=lambda one: (-RISKS.index(one[0]), one[1]))
    return ordered[0][0], tuple(words for _, words in ordered)
