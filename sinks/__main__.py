"""`python -m sinks clickhouse --config FILE`."""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import signal
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import structlog
import uvloop

from schemas.kafka import options
from schemas.settings import Settings, SettingsError, load
from schemas.topics import EVENTS, KEYS, MASKED
from sinks.carrier import Carrier
from sinks.clickhouse import ClickHouse
from sinks.metrics import Metrics
from sinks.migrate import MigrationError
from sinks.reader import NotLoopback, Reader
from sinks.runner import Runner, Sink
from sinks.serve import Service, announce
from sinks.store import StoreError
from sinks.vault import Boxes, Wraps

log = structlog.get_logger("sinks")


def main(arguments: list[str] | None = None) -> int:
    """The exit status: 0 after a signal, 1 after a failure, 2 for wrong settings."""
    parser = argparse.ArgumentParser(prog="python -m sinks", description=__doc__)
    parser.add_argument("sink", choices=["clickhouse"])
    parser.add_argument("--config", type=Path, help="settings file (docs/configuration.md)")
    chosen = parser.parse_args(arguments)
    _log_json()
    # A batch is a hundred thousand short-lived objects and no cycles: the default thresholds
    # would walk everything that lives, dozens of times a batch.
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    try:
        settings = load(chosen.config)
        uvloop.run(run_clickhouse(settings))
    except (SettingsError, NotLoopback) as error:
        log.error("wrong settings", error=str(error))
        return 2
    except (MigrationError, StoreError) as error:
        log.error("stopped", error=str(error))
        return 1
    except Exception as error:
        # Texts of foreign exceptions may quote what was being processed.
        log.error("stopped", error=type(error).__name__, at=_where(error))
        return 1
    return 0


async def run_clickhouse(settings: Settings) -> None:
    """Until SIGTERM or SIGINT. Raises what stops the sink."""
    chosen = settings.clickhouse
    metrics = Metrics("clickhouse")
    loop = asyncio.get_running_loop()
    async with AsyncExitStack() as stack:
        sink = await ClickHouse.open(chosen, MASKED, metrics)
        stack.push_async_callback(sink.close)
        carriers = [
            _carrier(settings, sink, metrics, MASKED, ""),
            _carrier(settings, Boxes(sink), metrics.of("boxes"), EVENTS, "-boxes"),
            _carrier(settings, Wraps(sink), metrics.of("wraps"), KEYS, "-wraps"),
        ]

        def stop() -> None:
            for carrier in carriers:
                carrier.stop()

        observed = Service(metrics.app(), chosen.metrics_host, chosen.metrics_port)
        services = [observed]
        http_url = chosen.url
        if chosen.url is None and chosen.http_token is not None:
            reader = Reader(chosen)
            stack.callback(reader.close)
            services.append(Service(reader.app(), chosen.http_host, chosen.http_port))
            http_url = services[-1].url
        elif chosen.url is None:
            log.warning("no http_token: the history is not served for reading")
        if settings.run_dir is not None:
            announce(
                settings.run_dir,
                "clickhouse",
                {"http_url": http_url, "metrics_url": f"{observed.url}/metrics"},
            )
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop)
        log.info("started", http_url=http_url, metrics_url=f"{observed.url}/metrics")
        async with asyncio.TaskGroup() as tasks:
            for service in services:
                tasks.create_task(service.run())
            try:
                async with asyncio.TaskGroup() as carrying:
                    for carrier in carriers:
                        carrying.create_task(carrier.run())
            finally:
                for service in services:
                    service.stop()


def _carrier(settings: Settings, sink: Sink, metrics: Metrics, topic: str, group: str) -> Carrier:
    chosen = settings.clickhouse
    group_id = chosen.group_id + group
    return Carrier(
        lambda: Runner(
            sink,
            metrics,
            kafka=options(settings.kafka),
            topic=topic,
            group_id=group_id,
            batch_rows=chosen.batch_rows,
            linger_s=chosen.linger_s,
            # The embedded engine's folder belongs to one process, and so do all partitions.
            instance=None if chosen.url else group_id,
        ),
        metrics,
    )


def _log_json() -> None:
    shared: list[structlog.typing.Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    rendered = structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[*shared, rendered],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    # Warnings of aiokafka, which name topics and hosts, not content.
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, rendered],
        )
    )
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    # It may log what it was sending.
    logging.getLogger("clickhouse_connect").setLevel(logging.CRITICAL)


def _where(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = "" if trace is None else f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"
    return f"{type(error).__name__} {place}"


if __name__ == "__main__":
    sys.exit(main())
