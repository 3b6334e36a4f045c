"""What the target makes of a mask, compared with what the mask means."""

from __future__ import annotations

import itertools
import json
import uuid
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from gateway.masking import sqlmask
from gateway.masking.hidden import Column, Mask, Part
from tests.conftest import PostgresServer

pytestmark = pytest.mark.integration

_KEYS = {"pii": b"k" * 32}
_NONE = object()


@pytest.fixture(scope="module")
def session(postgres: PostgresServer) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(postgres.dsn, autocommit=True) as connection:
        yield connection


def shown(session: psycopg.Connection[Any], column: Column, value: str | None) -> str | None:
    """As text, of a value that is written so."""
    text = (
        f"SELECT ({sqlmask.expression(column, _KEYS)})::pg_catalog.text "
        f'FROM (SELECT %s::{column.declared} AS "v\'s ""d") AS t'
    )
    row = session.execute(text.replace("%'", "%%'").encode(), (value,)).fetchone()
    assert row is not None
    return None if row[0] is None else str(row[0])


def documents(kind: str, *parts: tuple[str, Mask]) -> Column:
    given = tuple(Part(tuple(pointer.split("/")[1:]), mask) for pointer, mask in parts)
    return Column("v's \"d", 1, kind, kind, 0, Mask("pii", "full", parts=given))


FULL, NULL, EMAIL = Mask("pii", "full"), Mask("pii", "null"), Mask("pii", "email")
LITERAL, BUCKET = Mask("pii", "literal", "x'\\y"), Mask("pii", "bucket", size=10)


@pytest.mark.parametrize(
    ("pointer", "mask", "before", "after"),
    [
        ("/ssn", FULL, {"ssn": "1", "a": "b"}, {"ssn": "***", "a": "b"}),
        ("/ssn", FULL, {"a": 1}, {"a": 1}),
        ("/ssn", FULL, {"ssn": None}, {"ssn": None}),
        ("/ssn", FULL, {"ssn": 5}, {"ssn": None}),
        ("/ssn", FULL, {"ssn": True}, {"ssn": None}),
        ("/ssn", FULL, {"ssn": ["1", {"b": "2"}]}, {"ssn": None}),
        ("/ssn", NULL, {"ssn": "1"}, {"ssn": None}),
        ("/ssn", EMAIL, {"ssn": "ann@a.test"}, {"ssn": "a***@a.test"}),
        ("/ssn", LITERAL, {"ssn": "1"}, {"ssn": "x'\\y"}),
        ("/ssn", Mask("pii", "partial"), {"ssn": "12-345-6789"}, {"ssn": "**-***-6789"}),
        ("/ssn", Mask("pii", "year"), {"ssn": "2000-01-01"}, {"ssn": None}),
        ("/n", BUCKET, {"n": 57.5}, {"n": 50}),
        ("/n", BUCKET, {"n": "57"}, {"n": None}),
        ("/a/b", FULL, {"a": {"b": "1", "c": "2"}}, {"a": {"b": "***", "c": "2"}}),
        ("/a/b", FULL, {"a": "b"}, {"a": "b"}),
        ("/a/b", FULL, {"a": ["b"]}, {"a": ["b"]}),
        ("/a/b", FULL, ["a", "b"], ["a", "b"]),
        ("/a/b", FULL, "a", "a"),
        ("/a/b", FULL, None, None),
        ("/a/1", FULL, {"a": ["x", "y", "z"]}, {"a": ["x", "***", "z"]}),
        ("/a/1", FULL, {"a": {"1": "y", "2": "z"}}, {"a": {"1": "***", "2": "z"}}),
        ("/it's \"{},\\", FULL, {"it's \"{},\\": "y"}, {"it's \"{},\\": "***"}),
        ("/a/*", FULL, {"a": ["x", None, 3, []]}, {"a": ["***", None, None, None]}),
        ("/a/*", FULL, {"a": {"x": "1", "y": None}}, {"a": {"x": "***", "y": None}}),
        ("/a/*", FULL, {"a": []}, {"a": []}),
        ("/a/*", FULL, {"a": {}}, {"a": {}}),
        ("/a/*", FULL, {"a": "x"}, {"a": "x"}),
        ("/*", FULL, ["x", "y"], ["***", "***"]),
        ("/*/b", FULL, [{"b": "x"}, {"c": "y"}, "z"], [{"b": "***"}, {"c": "y"}, "z"]),
        (
            "/a/*/b/*",
            FULL,
            {"a": [{"b": ["x", "y"]}, {"b": {"k": "z"}}, {"c": ["x"]}]},
            {"a": [{"b": ["***", "***"]}, {"b": {"k": "***"}}, {"c": ["x"]}]},
        ),
    ],
)
def test_a_part_of_a_document(
    session: psycopg.Connection[Any], pointer: str, mask: Mask, before: Any, after: Any
) -> None:
    for kind in ("json", "jsonb"):
        text = shown(session, documents(kind, (pointer, mask)), json.dumps(before))
        assert json.loads(str(text)) == after
        assert shown(session, documents(kind, (pointer, mask)), None) is None


