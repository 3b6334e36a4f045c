"""Texts are parsed once while they are looked into."""

from __future__ import annotations

import gc
from typing import Any

import pytest
from pglast import parser

from gateway.masking.veil import Veil
from gateway.policy import trees
from gateway.policy.cases import snapshot
from gateway.policy.facts import SessionNames
from gateway.policy.resolve import Resolver
from gateway.policy.sql import Analyser
from gateway.policy.trees import Trees
from tests.gateway.masking.shop import HIDDEN


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is parsed."""
    seen: list[str] = []
    parse = parser.parse_sql_json

    def noted(text: str) -> Any:
        seen.append(text)
        return parse(text)

    monkeypatch.setattr(trees.parser, "parse_sql_json", noted)
    return seen


def test_a_text_that_was_just_parsed_is_not_parsed_again(parsed: list[str]) -> None:
    made = Trees()
    first = made("select 1")
    assert made("select 2") != made("select 1") == first
    assert parsed == ["select 1", "select 2"]


def test_only_the_latest_are_kept(parsed: list[str]) -> None:
    made = Trees(most=2_000)
    for number in range(100):
        made(f"select {number}")
    assert sum(len(text) + len(tree) for text, tree in made._known.items()) == made._held <= 2_000
    made("select 99")
    assert len(parsed) == 100
    made("select 1")
    assert len(parsed) == 101


def test_what_is_too_large_is_parsed_and_not_kept() -> None:
    made = Trees(most=10)
    assert made("select 1") == parser.parse_sql_json("select 1")
    assert (made._held, len(made._known)) == (0, 0)


def test_a_text_that_does_not_parse_is_not_remembered(parsed: list[str]) -> None:
    made = Trees()
    for _ in range(2):
        with pytest.raises(parser.ParseError):
            made("selct")
    assert (len(parsed), made._held) == (2, 0)


def test_who_looks_into_a_new_statement_parses_it_once_between_them(parsed: list[str]) -> None:
    text = "select upper(c.email) as unlike_any_other from public.customers c"
    (statement,) = Analyser()(text)
    assert Veil(HIDDEN).plan(statement.text).action == "rewrite"
    resolver = Resolver(snapshot({"tables": {"public.customers": {"columns": ["email"]}}}))
    assert resolver(statement, SessionNames()).columns_read == {"public.customers.email"}
    assert parsed == [text]


CUSTOMERS = Resolver(
    snapshot({"tables": {"public.customers": {"columns": ["id", "email", "ssn"]}}})
)
MANY = ", ".join(map(str, range(20_000)))


@pytest.mark.parametrize(
    "text",
    [
        "select id from customers where id in ({0}, length(ssn), {0})",
        "select id from customers where id in ({0}, (select max(length(ssn)) from customers), {0})",
        "select array[{0}, length(ssn), {0}] from customers",
        "select coalesce({0}, length(ssn), {0}) from customers",
        "values ({0}), ((select max(length(ssn)) from customers)), ({0})",
        "select id from customers where id = any(array[{0}]) and 1 + length(ssn) = 3",
    ],
)
def test_among_many_constants_what_is_none_is_found(text: str) -> None:
    (statement,) = Analyser()(text.format(MANY))
    assert "public.customers.ssn" in CUSTOMERS(statement, SessionNames()).columns_read
    assert Veil(HIDDEN).plan(statement.text).action in ("rewrite", "refuse")


def test_many_constants_alone_are_nothing_but_that() -> None:
    (statement,) = Analyser()(f"select id from customers where id in ({MANY})")
    facts = CUSTOMERS(statement, SessionNames())
    assert (facts.columns_read, facts.has_where) == ({"public.customers.id"}, True)
    assert Veil(HIDDEN).plan(statement.text).action == "pass"


def test_garbage_is_collected_again_whatever_happens() -> None:
    large = f"select 1 in ({MANY})"
    assert len(trees.tree(large)) > trees._LARGE

    def fail(tree: Any) -> None:
        assert not gc.isenabled()
        # One within another, as of a function's body.
        trees.look_into(large, lambda inner: None)
        assert not gc.isenabled()
        raise KeyError

    with pytest.raises(KeyError):
        trees.look_into(large, fail)
    assert gc.isenabled()
