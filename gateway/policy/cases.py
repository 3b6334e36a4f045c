"""Tests of policies as tables: who does what at which catalog, and what is to come of it. Pure.

    tables: {hr.payroll: {columns: [id!, salary], owner: hr}}
    functions: {public.raise: {language: plpgsql, body: "update hr.payroll set salary = 0;"}}
    cases:
      - {as: {groups: [hr]}, do: "select * from hr.payroll", allow: true}
      - {do: "select * from hr.payroll", deny: hr-only}

`deny` names a policy, or is `true`; `hold` is `true`. `message` is part of what the person is
told; `max_rows` how many rows they get at most, 0 for all of them; `row_estimate` how many the
planner is taken to expect. In place of `do`,
`connect: true` signs in and `see_clear: [hr.payroll.salary]` asks for all of these columns.
Functions that are not listed are taken for PostgreSQL's own. What is permitted besides is for the
caller to say.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, Final

import msgspec

from gateway.identity.principal import Principal
from gateway.machine import Decision, Request, Verdict
from gateway.policy.catalog import (
    Column,
    Function,
    Relation,
    Snapshot,
    full_function,
    full_relation,
    parts_of,
)
from gateway.policy.decide import Moment, Policies
from gateway.policy.facts import Facts, SessionNames
from gateway.policy.resolve import Resolver
from gateway.policy.sql import Statement, analyse

_MOST: Final = 100
_QUOTED: Final = (
    "create function {name}({arguments}) returns {returns} language {language} as $q${body}$q$"
)


class CaseError(Exception):
    """A document that is no table of cases. Says where."""


class Result(msgspec.Struct, frozen=True):
    """A case that ran: the decision, and what is wrong with it (empty when nothing is)."""

    number: int
    statement: str
    decision: Decision
    wrong: str


class _Assumed(Snapshot):
    """A catalog in which every function that is not listed is PostgreSQL's own."""

    def functions_named(self, name: str) -> list[Function]:
        """See Snapshot."""
        found = super().functions_named(name)
        own = Function(1, "pg_catalog", name, volatility="s", least=0, most=_MOST)
        return found or [full_function(own)]


def snapshot(document: Mapping[str, Any]) -> Snapshot:
    """The catalog a document describes. Raises CaseError."""
    tables = document.get("tables") or {}
    oids = {full: number for number, full in enumerate(tables, 1)}
    children = {
        oids[child]: oid
        for full, oid in oids.items()
        for child in (tables[full] or {}).get("children", ())
        if child in oids
    }
    relations = [_table(full, oids, children, tables[full] or {}) for full in tables]
    functions = [
        _function(number, full, entry or {})
        for number, (full, entry) in enumerate((document.get("functions") or {}).items(), 10_000)
    ]
    path = tuple(document.get("search_path") or ("pg_catalog", "public"))
    return _Assumed(relations, functions, path=path, version="cases")


def _table(
    full: str, oids: Mapping[str, int], parents: Mapping[int, int], entry: Mapping[str, Any]
) -> Relation:
    schema, name = _two(full)
    given = entry.get("columns", ())
    columns = tuple(
        Column(str(column).removesuffix("!"), number, not_null=str(column).endswith("!"))
        for number, column in enumerate(given, 1)
    )
    view = str(entry.get("view", ""))
    oid = oids[full]
    return full_relation(
        Relation(
            oid,
            schema,
            name,
            str(entry.get("kind", "v" if view else "r")),
            columns,
            owner=str(entry.get("owner", "")),
            definition=view,
            parents=(parents[oid],) if oid in parents else (),
            children=tuple(oids[child] for child in entry.get("children", ()) if child in oids),
            rules=tuple(entry.get("rules", ())),
        )
    )


def _function(oid: int, full: str, entry: Mapping[str, Any]) -> Function:
    schema, name = _two(full)
    language, body = str(entry.get("language", "sql")), entry.get("body")
    arguments = int(entry.get("arguments", 0))
    definition = ""
    if body is not None:
        text = f" begin {body} end " if language == "plpgsql" else str(body)
        definition = _QUOTED.format(
            name=full,
            arguments=", ".join(["int"] * arguments),
            returns="void" if language == "plpgsql" else "setof record",
            language=language,
            body=text,
        )
    return full_function(
        Function(
            oid,
            schema,
            name,
            volatility=str(entry.get("volatility", "v")),
            language=language,
            least=0 if language == "c" else arguments,
            most=_MOST if language == "c" else arguments,
            definition=definition,
        )
    )


