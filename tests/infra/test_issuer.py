"""The development issuer's flows, as a client sees them, over TLS."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import jwt
import pytest

from tests.identity.issuing import REPOSITORY, Authority, IssuerProcess

CALLBACK = "http://127.0.0.1:50123/callback"
DEVICE_CODE = "urn:ietf:params:oauth:grant-type:device_code"
ALICE = "4f0c2a9e-6d1b-4a53-9e0f-7c35b1d2a801"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.create(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def issuer(
    authority: Authority, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[IssuerProcess]:
    with IssuerProcess(authority, tmp_path_factory.mktemp("state")) as process:
        yield process


@pytest.fixture
def http(issuer: IssuerProcess) -> Iterator[httpx.Client]:
    with issuer.client() as client:
        yield client


def challenge(verifier: str) -> str:
    digest = hashlib.sha256(verifier.encode()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


VERIFIER = secrets.token_urlsafe(48)


def request(**changes: str | None) -> dict[str, str]:
    parameters = {
        "response_type": "code",
        "client_id": "gatebook-cli",
        "redirect_uri": CALLBACK,
        "scope": "openid groups offline_access",
        "state": "the state",
        "nonce": "the nonce",
        "code_challenge": challenge(VERIFIER),
        "code_challenge_method": "S256",
    } | changes
    return {name: value for name, value in parameters.items() if value is not None}


def sent_to_callback(response: httpx.Response) -> dict[str, str]:
    assert response.status_code == 302, response.text
    target = urlsplit(response.headers["location"])
    assert target._replace(query="").geturl() == CALLBACK
    return {name: values[0] for name, values in parse_qs(target.query).items()}


def code_for(http: httpx.Client, user: str = "alice", **changes: str | None) -> str:
    answer = http.post("/authorize", data={**request(**changes), "user": user})
    return sent_to_callback(answer)["code"]


def redeem(http: httpx.Client, code: str, **changes: str | None) -> httpx.Response:
    form = {
        "grant_type": "authorization_code",
        "client_id": "gatebook-cli",
        "code": code,
        "redirect_uri": CALLBACK,
        "code_verifier": VERIFIER,
    } | changes
    return http.post("/token", data={k: v for k, v in form.items() if v is not None})


def refresh(http: httpx.Client, token: str) -> httpx.Response:
    form = {"grant_type": "refresh_token", "client_id": "gatebook-cli", "refresh_token": token}
    return http.post("/token", data=form)


def is_error(response: httpx.Response, error: str, status: int = 400) -> bool:
    assert (response.status_code, response.json()["error"]) == (status, error), response.text
    return True


def verified(http: httpx.Client, token: str, audience: str = "gatebook") -> dict[str, Any]:
    keys = {key["kid"]: jwt.PyJWK(key) for key in http.get("/jwks").json()["keys"]}
    key = keys[jwt.get_unverified_header(token)["kid"]]
    claims: dict[str, Any] = jwt.decode(
        token, key, ["ES256"], audience=audience, issuer=str(http.base_url).rstrip("/")
    )
    return claims


def test_discovery_names_what_is_served(issuer: IssuerProcess, http: httpx.Client) -> None:
    document = http.get("/.well-known/openid-configuration").json()
    assert document["issuer"] == issuer.url == f"https://localhost:{issuer.port}"
    assert document["code_challenge_methods_supported"] == ["S256"]
    for name in ("authorization_endpoint", "token_endpoint", "jwks_uri"):
        assert document[name].startswith(issuer.url + "/")
    assert http.get(document["jwks_uri"]).json()["keys"]
    assert http.get("/healthz").json()["status"] == "ok"


def test_published_keys_hold_nothing_private(http: httpx.Client) -> None:
    for key in http.get("/jwks").json()["keys"]:
        assert set(key) == {"kty", "crv", "x", "y", "kid", "use", "alg"}


def test_authorization_code_with_pkce(issuer: IssuerProcess, http: httpx.Client) -> None:
    page = http.get("/authorize", params=request())
    assert page.status_code == 200
    assert "Development only" in page.text
    for person in ("alice", "bob", "carol", "dave", "mallory"):
        assert f'value="{person}"' in page.text
    answer = sent_to_callback(http.post("/authorize", data={**request(), "user": "alice"}))
    assert answer["state"] == "the state"
    response = redeem(http, answer["code"])
    assert response.status_code == 200
    assert response.headers["cache-control"] == "no-store"
    token = response.json()
    assert token["token_type"] == "Bearer"

    access = verified(http, token["access_token"])
    assert jwt.get_unverified_header(token["access_token"])["typ"] == "at+jwt"
    assert access["sub"] == ALICE
    assert access["aud"] == ["gatebook"]
    assert access["preferred_username"] == "alice"
    assert access["groups"] == ["support"]
    assert access["email"] == "alice@example.com"
    assert access["client_id"] == "gatebook-cli"
    assert access["exp"] - access["iat"] == token["expires_in"] == 3600
    assert access["nbf"] == access["iat"]
    assert access["jti"]

    identity = verified(http, token["id_token"], audience="gatebook-cli")
    assert identity["sub"] == ALICE
    assert identity["nonce"] == "the nonce"
    assert identity["azp"] == "gatebook-cli"
    digest = hashlib.sha256(token["access_token"].encode()).digest()[:16]
    assert identity["at_hash"] == base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def test_tokens_fit_into_the_passwords_of_old_clients(issuer: IssuerProcess) -> None:
    """pgjdbc takes 1,100 bytes, psql 15 about 5,000."""
    tokens = issuer.demo("token", user="mallory")
    assert len(str(tokens["access_token"])) < 1000
    assert len(str(tokens["id_token"])) < 1000


@pytest.mark.parametrize(
    ("verifier", "error"),
    [
        (None, "invalid_request"),
        ("", "invalid_request"),
        ("x" * 64, "invalid_grant"),
        (challenge(VERIFIER), "invalid_grant"),
        (VERIFIER + "x", "invalid_grant"),
        ("short", "invalid_request"),
    ],
)
def test_a_wrong_verifier_gets_nothing_and_burns_the_code(
    http: httpx.Client, verifier: str | None, error: str
) -> None:
    code = code_for(http)
    assert is_error(redeem(http, code, code_verifier=verifier), error)
    assert is_error(redeem(http, code), "invalid_grant")


@pytest.mark.parametrize(
    "changes",
    [
        {"code_challenge": None},
        {"code_challenge_method": None},
        {"code_challenge_method": "plain"},
        {"code_challenge_method": "s256"},
        {"code_challenge": "short"},
        {"code_challenge": None, "code_challenge_method": None},
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_no_code_without_a_proper_challenge(
    http: httpx.Client, changes: dict[str, str | None], method: str
) -> None:
    parameters = request(**changes)
    if method == "GET":
        response = http.get("/authorize", params=parameters)
    else:
        response = http.post("/authorize", data={**parameters, "user": "alice"})
    answer = sent_to_callback(response)
    assert answer["error"] == "invalid_request"
    assert answer["state"] == "the state"
    assert "code" not in answer


@pytest.mark.parametrize(
    "redirect_uri",
    [
        None,
        "",
        "http://localhost:50123/callback",
        "https://127.0.0.1:50123/callback",
        "http://127.0.0.1:50123/callback/",
        "http://127.0.0.1:50123/callback?x=1",
        "http://127.0.0.1:50123/callback#x",
        "http://127.0.0.1:50123/other",
        "http://127.0.0.1/callback",
        "http://127.0.0.1:0/callback",
        "http://127.0.0.1:65536/callback",
        "http://127.0.0.1:50123@evil.example/callback",
        "http://user@127.0.0.1:50123/callback",
        "http://127.0.0.1.evil.example:50123/callback",
        "http://127.0.0.1:50123\\@evil.example/callback",
        "http://127.0.0.1:٥٠١٢٣/callback",
        "HTTP://127.0.0.1:50123/callback",
        "http://127.0.0.1:50123/callback\n",
        "javascript:alert(1)//127.0.0.1:50123/callback",
    ],
)
def test_a_code_goes_to_the_registered_address_only(
    http: httpx.Client, redirect_uri: str | None
) -> None:
    parameters = request(redirect_uri=redirect_uri)
    for response in (
        http.get("/authorize", params=parameters),
        http.post("/authorize", data={**parameters, "user": "alice"}),
    ):
        assert response.status_code == 400
        assert "location" not in response.headers


@pytest.mark.parametrize(
    "redirect_uri", [None, "", "http://127.0.0.1:50124/callback", "https://evil.example/"]
)
def test_a_code_is_redeemed_with_the_address_it_went_to(
    http: httpx.Client, redirect_uri: str | None
) -> None:
    code = code_for(http)
    assert is_error(redeem(http, code, redirect_uri=redirect_uri), "invalid_grant")


def test_a_code_is_redeemed_once_and_a_second_time_ends_what_it_gave(http: httpx.Client) -> None:
    code = code_for(http)
    first = redeem(http, code).json()
    second = refresh(http, first["refresh_token"]).json()
    assert is_error(redeem(http, code), "invalid_grant")
    assert is_error(refresh(http, second["refresh_token"]), "invalid_grant")


def test_declining_tells_the_client(http: httpx.Client) -> None:
    answer = sent_to_callback(http.post("/authorize", data={**request(), "user": ""}))
    assert answer["error"] == "access_denied"
    assert "code" not in answer


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"client_id": "nobody"}, "page"),
        ({"client_id": None}, "page"),
        ({"client_id": "gatebook-agent"}, "page"),
        ({"response_type": "token"}, "callback"),
        ({"response_type": "code id_token"}, "callback"),
        ({"response_type": '"<script>'}, "page"),
        ({"scope": "openid everything"}, "callback"),
    ],
)
def test_other_bad_authorization_requests(
    http: httpx.Client, changes: dict[str, str | None], where: str
) -> None:
    response = http.get("/authorize", params=request(**changes))
    if where == "callback":
        assert "error" in sent_to_callback(response)
    else:
        assert response.status_code == 400
        assert "<script>" not in response.text


def test_what_the_client_sends_cannot_become_markup(http: httpx.Client) -> None:
    page = http.get("/authorize", params=request(state='"><script>alert(1)</script>'))
    assert page.status_code == 200
    assert "<script>" not in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]
    page = http.get("/device", params={"user_code": '"><script>'})
    assert "<script>" not in page.text


def test_an_unknown_person_cannot_sign_in(http: httpx.Client) -> None:
    assert http.post("/authorize", data={**request(), "user": "eve"}).status_code == 400


def test_a_repeated_parameter_is_refused(http: httpx.Client) -> None:
    code = code_for(http)
    body = (
        f"grant_type=authorization_code&client_id=gatebook-cli&code={code}&code_verifier={VERIFIER}"
        f"&redirect_uri={CALLBACK}&redirect_uri=https://evil.example/"
    )
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    assert is_error(http.post("/token", content=body, headers=form), "invalid_request")


def test_another_client_cannot_redeem(issuer: IssuerProcess, http: httpx.Client) -> None:
    code = code_for(http)
    form = {"grant_type": "authorization_code", "code": code, "redirect_uri": CALLBACK}
    agent = ("gatebook-agent", agent_secret(issuer))
    response = http.post("/token", data=form | {"code_verifier": VERIFIER}, auth=agent)
    assert response.status_code in (400, 401)
    assert redeem(http, code).status_code == 200


def test_refresh_tokens_rotate_and_a_replay_ends_them_all(http: httpx.Client) -> None:
    first = redeem(http, code_for(http)).json()["refresh_token"]
    answer = refresh(http, first)
    assert answer.status_code == 200
    assert verified(http, answer.json()["access_token"])["preferred_username"] == "alice"
    assert "nonce" not in verified(http, answer.json()["id_token"])
    second = answer.json()["refresh_token"]
    assert second != first
    third = refresh(http, second).json()["refresh_token"]
    assert is_error(refresh(http, first), "invalid_grant")
    assert is_error(refresh(http, third), "invalid_grant")
    assert is_error(refresh(http, "invented"), "invalid_grant")


def agent_secret(issuer: IssuerProcess) -> str:
    document = json.loads((issuer.folder / "clients.json").read_text())
    return str(document["gatebook-agent"]["client_secret"])


@pytest.mark.parametrize("how", ["basic", "post"])
def test_client_credentials(issuer: IssuerProcess, http: httpx.Client, how: str) -> None:
    form = {"grant_type": "client_credentials"}
    secret = agent_secret(issuer)
    if how == "basic":
        response = http.post("/token", data=form, auth=("gatebook-agent", secret))
    else:
        form |= {"client_id": "gatebook-agent", "client_secret": secret}
        response = http.post("/token", data=form)
    token = response.json()
    assert "refresh_token" not in token
    assert "id_token" not in token
    claims = verified(http, token["access_token"])
    assert claims["sub"] == claims["client_id"] == "gatebook-agent"
    assert claims["groups"] == ["agents"]


@pytest.mark.parametrize(
    ("client_id", "secret"),
    [
        ("gatebook-agent", "wrong"),
        ("gatebook-agent", ""),
        ("gatebook-agent", "ключ"),
        ("nobody", "wrong"),
        ("gatebook-cli", ""),
    ],
)
def test_wrong_client_credentials(http: httpx.Client, client_id: str, secret: str) -> None:
    for response in (
        http.post("/token", data={"grant_type": "client_credentials"}, auth=(client_id, secret)),
        http.post(
            "/token",
            data={
                "grant_type": "client_credentials",
                "client_id": client_id,
                "client_secret": secret,
            },
        ),
    ):
        assert response.status_code in (400, 401)
        assert response.json()["error"] == "invalid_client"


def device(http: httpx.Client, client_id: str = "gatebook-cli") -> dict[str, Any]:
    response = http.post("/device_authorization", data={"client_id": client_id, "scope": "openid"})
    assert response.status_code == 200
    document: dict[str, Any] = response.json()
    return document


def poll(http: httpx.Client, device_code: str) -> httpx.Response:
    form = {"grant_type": DEVICE_CODE, "client_id": "gatebook-cli", "device_code": device_code}
    return http.post("/token", data=form)


def test_device_code(issuer: IssuerProcess, http: httpx.Client) -> None:
    started = device(http)
    assert started["verification_uri"] == f"{issuer.url}/device"
    assert started["interval"] == 5
    assert is_error(poll(http, started["device_code"]), "authorization_pending")
    assert is_error(poll(http, started["device_code"]), "slow_down")
    page = http.get(started["verification_uri_complete"])
    assert started["user_code"] in page.text
    typed = started["user_code"].lower().replace("-", "")
    assert http.post("/device", data={"user_code": typed, "user": "bob"}).status_code == 200
    token = poll(http, started["device_code"]).json()
    assert verified(http, token["access_token"])["groups"] == ["dba"]
    assert verified(http, token["id_token"])["preferred_username"] == "bob"
    assert refresh(http, token["refresh_token"]).status_code == 200
    assert is_error(poll(http, started["device_code"]), "invalid_grant")


def test_a_device_that_is_declined(http: httpx.Client) -> None:
    started = device(http)
    http.post("/device", data={"user_code": started["user_code"], "user": ""})
    assert is_error(poll(http, started["device_code"]), "access_denied")
    again = http.post("/device", data={"user_code": started["user_code"], "user": "alice"})
    assert again.status_code == 400
    assert is_error(poll(http, started["device_code"]), "access_denied")


def test_unknown_device_codes(http: httpx.Client) -> None:
    assert is_error(poll(http, "invented"), "invalid_grant")
    response = http.post("/device", data={"user_code": "BCDF-GHJK", "user": "alice"})
    assert response.status_code == 400


def test_only_the_public_client_may_start_a_device(http: httpx.Client) -> None:
    response = http.post("/device_authorization", data={"client_id": "gatebook-agent"})
    assert is_error(response, "invalid_client")


@pytest.mark.parametrize("grant_type", [None, "", "password", "implicit", "nonsense\x00"])
def test_other_grants_do_not_exist(http: httpx.Client, grant_type: str | None) -> None:
    form = {"client_id": "gatebook-cli", "username": "alice", "password": "x"}
    response = http.post("/token", data=form | ({"grant_type": grant_type} if grant_type else {}))
    assert response.status_code == 400
    assert response.json()["error"] in ("unsupported_grant_type", "invalid_request")


@pytest.mark.parametrize("action", ["token", "rotate", "revoke"])
@pytest.mark.parametrize(
    "authorization",
    [None, "Bearer", "Bearer wrong", "Basic {secret}", "{secret}", "Bearer {secret}x"],
)
def test_demo_endpoints_need_the_secret(
    issuer: IssuerProcess, http: httpx.Client, action: str, authorization: str | None
) -> None:
    secret = (issuer.folder / "demo-secret").read_text()
    assert len(secret) >= 40
    headers = {"Authorization": authorization.format(secret=secret)} if authorization else {}
    before = http.get("/jwks").json()
    response = http.post(f"/demo/{action}", data={"user": "bob", "kid": "current"}, headers=headers)
    assert is_error(response, "invalid_token", 401)
    assert http.get("/jwks").json() == before


def test_demo_token(issuer: IssuerProcess, http: httpx.Client) -> None:
    answer = issuer.demo("token", user="carol", expires_in="120", audience="elsewhere")
    assert answer["expires_in"] == 120
    claims = verified(http, str(answer["access_token"]), audience="elsewhere")
    assert claims["groups"] == ["auditors"]
    assert claims["exp"] - claims["iat"] == 120
    expired = str(issuer.demo("token", user="carol", expires_in="-30")["access_token"])
    with pytest.raises(jwt.ExpiredSignatureError):
        verified(http, expired)


@pytest.mark.parametrize(
    "form",
    [
        {},
        {"user": "eve"},
        {"user": "bob", "expires_in": "soon"},
        {"user": "bob", "expires_in": "9" * 30},
        {"user": "bob", "expires_in": "9" * 5000},
    ],
)
def test_demo_token_refuses_nonsense(issuer: IssuerProcess, form: dict[str, str]) -> None:
    with pytest.raises(httpx.HTTPStatusError, match="400"):
        issuer.demo("token", **form)


def test_rotation_keeps_and_revocation_removes(authority: Authority, tmp_path: Path) -> None:
    with IssuerProcess(authority, tmp_path) as own, own.client() as http:
        first = own.token("alice")
        new = own.demo("rotate")["kid"]
        second = own.token("alice")
        assert jwt.get_unverified_header(second)["kid"] == new
        assert verified(http, first)["sub"] == verified(http, second)["sub"] == ALICE

        own.demo("revoke", kid="current")
        kids = {key["kid"] for key in http.get("/jwks").json()["keys"]}
        assert new not in kids
        third = own.token("alice")
        assert jwt.get_unverified_header(third)["kid"] in kids

        own.demo("revoke", kid=jwt.get_unverified_header(first)["kid"])
        with pytest.raises(KeyError):
            verified(http, first)
        with pytest.raises(httpx.HTTPStatusError, match="404"):
            own.demo("revoke", kid="invented")
        for _ in range(25):
            own.demo("rotate")
        assert len(http.get("/jwks").json()["keys"]) == 20
        kept = http.get("/jwks").json()
        secret = agent_secret(own)
    with IssuerProcess(authority, tmp_path) as restarted, restarted.client() as http:
        assert http.get("/jwks").json() == kept
        assert agent_secret(restarted) == secret


def test_state_is_private(issuer: IssuerProcess) -> None:
    assert stat.S_IMODE(issuer.folder.stat().st_mode) == 0o700
    files = {file.name: stat.S_IMODE(file.stat().st_mode) for file in issuer.folder.iterdir()}
    assert files == {"keys.json": 0o600, "clients.json": 0o600, "demo-secret": 0o600}


def test_other_sites_and_other_names_are_turned_away(
    issuer: IssuerProcess, http: httpx.Client
) -> None:
    form = {**request(), "user": "alice"}
    foreign = {"Origin": "https://evil.example"}
    assert http.post("/authorize", data=form, headers=foreign).status_code == 403
    assert http.post("/device", data={"user": "bob"}, headers={"Origin": "null"}).status_code == 403
    own = {"Origin": issuer.url}
    assert http.post("/authorize", data=form, headers=own).status_code == 302
    rebound = {"Host": f"evil.example:{issuer.port}"}
    assert http.get("/healthz", headers=rebound).status_code == 421


@pytest.mark.parametrize(
    "body", [b"x" * 70_000, b"\xff\xfe", b"a=%ff", b"&".join(b"a%d=" % n for n in range(60))]
)
def test_bodies_that_are_no_form(http: httpx.Client, body: bytes) -> None:
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    assert http.post("/token", content=body, headers=form).status_code == 400


def test_a_body_is_bounded(issuer: IssuerProcess) -> None:
    assert issuer.token("bob", padding="x" * 60_000)
    with pytest.raises(httpx.HTTPStatusError, match="400"):
        issuer.token("bob", padding="x" * 66_000)


def test_no_secret_is_in_the_output_or_the_arguments(issuer: IssuerProcess) -> None:
    """Last in the file: every flow above has run through this process."""
    with issuer.client() as http:
        code = code_for(http)
        token = redeem(http, code).json()
        asked = device(http)
    printed = "".join(issuer.output)
    assert '"path": "/token"' in printed
    arguments = Path(f"/proc/{issuer.process.pid}/cmdline").read_text()
    environment = Path(f"/proc/{issuer.process.pid}/environ").read_text()
    for secret in (
        code,
        token["access_token"],
        token["id_token"].rpartition(".")[2],
        token["refresh_token"],
        asked["device_code"],
        asked["user_code"],
        VERIFIER,
        agent_secret(issuer),
        (issuer.folder / "demo-secret").read_text(),
    ):
        assert secret not in printed
        assert secret not in arguments
        assert secret not in environment
    assert "eyJ" not in printed


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.com", ""])
def test_it_binds_loopback_only(authority: Authority, tmp_path: Path, host: str) -> None:
    result = subprocess.run(
        [
            sys.executable, "-m", "infra.devstack.issuer", "--state-dir", str(tmp_path),
            "--host", host, "--port", "0", "--certificate", str(authority.certificate),
            "--private-key", str(authority.private_key),
        ],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert result.returncode == 2
    assert "cannot_start" in result.stdout
    assert not (tmp_path / "issuer").exists()


def test_it_starts_and_stops_quickly(authority: Authority, tmp_path: Path) -> None:
    started = time.monotonic()
    process = IssuerProcess(authority, tmp_path)
    with process.client() as http:
        assert http.get("/healthz").status_code == 200
        ready = time.monotonic() - started
        # Measured 0.5 s; the tests share two cores with others.
        assert ready < 3
        # One connection is still open.
        process.stop()
    assert process.process.returncode == -signal.SIGTERM
    assert "Traceback" not in "".join(process.output)
