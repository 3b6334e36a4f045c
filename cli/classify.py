"""`gatebook classify`: which columns of a target may be personal, for a person to review."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli import policy
from cli.policy import ConfigOption
from cli.problems import Problem
from cli.running import StateDirOption

if TYPE_CHECKING:
    from schemas.masking.propose import Proposal
    from schemas.settings import Target

Path3 = tuple[str, str, str]
Found = tuple[Path3, "Proposal"]
"""A column, by schema, table and name, and what is proposed for it."""

_REVIEW = "Proposed from samples and names; what is missing may still be personal. Review it."
_COMMENTS = """
SELECT n.nspname::text, c.relname::text, a.attname::text, d.description
  FROM pg_catalog.pg_description d
  JOIN pg_catalog.pg_class c ON d.classoid = 'pg_catalog.pg_class'::regclass AND c.oid = d.objoid
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum = d.objsubid
 WHERE d.objsubid > 0
"""
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
    comments: Annotated[
        bool, typer.Option("--comments", help="Propose COMMENT statements for targets.classifiers.")
    ] = False,
    config: ConfigOption = None,
    state_dir: StateDirOption = None,
) -> None:
    """Sample a target's columns and propose classes for them, with the evidence.

    Values stay where they are: nothing of them is printed or written.
    """
    import asyncio

    _, chosen = policy.of_target(target, config, state_dir)
    write = _as_comments if comments else _as_settings
    text, found = asyncio.run(_proposals(chosen, rows, write))
    if out is None:
        print(text, end="")
    else:
        if out.exists():
            raise Problem(f"{out} exists; it may have been reviewed", 2)
        out.write_text(text)
        then = "let its owner run it" if comments else f"put it under targets.{target}"
        print(f"{found} columns proposed in {out}: review it, then {then}")


async def _proposals(
    target: Target,
    rows: int,
    write: Callable[[Target, Sequence[Found], Mapping[Path3, str]], list[str]],
) -> tuple[str, int]:
    import asyncpg

    from gateway import introspection
    from gateway.catalog import connect
    from gateway.masking import knowledge
    from gateway.masking.sqlmask import identifier
    from schemas.masking.propose import propose

    found: list[Found] = []
    unread = []
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
                unread.append(f"{schema}.{table} could not be read: {type(error).__name__}")
                continue
            for place, (column, kind) in enumerate(columns):
                proposal = propose(column, kind, [row[place] or "" for row in sample])
                if proposal is not None:
                    found.append(((schema, table, column), proposal))
        said = {
            (schema, table, column): text
            for schema, table, column, text in await connection.fetch(_COMMENTS)
        }
    finally:
        await connection.close(timeout=5)
    mark = "#" if write is _as_settings else "--"
    remarks = [f"{mark} {_one_line(remark)}" for remark in (_REVIEW, *unread)]
    return "\n".join([*remarks, *write(target, found, said), ""]), len(found)


def _as_settings(target: Target, found: Sequence[Found], said: Mapping[Path3, str]) -> list[str]:
    """For `targets[].classified`."""
    lines = ["classified:" if found else "classified: {}"]
    for path, proposal in found:
        size = f", size: {_BUCKET}" if proposal.mask == "bucket" else ""
        known = " (declared already)" if _declared(target, *path) else ""
        lines.append(f"  # {_one_line(proposal.evidence)}{known}")
        lines.append(
            f"  {_key(*path)}: {{class: {proposal.classification}, mask: {proposal.mask}{size}}}"
        )
    return lines


def _as_comments(target: Target, found: Sequence[Found], said: Mapping[Path3, str]) -> list[str]:
    """COMMENT statements. What a comment says already stays, before what classifies."""
    from gateway.masking.sqlmask import identifier
    from schemas.masking.comments import is_tagged, written

    lines = []
    for path, proposal in found:
        before = said.get(path)
        if _declared(target, *path) or is_tagged(before):
            lines.append(f"-- {_one_line('.'.join(path))} is classified already")
            continue
        tag = written(proposal.classification, proposal.mask, _BUCKET)
        text = f"{before}\n{tag}" if before else tag
        quoted = text.replace("\\", "\\\\").replace("'", "''")
        escaped = "E" if "\\" in text else ""
        lines.append(f"-- {_one_line(proposal.evidence)}")
        lines.append(f"COMMENT ON COLUMN {'.'.join(map(identifier, path))} IS {escaped}'{quoted}';")
    return lines


def _one_line(text: str) -> str:
    """A name may hold a line break, behind which a remark would be one no more."""
    return " ".join(text.split())


def _declared(target: Target, *path: str) -> bool:
    return ".".join(path) in target.classified


def _key(*path: str) -> str:
    import json

    return json.dumps(".".join(path))
