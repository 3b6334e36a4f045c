"""What is judged while standard_conforming_strings is off, against the server's own reading."""

from __future__ import annotations

import random

import psycopg
import pytest

from gateway.policy.sql import UNPARSEABLE, analyse
from gateway.policy.strings import escaped
from tests.conftest import PostgresServer

pytestmark = pytest.mark.integration

PIECES = (
    *("'", "'", "''", "\\'", "\\\\", "\\n", "a", "n", " ", " ", "\n", "\n", ",", ",", "--", "/*"),
    *("*/", "$$", "$a$", '"', "E'", "e'", "B'", "X'", "U&'", " '1'", " 'a\\'' ", " 'a", "||"),
    *(";", ";select ", "::text", "(", ")", "1", "&"),
)
TEXTS = 60_000

Outcome = tuple[int, bytes | None, list[bytes | None]]


def outcome(connection: psycopg.Connection, strings: str, text: str) -> Outcome:
    """The last result of a text, or why there is none."""
    connection.execute(f"set standard_conforming_strings = {strings}".encode())
    result = connection.pgconn.exec_(text.encode())
    values = [
        result.get_value(row, column)
        for row in range(result.ntuples)
        for column in range(result.nfields)
    ]
    return result.status, result.error_field(psycopg.pq.DiagnosticField.SQLSTATE), values


def test_the_server_reads_a_text_as_it_was_judged(postgres: PostgresServer) -> None:
    chance = random.Random(15)
    compared = 0
    with psycopg.connect(postgres.dsn, autocommit=True) as connection:
        connection.execute("set escape_string_warning = off")
        for _ in range(TEXTS):
            text = "select " + "".join(chance.choices(PIECES, k=chance.randint(2, 9)))
            read = escaped(text)
            if "\\" not in text or read is None or not read.agrees():
                continue
            if any(statement.kind == UNPARSEABLE for statement in analyse(read.text)):
                continue
            found = outcome(connection, "off", text)
            if "U&'" in text and found[1] == b"0A000":
                # The target refuses all of a text with such a constant.
                continue
            assert found == outcome(connection, "on", read.text), (text, read.text)
            compared += bool(read.inserted)
    assert compared > 100, "texts that are compared are too few to tell"
