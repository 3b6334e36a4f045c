from __future__ import annotations

from schemas.masking.columns import Classification, ColumnMask

FULL, PARTIAL, EMAIL = (
    ColumnMask("pii", "full"),
    ColumnMask("pci", "partial"),
    ColumnMask("pii", "email"),
)


def test_of_two_masks_for_a_name_the_more_severe_counts() -> None:
    columns = Classification(
        {"a.t.x": EMAIL, "b.t.x": FULL, "c.t.x": PARTIAL, "a.u.Y": EMAIL, "a.v.y": PARTIAL}
    )
    assert columns.by_name == {"x": FULL, "y": PARTIAL}


def test_names_are_found_as_words_in_any_case() -> None:
    columns = Classification({"public.Customers.SSN": FULL})
    assert columns.words('select c."Ssn" from CUSTOMERS') == {"ssn", "customers"}
    assert columns.words("select ssn_hash from customers_old") == frozenset()
    assert columns.near("unique constraint customers_ssn_key")


def test_names_are_no_expressions() -> None:
    columns = Classification({"public.t.a.c": FULL, "public.t.a|b": FULL, "public.t.(": FULL})
    assert columns.words("abc") == frozenset()
    assert columns.words("a|b") == {"a|b"}


def test_no_columns_mean_no_words() -> None:
    assert not Classification({})
    assert Classification({}).words("anything at all") == frozenset()
    assert not Classification({}).near("")
