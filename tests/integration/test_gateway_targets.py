"""Targets that change while people work."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml

from schemas.events import (
    Completed,
    Decided,
    Event,
    Requested,
    Responded,
    SessionClosed,
    TargetsLoaded,
)
from tests.e2e import book
from tests.e2e.stack import Stack, until
from tests.integration.another import another_gateway

pytestmark = pytest.mark.integration

POLICIES = """
@id("all") @unknown("permitted")
permit (principal, action in [Action::"connect", Action::"execute"], resource);
"""
"""Nobody sees anything classified clear."""
CLEAR = "Zorvak Quill"
HOSTILE = "o\"dd'; --näme"


class Place:
    """A gateway whose targets a test changes: `shop` in its settings, others in a folder."""

    def __init__(self, stack: Stack, root: Path) -> None:
        self.stack = stack
        self.config = root / "gateway.yaml"
        self.folder = root / "policies" / "targets"
        self.address = ("", 0)
        self.since: book.Place = {}
        self.told: dict[psycopg.Connection[Any], list[str]] = {}
        self._announced = root / "another.json"
        self._log = root / "gateway.log"

    def connect(self, target: str = "shop", **options: Any) -> psycopg.Connection[Any]:
        host, port = self.address
        made = self.stack.connect("bob", hostaddr=host, port=port, dbname=target, **options)
        told = self.told[made] = []
        # What comes while nothing is asked is a notice to libpq.
        made.add_notice_handler(lambda notice: told.append(str(notice.message_primary)))
        return made

    def shop(self, **changes: Any) -> dict[str, Any]:
        """An entry for the stack's database."""
        [entry] = yaml.safe_load(self.stack.state.config_file.read_text())["targets"]
        return {**entry, "classified": {}, **changes}

    def put(self, targets: list[dict[str, Any]], **others: Any) -> None:
        document = {**yaml.safe_load(self.config.read_text()), "targets": targets, **others}
        replace(self.config, yaml.safe_dump(document))

    def add(self, file: str, **changes: Any) -> Path:
        path = self.folder / f"{file}.yaml"
        entry = self.shop(**changes)
        if "name" not in changes:
            del entry["name"]
        replace(path, yaml.safe_dump(entry))
        return path

    def metric(self, name: str) -> float:
        url = json.loads(self._announced.read_text())["metrics_url"]
        with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 (our own)
            lines = answer.read().decode().splitlines()
        return float(next(line.split()[1] for line in lines if line.split()[0] == name))

    def logged(self, event: str) -> list[dict[str, Any]]:
        lines = self._log.read_text().splitlines()
        found = [json.loads(line) for line in lines if line.startswith("{")]
        return [line for line in found if line["event"] == event]

    def gone(self, connection: psycopg.Connection[Any], why: str) -> None:
        """It ends, and says why."""

        def asked() -> bool:
            try:
                connection.execute("select 1")
            except psycopg.OperationalError as error:
                assert why in f"{self.told[connection]} {error}"
                return True
            return False

        until(asked, timeout_s=20, pause_s=0.02)

    async def recorded(self, sessions: int = 0) -> list[Event]:
        """All that its gateway has recorded, from its start; with the ends of so many sessions."""
        servers = self.stack.document["kafka"]["bootstrap_servers"]
        async with asyncio.timeout(30):
            while True:
                entries = await book.read(servers, self.stack.state.keys, self.since)
                events = [entry.event for entry in entries]
                mine = [event for event in events if event.context.gateway == "another"]
                if sum(ends(mine).values()) >= sessions:
                    return mine

    def loaded(self, number: int) -> None:
        """So many sets were taken, the first included."""
        until(lambda: len(self.logged("targets_loaded")) >= number, timeout_s=20, pause_s=0.02)


def replace(path: Path, text: str) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(text)
    partial.replace(path)


