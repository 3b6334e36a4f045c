"""Real Kafka and PostgreSQL for integration tests, started once per run and seeded small."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from infra.devstack import status
from infra.devstack.conninfo import Conninfo, parse
from infra.devstack.control import start_detached, stop
from infra.devstack.plan import Options
from infra.devstack.postgres import SUPERUSER, remove_data
from infra.devstack.shop import Size
from infra.devstack.state import StateDir

# A busy machine is slow: how long an example takes says nothing.
hypothesis.settings.register_profile("gatebook", deadline=None)
hypothesis.settings.load_profile("gatebook")

SMALL = Size(customers=200, orders=1_000)


@dataclass(frozen=True, slots=True)
class PostgresServer:
    """A running PostgreSQL; `user` owns `database`, `dsn` is the superuser's."""

    dsn: str
    host: str
    port: int
    user: str
    password: str = field(repr=False)
    database: str = "shop"


def running(root: Path, options: Options) -> Iterator[dict[str, Any]]:
    """A stack for as long as a fixture lives: its status document."""
    if os.environ.get("GATEBOOK_TEST_ENVIRONMENT") == "containers":
        from tests.containers.system import running as in_containers

        yield from in_containers(root, options)
        return
    state = StateDir.at(root)
    start_detached(state, options, print, die_with_parent=True)
    try:
        document = status.read(state)
        assert document is not None
        yield document
    finally:
        stop(state, print)
        remove_data(state.root)


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Bootstrap servers of a real one-broker cluster with our topics, for the whole run."""
    for document in running(tmp_path_factory.mktemp("kafka"), Options(only=("kafka",))):
        yield document["kafka"]["bootstrap_servers"]


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """A real PostgreSQL with a small, seeded `shop`, for the whole run."""
    root = tmp_path_factory.mktemp("postgres")
    for document in running(root, Options(only=("postgres",), size=SMALL)):
        # The stack hands out the owner's address; the superuser's differs by its secret.
        owner = parse(document["targets"][0]["direct_conninfo"])
        superuser = Conninfo(
            host=owner.host,
            port=owner.port,
            database=owner.database,
            user=SUPERUSER,
            password=StateDir(root).postgres_superuser_password.read_text().strip(),
            sslmode="disable",
        )
        yield PostgresServer(
            superuser.uri(), owner.host, owner.port, owner.user, owner.password, owner.database
        )
