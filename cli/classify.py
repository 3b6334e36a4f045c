"""`gatebook classify`: which columns of a target may be personal, for a person to review."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli import policy
from cli.policy import ConfigOption
from cli.problems import Problem
from cli.running import StateDirOption

if TYPE_CHECKING:
    from schemas.settings import Target

_LONGEST = 512
_BUCKET = 10_000


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(epilog="[bold]Example[/bold]\n\n  gatebook classify shop --out classified.yaml")(
        classify
    )


def classify(
    target: Annotated[str, typer.Argument(help="Name of the target.")],
    *,
    rows: Annotated[int, typer.Option(min=1, help="Rows of each table to sample.")] = 1000,
    out: Annotated[
        Path | None, typer.Option(help="File to write instead of printing.", dir_okay=False)
    ] = None,
    config: ConfigOption = None,
    state_dir: StateDirOption = None,
) -> None:
    """Sample a target's columns and propose classes for them, with the evidence.

    Values stay where they are: nothing of them is printed or written.
    """
    import asyncio

    settings = policy.settings_of(config, state_dir)
    chosen = [each for each in (settings.targets if settings else ()) if each.name == target]
    if not chosen:
        raise Problem(f"{target} is not among the settings' targets", 2)
    text, found = asyncio.run(_proposals(chosen[0], rows))
    if out is None:
        print(text, end="")
    else:
        if out.exists():
            raise Problem(f"{out} exists; it may have been reviewed", 2)
        out.write_text(text)
        print(f"{found} columns proposed in {out}: review it, then put it under targets.{target}")


async def _proposals(target: Target, rows: int) -> tuple[str, int]:
    import asyncpg

    from gateway import introspection
    from gateway.catalog import connect
    from gateway.masking import knowledge
    from gateway.masking.sqlmask import identifier
    from schemas.masking.propose import propose

    lines = [
        "# Proposed from samples and names; what is missing may still be personal. Review it.\n",
        "classified:\n",
    ]
    found = 0
    try:
        connection = await connect(target, timeout=10)
    except (OSError, TimeoutError, asyncpg.PostgresError) as error:
        raise Problem(f"{target.name} does not answer: {type(error).__name__}", 1) from None
    try:
        tables: dict[tuple[str, str], list[tuple[str, str]]] = {}
        catalog = knowledge.known(await introspection.read(connection))
        for _, schema, table, column, _, kind, *_ in catalog.columns:
            tables.setdefault((schema, table), []).append((column, kind))
        for (schema, table), columns in sorted(tables.items()):
            listed = ", ".join(
                f"left({identifier(column)}::text, {_LONGEST})" for column, _ in columns
            )
            source = f"{identifier(schema)}.{identifier(table)}"
            try:
                sample = await connection.fetch(f"SELECT {listed} FROM {source} LIMIT {rows}")
            except asyncpg.PostgresError as error:
                lines.append(f"  # {schema}.{table} could not be read: {type(error).__name__}\n")
                continue
            for place, (column, kind) in enumerate(columns):
                proposal = propose(column, kind, [row[place] or "" for row in sample])
                if proposal is None:
                    continue
                found += 1
                size = f", size: {_BUCKET}" if proposal.mask == "bucket" else ""
                known = " (declared already)" if _declared(target, schema, table, column) else ""
                lines.append(f"  # {proposal.evidence}{known}\n")
                lines.append(
                    f"  {_key(schema, table, column)}: "
                    f"{{class: {proposal.classification}, mask: {proposal.mask}{size}}}\n"
                )
    finally:
        await connection.close(timeout=5)
    if not found:
        lines[1] = "classified: {}\n"
    return "".join(lines), found


def _declared(target: Target, *path: str) -> bool:
    return ".".join(path) in target.classified


def _key(*path: str) -> str:
    import json

    return json.dumps(".".join(path))
