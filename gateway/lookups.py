"""How many values each person has looked up in columns that they may not see.

Kept in memory, per gateway node: a restart forgets it, and each node counts for itself.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterable
from typing import Final

import msgspec

from gateway.machine import Decision, Verdict
from gateway.masking.probes import Tried, beyond

_HOUR_S: Final = 3600.0
_DIGEST_BYTES: Final = 16
_AGAIN: Final = "What was looked up in the last hour can be looked up again."

_Person = tuple[str, str, str]


class Lookups:
    """Values are known by a keyed hash alone. `key` is of this process, and of nothing else: what
    is remembered tells nobody what was tried.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key
        # Of (issuer, subject, target, column): when each value was last tried, oldest first.
        self._tried: OrderedDict[tuple[str, str, str, str], OrderedDict[bytes, float]]
        self._tried = OrderedDict()

    def judge(
        self, decision: Decision, person: _Person, tried: Iterable[Tried], now: float
    ) -> Decision:
        """`decision`, with the reasons for comparing in clear; or a refusal, where one of `person`
        (issuer, subject, target) would try more values than a column's budget.
        """
        self._forget(now)
        asked: dict[str, set[bytes]] = {}
        budgets: dict[str, Tried] = {}
        for each in tried:
            asked.setdefault(each.origin, set()).add(self._digest(each.value))
            budgets[each.origin] = each
        known = {column: self._recent((*person, column), now) for column in asked}
        for column, digests in asked.items():
            budget = budgets[column].budget
            if len(known[column].keys() | digests) > budget:
                return Decision(
                    Verdict.DENY,
                    decision.policies,
                    beyond(column, budget),
                    _AGAIN,
                )
        for column, digests in asked.items():
            for digest in digests:
                known[column][digest] = now
                known[column].move_to_end(digest)
            self._tried[*person, column] = known[column]
            self._tried.move_to_end((*person, column))
        reasons = [f"{name} is compared in clear: {budgets[name].reason}" for name in sorted(asked)]
        return msgspec.structs.replace(decision, reason="; ".join(reasons))

    def _digest(self, value: bytes) -> bytes:
        return hashlib.blake2b(value, key=self._key, digest_size=_DIGEST_BYTES).digest()

    def _recent(self, key: tuple[str, str, str, str], now: float) -> OrderedDict[bytes, float]:
        values = self._tried.get(key, OrderedDict())
        while values and now - next(iter(values.values())) >= _HOUR_S:
            values.popitem(last=False)
        return values

    def _forget(self, now: float) -> None:
        """Who has looked nothing up for an hour."""
        while self._tried:
            values = next(iter(self._tried.values()))
            if values and now - next(reversed(values.values())) < _HOUR_S:
                return
            self._tried.popitem(last=False)
