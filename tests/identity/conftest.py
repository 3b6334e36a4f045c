from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from gateway.identity.oidc import OidcAuthenticator
from schemas.settings import Oidc
from tests.identity.hostile import NOW, HostileIssuer
from tests.identity.issuing import Authority, IssuerProcess


@dataclass
class Clocks:
    """Wall time and monotonic time, moved by the test."""

    wall: float = NOW
    steady: float = 1000.0

    def advance(self, seconds: float) -> None:
        self.wall += seconds
        self.steady += seconds


@dataclass
class Gate:
    """An authenticator with its clocks and its metrics."""

    authenticator: OidcAuthenticator
    clocks: Clocks
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)

    def count(self, metric: str, result: str) -> float:
        return self.registry.get_sample_value(f"gatebook_{metric}_total", {"result": result}) or 0.0


MakeGate = Callable[..., Gate]


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.create(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def issuer(
    authority: Authority, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[IssuerProcess]:
    with IssuerProcess(authority, tmp_path_factory.mktemp("issuer")) as process:
        yield process


@pytest.fixture
async def hostile(authority: Authority) -> AsyncIterator[HostileIssuer]:
    server = HostileIssuer(authority)
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def make_gate() -> AsyncIterator[MakeGate]:
    async with AsyncExitStack() as stack:

        def make(settings: Oidc, clocks: Clocks | None = None, **arguments: Any) -> Gate:
            clocks = clocks or Clocks()
            registry = CollectorRegistry()
            authenticator = OidcAuthenticator(
                settings,
                clock=lambda: clocks.wall,
                monotonic=lambda: clocks.steady,
                registry=registry,
                **arguments,
            )
            stack.push_async_callback(authenticator.aclose)
            return Gate(authenticator, clocks, registry)

        yield make


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    return tmp_path / "state"
