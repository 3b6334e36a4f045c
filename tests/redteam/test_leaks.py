"""Every attack shows a secret at the database, and none through the gateway."""

from __future__ import annotations

import base64
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Final

import psycopg
import pytest

from tests.gateway.protocols.postgres import messages as pg
from tests.integration.wire_client import WireClient
from tests.redteam.attacks import SCRIPTS, statements
from tests.redteam.conftest import Place
from tests.redteam.place import CANARIES

pytestmark = pytest.mark.integration

_STATEMENTS: Final = statements()
Way = Callable[[WireClient, str], bytes]
_MARK: Final = "--- next ---"


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


def directly(place: Place, *scripts: tuple[str, ...]) -> list[str]:
    """What psql shows of each, at the database itself."""
    parts = psycopg.conninfo.conninfo_to_dict(
        place.superuser if "role postgres" in scripts[0][0] else place.direct
    )
    each = (";\n".join(("begin", *script, "rollback")) + ";\n" for script in scripts)
    done = subprocess.run(
        ["psql", "-X", "-q", "-v", "VERBOSITY=verbose"],
        input=f"\\echo {_MARK}\n\\warn {_MARK}\n".join(each),
        env={"PATH": os.environ["PATH"], **{
            f"PG{name.upper().replace('DBNAME', 'DATABASE')}": str(parts[name])
            for name in ("host", "port", "user", "password", "dbname") if name in parts
        }},
        capture_output=True, text=True, errors="replace", timeout=60, check=False,
    )  # fmt: skip
    said = zip(done.stdout.split(_MARK), done.stderr.split(_MARK), strict=True)
    return [out + errors for out, errors in said]


def simple(client: WireClient, statement: str) -> bytes:
    return b"".join(client.ask(pg.query(statement)))


def extended(client: WireClient, statement: str) -> bytes:
    """Parse, Bind for binary results and Execute, without a Describe."""
    bound = pg.message("B", b"\0\0\0\0\0\0\0\1\0\1")
    sent = (pg.parse(statement), bound, pg.execute(), pg.message("S"))
    return b"".join(client.ask(*sent))


@pytest.fixture(scope="module")
def shows(place: Place) -> dict[str, str]:
    """What each statement shows at the database."""
    answers = directly(place, *((statement,) for statement in _STATEMENTS))
    return dict(zip(_STATEMENTS, answers, strict=True))


class _Alice:
    """A session through the gateway, opened again when an attack has ended it."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._opened = ExitStack()
        self._client: WireClient | None = None

    def received(self, way: Way, script: tuple[str, ...]) -> bytes:
        """What comes of a script's statements in a transaction that is rolled back."""
        if self._client is None:
            signed_in = WireClient.signed_in(self._place.stack, "alice")
            self._client = self._opened.enter_context(signed_in)
        received = b""
        try:
            for statement in ("begin", *script, "rollback"):
                received += way(self._client, statement)
        except EOFError:
            received += b"\n(the gateway ended the session)"
            self.close()
        return received

    def close(self) -> None:
        """End it."""
        self._opened.close()
        self._client = None


@pytest.fixture(scope="module")
def alice(place: Place) -> Iterator[_Alice]:
    session = _Alice(place)
    yield session
    session.close()


@pytest.mark.parametrize("statement", _STATEMENTS, ids=lambda statement: statement[:80])
def test_no_statement_leaks(shows: dict[str, str], alice: _Alice, statement: str) -> None:
    answer = shows[statement]
    assert shown(answer.encode(), statement), f"does not leak directly: {answer[-600:]}"
    for way in (simple, extended):
        received = alice.received(way, (statement,))
        assert not shown(received, statement), (way.__name__, received[-1500:])


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: "; ".join(script)[:80])
def test_no_session_leaks(place: Place, script: tuple[str, ...]) -> None:
    typed = " ".join(script)
    [answer] = directly(place, script)
    assert shown(answer.encode(), typed), f"does not leak directly: {answer[-600:]}"
    for way in (simple, extended):
        session = _Alice(place)
        received = session.received(way, script)
        session.close()
        assert not shown(received, typed), (way.__name__, received[-1500:])
