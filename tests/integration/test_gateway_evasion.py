"""Attacks that work at PostgreSQL itself, and do not through the gateway."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
import yaml

from infra.devstack.conninfo import parse
from infra.devstack.plan import Options
from tests.conftest import SMALL, running
from tests.e2e.stack import Stack, until
from tests.gateway.policy.evasions import ATTACKS, BENIGN, PACKS, RULES, SETUP, USED, Attack

pytestmark = pytest.mark.integration

DBA = '@id("dba") @unknown("permitted")\npermit (principal in Group::"dba", action, resource);'
# They end a transaction, or cannot run in one, or need what this server does not have.
NOT_DIRECT = (
    "alter view people owner", "create table t () inherits (hr.payroll_x)", "create type t as",
    "create tablespace", "drop owned", "import foreign", "merge into orders o using hr.payroll p",
    "security label", "select * into t from orders", "create policy", "drop schema a",
)  # fmt: skip


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    root, folder = tmp_path_factory.mktemp("evasion"), tmp_path_factory.mktemp("evasion-policies")
    (folder / "rules.cedar").write_text(RULES.replace(
        'principal in Group::"hr"', 'principal in Group::"hr" || principal in Group::"dba"'
    ))  # fmt: skip
    (folder / "dba.cedar").write_text(DBA)
    for name in USED:
        pack = (PACKS / f"{name}.cedar").read_text()
        (folder / f"{name}.cedar").write_text(pack.replace('migrations" }', 'dba" }'))
    config = folder / "over.yaml"
    config.write_text(yaml.safe_dump({"gateway": {"policies": str(folder)}}))
    kinds = ("kafka", "postgres", "issuer", "gateway")
    for _ in running(root, Options(gateways=1, only=kinds, size=SMALL, config=config)):
        made = Stack(root)
        with psycopg.connect(made.document["targets"][0]["direct_conninfo"]) as owner:
            owner.execute(SETUP)
        yield made


def psql(script: str, environment: dict[str, str], *arguments: str) -> str:
    """What psql says of the script, errors with their SQLSTATEs."""
    done = subprocess.run(
        ["psql", "-X", "-q", "-v", "VERBOSITY=verbose", *arguments],
        input=script,
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.stdout + done.stderr


def script(attack: Attack) -> str:
    body = ";\n".join(attack.statements)
    data = "\\.\n" if body.startswith("copy") and "from stdin" in body else ""
    return f"begin;\n{body};\n{data}rollback;\n"


@pytest.fixture(scope="module")
def refusals(stack: Stack) -> dict[Attack, str]:
    """What each attack brought alice, through the gateway."""
    environment = stack.environment("alice")
    # The catalog has the attacks' relations once it has been read.
    until(lambda: "ERROR" not in psql("select * from people limit 1", environment))
    return {attack: psql(script(attack), environment) for attack in ATTACKS}


def test_no_attack_passes(refusals: dict[Attack, str]) -> None:
    passed = [attack for attack, said in refusals.items() if "ERROR" not in said]
    assert passed == []


def test_they_are_refused_by_the_gateway_and_not_by_the_server(refusals: dict[Attack, str]) -> None:
    elsewhere = {
        attack.statements: said
        for attack, said in refusals.items()
        if attack.real and "42501: permission denied: " not in said
    }
    assert elsewhere == {}


def test_the_attacks_are_real(stack: Stack) -> None:
    """As the target's superuser, without a gateway, each statement runs."""
    owner = parse(stack.document["targets"][0]["direct_conninfo"])
    password = stack.state.postgres_superuser_password.read_text().strip()
    environment = {
        "PGHOST": owner.host, "PGPORT": str(owner.port), "PGDATABASE": owner.database,
        "PGUSER": "postgres", "PGPASSWORD": password, "PGSSLMODE": "disable",
    }  # fmt: skip
    failed: dict[Any, str] = {}
    for attack in ATTACKS:
        skipped = any(text.startswith(NOT_DIRECT) for text in attack.statements)
        if attack.real and not skipped:
            said = psql(script(attack), environment)
            if "ERROR" in said:
                failed[attack.statements] = said[-300:]
    assert failed == {}


def test_ordinary_work_passes(stack: Stack, refusals: dict[Attack, str]) -> None:
    environment = stack.environment("alice")
    refused = {text: said for text in BENIGN if "42501" in (said := psql(f"{text};", environment))}
    assert refused == {}


def test_what_a_session_creates_it_may_use_at_once(stack: Stack) -> None:
    with stack.connect("bob") as dba, stack.connect("alice") as person:
        person.execute("create temp table mine as select id from orders limit 3")
        assert len(person.execute("select * from mine").fetchall()) == 3
        dba.execute("create table public.brand_new (a int)")
        try:
            until(lambda: _reads(person, "select * from brand_new"), timeout_s=10)
            # A view made a moment ago is known for what it reads.
            dba.execute("create view public.newer as select salary from hr.payroll")
            until(lambda: _refused_as_payroll(person, "select * from newer"), timeout_s=10)
        finally:
            dba.execute("drop view if exists public.newer; drop table public.brand_new")


def _reads(connection: psycopg.Connection[Any], text: str) -> bool:
    try:
        connection.execute(text)
    except (psycopg.errors.InsufficientPrivilege, psycopg.errors.UndefinedTable):
        return False
    return True


def _refused_as_payroll(connection: psycopg.Connection[Any], text: str) -> bool:
    try:
        connection.execute(text)
    except psycopg.errors.InsufficientPrivilege as refused:
        return "payroll is for hr" in str(refused)
    except psycopg.errors.UndefinedTable:
        return False
    raise AssertionError("it was let through")
