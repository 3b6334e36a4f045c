"""The demo's story. Every claim it prints is checked; one that is not true fails the demo."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from cli import clickhouse, evidence, history, psql, tokens
from cli.history import LATEST
from cli.problems import Problem
from cli.running import program
from infra.devstack import shop, status
from infra.devstack.control import start_detached, stop
from infra.devstack.plan import Options
from infra.devstack.postgres import remove_data
from infra.devstack.state import BadStateDir, StateDir
from infra.devstack.supervisor import StartFailed
from infra.kafka.jars import cache_root
from schemas.topics import TOPICS

READ = "select id, name, email, phone, ssn, card_number from customers where id <= 3 order by id"
AROUND = (
    "select upper(ssn) as ssn from customers where id = 1",
    "select id from customers where ssn like '0%'",
    "copy (select ssn from customers where id = 1) to stdout",
    "select ssn::int from customers where id = 1",
)
FUNCTION = "select query_to_xml('table customers', true, true, '')"
TRANSACTION = """\
begin;
select count(*) from customers;
drop table customers;
select count(*) from customers;
commit;
"""
VISIBLE_TIMEOUT_S = 20.0


def tell(keep: bool) -> int:
    """Tell the story to standard output; the number of claims that were not true."""
    # Without it there is nothing to show; better said now than when everything runs.
    psql.executable()
    console = Console(highlight=False, soft_wrap=True)
    began = time.monotonic()
    with _stack(keep, console) as (state, document):
        story = Story(console, state, document)
        story.tell()
        seconds = time.monotonic() - began
        held = story.claims - len(story.broken)
        console.print(
            f"\n[bold]{held} of {story.claims} claims hold[/bold], {seconds:.1f} s after the start."
        )
        _next(console, keep)
    return len(story.broken)


@contextlib.contextmanager
def _stack(keep: bool, console: Console) -> Iterator[tuple[StateDir, dict[str, Any]]]:
    """A whole system for the story, in a folder of its own."""
    # A demo that is told to end cleans up like one that is interrupted.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    root = (
        Path(".gatebook/demo").absolute()
        if keep
        else Path(tempfile.mkdtemp(prefix="gatebook-demo-"))
    )
    state = StateDir.at(root)
    console.print(
        "[bold]Starting Kafka, PostgreSQL, an OIDC issuer, two gateways, the mask "
        "processor and ClickHouse[/bold]"
    )
    try:
        try:
            start_detached(
                state,
                Options(),
                lambda line: console.print(f"  {line}", style="dim"),
                die_with_parent=not keep,
            )
        except (BadStateDir, StartFailed) as error:
            raise Problem(str(error)) from None
        document = status.read(state)
        if document is None:
            raise Problem("the stack ended again at once")
        yield state, document
    finally:
        if not keep:
            stop(state, lambda line: console.print(f"  {line}", style="dim"))
            remove_data(state.root)
            shutil.rmtree(state.root, ignore_errors=True)


def _next(console: Console, keep: bool) -> None:
    at = " --state-dir .gatebook/demo" if keep else ""
    console.print("\n[bold]Try next[/bold]")
    name = program()
    if not keep:
        console.print(f"  {name} up --detach", markup=False)
    for line in (
        f"{name} connect shop --user bob{at}          # a DBA, in psql",
        f"{name} tail{at}                             # events, live",
        f'{name} sql{at} "{LATEST}"',
        f"{name} down{at}",
    ):
        console.print(f"  {line}", markup=False)


def _masked_cells(table: str) -> list[str]:
    """The last four of the six columns of READ, of each row."""
    rows = [line.split("|") for line in table.splitlines() if line.count("|") == 5]
    return [cell.strip() for row in rows[1:] for cell in row[2:]]


@dataclass(slots=True)
class Answer:
    """What psql printed, both streams in order, and how it ended."""

    text: str
    code: int


@dataclass(slots=True)
class Story:
    """One telling."""

    console: Console
    state: StateDir
    document: dict[str, Any]
    claims: int = 0
    broken: list[str] = field(default_factory=list)

    def tell(self) -> None:
        """All of it, in order."""
        self._people()
        first = self._alice_reads()
        self._alice_tries_around()
        clear = self._bob_reads()
        self._alice_drops()
        self._mallory_is_refused()
        self._an_expired_token_is_refused()
        asked_at = self._the_second_gateway(first)
        self._history(asked_at)
        self._masked(clear)
        self._nothing_in_clear()

    # What people do

    def _people(self) -> None:
        self._heading("Who is who")
        self._print(
            "alice is in group support, bob and dave in dba, carol in auditors, mallory in none."
        )
        self._print("Each signs in to psql with a token of the issuer as the password:")
        environment = psql.environment(self.document, "shop", "alice", "")
        shown = {**environment, "PGPASSWORD": "$(gatebook token --user alice)"}
        for name in ("PGHOST", "PGPORT", "PGDATABASE", "PGUSER", "PGPASSWORD", "PGSSLMODE"):
            self._print(f"  {name}={shown[name]}", style="dim")

    def _alice_reads(self) -> str:
        self._heading("alice looks up three customers")
        answer = self._psql("alice", ["-c", READ])
        self._claim("the gateway let her: three rows came back", "(3 rows)" in answer.text)
        self._claim(
            "their e-mail addresses, phones, ssns and cards are masked for her",
            len(_masked_cells(answer.text)) == 12
            and not evidence.SSN.findall(answer.text.encode())
            and all("*" in cell for cell in _masked_cells(answer.text)),
        )
        return answer.text

    def _alice_tries_around(self) -> None:
        self._heading("alice tries to get around it")
        answer = self._psql("alice", [part for query in AROUND for part in ("-c", query)])
        self._claim(
            "an expression, a predicate, COPY and a cast in an error show no ssn",
            answer.text.count("***") >= 3
            and "(0 rows)" in answer.text
            and not evidence.SSN.findall(answer.text.encode()),
        )
        answer = self._psql(
            "alice", ["-c", "select query_to_xml('table customers', true, true, '')"]
        )
        self._claim(
            "a function that may read the table is refused", "permission denied" in answer.text
        )

    def _bob_reads(self) -> str:
        self._heading("bob, a DBA, asks the same")
        answer = self._psql("bob", ["-c", READ])
        self._claim(
            "he may see clear, and works with real values",
            len(evidence.SSN.findall(answer.text.encode())) == 3,
        )
        return answer.text

    def _alice_drops(self) -> None:
        self._heading("alice tries to drop the table, inside a transaction")
        answer = self._psql(
            "alice", ["-a", "-v", "VERBOSITY=verbose", "-f", "-"], standard_input=TRANSACTION
        )
        self._claim("the DROP is refused with SQLSTATE 42501", "ERROR:  42501" in answer.text)
        self._claim(
            "her transaction is aborted by PostgreSQL itself (25P02)",
            "ERROR:  25P02" in answer.text,
        )
        self._claim("her COMMIT ends as a ROLLBACK", answer.text.rstrip().endswith("ROLLBACK"))
        self._claim(
            "the table is still there, asked directly", self._customers_directly() == 20_000
        )

    def _mallory_is_refused(self) -> None:
        self._heading("mallory, who is in no group, connects")
        answer = self._psql("mallory", ["-c", "select 1"])
        self._claim(
            "no policy permits it, so it is denied",
            answer.code == 2 and "permission denied" in answer.text,
        )

    def _an_expired_token_is_refused(self) -> None:
        self._heading("alice comes with a token that expired a minute ago")
        answer = self._psql("alice", ["-c", "select 1"], expires_in=-60)
        self._claim("it is refused", answer.code == 2 and "expired" in answer.text)

    def _the_second_gateway(self, first: str) -> float:
        self._heading("alice asks again, through the second gateway")
        answer = self._psql("alice", ["-c", READ], gateway=2)
        asked_at = time.monotonic()
        self._claim("the same answer", answer.text == first)
        return asked_at

    # What the history says

    def _history(self, asked_at: float) -> None:
        self._heading("The book: what happened, in ClickHouse SQL")
        visible = self._wait_for(
            "select count() as n from queries where gateway = 'gateway-2' and outcome = 'completed'"
            f" and statement = '{READ}'",
        )
        self._claim(
            f"the last query was in the history {visible - asked_at:.1f} s after it ran",
            visible - asked_at < 5,
        )
        rows = self._sql(
            "select started_at, actor, arrayStringConcat(groups, ' ') as groups, gateway,"
            " statement, decision, policies, outcome, error_code, rows"
            " from queries order by started_at"
        )
        reads = [row for row in rows if row["statement"] == READ and row["actor"] == "alice"]
        self._claim(
            "both reads are there: by alice of support, ALLOW, completed, 3 rows each",
            len(reads) == 2
            and {row["gateway"] for row in reads} == {"gateway-1", "gateway-2"}
            and all(
                (row["actor"], row["groups"], row["decision"], row["outcome"], int(row["rows"]))
                == ("alice", "support", "ALLOW", "completed", 3)
                for row in reads
            ),
        )
        drops = [row for row in rows if row["statement"].startswith("drop table")]
        self._claim(
            "the DROP is there: DENY by policy support-changes-nothing, 42501",
            [(row["decision"], row["policies"], row["outcome"], row["error_code"]) for row in drops]
            == [("DENY", ["support-changes-nothing"], "denied", "42501")],
        )
        sessions = self._sql(
            "select started_at, if(actor = '', '(nobody)', actor) as actor, gateway, outcome,"
            " reason from sessions order by started_at"
        )
        self._claim(
            "mallory's refusal is there",
            any((row["actor"], row["outcome"]) == ("mallory", "refused") for row in sessions),
        )
        self._claim(
            "the expired token is there, tied to nobody",
            any((row["actor"], row["outcome"]) == ("(nobody)", "login_failed") for row in sessions),
        )
        chains = self._sql(
            "select stream, events, missing, duplicates from chain_gaps order by stream"
        )
        self._claim(
            "no event is missing and none is there twice",
            sum(int(row["events"]) for row in chains) > 0
            and all(int(row["missing"]) == int(row["duplicates"]) == 0 for row in chains),
        )

    def _masked(self, clear: str) -> None:
        self._heading("The rows that came back, as the history holds them")
        # The condition is in both: the view of queries alone knows the statement.
        rows = self._sql(
            "select chunk, rows from responses where statement_id in"
            f" (select statement_id from queries where statement = '{READ}'"
            " and actor = 'bob')"
        )
        text = "".join(str(row["rows"]) for row in rows)
        names = [line.split("|")[1].strip() for line in clear.splitlines() if line.count("|") == 5][
            1:
        ]
        self._claim(
            "the rows are there, with the names", len(names) == 3 and all(n in text for n in names)
        )
        values = _masked_cells(clear)
        self._claim(
            "no e-mail address, phone number, ssn or card number among them is in clear",
            len(values) == 12 and not any(value in text for value in values),
        )

    def _nothing_in_clear(self) -> None:
        self._heading("Kafka's log files, searched for every ssn of the shop")
        customers, _ = shop.copy_files(shop.Size(), cache_root())
        ssns = evidence.seeded_ssns(customers)
        files = evidence.in_files((self.state.root / "kafka").glob("*/data/*/*.log"), ssns)
        topics = asyncio.run(
            evidence.in_topics(
                self.document["kafka"]["bootstrap_servers"],
                tuple(topic.name for topic in TOPICS),
                ssns,
            )
        )
        self._print(
            f"  {len(ssns)} ssns, {files.places} log files of {files.bytes_read:,} bytes, "
            f"{topics.places} records"
        )
        for place in sorted({*files.found, *topics.found}):
            self._print(f"  in clear: {place}", style="red")
        self._claim(
            "none of them is there in clear",
            files.places > 0 and topics.places > 0 and not files.found and not topics.found,
        )

    # How it is told

    def _heading(self, text: str) -> None:
        self.console.print(f"\n[bold]{text}[/bold]")

    def _print(self, text: str, style: str = "") -> None:
        self.console.print(Text(text, style))

    def _claim(self, text: str, true: bool) -> None:
        self.claims += 1
        if not true:
            self.broken.append(text)
        mark = Text("  ✓ ", "green") if true else Text("  ✗ NOT TRUE: ", "bold red")
        self.console.print(mark + Text(text, "" if true else "red"))

    def _psql(
        self,
        user: str,
        arguments: list[str],
        gateway: int = 1,
        expires_in: int | None = None,
        standard_input: str | None = None,
    ) -> Answer:
        shown = " ".join(f'"{word}"' if " " in word else word for word in arguments)
        self._print(f"{user}@gateway-{gateway} $ psql {shown}", style="cyan")
        token = tokens.demo_token(self.state, self.document, user, expires_in)
        done = subprocess.run(
            [psql.executable(), "--no-psqlrc", *arguments],
            env=psql.environment(self.document, "shop", user, token, gateway),
            input=standard_input,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )
        self._print("\n".join(f"  {line}" for line in done.stdout.rstrip().splitlines()))
        return Answer(done.stdout, done.returncode)

    def _sql(self, query: str) -> list[dict[str, Any]]:
        self._print(f'$ gatebook sql "{query}"', style="cyan")
        rows = clickhouse.rows(self.document, query)
        history.print_table(rows)
        return rows

    def _wait_for(self, query: str) -> float:
        """When the count `n` first was above zero, by the monotonic clock. Raises Problem."""
        deadline = time.monotonic() + VISIBLE_TIMEOUT_S
        while time.monotonic() < deadline:
            if int(clickhouse.rows(self.document, query)[0]["n"]) > 0:
                return time.monotonic()
            time.sleep(0.05)
        raise Problem(f"the query did not reach the history within {VISIBLE_TIMEOUT_S:g} s")

    def _customers_directly(self) -> int:
        direct = self.document["targets"][0]["direct_conninfo"]

        async def count() -> int:
            import asyncpg

            connection = await asyncpg.connect(direct)
            try:
                return int(await connection.fetchval("select count(*) from customers"))
            finally:
                await connection.close()

        return asyncio.run(count())
