"""What the grammar's library leaves out."""

from __future__ import annotations

import pytest

from gateway.policy.sql import analyse


@pytest.mark.parametrize(
    ("text", "detail", "hint"),
    [
        ("drop operator === (int)", "", "Use NONE to denote the missing argument"),
        ("create policy p on t as ugly", "", "Only PERMISSIVE or RESTRICTIVE policies"),
        ("create publication p for a", "One of TABLE or TABLES IN SCHEMA must", ""),
        (r"select U&'wrong: \061'", "", r"Unicode escapes must be \XXXX or \+XXXXXX."),
        (r"select E'wrong: \u061'", "", r"Unicode escapes must be \uXXXX or \UXXXXXXXX."),
        ("selec 1", "", ""),
    ],
)
def test_details_and_hints_are_the_servers(text: str, detail: str, hint: str) -> None:
    (statement,) = analyse(text)
    assert statement.error
    assert statement.detail.startswith(detail) and bool(statement.detail) == bool(detail)
    assert statement.hint.startswith(hint) and bool(statement.hint) == bool(hint)
