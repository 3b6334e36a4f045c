"""A stack of real Kafka and PostgreSQL: killed, restarted, stopped."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from infra.devstack import postgres, status
from infra.devstack.control import start_detached, stop
from infra.devstack.plan import Options
from infra.devstack.processes import ProcessId, alive, identify
from infra.devstack.shop import Size
from infra.devstack.state import StateDir, supervisor_of
from infra.devstack.supervisor import StartFailed
from schemas.topics import DEAD_LETTERS

pytestmark = [pytest.mark.integration, pytest.mark.faults]

SMALL = Size(customers=50, orders=100)
BOTH = Options(only=("kafka", "postgres"), size=SMALL)
ALONE = Options(only=("postgres",), size=SMALL)


@pytest.fixture
def state(tmp_path: Path) -> Iterator[StateDir]:
    folder = StateDir.at(tmp_path / "state")
    yield folder
    stop(folder, print)
    postgres.remove_data(folder.root)


def up(state: StateDir, options: Options) -> dict[str, Any]:
    start_detached(state, options, print, die_with_parent=True)
    document = status.read(state)
    assert document is not None
    assert document["healthy"]
    return document


def identities(document: dict[str, Any]) -> dict[str, ProcessId]:
    found = {p["name"]: identify(p["pid"]) for p in document["processes"]}
    assert all(found.values())
    return {name: process for name, process in found.items() if process}


def until(condition: Any, timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "not within the time"
        time.sleep(0.05)


def healthy_again(state: StateDir, name: str, before: ProcessId) -> bool:
    document = status.read(state)
    assert document is not None
    [process] = [p for p in document["processes"] if p["name"] == name]
    return bool(process["healthy"] and process["pid"] not in (None, before.pid))


async def execute(document: dict[str, Any], query: str) -> Any:
    connection = await asyncpg.connect(document["targets"][0]["direct_conninfo"])
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


async def produce(bootstrap: str, values: list[bytes]) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", enable_idempotence=True)
    await producer.start()
    try:
        for value in values:
            await producer.send_and_wait(DEAD_LETTERS, value)
    finally:
        await producer.stop()


async def consume(bootstrap: str, count: int) -> list[bytes]:
    consumer = AIOKafkaConsumer(
        DEAD_LETTERS, bootstrap_servers=bootstrap, auto_offset_reset="earliest"
    )
    await consumer.start()
    try:
        async with asyncio.timeout(30):
            return [(await consumer.getone()).value for _ in range(count)]
    finally:
        await consumer.stop()


def test_a_killed_broker_and_database_come_back_with_what_they_acknowledged(
    state: StateDir,
) -> None:
    document = up(state, BOTH)
    bootstrap = document["kafka"]["bootstrap_servers"]
    values = [b"record %d" % number for number in range(50)]
    asyncio.run(produce(bootstrap, values))
    asyncio.run(execute(document, "create table kept as select generate_series(1, 1000) as n"))

    before = identities(document)
    for process in before.values():
        os.kill(process.pid, signal.SIGKILL)
    for name, process in before.items():
        until(lambda name=name, process=process: healthy_again(state, name, process))

    after = status.read(state)
    assert after is not None
    assert {p["name"]: p["restarts"] for p in after["processes"]} == {"kafka": 1, "postgres": 1}
    assert after["kafka"] == document["kafka"]
    assert asyncio.run(consume(bootstrap, len(values))) == values
    assert asyncio.run(execute(after, "select count(*) from kept")) == 1000
    log = (state.logs / "supervisor.log").read_text()
    assert "kafka was killed by signal 9; starting it again" in log


def test_a_killed_supervisor_takes_its_children_and_the_next_start_finds_everything(
    state: StateDir,
) -> None:
    document = up(state, ALONE)
    asyncio.run(execute(document, "create table kept as select 1 as n"))
    processes = identities(document)
    supervisor = supervisor_of(state)
    assert supervisor is not None
    os.kill(supervisor.pid, signal.SIGKILL)
    until(lambda: not any(alive(process) for process in processes.values()), 10)
    # The lock goes with the last of the supervisor's threads, which may outlive its children.
    until(lambda: status.read(state) is None, 10)

    again = up(state, ALONE)
    assert again["targets"] == document["targets"]
    assert asyncio.run(execute(again, "select n from kept")) == 1


def test_down_leaves_nothing_and_up_again_has_the_same_addresses(state: StateDir) -> None:
    document = up(state, ALONE)
    processes = identities(document)
    assert stop(state, print)
    assert not any(alive(process) for process in processes.values())
    assert not state.status_file.exists()
    assert not stop(state, print)
    assert up(state, ALONE)["targets"] == document["targets"]


def test_a_stack_that_runs_is_not_started_twice(state: StateDir) -> None:
    up(state, ALONE)
    with pytest.raises(StartFailed, match="already runs"):
        start_detached(state, ALONE, print)
    current = status.read(state)
    assert current is not None
    assert current["healthy"]


def test_two_stacks_live_side_by_side(state: StateDir, tmp_path: Path) -> None:
    other = StateDir.at(tmp_path / "other")
    try:
        one, two = up(state, ALONE), up(other, ALONE)
        assert one["targets"] != two["targets"]
        for document in (one, two):
            assert asyncio.run(execute(document, "select count(*) from orders")) == SMALL.orders
    finally:
        stop(other, print)
        postgres.remove_data(other.root)


def test_a_log_tail_says_why_a_start_failed(state: StateDir) -> None:
    up(state, ALONE)
    assert stop(state, print)
    place = postgres.place(state.root)
    (place.data / "postgresql.auto.conf").write_text("shared_buffers = nonsense\n")
    with pytest.raises(StartFailed, match="postgres exited with 1") as failed:
        start_detached(state, ALONE, print)
    assert "shared_buffers" in str(failed.value)
    assert supervisor_of(state) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs PostgreSQL as someone else")
def test_binaries_below_a_private_home_are_copied(
    state: StateDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    bundled = postgres.bundled()
    package = bundled.parent
    shutil.copytree(bundled, private / package.name / bundled.name, symlinks=True)
    libraries = package.with_name(f"{package.name}.libs")
    shutil.copytree(libraries, private / libraries.name)
    monkeypatch.setattr(postgres, "bundled", lambda: private / package.name / bundled.name)
    state.create()
    postgres.ensure_password(state.postgres_superuser_password)
    place = postgres.place(state.root)
    assert not place.install.is_relative_to(private)
    assert place.user is not None
    server = postgres.Postgres(place, 0, state.postgres_superuser_password, state.target_password)
    supervised = postgres.child(server, state.logs / "postgres.log", SMALL, tmp_path / "cache", {})
    assert supervised.prepare is not None
    asyncio.run(supervised.prepare())
    assert (place.data / "PG_VERSION").exists()
    assert (place.data.stat().st_uid, place.data.stat().st_gid) == place.user
    # The second start finds the copy.
    assert postgres.place(state.root) == place
    postgres.remove_data(state.root)
    assert not place.install.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root keeps data outside the state folder")
def test_data_of_a_state_folder_that_is_gone_is_removed(state: StateDir) -> None:
    state.create()
    place = postgres.place(state.root)
    assert place.data.parent.exists()
    shutil.rmtree(state.root)
    postgres.sweep()
    assert not place.data.parent.exists()