@pytest.fixture
async def place(gateway_stack: Stack, tmp_path: Path) -> AsyncIterator[Place]:
    made = Place(gateway_stack, tmp_path)
    made.since = await book.end(gateway_stack.document["kafka"]["bootstrap_servers"])
    made.folder.mkdir(parents=True)
    (made.folder.parent / "all.cedar").write_text(POLICIES)

    def settings(document: dict[str, Any]) -> None:
        policies = str(made.folder.parent)
        document["gateway"] |= {"policies": policies, "policies_reload_s": 0.05}
        document["targets"] = [made.shop()]

    with another_gateway(gateway_stack, tmp_path, settings) as made.address:
        yield made


@pytest.fixture
def people(gateway_stack: Stack, tmp_path: Path) -> Iterator[str]:
    """A table of this test's own, in which a name can come to be classified."""
    name = f"people_{tmp_path.name[-8:].replace('-', '_')}"
    with gateway_stack.direct() as owner:
        owner.execute(f"drop table if exists {name}")
        owner.execute(f"create table {name} as select 1 as id, '{CLEAR}'::text as name")
    yield name
    with gateway_stack.direct() as owner:
        owner.execute(f"drop table {name}")


def classified(people: str) -> dict[str, Any]:
    return {f"public.{people}.name": {"class": "pii"}}


def seen(connection: psycopg.Connection[Any], people: str) -> str:
    row = connection.execute(f"select name from {people}").fetchone()
    assert row is not None
    return str(row[0])


def loads(events: list[Event]) -> list[TargetsLoaded]:
    return [event for event in events if isinstance(event, TargetsLoaded)]


def ends(events: list[Event]) -> Counter[tuple[str, str]]:
    """Sessions by target and reason of their end."""
    closed = [event for event in events if isinstance(event, SessionClosed)]
    return Counter((event.context.target, event.reason) for event in closed)


def unmasked(events: list[Event], people: str, target: str = "shop") -> int:
    """Statements that might read the names as they are."""
    about = {
        event.statement_id
        for event in events
        if isinstance(event, Requested)
        and event.context.target == target
        and any(people in relation for relation in event.relations)
    }
    return sum(
        event.statement_id in about and event.decision == "ALLOW" and not event.masks
        for event in events
        if isinstance(event, Decided)
    )


CHANGED = 'target "shop" has changed: connect again'


async def test_a_column_that_is_classified_is_masked_from_then_on_and_other_targets_go_on(
    place: Place, people: str
) -> None:
    place.add("crm")
    place.loaded(2)
    with place.connect() as shop, place.connect("crm") as crm:
        assert seen(shop, people) == seen(crm, people) == CLEAR
        place.put([place.shop(classified=classified(people))])
        place.gone(shop, CHANGED)
        with place.connect() as again:
            assert seen(again, people) == "***"
        assert seen(crm, people) == CLEAR

    events = await place.recorded(3)
    first, added, load = loads(events)
    assert (first.outcome, first.targets, first.added) == ("loaded", 1, [])
    assert (added.targets, added.added, added.changed) == (2, ["crm"], [])
    assert (load.outcome, load.added, load.changed, load.removed) == ("loaded", [], ["shop"], [])
    before, after = events[: events.index(load)], events[events.index(load) :]
    assert unmasked(before, people) == 1 and unmasked(after, people) == 0
    assert unmasked(after, people, "crm") == 1
    assert {e.context.classification for e in before if is_statement(e)} == {b""}
    (digest,) = {e.context.classification for e in after if is_statement(e)}
    assert digest
    assert ends(events) == {
        ("shop", "target_changed"): 1,
        ("shop", "client_closed"): 1,
        ("crm", "client_closed"): 1,
    }


def is_statement(event: Event) -> bool:
    kinds = (Requested, Decided, Responded, Completed)
    return isinstance(event, kinds) and event.context.target == "shop"


