"""The guard rails that come with Gatebook keep what they promise, each by the cases beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from gateway.identity.principal import Principal
from gateway.machine import Verdict
from gateway.policy import cases, schema
from gateway.policy.decide import Policies, checked
from gateway.policy.facts import UNKNOWN
from gateway.policy_files import EVERYTHING
from tests.gateway.policy.catalogs import request

PACKS = sorted((Path(cases.__file__).parent / "packs").glob("*.cedar"))


def load(pack: Path) -> dict[str, Any]:
    document = yaml.safe_load(pack.with_suffix(".yaml").read_text())
    assert isinstance(document, dict)
    return document


def guarded(*packs: Path) -> Policies:
    return checked([EVERYTHING, *((pack.name, pack.read_text()) for pack in packs)])


@pytest.mark.parametrize("pack", PACKS, ids=lambda pack: pack.stem)
def test_a_pack_does_what_its_cases_say(pack: Path) -> None:
    results = list(cases.run(load(pack), guarded(pack)))
    assert len(results) >= 9
    # It refuses some and not others, or limits them.
    verdicts = {result.decision.verdict for result in results}
    limits = {result.decision.limit is not None for result in results}
    assert verdicts == {Verdict.ALLOW, Verdict.DENY} or limits == {True, False}
    wrong = {result.statement: result.wrong for result in results if result.wrong}
    assert wrong == {}


@pytest.mark.parametrize("pack", PACKS, ids=lambda pack: pack.stem)
def test_every_rule_of_a_pack_is_tried_and_says_what_to_do(pack: Path) -> None:
    policies = guarded(pack)
    tried = {case.get(said) for case in load(pack)["cases"] for said in ("deny", "allow")}
    rules = set(policies.rules) - {"everything"}
    assert rules and rules <= tried
    for name in rules:
        assert policies.rules[name].message and policies.rules[name].how_to_ask


@pytest.mark.parametrize("pack", PACKS, ids=lambda pack: pack.stem)
def test_without_the_pack_its_cases_pass(pack: Path) -> None:
    results = cases.run(load(pack), guarded())
    assert {result.decision.verdict for result in results} == {Verdict.ALLOW}


def test_all_packs_together_let_ordinary_work_pass() -> None:
    together = guarded(
        *(pack for pack in PACKS if pack.stem not in ("owners-only", "business-hours"))
    )
    document = {
        "tables": {"public.orders": {"columns": ["id!", "amount"]}},
        "cases": [
            {"do": text, "allow": True}
            for text in (
                "select * from orders limit 10",
                "insert into orders values (1, 2)",
                "update orders set amount = 1 where id = $1",
                "begin",
                "commit",
                "set statement_timeout = 0",
                "show search_path",
            )
        ],
    }
    assert [result.wrong for result in cases.run(document, together) if result.wrong] == []


@pytest.mark.parametrize(
    "condition",
    [
        'context.kindz.contains("drop")',
        'context.kinds == "drop"',
        "context.has_where > 1",
        "principal.shoe_size == 4",
        "resource.owner == 3",
    ],
)
def test_a_misspelt_or_mistyped_rule_is_found_when_it_is_loaded(condition: str) -> None:
    text = (
        '@id("x") forbid (principal, action == Action::"execute", resource is Table)'
        f" when {{ {condition} }};"
    )
    assert schema.problems(text)
    with pytest.raises(ValueError, match=r"broken\.cedar"):
        checked([("broken.cedar", text)])


@pytest.mark.parametrize(
    "document",
    [
        {"cases": [{"allow": True}]},
        {"cases": [{"do": "select 1"}]},
        {"cases": [{"do": "select 1", "allow": True, "deny": True}]},
        {"tables": {"orders": {}}, "cases": [{"do": "select 1", "allow": True}]},
        {"cases": [{"do": "select 1", "allow": True, "at": "2026-11-24T10:00:00"}]},
    ],
)
def test_a_table_of_cases_that_says_nothing_is_an_error(document: dict[str, Any]) -> None:
    with pytest.raises(cases.CaseError):
        list(cases.run(document, guarded()))


def test_a_case_that_comes_out_otherwise_is_wrong() -> None:
    document = {"cases": [{"do": "select 1", "deny": True}, {"do": "select 1", "deny": "x"}]}
    results = list(cases.run(document, guarded()))
    assert [result.wrong for result in results] == ["ALLOW by everything (permitted)"] * 2


def test_a_request_that_nobody_looked_into_is_denied() -> None:
    plain = Policies([("p.cedar", '@id("p") permit (principal, action, resource);')])
    who = Principal("https://i", "a", "alice", (), None, "person", 2e9)
    asked = request("select 1")
    assert plain.execute(who, "shop", "psql", asked).verdict is Verdict.ALLOW
    unseen = msgspec.structs.replace(asked, facts=UNKNOWN)
    assert plain.execute(who, "shop", "psql", unseen).verdict is Verdict.DENY
