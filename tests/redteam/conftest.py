"""One gateway before the database that is attacked, for the whole run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import psycopg
import pytest
import yaml

from infra.devstack.plan import Options
from tests.conftest import SMALL, PostgresServer, running
from tests.e2e.stack import Stack, until
from tests.redteam.place import CLASSES, CLASSIFIED, SETUP

# Only masking stands between alice and the values; bob may see them.
POLICIES = """
@id("everything") @unknown("permitted")
permit (principal, action in [Action::"connect", Action::"execute"], resource == Target::"shop");
@id("sees-clear")
permit (principal in Group::"dba", action == Action::"see_clear", resource in Target::"shop")
when {
    context has time && context.time.hour < 24 &&
    context has client_address && context.client_address.isLoopback()
};
"""


DATABASE = "redteam"


@dataclass(frozen=True, slots=True)
class Place:
    """A gateway, and the way past it as the target's role."""

    stack: Stack
    direct: str
    superuser: str


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory, postgres: PostgresServer) -> Iterator[Place]:
    root, folder = tmp_path_factory.mktemp("redteam"), tmp_path_factory.mktemp("redteam-policies")
    (folder / "policies").mkdir()
    (folder / "policies" / "all.cedar").write_text(POLICIES)
    (folder / "token").write_text("k" * 40)
    (folder / "password").write_text(postgres.password)
    admin = psycopg.conninfo.make_conninfo(postgres.dsn)
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(f"create database {DATABASE} owner {postgres.user}")
    direct = psycopg.conninfo.make_conninfo(
        host=postgres.host, port=postgres.port, user=postgres.user, password=postgres.password,
        dbname=DATABASE, sslmode="disable",
    )  # fmt: skip
    with psycopg.connect(direct, autocommit=True) as connection:
        connection.execute(SETUP)
    target = {
        "name": "shop",
        "host": postgres.host,
        "port": postgres.port,
        "database": DATABASE,
        "user": postgres.user,
        "password": {"file": str(folder / "password")},
        "sslmode": "disable",
        "classes": CLASSES,
        "classified": CLASSIFIED,
        "token_key": {"file": str(folder / "token")},
    }
    config = folder / "over.yaml"
    gateway = {"policies": str(folder / "policies")}
    config.write_text(yaml.safe_dump({"gateway": gateway, "targets": [target]}))
    kinds = ("kafka", "postgres", "issuer", "gateway")
    for _ in running(root, Options(gateways=1, only=kinds, size=SMALL, config=config)):
        stack = Stack(root)
        with stack.connect("alice") as session:

            def known() -> bool:
                try:
                    return session.execute("select id from ruled limit 0") is not None
                except psycopg.Error:
                    return False

            until(known)
        yield Place(stack, direct, psycopg.conninfo.make_conninfo(admin, dbname=DATABASE))
