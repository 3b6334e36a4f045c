"""The seeded rows: the same every time, and of the kind that detectors look for."""

from __future__ import annotations

import re
from pathlib import Path

import phonenumbers
from stdnum import luhn

from infra.devstack.shop import CLASSIFIED, Size, copy_files, customers, orders

ROWS = list(customers(500))


def test_the_same_rows_every_time() -> None:
    assert list(customers(500)) == ROWS
    assert list(orders(50, 20)) == list(orders(50, 20))


def test_values_are_valid_in_their_kind() -> None:
    for _, _name, email, phone, ssn, card, _city, _created in ROWS:
        assert re.fullmatch(r"[a-z0-9._-]+@[a-z.]+", str(email))
        assert phonenumbers.is_possible_number(phonenumbers.parse(str(phone)))
        assert re.fullmatch(r"(?!000|666)\d{3}-(?!00)\d{2}-(?!0000)\d{4}", str(ssn))
        assert luhn.is_valid(str(card))
    valid = sum(phonenumbers.is_valid_number(phonenumbers.parse(str(row[3]))) for row in ROWS)
    assert valid > 0.9 * len(ROWS)


def test_what_must_be_unique_is() -> None:
    for column in (0, 2, 4):
        assert len({row[column] for row in ROWS}) == len(ROWS)


def test_orders_belong_to_customers() -> None:
    assert all(1 <= int(str(row[1])) <= 20 for row in orders(2_000, 20))


def test_copy_text_has_one_line_per_row_and_is_made_once(tmp_path: Path) -> None:
    size = Size(customers=20, orders=30)
    first = copy_files(size, tmp_path)
    stamps = [path.stat().st_mtime_ns for path in first]
    assert [len(path.read_text().splitlines()) for path in first] == [20, 30]
    assert [path.stat().st_mtime_ns for path in copy_files(size, tmp_path)] == stamps
    # Nothing half-made lies beside it.
    assert len(list(tmp_path.iterdir())) == 1


def test_classified_columns_exist() -> None:
    columns = {"id", "name", "email", "phone", "ssn", "card_number", "city", "created_at"}
    assert {key.rpartition(".")[2] for key in CLASSIFIED} <= columns
    assert all(key.startswith("public.customers.") for key in CLASSIFIED)
