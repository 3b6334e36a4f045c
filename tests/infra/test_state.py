"""The state folder: who runs in it, and what a killed supervisor left."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.devstack.processes import alive, identify, kill_group, send, with_working_directory
from infra.devstack.state import (
    AlreadyRunning,
    Lock,
    StateDir,
    kill_leftovers,
    read_json,
    supervisor_of,
    write_json,
)


@pytest.fixture
def state(tmp_path: Path) -> StateDir:
    folder = StateDir.at(tmp_path / "state")
    folder.create()
    return folder


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, "-S", "-c", "import signal; signal.pause()"],
        start_new_session=True,
        cwd=tmp_path,
    )
    yield process
    process.kill()
    process.wait()


def test_the_folder_is_private_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        folder = StateDir.at(tmp_path / "open")
        folder.create()
    finally:
        os.umask(before)
    for path in (folder.root, folder.secrets, folder.keys, folder.sessions, folder.logs):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700, path


def test_where_the_folder_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GATEBOOK_STATE_DIR", raising=False)
    assert StateDir.at(None).root == tmp_path / ".gatebook"
    monkeypatch.setenv("GATEBOOK_STATE_DIR", "elsewhere")
    assert StateDir.at(None).root == tmp_path / "elsewhere"
    assert StateDir.at(Path("here")).root == tmp_path / "here"


def test_one_stack_per_folder(state: StateDir) -> None:
    assert supervisor_of(state) is None
    lock = Lock(state)
    me = identify(os.getpid())
    assert supervisor_of(state) == me
    with pytest.raises(AlreadyRunning, match="already runs"):
        Lock(state, patience_s=0.05)
    lock.release()
    assert supervisor_of(state) is None
    Lock(state).release()


def test_the_lock_of_a_killed_supervisor_is_no_lock(state: StateDir) -> None:
    program = (
        f"import sys, signal; sys.path.insert(0, {str(Path.cwd())!r});"
        "from infra.devstack.state import *;"
        f"lock = Lock(StateDir(Path({str(state.root)!r}))); print('held', flush=True);"
        "signal.pause()"
    )
    holder = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    found = supervisor_of(state)
    assert found is not None
    assert found.pid == holder.pid
    holder.kill()
    holder.wait()
    holder.stdout.close()
    assert supervisor_of(state) is None


def test_leftovers_are_ended(state: StateDir, sleeper: subprocess.Popen[bytes]) -> None:
    process = identify(sleeper.pid)
    assert process is not None
    write_json(state.children_file, [{"pid": process.pid, "started": process.started}])
    assert kill_leftovers(state) == 1
    assert sleeper.wait(10) == -signal.SIGKILL
    assert not state.children_file.exists()


def test_a_stranger_with_a_reused_pid_is_left_alone(
    state: StateDir, sleeper: subprocess.Popen[bytes]
) -> None:
    process = identify(sleeper.pid)
    assert process is not None
    write_json(state.children_file, [{"pid": process.pid, "started": process.started - 1}])
    assert kill_leftovers(state) == 0
    assert alive(process)


def test_a_process_is_found_by_its_working_directory(
    tmp_path: Path, sleeper: subprocess.Popen[bytes]
) -> None:
    process = identify(sleeper.pid)
    assert process in with_working_directory(tmp_path)
    assert process is not None
    kill_group(process)
    sleeper.wait(10)
    assert process not in with_working_directory(tmp_path)
    assert not send(process, signal.SIGTERM)


def test_json_files_are_private_and_replaced_whole(state: StateDir) -> None:
    write_json(state.status_file, {"healthy": False})
    write_json(state.status_file, {"healthy": True})
    assert read_json(state.status_file) == {"healthy": True}
    assert stat.S_IMODE(state.status_file.stat().st_mode) == 0o600
    state.status_file.write_text("{")
    assert read_json(state.status_file) is None
