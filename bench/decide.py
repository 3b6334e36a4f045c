"""A decision with the analysis of its statement: known, and at first sight, with guard rails on."""

from __future__ import annotations

import asyncio
import gc
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import asyncpg
from pglast import parser

from gateway.identity.principal import Principal
from gateway.introspection import read
from gateway.masking.veil import Veil
from gateway.policy import cases
from gateway.policy.catalog import Snapshot, build
from gateway.policy.decide import Moment, Policies, checked
from gateway.policy.facts import SessionNames
from gateway.policy.resolve import Resolver
from gateway.policy.sql import Analyser, Statement
from infra.devstack.conninfo import parse
from infra.devstack.plan import Options
from infra.devstack.shop import Size
from tests.conformance import postgresql
from tests.conftest import running
from tests.gateway.masking.shop import HIDDEN

ALICE = Principal("https://i", "a1", "alice", ("support",), None, "person", 2e9)
NOON = Moment("10.0.0.1", 1_795_521_600.0)
PERMIT = (
    "all.cedar",
    '@id("all") @unknown("permitted") permit (principal, action == Action::"execute", resource);',
)
KNOWN = "SELECT abalance FROM pgbench_accounts WHERE aid = {};"

HIDING = (
    "select upper(c.email) as a{0}, c.name from customers c join orders o on c.id = o.customer_id"
    " where c.city = 's{0}'"
)


def regress() -> list[str]:
    """The statements of pg_regress, as PostgreSQL's own splitter tells them apart."""
    texts: list[str] = []
    for file in sorted((postgresql.build() / "regress" / "sql").glob("*.sql")):
        lines = [line for line in file.read_text(errors="replace").split("\n") if line[:1] != "\\"]
        text = "\n".join(lines)
        try:
            texts += parser.split(text)
        except (parser.ParseError, ValueError):
            texts += text.split(";\n")
    return [text for text in texts if text.strip()]


def catalog(folder: Path) -> Snapshot:
    """The demo shop's, with pgbench's tables."""

    async def fetch(address: str) -> Snapshot:
        connection = await asyncpg.connect(address)
        try:
            await connection.execute(
                "create table pgbench_accounts (aid int primary key, bid int, abalance int)"
            )
            return build(await read(connection))
        finally:
            await connection.close()

    small = Size(customers=100, orders=100)
    for document in running(folder, Options(only=("postgres",), size=small)):
        return asyncio.run(fetch(parse(document["targets"][0]["direct_conninfo"]).uri()))
    raise AssertionError("no PostgreSQL")


def guard_rails() -> list[tuple[str, str]]:
    """All but two, which would refuse this by whom or when it is done."""
    folder = Path(cases.__file__).parent / "packs"
    return [
        (pack.name, pack.read_text())
        for pack in sorted(folder.glob("*.cedar"))
        if pack.stem not in ("owners-only", "business-hours")
    ]


def packs(others: int = 0) -> Policies:
    """The guard rails, and policies of other groups and targets, `others` of them."""
    texts = [PERMIT, *guard_rails()]
    for number in range(others):
        group = f'principal in Group::"group-{number}"' if number % 2 else "principal"
        target = "shop" if number % 2 else f"target-{number}"
        texts.append(
            (
                f"other-{number}.cedar",
                f'@id("other-{number}") permit ({group}, action == Action::"execute", '
                f'resource == Target::"{target}") when {{ context.kinds == ["select"] }};',
            )
        )
    return Policies(texts)


def everybodys(others: int) -> Policies:
    """The guard rails, and `others` rules for everybody about tables, functions, applications."""
    begins = (
        'context.tables_read.contains("public.t{}")',
        'context.tables_written.containsAny(["public.t{0}", "public.u{0}"])',
        'context.functions.contains("public.f{}")',
        'context.application == "app-{}" && context.access.contains("read")',
    )
    texts = [PERMIT, *guard_rails()]
    for number in range(others):
        begin = begins[number % len(begins)].format(number)
        texts.append(
            (
                f"other-{number}.cedar",
                f'@id("other-{number}") forbid (principal, action == Action::"execute", resource)'
                f" when {{ {begin} && !context.has_where }};",
            )
        )
    return Policies(texts)


