"""/metrics, /healthz and /readyz for operators."""

from __future__ import annotations

import asyncio
from pathlib import Path

import uvicorn
from prometheus_client import generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from gateway.journal import Journal


def application(journal: Journal) -> Starlette:
    """Ready means durable: a gateway whose journal does not answer must get no new clients."""

    async def metrics(_: Request) -> Response:
        return Response(generate_latest(), media_type="text/plain; version=0.0.4")

    async def healthz(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(_: Request) -> Response:
        if journal.healthy:
            return PlainTextResponse("ready\n")
        return PlainTextResponse("the journal is not durable\n", status_code=503)

    return Starlette(
        routes=[
            Route("/metrics", metrics),
            Route("/healthz", healthz),
            Route("/readyz", readyz),
        ]
    )


class HttpServer:
    """Serves an application on the gateway's own loop."""

    def __init__(
        self,
        app: Starlette,
        host: str,
        port: int,
        *,
        certificate: Path | None = None,
        private_key: Path | None = None,
    ) -> None:
        self._server = uvicorn.Server(
            uvicorn.Config(
                app,
                host=host,
                port=port,
                ssl_certfile=certificate,
                ssl_keyfile=private_key,
                log_config=None,
                access_log=False,
                lifespan="off",
            )
        )
        # Signals are the gateway's to handle.
        self._server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> int:
        """Bind; returns the port."""
        config = self._server.config
        config.load()
        self._server.lifespan = config.lifespan_class(config)
        await self._server.startup()
        self._task = asyncio.create_task(self._server.main_loop())
        return int(self._server.servers[0].sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Stop serving."""
        self._server.should_exit = True
        if self._task is not None:
            await self._task
        await self._server.shutdown()
