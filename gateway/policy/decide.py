"""Decisions by Cedar policies: default deny, forbid wins, every answer names its policies. Pure.

    permit(principal in Group::"support", action == Action::"connect", resource == Target::"shop");

What policies may name is in `gatebook.cedarschema`. A statement is asked for its target as a
whole and, where the policies speak of tables, columns or functions, for each of those it touches.
It needs a permit for the target, or one for every table; a forbid on any of them refuses it.
Annotations `@id`, `@message` and `@how_to_ask` name a policy and speak to the person it refuses;
only a permit with `@unknown("permitted")` lets pass what the analysis did not understand.
`@max_rows` limits what may be returned: see gateway.policy.row_limits.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

import cedarpy
import msgspec

from gateway.identity.principal import Principal
from gateway.machine import Decision, Limit, Request, Verdict
from gateway.policy import row_limits, schema, sql
from gateway.policy.catalog import name_of, parts_of
from gateway.policy.estimating import ATTRIBUTE as ESTIMATE
from gateway.policy.facts import RISKS, Facts
from gateway.policy.remembered import Remembered
from gateway.policy.scopes import Scopes

NO_POLICY: Final = "no policy permits this"
NOT_UNDERSTOOD: Final = "the statement is not fully understood"
MAY_NOT_CLASSIFY: Final = "no policy permits changing what is classified"
NEEDS_APPROVAL: Final = "this needs an approval, and approvals are not available yet"
_ASK: Final = "Ask the owner of the target to add a policy that permits it."
_FEWER: Final = "Add a LIMIT, or ask the owner of the target for a rule that permits more."
_UNTIL_THEN: Final = "Until then, ask for a rule that permits it without one."
_BROKEN: Final = "a policy could not be evaluated"
BY_POLICY: Final = frozenset(
    {NO_POLICY, NOT_UNDERSTOOD, MAY_NOT_CLASSIFY, NEEDS_APPROVAL, _BROKEN, ""}
)
"""Reasons of refusals that other policies might not give."""
_DAY_S: Final = 86_400
_WEEKDAYS: Final = (
    "thursday", "friday", "saturday", "sunday", "monday", "tuesday", "wednesday",
)  # fmt: skip
_PARTS: Final = frozenset({"Schema", "Table", "Column", "Function"})
_CONTEXT: Final = {"Var": "context"}
# What of a statement's context is made of which facts.
_FACTS: Final[dict[str, tuple[str, ...]]] = {
    **{
        name: (name,)
        for name in (
            "columns_read", "columns_written", "ddl", "files", "functions", "has_limit",
            "has_where", "limit", "links", "risk", "tables_read", "tables_written",
        )
    },
    "access": ("tables_read", "tables_written"),
    "risk_level": ("risk",),
}  # fmt: skip
# Facts that are for others than the policies.
_NEVER_ASKED: Final = frozenset(
    {"executes", "opaque", "outputs", "references", "risks", "temporary", "uncertain", "unsettles",
     "views"}
)  # fmt: skip
# A permit for the tables of a statement does not permit these.
_BEYOND_TABLES: Final = frozenset({"role", "extension", "system"})


class PolicyError(ValueError):
    """A policy set that cannot be used. Says which file, and why."""


class Moment(msgspec.Struct, frozen=True):
    """From where and when something is asked. `now_s` is Unix time; what is not known is absent
    from the context, so that a rule that needs it denies.
    """

    client_address: str = ""
    now_s: float | None = None


_SOMETIME: Final = Moment()


@dataclass(frozen=True, slots=True)
class Rule:
    """What a policy says of itself, beside its conditions."""

    message: str
    how_to_ask: str
    unknown: bool
    max_rows: int = 0


@dataclass(frozen=True, slots=True)
class _Mentions:
    """What a policy set speaks of, so that nothing else need be asked or told apart."""

    parts: frozenset[str]
    schemas: frozenset[str]
    time: bool
    age: bool
    context: frozenset[str] | None
    """Names of the context's attributes; None where all of it is compared."""

    def facts(self) -> tuple[str, ...]:
        """The fields of Facts that a decision may depend on: all that are not known not to be."""
        named = _FACTS.keys() if self.context is None else self.context & _FACTS.keys()
        asked = {field for name in named for field in _FACTS[name]}
        if self.parts:
            asked |= {"tables_read", "tables_written", "ddl", "files", "links"}
        if "Column" in self.parts:
            asked |= {"columns_read", "columns_written"}
        if "Function" in self.parts or self.schemas:
            asked.add("functions")
        left_out = _NEVER_ASKED | ({f for fields in _FACTS.values() for f in fields} - asked)
        return tuple(field for field in Facts.__struct_fields__ if field not in left_out)


