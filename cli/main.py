"""`gatebook`: the command line. One module per group of commands; each imports what it needs
when it runs, so that `--help` and completion stay fast."""

from __future__ import annotations

import sys

import typer

from cli import (
    classify,
    connect,
    demo,
    disclose,
    history,
    identity,
    mask,
    originals,
    policy,
    stack,
    targets,
    verify,
)
from cli.problems import Problem

app = typer.Typer(
    name="gatebook",
    help="An identity-aware gateway that puts every query in writing.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
for module in (
    stack,
    demo,
    disclose,
    identity,
    connect,
    history,
    policy,
    mask,
    classify,
    originals,
    targets,
    verify,
):
    module.register(app)


def main() -> None:
    """Entry point of the `gatebook` command."""
    try:
        app()
    except Problem as problem:
        print(f"gatebook: {problem}", file=sys.stderr)
        sys.exit(problem.exit_code)
