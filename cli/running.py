"""The stack a command talks to."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from cli.problems import Problem

if TYPE_CHECKING:
    from infra.devstack.state import StateDir

StateDirOption = Annotated[
    Path | None,
    typer.Option(
        "--state-dir",
        envvar="GATEBOOK_STATE_DIR",
        help="Folder of the stack's state.",
        show_default="./.gatebook",
        file_okay=False,
    ),
]

POLICIES: Final[Any] = typer.Option("--policies", help="Folder of policies.", file_okay=False)
PoliciesOption = Annotated[Path | None, POLICIES]
"""Where it is not given: the folder that the settings name."""


def program() -> str:
    """What to type for `gatebook`: by name where PATH leads to this one, else its path."""
    called = Path(sys.argv[0]).absolute()
    found = shutil.which("gatebook")
    if called.name != "gatebook" or (found and Path(found).resolve() == called.resolve()):
        return "gatebook"
    try:
        return str(called.relative_to(Path.cwd()))
    except ValueError:
        return str(called)


def state_at(path: Path | None) -> StateDir:
    """The state folder a command works on."""
    from infra.devstack.state import StateDir

    return StateDir.at(path)


def running(path: Path | None) -> tuple[StateDir, dict[str, Any]]:
    """The state folder and status document of the running stack. Raises Problem."""
    from infra.devstack import status

    state = state_at(path)
    document = status.read(state)
    if document is None:
        raise Problem(f"nothing runs in {state.root}; start it with: {program()} up --detach")
    return state, document
