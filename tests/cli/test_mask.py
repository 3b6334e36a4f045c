"""`gatebook mask explain`, against the real server."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest
import yaml
from typer.testing import CliRunner

from cli.main import app
from tests.conftest import PostgresServer

pytestmark = pytest.mark.integration

SEES = '@id("dba") permit (principal in Group::"dba", action == Action::"see_clear", resource);'


@pytest.fixture
def config(tmp_path: Path, postgres: PostgresServer) -> Path:
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "all.cedar").write_text(SEES)
    (tmp_path / "password").write_text(postgres.password)
    target = {
        "name": "shop", "host": postgres.host, "port": postgres.port,
        "database": postgres.database, "user": postgres.user,
        "password": {"file": str(tmp_path / "password")}, "sslmode": "disable",
        "classified": {"public.customers.ssn": {"class": "pii", "mask": "full"}},
    }  # fmt: skip
    path = tmp_path / "gatebook.yaml"
    path.write_text(
        yaml.safe_dump({"targets": [target], "gateway": {"policies": str(tmp_path / "policies")}})
    )
    return path


def explain(config: Path, statement: str, *arguments: str) -> str:
    result = CliRunner().invoke(
        app,
        ["mask", "explain", "--config", str(config), "--as", "alice", *arguments, statement],
        catch_exceptions=False,
    )
    assert result.exit_code == 0, result.output
    return result.output


def test_what_is_masked_and_what_runs_is_said(config: Path) -> None:
    said = explain(config, "select upper(ssn) from customers; select ssn from customers; select 1")
    assert "is rewritten, so that no expression in it sees what is hidden" in said
    assert "hidden      public.customers.ssn: pii, full" in said
    assert 'FROM "public"."customers") AS "customers"' in said
    assert "its rows are masked as they pass" in said
    assert "it mentions nothing hidden" in said


def test_classes_are_proposed_with_their_evidence_and_without_values(
    config: Path, tmp_path: Path, postgres: PostgresServer
) -> None:
    out = tmp_path / "classified.yaml"
    arguments = ["classify", "shop", "--config", str(config), "--out", str(out)]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    proposed = yaml.safe_load(out.read_text())["classified"]
    assert proposed["public.customers.ssn"] == {"class": "pii", "mask": "full"}
    assert proposed["public.customers.email"] == {"class": "pii", "mask": "email"}
    assert proposed["public.customers.card_number"] == {"class": "pci", "mask": "partial"}
    assert "public.customers.city" not in proposed
    assert not [key for key in proposed if key.startswith("public.orders.")]
    assert "200 of 200 values are ssn (declared already)" in out.read_text()
    assert "@" not in out.read_text()
    # What has been reviewed is not written over.
    assert CliRunner().invoke(app, arguments).exit_code != 0


def test_classes_are_proposed_as_comments_that_keep_what_is_said(
    config: Path, postgres: PostgresServer
) -> None:
    with psycopg.connect(postgres.dsn, autocommit=True) as admin:
        admin.execute(r"comment on column customers.email is E'where\n\\we'' write'")
        try:
            result = CliRunner().invoke(
                app, ["classify", "shop", "--comments", "--config", str(config)]
            )
            assert result.exit_code == 0, result.output
            assert "-- public.customers.ssn is classified already" in result.output
            assert "@" not in result.output
            with pytest.raises(psycopg.errors.DivisionByZero), admin.transaction():
                admin.execute(result.output)
                rows = admin.execute(
                    "select a.attname, col_description(a.attrelid, a.attnum) "
                    "from pg_attribute a where a.attrelid = 'customers'::regclass"
                ).fetchall()
                said = {name: text for name, text in rows if text is not None}
                assert said["email"] == "where\n\\we' write\ngatebook:pii mask=email"
                assert said["card_number"] == "gatebook:pci mask=partial"
                assert "ssn" not in said
                admin.execute("select 1 / 0")
        finally:
            admin.execute("comment on column customers.email is null")


def test_where_a_class_comes_from_is_said(config: Path, postgres: PostgresServer) -> None:
    settings = yaml.safe_load(config.read_text())
    settings["targets"][0]["classifiers"] = [postgres.user]
    config.write_text(yaml.safe_dump(settings))
    with psycopg.connect(postgres.dsn, autocommit=True) as admin:
        admin.execute("comment on column customers.city is 'gatebook:pii mask=none'")
        try:
            said = explain(config, "select ssn, city from customers")
            assert "hidden      public.customers.city: pii, full; by comment" in said
            assert "hidden      public.customers.ssn: pii, full; by configuration" in said
            assert "faulty      comment on public.customers.city" in said
            settings["targets"][0]["classifiers"] = ["somebody"]
            config.write_text(yaml.safe_dump(settings))
            said = explain(config, "select city from customers")
            assert f"ignored     comment pii on public.customers.city: {postgres.user}" in said
            assert "it mentions nothing hidden" in said
        finally:
            admin.execute("comment on column customers.city is null")


def test_a_refusal_says_why(config: Path) -> None:
    said = explain(config, "do $$ begin end $$")
    assert "is refused: Do is not open" in said


def test_who_sees_clear_is_told_so(config: Path) -> None:
    assert "alice sees everything at shop" in explain(config, "select 1", "--group", "dba")
