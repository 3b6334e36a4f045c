"""What one person can send must not stop the gateway for the others, nor tear the book."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from schemas.events import Completed, Requested, RequestedOriginal
from tests.e2e import book
from tests.e2e.stack import Stack
from tests.gateway.protocols.postgres import messages as pg
from tests.integration.wire_client import WireClient

pytestmark = pytest.mark.integration


@pytest.fixture
def bob(gateway_stack: Stack) -> Iterator[WireClient]:
    with WireClient.signed_in(gateway_stack, "bob") as client:
        yield client


def errors(messages: list[bytes]) -> list[str]:
    return [pg.fields(one)["C"] for one in messages if one[:1] == b"E"]


async def test_a_query_of_many_statements_is_written_whole(
    gateway_stack: Stack, bob: WireClient
) -> None:
    """Its events are several times larger than the largest record."""
    count = 30_000
    servers = gateway_stack.document["kafka"]["bootstrap_servers"]
    before = await book.end(servers)
    assert errors(bob.ask(pg.query("select 7001;" * count))) == []
    found = await book.read(servers, gateway_stack.state.keys, before)
    book.check_chains(found, whole=False)
    ids = {
        entry.event.statement_id
        for entry in found
        if isinstance(entry.event, Requested)
        and isinstance(entry.original, RequestedOriginal)
        and entry.original.statement == "select 7001"
    }
    ended = [
        entry.event.outcome
        for entry in found
        if isinstance(entry.event, Completed) and entry.event.statement_id in ids
    ]
    assert len(ids) == count
    assert ended == ["completed"] * count


def test_a_request_too_large_for_one_record_is_refused_alone(
    gateway_stack: Stack, bob: WireClient
) -> None:
    text = "select length($1::bytea) -- " + "x" * 12_000_000
    assert errors(bob.ask(pg.parse(text, "s"), pg.SYNC)) == []
    large = pg.bind([os.urandom(12_000_000)], "s", formats=[1])
    assert errors(bob.ask(large, pg.execute(), pg.SYNC)) == ["54000"]
    assert errors(bob.ask(pg.bind([b"abc"], "s", formats=[1]), pg.execute(), pg.SYNC)) == []
    with WireClient.signed_in(gateway_stack, "bob") as other:
        assert errors(other.ask(pg.query("select 1"))) == []


@pytest.mark.parametrize("kind", ["E", "S", "D"])
def test_a_message_that_is_never_large_ends_its_session(
    gateway_stack: Stack, bob: WireClient, kind: str
) -> None:
    bob.send(kind.encode(), (17 * 1024 * 1024).to_bytes(4, "big"), b"x" * 1000)
    assert errors(bob.to_the_end()) == ["54000"]
