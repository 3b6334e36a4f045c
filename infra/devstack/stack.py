"""A whole system on one machine: its folder, its processes, its addresses."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from infra.devstack import configuration, postgres
from infra.devstack.certificates import ensure_recipient, ensure_server_certificate, write_private
from infra.devstack.child import Child, StepFailed
from infra.devstack.conninfo import BadConninfo, Conninfo, parse
from infra.devstack.plan import GatewayPorts, Options, Plan, remember, remembered_ports
from infra.devstack.ports import NoPort, Ports
from infra.devstack.probes import http_ready, kafka_answers
from infra.devstack.state import StateDir, read_json
from infra.kafka import admin, jars, java, server
from schemas import settings


@dataclass(frozen=True, slots=True)
class Stack:
    """A prepared stack: files written, nothing started."""

    state: StateDir
    plan: Plan
    children: tuple[Child, ...]
    endpoints: dict[str, Any]


class Unusable(Exception):
    """Options or a machine that a stack cannot be made from. Says what to do."""


def prepare(state: StateDir, options: Options, ports: Ports, say: Callable[[str], None]) -> Stack:
    """Write keys, certificates and settings; describe every process. Raises Unusable.

    The caller holds the folder's lock.
    """
    try:
        return _prepare(state, options, ports, say)
    except (
        BadConninfo,
        NoPort,
        configuration.BadOverlay,
        java.NoJava,
        postgres.PostgresUnusable,
        settings.SettingsError,
    ) as error:
        raise Unusable(str(error)) from error
    except OSError as error:
        raise Unusable(f"{error.filename or state.root}: {error.strerror}") from error


def _prepare(state: StateDir, options: Options, ports: Ports, say: Callable[[str], None]) -> Stack:
    plan = Plan.make(options, ports)
    earlier = read_json(state.plan_file) or {}
    cluster = server.Cluster(
        earlier.get("cluster_id") or server.new_cluster_id(),
        tuple(
            server.Node(number, ports.broker, ports.controller, state.root / "kafka" / str(number))
            for number, ports in enumerate(plan.brokers, 1)
        ),
    )
    _same_cluster_size(state, earlier, options)
    remember(state, options, ports, cluster.id)
    ensure_server_certificate(
        state.ca_file, state.tls / "server.pem", state.tls / "server.key", datetime.now(UTC)
    )
    for name in ("mask", *configuration.AUDITORS):
        ensure_recipient(state.keys / f"{name}.pem", state.keys / f"{name}.pub.pem")

    embedded = None
    if options.target:
        target = parse(options.target)
        write_private(state.target_password, target.password.encode())
    else:
        assert plan.postgres is not None  # noqa: S101 (made for this case)
        postgres.ensure_password(state.postgres_superuser_password)
        postgres.ensure_password(state.target_password)
        embedded = postgres.Postgres(
            postgres.place(state.root),
            plan.postgres,
            state.postgres_superuser_password,
            state.target_password,
        )
        target = embedded.gateway()
    clickhouse = None
    if options.clickhouse:
        clickhouse = configuration.ClickHouseServer.parse(
            options.clickhouse, os.environ.get("CLICKHOUSE_PASSWORD", "")
        )
        write_private(state.clickhouse_token, clickhouse.password.encode())
    else:
        postgres.ensure_password(state.clickhouse_token)
        postgres.ensure_password(state.vault_token)

    bootstrap = options.kafka or cluster.bootstrap_servers
    document = configuration.document(state, plan, bootstrap, target, clickhouse)
    if options.config:
        document = configuration.overlaid(document, configuration.read_overlay(options.config))
    write_private(
        state.config_file,
        b"# Written by `gatebook up` at each start; change it with --config FILE.\n"
        + yaml.safe_dump(document, sort_keys=False).encode(),
    )
    # What a process would refuse is refused here, before anything starts.
    settings.load(state.config_file)

    children: list[Child] = []
    if options.wants("kafka"):
        children += _kafka(state, options, cluster, say)
    if embedded and options.wants("postgres"):
        children.append(
            postgres.child(
                embedded,
                state.logs / "postgres.log",
                options.size,
                jars.cache_root(),
                options.postgres,
            )
        )
    children += _planes(state, plan, options, {child.name for child in children})
    return Stack(
        state, plan, tuple(children), _endpoints(state, plan, bootstrap, clickhouse, options)
    )


def _same_cluster_size(state: StateDir, earlier: dict[str, Any], options: Options) -> None:
    if options.kafka or not (state.root / "kafka").is_dir():
        return
    before = earlier.get("brokers")
    if before not in (None, options.brokers):
        raise Unusable(
            f"{state.root} holds a cluster of {before} broker(s); a quorum keeps its size: "
            f"use --brokers {before} or another --state-dir"
        )


def _kafka(
    state: StateDir, options: Options, cluster: server.Cluster, say: Callable[[str], None]
) -> list[Child]:
    if options.kafka:
        return []
    libs, launcher = jars.libs(), java.find()

    def node_child(node: server.Node, settles: bool) -> Child:
        async def prepare() -> None:
            try:
                await asyncio.to_thread(jars.ensure, say)
            except (jars.JarsUnavailable, OSError) as error:
                raise StepFailed(str(error)) from error
            await _format(server.format_command(launcher, libs, cluster, node), node, cluster)

        async def settle() -> None:
            try:
                async with asyncio.timeout(60):
                    for line in await admin.create_topics(
                        cluster.bootstrap_servers, len(cluster.nodes)
                    ):
                        say(line)
            except (admin.ClusterUnusable, TimeoutError) as error:
                raise StepFailed(
                    f"its topics cannot be made: {error or 'no answer in 60 s'}"
                ) from error

        return Child(
            name=f"kafka-{node.id}" if len(cluster.nodes) > 1 else "kafka",
            argv=tuple(server.start_command(launcher, libs, node)),
            log_file=state.logs
            / (f"kafka-{node.id}.log" if len(cluster.nodes) > 1 else "kafka.log"),
            probe=kafka_answers(node.broker_port),
            prepare=prepare,
            settle=settle if settles else None,
            stop_timeout_s=15,
        )

    return [node_child(node, node is cluster.nodes[0]) for node in cluster.nodes]


async def _format(command: list[str], node: server.Node, cluster: server.Cluster) -> None:
    node.folder.mkdir(parents=True, exist_ok=True)
    node.properties_file.write_text(server.render(server.properties(cluster, node)))
    if (node.data / "meta.properties").exists():
        return
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate()
    if process.returncode != 0:
        lines = output.decode(errors="replace").strip().splitlines() or ["no reason given"]
        raise StepFailed(f"Kafka's storage cannot be formatted: {lines[-1]}")


def _planes(state: StateDir, plan: Plan, options: Options, running: set[str]) -> list[Child]:
    """Our own processes: issuer, mask processor, ClickHouse sink, gateways."""
    config = ("--config", str(state.config_file))
    brokers = tuple(sorted(name for name in running if name.startswith("kafka")))
    children = []
    if options.wants("issuer"):
        children.append(
            Child(
                name="issuer",
                argv=_module(
                    "infra.devstack.issuer",
                    *("--state-dir", str(state.root)),
                    *("--host", "127.0.0.1"),
                    *("--port", str(plan.issuer)),
                    *("--certificate", str(state.tls / "server.pem")),
                    *("--private-key", str(state.tls / "server.key")),
                ),
                log_file=state.logs / "issuer.log",
                probe=http_ready(plan.issuer, "/healthz", state.ca_file),
            )
        )
    if options.wants("mask"):
        children.append(
            Child(
                name="mask",
                argv=_module("processors", "mask", *config),
                log_file=state.logs / "mask.log",
                probe=http_ready(plan.mask_metrics),
                after=brokers,
            )
        )
    if options.wants("clickhouse"):
        children.append(
            Child(
                name="clickhouse",
                argv=_module("sinks", "clickhouse", *config),
                log_file=state.logs / "clickhouse.log",
                probe=http_ready(plan.clickhouse_metrics),
                after=brokers,
            )
        )
    if options.wants("gateway"):
        needs = (
            *brokers,
            *(name for name in ("postgres", "issuer") if name in running | {"issuer"}),
        )
        needs = tuple(n for n in needs if n in running or any(c.name == n for c in children))
        children += [_gateway(state, ports, config, needs) for ports in plan.gateways]
    return children


def _gateway(
    state: StateDir, ports: GatewayPorts, config: tuple[str, ...], after: tuple[str, ...]
) -> Child:
    return Child(
        name=ports.name,
        argv=_module("gateway", *config),
        env={
            "GATEBOOK_GATEWAY__NAME": ports.name,
            "GATEBOOK_GATEWAY__POSTGRES__PORT": str(ports.postgres),
            "GATEBOOK_GATEWAY__METRICS_PORT": str(ports.metrics),
        },
        log_file=state.logs / f"{ports.name}.log",
        probe=http_ready(ports.metrics),
        after=after,
    )


def _module(name: str, *arguments: str) -> tuple[str, ...]:
    # -P: a folder named like one of our packages in the working directory must not replace it.
    return (sys.executable, "-P", "-m", name, *arguments)


def _endpoints(
    state: StateDir,
    plan: Plan,
    bootstrap: str,
    clickhouse: configuration.ClickHouseServer | None,
    options: Options,
) -> dict[str, Any]:
    """The parts of the status that do not change while the stack runs; nothing secret."""
    return {
        "gateways": [
            {
                "name": ports.name,
                "postgres": {"host": "127.0.0.1", "port": ports.postgres},
                "metrics_url": f"http://127.0.0.1:{ports.metrics}/metrics",
            }
            for ports in plan.gateways
            if options.wants("gateway")
        ],
        "kafka": {"bootstrap_servers": bootstrap},
        "clickhouse": {
            "url": clickhouse.url if clickhouse else f"http://127.0.0.1:{plan.clickhouse}",
            "user": clickhouse.username if clickhouse else "default",
            "token_file": str(state.clickhouse_token),
            "vault_token_file": str(state.clickhouse_token if clickhouse else state.vault_token),
        },
        "issuer": {"url": configuration.issuer_url(plan)},
        "ca_file": str(state.ca_file),
        "targets": [{"name": configuration.TARGET, "embedded_port": plan.postgres}],
    }


def new_ports(state: StateDir) -> Ports:
    """Ports that prefer what this folder had before."""
    return Ports(remembered_ports(state))


def valid_bootstrap(text: str) -> bool:
    """Whether text is host:port[,host:port...]."""
    return bool(re.fullmatch(r"[^\s:,]+:\d{1,5}(,[^\s:,]+:\d{1,5})*", text))


def direct_conninfo(state: Path, port: int) -> Conninfo:
    """How to reach the embedded target without a gateway, as its owner."""
    return Conninfo(
        host="127.0.0.1",
        port=port,
        database=postgres.DATABASE,
        user=postgres.GATEWAY_ROLE,
        password=StateDir(state).target_password.read_text().strip(),
        sslmode="disable",
    )