async def test_nobody_in_a_crowd_is_shown_it_by_what_was_asked_after_the_change(
    place: Place, people: str
) -> None:
    shown, enough, problems = Counter[str](), threading.Event(), list[str]()

    def work() -> None:
        while not enough.is_set():
            told: list[str] = []
            try:
                with place.connect() as connection:
                    told = place.told[connection]
                    while not enough.is_set():
                        shown[seen(connection, people)] += 1
            except psycopg.Error as error:
                if "has changed: connect again" not in f"{told} {error}":
                    problems.append(str(error))

    crowd = [threading.Thread(target=work) for _ in range(8)]
    for each in crowd:
        each.start()
    try:
        counted(shown, CLEAR)
        for number in range(5):
            columns, shows = ({}, CLEAR) if number % 2 else (classified(people), "***")
            place.put([place.shop(classified=columns)])
            place.loaded(2 + number)
            counted(shown, shows)
    finally:
        enough.set()
        for each in crowd:
            each.join(30)
    assert problems == []
    assert shown.keys() == {CLEAR, "***"}
    events = await place.recorded()
    at = [number for number, event in enumerate(events) if isinstance(event, TargetsLoaded)]
    assert len(at) == 6
    for number, (begin, end) in enumerate(zip(at, [*at[1:], len(events)], strict=True)):
        assert bool(unmasked(events[begin:end], people)) == (number % 2 == 0)


def counted(shown: Counter[str], value: str) -> None:
    """It is seen again and again."""
    enough = shown[value] + 20
    until(lambda: shown[value] > enough, timeout_s=30)


async def test_a_broken_file_changes_nothing_until_it_is_mended(place: Place, people: str) -> None:
    with place.connect() as shop:
        path = place.add("crm", classified=classified(people))
        place.loaded(2)
        with place.connect("crm") as crm:
            replace(path, path.read_text() + "passwort: geheim\n")
            until(lambda: place.metric("gatebook_targets_current") == 0, timeout_s=20)
            assert place.metric("gatebook_targets_reload_failures_total") == 1
            # The last good set, also for who comes now.
            with place.connect("crm") as another:
                assert seen(crm, people) == seen(another, people) == "***"
            # A half of a file is a file, and not what is meant.
            path.write_text(path.read_text()[:40])
            until(lambda: place.metric("gatebook_targets_reload_failures_total") == 2)
            place.add("crm", classified=classified(people))
            until(lambda: place.metric("gatebook_targets_current") == 1, timeout_s=20)
            assert seen(crm, people) == "***"
        assert shop.execute("select 1").fetchone() == (1,)
    assert place.metric("gatebook_targets_age_seconds") > 0
    assert "geheim" not in (place.config.parent / "gateway.log").read_text()
    found = loads(await place.recorded())
    assert [(load.outcome, load.targets, load.added, load.changed) for load in found] == [
        ("loaded", 1, [], []),
        ("loaded", 2, ["crm"], []),
        ("failed", 2, [], []),
        ("failed", 2, [], []),
        ("loaded", 2, [], []),
    ]
    assert found[2].reason.endswith("crm.yaml: passwort: Extra inputs are not permitted")
    assert len({load.digest for load in found[1:]}) == 1


async def test_a_target_that_is_removed_while_a_statement_runs_lets_it_end(place: Place) -> None:
    path = place.add("crm")
    place.loaded(2)
    with place.connect() as shop, place.stack.direct() as outside:
        busy, idle, open_ = (place.connect("crm") for _ in range(3))
        open_.autocommit = False
        open_.execute("create temp table kept (id int)")
        outside.execute("select pg_advisory_lock(58)")
        busy.pgconn.send_query(b"select pg_advisory_lock_shared(58), 'done'")
        until(lambda: waits(outside), timeout_s=20)
        path.unlink()
        place.gone(idle, 'target "crm" is not offered any more')
        place.gone(open_, 'target "crm" is not offered any more')
        with pytest.raises(psycopg.OperationalError, match='database "crm" does not exist'):
            place.connect("crm")
        # It can be cancelled: its connection knows where it runs, which nobody else does any more.
        busy.cancel_safe()
        result = until(busy.pgconn.get_result)
        assert result.error_field(psycopg.pq.DiagnosticField.SQLSTATE) == b"57014"
        outside.execute("select pg_advisory_unlock(58)")
        assert shop.execute("select 1").fetchone() == (1,)
    events = await place.recorded(5)
    assert [load.removed for load in loads(events)] == [[], [], ["crm"]]
    assert ends(events) == {
        ("crm", "target_changed"): 3, ("", "denied"): 1, ("shop", "client_closed"): 1,
    }  # fmt: skip


