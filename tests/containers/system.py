"""A stack whose Kafka, PostgreSQL, gateways, processors and sinks are containers.

The development issuer stays a process: it lets anyone be anyone, so it serves its own machine
only. Our own containers therefore share the machine's network, and bind loopback alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import yaml
from testcontainers.core.container import DockerContainer

from infra.devstack import status
from infra.devstack.control import start_detached, stop
from infra.devstack.plan import Options, remembered_ports
from infra.devstack.probes import http_ready
from infra.devstack.state import StateDir, write_json
from tests.containers import components, environment
from tests.containers.components import Component

SETTINGS = PurePosixPath("/etc/gatebook")


@dataclass(frozen=True, slots=True)
class Plane:
    """One of our processes: how it is started and what of the settings it needs."""

    command: str
    sections: tuple[str, ...]


GATEWAY = Plane("gateway", ("kafka", "oidc", "recipients", "targets", "gateway"))
MASK = Plane("processors mask", ("kafka", "targets", "mask"))
CLICKHOUSE = Plane("sinks clickhouse", ("kafka", "clickhouse"))


@dataclass(frozen=True, slots=True)
class System:
    """A running system: its containers by name, its status document."""

    components: dict[str, Component]
    document: dict[str, Any]


def running(root: Path, options: Options) -> Iterator[dict[str, Any]]:
    """The status document of what `options` ask for, for as long as a fixture lives."""
    with system(root, options) as made:
        yield made.document


@contextmanager
def system(root: Path, options: Options) -> Iterator[System]:
    """What `options` ask for, ready. Secrets and certificates are below `root` as a stack's are."""
    assert options.brokers == 1 and not (options.kafka or options.target or options.clickhouse)
    state = StateDir.at(root)
    state.create()
    containers: dict[str, Component] = {}
    document: dict[str, Any] = {}
    with ExitStack() as stack:
        if options.wants("kafka"):
            broker = stack.enter_context(components.kafka())
            containers["kafka"] = broker.component
            document["kafka"] = {"bootstrap_servers": broker.address}
        if options.wants("postgres"):
            database = stack.enter_context(components.postgres(state, options.size))
            containers["postgres"] = database.component
            document["targets"] = [{"name": "shop", "direct_conninfo": f"{database.owner.uri()}"}]
        if any(options.wants(kind) for kind in ("issuer", "gateway", "mask", "clickhouse")):
            # It also writes keys, certificates and settings, and reserves every port.
            issuer = Options(
                gateways=options.gateways,
                config=options.config,
                kafka=broker.address,
                target=database.owner.uri(),
                only=("issuer",),
            )
            start_detached(state, issuer, print, die_with_parent=True)
            stack.callback(stop, state, print)
            for name, component in _planes(state, options).items():
                stack.enter_context(component.started())
                containers[name] = component
            write_json(state.run / "containers.json", {**document, **_gateways(state, options)})
            document = {**(status.read(state) or {}), **document, **_gateways(state, options)}
        yield System(containers, document)


def _gateways(state: StateDir, options: Options) -> dict[str, Any]:
    ports = remembered_ports(state)
    return {
        "gateways": [
            {
                "name": name,
                "postgres": {"host": "127.0.0.1", "port": ports[name]},
                "metrics_url": f"http://127.0.0.1:{ports[f'{name}-metrics']}/metrics",
            }
            for name in _gateway_names(options)
        ]
    }


def _gateway_names(options: Options) -> list[str]:
    wanted = options.gateways if options.wants("gateway") else 0
    return [f"gateway-{number}" for number in range(1, wanted + 1)]


def _planes(state: StateDir, options: Options) -> dict[str, Component]:
    """Containers of our own image, not started."""
    ports = remembered_ports(state)
    made = {}
    if options.wants("mask"):
        made["mask"] = _plane(state, MASK, ports["mask-metrics"])
    if options.wants("clickhouse"):
        made["clickhouse"] = _plane(state, CLICKHOUSE, ports["clickhouse-metrics"])
    for name in _gateway_names(options):
        metrics = ports[f"{name}-metrics"]
        made[name] = _plane(
            state,
            GATEWAY,
            metrics,
            GATEBOOK_GATEWAY__NAME=name,
            GATEBOOK_GATEWAY__POSTGRES__PORT=str(ports[name]),
            GATEBOOK_GATEWAY__METRICS_PORT=str(metrics),
        )
    return made


def _plane(state: StateDir, plane: Plane, metrics_port: int, **variables: str) -> Component:
    container = DockerContainer(environment.image("gatebook")).with_kwargs(network_mode="host")
    container.with_command(f"{plane.command} --config {SETTINGS / 'gatebook.yaml'}")
    for name, value in variables.items():
        container.with_env(name, value)
    document = yaml.safe_load(state.config_file.read_text())
    settings = _settings(container, {key: document[key] for key in plane.sections})
    container.with_copy_into_container(
        yaml.safe_dump(settings).encode(), str(SETTINGS / "gatebook.yaml")
    )
    return Component(container, http_ready(metrics_port))


def _settings(container: DockerContainer, document: dict[str, Any]) -> dict[str, Any]:
    """The settings as they are in the container, and the files they name copied there.

    State folders are left to the image. The targets' passwords go to gateways alone.
    """
    for section, folder in (("mask", "state_dir"), ("clickhouse", "path")):
        document.get(section, {}).pop(folder, None)
    if "gateway" not in document:
        for target in document.get("targets", []):
            target["password"] = {"env": "NOT_FOR_THIS_PROCESS"}
    carried: dict[str, Any] = _carried(container, document)
    return carried


def _carried(container: DockerContainer, value: Any) -> Any:
    match value:
        case dict():
            return {key: _carried(container, inner) for key, inner in value.items()}
        case list():
            return [_carried(container, inner) for inner in value]
        case str() if value.startswith("/"):
            path = Path(value)
            # The whole path in the name: keys of different owners have the same file name.
            place = SETTINGS / "files" / value.lstrip("/").replace("/", "-")
            for file in path.iterdir() if path.is_dir() else (path,):
                inside = place / file.name if path.is_dir() else place
                container.with_copy_into_container(file.read_bytes(), str(inside))
            return str(place)
        case _:
            return value