@dataclass(frozen=True, slots=True)
class _Answer:
    """Cedar's answer for one resource."""

    allowed: bool
    names: tuple[str, ...]
    broken: bool

    @property
    def refused(self) -> bool:
        """Whether a rule forbids it, or might have."""
        return self.broken or (not self.allowed and bool(self.names))


class Policies:
    """One parsed policy set. `digest` is the SHA-256 of its files, hexadecimal."""

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
            parsed = cedarpy.PolicySet.from_str(whole)
            document = json.loads(cedarpy.policies_to_json_str(whole))
        except ValueError as error:
            raise PolicyError(str(error)) from None
        self.rules: dict[str, Rule] = {}
        seen: set[str] = set()
        for policy in document.get("staticPolicies", {}).values():
            notes = policy.get("annotations") or {}
            policy_id = str(notes.get("id") or "")
            if not policy_id or policy_id in seen:
                raise PolicyError(
                    f"every policy needs an @id of its own; see {policy_id or 'one without'}"
                )
            seen.add(policy_id)
            wrong = row_limits.problem(policy)
            if wrong:
                raise PolicyError(f"{policy_id}: {wrong}")
            self.rules[policy_id] = Rule(
                notes.get("message") or "",
                notes.get("how_to_ask") or "",
                notes.get("unknown") == "permitted",
                row_limits.limit_of(policy),
            )
        self._limits = any(rule.max_rows for rule in self.rules.values())
        self._mentions = _mentions(document)
        self.scopes = Scopes(parsed, document)
        self._known = Remembered()
        self._fields = self._mentions.facts()
        self._alike = Remembered()

    def connect(
        self,
        principal: Principal,
        target: str,
        application: str,
        replication: str = "",
        moment: Moment = _SOMETIME,
    ) -> Decision:
        """May this person reach this target at all? And replicate from it, if that is asked?"""
        asked = _Asked(self, principal, target, application, moment)
        decision = self._visit(asked, "connect", {})
        if not replication or decision.verdict is not Verdict.ALLOW:
            return decision
        # An action of its own: who may connect may not therefore read everything there is.
        further = self._visit(asked, "replicate", {"replication": replication})
        if further.verdict is not Verdict.ALLOW:
            return further
        return Decision(Verdict.ALLOW, (*decision.policies, *further.policies), "")

    def _visit(self, asked: _Asked, action: str, more: dict[str, str]) -> Decision:
        # Once a session: not worth remembering.
        (answer,) = asked.ask(action, [asked.target()], more)
        return self._decision(answer)

    def execute(
        self,
        principal: Principal,
        target: str,
        application: str,
        request: Request,
        moment: Moment = _SOMETIME,
    ) -> Decision:
        """May this person run this statement there?"""
        if request.kind == sql.UNPARSEABLE:
            # A parser's message quotes what was typed, and a reason is recorded in clear.
            return Decision(Verdict.DENY, (), "the statement is not understood")
        if request.refusal:
            return Decision(Verdict.DENY, (), request.refusal)
        if request.kind == sql.EMPTY:
            return Decision(Verdict.ALLOW, (), "an empty statement does nothing")
        key = (
            *self._key(principal, "execute", target, application, moment),
            request.kind,
            request.kinds,
            request.row_estimate if self.asks_estimates else -1,
            request.facts,
        )
        known = self._known.get(key)
        if known is None:
            # Facts that differ in nothing the policies speak of are decided alike.
            facts = request.facts
            decisive = tuple([getattr(facts, field) for field in self._fields])
            alike = (*key[:-1], *decisive)
            known, size = self._alike.get(alike), facts.cost()
            if known is None:
                asked = _Asked(self, principal, target, application, moment)
                # Without the others, so that nothing can depend on them.
                seen = Facts(**dict(zip(self._fields, decisive, strict=True)))
                known = self._judge(asked, request, seen)
                self._alike.keep(alike, known, size)
            self._known.keep(key, known, size)
        if request.unmasked and known.verdict is Verdict.ALLOW:
            return Decision(Verdict.DENY, (), request.unmasked)
        limit = known.limit
        if request.uncounted and limit is not None:
            reason = f"{limit.reason}; {request.uncounted}"
            return Decision(Verdict.DENY, limit.policies, reason, limit.hint)
        return known

    def see_clear(
        self,
        principal: Principal,
        target: str,
        application: str,
        columns: Iterable[str],
        moment: Moment = _SOMETIME,
    ) -> frozenset[str]:
        """Those of the columns (`schema.table.column`) this person may see unmasked."""
        asked = _Asked(self, principal, target, application, moment)
        given = list(columns)
        answers = asked.ask("see_clear", [asked.column(name) for name in given], {})
        return frozenset(
            name
            for name, answer in zip(given, answers, strict=True)
            if answer.allowed and not answer.broken
        )

    def _key(
        self, principal: Principal, action: str, target: str, application: str, moment: Moment
    ) -> tuple[Any, ...]:
        """Everything an answer may depend on. What no policy speaks of is left out."""
        return (
            principal.issuer,
            principal.subject,
            principal.name,
            principal.agent,
            principal.actor_type,
            principal.groups,
            action,
            target,
            application,
            moment.client_address,
            *self.passing(principal, moment.now_s),
        )

    def passing(self, principal: Principal, now_s: float | None) -> tuple[float | None, int | None]:
        """What of the time an answer depends on: it holds as long as this stays the same."""
        mentions = self._mentions
        return (
            now_s // 60 if mentions.time and now_s is not None else None,
            _age(principal, now_s) if mentions.age else None,
        )

    def _judge(self, asked: _Asked, request: Request, facts: Facts) -> Decision:
        context = _context(request, facts)
        if self._mentions.context is not None:
            context = {name: context[name] for name in self._mentions.context & context.keys()}
        allowed = self._permitted(asked, "execute", facts, context)
        if allowed.refused:
            return self._decision(allowed)
        if not allowed.allowed:
            # Nothing forbids it, and nothing permits it.
            held = self._permitted(asked, "execute_with_approval", facts, context)
            if held.allowed and not held.broken and self._understood(facts, held):
                return Decision(Verdict.HOLD, held.names, NEEDS_APPROVAL, _UNTIL_THEN)
            return self._decision(allowed)
        if not self._understood(facts, allowed):
            shown = "; ".join(sorted(facts.unknown)[:5])
            return Decision(Verdict.DENY, (), NOT_UNDERSTOOD, f"Not understood: {shown}.")
        return self._classifying(asked, facts) or (
            self._limited(asked, facts, context, allowed)
            if self._limits
            else self._decision(allowed)
        )

    def _classifying(self, asked: _Asked, facts: Facts) -> Decision | None:
        """Why it may not change what is classified; an action of its own, for every column."""
        columns = [asked.column(name) for name in sorted(facts.classifies)]
        answers = asked.ask("classify", columns, {})
        refused = [answer for answer in answers if not answer.allowed or answer.broken]
        if not refused:
            return None
        worst = max(refused, key=lambda answer: (answer.broken, bool(answer.names)))
        if worst.names or worst.broken:
            return self._decision(worst)
        return Decision(Verdict.DENY, (), MAY_NOT_CLASSIFY, _ASK)

    def _limited(
        self, asked: _Asked, facts: Facts, context: dict[str, Any], allowed: _Answer
    ) -> Decision:
        """What is permitted, within the smallest limit that a rule about it states."""
        answers = asked.ask(row_limits.UNLIMITED, [asked.target()], context)
        if self._mentions.parts:
            answers += self._parts(asked, row_limits.UNLIMITED, facts, context)
        refused = [answer for answer in answers if answer.refused]
        forbidding = {name for answer in refused for name in answer.names}
        # A rule that fails might have been the smallest; one without a number allows not even one.
        broken = any(answer.broken for answer in refused)
        if broken or not all(self._rows(name) for name in forbidding):
            return self._decision(_Answer(False, tuple(sorted(forbidding)), broken))
        stated = {n: self._rows(n) for n in forbidding | set(allowed.names) if self._rows(n)}
        if not stated:
            return self._decision(allowed)
        rows = min(stated.values())
        names = tuple(sorted(name for name, number in stated.items() if number == rows))
        said = [self.rules[name] for name in names]
        limit = Limit(
            rows,
            names,
            "; ".join(rule.message for rule in said if rule.message)
            or f"a statement returns at most {rows} rows",
            "; ".join(rule.how_to_ask for rule in said if rule.how_to_ask) or _FEWER,
        )
        policies = tuple(sorted({*allowed.names, *names}))
        return Decision(Verdict.ALLOW, policies, "", limit=limit)

    def _rows(self, name: str) -> int:
        rule = self.rules.get(name)
        return rule.max_rows if rule is not None else 0

    def _permitted(
        self, asked: _Asked, action: str, facts: Facts, context: dict[str, Any]
    ) -> _Answer:
        """Permitted for the target or for every table, and forbidden for nothing."""
        (whole,) = asked.ask(action, [asked.target()], context)
        if whole.refused or not self._mentions.parts:
            return whole
        answers = self._parts(asked, action, facts, context)
        refused = [answer for answer in answers if answer.refused]
        if refused:
            names = {name for answer in refused for name in answer.names}
            broken = any(answer.broken for answer in refused)
            return _Answer(False, tuple(sorted(names)), broken)
        if whole.allowed:
            return whole
        tables = answers[: len(facts.tables_read | facts.tables_written)]
        beyond = facts.files or facts.links or facts.ddl & _BEYOND_TABLES
        if beyond or not tables or not all(answer.allowed for answer in tables):
            return whole
        return _Answer(True, tuple(sorted({n for answer in tables for n in answer.names})), False)

    def _understood(self, facts: Facts, answer: _Answer) -> bool:
        if not facts.unknown:
            return True
        rules = (self.rules.get(name) for name in answer.names)
        return any(rule is not None and rule.unknown for rule in rules)

    def _parts(
        self, asked: _Asked, action: str, facts: Facts, context: dict[str, Any]
    ) -> list[_Answer]:
        """Answers for each table the statement touches, then for columns and functions."""
        owners = dict(facts.owners)
        resources, contexts = [], []
        for name in sorted(facts.tables_read | facts.tables_written):
            resources.append(asked.table(name, owners.get(name, "")))
            contexts.append(_access(name, facts.tables_read, facts.tables_written))
        if "Column" in self._mentions.parts:
            for name in sorted(facts.columns_read | facts.columns_written):
                resources.append(asked.column(name))
                contexts.append(_access(name, facts.columns_read, facts.columns_written))
        every = "Function" in self._mentions.parts
        for name in sorted(facts.functions):
            # A rule about a schema is about its functions, too.
            if every or asked.schema_of(name) in self._mentions.schemas:
                resources.append(asked.function(name))
                contexts.append(["execute"])
        return asked.ask(action, resources, context, contexts)

    @property
    def asks_estimates(self) -> bool:
        """Whether an answer may depend on how many rows are expected."""
        context = self._mentions.context
        return context is None or ESTIMATE in context

    @property
    def speaks_of_time(self) -> bool:
        """Whether an answer may depend on when it is given."""
        return self._mentions.time

    def _decision(self, answer: _Answer) -> Decision:
        names = answer.names
        if answer.broken:
            # A policy that fails to evaluate might have been the one that forbids.
            return Decision(Verdict.DENY, names, _BROKEN)
        if answer.allowed:
            return Decision(Verdict.ALLOW, names, "")
        said = [self.rules[name] for name in names if name in self.rules]
        reason = "; ".join(words.message for words in said if words.message)
        hint = "; ".join(words.how_to_ask for words in said if words.how_to_ask)
        if not names:
            return Decision(Verdict.DENY, (), NO_POLICY, _ASK)
        return Decision(
            Verdict.DENY, names, reason or f"forbidden by {', '.join(names)}", hint or _ASK
        )


