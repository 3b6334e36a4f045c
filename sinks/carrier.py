"""Runs a sink through Kafka's outages.

A client of a broker that was away is not always of use afterwards, so each attempt has new ones.
The process stays, and with it what serves the history to its readers: an outage is when people
most want to read it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

import structlog
from aiokafka.errors import KafkaError

from sinks.metrics import Metrics
from sinks.runner import Runner

log = structlog.get_logger(__name__)

_FIRST_RETRY_S: Final = 0.2
_LAST_RETRY_S: Final = 5.0
_STEADY_S: Final = 30.0


class Carrier:
    """One runner after another, until `stop`."""

    def __init__(self, make: Callable[[], Runner], metrics: Metrics) -> None:
        self._make = make
        self._metrics = metrics
        self._runner: Runner | None = None
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Finish what is being written, then end."""
        self._stopping.set()
        if self._runner is not None:
            self._runner.stop()

    async def run(self) -> None:
        """Until `stop`. Raises whatever is no fault of Kafka's."""
        delay = _FIRST_RETRY_S
        while not self._stopping.is_set():
            started = time.monotonic()
            self._runner = self._make()
            try:
                await self._runner.run()
                continue
            except (KafkaError, OSError, asyncio.CancelledError) as error:
                # aiokafka cancels tasks of its own and lets that out. Taken for ours, it would
                # end this sink without a word, and a task group leaves the others running.
                if (task := asyncio.current_task()) and task.cancelling():
                    raise
                if time.monotonic() - started > _STEADY_S:
                    delay = _FIRST_RETRY_S
                self._metrics.restarted()
                log.warning("Kafka unavailable", error=type(error).__name__, retry_in_s=delay)
            try:
                await asyncio.wait_for(self._stopping.wait(), delay)
            except TimeoutError:
                delay = min(2 * delay, _LAST_RETRY_S)
