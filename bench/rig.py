"""What the gateway's benchmarks share: a stack, its peers, and figures of processes."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cli.tokens import demo_token
from infra.devstack.conninfo import Conninfo, parse
from infra.devstack.plan import Options
from infra.devstack.shop import Size
from infra.devstack.state import StateDir
from tests.conftest import running

CLEARTEXT = "gateway: {postgres: {cleartext_loopback: true}}\n"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One way to the same database. `pids` are the processes in between."""

    name: str
    url: str
    pids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Rig:
    """A running stack and the ways to its database."""

    state: StateDir
    document: dict[str, Any]
    direct: Endpoint
    gateway: Endpoint
    gateways: list[Endpoint]
    token: str
    target: Conninfo


@contextlib.contextmanager
def stack(*only: str, gateways: int = 1, settings: str = CLEARTEXT) -> Iterator[Rig]:
    """A stack whose gateway also takes clear text, as its peers do here; with pgbench's tables."""
    with tempfile.TemporaryDirectory() as folder:
        overlay = Path(folder, "overlay.yaml")
        overlay.write_text(settings)
        kinds = ("kafka", "postgres", "issuer", "gateway", *only)
        options = Options(
            gateways=gateways, only=kinds, config=overlay, size=Size(customers=1000, orders=5000)
        )
        for document in running(Path(folder, "stack"), options):
            state = StateDir.at(Path(folder, "stack"))
            target = parse(document["targets"][0]["direct_conninfo"])
            token = demo_token(state, document, "bob")
            pids = {process["name"]: process["pid"] for process in document["processes"]}
            ends = [
                Endpoint(
                    gateway["name"],
                    f"postgresql://bob:{token}@127.0.0.1:{gateway['postgres']['port']}"
                    "/shop?sslmode=disable",
                    (pids[gateway["name"]],),
                )
                for gateway in document["gateways"]
            ]
            rig = Rig(
                state=state,
                document=document,
                direct=Endpoint("direct", target.uri()),
                gateway=replace(ends[0], name="gateway"),
                gateways=ends,
                token=token,
                target=target,
            )
            run(["pgbench", "-i", "-q", "-s", "10", rig.direct.url])
            yield rig


@contextlib.contextmanager
def pgbouncer(target: Conninfo) -> Iterator[Endpoint | None]:
    """A pgbouncer before the same database; None where it is not installed."""
    program = shutil.which("pgbouncer")
    if program is None:
        print("pgbouncer is not installed (Debian package pgbouncer): no peer to compare with")
        yield None
        return
    with tempfile.TemporaryDirectory() as name, socket.socket() as free:
        folder = Path(name)
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        settings = folder / "pgbouncer.ini"
        settings.write_text(
            f"[databases]\nshop = host={target.host} port={target.port} dbname={target.database} "
            f"user={target.user} password={target.password}\n[pgbouncer]\n"
            f"listen_addr = 127.0.0.1\nlisten_port = {port}\nauth_type = any\n"
            "pool_mode = session\nmax_client_conn = 500\ndefault_pool_size = 100\n"
            "ignore_startup_parameters = extra_float_digits\n"
        )
        settings.chmod(0o600)
        as_user = ["-u", "nobody"] if os.geteuid() == 0 else []
        if as_user:
            shutil.chown(folder, "nobody")
            shutil.chown(settings, "nobody")
        process = subprocess.Popen(
            [program, "-q", *as_user, settings],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            _wait_for(port)
            url = f"postgresql://x@127.0.0.1:{port}/shop?sslmode=disable"
            yield Endpoint("pgbouncer", url, (process.pid,))
        finally:
            process.terminate()
            process.wait()


@contextlib.contextmanager
def passthrough(target: Conninfo) -> Iterator[Endpoint]:
    """A TCP proxy in Python and uvloop that only moves bytes."""
    process = subprocess.Popen(
        [sys.executable, "-c", _PASSTHROUGH, target.host, str(target.port)],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        url = target.uri().replace(f":{target.port}/", f":{port}/")
        yield Endpoint("pass-through", url, (process.pid,))
    finally:
        process.terminate()
        process.wait()


_PASSTHROUGH = """
import asyncio, sys, uvloop

class End(asyncio.Protocol):
    def __init__(self): self.other = None; self.early = []
    def connection_made(self, transport): self.transport = transport
    def data_received(self, data):
        if self.other is None: self.early.append(data)
        else: self.other.transport.write(data)
    def pause_writing(self): self.other.transport.pause_reading()
    def resume_writing(self): self.other.transport.resume_reading()
    def connection_lost(self, error):
        if self.other is not None: self.other.transport.close()

class Front(End):
    def connection_made(self, transport):
        super().connection_made(transport)
        self.task = asyncio.ensure_future(self.reach())
    async def reach(self):
        loop = asyncio.get_running_loop()
        _, back = await loop.create_connection(End, sys.argv[1], int(sys.argv[2]))
        back.other, self.other = self, back
        for data in self.early: back.transport.write(data)

async def main():
    server = await asyncio.get_running_loop().create_server(Front, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()

uvloop.run(main())
"""


def _wait_for(port: int, deadline_s: float = 10.0) -> None:
    deadline = time.monotonic() + deadline_s
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def cpu_seconds(pids: tuple[int, ...]) -> float:
    """User and system time of processes so far."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def rss_bytes(pid: int) -> int:
    """Resident memory of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    return int(found.group(1)) * 1024 if found else 0


def run(command: list[str], cwd: Path | None = None) -> str:
    """A program's output; it must succeed. Its arguments, which hold a token, are not shown."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed: {done.stderr[-500:]}")
    return done.stdout


@dataclass(frozen=True, slots=True)
class Pgbench:
    """One run: transactions per second, proxies' CPU per transaction, sorted latencies (us)."""

    tps: float
    cpu_us: float
    latencies: list[int]

    def percentile(self, share: float) -> float:
        """Latency in milliseconds that `share` of the transactions did not exceed."""
        return self.latencies[min(int(len(self.latencies) * share), len(self.latencies) - 1)] / 1000


def pgbench(
    end: Endpoint, clients: int, seconds: int, *arguments: str, select: bool = True
) -> Pgbench:
    """`pgbench -S` (or as `arguments` say) with a log of latencies."""
    with tempfile.TemporaryDirectory() as folder:
        before = cpu_seconds(end.pids)
        output = run(
            [
                "pgbench", "-n", *(["-S"] if select else []), "-c", str(clients), "-j", "1",
                "-T", str(seconds), "-l", *arguments, end.url,
            ],
            Path(folder),
        )  # fmt: skip
        used = cpu_seconds(end.pids) - before
        latencies = sorted(
            int(line.split()[2])
            for log in Path(folder).glob("pgbench_log.*")
            for line in log.read_text().splitlines()
        )
    tps = float(re.search(r"tps = ([\d.]+)", output).group(1))  # type: ignore[union-attr]
    return Pgbench(tps, used / max(len(latencies), 1) * 1e6, latencies)
