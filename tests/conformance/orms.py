"""Suites of what is built on drivers: SQLAlchemy, Django."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote

from infra.devstack.conninfo import Conninfo
from tests.conformance import postgresql, sources
from tests.conformance.sources import Sdist
from tests.conformance.suites import (
    Outcomes,
    PytestSuite,
    Suite,
    collected,
    libpq,
    logged,
    prepare,
)


@dataclass(frozen=True, slots=True)
class SqlAlchemy(PytestSuite):
    """SQLAlchemy's tests that use a database, with one of its drivers."""

    driver: str = "psycopg"
    folders: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Name, version and driver."""
        return f"{self.source.name} {self.source.version} ({self.driver})"

    def run(self, server: Conninfo, only: frozenset[str] | None = None) -> Outcomes:
        """See Suite.run."""
        # As its README.unittests.rst has it.
        prepare(
            server,
            server.database,
            "create schema test_schema",
            "create schema test_schema_2",
            "create extension hstore",
            "create extension citext",
        )
        return PytestSuite.run(self, server, only)

    def chosen(self, only: frozenset[str] | None) -> list[str]:
        """See PytestSuite.chosen."""
        if only is None:
            return list(self.folders)
        # Its plugin gives classes the name of the database after pytest has chosen them.
        return sorted({re.sub(r"_postgresql\+\w+?_[\d_]+(?=::|$)", "", test) for test in only})

    def arguments(self, server: Conninfo) -> tuple[str, ...]:
        """See PytestSuite.arguments."""
        password = quote(server.password, safe="")
        address = f"{server.user}:{password}@{server.host}:{server.port}/{server.database}"
        uri = f"postgresql+{self.driver}://{address}"
        return ("-p", "no:warnings", "--backend-only", "--notimingintensive", "--dburi", uri)


@dataclass(frozen=True, slots=True)
class Django:
    """Django's own tests of these packages, under its own runner."""

    source: Sdist
    packages: tuple[str, ...]

    @property
    def name(self) -> str:
        """Name and version."""
        return f"{self.source.name} {self.source.version}"

    def run(self, server: Conninfo, only: frozenset[str] | None = None) -> Outcomes:
        """See Suite.run."""
        folder, python = self.source.folder(), sources.python(self.source.name)
        # What its migrations want of a server that is built with more than ours.
        for extension in ("uuid-ossp", "pgcrypto"):
            postgresql.stand_in_extension(extension)
        prepare(server, "template1", 'create collation "sv-x-icu" from "C"')
        labels = self.packages if only is None else tuple(sorted({_label(test) for test in only}))
        with tempfile.TemporaryDirectory(prefix="conformance-") as name:
            work = Path(name)
            shutil.copytree(folder / "tests", work / "tests")
            return logged(
                self.name,
                [
                    *(python, "runtests.py", "--settings=django_settings", "--parallel=1"),
                    *("--noinput", *labels),
                ],
                work / "tests",
                {**libpq(server), "PYTHONPATH": str(Path(__file__).parent)},
                collected,
            )


def _label(test: str) -> str:
    """What runtests.py calls a test, or the class whose fixtures fail: `setUpClass (a.b.C)`."""
    found = re.fullmatch(r"\w+ \((.+)\)", test)
    return found.group(1) if found else test


_SQLALCHEMY: Final = Sdist(
    "sqlalchemy", "2.1.9", "d700a8b2edfb26282a470333d6bc4a454c4acda4d201a3bea7b72fa76c217d28"
)


def _sqlalchemy(driver: str, *folders: str) -> SqlAlchemy:
    return SqlAlchemy(
        _SQLALCHEMY,
        "test",
        beside=("lib", "setup.cfg"),
        driver=driver,
        folders=folders,
    )


_DJANGO: Final = """
aggregation aggregation_regress annotations async backends basic bulk_create cache
composite_pk constraints contenttypes_tests custom_lookups datatypes dates datetimes
db_functions db_typecasts defer defer_regress delete distinct_on_fields expressions
expressions_case expressions_window extra_regress filtered_relation fixtures
force_insert_update foreign_object from_db_value generic_relations get_or_create indexes
inspectdb introspection known_related_objects lookup m2m_regress many_to_many
many_to_one migrations model_fields model_inheritance multiple_database null_fk
null_queries one_to_one or_lookups ordering postgres_tests prefetch_related queries
raw_query save_delete_hooks schema select_for_update select_related sessions_tests
test_utils timezones transaction_hooks transactions unmanaged_models update
update_only_fields xor_lookups
"""

ALL: Mapping[str, Suite] = {
    "sqlalchemy": _sqlalchemy("psycopg", "test/dialect/postgresql", "test/dialect/test_suite.py"),
    "sqlalchemy-orm": _sqlalchemy("psycopg", "test/engine", "test/sql", "test/orm"),
    "sqlalchemy-asyncpg": _sqlalchemy("asyncpg", "test/dialect/postgresql", "test/engine"),
    "sqlalchemy-psycopg2": _sqlalchemy("psycopg2", "test/dialect/postgresql", "test/engine"),
    "django": Django(
        Sdist(
            "django", "5.2.19", "ad03d8abc51dbff95ebf34b27123cf0c26a3b62db7ba0cd520783686362533d1"
        ),
        tuple(_DJANGO.split()),
    ),
}
