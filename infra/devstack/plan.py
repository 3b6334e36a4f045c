"""What a stack consists of, decided before anything starts: options and ports."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from infra.devstack import shop
from infra.devstack.ports import Ports
from infra.devstack.state import StateDir, read_json, write_json

KAFKA_PORT, CONTROLLER_PORT = 9092, 9292
POSTGRES_PORT = 15432
GATEWAY_PORT = 6432
CLICKHOUSE_PORT = 8123
ISSUER_PORT = 9400
METRICS_PORT = 9464


@dataclass(frozen=True, slots=True)
class Options:
    """What `gatebook up` was asked for."""

    gateways: int = 2
    brokers: int = 1
    config: Path | None = None
    kafka: str | None = None
    target: str | None = field(default=None, repr=False)
    clickhouse: str | None = field(default=None, repr=False)
    size: shop.Size = field(default_factory=shop.Size)
    only: tuple[str, ...] = ()
    """Kinds of processes to start; empty starts all. For tests that need only some."""
    postgres: dict[str, str] = field(default_factory=dict)
    """Settings of the embedded PostgreSQL, beside its own. For tests and benchmarks."""

    def wants(self, kind: str) -> bool:
        """Whether processes of this kind are part of the stack."""
        return not self.only or kind in self.only


@dataclass(frozen=True, slots=True)
class GatewayPorts:
    """Addresses of one gateway on loopback."""

    name: str
    postgres: int
    metrics: int


@dataclass(frozen=True, slots=True)
class BrokerPorts:
    """Addresses of one broker on loopback."""

    broker: int
    controller: int


@dataclass(frozen=True, slots=True)
class Plan:
    """Every address of a stack. Ports of parts that are not embedded are None."""

    gateways: tuple[GatewayPorts, ...]
    brokers: tuple[BrokerPorts, ...]
    postgres: int | None
    clickhouse: int | None
    issuer: int
    mask_metrics: int
    clickhouse_metrics: int

    @classmethod
    def make(cls, options: Options, ports: Ports) -> Plan:
        """Choose a port for each part of the stack. Raises NoPort."""
        return cls(
            gateways=tuple(
                GatewayPorts(
                    f"gateway-{number}",
                    ports.take(f"gateway-{number}", GATEWAY_PORT),
                    ports.take(f"gateway-{number}-metrics", METRICS_PORT),
                )
                for number in range(1, options.gateways + 1)
            ),
            brokers=()
            if options.kafka
            else tuple(
                BrokerPorts(
                    ports.take(f"kafka-{number}", KAFKA_PORT),
                    ports.take(f"controller-{number}", CONTROLLER_PORT),
                )
                for number in range(1, options.brokers + 1)
            ),
            postgres=None if options.target else ports.take("postgres", POSTGRES_PORT),
            clickhouse=None if options.clickhouse else ports.take("clickhouse", CLICKHOUSE_PORT),
            issuer=ports.take("issuer", ISSUER_PORT),
            mask_metrics=ports.take("mask-metrics", METRICS_PORT),
            clickhouse_metrics=ports.take("clickhouse-metrics", METRICS_PORT),
        )


def remembered_ports(state: StateDir) -> dict[str, int]:
    """Ports an earlier stack of this folder had."""
    document = read_json(state.plan_file) or {}
    return {str(name): int(port) for name, port in document.get("ports", {}).items()}


def remember(state: StateDir, options: Options, ports: Ports, cluster_id: str) -> None:
    """Keep what the next start needs. Connection strings may hold passwords and are not kept."""
    document: dict[str, Any] = {
        "ports": {**remembered_ports(state), **ports.chosen},
        "cluster_id": cluster_id,
        "gateways": options.gateways,
        "brokers": options.brokers,
        "size": asdict(options.size),
    }
    write_json(state.plan_file, document)
