"""/metrics, /healthz and /readyz of one process."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the process's business."""
        yield


@contextlib.asynccontextmanager
async def serving(
    host: str,
    port: int,
    registry: CollectorRegistry,
    unready: Callable[[], str],
    address_file: Path | None,
) -> AsyncIterator[str]:
    """Serve while the block runs; yields the base URL.

    `unready` says what is missing, or nothing. The bound address goes to `address_file`.
    Raises OSError when the port is taken.
    """

    def metrics(request: Request) -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    async def healthz(request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(request: Request) -> Response:
        missing = unready()
        return PlainTextResponse(f"{missing or 'ready'}\n", 503 if missing else 200)

    application = Starlette(
        routes=[
            Route("/metrics", metrics),
            Route("/healthz", healthz),
            Route("/readyz", readyz),
        ]
    )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, port), family=family) as listener:
        bound = listener.getsockname()[1]
        url = f"http://{f'[{host}]' if ':' in host else host}:{bound}"
        server = _Server(
            uvicorn.Config(application, log_config=None, access_log=False, lifespan="off")
        )
        task = asyncio.create_task(server.serve(sockets=[listener]))
        if address_file is not None:
            _write(address_file, {"metrics_url": f"{url}/metrics", "pid": os.getpid()})
        try:
            yield url
        finally:
            server.should_exit = True
            await task


def _write(file: Path, content: dict[str, object]) -> None:
    """In one step: a reader never sees half of it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(f".{os.getpid()}")
    partial.write_text(json.dumps(content))
    partial.replace(file)
