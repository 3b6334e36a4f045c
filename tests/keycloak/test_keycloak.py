"""Sign-in with the tokens of a real Keycloak (`make test-keycloak`)."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import jwt
import pytest
from prometheus_client import CollectorRegistry

from gateway.identity.oidc import OidcAuthenticator
from gateway.identity.principal import Reason, Refused
from schemas.settings import Oidc
from tests.keycloak.conftest import Keycloak

pytestmark = pytest.mark.keycloak


@pytest.fixture
async def authenticator(keycloak: Keycloak) -> AsyncIterator[OidcAuthenticator]:
    made = OidcAuthenticator(
        Oidc(issuer=keycloak.issuer(), ca_file=keycloak.authority.ca, jwks_refresh_s=0.2),
        registry=CollectorRegistry(),
    )
    yield made
    await made.aclose()


async def reason(authenticator: OidcAuthenticator, token: str) -> Reason:
    with pytest.raises(Refused) as caught:
        await authenticator.authenticate(token)
    return caught.value.reason


@pytest.mark.parametrize(
    ("user", "groups"), [("alice", ("support",)), ("bob", ("dba",)), ("mallory", ())]
)
@pytest.mark.parametrize("kind", ["access_token", "id_token"])
async def test_people_are_recognised(
    keycloak: Keycloak,
    authenticator: OidcAuthenticator,
    user: str,
    groups: tuple[str, ...],
    kind: str,
) -> None:
    principal = await authenticator.authenticate(keycloak.sign_in(user)[kind])
    assert principal.issuer == keycloak.issuer()
    assert (principal.name, principal.groups) == (user, groups)
    assert principal.actor_type == "person"
    assert principal.subject != user
    assert 0 < principal.expires_at - time.time() <= 300


async def test_a_service_account_is_a_service(
    keycloak: Keycloak, authenticator: OidcAuthenticator
) -> None:
    principal = await authenticator.authenticate(keycloak.agent())
    assert principal.actor_type == "service"
    assert principal.name == "service-account-gatebook-agent"


async def test_a_token_of_another_realm_is_refused(
    keycloak: Keycloak, authenticator: OidcAuthenticator
) -> None:
    token = keycloak.sign_in("bob", realm="elsewhere")["access_token"]
    assert await reason(authenticator, token) == Reason.WRONG_ISSUER


async def test_a_token_for_another_application_is_refused(
    keycloak: Keycloak, authenticator: OidcAuthenticator
) -> None:
    answer = keycloak.sign_in("bob", client_id="other-app")
    # Without an audience mapper Keycloak's access token names no audience at all.
    assert await reason(authenticator, answer["access_token"]) == Reason.MISSING_CLAIM
    assert await reason(authenticator, answer["id_token"]) == Reason.WRONG_AUDIENCE


async def test_a_refresh_token_is_no_credential(
    keycloak: Keycloak, authenticator: OidcAuthenticator
) -> None:
    token = keycloak.sign_in("bob")["refresh_token"]
    assert await reason(authenticator, token) == Reason.ALGORITHM_NOT_ALLOWED


async def eventually_refused(authenticator: OidcAuthenticator, token: str) -> Reason:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            await authenticator.authenticate(token)
        except Refused as refused:
            return refused.reason
    raise AssertionError("still accepted")


@pytest.mark.parametrize("algorithm", ["RS256", "ES256"])
async def test_rotated_keys_are_accepted_and_removed_ones_refused(
    keycloak: Keycloak, authenticator: OidcAuthenticator, algorithm: str
) -> None:
    def sign_in() -> str:
        return keycloak.sign_in("alice")["access_token"]

    keycloak.sign_with(algorithm)
    keycloak.add_key(300, algorithm)
    before = sign_in()
    await authenticator.authenticate(before)
    newest = keycloak.add_key(400, algorithm)
    after = sign_in()
    headers = [jwt.get_unverified_header(token) for token in (before, after)]
    assert [header["alg"] for header in headers] == [algorithm, algorithm]
    assert headers[0]["kid"] != headers[1]["kid"]
    assert (await authenticator.authenticate(after)).name == "alice"
    await authenticator.authenticate(before)

    keycloak.remove_key(newest)
    assert await eventually_refused(authenticator, after) == Reason.UNKNOWN_KEY
    await authenticator.authenticate(before)
    await authenticator.authenticate(sign_in())
