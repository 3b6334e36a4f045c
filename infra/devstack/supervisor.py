"""Starts processes in the order of their needs, restarts those that crash, stops all of them.

One asyncio task per child. Children run in process groups of their own, so that Ctrl-C on
the terminal reaches the supervisor alone, which then stops them in reverse order.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from infra.devstack.backoff import Backoff
from infra.devstack.child import Child, StepFailed
from infra.devstack.processes import ProcessId, identify, kill_group

LAUNCH = Path(__file__).with_name("launch.py")
PROBE_TIMEOUT_S = 3.0
STARTING_INTERVAL_S = 0.1
STEADY_INTERVAL_S = 1.0
STARTS_BEFORE_FAILURE = 3
"""A child that ends this often without ever having been ready fails the whole start."""
LOG_LIMIT_BYTES = 64 * 1024 * 1024
TAIL_LINES = 20


class StartFailed(Exception):
    """The stack cannot become ready. The text names the child and ends with its log's tail."""


@dataclass(slots=True)
class ChildState:
    """What is known of a child now. `healthy` is the last probe's answer."""

    child: Child
    process: ProcessId | None = None
    healthy: bool = False
    restarts: int = 0


class Supervisor:
    """Runs children until `stop` is set."""

    def __init__(
        self,
        children: Iterable[Child],
        say: Callable[[str], None],
        changed: Callable[[], None] = lambda: None,
        working_directory: Path | None = None,
    ) -> None:
        """`say` takes a line per thing that happened; `changed` follows each change of a state."""
        self.states = {child.name: ChildState(child) for child in children}
        for state in self.states.values():
            missing = set(state.child.after) - set(self.states)
            if missing:
                raise ValueError(f"{state.child.name} waits for unknown {sorted(missing)}")
        self._say, self._changed = say, changed
        self._working_directory = working_directory
        self.ready = asyncio.Event()
        self.stop = asyncio.Event()
        self._served = {name: asyncio.Event() for name in self.states}
        self._ended = {name: asyncio.Event() for name in self.states}
        self._failure: StartFailed | None = None

    async def run(self) -> None:
        """Start everything, keep it running until `stop`, stop everything. Raises StartFailed."""
        tasks = [asyncio.create_task(self._supervise(state)) for state in self.states.values()]
        watcher = asyncio.create_task(self._watch_ready())
        try:
            await asyncio.gather(*tasks)
        finally:
            watcher.cancel()
            for task in tasks:
                task.cancel()
            await asyncio.gather(watcher, *tasks, return_exceptions=True)
        if self._failure:
            raise self._failure

    @property
    def healthy(self) -> bool:
        """Whether every child serves."""
        return all(state.healthy for state in self.states.values())

    async def _watch_ready(self) -> None:
        for event in self._served.values():
            await event.wait()
        self.ready.set()
        self._changed()

    async def _supervise(self, state: ChildState) -> None:
        child = state.child
        try:
            for name in child.after:
                if not await self._unless_stopping(self._served[name].wait()):
                    return
            backoff, failures = Backoff(), 0
            while not self.stop.is_set():
                started = time.monotonic()
                reason = await self._one_run(state)
                if self.stop.is_set():
                    return
                delay, backoff = backoff.after_exit(time.monotonic() - started)
                failures += 1
                if not self._served[child.name].is_set() and failures >= STARTS_BEFORE_FAILURE:
                    self._fail(child, reason)
                    return
                state.restarts += 1
                self._say(f"{child.name} {reason}; starting it again in {delay:.2g} s")
                self._changed()
                await self._unless_stopping(asyncio.sleep(delay))
        finally:
            self._ended[child.name].set()

    def _fail(self, child: Child, reason: str) -> None:
        self._failure = StartFailed(f"{child.name} {reason}\n{tail(child.log_file)}")
        self.stop.set()

    async def _one_run(self, state: ChildState) -> str:
        """Start a child and see it to its end; what ended it, in words."""
        child = state.child
        try:
            if child.prepare and not await self._unless_stopping(child.prepare()):
                return "was stopped"
        except StepFailed as error:
            return f"cannot start: {error}"
        try:
            process = await self._spawn(child)
        except OSError as error:
            return f"cannot start: {error.strerror}"
        state.process = identify(process.pid)
        self._changed()
        exited = asyncio.create_task(process.wait())
        stopping = asyncio.create_task(self._asked_to_stop(child))
        probing = asyncio.create_task(self._probe(state))
        failed_step = ""
        try:
            await asyncio.wait({exited, stopping, probing}, return_when=asyncio.FIRST_COMPLETED)
            if probing.done() and not exited.done():
                broken = probing.exception()
                failed_step = str(broken) or type(broken).__name__
        finally:
            probing.cancel()
            stopping.cancel()
            await asyncio.shield(self._end(process, child, exited))
            # What it started may have outlived it, for example the workers of a killed gateway.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, 9)
            state.process, state.healthy = None, False
            self._changed()
        if failed_step:
            return f"started, but {failed_step}"
        code = process.returncode
        return (
            f"was killed by signal {-code}"
            if code is not None and code < 0
            else f"exited with {code}"
        )

    async def _spawn(self, child: Child) -> asyncio.subprocess.Process:
        user, group = child.user or (-1, -1)
        with _open_log(child.log_file) as log:
            return await asyncio.create_subprocess_exec(
                sys.executable,
                "-I",
                "-S",
                str(LAUNCH),
                str(os.getpid()),
                str(user),
                str(group),
                *child.argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=asyncio.subprocess.STDOUT,
                env={**os.environ, **child.env},
                cwd=self._working_directory,
                start_new_session=True,
            )

    async def _probe(self, state: ChildState) -> None:
        """Keep `healthy` true to the process. Ends only by StepFailed, when `settle` fails."""
        child, served = state.child, self._served[state.child.name]
        started = time.monotonic()
        while True:
            healthy = await _answers(child)
            if healthy and not served.is_set():
                if child.settle:
                    await child.settle()
                served.set()
                self._say(f"{child.name} is ready after {time.monotonic() - started:.1f} s")
            if healthy != state.healthy:
                if served.is_set() and not healthy:
                    self._say(f"{child.name} runs, but does not serve")
                elif state.restarts and healthy:
                    self._say(f"{child.name} serves again")
                state.healthy = healthy
                self._changed()
            await asyncio.sleep(STEADY_INTERVAL_S if healthy else STARTING_INTERVAL_S)

    async def _asked_to_stop(self, child: Child) -> None:
        """Returns when this child may end: everything that needs it has ended."""
        await self.stop.wait()
        for other in self.states.values():
            if child.name in other.child.after:
                await self._ended[other.child.name].wait()

    async def _end(
        self, process: asyncio.subprocess.Process, child: Child, exited: asyncio.Task[int]
    ) -> None:
        if exited.done():
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(child.stop_signal)
        done, _ = await asyncio.wait({exited}, timeout=child.stop_timeout_s)
        if not done:
            self._say(f"{child.name} did not stop within {child.stop_timeout_s:g} s; killing it")
            if (identity := identify(process.pid)) is not None:
                kill_group(identity)
            await exited

    async def _unless_stopping(self, work: Coroutine[Any, Any, object]) -> bool:
        """Await `work`, unless the stack stops first; then cancel it and return False."""
        task = asyncio.create_task(work)
        stopping = asyncio.create_task(self.stop.wait())
        try:
            await asyncio.wait({task, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                return False
            task.result()
            return not self.stop.is_set()
        finally:
            stopping.cancel()
            if not task.done():
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)


async def _answers(child: Child) -> bool:
    try:
        async with asyncio.timeout(PROBE_TIMEOUT_S):
            return await child.probe()
    except (OSError, EOFError, TimeoutError):
        return False


def _open_log(path: Path) -> IO[bytes]:
    """The log to append to; one that grew large becomes NAME.log.1."""
    with contextlib.suppress(FileNotFoundError):
        if path.stat().st_size > LOG_LIMIT_BYTES:
            path.replace(path.with_name(path.name + ".1"))
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab")


def tail(log_file: Path, lines: int = TAIL_LINES) -> str:
    """Last lines of a log, indented; says so when there are none."""
    try:
        with log_file.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 16_384))
            text = file.read().decode(errors="replace")
    except OSError:
        text = ""
    shown = text.splitlines()[-lines:]
    if not shown:
        return f"    (nothing in {log_file})"
    return "\n".join([f"    {line}" for line in shown] + [f"    (from {log_file})"])
