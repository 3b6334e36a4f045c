"""Every attack shows a secret at the database, and none through the gateway."""

from __future__ import annotations

import base64
import os
import re
import subprocess
from collections.abc import Iterator
from typing import Final

import psycopg
import pytest

from tests.gateway.protocols.postgres import messages as pg
from tests.integration.wire_client import WireClient
from tests.redteam.attacks import scripts
from tests.redteam.conftest import Place
from tests.redteam.place import CANARIES

pytestmark = pytest.mark.integration

_SCRIPTS: Final = scripts()


def forms(canary: str) -> Iterator[bytes]:
    """A secret as text, backwards, in hexadecimal, in base64, without punctuation, in UTF-16."""
    for text in {canary, canary[::-1], re.sub(r"\W", "", canary)}:
        raw = text.lower().encode()
        yield raw
        yield raw.hex().encode()
    yield canary.encode("utf-16-le")
    for before in range(3):
        encoded = base64.b64encode(b"\0" * before + canary.encode() + b"\0" * 3)
        if len(canary) >= 10:
            yield encoded[4:-8].lower()


FORMS: Final = {canary: tuple(forms(canary)) for canary in CANARIES}


def shown(data: bytes, typed: str = "") -> list[str]:
    """The secrets that these bytes hold, but for those that were typed."""
    data = data.lower()
    return [
        canary
        for canary, looks in FORMS.items()
        if canary not in typed and any(look in data for look in looks)
    ]


def directly(place: Place, script: tuple[str, ...]) -> str:
    parts = psycopg.conninfo.conninfo_to_dict(
        place.superuser if "role postgres" in script[0] else place.direct
    )
    done = subprocess.run(
        ["psql", "-X", "-q", "-v", "VERBOSITY=verbose"],
        input=";\n".join(("begin", *script, "rollback")) + ";\n",
        env={"PATH": os.environ["PATH"], **{
            f"PG{name.upper().replace('DBNAME', 'DATABASE')}": str(parts[name])
            for name in ("host", "port", "user", "password", "dbname") if name in parts
        }},
        capture_output=True, text=True, errors="replace", timeout=60, check=False,
    )  # fmt: skip
    return done.stdout + done.stderr


def simple(client: WireClient, statement: str) -> bytes:
    return b"".join(client.ask(pg.query(statement)))


def extended(client: WireClient, statement: str) -> bytes:
    """Parse, Bind for binary results and Execute, without a Describe."""
    bound = pg.message("B", b"\0\0\0\0\0\0\0\1\0\1")
    sent = (pg.parse(statement), bound, pg.execute(), pg.message("S"))
    return b"".join(client.ask(*sent))


@pytest.mark.parametrize("script", _SCRIPTS, ids=lambda script: "; ".join(script)[:80])
def test_nothing_leaks(place: Place, script: tuple[str, ...]) -> None:
    typed = " ".join(script)
    answer = directly(place, script)
    assert shown(answer.encode(), typed), f"does not leak directly: {answer[-600:]}"
    for way in (simple, extended):
        received = b""
        with WireClient.signed_in(place.stack, "alice") as client:
            try:
                for statement in ("begin", *script, "rollback"):
                    received += way(client, statement)
            except EOFError:
                received += b"\n(the gateway ended the session)"
        assert not shown(received, typed), (way.__name__, received[-1500:])
