"""PostgreSQL built from Debian's source package: server, psql, pg_regress and libpq_pipeline.

One build, so that the suite, the programs it drives and the server they test are of one version.
"""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from infra.devstack.conninfo import Conninfo
from tests.conformance.sources import DebianSource, Unavailable, made, run

VERSION = "15.18"
SOURCE = DebianSource(
    "postgresql-15",
    "15.18-0+deb12u1",
    "postgresql-15_15.18.orig.tar.bz2",
    "11df0df97fe3ea4ba9a791faaf39cee1d2fe571e78885b5b55d8517d27c323b4",
)
SUPERUSER = "postgres"
_START_S = 60

_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "200",
    "fsync": "off",
    # As pg_regress sets them for a server of its own.
    "max_prepared_transactions": "2",
    "wal_level": "replica",
    # A driver's tests of timing are not about compiling queries.
    "jit": "off",
    "log_min_messages": "log",
}


def build() -> Path:
    """Folder with `install`, `regress` and `libpq_pipeline`, built once. Raises Unavailable."""
    return made(f"postgresql-{VERSION}", _build)


def _build(folder: Path) -> None:
    source = folder / "source"
    source.mkdir()
    SOURCE.unpack(source)
    jobs = f"-j{os.cpu_count() or 1}"
    options = ("--prefix=/pgsql", "--without-readline", "--without-zlib", "CFLAGS=-O1")
    log = folder.parent / f"postgresql-{VERSION}.log"
    run(source / "configure", *options, cwd=source, log=log)
    for part in (".", "contrib"):
        run("make", "-s", jobs, "-C", part, cwd=source, log=log)
        run("make", "-s", "-C", part, "install", f"DESTDIR={folder / 'root'}", cwd=source, log=log)
    for part in ("src/test/regress", "src/test/modules/libpq_pipeline"):
        run("make", "-s", jobs, "-C", part, cwd=source, log=log)
    (folder / "root" / "pgsql").rename(folder / "install")
    (folder / "root").rmdir()
    shutil.copytree(source / "src/test/regress", folder / "regress")
    shutil.copy(source / "src/test/modules/libpq_pipeline/libpq_pipeline", folder)
    shutil.rmtree(source)


_readable: dict[Path, Path] = {}


def readable(folder: Path) -> Path:
    """`folder` where the server's user can read it: a home may be closed to it."""
    if os.geteuid() != 0:
        return folder
    if folder not in _readable:
        raise Unavailable("the server does not run")
    return _readable[folder]


def stand_in_extension(name: str) -> None:
    """An extension without content, where the server is built without the library it needs."""
    folder = readable(build()) / "install" / "share" / "extension"
    for file, content in (
        (folder / f"{name}.control", "default_version = '1.0'\n"),
        (folder / f"{name}--1.0.sql", "-- nothing\n"),
    ):
        file.write_text(content)
        file.chmod(0o644)


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class Server:
    """A server of our own, as often new as wanted."""

    def __init__(self, place: Path, install: Path) -> None:
        self._place = place
        self._bin = install / "bin"
        self._user = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
        self._process: subprocess.Popen[bytes] | None = None
        self._password = secrets.token_urlsafe(24)
        self._log = place / "server.log"
        self._port = free_port()

    def address(self, database: str = "postgres") -> Conninfo:
        """How its superuser signs in."""
        return Conninfo("127.0.0.1", self._port, database, SUPERUSER, self._password, "disable")

    def renew(self) -> None:
        """Start it, or start again with an empty cluster: nothing of an earlier suite is left."""
        self.stop()
        data, pristine = self._place / "data", self._place / "pristine"
        shutil.rmtree(data, ignore_errors=True)
        if not pristine.exists():
            self._initdb(pristine)
        self._call("cp", "-a", str(pristine), str(data))
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    self._bin / "postgres",
                    *("-D", data, "-p", str(self._port)),
                    *(
                        word
                        for name, value in _SETTINGS.items()
                        for word in ("-c", f"{name}={value}")
                    ),
                ],
                stdout=log,
                stderr=log,
                env={"PATH": os.defpath, "LC_ALL": "C.UTF-8", "TZ": "UTC"},
                cwd=self._place,
                **self._as_user(),  # type: ignore[call-overload]
            )
        deadline = time.monotonic() + _START_S
        while True:
            try:
                psycopg.connect(self.address().uri(), connect_timeout=5).close()
                return
            except psycopg.OperationalError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise Unavailable(f"the server does not start; see {self._log}") from None
                time.sleep(0.05)

    def stop(self) -> None:
        """Stop it, open transactions rolled back."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(timeout=60)
            self._process = None

    def _initdb(self, data: Path) -> None:
        password = self._place / "password"
        password.write_text(self._password)
        password.chmod(0o600)
        if self._user is not None:
            os.chown(password, self._user.pw_uid, self._user.pw_gid)
        self._call(
            str(self._bin / "initdb"),
            *("-D", str(data), "-U", SUPERUSER, "--auth", "scram-sha-256"),
            # As pg_regress makes its own: expected outputs are in this order.
            *("--pwfile", str(password), "--encoding", "UTF8", "--locale", "C"),
            *("--no-sync", "--no-instructions"),
        )

    def _call(self, *command: str) -> None:
        done = subprocess.run(
            command,
            env={"PATH": os.environ.get("PATH", os.defpath)},
            cwd=self._place,
            capture_output=True,
            text=True,
            check=False,
            **self._as_user(),  # type: ignore[call-overload]
        )
        if done.returncode != 0:
            raise Unavailable(f"{Path(command[0]).name}: {(done.stderr or done.stdout)[-500:]}")

    def _as_user(self) -> dict[str, object]:
        # PostgreSQL refuses to run as root.
        if self._user is None:
            return {}
        return {"user": self._user.pw_uid, "group": self._user.pw_gid, "extra_groups": []}


@contextmanager
def serving() -> Iterator[Server]:
    """The built server, in a folder of its own that is removed. Raises Unavailable."""
    built = build()
    place = Path(tempfile.mkdtemp(prefix="gatebook-conformance-", dir="/var/tmp"))
    try:
        install = built / "install"
        if os.geteuid() == 0:
            owner = pwd.getpwnam("nobody")
            os.chown(place, owner.pw_uid, owner.pw_gid)
            copy = place / "built"
            shutil.copytree(built, copy, symlinks=True)
            copy.chmod(0o755)
            # pg_regress writes beside its inputs.
            install, _readable[built] = copy / "install", copy
        place.chmod(0o711)
        server = Server(place, install)
        try:
            server.renew()
            yield server
        finally:
            server.stop()
    finally:
        _readable.pop(built, None)
        shutil.rmtree(place, ignore_errors=True)
