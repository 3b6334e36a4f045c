"""A comment classifies a column: at once, in what people see and in the history."""

from __future__ import annotations

import json
import os
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from infra.devstack.plan import Options
from schemas.events import ClassificationChanged, Completed, Requested, Responded
from tests.conftest import SMALL, running
from tests.e2e import book
from tests.e2e.stack import Stack, until
from tests.integration.another import another_gateway

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

KINDS = ("kafka", "postgres", "issuer", "mask", "clickhouse", "gateway")
POLICIES = """
@id("all") @unknown("permitted")
permit (principal, action in [Action::"connect", Action::"execute"], resource == Target::"shop");
@id("dba-classifies")
permit (principal in Group::"dba", action == Action::"classify", resource in Target::"shop");
"""
"""Nobody sees anything clear; bob may classify, alice may not."""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    root = tmp_path_factory.mktemp("classification")
    for _ in running(root, Options(gateways=1, only=KINDS, size=SMALL)):
        yield Stack(root)


class Clinic:
    """A table of this test's own, and a gateway at which its owner's comments count."""

    def __init__(self, stack: Stack, address: tuple[str, int], table: str) -> None:
        self.stack, self.address, self.table = stack, address, table

    def connect(self, user: str, **options: Any) -> psycopg.Connection[Any]:
        host, port = self.address
        return self.stack.connect(user, hostaddr=host, port=port, **options)

    def seen(self, connection: psycopg.Connection[Any]) -> str:
        row = connection.execute(f"select nickname from {self.table}").fetchone()
        assert row is not None
        return str(row[0])

    def history(self, like: str, answers: int = 0) -> list[dict[str, Any]]:
        """Statements in the history, once they are there with so many answers."""

        def found() -> list[dict[str, Any]] | None:
            rows = self.stack.history(
                "SELECT q.statement AS statement, r.rows AS rows FROM queries AS q "
                "LEFT JOIN responses AS r ON r.statement_id = q.statement_id "
                f"WHERE q.statement LIKE '%{self.table}%' AND q.statement LIKE '%{like}%' "
                "AND q.gateway = 'another' AND q.outcome = 'completed' ORDER BY q.started_at"
            )
            return rows if sum(bool(row["rows"]) for row in rows) >= answers else None

        return until(found, timeout_s=60)


@pytest.fixture
def clinic(stack: Stack, tmp_path: Path) -> Iterator[Clinic]:
    table = f"clinic_{uuid.uuid4().hex[:8]}"
    with stack.direct() as owner:
        owner.execute(f"create table {table} (id int, nickname text)")
        owner.execute(f"insert into {table} values (1, 'Zorvak Quill')")
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "all.cedar").write_text(POLICIES)

    def change(settings: dict[str, Any]) -> None:
        settings["gateway"]["policies"] = str(tmp_path / "policies")
        settings["gateway"]["catalog_refresh_s"] = 600
        target = settings["targets"][0]
        target["classifiers"] = [target["user"]]

    with another_gateway(stack, tmp_path, change) as address:
        yield Clinic(stack, address, table)
    with stack.direct() as owner:
        owner.execute(f"drop table {table}")


TAG = "comment on column {} is 'as called. gatebook:pii'"


async def test_from_the_comment_on_nobody_sees_it_and_the_history_shows_it_masked(
    clinic: Clinic,
) -> None:
    stack = clinic.stack
    servers = stack.document["kafka"]["bootstrap_servers"]
    since = await book.end(servers)
    column = f"{clinic.table}.nickname"
    with clinic.connect("alice") as alice, clinic.connect("bob") as bob:
        assert clinic.seen(alice) == "Zorvak Quill"
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="no policy permits"):
            alice.execute(TAG.format(column))
        bob.execute(TAG.format(column))
        # The next statement of any session of that gateway.
        assert clinic.seen(alice) == "***"
        assert clinic.seen(bob) == "***"
        alice.execute(f"select id from {clinic.table} where nickname = 'Zorvak Quill'")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            alice.execute(f"comment on column {column} is null")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            alice.execute(f"alter table {clinic.table} drop column nickname")
        with clinic.connect("alice") as later:
            assert clinic.seen(later) == "***"
    rows = clinic.history("select nickname", 4)
    assert [json.loads(row["rows"]) for row in rows] == [
        [{"nickname": "Zorvak Quill"}],
        *[[{"nickname": "***"}]] * 3,
    ]
    (found,) = clinic.history("where nickname")
    assert "Zorvak" not in found["statement"]
    changes = until(
        lambda: stack.history(
            "SELECT change, class, mask, source FROM classifications "
            f"WHERE gateway = 'another' AND column = 'public.{column}'"
        )
    )
    assert changes == [{"change": "added", "class": "pii", "mask": "full", "source": "comment"}]
    entries = await book.read(servers, stack.state.keys, since)
    mine = [entry.event for entry in entries if entry.event.context.gateway == "another"]
    # Each event names what was classified when it was made, and the change comes first.
    at = next(
        number
        for number, event in enumerate(mine)
        if isinstance(event, ClassificationChanged)
        and any(each.column == f"public.{column}" for each in event.changes)
    )
    digest = mine[at].context.classification
    statements = (Requested, Responded, Completed)
    assert any(isinstance(event, statements) for event in mine[at:])
    assert all(e.context.classification == digest for e in mine[at:] if isinstance(e, statements))
    assert all(e.context.classification != digest for e in mine[:at] if isinstance(e, statements))


