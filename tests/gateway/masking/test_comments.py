"""What comments classify, and that they never make less of what the configuration hides."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.masking import changes
from gateway.masking.comments import Comments, judge
from gateway.masking.hidden import Equality, Mask
from gateway.masking.knowledge import Knowledge, lineage
from schemas.events import ClassificationChange

TABLES = {
    1: ("people", ("id", "ssn", "mail", "city")),
    2: ("log", ("id", "note")),
    3: ("log_2026", ("id", "note")),
    4: ("seen", ("tag", "mail")),
    5: ("orders", ("id", "of", "note")),
}
CLASSES = {"pii": Mask("pii", "partial", use="refuse", equality=Equality("support", 5))}


def known(*comments: tuple[int, str, str, tuple[str, ...]]) -> Knowledge:
    columns = tuple(
        (oid, "public", table, name, number, "text", "text", 0)
        for oid, (table, names) in TABLES.items()
        for number, name in enumerate(names, 1)
    )
    return Knowledge(
        columns=columns,
        relations=tuple(("public", table) for table, _ in TABLES.values()),
        inherited=((3, 2),),
        views=((4, "SELECT p.ssn AS tag, p.mail FROM public.people p"),),
        generated=(),
        functions=(("upper", True, True),),
        operators=(),
        database="shop",
        path=("public",),
        referring=((5, "of", 1, "ssn"),),
        comments=comments,
    )


def judged(
    *comments: tuple[int, str, str, tuple[str, ...]], configured: tuple[str, ...] = (),
    tokens: bool = False, classifiers: tuple[str, ...] = ("owner", "dba"),
) -> Comments:  # fmt: skip
    return judge(known(*comments), classifiers, CLASSES, configured, tokens=tokens)


SSN = "public.people.ssn"


def test_a_comment_counts_where_only_classifiers_could_have_made_it() -> None:
    found = judged(
        (1, "ssn", "gatebook:phi", ("owner",)),
        (1, "mail", "gatebook:phi mask=email", ("dba", "owner")),
        (1, "city", "gatebook:phi", ("owner", "stranger")),
        (2, "note", "the words of a customer", ("owner",)),
    )
    assert found.masks == {
        SSN: Mask("phi", "full", origin=SSN),
        "public.people.mail": Mask("phi", "email", origin="public.people.mail"),
    }
    assert found.ignored == {"public.people.city": ("phi", "stranger")}
    assert found.seeds == {1: {"ssn": found.masks[SSN],
                               "mail": found.masks["public.people.mail"]}}  # fmt: skip


def test_without_classifiers_none_counts() -> None:
    found = judged((1, "ssn", "gatebook:pii", ("owner",)), classifiers=())
    assert not found.masks and found.ignored == {SSN: ("pii", "owner")}


def test_what_a_comment_does_not_say_its_class_does() -> None:
    found = judged(
        (1, "ssn", "gatebook:pii", ("owner",)),
        (1, "mail", "gatebook:pii mask=full", ("owner",)),
    ).masks
    assert found[SSN] == Mask(
        "pii", "partial", equality=Equality("support", 5), origin=SSN, use="refuse"
    )
    # What names a mask of its own is looked up by nobody.
    assert found["public.people.mail"] == Mask(
        "pii", "full", origin="public.people.mail", use="refuse"
    )


@pytest.mark.parametrize("text", ["gatebook:pii mask=none", "gatebook:pii mask=token"])
def test_what_is_wrong_with_a_comment_costs_the_mask_never_the_class(text: str) -> None:
    found = judged((1, "ssn", text, ("owner",)))
    assert found.masks[SSN] == Mask("pii", "full", origin=SSN, use="refuse")
    assert found.faults.keys() == {SSN}


def test_with_a_key_there_are_tokens() -> None:
    found = judged((1, "ssn", "gatebook:phi mask=token", ("owner",)), tokens=True)
    assert found.masks[SSN].name == "token" and not found.faults


def test_on_a_configured_column_a_comment_says_nothing() -> None:
    found = judged((1, "ssn", "gatebook:public mask=partial", ("owner",)), configured=(SSN,))
    assert found == Comments({}, {}, {}, {})


# --- what follows ---


def names(masks: dict[int, dict[str, Mask]]) -> set[str]:
    return {f"{TABLES[oid][0]}.{name}" for oid, found in masks.items() for name in found}


def test_comments_are_followed_as_the_configuration_is() -> None:
    found = judged((1, "ssn", "gatebook:phi", ("owner",)), (3, "note", "gatebook:x", ("owner",)))
    masks = lineage(known(), {}, (), found.seeds)
    assert names(masks) == {"people.ssn", "seen.tag", "orders.of", "log.note", "log_2026.note"}
    assert masks[4]["tag"].origin == SSN
    # A parent shows its children's rows.
    assert masks[2]["note"].origin == "public.log_2026.note"


def test_a_comment_on_a_view_hides_its_column_alone() -> None:
    found = judged((4, "mail", "gatebook:phi", ("owner",)))
    assert names(lineage(known(), {}, (), found.seeds)) == {"seen.mail"}


DECLARED = {
    SSN: Mask("pii", "full", use="refuse"),
    "public.log.note": Mask("secret", "full"),
}
_NOTES = st.sampled_from(
    [(oid, name) for oid, (_, columns) in TABLES.items() for name in columns]
)  # fmt: skip
_TAGS = st.sampled_from(["gatebook:public mask=partial", "gatebook:pii", "gatebook:pii mask=null"])


@given(st.dictionaries(_NOTES, _TAGS, max_size=8))
def test_no_comment_makes_less_of_what_the_configuration_hides(given_: dict[Any, str]) -> None:
    comments = [(oid, name, tag, ("owner",)) for (oid, name), tag in given_.items()]
    alone = lineage(known(), DECLARED)
    found = judged(*comments, configured=tuple(DECLARED))
    both = lineage(known(), DECLARED, (), found.seeds)
    for oid, columns in alone.items():
        for name, mask in columns.items():
            now = both[oid][name]
            assert now == mask or (now.name == "full" and not now.origin and now.use >= mask.use)
    assert names(both) >= names(alone) | {f"{TABLES[oid][0]}.{name}" for oid, name in given_}


# --- what is recorded ---


def said(*comments: tuple[int, str, str, tuple[str, ...]]) -> changes.Said:
    return changes.said({"a.b.c": ("pci", "full")}, judged(*comments))


def brief(found: list[ClassificationChange]) -> list[tuple[str, str, str, str]]:
    return [(each.column, each.change, each.mask, each.source) for each in found]


OWN, OTHER = ("owner",), ("owner", "stranger")
NEW = (1, "ssn", "gatebook:phi", OWN)
CHANGED = (1, "ssn", "gatebook:phi mask=year", OWN)
TAKEN = (1, "ssn", "gatebook:phi", OTHER)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ([], [NEW], [(SSN, "added", "full", "comment")]),
        ([NEW], [NEW], []),
        ([NEW], [CHANGED], [(SSN, "changed", "year", "comment")]),
        ([NEW], [], [(SSN, "removed", "full", "comment")]),
        ([], [TAKEN], [(SSN, "ignored", "", "comment")]),
        ([NEW], [TAKEN], [(SSN, "removed", "full", "comment"), (SSN, "ignored", "", "comment")]),
        ([TAKEN], [NEW], [(SSN, "added", "full", "comment")]),
        ([TAKEN], [], []),
    ],
)
def test_changes_are_told(before: list[Any], after: list[Any], expected: list[Any]) -> None:
    assert brief(changes.between(said(*before), said(*after))) == expected


def test_at_first_everything_is_new_and_the_configuration_is_named() -> None:
    assert brief(changes.between({}, said())) == [("a.b.c", "added", "full", "configuration")]
