"""A column is classified in the file that the whole system reads, while it runs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml

from infra.devstack.plan import Options
from tests.conftest import SMALL, running
from tests.e2e.stack import Stack, until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

KINDS = ("kafka", "postgres", "issuer", "mask", "clickhouse", "gateway")
NAME, MASKED = "Zorvak Quill", "****** *uill"
READ = "select name from people_of_files"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    root = tmp_path_factory.mktemp("targets")
    for _ in running(root, Options(gateways=1, only=KINDS, size=SMALL)):
        yield Stack(root)


def classify(config: Path) -> None:
    document = yaml.safe_load(config.read_text())
    classified = document["targets"][0]["classified"]
    classified["public.people_of_files.name"] = {"class": "pii", "mask": "partial"}
    partial = config.with_suffix(".partial")
    partial.write_text(yaml.safe_dump(document))
    partial.replace(config)


def seen(connection: psycopg.Connection[Any]) -> str:
    row = connection.execute(READ).fetchone()
    assert row is not None
    return str(row[0])


def verified(stack: Stack, *configs: Path) -> dict[str, Any]:
    ended = subprocess.run(
        [
            *(Path(sys.executable).with_name("gatebook"), "verify", "--masks", "--json"),
            *("--key", str(stack.state.keys / "carol.pem"), "--state-dir", str(stack.root)),
            *(word for config in configs for word in ("--config", str(config))),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.stdout, ended.stderr
    said: dict[str, Any] = json.loads(ended.stdout)
    return said


def test_it_is_masked_for_people_and_in_the_history_from_then_on_and_that_can_be_verified(
    stack: Stack, tmp_path: Path
) -> None:
    config = stack.state.config_file
    earlier = tmp_path / "earlier.yaml"
    earlier.write_text(config.read_text())
    with stack.connect("bob") as owner:
        owner.execute(f"create table people_of_files as select '{NAME}'::text as name")
    with stack.connect("alice") as alice:
        assert seen(alice) == NAME
        classify(config)
        told: list[str | None] = []
        alice.add_notice_handler(lambda notice: told.append(notice.message_primary))

        def gone() -> bool:
            try:
                return seen(alice) != NAME
            except psycopg.OperationalError as error:
                told.append(str(error))
                return True

        until(gone)
        assert 'target "shop" has changed: connect again' in " ".join(map(str, told))
    with stack.connect("alice") as alice:
        assert seen(alice) == MASKED
        alice.execute(f"{READ} where name = '{NAME}'")

    def history() -> list[dict[str, Any]]:
        return stack.history(
            "SELECT q.statement AS statement, r.rows AS rows FROM queries AS q "
            "LEFT JOIN responses AS r ON r.statement_id = q.statement_id "
            f"WHERE startsWith(q.statement, '{READ}') AND q.outcome = 'completed' "
            "ORDER BY q.started_at"
        )

    until(lambda: any("where" in row["statement"] for row in history()))
    *plain, masked, last = history()
    assert {row["rows"] for row in plain} == {json.dumps([{"name": NAME}], separators=(",", ":"))}
    assert json.loads(masked["rows"]) == [{"name": MASKED}]
    assert NAME not in str(last)
    found = stack.history(
        "SELECT outcome, changed, targets, digest FROM target_loads ORDER BY loaded_at"
    )
    assert [(row["outcome"], row["changed"]) for row in found] == [
        ("loaded", []), ("loaded", ["shop"]),
    ]  # fmt: skip
    assert len({row["digest"] for row in found}) == 2
    until(
        lambda: stack.history("SELECT 1 FROM sessions WHERE reason = 'target_changed'"),
        timeout_s=30,
    )
    added = stack.history(
        "SELECT change, mask FROM classifications WHERE column = 'public.people_of_files.name'"
    )
    assert added == [{"change": "added", "mask": "partial"}]
    # The processor still has the earlier file; what is new in the other is in the events.
    said = verified(stack, config, earlier)
    assert (said["exit_code"], said["found"]) == (0, []), said
    assert verified(stack, earlier)["exit_code"] == 0
