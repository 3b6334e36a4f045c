from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from infra.devstack.plan import Options
from tests.conftest import running
from tests.processors.harness import Bench


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A broker of our own: these tests write poison, and recreate topics."""
    for document in running(tmp_path_factory.mktemp("broker"), Options(only=("kafka",))):
        yield document["kafka"]["bootstrap_servers"]


@pytest.fixture
async def bench(broker: str, tmp_path: Path) -> AsyncIterator[Bench]:
    """Writes events, runs processors, reads what they make."""
    async with Bench(broker, tmp_path) as bench:
        yield bench
