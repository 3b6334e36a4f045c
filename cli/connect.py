"""`gatebook connect`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.problems import Problem
from cli.running import StateDirOption, running

if TYPE_CHECKING:
    from infra.devstack.state import StateDir


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(
        context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
        epilog="[bold]Examples[/bold]\n\n  gatebook connect shop --user alice"
        '\n\n  gatebook connect shop --user bob --gateway 2 -- -c "select count(*) from orders"',
    )(connect)


def connect(
    context: typer.Context,
    target: Annotated[str, typer.Argument(help="Name of the target, for example shop.")],
    state_dir: StateDirOption = None,
    user: Annotated[
        str | None, typer.Option("--user", "-u", help="Who connects; default: who signed in.")
    ] = None,
    gateway: Annotated[int, typer.Option(min=1, help="Which gateway: 1, 2, ...")] = 1,
) -> None:
    """Open psql on a target through a gateway. What follows -- goes to psql."""
    import os

    import yaml

    from cli import psql

    state, document = running(state_dir)
    known = [each["name"] for each in yaml.safe_load(state.config_file.read_text())["targets"]]
    if target not in known:
        raise Problem(f"there is no target {target}; this stack has: {', '.join(known)}", 2)
    command = psql.executable()
    name, token = _identity(state, document, user)
    environment = psql.environment(document, target, name, token, gateway)
    try:
        # By its path: without a PATH that leads to it psql does not find its own files.
        os.execve(command, [command, *context.args], environment)  # noqa: S606
    except OSError as error:
        raise Problem(f"cannot run {command}: {error.strerror}") from None


def _identity(state: StateDir, document: dict[str, Any], user: str | None) -> tuple[str, str]:
    from cli import tokens

    if user is None:
        people = tokens.signed_in(state)
        if len(people) != 1:
            who = (
                f"several people are signed in ({', '.join(people)})"
                if people
                else "nobody is signed in"
            )
            raise Problem(f"{who}; use --user NAME, or gatebook login", 2)
        user = people[0]
    token = tokens.stored(state, user)
    if token is None:
        # The demo's people have no password to ask for.
        token = tokens.demo_token(state, document, user)
        tokens.store(state, user, token)
    return user, token