class _Asked:
    """Who asks, from where: what is the same for every resource of one question."""

    def __init__(
        self,
        policies: Policies,
        principal: Principal,
        target: str,
        application: str,
        moment: Moment,
    ) -> None:
        self._name = target
        groups = [{"type": "Group", "id": group} for group in principal.groups]
        about = {
            "name": principal.name,
            "groups": list(principal.groups),
            "actor_type": principal.actor_type,
        }
        user = {"type": "User", "id": f"{principal.issuer}|{principal.subject}"}
        self._entities: list[dict[str, Any]] = [
            {"uid": user, "attrs": about, "parents": groups},
            *({"uid": group, "attrs": {}, "parents": []} for group in groups),
        ]
        self._principal = user
        if principal.agent:
            self._principal = {"type": "Agent", "id": f"{principal.issuer}|{principal.agent}"}
            self._entities.append({"uid": self._principal, "attrs": about, "parents": [user]})
        self._context: dict[str, Any] = {
            "application": application,
            "name": principal.name,
            "actor_type": principal.actor_type,
        }
        if moment.now_s is not None:
            self._context["time"] = _time(moment.now_s)
        address = _address(moment.client_address)
        if address:
            self._context["client_address"] = {"__extn": {"fn": "ip", "arg": address}}
        age = _age(principal, moment.now_s)
        if age is not None:
            self._context["sign_in_age_s"] = age
        self._added: set[tuple[str, str]] = set()
        uids = [self._principal, *(entity["uid"] for entity in self._entities)]
        self._scopes = policies.scopes
        self._principals = frozenset((uid["type"], uid["id"]) for uid in uids)

    def target(self) -> dict[str, str]:
        """The target as a resource."""
        return self._entity("Target", self._name, None)

    def table(self, full: str, owner: str) -> dict[str, str]:
        """A table, in its schema where it is known in which one."""
        parts = parts_of(full)
        parent = self.target()
        if len(parts) > 1:
            parent = self._entity("Schema", name_of(self._name, parts[0]), parent)
        about = {"name": parts[-1], "schema": parts[0] if len(parts) > 1 else "", "owner": owner}
        return self._entity("Table", name_of(self._name, *parts), parent, about)

    def column(self, full: str) -> dict[str, str]:
        """A column, in its table."""
        parts = parts_of(full)
        table = self.table(name_of(*parts[:-1]), "")
        return self._entity("Column", name_of(self._name, *parts), table)

    def schema_of(self, full: str) -> str:
        """The id of the schema that a function is in."""
        return name_of(self._name, parts_of(full)[0])

    def function(self, full: str) -> dict[str, str]:
        """A function, in its schema."""
        parts = parts_of(full)
        parent = self._entity("Schema", name_of(self._name, parts[0]), self.target())
        return self._entity("Function", name_of(self._name, *parts), parent)

    def _entity(
        self,
        kind: str,
        name: str,
        parent: dict[str, str] | None,
        about: dict[str, str] | None = None,
    ) -> dict[str, str]:
        uid = {"type": kind, "id": name}
        if (kind, name) not in self._added:
            self._added.add((kind, name))
            parents = [] if parent is None else [parent]
            self._entities.append({"uid": uid, "attrs": about or {}, "parents": parents})
        return uid

    def ask(
        self,
        action: str,
        resources: list[dict[str, str]],
        context: dict[str, Any],
        access: list[list[str]] | None = None,
    ) -> list[_Answer]:
        """Cedar's answer for each resource; `access` is what is done to it."""
        shared = {**self._context, **context}
        requests = [
            {
                "principal": self._principal,
                "action": {"type": "Action", "id": action},
                "resource": resource,
                "context": shared if access is None else {**shared, "access": access[index]},
            }
            for index, resource in enumerate(resources)
        ]
        if not requests:
            return []
        concerned = self._scopes.concerning(self._principals, self._name, action)
        # What is true of one resource counts for all of them.
        given = shared if access is None else {**shared, "access": sorted({*chain(*access)})}
        parts = [
            cedarpy.is_authorized_batch(requests, one, self._entities)
            for one in concerned.sets(self._principal["type"], given)
        ]
        return [_answer(results) for results in zip(*parts, strict=True)]


