from __future__ import annotations

import pytest

from schemas.masking.propose import propose


@pytest.mark.parametrize(
    ("name", "kind", "values", "expected"),
    [
        ("contact", "text", ["a@b.org", "c@d.com", "none"], ("pii", "email")),
        ("x", "text", ["4111 1111 1111 1111"] * 3, ("pci", "partial")),
        ("note", "bpchar", ["536-90-4399", "219-09-9999"], ("pii", "full")),
        ("k", "text", ["sk_live_51Hx9YzQ2eLrT8vWn", "sk_live_93KdP0aQ7bXmZ4cRu"],
         ("secret", "full")),
        ("password_hash", "text", [], ("secret", "full")),
        ("last_name", "varchar", ["Miller"], ("pii", "full")),
        ("birth_date", "date", ["1990-01-01"], ("pii", "year")),
        ("salary", "numeric", ["1"], ("pii", "bucket")),
        ("home_phone", "text", ["?"], ("pii", "partial")),
    ],
)  # fmt: skip
def test_what_is_proposed(
    name: str, kind: str, values: list[str], expected: tuple[str, str]
) -> None:
    found = propose(name, kind, values)
    assert found is not None
    assert (found.classification, found.mask) == expected


@pytest.mark.parametrize(
    ("name", "kind", "values"),
    [
        ("id", "int8", ["1", "2"]),
        ("city", "text", ["Rome", "Kochfurt"]),
        ("product", "text", ["Espresso machine"]),
        ("ordered_at", "timestamptz", ["2024-01-01 00:00:00+00"]),
        ("uid", "text", ["0190c7a4-7b2e-7cc3-98c4-dc0c0c07398f"] * 3),
        ("slug", "text", ["a-quite-long-title-of-a-page"] * 3),
        ("email_sent", "bool", ["t"]),
        ("birth_date", "text", []),
        ("discard", "text", ["x"]),
        ("companyname", "text", ["x"]),
    ],
)
def test_what_is_not(name: str, kind: str, values: list[str]) -> None:
    assert propose(name, kind, values) is None


def test_the_evidence_holds_no_value() -> None:
    found = propose("x", "text", ["jane@example.org"])
    assert found is not None
    assert "jane" not in found.evidence
