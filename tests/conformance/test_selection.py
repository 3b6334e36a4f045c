"""A little of `make conformance`: cursors, scripts, COPY, notifications, large objects."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from infra.devstack.conninfo import Conninfo, parse
from tests.conformance.compare import counts, differences, settled
from tests.conformance.gateway import gateway
from tests.conformance.sources import Unavailable
from tests.conformance.suites import ASYNCPG, PASSED, PG8000, PSYCOPG2, PytestSuite
from tests.conftest import PostgresServer

pytestmark = pytest.mark.integration

SELECTIONS = [
    pytest.param(
        ASYNCPG,
        (
            "tests/test_cursor.py",
            "tests/test_execute.py::TestExecuteScript",
            "tests/test_listeners.py",
        ),
        id="asyncpg",
    ),
    pytest.param(PG8000, ("test/native/test_core.py", "test/dbapi/test_copy.py"), id="pg8000"),
    pytest.param(PSYCOPG2, ("tests/test_lobject.py", "tests/test_with.py"), id="psycopg2"),
]


@pytest.fixture(scope="module")
def direct(postgres: PostgresServer) -> Conninfo:
    owner = parse(postgres.dsn)
    return Conninfo(owner.host, owner.port, "postgres", owner.user, owner.password, owner.sslmode)


@pytest.fixture(scope="module")
def through(direct: Conninfo, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Conninfo]:
    with gateway(tmp_path_factory.mktemp("conformance"), direct) as address:
        yield address


@pytest.mark.parametrize(("suite", "tests"), SELECTIONS)
def test_the_same_tests_fail(
    suite: PytestSuite, tests: tuple[str, ...], direct: Conninfo, through: Conninfo
) -> None:
    only = frozenset(tests)
    try:
        expected = suite.run(direct, only)
    except Unavailable as error:
        pytest.skip(f"{suite.name} cannot be fetched: {error}")
    found = settled(
        differences(expected, suite.run(through, only)),
        lambda names: suite.run(direct, names),
        lambda names: suite.run(through, names),
    )
    assert not found, "\n".join(f"{each.test}: {each.through.text}" for each in found)
    assert [outcome.kind for outcome in expected.values()].count(PASSED) > 5, counts(expected)
