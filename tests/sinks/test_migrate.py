"""Migrations: applied once, in order, and never changed afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import clickhouse_connect
import pytest

from sinks.migrate import Migration, MigrationError, apply, bundled, ordered, outstanding, quoted

ONE = Migration(1, "one", "CREATE TABLE IF NOT EXISTS one (x UInt8) ENGINE = MergeTree ORDER BY x;")
TWO = Migration(2, "two", "-- a comment; with a semicolon\nCREATE VIEW two AS SELECT x FROM one;\n")


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Any]:
    made = clickhouse_connect.get_client(interface="chdb", path=str(tmp_path / "data"))
    yield made
    made.close()


def test_files_are_ordered_by_number_and_others_ignored() -> None:
    files = [("0002_b.sql", "SELECT 2;"), ("README.md", ""), ("0001_a.sql", "SELECT 1;")]
    assert [(found.version, found.name) for found in ordered(files)] == [(1, "a"), (2, "b")]


@pytest.mark.parametrize(
    "files",
    [
        [("0001_a.sql", ""), ("0003_c.sql", "")],
        [("0001_a.sql", ""), ("0001_b.sql", "")],
        [("0002_a.sql", "")],
        [("first.sql", "")],
    ],
)
def test_a_gap_a_double_and_a_strange_name_are_errors(files: list[tuple[str, str]]) -> None:
    with pytest.raises(MigrationError):
        ordered(files)


def test_statements_end_with_a_semicolon_at_the_end_of_a_line() -> None:
    text = "-- note\nSELECT ';' AS a;\n\n-- only a note\n"
    assert Migration(1, "a", text).statements() == ["-- note\nSELECT ';' AS a"]


def test_what_was_applied_is_not_outstanding() -> None:
    assert outstanding([ONE, TWO], []) == [ONE, TWO]
    assert outstanding([ONE, TWO], [(1, ONE.checksum)]) == [TWO]
    assert outstanding([ONE, TWO], [(1, ONE.checksum), (2, TWO.checksum)]) == []


def test_a_changed_migration_is_an_error_that_names_it() -> None:
    with pytest.raises(MigrationError, match="0001 was changed"):
        outstanding([ONE, TWO], [(1, TWO.checksum)])


def test_a_database_of_a_newer_version_is_left_alone() -> None:
    with pytest.raises(MigrationError, match="0003"):
        outstanding([ONE, TWO], [(1, ONE.checksum), (2, TWO.checksum), (3, "x")])


def test_migrations_are_applied_once_and_a_later_change_is_refused(client: Any) -> None:
    assert apply(client, "history", [ONE]) == [ONE]
    assert apply(client, "history", [ONE, TWO]) == [TWO]
    assert apply(client, "history", [ONE, TWO]) == []
    client.command("INSERT INTO one VALUES (7)")
    assert client.query("SELECT x FROM two").result_rows == [(7,)]
    with pytest.raises(MigrationError):
        apply(client, "history", [Migration(1, "one", ONE.text + " "), TWO])


def test_a_migration_that_was_interrupted_before_its_ledger_row_is_repeated(client: Any) -> None:
    migrations = bundled()
    apply(client, "audit", migrations)
    client.command("ALTER TABLE schema_migrations DELETE WHERE 1 SETTINGS mutations_sync = 1")
    assert apply(client, "audit", migrations) == migrations


def test_nothing_is_defined_when_nothing_is_outstanding(client: Any) -> None:
    migrations = bundled()
    apply(client, "audit", migrations)
    client.set_client_setting("allow_ddl", 0)
    assert apply(client, "audit", migrations) == []


def test_identifiers_are_quoted() -> None:
    assert quoted("a`b\\") == "`a\\`b\\\\`"
