"""One gateway with a real Kafka, PostgreSQL and issuer, for the whole run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from infra.devstack.plan import Options
from tests.conftest import SMALL, running
from tests.e2e.stack import Stack

READER = "reader"
"""A role at the target that may read everything and change nothing, like alice by policy."""
READER_PASSWORD = "reads-only"


@pytest.fixture(scope="session")
def gateway_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    root = tmp_path_factory.mktemp("gateway")
    options = Options(gateways=1, only=("kafka", "postgres", "issuer", "gateway"), size=SMALL)
    for _ in running(root, options):
        yield Stack(root)


@pytest.fixture(scope="session")
def superuser(gateway_stack: Stack) -> str:
    """How the target's superuser signs in, past the gateway."""
    owner = psycopg.conninfo.conninfo_to_dict(
        gateway_stack.document["targets"][0]["direct_conninfo"]
    )
    password = gateway_stack.state.postgres_superuser_password.read_text().strip()
    options: dict[str, Any] = {**owner, "user": "postgres", "password": password}
    return psycopg.conninfo.make_conninfo(**options)


@pytest.fixture(scope="session")
def reader(gateway_stack: Stack, superuser: str) -> str:
    """How READER signs in at the target, past the gateway."""
    with psycopg.connect(superuser, autocommit=True) as connection:
        connection.execute(
            f"create role {READER} login password '{READER_PASSWORD}';"
            f"grant select on all tables in schema public to {READER}"
        )
    parts = psycopg.conninfo.conninfo_to_dict(superuser)
    return psycopg.conninfo.make_conninfo(**{**parts, "user": READER, "password": READER_PASSWORD})
