"""A combined KRaft broker and controller on loopback: its properties, its format, its command."""

from __future__ import annotations

import base64
import uuid
from dataclasses import dataclass
from pathlib import Path

from infra.kafka.java import Java
from schemas.topics import MAX_RECORD_BYTES

LOG4J = Path(__file__).with_name("log4j2.properties")


@dataclass(frozen=True, slots=True)
class Node:
    """One broker of an embedded cluster. `folder` holds its properties and its data."""

    id: int
    broker_port: int
    controller_port: int
    folder: Path

    @property
    def properties_file(self) -> Path:
        """Where its server.properties is written."""
        return self.folder / "server.properties"

    @property
    def data(self) -> Path:
        """Its log directory."""
        return self.folder / "data"


@dataclass(frozen=True, slots=True)
class Cluster:
    """Nodes that form one quorum."""

    id: str
    nodes: tuple[Node, ...]

    @property
    def bootstrap_servers(self) -> str:
        """host:port of every broker, comma separated."""
        return ",".join(f"127.0.0.1:{node.broker_port}" for node in self.nodes)


def new_cluster_id() -> str:
    """A random KRaft cluster id, as `StorageTool random-uuid` makes them."""
    while True:
        identifier = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        # Kafka refuses ids that look like an option.
        if not identifier.startswith("-"):
            return identifier


def properties(cluster: Cluster, node: Node) -> dict[str, str]:
    """server.properties of one node, complete for what we rely on."""
    size = len(cluster.nodes)
    replicas = str(min(3, size))
    in_sync = "2" if size >= 3 else "1"
    return {
        "process.roles": "broker,controller",
        "node.id": str(node.id),
        "controller.quorum.voters": ",".join(
            f"{member.id}@127.0.0.1:{member.controller_port}" for member in cluster.nodes
        ),
        # Nothing but this machine reaches the cluster: it has no authentication.
        "listeners": (
            f"BROKER://127.0.0.1:{node.broker_port},CONTROLLER://127.0.0.1:{node.controller_port}"
        ),
        "advertised.listeners": f"BROKER://127.0.0.1:{node.broker_port}",
        "listener.security.protocol.map": "BROKER:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": "BROKER",
        "log.dirs": str(node.data),
        "auto.create.topics.enable": "false",
        "delete.topic.enable": "true",
        "default.replication.factor": replicas,
        "min.insync.replicas": in_sync,
        "unclean.leader.election.enable": "false",
        "message.max.bytes": str(MAX_RECORD_BYTES),
        "replica.fetch.max.bytes": str(MAX_RECORD_BYTES),
        # A frame of several full records; the default of 100 MB would let one client hold a
        # quarter of the heap.
        "socket.request.max.bytes": str(4 * MAX_RECORD_BYTES),
        "offsets.topic.replication.factor": replicas,
        # The default of 50 partitions delays the first consumer group by seconds.
        "offsets.topic.num.partitions": "4",
        "transaction.state.log.replication.factor": replicas,
        "transaction.state.log.min.isr": in_sync,
        "transaction.state.log.num.partitions": "4",
        "share.coordinator.state.topic.replication.factor": replicas,
        "share.coordinator.state.topic.min.isr": in_sync,
        "group.initial.rebalance.delay.ms": "0",
        "group.min.session.timeout.ms": "1000",
        "num.network.threads": "2",
        "num.io.threads": "4",
        # After this long a killed broker is missed: until then its partitions have no leader, and
        # a lone broker that is started again may not take them back. The default of 9 s makes
        # that a stall of 13 s.
        "broker.session.timeout.ms": "5000" if size >= 3 else "2000",
        "broker.heartbeat.interval.ms": "500" if size >= 3 else "300",
    }


def render(settings: dict[str, str]) -> str:
    """Text of a Java properties file."""
    return "".join(f"{key}={_escaped(value)}\n" for key, value in settings.items())


def _escaped(value: str) -> str:
    # A backslash starts an escape in a properties file; paths may hold one.
    return value.replace("\\", "\\\\")


def start_command(java: Java, libs: Path, node: Node) -> list[str]:
    """argv of the broker."""
    # A serial collector and a small heap: the broker is one of ten processes on two cores.
    return [*_java(java, libs, "-Xms256m", "-Xmx768m"), "kafka.Kafka", str(node.properties_file)]


def format_command(java: Java, libs: Path, cluster: Cluster, node: Node) -> list[str]:
    """argv that formats a node's storage; idempotent."""
    return [
        *_java(java, libs, "-Xmx128m", "-XX:TieredStopAtLevel=1"),
        "kafka.tools.StorageTool",
        "format",
        "--ignore-formatted",
        "--cluster-id",
        cluster.id,
        "--config",
        str(node.properties_file),
    ]


def _java(java: Java, libs: Path, *options: str) -> list[str]:
    return [
        str(java.executable),
        *options,
        "-XX:+UseSerialGC",
        "-XX:+ExitOnOutOfMemoryError",
        "-Djava.awt.headless=true",
        f"-Dlog4j2.configurationFile={LOG4J}",
        # Kafka's native code is loaded on purpose; from Java 24 on that is a warning otherwise.
        *(["--enable-native-access=ALL-UNNAMED"] if java.version >= 22 else []),
        "-cp",
        f"{libs}/*",
    ]
