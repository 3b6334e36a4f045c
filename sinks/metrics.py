"""What the sinks report about themselves: Prometheus metrics, health and readiness."""

from __future__ import annotations

import copy
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

_SINK: Final = "sink"


class Metrics:
    """Counters of one sink, in a registry of their own."""

    def __init__(self, sink: str) -> None:
        self._registry = CollectorRegistry()
        self._ready = {sink: False}
        self._sink = sink

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, (_SINK, *labels), registry=self._registry)

        self._rows = counter("gatebook_sink_rows_total", "Records written.", "partition")
        self._batches = counter("gatebook_sink_batches_total", "Inserts.", "replayed")
        self._retries = counter("gatebook_sink_retries_total", "Writes refused for the time being.")
        self._dead = counter("gatebook_sink_dead_letters_total", "Records that cannot be decoded.")
        self._duplicates = counter(
            "gatebook_sink_duplicates_total", "Events that came a second time and were dropped."
        )
        self._restarts = counter(
            "gatebook_sink_restarts_total", "Times its clients of Kafka failed and were replaced."
        )
        self._lag = Gauge(
            "gatebook_sink_lag_records",
            "Records of a partition that are not written yet.",
            (_SINK, "partition"),
            registry=self._registry,
        )
        self._readiness = Gauge(
            "gatebook_sink_ready",
            "1 while it has its partitions and its last write succeeded.",
            (_SINK,),
            registry=self._registry,
        )

    def of(self, sink: str) -> Metrics:
        """The same counters for another sink of the process, which is ready when all are."""
        made = copy.copy(self)
        made._sink = sink
        made.ready(False)
        return made

    def written(self, partition: int, rows: int, replayed: bool) -> None:
        self._rows.labels(self._sink, partition).inc(rows)
        self._batches.labels(self._sink, str(replayed).lower()).inc()

    def lag(self, partition: int, records: int) -> None:
        self._lag.labels(self._sink, partition).set(records)

    def duplicates(self, events: int) -> None:
        self._duplicates.labels(self._sink).inc(events)

    def buried(self) -> None:
        self._dead.labels(self._sink).inc()

    def unavailable(self) -> None:
        self._retries.labels(self._sink).inc()
        self.ready(False)

    def restarted(self) -> None:
        self._restarts.labels(self._sink).inc()

    def ready(self, ready: bool) -> None:
        self._ready[self._sink] = ready
        self._readiness.labels(self._sink).set(ready)

    def app(self) -> Starlette:
        """/metrics, /healthz (the process lives), /readyz (and what it reads becomes visible)."""

        async def metrics(_: Request) -> Response:
            return Response(generate_latest(self._registry), media_type=CONTENT_TYPE_LATEST)

        async def health(_: Request) -> Response:
            return PlainTextResponse("ok\n")

        async def readiness(_: Request) -> Response:
            missing = [sink for sink, ready in self._ready.items() if not ready]
            if not missing:
                return PlainTextResponse("ready\n")
            return PlainTextResponse(f"not ready: {', '.join(missing)}\n", status_code=503)

        return Starlette(
            routes=[
                Route("/metrics", metrics),
                Route("/healthz", health),
                Route("/readyz", readiness),
            ]
        )
