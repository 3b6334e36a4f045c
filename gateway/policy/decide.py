"""Decisions by Cedar policies: default deny, forbid wins, every answer names its policies. Pure.

    permit(principal in Group::"support", action == Action::"connect", resource == Target::"shop");

Principals are `User::"<issuer>|<subject>"`, members of `Group::"<group>"` for each of the
token's groups. Actions are `connect`, `replicate` and `execute`; `prepare` is asked as `execute`.
The context of `execute` has `kind` (String) and `kinds` (Set<String>), that of `replicate` has
`replication` ("true" or "database"), that of all has `name`, `actor_type` and `application`.
Annotations `@id`, `@message` and `@how_to_ask` name a policy and speak to the person it refuses.
"""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import cedarpy

from gateway.identity.principal import Principal
from gateway.machine import Decision, Request, Verdict
from gateway.policy import sql

NO_POLICY: Final = "no policy permits this"
_ASK: Final = "Ask the owner of the target to add a policy that permits it."


class PolicyError(Exception):
    """A policy set that cannot be used. Says which file, and why."""


@dataclass(frozen=True, slots=True)
class _Words:
    message: str
    how_to_ask: str


class Policies:
    """One parsed policy set. `digest` is the SHA-256 of its files, hexadecimal."""

    _REMEMBERED = 50_000

    def __init__(self, files: Iterable[tuple[str, str]]) -> None:
        """From (file name, text) pairs. Raises PolicyError."""
        ordered = sorted(files)
        digest = hashlib.sha256()
        texts = []
        for name, text in ordered:
            try:
                cedarpy.PolicySet.from_str(text)
            except ValueError as error:
                raise PolicyError(f"{name}: {error}") from None
            digest.update(f"{name}\0{len(text)}\0{text}".encode())
            texts.append(text)
        self.digest = digest.hexdigest()
        whole = "\n".join(texts)
        try:
            self._set = cedarpy.PolicySet.from_str(whole)
            document = json.loads(cedarpy.policies_to_json_str(whole))
        except ValueError as error:
            raise PolicyError(str(error)) from None
        self._words: dict[str, _Words] = {}
        seen: set[str] = set()
        for policy in document.get("staticPolicies", {}).values():
            notes = policy.get("annotations") or {}
            policy_id = str(notes.get("id") or "")
            if not policy_id or policy_id in seen:
                raise PolicyError(
                    f"every policy needs an @id of its own; see {policy_id or 'one without'}"
                )
            seen.add(policy_id)
            self._words[policy_id] = _Words(notes.get("message", ""), notes.get("how_to_ask", ""))
        self._known: OrderedDict[tuple[Any, ...], Decision] = OrderedDict()

    def connect(
        self, principal: Principal, target: str, application: str, replication: str = ""
    ) -> Decision:
        """May this person reach this target at all? And replicate from it, if that is asked?"""
        context = {"application": application}
        decision = self._ask(principal, "connect", target, context)
        if not replication or decision.verdict is not Verdict.ALLOW:
            return decision
        # An action of its own: who may connect may not therefore read everything there is.
        further = self._ask(principal, "replicate", target, {**context, "replication": replication})
        if further.verdict is not Verdict.ALLOW:
            return further
        return Decision(Verdict.ALLOW, (*decision.policies, *further.policies), "")

    def execute(
        self, principal: Principal, target: str, application: str, request: Request
    ) -> Decision:
        """May this person run this statement there?"""
        if request.kind == sql.UNPARSEABLE:
            # A parser's message quotes what was typed, and a reason is recorded in clear.
            return Decision(Verdict.DENY, (), "the statement is not understood")
        if request.refusal:
            return Decision(Verdict.DENY, (), request.refusal)
        if request.kind == sql.EMPTY:
            return Decision(Verdict.ALLOW, (), "an empty statement does nothing")
        context = {
            "application": application,
            "kind": request.kind,
            "kinds": request.kinds,
        }
        return self._ask(principal, "execute", target, context)

    def _ask(
        self, principal: Principal, action: str, target: str, context: dict[str, Any]
    ) -> Decision:
        key = (
            principal.issuer,
            principal.subject,
            principal.name,
            principal.actor_type,
            principal.groups,
            action,
            target,
            *context.values(),
        )
        known = self._known.get(key)
        if known is None:
            known = self._evaluate(principal, action, target, context)
            self._known[key] = known
            if len(self._known) > self._REMEMBERED:
                self._known.popitem(last=False)
        return known

    def _evaluate(
        self, principal: Principal, action: str, target: str, context: dict[str, Any]
    ) -> Decision:
        user = {"type": "User", "id": f"{principal.issuer}|{principal.subject}"}
        groups = [{"type": "Group", "id": group} for group in principal.groups]
        entities = [{"uid": user, "attrs": {}, "parents": groups}] + [
            {"uid": group, "attrs": {}, "parents": []} for group in groups
        ]
        values = {k: sorted(v) if isinstance(v, frozenset) else v for k, v in context.items()}
        request = {
            "principal": user,
            "action": {"type": "Action", "id": action},
            "resource": {"type": "Target", "id": target},
            "context": {
                **values,
                "name": principal.name,
                "actor_type": principal.actor_type,
            },
        }
        result = cedarpy.is_authorized(request, self._set, entities)
        names = tuple(sorted(self._name(reason, result) for reason in result.diagnostics.reasons))
        if result.diagnostics.errors:
            # A policy that fails to evaluate might have been the one that forbids.
            return Decision(Verdict.DENY, names, "a policy could not be evaluated")
        if result.allowed:
            return Decision(Verdict.ALLOW, names, "")
        said = [self._words[name] for name in names if name in self._words]
        reason = "; ".join(words.message for words in said if words.message)
        hint = "; ".join(words.how_to_ask for words in said if words.how_to_ask)
        if not names:
            return Decision(Verdict.DENY, (), NO_POLICY, _ASK)
        return Decision(
            Verdict.DENY, names, reason or f"forbidden by {', '.join(names)}", hint or _ASK
        )

    @staticmethod
    def _name(reason: str, result: Any) -> str:
        return str(result.diagnostics.id_annotations_by_reason.get(reason, reason))


class NoPolicies:
    """Stands in for a set that cannot be read: everything is denied. Why is for operators' logs."""

    digest = ""

    def connect(
        self, principal: Principal, target: str, application: str, replication: str = ""
    ) -> Decision:
        """Denied."""
        return self._deny()

    def execute(
        self, principal: Principal, target: str, application: str, request: Request
    ) -> Decision:
        """Denied."""
        return self._deny()

    def _deny(self) -> Decision:
        return Decision(
            Verdict.DENY,
            (),
            "the policies cannot be read",
            "An operator must mend the policy files.",
        )