def _answer(results: tuple[Any, ...]) -> _Answer:
    """Cedar's answer of all policies, from those of parts of them: what forbids goes before what
    permits, and is named alone.
    """
    names: dict[bool, set[str]] = {True: set(), False: set()}
    for result in results:
        reasons, noted = result.diagnostics.reasons, result.diagnostics.id_annotations_by_reason
        names[bool(result.allowed)].update(str(noted.get(reason, reason)) for reason in reasons)
    broken = any(result.diagnostics.errors for result in results)
    allowed = bool(names[True]) and not names[False]
    return _Answer(allowed, tuple(sorted(names[allowed])), broken)


def _context(request: Request, facts: Facts) -> dict[str, Any]:
    access = [
        *(["read"] if facts.tables_read else []),
        *(["write"] if facts.tables_written else []),
    ]
    context: dict[str, Any] = {
        "kind": request.kind,
        "kinds": sorted(request.kinds | facts.kinds),
        "tables_read": sorted(facts.tables_read),
        "tables_written": sorted(facts.tables_written),
        "columns_read": sorted(facts.columns_read),
        "columns_written": sorted(facts.columns_written),
        "functions": sorted(facts.functions),
        "access": access,
        "has_where": facts.has_where,
        "has_limit": facts.has_limit,
        "ddl": sorted(facts.ddl),
        "files": sorted(facts.files),
        "links": sorted(facts.links),
        "risk": facts.risk,
        "risk_level": RISKS.index(facts.risk),
        "unknown": sorted(facts.unknown),
    }
    if facts.limit >= 0:
        context["limit"] = facts.limit
    if request.row_estimate >= 0:
        context[ESTIMATE] = request.row_estimate
    return context


