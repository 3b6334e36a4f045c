"""`gatebook login` and `token`."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.problems import Problem
from cli.running import StateDirOption, running

UserOption = Annotated[
    str | None,
    typer.Option("--user", "-u", help="A demo person: alice, bob, carol, dave or mallory."),
]


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command(
        epilog="[bold]Examples[/bold]\n\n  gatebook login\n\n  gatebook login --user alice"
    )(login)
    app.command(
        epilog="[bold]Examples[/bold]\n\n  PGPASSWORD=$(gatebook token --user alice) psql ..."
        "\n\n  gatebook token --user alice --expires-in -60"
    )(token)


def login(state_dir: StateDirOption = None, user: UserOption = None) -> None:
    """Sign in and keep the token: in a browser, or as a demo person with --user."""
    from cli import tokens

    state, document = running(state_dir)
    if user is None:
        access = tokens.device_token(document, _show_code)
        user = str(tokens.claims(access).get("preferred_username") or "")
        if not user:
            raise Problem("the issuer's token names nobody")
    else:
        access = tokens.demo_token(state, document, user)
    tokens.store(state, user, access)
    groups = ", ".join(tokens.claims(access).get("groups", [])) or "no group"
    print(f"signed in as {user} ({groups})")


def _show_code(url: str, code: str) -> None:
    print(f"Open {url}\nand check that it shows the code {code}", flush=True)


def token(
    user: Annotated[str, typer.Option("--user", "-u", help="A demo person.")],
    state_dir: StateDirOption = None,
    expires_in: Annotated[
        int | None,
        typer.Option("--expires-in", metavar="SECONDS", help="Lifetime; negative: already over."),
    ] = None,
) -> None:
    """Print a demo person's token (a JWT) and nothing else."""
    from cli import tokens

    state, document = running(state_dir)
    print(tokens.demo_token(state, document, user, expires_in))