def test_in_its_own_transaction_what_was_classified_is_read_by_nobody(clinic: Clinic) -> None:
    with clinic.connect("bob", autocommit=False) as bob, clinic.connect("alice") as alice:
        bob.execute(TAG.format(f"{clinic.table}.nickname"))
        assert clinic.seen(alice) == "Zorvak Quill"
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="in this transaction"):
            clinic.seen(bob)
        bob.rollback()
        assert clinic.seen(bob) == "Zorvak Quill"
        bob.execute(TAG.format(f"{clinic.table}.nickname"))
        bob.execute(f"insert into {clinic.table} values (2, 'Pemble Tarn')")
        bob.commit()
        assert clinic.seen(alice) == clinic.seen(bob) == "***"


def test_a_text_of_several_statements_and_a_pipeline_read_nothing_either(clinic: Clinic) -> None:
    tag = TAG.format(f"{clinic.table}.nickname")
    with clinic.connect("bob") as bob:
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="in this transaction"):
            bob.execute(f"{tag}; select nickname from {clinic.table}")
        with (
            pytest.raises(psycopg.errors.InsufficientPrivilege, match="in this transaction"),
            bob.pipeline(),
        ):
            bob.execute(tag)
            bob.execute(f"select nickname from {clinic.table}")
        with pytest.raises(psycopg.errors.DivisionByZero), bob.pipeline():
            bob.execute("select 1 / 0")
            bob.execute(tag)
        assert clinic.seen(bob) == "Zorvak Quill"
        with bob.pipeline() as pipeline:
            bob.execute(tag)
            pipeline.sync()
        assert clinic.seen(bob) == "***"


def test_a_comment_made_beside_the_gateway_counts_once_the_catalog_is_read(
    clinic: Clinic,
) -> None:
    with clinic.stack.direct() as owner:
        owner.execute(TAG.format(f"{clinic.table}.nickname"))
    with clinic.connect("bob") as bob, clinic.connect("alice") as alice:
        bob.execute(f"create view {clinic.table}_v as select 1")
        assert clinic.seen(alice) == "***"
        bob.execute(f"drop view {clinic.table}_v")


def test_killed_between_the_comment_and_its_use_nothing_is_shown_or_recorded_in_clear(
    stack: Stack, tmp_path: Path, clinic: Clinic
) -> None:
    """The comment is in the database, and its record perhaps in the book; whoever comes next
    begins with both. And a mask processor that begins with nothing masks as the first one did.
    """
    with clinic.connect("bob") as bob:
        bob.execute(TAG.format(f"{clinic.table}.nickname"))
        # Its own gateway is killed before anybody reads.
        os.kill(running_with(tmp_path / "gateway.yaml"), signal.SIGKILL)
    other = tmp_path / "again"
    other.mkdir()

    def change(settings: dict[str, Any]) -> None:
        settings["gateway"]["policies"] = str(tmp_path / "policies")
        settings["targets"][0]["classifiers"] = [settings["targets"][0]["user"]]

    with another_gateway(stack, other, change) as address:
        again = Clinic(stack, address, clinic.table)
        with again.connect("alice") as alice:
            assert again.seen(alice) == "***"
            restarts = stack.process("mask")["restarts"]
            stack.send("mask", signal.SIGKILL)
            until(lambda: stack.served_again("mask", restarts))
            alice.execute(f"select id from {clinic.table} where nickname = 'Zorvak Quill'")
    (found,) = again.history("where nickname")
    assert "Zorvak" not in found["statement"]
    assert not stack.history(
        f"SELECT 1 FROM audit_events WHERE response_rows LIKE '%Zorvak%' "
        f"AND statement_id IN (SELECT statement_id FROM queries WHERE statement LIKE "
        f"'%{clinic.table}%')"
    )


def running_with(config: Path) -> int:
    """The process that was started with this file."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            arguments = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if str(config).encode() in arguments:
            return int(folder.name)
    raise AssertionError(f"nothing runs with {config}")
