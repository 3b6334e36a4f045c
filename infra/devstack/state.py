"""A state folder: what is where, and whether a stack runs in it."""

from __future__ import annotations

import fcntl
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.devstack.processes import ProcessId, identify, kill_group, wait_gone

DEFAULT = Path(".gatebook")


class AlreadyRunning(Exception):
    """Another supervisor holds the state folder."""


class BadStateDir(Exception):
    """A state folder that cannot be made or written."""


@dataclass(frozen=True, slots=True)
class StateDir:
    """Paths of one state folder (docs/running.md)."""

    root: Path

    @classmethod
    def at(cls, path: Path | None) -> StateDir:
        """The folder asked for, else GATEBOOK_STATE_DIR, else ./.gatebook; absolute."""
        chosen = path or Path(os.environ.get("GATEBOOK_STATE_DIR") or DEFAULT)
        return cls(chosen.expanduser().absolute())

    @property
    def config_file(self) -> Path:
        """The generated settings every process reads."""
        return self.root / "gatebook.yaml"

    @property
    def plan_file(self) -> Path:
        """Options and ports, so that the next start finds the same addresses."""
        return self.root / "stack.json"

    @property
    def status_file(self) -> Path:
        """What the supervisor last saw."""
        return self.root / "status.json"

    @property
    def children_file(self) -> Path:
        """Identities of started processes, to clean up after a killed supervisor."""
        return self.root / "children.json"

    @property
    def lock_file(self) -> Path:
        """Held by the running supervisor."""
        return self.root / "supervisor.lock"

    @property
    def ca_file(self) -> Path:
        """The CA clients trust."""
        return self.root / "ca.pem"

    @property
    def tls(self) -> Path:
        """Server certificate and key."""
        return self.root / "tls"

    @property
    def keys(self) -> Path:
        """Key pairs of those who can open sealed originals."""
        return self.root / "keys"

    @property
    def secrets(self) -> Path:
        """Passwords and tokens, one per file."""
        return self.root / "secrets"

    @property
    def logs(self) -> Path:
        """One log per process."""
        return self.root / "logs"

    @property
    def run(self) -> Path:
        """Addresses that processes bound."""
        return self.root / "run"

    @property
    def sessions(self) -> Path:
        """Tokens of people who signed in with `gatebook login`."""
        return self.root / "sessions"

    @property
    def postgres_superuser_password(self) -> Path:
        """Password of the embedded PostgreSQL's superuser."""
        return self.secrets / "postgres-superuser"

    @property
    def target_password(self) -> Path:
        """Password of the role the gateways use at the target."""
        return self.secrets / "target-shop"

    @property
    def clickhouse_token(self) -> Path:
        """What readers of the history present."""
        return self.secrets / "clickhouse-token"

    @property
    def vault_token(self) -> Path:
        """What readers of the vault's sealed originals present."""
        return self.secrets / "vault-token"

    def create(self) -> None:
        """Make the folders, private to their owner. Raises BadStateDir."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            # It holds keys, passwords and a database: nobody else's business, whatever the umask.
            self.root.chmod(0o700)
            for folder in (
                self.tls, self.keys, self.secrets, self.logs, self.run, self.sessions
            ):  # fmt: skip
                folder.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise BadStateDir(f"cannot use {self.root}: {error.strerror}") from error


class Lock:
    """The right to run a stack in a state folder; ends with the process that took it."""

    def __init__(self, state: StateDir, patience_s: float = 1.0) -> None:
        """Raises AlreadyRunning when another process holds it for longer than `patience_s`."""
        self._descriptor = os.open(state.lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        deadline = time.monotonic() + patience_s
        while True:
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                # A reader of the status holds it for a moment, too.
                if time.monotonic() > deadline:
                    os.close(self._descriptor)
                    raise AlreadyRunning(
                        f"a stack already runs in {state.root} (gatebook status, gatebook down)"
                    ) from None
                time.sleep(0.02)
        me = identify(os.getpid())
        assert me is not None  # noqa: S101 (this process runs)
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, json.dumps({"pid": me.pid, "started": me.started}).encode(), 0)

    def release(self) -> None:
        """Let another stack run here."""
        os.close(self._descriptor)


def supervisor_of(state: StateDir) -> ProcessId | None:
    """The process that runs the stack of this folder; None when nothing runs."""
    try:
        descriptor = os.open(state.lock_file, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _process(os.pread(descriptor, 200, 0))
        return None
    finally:
        os.close(descriptor)


def _process(text: bytes) -> ProcessId | None:
    try:
        document = json.loads(text)
        return ProcessId(int(document["pid"]), int(document["started"]))
    except (ValueError, KeyError, TypeError):
        return None


def write_json(path: Path, document: Any) -> None:
    """Replace a private JSON file atomically."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(document, file, indent=2)
        file.write("\n")
    temporary.replace(path)


def read_json(path: Path) -> Any:
    """Content of a JSON file; None when it is missing or not JSON."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


def kill_leftovers(state: StateDir) -> int:
    """End processes that a killed supervisor left; how many. Call only while holding the lock."""
    recorded = read_json(state.children_file) or []
    left = []
    for entry in recorded:
        process = ProcessId(int(entry["pid"]), int(entry["started"]))
        if identify(process.pid) == process:
            kill_group(process)
            left.append(process)
    wait_gone(left, 10)
    state.children_file.unlink(missing_ok=True)
    return len(left)
