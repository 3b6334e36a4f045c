"""`gatebook policy replay`."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from cli.problems import Problem
from cli.running import POLICIES, StateDirOption, running

if TYPE_CHECKING:
    from gateway.policy.replay import Again, Past
    from gateway.policy.resolve import Resolver
    from schemas.settings import Settings

_UNITS: Final = {"s": "second", "m": "minute", "h": "hour", "d": "day", "w": "week"}
_VALUE: Final = re.compile(r"'(?:[^']|'')*'|(?<![\w.$])\d+(?:\.\d+)?\b")
_WIDEST: Final = 300
_AT_ONCE: Final = 100_000
"""Decisions of one query: an answer of the history may have 128 MiB."""
ALLOCATIONS: Final = 100_000
"""Between two looks for garbage, of which there is little: they took a third of the time."""
_KEYS: Final = (
    "issuer, subject, actor, groups, agent, actor_type, application,"
    " if(client_ip = toIPv6('::'), '', IPv6NumToString(client_ip)), target, action, statement"
)


def register(group: typer.Typer) -> None:
    """Add the command to the group."""
    group.command(
        epilog="[bold]Example[/bold]\n\n  gatebook policy replay --since 1d --policies new/"
    )(replay)


def replay(
    policies: Annotated[Path, POLICIES],
    since: Annotated[str, typer.Option(help="How far back: 30m, 12h, 1d, 2w.")] = "1d",
    most: Annotated[int, typer.Option("--most", min=1, help="Lines of a list at most.")] = 20,
    state_dir: StateDirOption = None,
) -> None:
    """Decide the history again by other policies: who would have been refused or let through.

    The history holds masked statements: where a rule depends on a literal that is masked
    (`limit` is not), or on what a session did before, see docs/policy.md.
    """
    import gc
    import time

    from cli.policy import files_of, settings_of
    from gateway.policy.check import errors, findings
    from gateway.policy.decide import Policies
    from gateway.policy.replay import Replay

    within = _interval(since)
    files = files_of(policies)
    if wrong := errors(findings(files)):
        raise Problem(f"{policies}/{wrong[0]}")
    state, document = running(state_dir)
    settings = settings_of(None, state.root)
    if settings is None:
        raise Problem(f"there are no settings in {state.root}")
    current = None
    if settings.gateway.policies is not None:
        given = files_of(settings.gateway.policies)
        current = None if errors(findings(given)) else Policies(given)
    if current is None:
        print("(the policies in force cannot be used: what they refuse, too, is not told apart)",
              file=sys.stderr)  # fmt: skip
    tried = Policies(files)
    when = f"ts > now() - interval {within}"
    counts = _counted(document, when)
    resolvers = _catalogs(settings, counts)
    by_time = tried.speaks_of_time or (current is not None and current.speaks_of_time)
    began, before = time.monotonic(), gc.get_threshold()
    past = _with_progress(_history(document, when, by_time, counts), sum(counts.values()))
    gc.set_threshold(ALLOCATIONS)
    try:
        distinct, said = summed(Replay(tried, current, resolvers), past)
    finally:
        gc.set_threshold(*before)
    took = time.monotonic() - began
    _print(said, most)
    number = sum(counts.total() for counts in said.values())
    rate = f"{number / took:,.0f} a second" if took > 0 else ""
    print(f"{number:,} decisions, {distinct:,} of them distinct, in {took:.1f} s ({rate})")


def _counted(document: dict[str, Any], when: str) -> dict[str, int]:
    """Decisions by target."""
    from cli import clickhouse

    rows = clickhouse.rows(
        document,
        "select target, count() as n from audit_events"
        f" where event_type = 'Decided' and {when} group by target",
    )
    return {str(row["target"]): int(row["n"]) for row in rows}


def _catalogs(settings: Settings, targets: Iterable[str]) -> dict[str, Resolver]:
    """Of the targets that there are; says of the others that they are not known."""
    from cli.policy import read_catalog
    from gateway.policy.resolve import Resolver

    there = {target.name: target for target in settings.targets}
    found = {}
    for name in sorted(targets):
        if name not in there:
            print(f"({name} is not a target any more: its tables are not known)", file=sys.stderr)
            continue
        snapshot = _now(read_catalog(there[name]))
        if snapshot.known:
            found[name] = Resolver(snapshot)
        else:
            print(f"({name} does not answer: its tables are not known)", file=sys.stderr)
    return found


def _now(work: Any) -> Any:
    import asyncio

    return asyncio.run(work)


def _interval(text: str) -> str:
    found = re.fullmatch(r"([1-9]\d{0,5})([smhdw])", text)
    if found is None:
        raise Problem("--since is a number and one of s, m, h, d and w, as in 12h", 2)
    return f"{found[1]} {_UNITS[found[2]]}"


def history_query(when: str, by_time: bool, part: int = 0, parts: int = 1) -> str:
    """Requests and how they were decided, alike ones together: those of one of so many parts."""
    minute = "toInt64(intDiv(toUnixTimestamp(requested.ts), 60))" if by_time else "toInt64(-1)"
    return f"""
        select {_KEYS}, {minute} as minute, decided.decision, decided.policies, decided.reason,
               toInt64(count())
        from (
            select * from audit_events where event_type = 'Requested' and {when}
                and cityHash64(statement) % {parts} = {part}
        ) as requested
        join (
            select session_id, statement_id, argMax(decision, ts) as decision,
                   argMax(policies, ts) as policies, argMax(reason, ts) as reason
            from audit_events where event_type = 'Decided' and {when}
            group by session_id, statement_id
        ) as decided
        on requested.session_id = decided.session_id
            and requested.statement_id = decided.statement_id
        group by {_KEYS}, minute, decided.decision, decided.policies, decided.reason
        settings output_format_json_quote_64bit_integers = 0
    """


def _history(
    document: dict[str, Any], when: str, by_time: bool, counts: Mapping[str, int]
) -> Iterator[Past]:
    import msgspec

    from cli import clickhouse
    from gateway.policy.replay import Past

    decoder = msgspec.json.Decoder(Past)
    parts = sum(counts.values()) // _AT_ONCE + 1
    for part in range(parts):
        query = history_query(when, by_time, part, parts)
        text = clickhouse.query(document, query, "JSONCompactEachRow", 600)
        # Not splitlines: a statement may hold a character that it takes for the end of a line.
        for line in text.split("\n"):
            if line:
                yield decoder.decode(line)


def _with_progress(past: Iterable[Past], total: int) -> Iterator[Past]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=total)
        for one in past:
            yield one
            progress.advance(task, one.count)


Said = dict[str, Counter[tuple[str, ...]]]
"""By outcome: how often who was told what about which statement."""


def summed(replay: Any, past: Iterable[Past]) -> tuple[int, Said]:
    """How many were distinct, and what came of them."""
    said: Said = {}
    distinct = 0
    for one in past:
        again: Again = replay.again(one)
        distinct += 1
        by = ", ".join(again.decision.policies) or again.decision.reason
        # Statements that differ in values alone are one line.
        what = _VALUE.sub("?", " ".join(one.statement.split())) or one.action
        key = (one.name, one.target, what, by)
        said.setdefault(again.outcome.value, Counter())[key] += one.count
    return distinct, said


def _print(said: Said, most: int) -> None:
    from gateway.policy.replay import Outcome

    for outcome in (Outcome.REFUSED, Outcome.PERMITTED, Outcome.ALREADY):
        counts = said.get(outcome.value, Counter())
        people = len({who for who, *_ in counts})
        print(f"{outcome.value}: {counts.total():,} by {people} people")
        for (who, target, what, by), count in counts.most_common(most):
            shown = what if len(what) <= _WIDEST else f"{what[:_WIDEST]}…"
            print(f"  {count:>7,}  {who}@{target}  {shown}  ({by})")
        if len(counts) > most:
            print(f"  … and {len(counts) - most:,} more")
        print()
    for outcome in (Outcome.SAME, Outcome.NOT_BY_POLICY, Outcome.UNREADABLE):
        print(f"{outcome.value}: {said.get(outcome.value, Counter()).total():,}")
