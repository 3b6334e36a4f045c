from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors import diagnostics
from schemas.masking.columns import Classification, ColumnMask

SHOP = Classification({"public.customers.ssn": ColumnMask("pii", "full")})
NOTHING = Classification({})


def scrub(fields: dict[str, str], classification: Classification = SHOP) -> dict[str, str]:
    return diagnostics.scrub(fields, classification, set())


def test_a_violated_key_names_its_columns_only() -> None:
    fields = {
        "S": "ERROR",
        "C": "23505",
        "M": 'duplicate key value violates unique constraint "orders_pkey"',
        "D": "Key (name, city)=(Bob (the first), Boston) already exists.",
    }
    shown = scrub(fields, NOTHING)
    assert shown == {
        "S": "ERROR",
        "C": "23505",
        "M": 'duplicate key value violates unique constraint "orders_pkey"',
        "D": "Key (name, city)=(***) already exists.",
    }


def test_a_failing_row_is_hidden() -> None:
    shown = scrub({"D": "Failing row contains (1, Bob, 123-45-6789, null)."}, NOTHING)
    assert shown["D"] == "Failing row contains (***)."


@pytest.mark.parametrize(
    ("fields", "secret"),
    [
        ({"C": "22P02", "M": 'invalid input syntax for type integer: "Miller"'}, "Miller"),
        ({"C": "22007", "M": "invalid date 'Miller'"}, "Miller"),
        ({"C": "P0001", "M": 'customer "Miller" unknown', "t": "customers"}, "Miller"),
        ({"W": "COPY customers, line 1, column ssn: \"Miller\""}, "Miller"),
        ({"W": "unnamed portal with parameters: $1 = 'Miller', $2 = 'O''Neil'"}, "Neil"),
        ({"W": "SQL statement \"select ssn where x = 'Miller'\"\nPL/pgSQL function f()"}, "Miller"),
        ({"q": "insert into customers values ('Miller')"}, "Miller"),
        ({"M": "no such customer: bob@example.com"}, "bob@"),
        ({"H": "call 212-555-0187"}, "0187"),
        ({"n": "123-45-6789"}, "6789"),
        ({"X": "123-45-6789"}, "6789"),
    ],
)  # fmt: skip
def test_values_in_texts_are_hidden(fields: dict[str, str], secret: str) -> None:
    assert secret not in str(scrub(fields))


def test_ordinary_texts_stay() -> None:
    fields = {"C": "42P01", "M": 'relation "orderz" does not exist', "P": "15", "R": "parserOpen"}
    assert scrub(fields) == fields


def test_what_was_masked_is_said() -> None:
    found: set[str] = set()
    diagnostics.scrub({"D": "Key (a)=(b) exists", "M": "bob@example.com"}, SHOP, found)
    assert found == {"quoted", "email"}


@given(st.dictionaries(st.sampled_from("SCMDHWqXn"), st.text(max_size=60)))
def test_no_text_makes_it_fail(fields: dict[str, str]) -> None:
    assert diagnostics.scrub(fields, SHOP, set()).keys() == fields.keys()
