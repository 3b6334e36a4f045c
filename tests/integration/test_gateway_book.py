"""What the gateway writes: everything that happened, once, in order, and nothing in clear."""

from __future__ import annotations

import struct
import threading
import time
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from schemas.events import (
    NONE_ID,
    AuthenticationFailed,
    Completed,
    CompletedOriginal,
    Decided,
    Event,
    RequestData,
    RequestDataOriginal,
    Requested,
    RequestedOriginal,
    Responded,
    RespondedOriginal,
    SessionClosed,
    SessionOpened,
)
from tests.e2e import book
from tests.e2e.stack import Stack
from tests.gateway.protocols.postgres import messages as pg
from tests.integration.wire_client import WireClient

pytestmark = pytest.mark.integration


class Story:
    """The events of one session, by its application name."""

    def __init__(self, entries: Iterable[book.Entry]) -> None:
        self.entries = list(entries)

    def of(self, kind: type[Event]) -> list[book.Entry]:
        return [entry for entry in self.entries if isinstance(entry.event, kind)]

    def statement(self, text: str) -> list[book.Entry]:
        """All events of the statement with that text."""
        (statement_id,) = {
            entry.event.statement_id
            for entry in self.of(Requested)
            if isinstance(entry.event, Requested)
            and isinstance(entry.original, RequestedOriginal)
            and entry.original.statement == text
        }
        return [e for e in self.entries if getattr(e.event, "statement_id", None) == statement_id]

    def ends(self) -> dict[str, list[tuple[str, str]]]:
        """(outcome, error code) by statement text."""
        texts = {
            entry.event.statement_id: entry.original.statement
            for entry in self.of(Requested)
            if isinstance(entry.event, Requested) and isinstance(entry.original, RequestedOriginal)
        }
        found = defaultdict(list)
        for entry in self.of(Completed):
            assert isinstance(entry.event, Completed)
            text = texts[entry.event.statement_id]
            found[text].append((entry.event.outcome, entry.event.error_code))
        return dict(found)


class Reader:
    """Reads what was written since a test began."""

    def __init__(self, stack: Stack, since: book.Place) -> None:
        self._servers = stack.document["kafka"]["bootstrap_servers"]
        self._keys = stack.state.keys
        self._since = since

    async def told(self, application: str, closed: bool = True) -> Story:
        """What the book says of that session, once its end is in it."""
        deadline = time.monotonic() + 30
        while True:
            entries = await book.read(self._servers, self._keys, self._since)
            story = Story(
                entry for entry in entries if entry.event.context.client.application == application
            )
            if story.of(SessionClosed) or (not closed and story.entries):
                book.check_chains(entries, whole=False)
                return story
            assert time.monotonic() < deadline, "the session's end is not in the book"


@pytest.fixture
async def reader(gateway_stack: Stack) -> Reader:
    servers = gateway_stack.document["kafka"]["bootstrap_servers"]
    return Reader(gateway_stack, await book.end(servers))


def kinds(entries: Iterable[book.Entry]) -> list[str]:
    return [type(entry.event).__name__ for entry in entries]


async def test_one_session_from_its_opening_to_its_end(
    gateway_stack: Stack, reader: Reader
) -> None:
    with gateway_stack.connect("bob", application_name="whole") as connection:
        connection.execute("select id, ssn from customers where id < %s order by id", (4,))
    story = await reader.told("whole")
    assert kinds(story.entries) == [
        *("Requested", "Decided", "Completed", "SessionOpened"),
        *("Requested", "Decided", "Responded", "Completed", "SessionClosed"),
    ]
    contexts = {entry.event.context.session_id for entry in story.entries}
    assert len(contexts) == 1
    context = story.entries[0].event.context
    assert (context.principal.name, context.target, context.client.ip) == (
        *("bob", "shop"),
        "127.0.0.1",
    )
    assert "dba" in context.principal.groups
    opened = story.of(SessionOpened)[0].event
    assert isinstance(opened, SessionOpened)
    assert opened.tls.startswith("TLSv1.") and opened.policies == ["dba"]
    assert len(opened.policy_digest) == 64
    times = [entry.event.monotonic_ns for entry in story.entries]
    assert times == sorted(times)