class Gate:
    """What a gateway does with a text before it is recorded."""

    def __init__(self, snapshot: Snapshot, policies: Policies) -> None:
        self._analyse = Analyser()
        self._resolve = Resolver(snapshot)
        self._policies = policies
        self._meaning = SessionNames()

    def __call__(self, text: str) -> None:
        for statement in self._analyse(text):
            self._decide(statement)

    def _decide(self, statement: Statement) -> None:
        asked = cases.request(statement, self._resolve(statement, self._meaning))
        self._policies.execute(ALICE, "shop", "psql", asked, NOON)


class Veiled(Gate):
    """The same for a person without `see_clear`: how it is masked is planned, too."""

    def __init__(self, snapshot: Snapshot, policies: Policies) -> None:
        super().__init__(snapshot, policies)
        self._veil = Veil(HIDDEN)

    def __call__(self, text: str) -> None:
        for statement in self._analyse(text):
            self._veil.plan(statement.text)
            self._decide(statement)


def timed(run: Callable[[str], None], texts: list[str]) -> list[float]:
    """Microseconds of each, sorted."""
    times = []
    for text in texts:
        before = time.perf_counter()
        run(text)
        times.append((time.perf_counter() - before) * 1e6)
    return sorted(times)


def show(name: str, times: list[float]) -> float:
    """Print, and return the median."""
    middle = statistics.median(times)
    print(f"{name:44} p50 {middle:7.1f} us, p90 {times[int(len(times) * 0.9)]:7.1f} us", flush=True)
    return middle


def main() -> None:
    """Print the figures."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        snapshot = catalog(Path(folder, "stack"))
    texts = regress()
    permit, guarded = checked([PERMIT]), packs()
    gc.freeze()
    analyse = Analyser()
    show("pg_regress, kinds alone", timed(lambda text: _only(analyse, text), texts))
    show("pg_regress at first sight, one permit", timed(Gate(snapshot, permit), texts))
    show("pg_regress at first sight, guard rails", timed(Gate(snapshot, guarded), texts))
    gate = Gate(snapshot, permit)
    gate(KNOWN.format(0))
    show("a known text, one permit", timed(gate, [KNOWN.format(0)] * 20_000))
    gate = Gate(snapshot, guarded)
    gate(KNOWN.format(0))
    show("a known text, guard rails", timed(gate, [KNOWN.format(0)] * 20_000))
    first = timed(gate, [KNOWN.format(number) for number in range(1, 20_001)])
    show("pgbench -S, another number each time", first)
    masked = [HIDING.format(number) for number in range(2_000)]
    show("first sight, masked by rewriting", timed(Veiled(snapshot, permit), masked))
    # The rules speak of the limit, so that no two of these are decided alike.
    names = [f"select id from orders limit {number}" for number in range(1, 501)]
    some, many = packs(20 - len(guarded.rules)), packs(10_000 - len(guarded.rules))
    few = show(f"first sight, {len(some.rules)} policies", timed(Gate(snapshot, some), names))
    more = show(f"first sight, {len(many.rules)} policies", timed(Gate(snapshot, many), names))
    print(f"{len(many.rules)} policies against {len(some.rules)}: {more / few:.1f}x")
    some, many = everybodys(20 - len(guarded.rules)), everybodys(10_000 - len(guarded.rules))
    few = show(f"{len(some.rules)} that concern everybody", timed(Gate(snapshot, some), names))
    more = show(f"{len(many.rules)} that concern everybody", timed(Gate(snapshot, many), names))
    print(f"{len(many.rules)} policies against {len(some.rules)}: {more / few:.1f}x")


def _only(analyse: Analyser, text: str) -> None:
    analyse(text)


if __name__ == "__main__":
    main()
