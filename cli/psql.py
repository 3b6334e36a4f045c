"""How the real psql is started against a gateway."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from cli.problems import Problem


def executable() -> str:
    """psql: PATH's, else the embedded PostgreSQL's. Raises Problem."""
    found = shutil.which("psql")
    if found:
        return found
    from infra.devstack.postgres import PostgresUnusable, bundled

    try:
        return str(bundled() / "bin" / "psql")
    except PostgresUnusable:
        raise Problem("psql is not installed") from None


def environment(
    document: dict[str, Any], target: str, user: str, token: str, gateway: int = 1
) -> dict[str, str]:
    """Environment of a libpq client that signs in with `token`. Raises Problem.

    The token goes through the environment: arguments are visible to every user of a machine.
    """
    gateways = document["gateways"]
    if not 1 <= gateway <= len(gateways):
        raise Problem(f"there is no gateway {gateway}; this stack has {len(gateways)}", 2)
    address = gateways[gateway - 1]["postgres"]
    # What the person's own environment says about connections is about other databases.
    own = {key: value for key, value in os.environ.items() if not key.startswith("PG")}
    return {
        **own,
        # The certificate is checked against the name, the connection goes to the address:
        # `localhost` may be ::1 first.
        "PGHOST": "localhost",
        "PGHOSTADDR": address["host"],
        "PGPORT": str(address["port"]),
        "PGDATABASE": target,
        "PGUSER": user,
        "PGPASSWORD": token,
        "PGSSLMODE": "verify-full",
        "PGSSLROOTCERT": str(Path(document["ca_file"])),
    }