def _access(name: str, read: frozenset[str], written: frozenset[str]) -> list[str]:
    return [*(["read"] if name in read else []), *(["write"] if name in written else [])]


def _time(now_s: float) -> dict[str, Any]:
    days, seconds = divmod(int(now_s), _DAY_S)
    return {
        "hour": seconds // 3600,
        "minute": seconds // 60,
        "weekday": _WEEKDAYS[days % 7],
    }


def _age(principal: Principal, now_s: float | None) -> int | None:
    if principal.signed_in_at is None or now_s is None:
        return None
    # A clock that jumped back makes nobody's sign-in younger than now.
    return max(0, int(now_s - principal.signed_in_at))


def _address(given: str) -> str:
    """As Cedar reads addresses; empty where it is none."""
    try:
        address = ipaddress.ip_address(given.partition("%")[0])
    except ValueError:
        return ""
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)


def _mentions(document: dict[str, Any]) -> _Mentions:
    """Read from Cedar's JSON form of the policies."""
    parts: set[str] = set()
    schemas: set[str] = set()
    attributes: set[str] = set()
    everything = False
    ahead: list[Any] = [document.get("staticPolicies", {}), document.get("templates", {})]
    while ahead:
        one = ahead.pop()
        if isinstance(one, list):
            ahead += one
            continue
        if not isinstance(one, dict):
            continue
        kind = one.get("type") or one.get("entity_type")
        if isinstance(kind, str) and kind in _PARTS:
            parts.add(kind)
            if kind == "Schema":
                schemas.add(str(one.get("id", "")))
        if one == _CONTEXT:
            # The whole of it is compared with something.
            everything = True
        for key in (".", "has"):
            access = one.get(key)
            if isinstance(access, dict) and isinstance(access.get("attr"), str):
                left = access.get("left")
                attributes.add(access["attr"])
                if left == {"Var": "resource"}:
                    parts.add("Table")
                if left == _CONTEXT:
                    one = {**one, key: access["attr"]}
        ahead += one.values()
    if "access" in attributes:
        parts.add("Table")
    if everything:
        return _Mentions(_PARTS, frozenset(schemas), time=True, age=True, context=None)
    return _Mentions(
        frozenset(parts),
        frozenset(schemas),
        time=bool(attributes & {"time", "hour", "minute", "weekday"}),
        age="sign_in_age_s" in attributes,
        context=frozenset(attributes),
    )