async def test_what_runs_is_delivered_and_recorded_as_what_is_classified_now(
    place: Place, people: str
) -> None:
    with place.connect() as shop, place.stack.direct() as outside:
        outside.execute("select pg_advisory_lock(59)")
        shop.pgconn.send_query(f"select name from {people}, pg_advisory_lock_shared(59)".encode())
        until(lambda: waits(outside), timeout_s=20)
        place.put([place.shop(classified=classified(people))])
        place.loaded(2)
        outside.execute("select pg_advisory_unlock(59)")
        result = until(shop.pgconn.get_result)
        assert result.get_value(0, 0) == CLEAR.encode()
        assert shop.pgconn.get_result() is None
        place.gone(shop, CHANGED)
    events = await place.recorded()
    (responded,) = (event for event in events if isinstance(event, Responded))
    assert events.index(responded) > events.index(loads(events)[-1])
    assert responded.context.classification


def waits(outside: psycopg.Connection[Any]) -> bool:
    found = outside.execute("select 1 from pg_locks where locktype = 'advisory' and not granted")
    return found.fetchone() is not None


async def test_fifty_sessions_end_and_begin_again(place: Place, people: str) -> None:
    with contextlib.ExitStack() as opened:
        crowd = [opened.enter_context(place.connect()) for _ in range(50)]
        place.put([place.shop(classified=classified(people))])
        for each in crowd:
            place.gone(each, CHANGED)
        again = [opened.enter_context(place.connect()) for _ in range(50)]
        assert {seen(each, people) for each in again} == {"***"}
    assert ends(await place.recorded(100)) == {
        ("shop", "target_changed"): 50, ("shop", "client_closed"): 50,
    }  # fmt: skip


async def test_a_name_may_be_any_text_and_a_folder_a_link(place: Place, people: str) -> None:
    for version, columns in (("one", {}), ("two", classified(people))):
        (place.folder.parent / version).mkdir()
        entry = place.shop(name=HOSTILE, classified=columns)
        (place.folder.parent / version / "odd.yaml").write_text(yaml.safe_dump(entry))
    place.folder.rmdir()
    place.folder.symlink_to("one")
    place.loaded(2)
    with place.connect(HOSTILE) as odd:
        assert seen(odd, people) == CLEAR
        link = place.folder.parent / "next"
        link.symlink_to("two")
        link.replace(place.folder)
        place.gone(odd, "has changed: connect again")
        with place.connect(HOSTILE) as again:
            assert seen(again, people) == "***"


async def test_of_changes_in_quick_succession_the_last_one_counts(
    place: Place, people: str
) -> None:
    with place.connect() as shop:
        place.put([place.shop(classified=classified(people))])
        place.put([place.shop(port=1)])
        place.put([place.shop(classified=classified(people), functions=["f"])])
        place.add("crm")
        until(lambda: any("crm" in line["added"] for line in place.logged("targets_loaded")))
        place.gone(shop, CHANGED)
    with place.connect() as again:
        assert seen(again, people) == "***"
    with place.connect("crm") as crm:
        assert seen(crm, people) == CLEAR
    found = loads(await place.recorded())
    assert {load.outcome for load in found} == {"loaded"}


def test_other_settings_wait_for_a_restart_and_say_so(place: Place) -> None:
    with place.connect() as shop:
        place.put([place.shop(), place.shop(name="crm")], mask={"batch_records": 7})
        place.loaded(2)
        assert place.logged("settings_need_a_restart")[0]["settings"] == ["mask"]
        with place.connect("crm") as crm:
            assert crm.execute("select 1").fetchone() == (1,)
        assert shop.execute("select 1").fetchone() == (1,)
