"""The SQL inside of functions and DO blocks. Pure.

PL/pgSQL is parsed by PostgreSQL's own grammar for it. SQL made at run time (EXECUTE) cannot be
read, and is said to be there.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Any, Final

import orjson
from pglast import parser

# How libpg_query marks what an expression's text is (RawParseMode).
_STATEMENT: Final = 0
_EXPRESSION: Final = 2
_ASSIGNED: Final = re.compile(r":=|=")
_WORDS: Final = frozenset(
    {"DELETE_P", "INSERT", "UPDATE", "MERGE", "TRUNCATE", "SELECT", "COPY", "CALL", "DROP", "ALTER"}
)


class Body:
    """Texts of a body's SQL; `dynamic` where some of it is made at run time."""

    __slots__ = ("dynamic", "texts")

    def __init__(self, texts: list[str], dynamic: bool = False) -> None:
        self.texts = texts
        self.dynamic = dynamic


def body_of(language: str, definition: str, source: str) -> Body | None:
    """The SQL of a function. `definition` is its CREATE FUNCTION or DO, `source` its body.

    None where it cannot be read.
    """
    if language == "sql":
        return Body([source])
    if language != "plpgsql":
        return None
    try:
        tree = orjson.loads(parser.parse_plpgsql_json(definition))
    except (parser.ParseError, orjson.JSONDecodeError, ValueError, UnicodeError):
        return None
    texts: list[str] = []
    dynamic = False
    ahead: list[Any] = [tree]
    while ahead:
        one = ahead.pop()
        if isinstance(one, list):
            ahead += one
        elif isinstance(one, dict):
            for key, value in one.items():
                if "dyn" in key:
                    dynamic = True
                if key == "PLpgSQL_expr":
                    text = _text(value.get("query", ""), value.get("parseMode", 0))
                    if text is None:
                        return None
                    texts.append(text)
                else:
                    ahead.append(value)
    return Body(texts, dynamic) if _complete(source, texts) else None


def _text(query: str, mode: int) -> str | None:
    if mode == _STATEMENT:
        return query
    if mode == _EXPRESSION:
        return f"SELECT {query}"
    # `a := b`, `a.b[c] = d`: both sides are expressions. Which sign assigns is the first that
    # stands in no bracket.
    depth = 0
    for at, letter in enumerate(query):
        if letter in "[(":
            depth += 1
        elif letter in "])":
            depth -= 1
        elif letter in "'\"" and depth == 0:
            return None
        elif not depth:
            sign = _ASSIGNED.match(query, at)
            if sign is not None:
                return f"SELECT {query[:at]}, ({query[sign.end() :]})"
    return None


def _complete(source: str, texts: list[str]) -> bool:
    """Whether every statement of the source came out: a parser that leaves one out is blind."""
    try:
        there = _count(source)
        found = _count(";".join(texts))
    except (parser.ParseError, ValueError, UnicodeError):
        return False
    return all(found[word] >= number for word, number in there.items())


def _count(text: str) -> Counter[str]:
    return Counter(token.name for token in parser.scan(text) if token.name in _WORDS)


def options(value: dict[str, Any]) -> tuple[str, str]:
    """(language, body) of a CreateFunctionStmt or DoStmt; the body of an `AS` alone."""
    language, source = "", ""
    for option in [*value.get("options", ()), *value.get("args", ())]:
        element = option.get("DefElem", {})
        argument = element.get("arg", {})
        if element.get("defname") == "language":
            language = argument.get("String", {}).get("sval", "").lower()
        elif element.get("defname") == "as":
            items = argument.get("List", {}).get("items", [argument])
            source = items[0].get("String", {}).get("sval", "")
    return language, source
