"""The status document: what runs, how it is, and where to reach it."""

from __future__ import annotations

from typing import Any

from infra.devstack.stack import Stack, direct_conninfo
from infra.devstack.state import StateDir, read_json, supervisor_of, write_json
from infra.devstack.supervisor import Supervisor


def publish(stack: Stack, supervisor: Supervisor) -> None:
    """Write the folder's status and the identities of its processes."""
    states = supervisor.states.values()
    write_json(
        stack.state.children_file,
        [
            {"name": s.child.name, "pid": s.process.pid, "started": s.process.started}
            for s in states
            if s.process
        ],
    )
    write_json(
        stack.state.status_file,
        {
            "state_dir": str(stack.state.root),
            "healthy": supervisor.ready.is_set() and supervisor.healthy,
            "processes": [
                {
                    "name": s.child.name,
                    "pid": s.process.pid if s.process else None,
                    "healthy": s.healthy,
                    "restarts": s.restarts,
                    "log_file": str(s.child.log_file),
                }
                for s in states
            ],
            **stack.endpoints,
        },
    )


def withdraw(state: StateDir) -> None:
    """Forget a stack that ended in order."""
    state.status_file.unlink(missing_ok=True)
    state.children_file.unlink(missing_ok=True)


def read(state: StateDir) -> dict[str, Any] | None:
    """The status of a running stack; None when none runs.

    Holds the password of an embedded target (`targets[].direct_conninfo`).
    """
    if supervisor_of(state) is None:
        return None
    document = read_json(state.status_file)
    if not isinstance(document, dict):
        return None
    for target in document["targets"]:
        port = target.pop("embedded_port", None)
        if port is not None:
            target["direct_conninfo"] = direct_conninfo(state.root, port).uri()
    return document
