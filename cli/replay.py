"""`gatebook policy replay`."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from cli.problems import Problem
from cli.running import StateDirOption, running

if TYPE_CHECKING:
    from gateway.policy.replay import Again, Past

_UNITS: Final = {"s": "second", "m": "minute", "h": "hour", "d": "day", "w": "week"}
_VALUE: Final = re.compile(r"'(?:[^']|'')*'|(?<![\w.$])\d+(?:\.\d+)?\b")
_WIDEST: Final = 300
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
    policies: Annotated[
        Path, typer.Option("--policies", help="Folder of the policies to try.", file_okay=False)
    ],
    since: Annotated[str, typer.Option(help="How far back: 30m, 12h, 1d, 2w.")] = "1d",
    most: Annotated[int, typer.Option("--most", min=1, help="Lines of a list at most.")] = 20,
    state_dir: StateDirOption = None,
) -> None:
    """Decide the history again by other policies: who would have been refused or let through.

    The history holds masked statements: where a rule depends on a literal that is masked
    (`limit` is not), or on what a session did before, see docs/policy.md.
    """
    import time

    from cli import clickhouse
    from cli.policy import files_of, read_catalog, settings_of
    from gateway.policy.check import errors, findings
    from gateway.policy.decide import Policies
    from gateway.policy.replay import Replay
    from gateway.policy.resolve import Resolver

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
    tried = Policies(files)
    resolvers = {}
    for target in settings.targets:
        snapshot = _now(read_catalog(target))
        if snapshot.known:
            resolvers[target.name] = Resolver(snapshot)
        else:
            print(f"({target.name} does not answer: its tables are not known)", file=sys.stderr)
    when = f"ts > now() - interval {_interval(since)}"
    (counted,) = clickhouse.rows(
        document,
        f"select count() as n from audit_events where event_type = 'Decided' and {when}",
    )
    by_time = tried.speaks_of_time or (current is not None and current.speaks_of_time)
    began = time.monotonic()
    total = int(counted["n"])
    past = _with_progress(_history(document, when, by_time), total)
    distinct, said = summed(Replay(tried, current, resolvers), past)
    took = time.monotonic() - began
    _print(said, most)
    number = sum(counts.total() for counts in said.values())
    rate = f"{number / took:,.0f} a second" if took > 0 else ""
    print(f"{number:,} decisions, {distinct:,} of them distinct, in {took:.1f} s ({rate})")


def _now(work: Any) -> Any:
    import asyncio

    return asyncio.run(work)


def _interval(text: str) -> str:
    found = re.fullmatch(r"([1-9]\d{0,5})([smhdw])", text)
    if found is None:
        raise Problem("--since is a number and one of s, m, h, d and w, as in 12h", 2)
    return f"{found[1]} {_UNITS[found[2]]}"


def history_query(when: str, by_time: bool) -> str:
    """Requests and how they were decided, alike ones together."""
    minute = "toInt64(intDiv(toUnixTimestamp(requested.ts), 60))" if by_time else "toInt64(-1)"
    return f"""
        select {_KEYS}, {minute} as minute, decided.decision, decided.policies, decided.reason,
               toInt64(count())
        from (
            select * from audit_events where event_type = 'Requested' and {when}
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


def _history(document: dict[str, Any], when: str, by_time: bool) -> Iterator[Past]:
    import msgspec

    from cli import clickhouse
    from gateway.policy.replay import Past

    decoder = msgspec.json.Decoder(Past)
    text = clickhouse.query(document, history_query(when, by_time), "JSONCompactEachRow", 600)
    for line in text.splitlines():
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
    for outcome in (Outcome.SAME, Outcome.NOT_BY_POLICY):
        print(f"{outcome.value}: {said.get(outcome.value, Counter()).total():,}")
