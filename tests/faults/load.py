"""Many clients that insert numbered rows through the gateways, and note what they were told."""

from __future__ import annotations

import asyncio
import itertools
import ssl
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Final

import asyncpg

from gateway.protocols.postgres.startup import NOT_DURABLE_TEXT
from tests.e2e.stack import Stack

CLIENTS: Final = 16
_PATIENCE_S: Final = 60.0
"""Longest that one client may wait for one answer, whatever is being killed."""


@dataclass(slots=True)
class Told:
    """What clients learnt of their rows, by row id."""

    acknowledged: set[int] = field(default_factory=set)
    refused: set[int] = field(default_factory=set)
    """Ids of which the gateway said that nothing was executed."""
    unsure: set[int] = field(default_factory=set)
    """Ids whose connection ended, or whose response was withheld."""
    errors: dict[int, int] = field(default_factory=dict)
    """Errors seen by the clients of each gateway, by its number."""


class Load:
    """Inserts into `table` until `goal` rows are acknowledged and `done` says so."""

    def __init__(
        self,
        stack: Stack,
        table: str,
        goal: int,
        midway: Callable[[], None],
        done: Callable[[], bool],
    ) -> None:
        self._stack = stack
        self._table = table
        self._goal = goal
        self._midway = midway
        self._done = done
        self._ids = itertools.count(1)
        self._begun = False
        document = stack.document
        self._tls = ssl.create_default_context(cafile=document["ca_file"])
        self._gateways = [gateway["postgres"] for gateway in document["gateways"]]
        self._token = stack.token("bob")
        self.told = Told()

    async def run(self) -> Told:
        """Run it; fails when a client waits too long for an answer."""
        async with asyncio.TaskGroup() as group:
            for number in range(CLIENTS):
                group.create_task(self._client(number))
        return self.told

    async def _client(self, number: int) -> None:
        gateway = number % len(self._gateways)
        connection = None
        while not self._finished():
            row = None
            try:
                if connection is None or connection.is_closed():
                    connection = await _within(self._connect(gateway))
                row = next(self._ids)
                await _within(self._insert(connection, row, in_text=number % 4 < 2))
            except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
                self.told.errors[gateway + 1] = self.told.errors.get(gateway + 1, 0) + 1
                if row is None:
                    # Nobody listens there yet.
                    await asyncio.sleep(0.05)
                elif isinstance(error, asyncpg.PostgresError) and error.args[0] == NOT_DURABLE_TEXT:
                    self.told.refused.add(row)
                else:
                    self.told.unsure.add(row)
            else:
                self.told.acknowledged.add(row)
                if not self._begun and len(self.told.acknowledged) >= self._goal // 2:
                    self._begun = True
                    self._midway()
        if connection is not None and not connection.is_closed():
            await _within(connection.close())

    def _finished(self) -> bool:
        return len(self.told.acknowledged) >= self._goal and self._done()

    async def _connect(self, gateway: int) -> asyncpg.Connection:
        address = self._gateways[gateway]
        return await asyncpg.connect(
            host=address["host"],
            port=address["port"],
            user="bob",
            password=self._token,
            database="shop",
            ssl=self._tls,
            timeout=_PATIENCE_S,
        )

    async def _insert(self, connection: asyncpg.Connection, row: int, in_text: bool) -> None:
        """One row: its id in the text of a simple query, or bound to a prepared statement."""
        if in_text:
            await connection.execute(f"insert into {self._table} (id) values ({row})")
        else:
            await connection.execute(f"insert into {self._table} (id) values ($1)", row)


async def _within(work: Coroutine[Any, Any, Any]) -> Any:
    try:
        async with asyncio.timeout(_PATIENCE_S):
            return await work
    except TimeoutError:
        raise AssertionError("a client was left without an answer") from None
