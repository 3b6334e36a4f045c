"""Ports: the usual one, the same again, never one twice."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.devstack.ports import NoPort, Ports, is_free


@pytest.fixture
def usual() -> Iterator[int]:
    """A port that is free, with free ones above it."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    yield min(port, 60_000)


def test_the_usual_port_when_it_is_free(tmp_path: Path, usual: int) -> None:
    ports = Ports({}, tmp_path)
    first = ports.take("gateway-1", usual)
    assert first >= usual
    assert ports.take("gateway-2", usual) > first
    assert ports.chosen["gateway-1"] == first


def test_a_port_someone_listens_on_is_passed_over(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert not is_free(port)
        assert Ports({}, tmp_path).take("kafka-1", port) != port


def test_a_stranger_on_the_ipv6_loopback_counts(tmp_path: Path) -> None:
    try:
        taken = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("this machine has no ::1")
    with taken:
        assert not is_free(taken.getsockname()[1])


def test_two_stacks_that_start_at_once_choose_different_ports(tmp_path: Path, usual: int) -> None:
    one, other = Ports({}, tmp_path), Ports({}, tmp_path)
    mine = one.take("kafka-1", usual)
    assert other.take("kafka-1", usual) != mine
    one.release()
    assert Ports({}, tmp_path).take("kafka-1", mine) == mine


def test_the_remembered_port_is_taken_again_unless_it_is_not_free(
    tmp_path: Path, usual: int
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        before = probe.getsockname()[1]
        assert Ports({"kafka-1": before}, tmp_path).take("kafka-1", usual) != before
    assert Ports({"kafka-1": before}, tmp_path).take("kafka-1", usual) == before


def test_a_range_that_is_used_up_is_said(tmp_path: Path) -> None:
    ports = Ports({}, tmp_path)
    with pytest.raises(NoPort, match="kafka-1"):
        for _ in range(3):
            ports.take("kafka-1", 65534)
