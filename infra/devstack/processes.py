"""Processes by identity: a pid alone may be another process by the time it is looked at."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class ProcessId:
    """A process: its pid and the kernel's start time in clock ticks since boot."""

    pid: int
    started: int


def identify(pid: int) -> ProcessId | None:
    """Identity of a running process; None when there is none (a zombie is none)."""
    try:
        stat = (PROC / str(pid) / "stat").read_text()
    except OSError:
        return None
    # The command's name is in parentheses and may itself hold spaces and parentheses.
    fields = stat.rpartition(")")[2].split()
    if fields[0] in ("Z", "X"):
        return None
    return ProcessId(pid, int(fields[19]))


def alive(process: ProcessId) -> bool:
    """Whether this very process still runs."""
    return identify(process.pid) == process


def send(process: ProcessId, number: int) -> bool:
    """Signal a process; False when it is gone."""
    if not alive(process):
        return False
    try:
        os.kill(process.pid, number)
    except ProcessLookupError:
        return False
    return True


def kill_group(process: ProcessId) -> None:
    """SIGKILL the process group a process leads, if it still does."""
    if not alive(process):
        return
    try:
        if os.getpgid(process.pid) == process.pid:
            os.killpg(process.pid, signal.SIGKILL)
        else:
            os.kill(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def with_working_directory(folder: Path) -> list[ProcessId]:
    """Processes whose working directory is `folder`; PostgreSQL's all stay in their data folder."""
    found = []
    for entry in PROC.iterdir():
        if not entry.name.isdigit():
            continue
        try:
            at = (entry / "cwd").readlink()
        except OSError:
            continue
        if at == folder and (process := identify(int(entry.name))) is not None:
            found.append(process)
    return found


def wait_gone(processes: list[ProcessId], timeout_s: float) -> bool:
    """Block until all have ended; False when some have not within the time."""
    deadline = time.monotonic() + timeout_s
    while any(alive(process) for process in processes):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
