"""The command line without a stack: help, errors, completion."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.main import app
from cli.problems import Problem

COMMANDS = ["up", "down", "status", "demo", "login", "token", "connect", "sql", "tail"]
GATEBOOK = [
    sys.executable,
    "-c",
    "import sys; from cli.main import main; sys.argv[0] = 'gatebook'; main()",
]


def gatebook(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    import os

    return subprocess.run(
        [*GATEBOOK, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        check=False,
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_with_an_example(command: str) -> None:
    result = CliRunner().invoke(app, [command, "--help"], terminal_width=200)
    assert result.exit_code == 0
    if command != "down":
        assert f"gatebook {command}" in result.output.replace("\n", " ").partition("Example")[2]


def test_help_imports_nothing_heavy() -> None:
    heavy = ("aiokafka", "httpx", "cryptography", "asyncpg", "rich.table", "yaml", "infra")
    program = (
        "import sys; from cli.main import app; from typer.main import get_command;"
        "get_command(app);"
        f"print([m for m in {heavy!r} if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "arguments",
    [
        ["status"],
        ["login", "--user", "alice"],
        ["token", "--user", "alice"],
        ["connect", "shop"],
        ["sql", "select 1"],
        ["tail"],
    ],
)
def test_without_a_stack_each_says_so(arguments: list[str], tmp_path: Path) -> None:
    done = gatebook(*arguments, "--state-dir", str(tmp_path / "none"))
    assert done.returncode == 1
    assert done.stdout == ""
    assert "nothing runs in" in done.stderr
    assert "gatebook up --detach" in done.stderr
    assert "Traceback" not in done.stderr


def test_status_as_json_of_nothing_is_json(tmp_path: Path) -> None:
    import json

    done = gatebook("status", "--json", "--state-dir", str(tmp_path / "none"))
    assert done.returncode == 1
    assert json.loads(done.stdout) == {
        "state_dir": str(tmp_path / "none"),
        "healthy": False,
        "processes": [],
    }


def test_down_of_nothing_is_no_error(tmp_path: Path) -> None:
    done = gatebook("down", "--state-dir", str(tmp_path / "none"))
    assert (done.returncode, done.stderr) == (0, "")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--brokers", "2"], "1 or 3"),
        (["--kafka", "nowhere"], "host:port"),
        (["--gateways", "0"], "--gateways"),
        (["--config", "/nowhere.yaml"], "does not exist"),
        (["--target", "host=db user=x password=hunter2 colour=blue"], "colour"),
        (["--target", "garbage"], "neither a postgresql:// URI nor key=value"),
        (["--clickhouse", "ch.example"], "http://"),
    ],
)
def test_bad_options_are_refused_before_anything_starts(
    arguments: list[str], reason: str, tmp_path: Path
) -> None:
    done = gatebook("up", "--detach", *arguments, "--state-dir", str(tmp_path / "state"))
    assert done.returncode in (1, 2)
    assert reason in done.stderr
    assert "hunter2" not in done.stderr
    assert "Traceback" not in done.stderr
    if arguments[0] in ("--target", "--kafka"):
        assert not (tmp_path / "state").exists()


def test_a_config_that_no_process_would_accept_is_refused(tmp_path: Path) -> None:
    over = tmp_path / "over.yaml"
    over.write_text("gateway: {colour: blue}\n")
    done = gatebook("up", "--config", str(over), "--state-dir", str(tmp_path / "state"))
    assert done.returncode == 1
    assert "gateway.colour" in done.stderr


def test_a_state_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = gatebook("up", "--state-dir", str(tmp_path / "file" / "state"))
    assert done.returncode != 0
    assert "Traceback" not in done.stderr


def test_completion_knows_commands_and_options() -> None:
    done = gatebook(_GATEBOOK_COMPLETE="complete_bash", COMP_WORDS="gatebook co", COMP_CWORD="1")
    assert done.stdout.split() == ["connect"]


def test_a_problem_has_an_exit_code() -> None:
    assert Problem("x").exit_code == 1
    assert Problem("x", 2).exit_code == 2
