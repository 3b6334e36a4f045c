"""Every policy of the cookbook does what the cases beside it say, as they stand on the page."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest
import yaml

from gateway.machine import Verdict
from gateway.policy import cases
from gateway.policy.decide import checked
from gateway.policy_files import EVERYTHING

PAGE = Path(__file__).parents[2] / "docs" / "policy-cookbook.md"
HEADING = re.compile(r"^## (.+)$", re.MULTILINE)
BLOCK = re.compile(r"^[ ]*```(cedar|yaml)\n(.*?)^[ ]*```$", re.MULTILINE | re.DOTALL)


def recipes(page: str) -> dict[str, list[tuple[str, str]]]:
    """The blocks (language, text) under each heading."""
    _, *parts = HEADING.split(page)
    return {
        heading: [(block[1], textwrap.dedent(block[2])) for block in BLOCK.finditer(text)]
        for heading, text in zip(parts[::2], parts[1::2], strict=True)
    }


def attempt(blocks: list[tuple[str, str]]) -> None:
    assert [language for language, _ in blocks] == ["cedar", "yaml"]
    (_, cedar), (_, table) = blocks
    alone = re.search(r"^permit\b", cedar, re.MULTILINE)
    policies = checked([*([] if alone else [EVERYTHING]), ("recipe.cedar", cedar)])
    results = list(cases.run(yaml.safe_load(table) or {}, policies))
    assert results, "no cases"
    assert {result.statement: result.wrong for result in results if result.wrong} == {}
    verdicts = {result.decision.verdict for result in results}
    assert Verdict.ALLOW in verdicts and len(verdicts) > 1
    if "see_clear" not in table:
        used = {name for result in results for name in result.decision.policies}
        assert set(policies.rules) <= used | {EVERYTHING[0].removesuffix(".cedar")}
    for result in results:
        if result.decision.verdict is Verdict.DENY:
            for name in result.decision.policies:
                assert policies.rules[name].message in result.decision.reason
                assert policies.rules[name].message and policies.rules[name].how_to_ask


RECIPES = recipes(PAGE.read_text())


def test_there_are_twenty_and_none_twice() -> None:
    assert len(RECIPES) >= 20
    assert len(RECIPES) == len(HEADING.findall(PAGE.read_text()))


@pytest.mark.parametrize("heading", RECIPES)
def test_a_recipe_does_what_its_cases_say(heading: str) -> None:
    attempt(RECIPES[heading])


@pytest.mark.parametrize("table", ["", "cases: []\n", 'cases:\n  - {do: "select 1", deny: true}\n'])
def test_a_recipe_without_cases_or_with_a_wrong_one_fails(table: str) -> None:
    cedar = '@id("x") forbid (principal, action, resource) when { context.name == "x" };\n'
    page = f"## One\n\n  ```cedar\n  {cedar}  ```\n\n```yaml\n{table}```\n"
    with pytest.raises(AssertionError):
        attempt(recipes(page)["One"])
