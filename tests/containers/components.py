"""Kafka and PostgreSQL in containers, for the tests that otherwise use embedded ones."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from testcontainers.core.container import DockerContainer
from testcontainers.core.network import Network

from infra.devstack.conninfo import Conninfo
from infra.devstack.plan import KAFKA_PORT, POSTGRES_PORT
from infra.devstack.ports import Ports
from infra.devstack.postgres import DATABASE, GATEWAY_ROLE, SUPERUSER, ensure_password, fill
from infra.devstack.probes import kafka_answers, postgres_accepts
from infra.devstack.shop import Size
from infra.devstack.state import StateDir
from infra.kafka import admin
from infra.kafka.jars import cache_root
from tests.containers import environment

Probe = Callable[[], Awaitable[bool]]

READY_S = 90.0
RESTARTS = 6
PASSWORD_FILE = "/run/secrets/postgres-password"


class Component:
    """One container. It may be killed and started again; its files and its address stay."""

    def __init__(self, container: DockerContainer, probe: Probe) -> None:
        self._probe = probe
        self.container = container.with_kwargs(
            # No image needs more than its user has.
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
            # Our processes end rather than go on after an error they do not know.
            restart_policy={"Name": "on-failure"},
            **container._kwargs,
        )

    @contextmanager
    def started(self) -> Iterator[None]:
        """Run it, ready, until the end."""
        with self.container:
            self.wait()
            yield

    def wait(self) -> None:
        """Until it serves; fails with its log when it ends or takes too long."""
        deadline = time.monotonic() + READY_S
        while not succeeds(self._probe):
            assert self.details()["RestartCount"] < RESTARTS, self.log()
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.05)

    def log(self) -> str:
        """The end of what it wrote."""
        out, err = self.container.get_logs()
        return (out + err).decode(errors="replace")[-4000:]

    def kill(self) -> None:
        """kill -9 of its first process, and with it of all others."""
        self.container.get_wrapped_container().kill("SIGKILL")

    def start_again(self) -> None:
        """Start the killed container on what it had written, and wait until it serves."""
        self.container.get_wrapped_container().start()
        self.wait()

    def details(self) -> dict[str, Any]:
        """What the engine knows of it, as `docker inspect` shows it."""
        wrapped = self.container.get_wrapped_container()
        wrapped.reload()
        attributes: dict[str, Any] = wrapped.attrs
        return attributes


@dataclass(frozen=True, slots=True)
class Broker:
    """A broker with our topics."""

    component: Component
    address: str


@dataclass(frozen=True, slots=True)
class Database:
    """A server with a seeded shop; `owner` is the gateways' role."""

    component: Component
    superuser: Conninfo
    owner: Conninfo


@contextmanager
def kafka() -> Iterator[Broker]:
    """A broker on a network of its own, published on loopback."""
    port = Ports({}).take("kafka", KAFKA_PORT)
    address = f"127.0.0.1:{port}"
    container = DockerContainer(environment.image("kafka")).with_env("KAFKA_ADVERTISED", address)
    component = Component(_published(container, 9092, port), kafka_answers(port))
    with _network(container), component.started():
        assert outside_any_loop(lambda: admin.create_topics(address, 1)) == []
        yield Broker(component, address)


@contextmanager
def postgres(state: StateDir, size: Size) -> Iterator[Database]:
    """A server with a shop of this size; its passwords are kept where a stack keeps them."""
    port = Ports({}).take("postgres", POSTGRES_PORT)
    ensure_password(state.postgres_superuser_password)
    ensure_password(state.target_password)
    superuser = _conninfo(port, SUPERUSER, "postgres", state.postgres_superuser_password)
    owner = _conninfo(port, GATEWAY_ROLE, DATABASE, state.target_password)
    container = DockerContainer(environment.image("postgres"))
    container.with_copy_into_container(superuser.password.encode(), PASSWORD_FILE)
    component = Component(_published(container, 5432, port), postgres_accepts(port))
    with _network(container), component.started():
        outside_any_loop(lambda: fill(superuser, owner, size, cache_root()))
        yield Database(component, superuser, owner)


def _published(container: DockerContainer, inner: int, port: int) -> DockerContainer:
    # testcontainers' own method publishes on every address, which is for nobody else here.
    published: dict[str, Any] = container.ports
    published[f"{inner}/tcp"] = ("127.0.0.1", port)
    return container


@contextmanager
def _network(container: DockerContainer) -> Iterator[None]:
    # Not the engine's default bridge, which one of our own does not have.
    with Network() as network:
        container.with_network(network)
        yield


def _conninfo(port: int, user: str, database: str, password: Path) -> Conninfo:
    return Conninfo("127.0.0.1", port, database, user, password.read_text().strip(), "disable")


def succeeds(probe: Probe) -> bool:
    """Whether a probe does, now."""

    async def ready() -> bool:
        async with asyncio.timeout(5):
            return await probe()

    try:
        return bool(outside_any_loop(ready))
    except (OSError, EOFError, TimeoutError):
        return False


def outside_any_loop(run: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """Run a coroutine to its end where pytest's own event loop is not."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(lambda: asyncio.run(run())).result()
