"""Statements of megabytes are read where they keep nobody else waiting."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import psycopg
import pytest

from tests.e2e.stack import Stack, until
from tests.gateway.protocols.postgres import messages as pg
from tests.integration.wire_client import WireClient

pytestmark = pytest.mark.integration

GATEWAY = "gateway-1"
CONDITIONS = " or ".join(f"id = {number}" for number in range(60_000))
NUMBERS = count()


def refused() -> bytes:
    """What alice may not do. It takes seconds to be read, and no two are one that is known."""
    return pg.query(f"delete from customers where id = {next(NUMBERS)} or {CONDITIONS}")


def analysts(stack: Stack) -> list[int]:
    """The processes of the gateway that read large texts."""
    parent = stack.pid(GATEWAY)
    found = []
    for each in Path("/proc").glob("[0-9]*"):
        try:
            command = (each / "cmdline").read_bytes()
            status = (each / "status").read_text()
        except OSError:
            continue
        if b"gateway.analyst" in command and f"\nPPid:\t{parent}\n" in status:
            found.append(int(each.name))
    return found


def busy(stack: Stack) -> int:
    """The one that is reading: its processor time goes on."""

    def ticks(pid: int) -> int:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    before: dict[int, int] = {}

    def found() -> int:
        now = {pid: ticks(pid) for pid in analysts(stack)}
        return next((pid for pid in now if now[pid] > before.setdefault(pid, now[pid]) + 5), 0)

    return until(found, pause_s=0.01)


def answered(client: WireClient) -> bool:
    return bool(select.select([client.socket], [], [], 0)[0])


def code(messages: list[bytes]) -> str:
    (error,) = [one for one in messages if one[:1] == b"E"]
    return pg.fields(error)["C"]


@pytest.fixture
def alice(gateway_stack: Stack) -> Iterator[WireClient]:
    with WireClient.signed_in(gateway_stack, "alice") as client:
        yield client


def test_others_go_on_while_a_large_statement_is_read(
    alice: WireClient, gateway_stack: Stack
) -> None:
    with gateway_stack.connect("bob") as bob:
        bob.execute("select 1")
        alice.send(refused())
        reader = busy(gateway_stack)
        for number in range(100):
            assert bob.execute(f"select {number}").fetchone() == (number,)
        assert not answered(alice)
        assert reader in analysts(gateway_stack)
        # Another person's large one does not wait for hers.
        listed = ", ".join(map(str, range(10_000)))
        assert bob.execute(f"select 1 where 7 in ({listed})").fetchone() == (1,)
        assert not answered(alice)
    assert code(alice.until("Z")) == "42501"


def test_what_a_large_statement_does_is_what_a_small_one_does(
    alice: WireClient, gateway_stack: Stack
) -> None:
    values = ", ".join(f"({number}, 'x')" for number in range(20_000))
    with gateway_stack.connect("bob") as bob:
        bob.execute("drop table if exists many; create table many (n int, t text)")
        bob.execute(f"insert into many values {values}")
        assert bob.execute("select count(*) from many").fetchone() == (20_000,)
        listed = ", ".join(map(str, range(10_000)))
        text = f"select count(*) from many where n in ({listed}) and t = %s"
        for _ in range(2):
            assert bob.execute(text, ("x",), prepare=True).fetchone() == (10_000,)
        both = f"create temp table mine as select 1 a /*{'x' * 20_000}*/; select a from mine"
        assert bob.execute(both).nextset()
        with pytest.raises(psycopg.errors.SyntaxError):
            bob.execute(f"selct {listed}")


def test_a_reader_that_is_killed_costs_its_statement_alone(
    alice: WireClient, gateway_stack: Stack
) -> None:
    alice.send(pg.query("select 1"), refused(), pg.query("select 2"))
    os.kill(busy(gateway_stack), signal.SIGKILL)
    answers = alice.until("Z", 3)
    assert code(answers) == "54001"
    assert [one[:1] for one in answers].count(b"D") == 2
    assert code(alice.ask(refused())) == "42501"


def test_it_can_be_cancelled_while_it_is_read(alice: WireClient, gateway_stack: Stack) -> None:
    (key,) = [one for one in alice.hello if one[:1] == b"K"]
    alice.send(refused())
    reader = busy(gateway_stack)
    with WireClient.over_tls(gateway_stack) as other:
        other.send(pg.cancel_request(int.from_bytes(key[5:9], "big"), key[9:]))
        other.to_the_end()
    assert code(alice.until("Z")) == "57014"
    until(lambda: reader not in analysts(gateway_stack))
    assert [one[:1] for one in alice.ask(pg.query("select 1"))][-1:] == [b"Z"]


def test_who_leaves_is_not_read_for(alice: WireClient, gateway_stack: Stack) -> None:
    alice.send(refused())
    reader = busy(gateway_stack)
    alice.close()
    until(lambda: reader not in analysts(gateway_stack))
