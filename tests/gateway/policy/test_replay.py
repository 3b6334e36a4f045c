"""The history decided again."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from gateway.policy.cases import snapshot
from gateway.policy.decide import NOT_UNDERSTOOD, Policies
from gateway.policy.replay import Outcome, Past, Replay
from gateway.policy.resolve import Resolver

CATALOG = {"shop": Resolver(snapshot({"tables": {"public.orders": {"columns": ["id"]}}}))}
STAFF = '@id("staff") permit (principal in Group::"staff", action, resource == Target::"shop");'
LIMIT = (
    '@id("limit") @message("say LIMIT") forbid (principal, action == Action::"execute", resource)'
    " when { !context.has_limit };"
)
NIGHT = (
    '@id("day") permit (principal, action, resource) when { context.time.hour >= 6 };'
).replace("action,", 'action == Action::"execute",')
PAST = Past(
    "https://i", "s", "alice", ("staff",), "", "person", "psql", "::ffff:10.0.0.1", "shop",
    "execute", "select * from orders", -1, "ALLOW", ("staff",), "", 1,
)  # fmt: skip


def policies(*texts: str) -> Policies:
    return Policies([("p.cedar", "\n".join(texts))])


@pytest.mark.parametrize(
    ("change", "outcome"),
    [
        ({}, Outcome.REFUSED),
        ({"statement": "select * from orders limit 1"}, Outcome.SAME),
        ({"decision": "DENY", "policies": ("x",), "reason": "no"}, Outcome.SAME),
        (
            {"statement": "select 1 limit 1", "decision": "DENY", "policies": ("x",)},
            Outcome.PERMITTED,
        ),
        (
            {"statement": "select 1 limit 1", "decision": "DENY", "policies": (),
             "reason": NOT_UNDERSTOOD},
            Outcome.PERMITTED,
        ),
        (
            {"statement": "select 1 limit 1", "decision": "DENY", "policies": (),
             "reason": "this protocol message is not supported"},
            Outcome.NOT_BY_POLICY,
        ),
        ({"action": "connect", "statement": ""}, Outcome.SAME),
        ({"action": "connect", "statement": "", "groups": ()}, Outcome.ALREADY),
        ({"target": "crm"}, Outcome.ALREADY),
        # Made by the session, which is not repeated: refused by those in force, too.
        ({"statement": "select * from made_before limit 1"}, Outcome.ALREADY),
        # Masked numbers, as the history shows them: any number will do.
        ({"statement": "select * from orders where id = *** limit 1"}, Outcome.SAME),
        ({"statement": "select * from orders where id=************1111 limit 1"}, Outcome.SAME),
        ({"statement": "select '***', *** from orders"}, Outcome.REFUSED),
        # Cut off, or masked where no number was. What still reads is taken at its word.
        ({"statement": "select * from orders li"}, Outcome.REFUSED),
        ({"statement": "select * from orders where id = (sel"}, Outcome.UNREADABLE),
        ({"statement": "select * from orders limit 1 where ***"}, Outcome.UNREADABLE),
        ({"statement": "alter role x password '<redacted>'"}, Outcome.REFUSED),
        ({"statement": "alter rol <redacted>"}, Outcome.UNREADABLE),
        ({"statement": "alter rol <redacted>", "decision": "DENY"}, Outcome.SAME),
    ],
)  # fmt: skip
def test_what_becomes_of_it(change: dict[str, Any], outcome: Outcome) -> None:
    replay = Replay(policies(STAFF, LIMIT), policies(STAFF), CATALOG)
    assert replay.again(msgspec.structs.replace(PAST, **change)).outcome is outcome


def test_without_the_policies_in_force_all_is_these_policies_doing() -> None:
    replay = Replay(policies(STAFF), None, {})
    assert replay.again(PAST).outcome is Outcome.REFUSED


def test_a_rule_about_time_is_asked_about_the_time_it_was() -> None:
    by_day = policies(NIGHT)
    assert by_day.speaks_of_time and not policies(STAFF).speaks_of_time
    replay = Replay(by_day, None, CATALOG)
    at = {hour: msgspec.structs.replace(PAST, minute=hour * 60) for hour in (3, 9)}
    assert replay.again(at[3]).outcome is Outcome.REFUSED
    assert replay.again(at[9]).outcome is Outcome.SAME
