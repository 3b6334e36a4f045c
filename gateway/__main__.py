"""`python -m gateway --config FILE`."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import logging
import resource
import signal
import sys
from pathlib import Path

import structlog
import uvloop

from gateway.desk import open_desk
from gateway.health import HttpServer, application
from gateway.listener import listen
from gateway.memory import give_back
from gateway.node import Node
from gateway.recipients import warnings
from schemas.settings import Settings, SettingsError, load

log = structlog.get_logger("gateway")

_DRAIN_S = 5.0
_COLLECT_AFTER = 20_000
_OTHER_FILES = 100


def _announce(
    settings: Settings, postgres_port: int, metrics_port: int, desk_port: int | None
) -> None:
    """Write the addresses bound, for whoever started us."""
    if settings.run_dir is None:
        return
    gateway = settings.gateway
    addresses = {
        "name": gateway.name,
        "postgres": {"host": gateway.postgres.host, "port": postgres_port},
        "metrics_url": f"http://{gateway.metrics_host}:{metrics_port}/metrics",
    }
    if desk_port is not None:
        scheme = "https" if gateway.postgres.certificate else "http"
        addresses["desk_url"] = f"{scheme}://{gateway.desk.host}:{desk_port}"
    settings.run_dir.mkdir(parents=True, exist_ok=True)
    path = settings.run_dir / f"{gateway.name}.json"
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(addresses))
    partial.replace(path)


async def serve(settings: Settings, config: Path | None) -> None:
    """Run until SIGTERM or SIGINT. Raises SettingsError."""
    gateway = settings.gateway
    node = Node(settings, config)
    for text in warnings(node.recipients):
        log.warning(text)
    server = await listen(node)
    health = HttpServer(
        application(node.journal), settings.gateway.metrics_host, settings.gateway.metrics_port
    )
    metrics_port = await health.start()
    desk = open_desk(node)
    desk_port = await desk.start() if desk else None
    node.start()
    port = server.port
    _announce(settings, port, metrics_port, desk_port)
    log.info("listening", host=gateway.postgres.host, port=port)
    stop = asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signum, stop.set)
    trimming = asyncio.create_task(give_back(lambda: len(node.sessions)))
    await stop.wait()
    trimming.cancel()
    log.info("stopping", connections=len(node.sessions))
    server.close()
    await node.sessions.end(_DRAIN_S)
    if desk:
        await desk.close()
    await node.close()
    await health.close()


def _raise_file_limit() -> None:
    """Two sockets a session: the usual limit of 1,024 would be 500 sessions."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 65_536)), hard))


def _warn_of_file_limit(connections: int) -> None:
    """Said at start, not when the last one is used."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = 2 * connections + _OTHER_FILES
    if limit != resource.RLIM_INFINITY and limit < needed:
        advice = "raise it (ulimit -n) or lower gateway.postgres.max_connections"
        log.warning("open_files_limit_is_low", limit=limit, needed=needed, advice=advice)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m gateway", description="A gateway node.")
    parser.add_argument("--config", type=Path, help="YAML file; GATEBOOK_* variables override it")
    arguments = parser.parse_args()
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(message)s")
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
    )
    _raise_file_limit()
    # What start-up made stays; what a statement makes is freed by its reference count.
    gc.freeze()
    gc.set_threshold(_COLLECT_AFTER)
    try:
        settings = load(arguments.config)
        _warn_of_file_limit(settings.gateway.postgres.max_connections)
        uvloop.run(serve(settings, arguments.config))
    except SettingsError as error:
        sys.exit(f"gateway: {error}")


if __name__ == "__main__":
    main()
