"""Versioned migrations: sinks/migrations/NNNN_name.sql, applied once and in order.

A file that was applied and has since been changed is an error: two histories with the same
version and different tables could not be told apart. Write a new file instead.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from importlib import resources
from typing import Any, Final

import structlog

log = structlog.get_logger(__name__)

_NAME: Final = re.compile(r"(\d{4})_([a-z0-9_]+)\.sql")

_LEDGER: Final = """
CREATE TABLE IF NOT EXISTS schema_migrations (
    version UInt32, name String, checksum String, applied_at DateTime64(3, 'UTC') DEFAULT now64(3)
) ENGINE = MergeTree ORDER BY version
"""


class MigrationError(Exception):
    """The database and sinks/migrations do not belong together. Says which version."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file."""

    version: int
    name: str
    text: str

    @property
    def checksum(self) -> str:
        return sha256(self.text.encode()).hexdigest()

    def statements(self) -> list[str]:
        """Its statements; each ends with a semicolon at the end of a line."""
        return [part.strip() for part in re.split(r";[ \t]*(?:\n|$)", self.text) if _has_code(part)]


def _has_code(part: str) -> bool:
    return any(line.strip() and not line.lstrip().startswith("--") for line in part.splitlines())


def bundled() -> list[Migration]:
    """The migrations this version of Gatebook comes with. Raises MigrationError."""
    folder = resources.files("sinks") / "migrations"
    return ordered((entry.name, entry.read_text()) for entry in folder.iterdir())


def ordered(files: Iterable[tuple[str, str]]) -> list[Migration]:
    """Migrations from (file name, text). Raises MigrationError on a gap or a second of a number."""
    found = []
    for file, text in files:
        if not file.endswith(".sql"):
            continue
        match = _NAME.fullmatch(file)
        if match is None:
            raise MigrationError(f"{file} is not named NNNN_name.sql")
        found.append(Migration(int(match[1]), match[2], text))
    found.sort(key=lambda migration: migration.version)
    if [migration.version for migration in found] != list(range(1, len(found) + 1)):
        raise MigrationError("versions must be 0001, 0002, ... without gaps")
    return found


def outstanding(
    migrations: Sequence[Migration], applied: Sequence[tuple[int, str]]
) -> list[Migration]:
    """What remains, given the (version, checksum) rows of the ledger. Raises MigrationError."""
    known = {migration.version: migration for migration in migrations}
    for version, checksum in applied:
        if version not in known:
            raise MigrationError(
                f"the database has migration {version:04}, which this version of Gatebook does "
                "not know: run the version that wrote it, or a newer one"
            )
        if known[version].checksum != checksum:
            raise MigrationError(
                f"migration {version:04} was changed after it had been applied: restore the file "
                "and write a new one"
            )
    done = {version for version, _ in applied}
    return [migration for migration in migrations if migration.version not in done]


def apply(client: Any, database: str, migrations: Sequence[Migration]) -> list[Migration]:
    """Create `database` when absent and bring it up to date through a clickhouse-connect client.

    Every statement can be run twice: a crash between a statement and the ledger's row repeats it.
    With nothing to do it only reads, so that a production sink needs no right to define tables.
    Returns what was applied.
    """
    tables = client.query(
        "SELECT name FROM system.tables WHERE database = {database:String}",
        parameters={"database": database},
    ).result_rows
    if ("schema_migrations",) not in tables:
        client.command(f"CREATE DATABASE IF NOT EXISTS {quoted(database)}")
        client.database = database
        client.command(_LEDGER)
    client.database = database
    rows = client.query("SELECT version, checksum FROM schema_migrations").result_rows
    todo = outstanding(migrations, [(int(version), str(checksum)) for version, checksum in rows])
    for migration in todo:
        for statement in migration.statements():
            client.command(statement)
        client.insert(
            "schema_migrations",
            [[migration.version, migration.name, migration.checksum]],
            column_names=["version", "name", "checksum"],
        )
        log.info("migrated", version=migration.version, name=migration.name)
    return todo


def quoted(identifier: str) -> str:
    """An identifier in backticks."""
    escaped = identifier.replace("\\", "\\\\").replace("`", "\\`")
    return f"`{escaped}`"
