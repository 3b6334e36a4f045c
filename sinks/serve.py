"""Small HTTP services inside the sinks process."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        # The process's own handlers stop everything in order.
        yield


class Service:
    """An ASGI application on a socket that is bound when this is made, so that its port is known
    before it serves. Raises OSError when the address is taken."""

    def __init__(self, app: ASGIApp, host: str, port: int) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.create_server((host, port), family=family, backlog=256)
        bound = self._socket.getsockname()[1]
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{bound}"
        self._server = _Server(
            uvicorn.Config(
                app,
                log_config=None,
                log_level="critical",  # its tracebacks of broken-off responses say nothing
                access_log=False,  # request lines hold SQL
                lifespan="off",
                timeout_graceful_shutdown=2,
                server_header=False,
            )
        )

    async def run(self) -> None:
        """Serve until `stop`."""
        await self._server.serve(sockets=[self._socket])

    def stop(self) -> None:
        self._server.should_exit = True


def announce(run_dir: Path, name: str, addresses: dict[str, str | None]) -> None:
    """Write run_dir/name.json whole or not at all."""
    run_dir.mkdir(parents=True, exist_ok=True)
    partial = run_dir / f".{name}.{os.getpid()}"
    partial.write_text(json.dumps(addresses) + "\n")
    partial.replace(run_dir / f"{name}.json")
