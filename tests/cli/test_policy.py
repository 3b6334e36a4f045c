"""`gatebook policy`, as people run it."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.main import app
from cli.problems import Problem
from gateway.policy import cases

PACKS = Path(cases.__file__).with_name("packs")
READS = """
@id("reads")
permit (principal in Group::"support", action, resource == Target::"shop")
when { context.name != "mallory" };
"""
CASES = """
tables: {public.orders: {columns: [id]}}
cases:
  - {as: {groups: [support]}, do: "select * from orders", allow: reads}
  - {as: {groups: [support]}, connect: true, allow: reads}
  - {do: "select 1", deny: true, message: no policy}
"""


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["policy", *arguments], catch_exceptions=False)
    return result.exit_code, result.output


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GATEBOOK_STATE_DIR", str(tmp_path / "none"))
    folder = tmp_path / "policies"
    folder.mkdir()
    text = READS.replace("action,", 'action in [Action::"connect", Action::"execute"],')
    (folder / "reads.cedar").write_text(text)
    (folder / "reads.tests.yaml").write_text(CASES)
    return folder


def test_a_folder_without_faults_passes(folder: Path) -> None:
    code, output = run("check", str(folder))
    assert (code, "1 file: 0 errors, 0 warnings" in output) == (0, True)
    code, output = run("test", str(folder))
    assert (code, "3 passed" in output) == (0, True)


def test_a_fault_is_named_with_file_and_line(folder: Path) -> None:
    (folder / "reads.cedar").write_text(READS.replace("name", "nmae"))
    code, output = run("check", str(folder))
    assert code == 1
    assert f"{folder}/reads.cedar:4: error: reads: attribute `nmae`" in output


def test_targets_are_looked_up_in_the_settings(folder: Path, tmp_path: Path) -> None:
    config = tmp_path / "gatebook.yaml"
    config.write_text("targets: [{name: crm, host: h, database: d, user: u, password: {env: X}}]")
    code, output = run("check", str(folder), "--config", str(config))
    assert code == 1
    assert 'there is no target "shop"' in output


def test_a_file_of_a_target_that_gateways_would_not_take_fails(folder: Path) -> None:
    (folder / "targets").mkdir()
    shop = folder / "targets" / "shop.yaml"
    good = "{host: h, database: d, user: u, password: {env: X}}"
    shop.write_text(good)
    assert run("check", str(folder))[0] == 0
    for text, said in (
        ("{host: [hunter2", "shop.yaml is not YAML, line 1"),
        (good.replace("user", "uesr"), "uesr: Extra inputs are not permitted"),
        (good.replace("{env: X}", "hunter2"), "password"),
    ):
        shop.write_text(text)
        code, output = run("check", str(folder))
        assert (code, said in output, "hunter2" in output) == (1, True, False), output
    shop.write_text(good)
    (folder / "targets" / "other.yaml").write_text(good.replace("{", "{name: shop, ", 1))
    code, output = run("check", str(folder))
    assert (code, "two targets are named shop" in output) == (1, True)


def test_a_case_that_comes_out_otherwise_is_shown_with_its_line(folder: Path) -> None:
    path = folder / "reads.tests.yaml"
    path.write_text(CASES.replace("allow: reads}", "deny: reads}", 1))
    code, output = run("test", str(folder))
    assert code == 1
    assert "reads.tests.yaml F.." in output
    assert f"{path}:4: select * from orders" in output
    assert "got       ALLOW by reads" in output
    path.write_text(CASES.replace("no policy", "nobody knows"))
    code, output = run("test", str(folder))
    assert code == 1
    assert "got       DENY saying: no policy permits this" in output


@pytest.mark.parametrize("text", ["", "cases: []", "cases: {", "cases:\n  - {do: select 1}"])
def test_cases_that_say_nothing_are_a_problem(folder: Path, text: str) -> None:
    (folder / "reads.tests.yaml").write_text(text)
    with pytest.raises(Problem, match=r"reads\.tests\.yaml"):
        run("test", str(folder))


def test_the_packs_run_their_own_cases(folder: Path) -> None:
    code, output = run("test", str(PACKS))
    assert code == 0
    assert all(f"{pack.stem}.yaml" in output for pack in PACKS.glob("*.cedar"))


def test_explain_says_what_is_seen_decided_and_lacking(folder: Path) -> None:
    arguments = ["explain", "--as", "bob", "--policies", str(folder), "delete from orders"]
    code, output = run(*arguments)
    assert code == 0
    assert "judged without a catalog" in output
    assert "writes      orders" in output
    assert "decision    DENY: no policy permits this" in output
    assert "permit reads (reads.cedar:2) would apply, but for" in output
    assert 'principal in Group::"support"' in output
