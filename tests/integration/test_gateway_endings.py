"""What runs when a gateway ends a session is cancelled at the target, and recorded so."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import psycopg
import pytest

from cli import tokens
from schemas.events import Completed, SessionClosed
from tests.e2e import book
from tests.e2e.stack import Stack, until
from tests.integration.another import another_gateway

pytestmark = pytest.mark.integration


class Sleeper(threading.Thread):
    """Runs a long statement, and keeps the error that it ends with."""

    def __init__(self, connection: psycopg.Connection[Any], name: str) -> None:
        super().__init__()
        self._connection = connection
        self._text = f"select pg_sleep(300), '{name}'"
        self.error: psycopg.Error | None = None

    def run(self) -> None:
        try:
            self._connection.execute(self._text)
        except psycopg.Error as error:
            self.error = error

    def runs_at_target(self, stack: Stack) -> bool:
        """Whether the target works on it, whoever may still wait for it."""
        with stack.direct() as outside:
            found = outside.execute(
                "select count(*) from pg_stat_activity where state = 'active' and query = %s",
                (self._text,),
            ).fetchone()
        return found == (1,)


async def said_of(stack: Stack, application: str, since: book.Place) -> list[tuple[str, str]]:
    """(outcome, error code) of the session's statements, and why it ended."""
    entries = await book.read(stack.document["kafka"]["bootstrap_servers"], stack.state.keys, since)
    found: list[tuple[str, str]] = []
    for entry in entries:
        if entry.event.context.client.application != application:
            continue
        if isinstance(entry.event, Completed):
            found.append((entry.event.outcome, entry.event.error_code))
        elif isinstance(entry.event, SessionClosed):
            found.append(("closed", entry.event.reason))
    return found


async def test_a_token_that_expires(gateway_stack: Stack) -> None:
    before = await book.end(gateway_stack.document["kafka"]["bootstrap_servers"])
    token = tokens.demo_token(gateway_stack.state, gateway_stack.document, "bob", 2)
    connection = gateway_stack.connect("bob", password=token, application_name="expiring")
    sleeper = Sleeper(connection, "expiring")
    sleeper.start()
    until(lambda: sleeper.runs_at_target(gateway_stack))
    sleeper.join(30)
    assert sleeper.error is not None and sleeper.error.sqlstate == "57014"
    assert not sleeper.runs_at_target(gateway_stack)
    with pytest.raises(psycopg.OperationalError):
        connection.execute("select 1")
    assert await said_of(gateway_stack, "expiring", before) == [
        ("completed", ""),
        ("cancelled", "57014"),
        ("closed", "token_expired"),
    ]


async def test_a_gateway_that_shuts_down(gateway_stack: Stack, tmp_path: Path) -> None:
    before = await book.end(gateway_stack.document["kafka"]["bootstrap_servers"])
    with another_gateway(gateway_stack, tmp_path, lambda settings: None) as (host, port):
        connection = gateway_stack.connect(
            "bob", hostaddr=host, port=port, application_name="stopping"
        )
        sleeper = Sleeper(connection, "stopping")
        sleeper.start()
        until(lambda: sleeper.runs_at_target(gateway_stack))
    sleeper.join(30)
    assert sleeper.error is not None and sleeper.error.sqlstate == "57014"
    assert not sleeper.runs_at_target(gateway_stack)
    assert await said_of(gateway_stack, "stopping", before) == [
        ("completed", ""),
        ("cancelled", "57014"),
        ("closed", "shutdown"),
    ]