def test_many_parts_and_what_stays(session: psycopg.Connection[Any]) -> None:
    parts = [(f"/a/k{number}", FULL) for number in range(12)] + [("/b/*/x", EMAIL), ("/a", NULL)]
    before = {
        "a": {f"k{number}": str(number) for number in range(12)},
        "b": [{"x": "q@r.test"}],
        "c": [1, 2.50, 1e-3, 'é"\\'],
    }
    column = documents("jsonb", *parts[:-1])
    text = str(shown(session, column, json.dumps(before)))
    assert set(json.loads(text)["a"].values()) == {"***"}
    assert json.loads(text)["b"] == [{"x": "***@r.test"}]
    assert json.loads(text)["c"] == before["c"]
    # What contains another part may come after it.
    assert (
        json.loads(str(shown(session, documents("jsonb", *parts), json.dumps(before))))["a"] is None
    )


def test_a_name_given_twice_does_not_hide_a_value(session: psycopg.Connection[Any]) -> None:
    given = '{"ssn": "first", "ssn": "second", "ssn": {"ssn": "third"}}'
    for kind in ("json", "jsonb"):
        text = str(shown(session, documents(kind, ("/ssn", FULL)), given))
        assert json.loads(text) == {"ssn": None}


def test_a_column_that_is_no_document_is_masked_whole(session: psycopg.Connection[Any]) -> None:
    column = documents("text", ("/ssn", FULL))
    assert column.pumped
    assert shown(session, column, '{"a": 1}') == "***"


@pytest.mark.parametrize(
    ("declared", "mask", "before", "after"),
    [
        ("text[]", FULL, "{a,NULL,c}", "{***,NULL,***}"),
        ("text[]", FULL, "{}", "{}"),
        ("text[]", FULL, "{{a,b},{c,d}}", None),
        ("text[]", NULL, "{a}", None),
        ("text[]", EMAIL, '{ann@a.test,"no address"}', "{a***@a.test,***}"),
        ("character varying(2)[]", FULL, "{ab,c}", "{**,**}"),
        ("character(5)[]", FULL, "{ab}", '{"***  "}'),
        ("integer[]", BUCKET, "{17,NULL}", "{10,NULL}"),
        ("integer[]", FULL, "{17}", None),
        ("date[]", Mask("pii", "year"), "{2001-05-06}", "{2001-01-01}"),
        ("jsonb[]", FULL, "{1}", None),
    ],
)
def test_elements_of_an_array(
    session: psycopg.Connection[Any], declared: str, mask: Mask, before: str, after: str | None
) -> None:
    kind = {"text[]": "_text", "integer[]": "_int4", "date[]": "_date", "jsonb[]": "_jsonb",
            "character(5)[]": "_bpchar"}.get(declared, "_varchar")  # fmt: skip
    column = Column("v's \"d", 1, kind, declared, 0, mask)
    assert shown(session, column, before) == after
    assert shown(session, column, None) is None


def test_equal_elements_have_equal_tokens(session: psycopg.Connection[Any]) -> None:
    token = Mask("pii", "token")
    array = Column("v's \"d", 1, "_text", "text[]", 0, token)
    one = Column("v's \"d", 1, "text", "text", 0, token)
    expected = shown(session, one, "a")
    assert shown(session, array, "{a,a}") == f"{{{expected},{expected}}}"
    text = str(shown(session, documents("jsonb", ("/k", token)), '{"k": "a"}'))
    assert json.loads(text) == {"k": expected}


def test_no_operator_of_somebody_elses_is_given_a_value(
    session: psycopg.Connection[Any], postgres: PostgresServer
) -> None:
    """A server prefers an operator that fits exactly, wherever on the path it is."""
    types = ("int4", "int8", "numeric", "text", "jsonb", "bytea", "text[]")
    operators = ("/", "*", "-", "+", "<", ">", "=", "||", "#>", "#>>", "~~")
    with psycopg.connect(postgres.dsn) as trapped:
        trapped.execute("CREATE SCHEMA traps")
        trapped.execute("SET LOCAL search_path = public, traps")
        for left, right in itertools.product(types, types):
            trapped.execute(
                f"CREATE FUNCTION traps.spring(a {left}, b {right}) RETURNS numeric "
                "LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'caught'; END $$".encode()
            )
            for operator in operators:
                trapped.execute(
                    f"CREATE OPERATOR traps.{operator} "
                    f"(LEFTARG = {left}, RIGHTARG = {right}, FUNCTION = traps.spring)".encode()
                )
        with pytest.raises(psycopg.errors.RaiseException, match="caught"), trapped.transaction():
            trapped.execute("SELECT 5::numeric / 2")
        masks = [Mask("pii", "partial"), FULL, EMAIL, LITERAL, BUCKET, Mask("pii", "token")]
        kinds = {"text": "ann@a.test, 12345", "int4": "57", "int8": "57", "numeric": "57",
                 "uuid": str(uuid.UUID(int=5))}  # fmt: skip
        for mask, (kind, value) in itertools.product(masks, kinds.items()):
            column = Column("v's \"d", 1, kind, kind, 0, mask)
            assert shown(trapped, column, value) == shown(session, column, value)
        for pointer, mask in itertools.product(("/a", "/b/*", "/b/*/c", ""), masks):
            column = documents("jsonb", (pointer, mask)) if pointer else documents("jsonb")
            given = '{"a": 57, "b": [{"c": "ann@a.test"}, "x", 5]}'
            assert shown(trapped, column, given) == shown(session, column, given)
        for mask, (kind, value) in itertools.product(masks, (("int4", "57,3"), ("text", "a@b.c"))):
            column = Column("v's \"d", 1, f"_{kind}", f"{kind}[]", 0, mask)
            assert shown(trapped, column, f"{{{value}}}") == shown(session, column, f"{{{value}}}")
        trapped.rollback()
