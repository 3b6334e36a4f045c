"""Starts a detached stack and stops one, from another process."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

from infra.devstack.options import to_json
from infra.devstack.plan import Options
from infra.devstack.processes import ProcessId, send, wait_gone
from infra.devstack.state import Lock, StateDir, kill_leftovers, supervisor_of
from infra.devstack.status import withdraw
from infra.devstack.supervisor import LAUNCH, StartFailed, tail

STOP_TIMEOUT_S = 60.0
"""Longer than every child's own deadline on the longest chain of dependencies."""


def start_detached(
    state: StateDir,
    options: Options,
    say: Callable[[str], None],
    die_with_parent: bool = False,
) -> None:
    """Start a supervisor that outlives this process and wait until its stack is ready.

    `die_with_parent` ends it when the calling thread does, for tests. Raises BadStateDir or
    StartFailed.
    """
    state.create()
    reading, writing = os.pipe()
    command = [sys.executable, "-P", "-m", "infra.devstack", "--state-dir", str(state.root)]
    command += ["--progress-fd", str(writing)]
    if die_with_parent:
        command = [sys.executable, "-I", "-S", str(LAUNCH), str(os.getpid()), "-1", "-1", *command]
    log = os.open(state.logs / "supervisor.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            pass_fds=(writing,),
            start_new_session=True,
            cwd=state.root,
        )
    finally:
        os.close(log)
        os.close(writing)
    try:
        _await_ready(process, reading, state, to_json(options), say)
    except (KeyboardInterrupt, SystemExit):
        # The supervisor has a session of its own, so that Ctrl-C did not reach it.
        process.terminate()
        process.wait()
        raise


def _await_ready(
    process: subprocess.Popen[bytes],
    reading: int,
    state: StateDir,
    options: str,
    say: Callable[[str], None],
) -> None:
    with contextlib.suppress(BrokenPipeError):
        _send_input(process, options)
    for message in _messages(reading):
        if "say" in message:
            say(str(message["say"]))
        elif "failed" in message:
            process.wait()
            raise StartFailed(str(message["failed"]))
        else:
            return
    process.wait()
    raise StartFailed(f"the supervisor ended without a word\n{tail(state.logs / 'supervisor.log')}")


def _send_input(process: subprocess.Popen[bytes], text: str) -> None:
    assert process.stdin is not None  # noqa: S101 (asked for above)
    process.stdin.write(text.encode())
    process.stdin.close()


def _messages(descriptor: int) -> Iterator[dict[str, object]]:
    with os.fdopen(descriptor, "rb") as pipe:
        for line in pipe:
            yield json.loads(line)


def stop(state: StateDir, say: Callable[[str], None]) -> bool:
    """Stop the stack of this folder; False when none runs. Nothing of it is left afterwards."""
    supervisor = supervisor_of(state)
    if supervisor is None:
        return False
    if not _end(supervisor, signal.SIGTERM, STOP_TIMEOUT_S):
        say("the supervisor does not stop; killing it")
        # The kernel kills its children with it (launch.py).
        _end(supervisor, signal.SIGKILL, 5)
        lock = Lock(state, patience_s=10)
        kill_leftovers(state)
        withdraw(state)
        lock.release()
    return True


def _end(supervisor: ProcessId, number: signal.Signals, timeout_s: float) -> bool:
    send(supervisor, number)
    return wait_gone([supervisor], timeout_s)
