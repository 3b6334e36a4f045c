"""A gateway in front of a server, with a policy that permits everything, in writing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from cli.tokens import demo_token
from infra.devstack.certificates import write_private
from infra.devstack.conninfo import Conninfo
from infra.devstack.plan import Options
from infra.devstack.state import StateDir, write_json
from tests.conformance.postgresql import free_port
from tests.conftest import running

DATABASES = (
    "postgres",
    "regression",
    "template1",
    "testdb",
    "asyncpg_intro_test",
    "test_main",
    "test_other",
)
"""Databases that the suites connect to. Each is a target of the same name."""

_TOKEN_S = 6 * 3600
_POLICY = """\
@id("everything") @unknown("permitted")
permit (principal in Group::"dba", action in [Action::"connect", Action::"execute"], resource);
"""


@contextmanager
def gateway(root: Path, server: Conninfo) -> Iterator[Conninfo]:
    """How to reach `server` through a gateway: same names, the password is a token."""
    password, policies = root / "password", root / "policies"
    write_private(password, server.password.encode())
    policies.mkdir()
    (policies / "everything.cedar").write_text(_POLICY)
    overlay = root / "overlay.yaml"
    overlay.write_text(
        yaml.safe_dump(
            {
                "targets": [
                    {
                        "name": name,
                        "host": server.host,
                        "port": server.port,
                        "database": name,
                        "user": server.user,
                        "password": {"file": str(password)},
                        "sslmode": "disable",
                    }
                    for name in DATABASES
                ],
                "gateway": {
                    "postgres": {"cleartext_loopback": True},
                    "policies": str(policies),
                    # Its connections would keep databases from being dropped.
                    "catalog_refresh_s": 3600,
                },
            }
        )
    )
    # A suite may take its usual port for pgbouncer's, and leave tests out.
    state = StateDir.at(root / "stack")
    state.create()
    write_json(state.plan_file, {"ports": {"gateway-1": free_port()}})
    options = Options(
        only=("kafka", "issuer", "gateway"), gateways=1, config=overlay, target=server.uri()
    )
    for document in running(root / "stack", options):
        address = document["gateways"][0]["postgres"]
        token = demo_token(state, document, "bob", _TOKEN_S)
        yield Conninfo(
            address["host"], address["port"], server.database, server.user, token, "disable"
        )
