"""The authenticator against the development issuer itself, a process of its own, over TLS."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from gateway.identity.oidc import OidcAuthenticator
from gateway.identity.principal import Reason, Refused
from infra.devstack.issuer.people import PEOPLE
from schemas.settings import Oidc
from tests.identity.conftest import Clocks, Gate, MakeGate
from tests.identity.issuing import Authority, IssuerProcess


def gate_for(issuer: IssuerProcess, make_gate: MakeGate, wall: float | None = None) -> Gate:
    settings = Oidc(issuer=issuer.url, ca_file=issuer.authority.ca)
    return make_gate(settings, Clocks(wall=time.time() if wall is None else wall))


async def reason(gate: Gate, token: str) -> Reason:
    with pytest.raises(Refused) as caught:
        await gate.authenticator.authenticate(token)
    return caught.value.reason


@pytest.fixture
def own_issuer(authority: Authority, state_dir: Path) -> Iterator[IssuerProcess]:
    """One whose keys the test may rotate and revoke."""
    with IssuerProcess(authority, state_dir) as process:
        yield process


@pytest.mark.parametrize("username", sorted(PEOPLE))
@pytest.mark.parametrize("kind", ["access_token", "id_token"])
async def test_everyone_is_recognised_by_either_token(
    issuer: IssuerProcess, make_gate: MakeGate, username: str, kind: str
) -> None:
    gate = gate_for(issuer, make_gate)
    principal = await gate.authenticator.authenticate(
        str(issuer.demo("token", user=username)[kind])
    )
    person = PEOPLE[username]
    assert principal.issuer == issuer.url
    assert principal.subject == person.subject
    assert principal.name == username
    assert principal.groups == person.groups
    assert principal.actor_type == "person"
    assert principal.agent is None
    assert principal.token_id


async def test_a_program_signs_in_as_a_service(issuer: IssuerProcess, make_gate: MakeGate) -> None:
    import json

    secret = json.loads((issuer.folder / "clients.json").read_text())["gatebook-agent"]
    with issuer.client() as client:
        answer = client.post(
            "/token",
            data={"grant_type": "client_credentials"},
            auth=("gatebook-agent", secret["client_secret"]),
        ).json()
    principal = await gate_for(issuer, make_gate).authenticator.authenticate(answer["access_token"])
    assert (principal.subject, principal.actor_type) == ("gatebook-agent", "service")
    assert principal.groups == ("agents",)


async def test_expired_and_not_yet_valid(issuer: IssuerProcess, make_gate: MakeGate) -> None:
    gate = gate_for(issuer, make_gate)
    assert await reason(gate, issuer.token("alice", expires_in="-10")) == Reason.EXPIRED
    token = issuer.token("alice", expires_in="60")
    await gate.authenticator.authenticate(token)
    gate.clocks.wall += 70
    assert await reason(gate, token) == Reason.EXPIRED
    early = gate_for(issuer, make_gate, wall=time.time() - 3600)
    assert await reason(early, token) == Reason.NOT_YET_VALID


async def test_another_audience(issuer: IssuerProcess, make_gate: MakeGate) -> None:
    gate = gate_for(issuer, make_gate)
    assert await reason(gate, issuer.token("bob", audience="payroll")) == Reason.WRONG_AUDIENCE


async def test_another_issuer(
    issuer: IssuerProcess, own_issuer: IssuerProcess, make_gate: MakeGate
) -> None:
    gate = gate_for(issuer, make_gate)
    assert await reason(gate, own_issuer.token("alice")) == Reason.WRONG_ISSUER


async def test_rotation_is_seamless_and_revocation_ends_what_was_signed(
    own_issuer: IssuerProcess, make_gate: MakeGate
) -> None:
    gate = gate_for(own_issuer, make_gate)
    before = own_issuer.token("alice")
    principal = await gate.authenticator.authenticate(before)
    own_issuer.demo("rotate")
    gate.clocks.advance(2)
    after = own_issuer.token("alice")
    assert (await gate.authenticator.authenticate(after)).key_id != principal.key_id
    assert await gate.authenticator.authenticate(before) == principal

    assert principal.key_id is not None
    own_issuer.demo("revoke", kid=principal.key_id)
    gate.clocks.advance(10)
    assert await reason(gate, before) == Reason.UNKNOWN_KEY
    await gate.authenticator.authenticate(after)

    own_issuer.demo("revoke", kid="current")
    gate.clocks.advance(10)
    assert await reason(gate, after) == Reason.UNKNOWN_KEY
    await gate.authenticator.authenticate(own_issuer.token("alice"))


async def test_down_at_start_then_up_by_itself(
    authority: Authority, state_dir: Path, make_gate: MakeGate
) -> None:
    with IssuerProcess(authority, state_dir) as first:
        token = first.token("alice")
        port = first.port
    gate = gate_for(first, make_gate)
    assert await reason(gate, token) == Reason.ISSUER_UNREACHABLE
    with IssuerProcess(authority, state_dir, port):
        gate.clocks.advance(1)
        assert (await gate.authenticator.authenticate(token)).name == "alice"
    # And down again, which changes nothing for whoever signs in next.
    gate.clocks.advance(60)
    assert (await gate.authenticator.authenticate(token)).name == "alice"


async def test_signing_in_is_cheap(issuer: IssuerProcess) -> None:
    authenticator = OidcAuthenticator(
        Oidc(issuer=issuer.url, ca_file=issuer.authority.ca), registry=CollectorRegistry()
    )
    tokens = [issuer.token("alice") for _ in range(20)]
    await authenticator.authenticate(tokens[0])
    started = time.perf_counter()
    for token in tokens[1:]:
        await authenticator.authenticate(token)
    first = (time.perf_counter() - started) / len(tokens[1:])
    started = time.perf_counter()
    for _ in range(10):
        for token in tokens:
            await authenticator.authenticate(token)
    again = (time.perf_counter() - started) / len(tokens) / 10
    await authenticator.aclose()
    # Generous: the point is that neither fetches anything, and that a session pool's second
    # sign-in with the same token does no public-key arithmetic.
    assert first < 0.02
    assert again < first
