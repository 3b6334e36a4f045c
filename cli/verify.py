"""`gatebook verify`: the blind verifier, where an auditor's key is; and proofs of single fields."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.originals import ShareOption
from cli.problems import Problem
from cli.running import StateDirOption, running

if TYPE_CHECKING:
    from cli.blind import Scope, Verdict

_TRUST = {
    "kafka": "gatebook.events and gatebook.keys in Kafka; every hash and link was computed again",
    "vault": "the vault in ClickHouse; every hash was computed again, but only Kafka, or a seal,"
    " shows that no event is missing with its original",
}


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(
        epilog="[bold]Examples[/bold]\n\n"
        "  gatebook verify --masks --since 1d --key carol.pem\n\n"
        "  gatebook verify --masks --session 0199f3c2-... --key carol.pem --source vault"
    )(verify)


def verify(  # noqa: PLR0917 (a command line's options are its parameters)
    masks: Annotated[
        bool, typer.Option("--masks", help="Masked copies and the history against the originals.")
    ] = False,
    proof: Annotated[
        Path | None, typer.Option("--proof", help="A field that was disclosed, against its event.")
    ] = None,
    key: Annotated[
        Path | None, typer.Option("--key", help="Your private key (X25519, PEM).")
    ] = None,
    share: ShareOption = None,
    since: Annotated[
        str | None, typer.Option(help="ISO time, or how long ago: 90m, 24h, 7d.")
    ] = None,
    until: Annotated[str | None, typer.Option(help="Likewise; not within.")] = None,
    session: Annotated[str | None, typer.Option(help="One session's id.")] = None,
    statement: Annotated[str | None, typer.Option(help="One statement's id.")] = None,
    source: Annotated[
        str, typer.Option(help="Where originals come from: kafka, vault or auto.")
    ] = "auto",
    config: Annotated[
        list[Path] | None,
        typer.Option(
            "--config",
            "-c",
            help="Settings with the targets; repeat it with those that were in force earlier.",
            show_default="those of the stack in --state-dir",
            dir_okay=False,
        ),
    ] = None,
    patience: Annotated[
        float, typer.Option(help="Seconds to wait for copies that are not there yet.")
    ] = 30.0,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
    state_dir: StateDirOption = None,
) -> None:
    """Mask the originals again and compare: is each copy exactly what the masks make of it?

    With --proof, whether a field that was disclosed is what its event's root binds; offline.
    Prints counts, and of what is wrong the event, the statement and the field; never a value.
    Exit codes: 0 all is as it must be; 3 something was altered, is missing or was added; 4 nothing
    is wrong with what could be compared, but not everything could be.
    """
    import asyncio

    from cli import blind_run, originals, policy
    from cli.blind import Judge, Keys
    from cli.blind_tables import Tables
    from processors.mask import Masker

    if proof is not None:
        from cli.disclose import checked

        print(json.dumps(checked(proof), ensure_ascii=False, indent=2))
        return
    if not masks:
        raise Problem("say what is to be verified: --masks, or --proof FILE", 2)
    if key is None:
        raise Problem("originals open with an auditor's key: --key FILE", 2)
    if source not in ("auto", "kafka", "vault"):
        raise Problem("--source is kafka, vault or auto", 2)
    _, document = running(state_dir)
    files: list[Path | None] = [*config] if config else [None]
    found = [policy.settings_of(path, state_dir) for path in files]
    settings = [each for each in found if each is not None]
    if not settings:
        raise Problem("name the settings with the targets: --config FILE", 2)
    scope = _scope(since, until, session, statement)
    tables = Tables(document, scope)
    keys = Keys(originals.private_of(key), tables.erased(), originals.shares_of(share))
    applied = [blind_run.applied(each) for each in settings]
    judge = Judge([Masker(each) for each in applied], keys, scope)
    run = blind_run.Run(
        judge, keys, tables=tables, applied=applied, settings=settings[0], patience=patience
    )
    chosen = asyncio.run(run.through(source))
    _show(judge.verdict, scope, chosen, as_json=as_json)
    if judge.verdict.exit_code:
        raise typer.Exit(judge.verdict.exit_code)


def _scope(
    since: str | None, until: str | None, session: str | None, statement: str | None
) -> Scope:
    from cli.blind import Scope
    from cli.originals import uuid

    now = datetime.now(UTC)
    ids = [uuid(text).bytes if text else b"" for text in (session, statement)]
    begin = _moment(since, now) if since else 0
    if not since and any(ids):
        # A UUIDv7 begins with its milliseconds; nothing of a session is older than its id.
        begin = min(int.from_bytes(each[:6], "big") for each in ids if each) * 1000 - 60_000_000
    end = _moment(until, now) if until else int(now.timestamp() * 1e6)
    if end <= begin:
        raise Problem("--until is not after --since", 2)
    return Scope(max(begin, 0), end, *ids)


def _moment(text: str, now: datetime) -> int:
    units = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
    try:
        if text[-1:] in units:
            at = now - timedelta(**{units[text[-1]]: float(text[:-1])})
        else:
            at = datetime.fromisoformat(text)
            at = at if at.tzinfo else at.replace(tzinfo=UTC)
        return int(at.timestamp() * 1e6)
    except (ValueError, OverflowError):
        raise Problem(f"{text!r} is no time: 2026-01-31T12:00, or 24h", 2) from None


def _show(verdict: Verdict, scope: Scope, source: str, *, as_json: bool) -> None:
    if as_json:
        print(
            json.dumps(
                {
                    "source": source,
                    "counts": dict(verdict.counts),
                    "found": [str(finding) for finding in verdict.found],
                    "exit_code": verdict.exit_code,
                }
            )
        )
        return
    for finding in verdict.found:
        print(finding)
    if verdict.more:
        print(f"... and {verdict.more} more")
    print(f"originals from {_TRUST[source]}", file=sys.stderr)
    for line in _lines(verdict, scope):
        print(line)


def _lines(verdict: Verdict, scope: Scope) -> Iterator[str]:
    since, until = (datetime.fromtimestamp(at / 1e6, UTC) for at in (scope.since, scope.until))
    yield f"from {since:%Y-%m-%d %H:%M:%S} to {until:%Y-%m-%d %H:%M:%S} UTC"
    for what, count in sorted(verdict.counts.items()):
        yield f"  {count:>12,}  {what}"
    yield {0: "everything is as it must be", 3: "NOT as it must be"}.get(
        verdict.exit_code, "nothing is wrong with what could be compared; not all could be"
    )
