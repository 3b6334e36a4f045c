"""Clients that say nothing, garbage, too much, or never read; targets that are not there."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.e2e.stack import Stack, until
from tests.gateway.protocols.postgres import messages as pg
from tests.integration.another import another_gateway
from tests.integration.wire_client import WireClient, address

pytestmark = pytest.mark.integration

GATEWAY = "gateway-1"


def served(stack: Stack) -> float:
    """Seconds that a new person waits for an answer."""
    begun = time.monotonic()
    with stack.connect("bob") as connection:
        assert connection.execute("select 1").fetchone() == (1,)
    return time.monotonic() - begun


def codes(messages: list[bytes]) -> list[str]:
    return [pg.fields(one)["C"] for one in messages if one[:1] == b"E"]


@pytest.fixture
def sockets() -> Iterator[list[socket.socket]]:
    held: list[socket.socket] = []
    yield held
    for each in held:
        each.close()


def test_hundreds_that_say_nothing_keep_nobody_waiting(
    gateway_stack: Stack, sockets: list[socket.socket]
) -> None:
    before = gateway_stack.resident_bytes(GATEWAY)
    began = pg.startup(user="bob", database="shop")[:20]
    for number in range(600):
        each = socket.create_connection(address(gateway_stack), 10)
        sockets.append(each)
        match number % 4:
            case 1:
                each.sendall(pg.SSL_REQUEST)
            case 2:
                each.sendall(b"\0\0\0")
            case 3:
                each.sendall(pg.GSSENC_REQUEST + began)
    assert served(gateway_stack) < 10
    assert gateway_stack.resident_bytes(GATEWAY) - before < 100 * 1024 * 1024
    # Each is closed when its time is over.
    open_still, deadline = set(sockets), time.monotonic() + 30
    while open_still:
        assert time.monotonic() < deadline, f"{len(open_still)} are still open"
        readable, _, _ = select.select(list(open_still)[:500], [], [], 1)
        for each in readable:
            with contextlib.suppress(ConnectionResetError):
                if each.recv(100):
                    continue
            open_still.discard(each)


def test_who_says_nothing_takes_no_place_of_who_signs_in(
    gateway_stack: Stack, tmp_path: Path, sockets: list[socket.socket]
) -> None:
    def change(settings: Any) -> None:
        settings["gateway"]["postgres"] |= {"max_connections": 2, "max_logins": 20}

    with another_gateway(gateway_stack, tmp_path, change) as (host, port):
        with gateway_stack.connect("bob", hostaddr=host, port=port) as first:
            for number in range(100):
                each = socket.create_connection((host, port), 10)
                sockets.append(each)
                each.sendall(pg.SSL_REQUEST if number % 2 else b"\0")
            # The oldest went as newer ones came.
            for each in sockets[:70]:
                each.settimeout(10)
                with contextlib.suppress(ConnectionResetError):
                    while each.recv(100):
                        pass
            assert first.execute("select 1").fetchone() == (1,)
            with gateway_stack.connect("bob", hostaddr=host, port=port) as second:
                assert second.execute("select 1").fetchone() == (1,)
                with pytest.raises(psycopg.OperationalError, match="too many clients"):
                    gateway_stack.connect("bob", hostaddr=host, port=port)
        with gateway_stack.connect("bob", hostaddr=host, port=port) as again:
            assert again.execute("select 1").fetchone() == (1,)


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\x00" * 100,
        b"\xff" * 5000,
        os.urandom(1000),
        b"\x16\x03\x01\x00\x05hello",
        pg.SSL_REQUEST + b"\x16\x03\x01garbage instead of a handshake",
        pg.startup(user="bob", database="shop"),
        b"\x00\x00\x00\x09\x00\x03\x00\x00\x00",
    ],
)
def test_garbage_gets_an_error_or_a_close(gateway_stack: Stack, garbage: bytes) -> None:
    with WireClient.plain(gateway_stack) as client:
        client.send(garbage)
        try:
            answer = client.socket.recv(1000)
        except ConnectionResetError:
            answer = b""
    assert not answer or answer[:1] in b"ESN\x15"
    assert served(gateway_stack) < 10


def test_garbage_over_tls_gets_an_error(gateway_stack: Stack) -> None:
    with WireClient.over_tls(gateway_stack) as client:
        client.send(b"\xff" * 5000)
        assert codes(client.to_the_end()) == ["08P01"]


def test_a_password_that_never_ends_is_cut_off(gateway_stack: Stack) -> None:
    with WireClient.over_tls(gateway_stack) as client:
        client.send(pg.startup(user="bob", database="shop"))
        client.until("R")
        client.send(b"p" + (1 << 30).to_bytes(4, "big") + b"x" * 10_000)
        assert codes(client.to_the_end()) == ["28P01"]


def test_a_client_that_does_not_read_costs_bounded_memory(gateway_stack: Stack) -> None:
    rows, size = 200_000, 1000
    before = gateway_stack.resident_bytes(GATEWAY)
    with WireClient.signed_in(gateway_stack, "bob") as client:
        client.send(pg.query(f"select repeat('x', {size}) from generate_series(1, {rows})"))
        recorded = -1.0
        most = 0

        def still() -> bool:
            nonlocal recorded, most
            most = max(most, gateway_stack.resident_bytes(GATEWAY))
            previous, recorded = recorded, gateway_stack.metric("gatebook_journal_bytes_total")
            return recorded == previous

        until(still, timeout_s=60, pause_s=0.5)
        assert most - before < 128 * 1024 * 1024
        assert served(gateway_stack) < 10
        # Then it reads, slowly at first, and gets everything.
        for _ in range(20):
            client.message()
            time.sleep(0.01)
        left = client.until("Z")
        assert sum(one[:1] == b"D" for one in left) >= rows - 20
        most = max(most, gateway_stack.resident_bytes(GATEWAY))
    assert most - before < 128 * 1024 * 1024


def test_a_client_that_asks_without_reading_costs_bounded_memory(gateway_stack: Stack) -> None:
    before = gateway_stack.resident_bytes(GATEWAY)
    with WireClient.signed_in(gateway_stack, "bob") as client:
        client.socket.settimeout(3)
        flood = (pg.extended("select 1") + pg.SYNC) * 2_000
        with contextlib.suppress(TimeoutError):
            for _ in range(500):
                client.send(flood)
        assert gateway_stack.resident_bytes(GATEWAY) - before < 128 * 1024 * 1024
        assert served(gateway_stack) < 10


def test_a_wrong_key_cancels_nothing(gateway_stack: Stack) -> None:
    with WireClient.signed_in(gateway_stack, "bob") as client:
        (key,) = [one for one in client.hello if one[:1] == b"K"]
        process_id, secret = int.from_bytes(key[5:9], "big"), key[9:]
        client.send(pg.query("select pg_sleep(1.5), 'finished'"))
        for wrong in (bytes(len(secret)), secret[::-1] + b"x"):
            with WireClient.plain(gateway_stack) as other:
                other.send(pg.cancel_request(process_id, wrong))
                assert other.to_the_end() == []
        assert b"finished" in b"".join(client.until("Z"))


# --- targets ---


def test_an_unknown_target(gateway_stack: Stack) -> None:
    with pytest.raises(psycopg.OperationalError, match='database "nowhere" does not exist'):
        gateway_stack.connect("bob", dbname="nowhere")


def test_a_target_that_is_down(gateway_stack: Stack, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        closed_port = free.getsockname()[1]

    def change(settings: Any) -> None:
        settings["targets"][0]["port"] = closed_port

    with (
        another_gateway(gateway_stack, tmp_path, change) as (host, port),
        pytest.raises(psycopg.OperationalError, match='target "shop" cannot be reached'),
    ):
        gateway_stack.connect("bob", hostaddr=host, port=port)


def test_a_target_that_refuses_our_password_does_not_say_whose(
    gateway_stack: Stack, tmp_path: Path
) -> None:
    (tmp_path / "wrong").write_text("wrong")

    def change(settings: Any) -> None:
        settings["targets"][0]["password"] = {"file": str(tmp_path / "wrong")}

    with another_gateway(gateway_stack, tmp_path, change) as (host, port):
        with pytest.raises(psycopg.OperationalError) as refused:
            gateway_stack.connect("bob", hostaddr=host, port=port)
        assert 'target "shop" refused the gateway' in str(refused.value)
        assert "gatebook_shop" not in str(refused.value)


def test_a_password_that_cannot_be_read_is_an_error_not_a_silence(
    gateway_stack: Stack, tmp_path: Path
) -> None:
    def change(settings: Any) -> None:
        settings["targets"][0]["password"] = {"file": str(tmp_path / "missing")}

    with (
        another_gateway(gateway_stack, tmp_path, change) as (host, port),
        pytest.raises(psycopg.OperationalError, match="internal error"),
    ):
        gateway_stack.connect("bob", hostaddr=host, port=port)


def test_policies_that_cannot_be_read_deny_everyone(gateway_stack: Stack, tmp_path: Path) -> None:
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "bad.cedar").write_text("permit everything;")

    def change(settings: Any) -> None:
        settings["gateway"]["policies"] = str(tmp_path / "policies")

    with (
        another_gateway(gateway_stack, tmp_path, change) as (host, port),
        pytest.raises(psycopg.OperationalError, match="the policies cannot be read"),
    ):
        gateway_stack.connect("bob", hostaddr=host, port=port)


def test_a_target_that_ends_a_session(gateway_stack: Stack, superuser: str) -> None:
    with (
        gateway_stack.connect("bob") as connection,
        psycopg.connect(superuser, autocommit=True) as other,
    ):
        found = connection.execute("select pg_backend_pid()").fetchone()
        assert found is not None
        other.execute("select pg_terminate_backend(%s)", (found[0],))
        with pytest.raises(psycopg.errors.AdminShutdown):
            connection.execute("select 1")
        assert connection.closed
