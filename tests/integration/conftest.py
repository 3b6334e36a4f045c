"""One gateway with a real Kafka, PostgreSQL and issuer, for the whole run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
import yaml

from infra.devstack.plan import Options
from tests.conftest import SMALL, running
from tests.e2e.stack import Stack

CLERK = "clerk"
"""A role at the target that may read and insert, and nothing else: as alice by POLICIES."""
CLERK_PASSWORD = "insert-only"
POLICIES = """
@id("dba") @unknown("permitted")
permit (principal in Group::"dba", action, resource == Target::"shop");
@id("everyone-sees-clear") permit (principal, action == Action::"see_clear", resource);
@id("clerk-connects")
permit (principal in Group::"support", action == Action::"connect", resource == Target::"shop");
@id("clerk-inserts") @unknown("permitted")
permit (principal in Group::"support", action == Action::"execute", resource == Target::"shop")
unless { context.kinds.containsAny(["delete", "update", "truncate", "merge"]) };
@id("clerk-removes-nothing")
@message("clerks insert and read")
@how_to_ask("Ask a DBA.")
forbid (principal in Group::"support", action == Action::"execute", resource == Target::"shop")
when { context.kinds.containsAny(["delete", "update", "truncate", "merge"]) };
@id("three-rows") @max_rows("3") @message("three rows here") @how_to_ask("Count them.")
forbid (principal, action == Action::"unlimited_rows", resource)
when { context.application == "three-rows" };
@id("many-rows") @max_rows("1000000") @message("many rows here") @how_to_ask("Count them.")
forbid (principal, action == Action::"unlimited_rows", resource)
when { context.application == "many-rows" };
@id("no-copy-copies-nothing")
forbid (principal, action == Action::"execute", resource)
when { context.application == "no-copy" && context.kinds.contains("copy_from") };
"""


@pytest.fixture(scope="session")
def gateway_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    root = tmp_path_factory.mktemp("gateway")
    settings = tmp_path_factory.mktemp("settings")
    (settings / "policies").mkdir()
    (settings / "policies" / "clerks.cedar").write_text(POLICIES)
    config = settings / "over.yaml"
    gateway = {"policies": str(settings / "policies"), "postgres": {"login_timeout_s": 5}}
    config.write_text(yaml.safe_dump({"gateway": gateway}))
    kinds = ("kafka", "postgres", "issuer", "gateway")
    for _ in running(root, Options(gateways=1, only=kinds, size=SMALL, config=config)):
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
def clerk(superuser: str) -> str:
    """How CLERK signs in at the target, past the gateway."""
    with psycopg.connect(superuser, autocommit=True) as connection:
        connection.execute(f"create role {CLERK} login password '{CLERK_PASSWORD}'")
    parts = psycopg.conninfo.conninfo_to_dict(superuser)
    options: dict[str, Any] = {**parts, "user": CLERK, "password": CLERK_PASSWORD}
    return psycopg.conninfo.make_conninfo(**options)
