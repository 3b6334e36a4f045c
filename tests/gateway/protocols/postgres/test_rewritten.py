"""What runs in place of what was typed: made once for a prepared statement, recorded each time."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gateway.machine import Request
from gateway.masking.plan import Edit, Plan
from gateway.masking.veil import Veil
from gateway.policy.sql import analyse, redact
from gateway.protocols.postgres.pipeline import Prepared
from tests.gateway.masking.shop import HIDDEN
from tests.gateway.protocols.postgres import messages as pg
from tests.gateway.protocols.postgres.dialogue import Dialogue, requests, signed_in

TYPED = "select upper(email) from customers where city = $1"


@pytest.fixture
def applied(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The texts that are rewritten."""
    seen: list[str] = []
    apply = Plan.apply

    def noted(plan: Plan, text: str) -> str:
        seen.append(text)
        return apply(plan, text)

    monkeypatch.setattr(Plan, "apply", noted)
    return seen


def prepare(talk: Dialogue, text: str = TYPED) -> Request:
    commands = talk.client(pg.parse(text, "p"), pg.describe_statement("p"), pg.SYNC)
    (request,) = requests(commands)
    talk.allow(commands)
    talk.record(talk.target(pg.PARSED, pg.parameter_types(25), pg.columns("upper"), pg.ready()))
    return request


def execute(talk: Dialogue, *values: bytes) -> Request:
    commands = talk.client(pg.bind(values, name="p"), pg.execute(), pg.SYNC)
    (request,) = requests(commands)
    talk.allow(commands)
    answer = (pg.BOUND, pg.row(b"A***"), pg.done("SELECT 1"), pg.ready())
    talk.record(talk.target(*answer))
    return request


def test_a_prepared_statement_is_rewritten_once(applied: list[str]) -> None:
    veil = Veil(HIDDEN)
    talk = signed_in(veil=lambda: veil)
    first = prepare(talk)
    ran = [execute(talk, value) for value in (b"Bern", b"Basel", b"Chur")]
    assert applied == [TYPED]
    # Each has its own values, and all of them what ran.
    assert [[value for _, _, value in one.parameters] for one in ran] == [
        [b"Bern"], [b"Basel"], [b"Chur"],
    ]  # fmt: skip
    assert "from customers" not in first.ran and "$1" in first.ran
    assert {one.ran for one in ran} == {first.ran}


def test_it_is_rewritten_again_where_other_things_are_hidden(applied: list[str]) -> None:
    veils = [Veil(HIDDEN)]
    talk = signed_in(veil=lambda: veils[-1])
    prepare(talk)
    execute(talk, b"Bern")
    # Equal, and read anew: as before.
    veils.append(Veil(HIDDEN))
    execute(talk, b"Bern")
    assert applied == [TYPED]
    (customers,) = HIDDEN.protected.values()
    shown = tuple(replace(c, mask=None) if c.name == "card" else c for c in customers.columns)
    fewer = replace(HIDDEN, protected={("public", "customers"): replace(customers, columns=shown)})
    veils.append(Veil(fewer))
    # What was prepared would show less or more than it may: it is prepared again, or refused.
    assert execute(talk, b"Bern").unmasked


def test_what_ran_is_recorded_without_credentials_however_often(applied: list[str]) -> None:
    text = "select 1 from customers where name = 'postgres://gate:hunter2@db/shop'"
    (statement,) = analyse(text)
    prepared = Prepared(statement, ())
    before = prepared.size
    plan = Plan("rewrite", "", (Edit(0, 6, "SELECT /* masked */"),))
    made = prepared.rewritten(plan)
    assert "hunter2" in made.text and "hunter2" not in made.recorded
    assert made.recorded == redact(made.text, statement.kinds)
    assert prepared.rewritten(plan) is made
    grown = prepared.size - before
    assert grown == made.size > len(text)
    # Its memory is counted once, whatever it is rewritten to.
    other = prepared.rewritten(replace(plan, edits=(Edit(0, 6, "select"),)))
    assert other is not made and prepared.size - before == other.size
    assert len(applied) == 2
