"""`gatebook policy replay` on the history of a real stack."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from typer.testing import CliRunner

from cli.main import app
from cli.problems import Problem
from infra.devstack.plan import Options
from schemas.settings import load
from tests.conftest import SMALL, running
from tests.e2e.stack import Stack, until

pytestmark = pytest.mark.e2e

POLICIES = """
@id("support")
permit (principal in Group::"support", action in [Action::"connect", Action::"execute"],
        resource == Target::"shop");

@id("say-limit")
forbid (principal in Group::"support", action == Action::"execute", resource)
when { context.kind == "select" && !context.has_limit };

@id("dba")
@unknown("permitted")
permit (principal in Group::"dba", action in [Action::"connect", Action::"execute"],
        resource == Target::"shop");

@id("no-roles")
forbid (principal, action == Action::"execute", resource) when { context.ddl.contains("role") };
"""
SECRET = "hunter2-hunter2"
BY_ALICE = (
    *(f"select id from orders where id = {number}" for number in (1, 22, 333)),
    "select id from orders order by id limit 5",
    # Denied as it was made; the policies above let support write.
    "delete from orders where id = -1",
    # Masked in the history: what stands there is no SQL any more.
    "select id from customers where ssn is null and id = 123456 limit 1",
    # What Python takes for the end of a line.
    "select 'a\x85b\u2028c' limit 1",
    "selct 1",
)
BY_BOB = (
    f"alter role nobody_at_all password '{SECRET}'",
    "create temp table mine (id int)",
    "select id from mine",
)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    root = tmp_path_factory.mktemp("replay") / "stack"
    kinds = ("kafka", "postgres", "issuer", "gateway", "mask", "clickhouse")
    for _ in running(root, Options(gateways=1, only=kinds, size=SMALL)):
        made = Stack(root)
        for user, statements in (("alice", BY_ALICE), ("bob", BY_BOB)):
            with made.connect(user) as session:
                for statement in statements:
                    try:
                        session.execute(statement.encode())
                    except psycopg.Error as error:
                        assert error.sqlstate in ("42501", "42601", "42704")
        _until_both_are_closed(made)
        yield made


def _until_both_are_closed(stack: Stack) -> None:
    closed = "select session_id from sessions where outcome = 'closed'"
    until(lambda: len(stack.history(closed)) == 2)


@pytest.fixture
def policies(tmp_path: Path) -> Path:
    folder = tmp_path / "policies"
    folder.mkdir()
    (folder / "new.cedar").write_text(POLICIES)
    return folder


def replay(stack: Stack, folder: Path, *more: str) -> str:
    result = CliRunner().invoke(
        app,
        ["policy", "replay", "--policies", str(folder), "--state-dir", str(stack.root), *more],
        catch_exceptions=False,
    )
    assert result.exit_code == 0, result.output
    return " ".join(result.output.split())


def test_who_would_be_refused_and_let_through_is_counted_and_listed(
    stack: Stack, policies: Path
) -> None:
    said = replay(stack, policies)
    assert (
        "would have been refused: 4 by 2 people"
        " 3 alice@shop select id from orders where id = ? (say-limit)"
        " 1 bob@shop alter role nobody_at_all password ? (no-roles)"
        " would have been let through: 1 by 1 people"
        " 1 alice@shop delete from orders where id = -? (support)"
        " refused by the policies in force, too: 0 by 0 people"
    ) in said
    # Signing in twice, and every statement once.
    number = 2 + len(BY_ALICE) + len(BY_BOB)
    assert f"as before: {number - 5} " in said
    assert "refused whatever the policies say: 0 " in said
    assert "cannot be read: 0 " in said
    assert f"{number} decisions, {number} of them distinct" in said
    assert SECRET not in said


def test_the_policies_in_force_change_nothing(stack: Stack) -> None:
    in_force = load(stack.state.config_file).gateway.policies
    assert in_force is not None
    said = replay(stack, in_force)
    assert "would have been refused: 0 by" in said
    assert "would have been let through: 0 by" in said


def test_long_lists_are_cut_and_say_so(stack: Stack, policies: Path) -> None:
    said = replay(stack, policies, "--most", "1")
    assert "would have been refused: 4 by 2 people" in said
    assert "… and 1 more" in said


def test_what_was_before_is_not_asked_for(stack: Stack, policies: Path) -> None:
    with pytest.raises(Problem, match="--since is a number"):
        replay(stack, policies, "--since", "yesterday")


def test_the_history_of_a_target_that_is_gone_is_judged_without_its_tables(
    stack: Stack, policies: Path
) -> None:
    config = stack.state.config_file
    before = config.read_text()
    assert before.count("name: shop") == 1
    config.write_text(before.replace("name: shop", "name: store"))
    try:
        said = replay(stack, policies)
    finally:
        config.write_text(before)
    assert "(shop is not a target any more: its tables are not known)" in said
    # Alice's orders are not known to the policies in force, either; bob's may be unknown.
    assert "would have been refused: 1 by 1 people 1 bob@shop alter role" in said
    assert "would have been let through: 0 by" in said


@pytest.mark.parametrize("wrong", ["absent", "unreadable", "misspelt"])
def test_policies_that_cannot_be_used_are_not_tried(
    stack: Stack, policies: Path, wrong: str
) -> None:
    if wrong == "absent":
        policies = policies / "nowhere"
    elif wrong == "unreadable":
        (policies / "new.cedar").write_bytes(b"\xff\xfe")
    else:
        (policies / "new.cedar").write_text(POLICIES.replace("has_limit", "has_limits"))
    said = {"absent": "nowhere", "unreadable": "decode", "misspelt": "new.cedar:.*has_limits"}
    with pytest.raises(Problem, match=said[wrong]):
        replay(stack, policies)
