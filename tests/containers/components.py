"""Kafka and PostgreSQL in containers, for the tests that otherwise use embedded ones."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from testcontainers.core.container import DockerContainer
from testcontainers.core.network import Network

from infra.devstack.conninfo import Conninfo
from infra.devstack.plan import KAFKA_PORT, POSTGRES_PORT, Options
from infra.devstack.ports import Ports
from infra.devstack.postgres import DATABASE, GATEWAY_ROLE, SUPERUSER, ensure_password, fill
from infra.devstack.probes import kafka_answers, postgres_accepts
from infra.devstack.shop import Size
from infra.devstack.state import StateDir
from infra.kafka import admin
from infra.kafka.jars import cache_root
from tests.containers import environment

Probe = Callable[[], Awaitable[bool]]

KINDS = frozenset({"kafka", "postgres"})
READY_S = 90.0
PASSWORD_FILE = "/run/secrets/postgres-password"


def running(root: Path, options: Options) -> Iterator[dict[str, Any]]:
    """Kafka or PostgreSQL or both as `options.only` asks, with a stack's status document.

    What is kept in a stack's folder beside that, passwords, is below `root` as there.
    """
    assert options.only and set(options.only) <= KINDS
    state = StateDir(root)
    state.create()
    document: dict[str, Any] = {}
    with ExitStack() as stack:
        if options.wants("kafka"):
            broker = stack.enter_context(kafka())
            document["kafka"] = {"bootstrap_servers": broker.address}
        if options.wants("postgres"):
            server = stack.enter_context(postgres(state, options.size))
            document["targets"] = [{"name": "shop", "direct_conninfo": server.owner.uri()}]
        yield document


class Component:
    """A container whose one port is published on loopback, the same after it is killed."""

    def __init__(self, container: DockerContainer, inner: int, port: int) -> None:
        self.port = port
        self._container = container
        # testcontainers' own method publishes on every address, which is for nobody else here.
        published: dict[str, Any] = container.ports
        published[f"{inner}/tcp"] = ("127.0.0.1", port)

    @property
    def address(self) -> str:
        """host:port"""
        return f"127.0.0.1:{self.port}"

    @contextmanager
    def started(self, probe: Probe) -> Iterator[None]:
        """Run it, ready, until the end."""
        with Network() as network, self._container.with_network(network):
            self.wait(probe)
            yield

    def wait(self, probe: Probe) -> None:
        """Until it serves; fails with its log."""
        until_ready(probe, lambda: logs(self._container))

    def kill(self) -> None:
        """kill -9 of its first process."""
        self._container.get_wrapped_container().kill("SIGKILL")

    def start_again(self) -> None:
        """Start the killed container on what it had written."""
        self._container.get_wrapped_container().start()


class PostgresComponent(Component):
    """A PostgreSQL with a seeded shop; `owner` is the gateways' role."""

    def __init__(self, state: StateDir, port: int) -> None:
        ensure_password(state.postgres_superuser_password)
        ensure_password(state.target_password)
        self.superuser = _conninfo(port, SUPERUSER, "postgres", state.postgres_superuser_password)
        self.owner = _conninfo(port, GATEWAY_ROLE, DATABASE, state.target_password)
        container = DockerContainer(environment.image("postgres"))
        container.with_copy_into_container(self.superuser.password.encode(), PASSWORD_FILE)
        super().__init__(container, 5432, port)


@contextmanager
def kafka() -> Iterator[Component]:
    """A broker with our topics."""
    port = Ports({}).take("kafka", KAFKA_PORT)
    container = DockerContainer(environment.image("kafka"))
    component = Component(container.with_env("KAFKA_ADVERTISED", f"127.0.0.1:{port}"), 9092, port)
    with component.started(kafka_answers(port)):
        differences = outside_any_loop(lambda: admin.create_topics(component.address, 1))
        assert differences == []
        yield component


@contextmanager
def postgres(state: StateDir, size: Size) -> Iterator[PostgresComponent]:
    """A server with a shop of this size; its passwords are kept where a stack keeps them."""
    component = PostgresComponent(state, Ports({}).take("postgres", POSTGRES_PORT))
    with component.started(postgres_accepts(component.port)):
        outside_any_loop(lambda: fill(component.superuser, component.owner, size, cache_root()))
        yield component


def _conninfo(port: int, user: str, database: str, password: Path) -> Conninfo:
    return Conninfo("127.0.0.1", port, database, user, password.read_text().strip(), "disable")


def logs(container: DockerContainer) -> str:
    """The end of what a container wrote."""
    out, err = container.get_logs()
    return (out + err).decode(errors="replace")[-4000:]


def until_ready(
    probe: Probe,
    said: Callable[[], str],
    timeout_s: float = READY_S,
) -> None:
    """Wait for a probe to succeed; fails with what `said` gives."""

    async def ready() -> bool:
        async with asyncio.timeout(5):
            return await probe()

    deadline = time.monotonic() + timeout_s
    while True:
        try:
            if outside_any_loop(ready):
                return
        except (OSError, EOFError, TimeoutError):
            pass
        assert time.monotonic() < deadline, said()
        time.sleep(0.05)


def outside_any_loop(run: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """Run a coroutine to its end where pytest's own event loop is not."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(lambda: asyncio.run(run())).result()
