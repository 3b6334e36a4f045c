"""Sessions of those who must learn no order begin with settings, and end where others are due."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gateway.machine import Authenticated, TargetConnected
from gateway.masking.hidden import Scans
from gateway.masking.ordering import settings
from gateway.masking.veil import Veil
from gateway.protocols.postgres import wire
from tests.gateway.masking.shop import HIDDEN
from tests.gateway.protocols.postgres import messages as pg
from tests.gateway.protocols.postgres.dialogue import (
    ALICE,
    CLIENT,
    TARGET,
    Dialogue,
    outcomes,
    requests,
    sent,
    signed_in,
)

ASKED = pg.query("select id from orders")


def veil(scans: Scans) -> Veil:
    return Veil(replace(HIDDEN, scans=scans))


@pytest.mark.parametrize("scans", ["any", "not alone", "none"])
def test_a_session_begins_with_what_keeps_order_from_telling(scans: Scans) -> None:
    talk = Dialogue(veil=lambda: veil(scans))
    talk.client(pg.startup(user="alice", database="shop", datestyle="ISO"), pg.password("token"))
    talk.handle(Authenticated(ALICE))
    talk.decided(1)
    given = wire.read_parameters(sent(talk.handle(TargetConnected()), TARGET)[8:])
    assert given.items() >= {**settings(scans), "datestyle": "ISO"}.items()
    assert ("enable_indexscan" in given) is (scans == "none")


def test_whoever_sees_everything_begins_with_nothing_more() -> None:
    talk = Dialogue()
    talk.client(pg.startup(user="alice", database="shop"), pg.password("token"))
    talk.handle(Authenticated(ALICE))
    talk.decided(1)
    given = wire.read_parameters(sent(talk.handle(TargetConnected()), TARGET)[8:])
    assert given.keys() == {"user", "database"}


@pytest.mark.parametrize(
    ("before", "now"),
    [
        (veil("any"), veil("none")),
        (None, veil("not alone")),
        # Now it could be set, and be due again later.
        (veil("none"), veil("any")),
        (veil("none"), None),
    ],
)
@pytest.mark.parametrize("asked", [ASKED, pg.parse("select 1") + pg.bind() + pg.SYNC])
def test_where_others_are_due_a_session_ends_before_anything_more_runs(
    before: Veil | None, now: Veil | None, asked: bytes
) -> None:
    veils = [before]
    talk = signed_in(veil=lambda: veils[-1])
    talk.allow(talk.client(ASKED))
    talk.record(talk.target(pg.columns("id"), pg.done("SELECT 0"), pg.ready()))
    veils.append(now)
    commands = talk.client(asked)
    commands += talk.record(commands)
    told = pg.fields(sent(commands, CLIENT))
    assert (told["C"], "connect again" in told["M"]) == ("57P01", True)
    assert sent(commands, TARGET) == b""
    assert talk.client(ASKED) == []


def test_what_runs_then_is_finished_first() -> None:
    veils = [veil("any")]
    talk = signed_in(veil=lambda: veils[-1])
    talk.allow(talk.client(ASKED))
    veils.append(veil("none"))
    (refused,) = requests(talk.client(ASKED))
    assert "connect again" in refused.unmasked
    commands = talk.target(pg.columns("id"), pg.done("SELECT 0"), pg.ready())
    commands += talk.record(commands)
    assert outcomes(commands) == [(2, "completed", ""), (3, "lost", "57P01")]
    assert sent(commands, TARGET) == b""


def test_while_nothing_is_known_nothing_runs_and_no_session_ends() -> None:
    veils = [veil("none")]
    talk = signed_in(veil=lambda: veils[-1])
    veils.append(Veil(None))
    (unknown,) = requests(talk.client(ASKED))
    assert unknown.unmasked
    veils.append(veil("none"))
    (known,) = requests(talk.client(ASKED))
    assert not known.unmasked
