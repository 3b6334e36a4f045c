"""docs/history.md says what is there."""

from __future__ import annotations

import re
from pathlib import Path
from uuid import UUID

import pytest

from tests.sinks.conftest import Ask, Write
from tests.sinks.recorded import Stream, context, many

pytestmark = pytest.mark.integration

PAGE = (Path(__file__).parents[2] / "docs" / "history.md").read_text()


def test_every_example_runs(write: Write, ask: Ask) -> None:
    write(many(20, "gateway-1/a/0"))
    examples = re.findall(r"```sql\n(.*?);\n```", PAGE, re.DOTALL)
    assert len(examples) >= 8
    for example in examples:
        ask(example)


def test_the_candidates_for_lost_are_those_whose_stream_was_followed(
    write: Write, ask: Ask
) -> None:
    (example,) = re.findall(r"```sql\n(WITH\n    streams.*?);\n```", PAGE, re.DOTALL)
    killed, living, elsewhere = Stream("gateway-1/a/0"), Stream("gateway-1/b/0"), Stream("g2/a/0")
    ended, left, open_now = context(), context(), context()
    other = context(gateway="g2")
    for stream, who in ((killed, ended), (killed, left), (elsewhere, other)):
        stream.event("SessionOpened", who)
        stream.statement(who)
    killed.event("SessionClosed", ended, reason="client_closed")
    killed.statement(left, None)
    write([*killed.events, *elsewhere.events])
    assert ask(example) == []
    living.at = killed.at + 1_000_000
    living.event("SessionOpened", open_now)
    write(living.events, first=1000)
    assert [row[0] for row in ask(example)] == [UUID(bytes=left.session_id)]
    # A process that only began a new stream goes on with its sessions there.
    again = Stream("gateway-1/b/0", at=living.at, seq=living.seq)
    again.statement(left)
    write(again.events, first=2000)
    assert ask(example) == []


@pytest.mark.parametrize(
    "table",
    [
        "queries",
        "sessions",
        "responses",
        "audit_events",
        "vault_boxes",
        "vault_wraps",
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
