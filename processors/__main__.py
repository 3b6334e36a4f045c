"""`python -m processors NAME --config FILE`."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys
import traceback
from pathlib import Path

import structlog
import uvloop
from aiokafka.errors import KafkaError

from processors.compacted import WrongTopic
from schemas.settings import Settings, SettingsError, load

log = structlog.get_logger()


def _configure_logging() -> None:
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
    )
    # aiokafka logs whole requests when it fails; what matters comes as an exception.
    logging.basicConfig(level=logging.CRITICAL, stream=sys.stderr)


async def _mask(settings: Settings) -> None:
    from processors.mask_service import MaskService

    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await MaskService(settings).run(stop)


def main(arguments: list[str] | None = None) -> int:
    """Run one processor until SIGTERM; 0 when told to stop, 2 for settings, 1 for anything else."""
    parser = argparse.ArgumentParser(prog="python -m processors", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    mask = commands.add_parser("mask", help="gatebook.events to gatebook.masked")
    mask.add_argument("--config", type=Path, required=True, help="settings file (YAML)")
    options = parser.parse_args(arguments)
    _configure_logging()
    try:
        uvloop.run(_mask(load(options.config)))
    except (SettingsError, WrongTopic) as error:
        log.error("cannot run", error=str(error))
        return 2
    except (KafkaError, OSError) as error:
        log.error("stopped by an error", error=type(error).__name__, text=str(error))
        return 1
    except Exception as error:
        # An exception's text may quote what was processed: say where, not what.
        frames = [
            f"{Path(frame.filename).name}:{frame.lineno}"
            for frame in traceback.extract_tb(error.__traceback__)
        ]
        log.error("stopped by a fault", error=type(error).__name__, frames=frames)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
