"""`gatebook targets`, with a real server."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest
import yaml
from typer.testing import CliRunner

from cli.main import app
from cli.problems import Problem
from schemas.settings import SettingsError, load
from tests.conftest import PostgresServer

PASSWORD = "of-the-reader"


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["targets", *arguments], catch_exceptions=False)
    return result.exit_code, result.output


@pytest.fixture(autouse=True)
def no_stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEBOOK_STATE_DIR", str(tmp_path / "none"))
    monkeypatch.setenv("READER_PASSWORD", PASSWORD)


@pytest.fixture
def reader(postgres: PostgresServer, tmp_path: Path) -> Path:
    """A target whose role may connect, and is given too much and too little."""
    admin = postgres.dsn
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute("drop role if exists target_reader")
        connection.execute(f"create role target_reader login password '{PASSWORD}'")
        connection.execute("grant pg_signal_backend to target_reader")
    path = tmp_path / "crm.yaml"
    path.write_text(
        yaml.safe_dump(
            {
                "host": postgres.host,
                "port": postgres.port,
                "database": postgres.database,
                "user": "target_reader",
                "password": {"env": "READER_PASSWORD"},
                "sslmode": "disable",
                "classified": {"public.customers.shoe_size": {"class": "pii"}},
            }
        )
    )
    return path


def test_what_a_role_lacks_and_has_too_much_is_said_as_sql(reader: Path) -> None:
    code, output = run("test", str(reader))
    assert code == 0
    assert "as target_reader, PostgreSQL 1" in output
    assert "REVOKE pg_signal_backend FROM target_reader;" in output
    assert "GRANT SELECT ON ALL TABLES IN SCHEMA public TO target_reader;" in output
    assert "there is no column public.customers.shoe_size" in output


def test_what_it_prints_is_enough(reader: Path, postgres: PostgresServer) -> None:
    _, output = run("test", str(reader))
    advice = [line.strip() for line in output.splitlines() if line.strip().endswith(";")]
    with psycopg.connect(postgres.dsn, autocommit=True) as connection:
        for line in advice:
            connection.execute(line)  # type: ignore[arg-type]
        try:
            code, output = run("test", str(reader))
        finally:
            connection.execute("drop owned by target_reader")
    assert code == 0
    assert "it can read every table" in output
    assert "more than it needs" not in output


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"password": {"env": "NOWHERE"}}, "NOWHERE"),
        ({"user": "nobody-here"}, "refuses nobody-here"),
        ({"database": "nowhere"}, "refuses target_reader"),
        ({"port": 1}, "does not answer"),
        ({"sslmode": "require"}, "SSL"),
    ],
)
def test_what_cannot_be_used_says_why_and_is_not_added(
    reader: Path, tmp_path: Path, change: dict[str, object], said: str
) -> None:
    document = yaml.safe_load(reader.read_text())
    reader.write_text(yaml.safe_dump({**document, **change}))
    code, output = run("test", str(reader))
    assert code == 1
    assert said.lower() in output.lower()
    assert PASSWORD not in output
    with pytest.raises(Problem, match="nothing was added"):
        run("add", str(reader), "--policies", str(tmp_path))
    assert not (tmp_path / "targets").exists()


def test_a_target_that_is_added_is_among_the_settings(reader: Path, tmp_path: Path) -> None:
    policies = tmp_path / "policies"
    code, output = run("add", str(reader), "--policies", str(policies))
    assert code == 0
    assert "within seconds" in output
    config = tmp_path / "gatebook.yaml"
    config.write_text(yaml.safe_dump({"gateway": {"policies": str(policies)}}))
    assert [target.name for target in load(config).targets] == ["crm"]
    code, output = run("list", "--config", str(config))
    assert output.startswith("crm  ")
    assert run("test", "crm", "--config", str(config))[0] == 0
    with pytest.raises(Problem, match="already"):
        run("add", str(reader), "--config", str(config))


@pytest.mark.parametrize("text", ["[]", "host: {", "passwort: geheim"])
def test_a_file_that_is_no_target_is_a_problem_without_its_content(
    tmp_path: Path, text: str
) -> None:
    folder = tmp_path / "policies" / "targets"
    folder.mkdir(parents=True)
    path = folder / "crm.yaml"
    path.write_text(text)
    with pytest.raises(Problem) as problem:
        run("test", str(path))
    assert "geheim" not in str(problem.value)
    config = tmp_path / "gatebook.yaml"
    config.write_text(yaml.safe_dump({"gateway": {"policies": str(folder.parent)}}))
    with pytest.raises(SettingsError):
        load(config)
