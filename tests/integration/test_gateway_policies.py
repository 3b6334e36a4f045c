"""Policies that change while people work."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path
from typing import Any

import psycopg
import pytest

from schemas.events import Decided, PolicyLoaded
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


def put(path: Path, text: str) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(text)
    partial.replace(path)


async def test_sessions_go_on_with_the_new_set_or_the_last_good_one(
    gateway_stack: Stack, tmp_path: Path
) -> None:
    servers = gateway_stack.document["kafka"]["bootstrap_servers"]
    since = await book.end(servers)
    policies = tmp_path / "policies"
    policies.mkdir()
    put(policies / "bob.cedar", BOB)

    def settings(document: dict[str, Any]) -> None:
        document["gateway"] |= {"policies": str(policies), "policies_reload_s": 0.05}

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