async def test_a_client_that_asks_and_leaves_has_its_statement_completed(
    gateway_stack: Stack, reader: Reader
) -> None:
    """As against the server: what was said before a Terminate is done, whoever still listens."""
    client = WireClient.signed_in(gateway_stack, "bob", application_name="leaves")
    asked = "create table left_behind as select 7 as a where pg_sleep(0.5) is not null"
    client.send(pg.query(asked), pg.TERMINATE, pg.query("drop table left_behind"))
    client.socket.close()
    story = await reader.told("leaves")
    assert story.ends() == {"connect shop": [("completed", "")], asked: [("completed", "")]}
    with gateway_stack.direct() as direct:
        assert direct.execute("select a from left_behind").fetchall() == [(7,)]
        direct.execute("drop table left_behind")


async def test_what_was_asked_and_answered_is_kept_whole(
    gateway_stack: Stack, reader: Reader
) -> None:
    with gateway_stack.connect("bob", application_name="rows") as connection:
        text = "select id, ssn from customers where id < $1 order by id"
        cursor = connection.execute(text.replace("$1", "%s"), (4,))
        rows = cursor.fetchall()
    events = (await reader.told("rows")).statement(text)
    requested, decided, responded, completed = (entry.event for entry in events)
    asked, answered = events[0].original, events[2].original
    assert isinstance(requested, Requested) and isinstance(asked, RequestedOriginal)
    assert isinstance(responded, Responded) and isinstance(answered, RespondedOriginal)
    assert isinstance(decided, Decided) and isinstance(completed, Completed)
    assert (requested.action, requested.kind, requested.relations) == (
        *("execute", "select"),
        ["customers"],
    )
    (parameter,) = asked.parameters
    assert parameter.value is not None
    assert parameter.value == (b"4" if parameter.format == 0 else struct.pack(">h", 4))
    assert (decided.decision, decided.policies) == ("ALLOW", ["dba"])
    assert [column.source for column in answered.columns] == [
        "public.customers.id",
        "public.customers.ssn",
    ]
    assert answered.classified
    assert all(row[1].encode() in answered.data for row in rows)
    assert (completed.outcome, completed.rows, completed.command_tag) == (
        *("completed", 3),
        "SELECT 3",
    )


async def test_each_execution_of_a_prepared_statement(gateway_stack: Stack, reader: Reader) -> None:
    text = "select $1::text || 'x'"
    with WireClient.signed_in(gateway_stack, "bob", application_name="prepared") as client:
        client.ask(pg.parse(text, "s"), pg.SYNC)
        for value in (b"one", b"two", b"three"):
            client.ask(pg.bind([value], "s"), pg.execute(), pg.SYNC)
        client.send(pg.TERMINATE)
    story = await reader.told("prepared")
    prepare, *executions = [
        entry
        for entry in story.of(Requested)
        if isinstance(entry.original, RequestedOriginal) and entry.original.statement == text
    ]
    assert isinstance(prepare.event, Requested) and prepare.event.action == "prepare"
    values = []
    for entry in executions:
        assert isinstance(entry.event, Requested) and entry.event.action == "execute"
        assert entry.event.prepared_id == prepare.event.statement_id
        assert isinstance(entry.original, RequestedOriginal)
        values += [parameter.value for parameter in entry.original.parameters]
    assert values == [b"one", b"two", b"three"]
    assert story.ends()[text] == [("completed", "")] * 4


