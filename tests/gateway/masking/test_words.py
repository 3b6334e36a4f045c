"""Errors and start-up settings as a person without `see_clear` meets them."""

from __future__ import annotations

import pytest

from gateway.masking.veil import Veil
from tests.gateway.masking.shop import HIDDEN

VEIL = Veil(HIDDEN)
SECRET = "417-55-9036"


@pytest.mark.parametrize(
    "fields",
    [
        {"C": "P0001", "M": f"is {SECRET}", "R": "exec_stmt_raise"},
        {"C": "42703", "M": f"is {SECRET}", "D": SECRET, "P": "1", "R": "exec_stmt_raise"},
        {"C": "23505", "M": "x", "D": SECRET, "n": SECRET, "t": SECRET, "R": "exec_stmt_raise"},
        {"C": "XX000", "M": SECRET, "F": "plpy_elog.c"},
        {"C": "22P02", "M": f'invalid input syntax for type integer: "{SECRET}"'},
        {"C": "42703", "M": f'column "{SECRET}" does not exist', "W": "PL/pgSQL function f()"},
        {"C": "42P01", "M": f'relation "{SECRET}" does not exist', "q": f"select {SECRET}"},
        {"C": "23505", "M": "duplicate key", "D": f"Key (ssn)=({SECRET}) already exists."},
        {"C": "XX000", "M": "bad 417559036", "W": "somewhere"},
    ],
)
def test_no_word_holds_data(fields: dict[str, str]) -> None:
    told = VEIL.words(fields, "select 1 -- " + ("" if fields["C"] != "22P02" else SECRET))
    assert SECRET not in repr(told)
    assert "417559036" not in repr(told)
    assert told["C"] == fields["C"]


def test_what_was_typed_is_quoted_where_it_is_at_fault() -> None:
    fields = {"C": "22P02", "M": 'invalid input syntax for type integer: "abc"', "P": "8"}
    assert VEIL.words(fields, "select 'abc'::int") == fields
    fields = {"C": "42703", "M": 'column "nosuch" does not exist', "P": "8", "H": "Perhaps x."}
    assert VEIL.words(fields, "select nosuch") == fields


@pytest.mark.parametrize(
    "options",
    [
        "-c search_path=hr",
        "--search-path=hr",
        "-csearch_path=hr",
        "-c application_name='a -c search_path=hr -c app.x='",
        '-c application_name="a -c search_path=hr"',
        "-c sea\\rch_path=hr",
        "-c plpgsql.extra_warnings=all",
        "-x",
    ],
)
def test_options_are_read_as_the_server_reads_them(options: str) -> None:
    assert VEIL.startup({"user": "a", "options": options})


def test_harmless_options_pass() -> None:
    assert not VEIL.startup({"options": "-c datestyle=ISO\\ DMY --statement-timeout=5"})
