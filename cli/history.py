"""`gatebook sql` and `tail`: the history, asked and followed."""

from __future__ import annotations

import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.problems import Problem
from cli.running import StateDirOption, running

if TYPE_CHECKING:
    from schemas.events import Masked


LATEST = (
    "select started_at, actor, statement, outcome from queries"
    " where started_at > now() - interval 1 hour order by started_at desc limit 20"
)
"""A question to begin with. Without a time it would join all that ever happened."""

_WIDEST = 500
"""Characters of a value in a table."""


class Format(StrEnum):
    """How `gatebook sql` prints rows."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command(
        epilog="[bold]Examples[/bold]"
        f'\n\n  gatebook sql "{LATEST}"'
        '\n\n  gatebook sql "select actor, count() from queries group by actor" --format csv'
        "\n\n  gatebook sql - < report.sql"
    )(sql)
    app.command(epilog="[bold]Examples[/bold]\n\n  gatebook tail\n\n  gatebook tail --from-start")(
        tail
    )


def sql(
    query: Annotated[str, typer.Argument(help="A ClickHouse query; - reads standard input.")],
    state_dir: StateDirOption = None,
    output: Annotated[
        Format, typer.Option("--format", "-f", help="How to print rows.")
    ] = Format.TABLE,
) -> None:
    """Ask the history in SQL. Views: queries, sessions, responses; table: audit_events.

    Give a time, an actor or a session: without one, all that ever happened is read. A FORMAT
    clause in the query is printed as it comes.
    """
    import json

    from cli import clickhouse

    _, document = running(state_dir)
    text = sys.stdin.read() if query == "-" else query
    if not text.strip():
        raise Problem("there is no query", 2)
    if output is Format.CSV:
        sys.stdout.write(clickhouse.query(document, text, "CSVWithNames"))
        return
    rows = clickhouse.rows_or_text(document, text)
    if isinstance(rows, str):
        sys.stdout.write(rows)
    elif output is Format.JSON:
        print(json.dumps(rows, ensure_ascii=False, indent=2))
    else:
        print_table(rows)


def print_table(rows: list[dict[str, Any]]) -> None:
    """Rows as a table as wide as the terminal."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in rows[0] if rows else ():
        table.add_column(name, overflow="fold")
    cut = 0
    for row in rows:
        # Text, not markup: a statement may hold square brackets.
        cells = [cell(value) for value in row.values()]
        cut += sum(len(text) > _WIDEST for text in cells)
        shown = (text if len(text) <= _WIDEST else f"{text[:_WIDEST]}…" for text in cells)
        table.add_row(*map(Text, shown))
    # A file or a pipe has no width of its own.
    console = Console(width=None if sys.stdout.isatty() else 200)
    if rows:
        console.print(table)
    console.print(f"{len(rows)} row{'' if len(rows) == 1 else 's'}", style="dim")
    if cut:
        values = f"{cut} value{'' if cut == 1 else 's'}"
        console.print(f"{values} cut (…); --format json or csv shows all", style="dim")


def cell(value: Any) -> str:
    """One value of a table as text."""
    if value is None:
        return ""
    if isinstance(value, list):
        return ", ".join(str(item) for item in value)
    return str(value)


def tail(
    state_dir: StateDirOption = None,
    from_start: Annotated[
        bool, typer.Option("--from-start", help="Print what is there already, too.")
    ] = False,
) -> None:
    """Follow the masked audit copy live, one line per event, until Ctrl-C."""
    import asyncio
    import contextlib

    _, document = running(state_dir)
    with contextlib.suppress(KeyboardInterrupt, BrokenPipeError):
        asyncio.run(_follow(document["kafka"]["bootstrap_servers"], from_start))


async def _follow(bootstrap_servers: str, from_start: bool) -> None:
    from aiokafka import AIOKafkaConsumer
    from aiokafka.errors import KafkaError

    from schemas.codec import Archive, CodecError, UnknownSchema
    from schemas.topics import MASKED, SCHEMAS

    archive = Archive()
    consumer = AIOKafkaConsumer(
        MASKED,
        SCHEMAS,
        bootstrap_servers=bootstrap_servers,
        # No group: following leaves no trace in the cluster and holds nobody's partitions.
        group_id=None,
        auto_offset_reset="earliest" if from_start else "latest",
    )
    try:
        await consumer.start()
    except KafkaError as error:
        raise Problem(f"Kafka at {bootstrap_servers} does not answer: {error}") from None
    try:
        schemas = [p for p in consumer.assignment() if p.topic == SCHEMAS]
        await consumer.seek_to_beginning(*schemas)
        async for record in consumer:
            if record.topic == SCHEMAS:
                if record.value:
                    archive.add(record.value.decode())
                continue
            try:
                print(line(archive.decode_masked(record.value)), flush=True)
            except UnknownSchema as error:
                print(f"(an event of a schema not announced yet: {error})", flush=True)
            except CodecError as error:
                print(f"(not an event: {error})", flush=True)
    finally:
        await consumer.stop()


def line(event: Masked) -> str:
    """One event for a person to read."""
    from datetime import UTC, datetime

    at = datetime.fromtimestamp(event.at / 1e6, UTC)
    context = event.context
    parts = [
        f"{at:%H:%M:%S.%f}"[:-3],
        f"{context.gateway}",
        f"{context.principal.name or '-'}@{context.target or '-'}",
        event.event_type,
    ]
    if event.decision:
        by = f" by {', '.join(event.policies)}" if event.policies else ""
        parts.append(f"{event.decision}{by}")
    if event.outcome:
        counted = f" {event.rows} rows" if event.rows else ""
        code = f" {event.error_code}" if event.error_code else ""
        parts.append(f"{event.outcome}{code}{counted} {event.duration_us / 1000:.1f} ms")
    if event.statement:
        parts.append(" ".join(event.statement.split()))
    if event.reason:
        parts.append(f"({event.reason})")
    return "  ".join(parts)
