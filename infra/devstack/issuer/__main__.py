"""`python -m infra.devstack.issuer`: serve the development issuer until SIGTERM."""

from __future__ import annotations

import argparse
import ipaddress
import logging
import socket
import sys
from pathlib import Path

import structlog
import uvicorn

from infra.devstack.issuer.app import Issuer, create_app


def main() -> int:
    """2 when an argument or a file does not serve; else it ends by the signal that stops it."""
    parser = argparse.ArgumentParser(prog="python -m infra.devstack.issuer")
    parser.add_argument("--state-dir", type=Path, required=True, help="keys and secrets: D/issuer")
    parser.add_argument("--host", default="127.0.0.1", help="a loopback address")
    parser.add_argument("--port", type=int, required=True, help="0 takes a free one")
    parser.add_argument("--certificate", type=Path, required=True, help="PEM chain for localhost")
    parser.add_argument("--private-key", type=Path, required=True, help="PEM")
    arguments = parser.parse_args()

    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stdout),
    )
    log = structlog.get_logger("issuer")
    try:
        listener = _listen(arguments.host, arguments.port)
        url = f"https://localhost:{listener.getsockname()[1]}"
        config = uvicorn.Config(
            create_app(Issuer.open(url, arguments.state_dir / "issuer")),
            ssl_certfile=arguments.certificate,
            ssl_keyfile=arguments.private_key,
            # Its access log has the queries in it; the application writes its own.
            access_log=False,
            log_level="warning",
            server_header=False,
            lifespan="off",
            timeout_graceful_shutdown=1,
            limit_concurrency=500,
        )
        config.load()
    except (OSError, ValueError) as error:
        log.error("cannot_start", reason=str(error))
        return 2
    log.info("listening", issuer=url)
    uvicorn.Server(config).run(sockets=[listener])
    return 0


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises ValueError for an address that others can reach."""
    address = ipaddress.ip_address("127.0.0.1" if host == "localhost" else host)
    if not address.is_loopback:
        raise ValueError(
            f"{host} is not a loopback address: this issuer lets anyone be anyone, "
            "so it serves its own machine only"
        )
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    return socket.create_server((str(address), port), family=family)


if __name__ == "__main__":
    sys.exit(main())
