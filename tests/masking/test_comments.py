from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.masking.comments import MASKS, UNNAMED, Tag, is_tagged, read, written


@pytest.mark.parametrize(
    ("comment", "tag"),
    [
        ("gatebook:pii", Tag("pii")),
        ("gatebook:pii mask=partial", Tag("pii", "partial", says_mask=True)),
        ("GateBook:PII\tmask=email", Tag("pii", "email", says_mask=True)),
        ("as printed. gatebook:pci  mask=token ", Tag("pci", "token", says_mask=True)),
        ("of whom\ngatebook:hr-pay mask=bucket size=1000\nsee the handbook",
         Tag("hr-pay", "bucket", 1000, says_mask=True)),
        ("gatebook:pii mask=full", Tag("pii", says_mask=True)),
        ("gatebook:phi\r\nmore", Tag("phi")),
        ("size=3 gatebook:x", Tag("x")),
    ],
)  # fmt: skip
def test_what_a_comment_says(comment: str, tag: Tag) -> None:
    assert read(comment) == tag


@pytest.mark.parametrize("comment", [None, "", "pii", "gatebook", "gate book:pii", "gatebook pii"])
def test_other_comments_say_nothing(comment: str | None) -> None:
    assert read(comment) is None
    assert not is_tagged(comment)


@pytest.mark.parametrize(
    ("comment", "classification"),
    [
        ("gatebook:", UNNAMED),
        ("gatebook: pii", UNNAMED),
        ("gatebook:'pii'", UNNAMED),
        ("gatebook:pii, the number", "pii"),
        ("gatebook:pii the number", "pii"),
        ("gatebook:pii mask=none", "pii"),
        ("gatebook:pii mask=", "pii"),
        ("gatebook:pii mask=Email", "pii"),
        ("gatebook:pii mask=email mask=null", "pii"),
        ("gatebook:pii equality=true", "pii"),
        ("gatebook:pii mask=bucket", "pii"),
        ("gatebook:pii mask=bucket size=0", "pii"),
        ("gatebook:pii mask=bucket size=-5", "pii"),
        ("gatebook:pii mask=bucket size=٣", "pii"),
        ("gatebook:pii mask=bucket size=1e9", "pii"),
        ("gatebook:pii mask=bucket size=99999999999999999999", "pii"),
        ("gatebook:pii mask=email size=3", "pii"),
        ("gatebook:pii gatebook:public mask=email", "pii"),
        ("gatebook:pii mask=email\ngatebook:public", "pii"),
    ],
)
def test_what_is_wrong_is_masked_in_full_and_said(comment: str, classification: str) -> None:
    tag = read(comment)
    assert tag is not None and tag.fault
    assert (tag.classification, tag.mask, tag.size) == (classification, "full", 0)


@given(st.text(), st.text())
def test_no_text_around_it_makes_a_tag_say_nothing(before: str, after: str) -> None:
    tag = read(f"{before}gatebook:{after}")
    assert tag is not None and tag.mask in MASKS
    assert tag.mask == "full" or not tag.fault


@given(st.from_regex(r"[a-z][a-z0-9]{0,20}", fullmatch=True), st.sampled_from(sorted(MASKS)))
def test_what_is_written_is_read(classification: str, mask: str) -> None:
    tag = read(written(classification, mask, 10 if mask == "bucket" else 0))
    assert tag is not None and not tag.fault
    assert (tag.classification, tag.mask) == (classification, mask)