async def test_fetches_and_executes_are_tied_to_what_they_run(
    gateway_stack: Stack, reader: Reader
) -> None:
    with WireClient.signed_in(gateway_stack, "bob", application_name="tied") as client:
        for text in (
            "begin",
            "declare C cursor for select id, ssn from customers order by id",
            "fetch 2 from c",
            "savepoint s",
            "declare d cursor with hold for select 2",
            "rollback to s",
            "fetch from d",
        ):
            client.ask(pg.query(text))
        client.ask(pg.query("rollback to s"))
        told = client.ask(pg.describe_portal("c"), pg.execute("c", 1), pg.SYNC)
        assert pg.kinds(b"".join(told)) == "TDsZ"
        client.ask(pg.query("rollback"))
        client.ask(pg.query("begin; declare H cursor with hold for select 3; commit"))
        client.ask(pg.query("fetch all in h; move backward all in h"))
        client.ask(pg.query("prepare P as select count(*) from orders"))
        client.ask(pg.query("execute p; deallocate p"))
        client.ask(pg.query("close all"))
        (failed, _) = client.ask(pg.query("fetch h"))
        assert pg.fields(failed)["C"] == "34000"
        client.send(pg.TERMINATE)
    story = await reader.told("tied")
    asked = [
        (entry.original.statement, entry.event)
        for entry in story.of(Requested)
        if isinstance(entry.event, Requested) and isinstance(entry.original, RequestedOriginal)
    ]
    ids = {event.statement_id: text for text, event in asked}
    tied = [
        (text.strip(), ids.get(event.prepared_id), event.relations)
        for text, event in asked
        if {"fetch", "execute"} & set(event.kinds)
    ]
    first, held, prepared = (
        next(text for text in ids.values() if name in text)
        for name in ("declare C", "declare H", "prepare P")
    )
    assert tied == [
        ("fetch 2 from c", first, ["customers"]),
        ("fetch from d", None, []),
        (first, first, ["customers"]),
        ("fetch all in h", held, []),
        ("move backward all in h", held, []),
        ("execute p", prepared, ["orders"]),
        ("fetch h", None, []),
    ]
    assert all(
        isinstance(entry.original, RespondedOriginal) and entry.original.classified
        for entry in story.statement("fetch 2 from c")
        if isinstance(entry.event, Responded)
    )


async def test_refused_failed_and_cancelled_statements(
    gateway_stack: Stack, reader: Reader
) -> None:
    with gateway_stack.connect("alice", application_name="ends") as connection:
        for text in ("delete from customers", "select 1/0", "selec 1"):
            with pytest.raises(psycopg.Error):
                connection.execute(text)
        timer = threading.Timer(0.3, connection.cancel_safe)
        timer.start()
        with pytest.raises(psycopg.errors.QueryCanceled):
            connection.execute("select pg_sleep(20)")
        timer.join()
    story = await reader.told("ends")
    ends = story.ends()
    assert ends["delete from customers"] == [("denied", "42501")]
    assert ends["select 1/0"] == [("failed", "22012")]
    assert ends["selec 1"] == [("denied", "42601")]
    assert ends["select pg_sleep(20)"] == [("cancelled", "57014")]
    events = story.statement("select 1/0")
    assert isinstance(events[-1].original, CompletedOriginal)
    assert events[-1].original.error["M"] == "division by zero"
    refused = story.statement("delete from customers")[1].event
    assert isinstance(refused, Decided)
    assert (refused.decision, refused.policies) == ("DENY", ["clerk-removes-nothing"])


async def test_data_of_a_copy_in_both_directions(gateway_stack: Stack, reader: Reader) -> None:
    with gateway_stack.connect("bob", application_name="copies") as connection:
        connection.execute("create temp table copied (a int, b text)")
        with connection.cursor() as cursor:
            with cursor.copy("copy copied from stdin") as copy:
                copy.write(b"1\tone\n2\ttwo\n")
            with cursor.copy("copy copied to stdout") as copy:
                assert b"".join(copy) == b"1\tone\n2\ttwo\n"
    story = await reader.told("copies")
    data = [
        entry.original.data
        for entry in story.statement("copy copied from stdin")
        if isinstance(entry.event, RequestData) and isinstance(entry.original, RequestDataOriginal)
    ]
    assert b"".join(data) == b"1\tone\n2\ttwo\n"
    out = [
        entry.original
        for entry in story.statement("copy copied to stdout")
        if isinstance(entry.original, RespondedOriginal)
    ]
    assert [(one.encoding, one.data) for one in out] == [("copy", b"1\tone\n2\ttwo\n")]


async def test_a_client_killed_in_the_middle_of_a_result(
    gateway_stack: Stack, reader: Reader
) -> None:
    text = "select repeat('y', 1000) from generate_series(1, 300000)"
    client = WireClient.signed_in(gateway_stack, "bob", application_name="killed")
    client.send(pg.query(text))
    client.until("D", 10)
    client.close()
    story = await reader.told("killed")
    assert story.ends()[text] == [("lost", "")]
    closed = story.of(SessionClosed)[0].event
    assert isinstance(closed, SessionClosed) and closed.reason == "client_lost"
    recorded = sum(e.event.rows for e in story.of(Responded) if isinstance(e.event, Responded))
    assert 10 <= recorded < 300_000


