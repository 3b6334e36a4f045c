"""Many sessions at once, and results larger than any memory should hold.

GATEBOOK_IDLE_SESSIONS and GATEBOOK_RESULT_MB make them as many and as large as one likes.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator

import asyncpg
import pytest

from infra.devstack.plan import Options
from schemas.events import Completed, Responded
from tests.conftest import SMALL, running
from tests.e2e import book
from tests.e2e.stack import Stack
from tests.integration.test_gateway_drivers import asyncpg_through

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

SESSIONS = int(os.environ.get("GATEBOOK_IDLE_SESSIONS", "250"))
RESULT_MB = int(os.environ.get("GATEBOOK_RESULT_MB", "100"))
STORM = 200
ROW = 1_000
MOST = 256 * 1024 * 1024


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    root = tmp_path_factory.mktemp("many")
    settings = {"max_connections": str(SESSIONS + 50)}
    kinds = ("kafka", "postgres", "issuer", "gateway")
    for _ in running(root, Options(gateways=1, only=kinds, size=SMALL, postgres=settings)):
        yield Stack(root)


async def test_idle_sessions_in_tls_after_a_storm(stack: Stack) -> None:
    held: list[asyncpg.Connection] = []
    try:
        while len(held) < SESSIONS:
            more = min(STORM, SESSIONS - len(held))
            opened = await asyncio.gather(*(asyncpg_through(stack) for _ in range(more)))
            held += opened
        answers = [await one.fetchval("select $1::int", n) for n, one in enumerate(held)]
        assert answers == list(range(SESSIONS))
        assert stack.metric("gatebook_connections") == SESSIONS
    finally:
        for one in held:
            one.terminate()


@pytest.mark.parametrize(
    ("text", "rows", "size"),
    [
        (
            f"select repeat('r', {ROW}) from generate_series(1, {RESULT_MB * 1000})",
            RESULT_MB * 1000,
            RESULT_MB * 1000 * ROW,
        ),
        (f"select repeat('v', {RESULT_MB * 500_000})", 1, RESULT_MB * 500_000),
    ],
    ids=["rows", "one value"],
)
async def test_a_large_result(stack: Stack, text: str, rows: int, size: int) -> None:
    """All of it arrives, all of it is counted in the book, and little is in memory."""
    servers = stack.document["kafka"]["bootstrap_servers"]
    before = await book.end(servers)
    with stack.connect() as connection:
        told = [0, 0]
        for (value,) in connection.cursor().stream(text):
            told[0] += 1
            told[1] += len(value)
        assert told == [rows, size]
    assert stack.resident_bytes("gateway-1") < MOST
    entries = await book.read(servers, stack.state.keys, before)
    ends = [e.event for e in entries if isinstance(e.event, Completed) and e.event.rows]
    assert [end.rows for end in ends] == [rows]
    assert ends[0].byte_count >= size
    recorded = [e.event.rows for e in entries if isinstance(e.event, Responded)]
    assert sum(recorded) == rows
