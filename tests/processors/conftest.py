from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from infra.devstack.plan import Options
from tests.conftest import running
from tests.processors.harness import Bench


@pytest.fixture(scope="session")
def broker_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """A broker of our own: these tests write poison, recreate topics and kill it."""
    yield from running(tmp_path_factory.mktemp("broker"), Options(only=("kafka",)))


@pytest.fixture(scope="session")
def broker(broker_stack: dict[str, Any]) -> str:
    """Its bootstrap servers."""
    return str(broker_stack["kafka"]["bootstrap_servers"])


@pytest.fixture
async def bench(broker: str, tmp_path: Path) -> AsyncIterator[Bench]:
    """Writes events, runs processors, reads what they make."""
    async with Bench(broker, tmp_path) as bench:
        yield bench
