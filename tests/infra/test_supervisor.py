"""The supervisor with small real processes: order, restarts, ends."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from infra.devstack.child import Child, StepFailed
from infra.devstack.processes import ProcessId, alive, identify
from infra.devstack.supervisor import StartFailed, Supervisor

SERVES = """
import pathlib, signal, sys, time
here = pathlib.Path(sys.argv[1])
def end(*_):
    with here.with_name("ends").open("a") as file:
        file.write(here.name + "\\n")
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
with here.with_name("starts").open("a") as file:
    file.write(here.name + "\\n")
here.touch()
while True:
    signal.pause()
"""
STUBBORN = """
import pathlib, signal, subprocess, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-S", "-c", "import signal; signal.pause()"])
pathlib.Path(sys.argv[1] + ".pid").write_text(str(child.pid))
pathlib.Path(sys.argv[1]).touch()
while True:
    signal.pause()
"""
FAILS = "import sys; print('no such setting: colour'); sys.exit(3)"


def child(folder: Path, name: str, source: str = SERVES, after: tuple[str, ...] = ()) -> Child:
    marker = folder / name

    async def probe() -> bool:
        return marker.exists()

    async def prepare() -> None:
        marker.unlink(missing_ok=True)

    return Child(
        name=name,
        argv=(sys.executable, "-S", "-c", source, str(marker)),
        log_file=folder / f"{name}.log",
        probe=probe,
        prepare=prepare,
        after=after,
    )


@dataclass
class Said:
    lines: list[str] = field(default_factory=list)

    def __call__(self, line: str) -> None:
        self.lines.append(line)


@asynccontextmanager
async def running(*children: Child) -> AsyncIterator[tuple[Supervisor, Said]]:
    said = Said()
    supervisor = Supervisor(children, said)
    task = asyncio.create_task(supervisor.run())
    ready = asyncio.create_task(supervisor.ready.wait())
    try:
        await asyncio.wait({task, ready}, timeout=30, return_when=asyncio.FIRST_COMPLETED)
        yield supervisor, said
    finally:
        ready.cancel()
        supervisor.stop.set()
        await asyncio.wait_for(task, 30)


async def until(condition: Callable[[], bool], timeout_s: float = 20) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 (other processes have no Event)
            await asyncio.sleep(0.02)


def lines(path: Path) -> list[str]:
    return path.read_text().split() if path.exists() else []


async def test_a_child_starts_after_what_it_needs_and_ends_before_it(tmp_path: Path) -> None:
    children = (
        child(tmp_path, "gateway", after=("kafka", "sink")),
        child(tmp_path, "sink", after=("kafka",)),
        child(tmp_path, "kafka"),
    )
    async with running(*children) as (supervisor, _):
        assert supervisor.healthy
        assert lines(tmp_path / "starts") == ["kafka", "sink", "gateway"]
    assert lines(tmp_path / "ends") == ["gateway", "sink", "kafka"]


async def test_a_killed_child_is_started_again_and_that_is_said(tmp_path: Path) -> None:
    async with running(child(tmp_path, "gateway")) as (supervisor, said):
        state = supervisor.states["gateway"]
        first = state.process
        assert first is not None
        os.kill(first.pid, signal.SIGKILL)
        await until(lambda: state.healthy and state.process not in (None, first))
        assert state.restarts == 1
        assert any(
            "gateway was killed by signal 9; starting it again" in line for line in said.lines
        )


async def test_a_child_that_never_serves_fails_the_start_with_its_log(tmp_path: Path) -> None:
    supervisor = Supervisor([child(tmp_path, "sink", FAILS), child(tmp_path, "kafka")], Said())
    with pytest.raises(StartFailed, match="sink exited with 3") as failed:
        await asyncio.wait_for(supervisor.run(), 30)
    assert "no such setting: colour" in str(failed.value)
    assert all(state.process is None for state in supervisor.states.values())
    assert lines(tmp_path / "ends") == ["kafka"]


async def test_a_command_that_does_not_exist_is_named(tmp_path: Path) -> None:
    missing = replace(child(tmp_path, "kafka"), argv=("/nowhere/java",))
    with pytest.raises(StartFailed, match="/nowhere/java"):
        await asyncio.wait_for(Supervisor([missing], Said()).run(), 30)


async def test_a_step_that_fails_is_the_reason(tmp_path: Path) -> None:
    async def settle() -> None:
        raise StepFailed("the topics cannot be made")

    broken = replace(child(tmp_path, "kafka"), settle=settle)
    with pytest.raises(StartFailed, match="the topics cannot be made"):
        await asyncio.wait_for(Supervisor([broken], Said()).run(), 30)


async def test_a_child_that_ignores_the_signal_is_killed_with_its_own_children(
    tmp_path: Path,
) -> None:
    stubborn = replace(child(tmp_path, "broker", STUBBORN), stop_timeout_s=0.3)
    async with running(stubborn) as (_, said):
        grandchild = identify(int((tmp_path / "broker.pid").read_text()))
        assert grandchild is not None
    await until(lambda: not alive(grandchild))
    assert any("did not stop within 0.3 s" in line for line in said.lines)


async def test_a_child_that_runs_but_does_not_serve_is_unhealthy_and_left_alone(
    tmp_path: Path,
) -> None:
    async with running(child(tmp_path, "gateway")) as (supervisor, said):
        state = supervisor.states["gateway"]
        process = state.process
        (tmp_path / "gateway").unlink()
        await until(lambda: not state.healthy)
        assert (state.process, state.restarts) == (process, 0)
        assert "gateway runs, but does not serve" in said.lines
        (tmp_path / "gateway").touch()
        await until(lambda: state.healthy)


async def test_stopping_while_starting_does_not_wait(tmp_path: Path) -> None:
    async def never() -> bool:
        return False

    slow = replace(child(tmp_path, "kafka"), probe=never)
    supervisor = Supervisor([slow, child(tmp_path, "gateway", after=("kafka",))], Said())
    task = asyncio.create_task(supervisor.run())
    await until(lambda: supervisor.states["kafka"].process is not None)
    supervisor.stop.set()
    await asyncio.wait_for(task, 10)
    assert "gateway" not in lines(tmp_path / "starts")


def test_an_unknown_dependency_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="zookeeper"):
        Supervisor([child(tmp_path, "kafka", after=("zookeeper",))], Said())


async def test_children_die_with_a_killed_supervisor(tmp_path: Path) -> None:
    program = textwrap.dedent(
        f"""
        import asyncio, sys
        sys.path.insert(0, {str(Path.cwd())!r})
        from pathlib import Path
        from infra.devstack.child import Child
        from infra.devstack.supervisor import Supervisor

        async def main():
            async def probe():
                return Path("pid").exists()
            source = "import os, signal; open('pid', 'w').write(str(os.getpid())); signal.pause()"
            child = Child("child", (sys.executable, "-S", "-c", source), Path("child.log"), probe)
            supervisor = Supervisor([child], print)
            task = asyncio.create_task(supervisor.run())
            await supervisor.ready.wait()
            Path("ready").touch()
            await task

        asyncio.run(main())
        """
    )
    supervisor = subprocess.Popen(  # noqa: ASYNC220 (it returns at once)
        [sys.executable, "-c", program], cwd=tmp_path
    )
    try:
        await until((tmp_path / "ready").exists)
        orphan: ProcessId | None = identify(int((tmp_path / "pid").read_text()))
        assert orphan is not None
    finally:
        supervisor.kill()
        supervisor.wait()
    await until(lambda: not alive(orphan))


async def test_a_hanging_probe_counts_as_not_serving(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("infra.devstack.supervisor.PROBE_TIMEOUT_S", 0.1)
    hanging = asyncio.Event()

    async def probe() -> bool:
        if hanging.is_set():
            await asyncio.Event().wait()
        return True

    async with running(replace(child(tmp_path, "kafka"), probe=probe)) as (supervisor, _):
        hanging.set()
        await until(lambda: not supervisor.states["kafka"].healthy)


def test_a_large_log_is_put_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from infra.devstack import supervisor

    monkeypatch.setattr(supervisor, "LOG_LIMIT_BYTES", 10)
    log = tmp_path / "kafka.log"
    log.write_text("a line that is long enough\n")
    with supervisor._open_log(log) as file:
        file.write(b"new\n")
    assert log.read_text() == "new\n"
    assert (tmp_path / "kafka.log.1").exists()
    assert supervisor.tail(log).splitlines()[0].strip() == "new"
