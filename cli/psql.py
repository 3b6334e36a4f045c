"""How the real psql is started against a gateway."""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path
from typing import Any

from cli.problems import Problem

_MISSING = (
    "psql is not on PATH; install it (for example: apt-get install postgresql-client), or the "
    "packages of the extra `embedded`"
)


def executable() -> str:
    """psql: PATH's, else the embedded PostgreSQL's where it can speak TLS. Raises Problem."""
    found = shutil.which("psql")
    if found:
        return found
    from infra.devstack.postgres import PostgresUnusable, bundled

    if _libpq() is None:
        raise Problem(_MISSING)
    try:
        return str(bundled() / "bin" / "psql")
    except PostgresUnusable:
        raise Problem(_MISSING) from None


def _libpq() -> Path | None:
    """The libpq of psycopg's wheel. The embedded PostgreSQL's own was built without TLS."""
    package = importlib.util.find_spec("psycopg_binary")
    if package is None or package.origin is None:
        return None
    libraries = Path(package.origin).parent.with_name("psycopg_binary.libs")
    return next(iter(sorted(libraries.glob("libpq-*.so*"))), None)


def _preloaded() -> dict[str, str]:
    """For the embedded psql: psycopg's libpq in the place of its own."""
    library = None if shutil.which("psql") else _libpq()
    return {"LD_PRELOAD": str(library)} if library else {}


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
        **_preloaded(),
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
