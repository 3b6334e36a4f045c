"""`gatebook up`, `status` and `down`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.history import LATEST
from cli.problems import Problem
from cli.running import StateDirOption, program, state_at

UP_EXAMPLES = """
[bold]Examples[/bold]

  gatebook up                        run until Ctrl-C
  gatebook up --detach               return when everything is ready
  gatebook up --gateways 3 --brokers 3
  gatebook up --kafka kafka.example:9092
  PGPASSWORD=... gatebook up --target "host=db.example dbname=shop user=gatebook"
"""


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command(epilog=_lines(UP_EXAMPLES))(up)
    app.command(
        epilog=_lines("\n[bold]Example[/bold]\n\n  gatebook status --json | jq .gateways\n")
    )(status)
    app.command()(down)


def _lines(text: str) -> str:
    # Rich joins the lines of a paragraph; examples need theirs.
    return text.strip().replace("\n  ", "\n\n  ")


def up(
    *,
    state_dir: StateDirOption = None,
    gateways: Annotated[int, typer.Option(min=1, max=32, help="How many gateways.")] = 2,
    brokers: Annotated[int, typer.Option(min=1, max=3, help="Embedded Kafka brokers: 1 or 3.")] = 1,
    config: Annotated[
        Path | None,
        typer.Option(
            exists=True, dir_okay=False, help="YAML file laid over the generated settings."
        ),
    ] = None,
    detach: Annotated[
        bool, typer.Option("--detach", help="Return when everything is ready.")
    ] = False,
    kafka: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="An existing Kafka instead of ours.")
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            metavar="CONNINFO",
            help="An existing PostgreSQL as target `shop`; its password in PGPASSWORD.",
        ),
    ] = None,
    clickhouse: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="An existing ClickHouse instead of ours; its password in CLICKHOUSE_PASSWORD.",
        ),
    ] = None,
) -> None:
    """Start everything: Kafka, PostgreSQL, issuer, gateways, processors, sinks."""
    from infra.devstack.conninfo import BadConninfo, parse
    from infra.devstack.control import start_detached
    from infra.devstack.plan import Options
    from infra.devstack.run import run
    from infra.devstack.stack import Unusable, valid_bootstrap
    from infra.devstack.state import AlreadyRunning, BadStateDir
    from infra.devstack.supervisor import StartFailed

    if sys.platform != "linux":
        raise Problem("the embedded stack runs on Linux only", 2)
    if brokers == 2:
        raise Problem("--brokers is 1 or 3: two form no majority without each other", 2)
    if kafka is not None and not valid_bootstrap(kafka):
        raise Problem("--kafka needs host:port, or several separated by commas", 2)
    if target is not None:
        # Before anything is written into the state folder.
        try:
            parse(target)
        except BadConninfo as error:
            raise Problem(str(error), 2) from None
    state = state_at(state_dir)
    options = Options(
        gateways=gateways,
        brokers=brokers,
        config=config.absolute() if config else None,
        kafka=kafka,
        target=target,
        clickhouse=clickhouse,
    )
    try:
        if detach:
            start_detached(state, options, _say)
            _show_running(state_dir)
        else:
            run(state, options, _say, lambda _: _show_running(state_dir))
    except (AlreadyRunning, BadStateDir, Unusable, StartFailed) as error:
        raise Problem(str(error)) from None


def _say(line: str) -> None:
    print(line, flush=True)


def _show_running(state_dir: Path | None) -> None:
    from infra.devstack import status as document

    current = document.read(state_at(state_dir))
    if current is not None:
        print_status(current)
        name = program()
        print(f"\nNext:  {name} connect shop --user alice")
        print(f'       {name} sql "{LATEST}"')


def status(
    state_dir: StateDirOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Show what runs, how it is and where to reach it. Exit code 0 means all is well."""
    from infra.devstack import status as document

    state = state_at(state_dir)
    current = document.read(state)
    if current is None:
        if as_json:
            print(json.dumps({"state_dir": str(state.root), "healthy": False, "processes": []}))
        raise Problem(f"nothing runs in {state.root}; start it with: {program()} up --detach")
    if as_json:
        print(json.dumps(current, indent=2))
    else:
        print_status(current)
    if not current["healthy"]:
        sick = [process["name"] for process in current["processes"] if not process["healthy"]]
        raise Problem(f"not healthy: {', '.join(sick) or 'still starting'}")


def print_status(document: dict[str, Any]) -> None:
    """The status as tables for people."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console()
    processes = Table("process", "pid", "state", "restarts", "log", box=box.SIMPLE, pad_edge=False)
    for process in document["processes"]:
        processes.add_row(
            process["name"],
            str(process["pid"] or "-"),
            "[green]healthy[/green]" if process["healthy"] else "[red]not ready[/red]",
            str(process["restarts"]),
            _short(process["log_file"]),
        )
    console.print(processes)
    endpoints = Table(box=box.SIMPLE, show_header=False, pad_edge=False)
    for gateway in document["gateways"]:
        address = gateway["postgres"]
        endpoints.add_row(gateway["name"], f"{address['host']}:{address['port']} (PostgreSQL)")
    endpoints.add_row("kafka", document["kafka"]["bootstrap_servers"])
    endpoints.add_row("clickhouse", document["clickhouse"]["url"])
    endpoints.add_row("issuer", document["issuer"]["url"])
    endpoints.add_row("CA", _short(document["ca_file"]))
    console.print(endpoints, soft_wrap=True)


def _short(path: str) -> str:
    try:
        return str(Path(path).relative_to(Path.cwd()))
    except ValueError:
        return path


def down(state_dir: StateDirOption = None) -> None:
    """Stop everything that `gatebook up` started. Nothing is left running."""
    from infra.devstack.control import stop

    state = state_at(state_dir)
    if stop(state, _say):
        print(f"stopped; {state.root} keeps the data")
    else:
        print(f"nothing runs in {state.root}")
