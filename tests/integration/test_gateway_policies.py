"""Policies that change while people work."""

from __future__ import annotations

import json
import urllib.request
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from schemas.events import Decided, PolicyLoaded, SessionClosed
from tests.e2e import book
from tests.e2e.stack import Stack, until
from tests.integration.another import another_gateway

pytestmark = pytest.mark.integration

BOB = """
@id("bob") @unknown("permitted")
permit (principal in Group::"dba", action, resource == Target::"shop");
"""
ONE = '@id("one-thing") @message("not today") @how_to_ask("Wait.")\n'
HIDES = ONE + (
    'forbid (principal, action == Action::"execute", resource) when { context.has_limit };'
)


SOME = """
@id("going") @message("not today") @how_to_ask("Wait.")
forbid (principal, action == Action::"connect", resource)
when { context.application == "going" };
"""


def put(path: Path, text: str) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(text)
    partial.replace(path)


def folder(tmp_path: Path) -> tuple[Path, Callable[[dict[str, Any]], None]]:
    """One of policies that is often looked at, and the settings that name it."""
    policies = tmp_path / "policies"
    policies.mkdir()

    def settings(document: dict[str, Any]) -> None:
        document["gateway"] |= {"policies": str(policies), "policies_reload_s": 0.05}

    return policies, settings


async def test_sessions_go_on_with_the_new_set_or_the_last_good_one(
    gateway_stack: Stack, tmp_path: Path
) -> None:
    servers = gateway_stack.document["kafka"]["bootstrap_servers"]
    since = await book.end(servers)
    policies, settings = folder(tmp_path)
    put(policies / "bob.cedar", BOB)

    with another_gateway(gateway_stack, tmp_path, settings) as (host, port):
        metrics = json.loads((tmp_path / "another.json").read_text())["metrics_url"]

        def metric(name: str) -> float:
            with urllib.request.urlopen(metrics, timeout=10) as answer:  # noqa: S310 (our own)
                lines = answer.read().decode().splitlines()
            return float(next(line.split()[1] for line in lines if line.split()[0] == name))

        with gateway_stack.connect("bob", hostaddr=host, port=port) as connection:

            def refused() -> bool:
                try:
                    connection.execute("select 1 limit 1")
                except psycopg.errors.InsufficientPrivilege as error:
                    assert "not today" in str(error)
                    return True
                return False

            assert not refused()
            put(policies / "hides.cedar", HIDES)
            until(refused, timeout_s=20)
            put(policies / "hides.cedar", HIDES.replace("has_limit", "has_limits"))
            until(lambda: metric("gatebook_policies_current") == 0, timeout_s=20)
            # The last good set.
            assert refused()
            assert metric("gatebook_policies_reload_failures_total") == 1
            assert metric("gatebook_policies_age_seconds") > 0
            (policies / "hides.cedar").unlink()
            until(lambda: not refused(), timeout_s=20)
            assert metric("gatebook_policies_current") == 1

    entries = await book.read(servers, gateway_stack.state.keys, since)
    events = [entry.event for entry in entries if entry.event.context.gateway == "another"]
    loads = [event for event in events if isinstance(event, PolicyLoaded)]
    assert [(load.outcome, load.files, load.policies) for load in loads] == [
        ("loaded", 1, 1),
        ("loaded", 2, 2),
        ("failed", 2, 2),
        ("loaded", 1, 1),
    ]
    assert "hides.cedar:2: error: one-thing: attribute `has_limits`" in loads[2].reason
    first, second, kept, third = (load.policy_digest for load in loads)
    assert first == third != second == kept
    # Every decision names a set that was loaded before it.
    in_force = ""
    for event in events:
        if isinstance(event, PolicyLoaded):
            in_force = event.policy_digest
        elif isinstance(event, Decided):
            assert event.policy_digest == in_force


async def test_whoever_may_connect_no_longer_ends_what_runs_and_goes(
    gateway_stack: Stack, tmp_path: Path
) -> None:
    servers = gateway_stack.document["kafka"]["bootstrap_servers"]
    since = await book.end(servers)
    policies, settings = folder(tmp_path)
    put(policies / "all.cedar", BOB)

    with another_gateway(gateway_stack, tmp_path, settings) as (host, port):
        options: dict[str, Any] = {"hostaddr": host, "port": port}
        staying = gateway_stack.connect("bob", application_name="staying", **options)
        idle = gateway_stack.connect("bob", application_name="going", **options)
        busy = gateway_stack.connect("bob", application_name="going", **options)
        with staying, gateway_stack.direct() as outside:
            outside.execute("select pg_advisory_lock(57)")
            # An error that comes while nothing is asked is a notice to libpq.
            told: list[str | None] = []
            busy.add_notice_handler(lambda notice: told.append(notice.message_primary))
            pgconn = busy.pgconn
            pgconn.send_query(b"select pg_advisory_lock_shared(57), 'done'")
            until(lambda: waits(outside), timeout_s=20)
            put(policies / "some.cedar", SOME)

            def gone() -> bool:
                try:
                    idle.execute("select 1")
                except psycopg.OperationalError as error:
                    assert "permission to connect was withdrawn: not today" in str(error)
                    return True
                return False

            until(gone, timeout_s=20)
            assert staying.execute("select 1").fetchone() == (1,)
            outside.execute("select pg_advisory_unlock(57)")
            result = until(pgconn.get_result)
            assert result.get_value(0, 1) == b"done"
            assert pgconn.get_result() is None
            with pytest.raises(psycopg.OperationalError) as lost:
                busy.execute("select 1")
            assert "was withdrawn: not today" in f"{told} {lost.value}"
            with pytest.raises(psycopg.OperationalError, match="not today"):
                gateway_stack.connect("bob", application_name="going", **options)

    entries = await book.read(servers, gateway_stack.state.keys, since)
    events = [entry.event for entry in entries if entry.event.context.gateway == "another"]
    ends = [event for event in events if isinstance(event, SessionClosed)]
    assert Counter(end.reason for end in ends) == {
        "not_permitted": 2,
        "denied": 1,
        "client_closed": 1,
    }
    refusals = [event for event in events if isinstance(event, Decided) if event.decision == "DENY"]
    assert {(one.reason, tuple(one.policies)) for one in refusals} == {("not today", ("going",))}
    assert len(refusals) == 3
    assert len({one.policy_digest for one in refusals}) == 1


def waits(outside: psycopg.Connection[Any]) -> bool:
    found = outside.execute("select 1 from pg_locks where locktype = 'advisory' and not granted")
    return found.fetchone() is not None
