from __future__ import annotations

import pytest

from schemas import codec
from schemas.codec import Archive, CodecError
from schemas.events import NOBODY, Client, Context
from schemas.masking.applied import Applied, UnknownClassification, document, together
from schemas.masking.columns import Classification, ColumnMask

CONFIGURED = Classification(
    {
        "public.people.ssn": ColumnMask("pii", "full"),
        "public.people.mail": ColumnMask("pii", "email"),
    }
)


def context(target: str, digest: bytes = b"") -> Context:
    return Context(b"S" * 16, b"K" * 16, "t", "g", target, NOBODY, Client("", 0, ""), digest)


def learned(applied: Applied, target: str, **columns: tuple[str, str]) -> bytes:
    named = {f"public.people.{name}": what for name, what in columns.items()}
    key, value = codec.encode_classification(document(target, named))
    applied.learn(key, value, Archive())
    return key


def test_an_event_is_masked_by_what_its_gateway_knew_and_by_the_configuration() -> None:
    applied = Applied({"shop": CONFIGURED})
    digest = learned(
        applied, "shop", ssn=("pii", "partial"), mail=("pii", "full"), born=("phi", "year")
    )
    found = applied.of(context("shop", digest)).by_source
    assert found == {
        "public.people.ssn": ColumnMask("pii", "full"),
        "public.people.mail": ColumnMask("pii", "full"),
        "public.people.born": ColumnMask("phi", "full"),
    }


def test_what_is_classified_later_changes_nothing_of_what_was_before() -> None:
    applied = Applied({"shop": CONFIGURED})
    before = learned(applied, "shop", born=("phi", "full"))
    first = applied.of(context("shop", before))
    learned(applied, "shop", born=("phi", "full"), name=("pii", "full"))
    assert applied.of(context("shop", before)) is first
    assert applied.of(context("shop")).by_source == CONFIGURED.by_source


def test_a_classification_that_is_not_known_yet_is_none_at_all() -> None:
    applied = Applied({"shop": CONFIGURED})
    with pytest.raises(UnknownClassification):
        applied.of(context("shop", b"x" * 32))
    elsewhere = learned(applied, "hr", name=("pii", "full"))
    with pytest.raises(UnknownClassification):
        applied.of(context("shop", elsewhere))


def test_a_record_that_is_not_what_its_key_says_is_refused() -> None:
    applied = Applied({})
    key, _ = codec.encode_classification(document("shop", {"a.b.c": ("pii", "full")}))
    _, weaker = codec.encode_classification(document("shop", {}))
    with pytest.raises(CodecError):
        applied.learn(key, weaker, Archive())
    with pytest.raises(UnknownClassification):
        applied.of(context("shop", key))


def test_of_a_target_that_is_not_configured_all_configured_names_count() -> None:
    applied = Applied({"shop": CONFIGURED})
    digest = learned(applied, "new", name=("pii", "full"))
    assert applied.of(context("new", digest)).by_name.keys() == {"ssn", "mail", "name"}


def test_equal_columns_have_equal_digests_in_any_order() -> None:
    one = {"a.b.c": ("pii", "full"), "a.b.d": ("pci", "partial")}
    other = dict(reversed(one.items()))
    assert codec.encode_classification(document("shop", one)) == codec.encode_classification(
        document("shop", other)
    )


def test_the_more_severe_mask_counts_whoever_says_so() -> None:
    mild = Classification({"a.b.c": ColumnMask("pii", "email")})
    severe = Classification({"a.b.c": ColumnMask("pci", "partial")})
    for both in ((mild, severe), (severe, mild)):
        assert together(both).by_source == {"a.b.c": ColumnMask("pci", "partial")}


def test_a_copy_can_only_have_been_masked_by_what_gateways_knew() -> None:
    applied = Applied({"shop": CONFIGURED})
    earlier = learned(applied, "shop", ssn=("pii", "full"))
    named = learned(applied, "shop", mail=("pii", "email"))
    elsewhere = learned(applied, "mart", born=("phi", "year"))
    ssn = {"public.people.ssn": ColumnMask("pii", "full")}
    mail = {"public.people.mail": ColumnMask("pii", "email")}
    of = context("shop", named)
    assert applied.possible(of, Classification(mail).digest)
    assert applied.possible(of, Classification({**ssn, **mail}).digest)
    # What the event's own gateway knew is never left out, and what another target has is not taken.
    for columns in ({}, ssn, {**mail, "public.people.born": ColumnMask("phi", "full")}):
        assert not applied.possible(of, Classification(columns).digest)
    assert not applied.possible(of, "no digest")
    assert applied.possible(context("shop"), "the configuration alone, whatever it was")
    for unknown in (b"x" * 32, elsewhere):
        with pytest.raises(UnknownClassification):
            applied.possible(context("shop", unknown), "")
    later = learned(applied, "shop", born=("phi", "year"))
    assert earlier != later
    born = {"public.people.born": ColumnMask("phi", "full")}
    assert applied.possible(of, Classification({**mail, **born}).digest)