def checked(files: Iterable[tuple[str, str]]) -> Policies:
    """`Policies` whose names and types are right by the schema. Raises PolicyError."""
    given = sorted(files)
    for name, text in given:
        try:
            found = schema.problems(text)
        except ValueError as error:
            raise PolicyError(f"{name}: {error}") from None
        if found:
            raise PolicyError(f"{name}: {'; '.join(found[:5])}")
    return Policies(given)


class NoPolicies:
    """Stands in for a set that cannot be read: everything is denied. Why is for operators' logs."""

    digest = ""
    rules: Final[dict[str, Rule]] = {}
    asks_estimates = False

    def connect(
        self,
        principal: Principal,
        target: str,
        application: str,
        replication: str = "",
        moment: Moment = _SOMETIME,
    ) -> Decision:
        """Denied."""
        return self._deny()

    def execute(
        self,
        principal: Principal,
        target: str,
        application: str,
        request: Request,
        moment: Moment = _SOMETIME,
    ) -> Decision:
        """Denied."""
        return self._deny()

    def see_clear(
        self,
        principal: Principal,
        target: str,
        application: str,
        columns: Iterable[str],
        moment: Moment = _SOMETIME,
    ) -> frozenset[str]:
        """None."""
        return frozenset()

    def passing(self, principal: Principal, now_s: float | None) -> tuple[float | None, int | None]:
        """Nothing."""
        return None, None

    def _deny(self) -> Decision:
        return Decision(
            Verdict.DENY,
            (),
            "the policies cannot be read",
            "An operator must mend the policy files.",
        )
