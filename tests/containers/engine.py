"""A Docker engine: the one that answers, else one of our own for as long as it is needed.

Our own is Debian's, unpacked into the cache and not installed. It runs in a PID and a mount
namespace that end with it, so that no container, shim or mount outlives it, however it ends. It
changes nothing in the machine's firewall and forwards no packets.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from infra.devstack.supervisor import LAUNCH
from infra.images import debian
from infra.images.docker import Docker, DockerFailed
from infra.kafka.jars import cache_root

PACKAGES = ("docker.io", "containerd", "runc", "tini")
START_S, STOP_S = 60.0, 30.0


class NoEngine(Exception):
    """No Docker engine answers, and none can be started here. Says why."""


@contextmanager
def engine(say: Callable[[str], None]) -> Iterator[Docker]:
    """A running engine. Raises NoEngine."""
    try:
        found = Docker.find()
    except DockerFailed:
        found = None
    if found is not None and found.answers():
        yield found
        return
    if os.environ.get("DOCKER_HOST"):
        raise NoEngine("DOCKER_HOST is set, but no engine answers there")
    if sys.platform != "linux" or os.geteuid() != 0:
        raise NoEngine("no Docker engine answers, and only root on Linux can start one")
    cache = cache_root() / "containers"
    cache.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _alone(cache / "lock", say), tempfile.TemporaryDirectory(prefix="gatebook-engine-") as run:
        yield from _own(cache, Path(run), say)


@contextmanager
def _alone(lock: Path, say: Callable[[str], None]) -> Iterator[None]:
    """One engine at a time: two on one data folder would ruin it."""
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another run's engine to end")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _own(cache: Path, run: Path, say: Callable[[str], None]) -> Iterator[Docker]:
    root = _binaries(cache, say)
    path = os.pathsep.join(str(root / folder) for folder in ("usr/bin", "usr/sbin"))
    search = os.pathsep.join((path, os.environ.get("PATH", os.defpath)))
    socket = f"unix://{run}/docker.sock"
    (run / "daemon.json").write_text("{}")
    command = [
        # It ends with this process, and everything in its namespaces with it.
        *(sys.executable, "-I", "-S", str(LAUNCH), str(os.getpid()), "-1", "-1"),
        *("unshare", "--pid", "--fork", "--kill-child=SIGKILL", "--mount", "--mount-proc"),
        *("dockerd", "--config-file", f"{run}/daemon.json", "--host", socket),
        *("--data-root", f"{cache}/data", "--exec-root", f"{run}/exec", "--pidfile", f"{run}/pid"),
        *("--iptables=false", "--ip6tables=false", "--ip-forward=false", "--ip-masq=false"),
        *("--bridge=none", "--ip", "127.0.0.1"),
    ]
    docker = Docker(shutil.which("docker", path=search) or "docker", socket)
    with (run / "log").open("wb") as log:
        process = subprocess.Popen(
            command,
            env={**os.environ, "PATH": search},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            # Ctrl-C is for the tests; they still need the engine to clean up.
            start_new_session=True,
        )
    try:
        _await(docker, process, run / "log")
        yield docker
    finally:
        _stop(docker, process)


def _binaries(cache: Path, say: Callable[[str], None]) -> Path:
    if shutil.which("dockerd"):
        return Path("/")
    folder = cache / f"engine-{platform.machine()}"
    if not folder.is_dir():
        say("fetching a Docker engine (once, 65 MB)")
    try:
        return debian.unpacked(PACKAGES, folder)
    except debian.NoDebian as error:
        raise NoEngine(f"no Docker engine answers, and none can be fetched: {error}") from error


def _await(docker: Docker, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_S
    while not docker.answers():
        if process.poll() is not None or time.monotonic() > deadline:
            words = log.read_text(errors="replace").strip().splitlines() or ["it said nothing"]
            raise NoEngine(f"a Docker engine does not start: {words[-1]}")
        time.sleep(0.05)


def _stop(docker: Docker, process: subprocess.Popen[bytes]) -> None:
    # Bridges are the one thing that is not in its namespaces.
    try:
        if containers := docker.run("ps", "--all", "--quiet").split():
            docker.run("rm", "--force", "--volumes", *containers)
        docker.run("network", "prune", "--force")
        docker.run("volume", "prune", "--force")
        docker.run("image", "prune", "--force")
    except DockerFailed:
        pass  # It is dead; the next one cleans up.
    # `unshare` does not pass signals on: its child is the engine.
    with contextlib.suppress(OSError):
        for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
            os.kill(int(child), signal.SIGTERM)
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