def _two(full: str) -> tuple[str, str]:
    parts = parts_of(full)
    if len(parts) != 2:
        raise CaseError(f"{full}: write it as schema.name")
    return parts[0], parts[1]


def run(document: Mapping[str, Any], policies: Policies) -> Iterable[Result]:
    """Each case's result. Raises CaseError."""
    resolver = Resolver(snapshot(document))
    for number, case in enumerate(document.get("cases") or (), 1):
        if not isinstance(case, Mapping):
            raise CaseError(f"case {number} is no mapping")
        asked = [key for key in ("do", "connect", "see_clear") if case.get(key)]
        if len(asked) != 1:
            raise CaseError(f"case {number} has no `do`")
        target = str(case.get("target") or document.get("target") or "shop")
        decision = _decision(case, policies, resolver, target)
        text = str(case["do"]) if "do" in case else f"{asked[0]} {case[asked[0]]}"
        yield Result(number, text, decision, _wrong(case, decision))


def requests(
    text: str,
    resolver: Resolver,
    analyser: Callable[[str], Iterable[Statement]] = analyse,
) -> Iterator[Request]:
    """What a session asks that runs the statements of a text one after the other."""
    meaning = SessionNames()
    for statement in analyser(text):
        facts = resolver(statement, meaning)
        meaning = facts.after(meaning)
        yield request(statement, facts)


def request(statement: Statement, facts: Facts) -> Request:
    """What a session asks that runs this statement, of which these are the facts."""
    return Request(
        bytes(16),
        "execute",
        statement.kind,
        statement.kinds,
        statement.relations,
        statement.recorded,
        refusal=statement.error,
        facts=facts,
    )


def _decision(
    case: Mapping[str, Any], policies: Policies, resolver: Resolver, target: str
) -> Decision:
    who, moment = _principal(case.get("as") or {}), _moment(case)
    application = str(case.get("application", "psql"))
    if case.get("connect"):
        kind = str(case.get("replication") or "")
        return policies.connect(who, target, application, kind, moment)
    if case.get("see_clear"):
        wanted = frozenset(map(str, case["see_clear"]))
        if policies.see_clear(who, target, application, wanted, moment) >= wanted:
            return Decision(Verdict.ALLOW, (), "")
        return Decision(Verdict.DENY, (), "masked")
    decision = Decision(Verdict.ALLOW, (), "")
    expected = int(case.get("row_estimate", -1))
    for asked in requests(str(case["do"]), resolver):
        request = msgspec.structs.replace(asked, row_estimate=expected)
        decision = policies.execute(who, target, application, request, moment)
        if decision.verdict is not Verdict.ALLOW:
            break
    return decision


def _wrong(case: Mapping[str, Any], decision: Decision) -> str:
    expected = [key for key in ("allow", "deny", "hold") if case.get(key)]
    if len(expected) != 1:
        raise CaseError(f"{dict(case)}: say one of allow, deny and hold")
    if decision.verdict.value != expected[0].upper():
        by = f" by {', '.join(decision.policies)}" if decision.policies else ""
        return f"{decision.verdict.value}{by} ({decision.reason or 'permitted'})"
    named = case[expected[0]]
    if isinstance(named, str) and named not in decision.policies:
        return f"{decision.verdict.value} by {', '.join(decision.policies) or 'no policy'}"
    reason = decision.reason or (decision.limit.reason if decision.limit else "")
    if str(case.get("message") or "") not in reason:
        return f"{decision.verdict.value} saying: {reason or 'nothing'}"
    rows = decision.limit.rows if decision.limit else 0
    if case.get("max_rows", rows) != rows:
        return f"at most {rows} rows" if rows else "all rows"
    return ""


def _principal(given: Mapping[str, Any]) -> Principal:
    agent = given.get("agent")
    return Principal(
        issuer=str(given.get("issuer", "https://issuer")),
        subject=str(given.get("subject", given.get("name", "someone"))),
        name=str(given.get("name", "someone")),
        groups=tuple(map(str, given.get("groups") or ())),
        agent=None if agent is None else str(agent),
        actor_type=given.get("actor_type") or ("person" if agent is None else "agent"),
        expires_at=float("inf"),
        signed_in_at=_seconds(given.get("signed_in_at")),
    )


def _moment(case: Mapping[str, Any]) -> Moment:
    return Moment(str(case.get("from", "")), _seconds(case.get("at")))


def _seconds(given: Any) -> float | None:
    if given is None:
        return None
    moment = given if isinstance(given, datetime) else datetime.fromisoformat(str(given))
    if moment.tzinfo is None:
        raise CaseError(f"{given}: say which time zone, as in 2026-11-24T10:00:00Z")
    return moment.timestamp()
