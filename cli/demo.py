"""`gatebook demo`."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.problems import Problem


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(epilog="[bold]Example[/bold]\n\n  gatebook demo --keep")(demo)


def demo(
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave the stack running afterwards, in .gatebook/demo.")
    ] = False,
) -> None:
    """Show it all: real queries, who ran them, what was decided, and the record of it."""
    from cli.story import tell

    failed = tell(keep)
    if failed:
        raise Problem(f"{failed} claim(s) above are not true")
