"""docs/history.md says what is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.sinks.conftest import Ask, Write
from tests.sinks.recorded import many

pytestmark = pytest.mark.integration

PAGE = (Path(__file__).parents[2] / "docs" / "history.md").read_text()


def test_every_example_runs(write: Write, ask: Ask) -> None:
    write(many(20, "gateway-1/a/0"))
    examples = re.findall(r"```sql\n(.*?);\n```", PAGE, re.DOTALL)
    assert len(examples) >= 8
    for example in examples:
        ask(example)


@pytest.mark.parametrize(
    "table",
    [
        "queries",
        "sessions",
        "responses",
        "policy_loads",
        "target_loads",
        "classifications",
        "audit_events",
        "vault_boxes",
        "vault_wraps",
        "gateway_starts",
        "chain_gaps",
        "offset_gaps",
    ],
)
def test_every_column_is_described(ask: Ask, table: str) -> None:
    start = PAGE.index(f"`{table}`", PAGE.index("## `queries`"))
    section = PAGE[start : PAGE.index("\n## ", start)]
    named = set(re.findall(r"`(\w+)`", section))
    for name, *_ in ask(f"DESCRIBE TABLE {table}"):
        assert name in named, name


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(\.\./(sinks/[\w./]+)\)", PAGE))))
def test_every_link_leads_somewhere(link: str) -> None:
    assert (Path(__file__).parents[2] / link).exists()


def test_every_linked_name_exists() -> None:
    for name, path in re.findall(r"\[`([\w.]+)`\]\(\.\./(sinks/\w+\.py)\)", PAGE):
        source = (Path(__file__).parents[2] / path).read_text()
        assert re.search(rf"def {name.rpartition('.')[2]}\(", source), name