async def test_a_session_that_its_target_ended(
    gateway_stack: Stack, reader: Reader, superuser: str
) -> None:
    with WireClient.signed_in(gateway_stack, "bob", application_name="ended") as client:
        (row,) = pg.split(client.ask(pg.query("select pg_backend_pid()"))[1])
        with psycopg.connect(superuser, autocommit=True) as other:
            other.execute("select pg_terminate_backend(%s)", (int(row[11:]),))
        (words,) = client.to_the_end()
        assert pg.fields(words)["C"] == "57P01"
    story = await reader.told("ended")
    closed = story.of(SessionClosed)[0].event
    assert isinstance(closed, SessionClosed) and closed.reason == "target_lost"
    notified = [
        entry.original.data
        for entry in story.of(Responded)
        if isinstance(entry.original, RespondedOriginal)
        and isinstance(entry.event, Responded)
        and entry.event.statement_id == NONE_ID
    ]
    assert any(b"57P01" in data for data in notified)


async def test_a_refused_person_and_a_refused_token(gateway_stack: Stack, reader: Reader) -> None:
    with pytest.raises(psycopg.OperationalError):
        gateway_stack.connect("mallory", application_name="stranger")
    story = await reader.told("stranger")
    assert kinds(story.entries) == ["Requested", "Decided", "Completed", "SessionClosed"]
    with pytest.raises(psycopg.OperationalError):
        gateway_stack.connect("bob", password="not.a.token", application_name="forger")
    (entry,) = (await reader.told("forger", closed=False)).entries
    assert isinstance(entry.event, AuthenticationFailed)
    assert entry.event.context.principal.name == ""


async def test_credentials_are_left_out(
    gateway_stack: Stack, reader: Reader, superuser: str
) -> None:
    with gateway_stack.connect("bob", application_name="credentials") as connection:
        for text in (
            "create role \"o'neil\" /* it's */ password 'first-secret'",
            "alter role nobody password 'second-secret",
        ):
            with pytest.raises(psycopg.Error):
                connection.execute(text)
    story = await reader.told("credentials")
    everything = repr([entry.original for entry in story.entries])
    assert everything.count("<redacted>") == 2
    assert "first-secret" not in everything and "second-secret" not in everything


def files(stack: Stack) -> Iterable[tuple[Path, bytes]]:
    """Kafka's log segments and every process's log."""
    for folder, pattern in ((stack.root / "kafka", "*.log"), (stack.state.logs, "*.log")):
        for path in folder.rglob(pattern):
            yield path, path.read_bytes()


async def test_neither_tokens_nor_values_are_anywhere_in_clear(
    gateway_stack: Stack, reader: Reader
) -> None:
    with gateway_stack.direct() as direct:
        row: Any = direct.execute("select ssn, email from customers where id = 7").fetchone()
    ssn, email = row
    typed = "471-99-0042"
    with gateway_stack.connect("bob", application_name="canary") as connection:
        connection.execute("select * from customers where ssn = %s", (ssn,))
        connection.execute(f"select * from customers where ssn = '{ssn}'")
        for text in (
            f"select * from customers where ssn = '{typed}",
            f"select '{typed}' from nowhere",
            f"select '{typed}'::int",
            f"selec '{typed}'",
        ):
            with pytest.raises(psycopg.Error):
                connection.execute(text)
    with WireClient.signed_in(gateway_stack, "bob", application_name="canary 2") as client:
        client.ask(pg.bind([typed.encode()], typed), pg.execute(typed), pg.SYNC)
        client.send(pg.TERMINATE)
    story = await reader.told("canary")
    await reader.told("canary 2")
    assert typed in repr(story.entries) and ssn in repr(story.entries)

    tokens = [gateway_stack.token(user) for user in ("alice", "bob", "mallory")]
    signatures = [token.rpartition(".")[2] for token in tokens]
    canaries = [each.encode() for each in (*tokens, *signatures, ssn, email, typed)]
    password = gateway_stack.state.target_password.read_text().strip().encode()
    seen = 0
    for path, content in files(gateway_stack):
        seen += len(content)
        for canary in (*canaries, password):
            assert canary not in content, f"in clear in {path}"
    assert seen > 100_000
    everything = repr(story.entries)
    for token in (*tokens, *signatures, password.decode()):
        assert token not in everything
