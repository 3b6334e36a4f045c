"""What was asked before, decided again by other policies. Pure.

Each statement is judged by itself: what its session did before it (SET search_path, temporary
tables, PREPARE) is not repeated. To tell the new policies' doing from that, the same is asked of
the policies in force: what they refuse as well is not these policies' doing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from functools import lru_cache
from typing import Final, Literal

import msgspec

from gateway.identity.principal import Principal
from gateway.machine import Decision, Request, Verdict
from gateway.policy.cases import requests
from gateway.policy.catalog import EMPTY
from gateway.policy.decide import BY_POLICY, Moment, Policies
from gateway.policy.resolve import Resolver
from gateway.policy.sql import Analyser, Statement

_REMEMBERED: Final = 50_000
_MINUTE_S: Final = 60
# A masked number: `id = ***`, or with its last digits, which is no SQL any more.
_NUMBER: Final = re.compile(r"""(?<![\w"'*])\*\*[*\d-]*""")
_SOME_NUMBER: Final = "1000"


class Past(msgspec.Struct, frozen=True, array_like=True):
    """Alike requests: by the same person, from the same place, the same words. `minute` is of
    Unix time, -1 where no policy asks for it.
    """

    issuer: str
    subject: str
    name: str
    groups: tuple[str, ...]
    agent: str
    actor_type: Literal["person", "service", "agent"]
    application: str
    address: str
    target: str
    action: str
    statement: str
    minute: int
    decision: str
    policies: tuple[str, ...]
    reason: str
    count: int


class Outcome(StrEnum):
    """What has become of a request."""

    SAME = "as before"
    REFUSED = "would have been refused"
    PERMITTED = "would have been let through"
    ALREADY = "refused by the policies in force, too"
    NOT_BY_POLICY = "refused whatever the policies say"
    UNREADABLE = "not decided: as the history holds it, it cannot be read"


class Again(msgspec.Struct, frozen=True):
    """Decided again."""

    outcome: Outcome
    decision: Decision


_ALLOW: Final = Decision(Verdict.ALLOW, (), "")


class Replay:
    """Decides by `policies` what was decided before; `current` are those in force now."""

    def __init__(
        self, policies: Policies, current: Policies | None, resolvers: Mapping[str, Resolver]
    ) -> None:
        self._policies = policies
        self._current = current
        unknown = Resolver(EMPTY)
        self._analyse = Analyser()
        self._requests = lru_cache(_REMEMBERED)(
            lambda target, text: tuple(
                requests(text, resolvers.get(target, unknown), self._readable)
            )
        )

    def again(self, past: Past) -> Again:
        """What these policies say to it."""
        decision = self._decide(self._policies, past)
        allowed = decision.verdict is Verdict.ALLOW
        if allowed == (past.decision == Verdict.ALLOW.value):
            return Again(Outcome.SAME, decision)
        if past.action != "connect" and any(
            request.refusal for request in self._requests(past.target, past.statement)
        ):
            return Again(Outcome.UNREADABLE, decision)
        if allowed:
            if not past.policies and past.reason not in BY_POLICY:
                return Again(Outcome.NOT_BY_POLICY, decision)
            return Again(Outcome.PERMITTED, decision)
        current = self._current
        if current is not None and self._decide(current, past).verdict is not Verdict.ALLOW:
            return Again(Outcome.ALREADY, decision)
        return Again(Outcome.REFUSED, decision)

    def _readable(self, text: str) -> tuple[Statement, ...]:
        statements = self._analyse(text)
        if any(statement.error for statement in statements) and "**" in text:
            again = self._analyse(_NUMBER.sub(_SOME_NUMBER, text))
            if not any(statement.error for statement in again):
                return again
        return statements

    def _decide(self, policies: Policies, past: Past) -> Decision:
        who = _principal(past)
        now_s = float(past.minute * _MINUTE_S) if past.minute >= 0 else None
        moment = Moment(past.address, now_s)
        if past.action == "connect":
            return policies.connect(who, past.target, past.application, "", moment)
        decision = _ALLOW
        asked: tuple[Request, ...] = self._requests(past.target, past.statement)
        for request in asked:
            decision = policies.execute(who, past.target, past.application, request, moment)
            if decision.verdict is not Verdict.ALLOW:
                break
        return decision


def _principal(past: Past) -> Principal:
    # When they signed in is not in the history: rules about it do not apply.
    return Principal(
        past.issuer,
        past.subject,
        past.name,
        past.groups,
        past.agent or None,
        past.actor_type,
        float("inf"),
    )
