"""Forged and misused tokens, over real TLS, against an issuer with RSA, EC and Ed25519 keys."""

from __future__ import annotations

import base64
import io
import json
import logging
import traceback
from collections.abc import Callable
from typing import Any

import jwt
import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.identity.principal import Reason, Refused
from tests.identity.conftest import Gate, MakeGate
from tests.identity.hostile import (
    EC,
    ED,
    NOW,
    OTHER_EC,
    OTHER_RSA,
    RSA,
    HostileIssuer,
    b64,
    hmac_token,
    jwk,
    public_pem,
)

Forge = Callable[[HostileIssuer], str]


@pytest.fixture
def gate(hostile: HostileIssuer, make_gate: MakeGate) -> Gate:
    return make_gate(hostile.settings())


async def refusal(gate: Gate, token: str) -> Refused:
    with pytest.raises(Refused) as caught:
        await gate.authenticator.authenticate(token)
    assert gate.count("authentications", caught.value.reason) == 1
    assert gate.count("authentications", "ok") == 0
    return caught.value


@pytest.mark.parametrize(
    ("key", "algorithm", "kid"),
    [(RSA, "RS256", "rsa"), (RSA, "PS256", "rsa"), (EC, "ES256", "ec"), (ED, "EdDSA", "ed")],
)
async def test_a_valid_token_of_each_kind_is_accepted(
    hostile: HostileIssuer, gate: Gate, key: Any, algorithm: str, kid: str
) -> None:
    principal = await gate.authenticator.authenticate(hostile.token(key, algorithm, {"kid": kid}))
    assert (principal.issuer, principal.subject, principal.name) == (hostile.url, "b7e6c1d4", "bob")
    assert principal.groups == ("dba",)
    assert principal.actor_type == "person"
    assert principal.expires_at == NOW + 300
    assert principal.token_id == "one"
    assert gate.count("authentications", "ok") == 1


def none_algorithm(it: HostileIssuer) -> str:
    return f"{b64({'alg': 'none', 'typ': 'JWT'})}.{b64(it.claims())}."


def none_in_capitals(it: HostileIssuer) -> str:
    return f"{b64({'alg': 'NoNe', 'kid': 'ec'})}.{b64(it.claims())}."


def none_with_a_signature(it: HostileIssuer) -> str:
    _, payload, signature = it.token().split(".")
    return f"{b64({'alg': 'none', 'kid': 'ec'})}.{payload}.{signature}"


def hs256_with_the_public_pem(it: HostileIssuer) -> str:
    return hmac_token({"alg": "HS256", "kid": "rsa"}, it.claims(), public_pem(RSA))


def hs256_with_the_public_modulus(it: HostileIssuer) -> str:
    secret = base64.urlsafe_b64decode(jwk(RSA, "rsa")["n"] + "==")
    return hmac_token({"alg": "HS256", "kid": "rsa"}, it.claims(), secret)


def signed_by_a_stranger(it: HostileIssuer) -> str:
    return it.token(OTHER_EC)


def changed_after_signing(it: HostileIssuer) -> str:
    header, _, signature = it.token().split(".")
    return f"{header}.{b64(it.claims(groups=['dba', 'auditors']))}.{signature}"


def header_changed_after_signing(it: HostileIssuer) -> str:
    _, payload, signature = it.token().split(".")
    return f"{b64({'alg': 'ES256', 'kid': 'ec', 'typ': 'at+jwt'})}.{payload}.{signature}"


def key_brought_along(it: HostileIssuer) -> str:
    return it.token(OTHER_EC, header={"kid": "ec", "jwk": jwk(OTHER_EC, "ec")})


def key_pointed_to(it: HostileIssuer) -> str:
    it.pages["/mine"] = {"keys": [jwk(OTHER_EC, "mine")]}
    header = {"kid": "mine", "jku": f"{it.url}/mine", "x5u": f"{it.url}/mine"}
    return it.token(OTHER_EC, header=header)


def kid_of_another_key(it: HostileIssuer) -> str:
    return it.token(EC, header={"kid": "rsa"})


def kid_as_a_path(it: HostileIssuer) -> str:
    return it.token(EC, header={"kid": "../../../../dev/null"})


def kid_left_out(it: HostileIssuer) -> str:
    it.publish(jwk(EC, "ec"), jwk(OTHER_EC, "other"))
    return it.token(EC, header={})


def kid_of_a_wrong_type(it: HostileIssuer) -> str:
    return f"{b64({'alg': 'ES256', 'kid': {'$ne': 1}})}.{b64(it.claims())}.{b64(b'x' * 64)}"


def rs256_kid_with_ps256_only(it: HostileIssuer) -> str:
    it.publish(jwk(RSA, "rsa", alg="PS256"))
    return it.token(RSA, "RS256", {"kid": "rsa"})


def encryption_key(it: HostileIssuer) -> str:
    it.publish(jwk(EC, "ec", use="enc"))
    return it.token()


def truncated_signature(it: HostileIssuer) -> str:
    return it.token()[:-8]


def empty_signature(it: HostileIssuer) -> str:
    return it.token().rpartition(".")[0] + "."


def der_signature(it: HostileIssuer) -> str:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA

    signing_input = it.token().rpartition(".")[0]
    return f"{signing_input}.{b64(EC.sign(signing_input.encode(), ECDSA(hashes.SHA256())))}"


def zero_signature(it: HostileIssuer) -> str:
    return f"{it.token().rpartition('.')[0]}.{b64(bytes(64))}"


def critical_extension(it: HostileIssuer) -> str:
    header = b64({"alg": "ES256", "kid": "ec", "crit": ["exp"], "exp": 1})
    return f"{header}.{b64(it.claims())}.{b64(b'x' * 64)}"


def unencoded_payload(it: HostileIssuer) -> str:
    header = b64({"alg": "ES256", "kid": "ec", "b64": False, "crit": ["b64"]})
    return f"{header}.{b64(it.claims())}.{b64(b'x' * 64)}"


def token_in_a_token(it: HostileIssuer) -> str:
    return jwt.api_jws.encode(it.token().encode(), EC, "ES256", headers={"kid": "ec", "cty": "JWT"})


def content_type_of_a_token(it: HostileIssuer) -> str:
    return it.token(header={"kid": "ec", "cty": "JWT"})


def signed_text_that_is_no_object(it: HostileIssuer) -> str:
    return jwt.api_jws.encode(b'["iss"]', EC, "ES256", headers={"kid": "ec"})


def encrypted_token(it: HostileIssuer) -> str:
    return (
        f"{b64({'alg': 'RSA-OAEP', 'enc': 'A256GCM'})}.{b64('k')}.{b64('i')}.{b64('c')}.{b64('t')}"
    )


def nesting_without_end(it: HostileIssuer) -> str:
    header = b64('{"alg":' + "[" * 40_000)
    return f"{header}.{b64(it.claims())}.{b64(b'x')}"


def nested_claims_without_end(it: HostileIssuer) -> str:
    payload = '{"iss":"' + it.url + '","a":' + "[" * 30_000 + "]" * 1 + "}"
    return f"{b64({'alg': 'ES256', 'kid': 'ec'})}.{b64(payload)}.{b64(b'x' * 64)}"


def other_characters(it: HostileIssuer) -> str:
    header, payload, signature = it.token().split(".")
    return f"{header}.{payload}.{signature[:10]}\n{signature[10:]}"


def standard_alphabet(it: HostileIssuer) -> str:
    header, payload, _ = it.token().split(".")
    return f"{header}.{payload}.{'+/' * 43}"


def not_a_token(_: HostileIssuer) -> str:
    return "correct horse battery staple"


def beyond_ascii(it: HostileIssuer) -> str:
    return it.token() + "\u0435"


def lone_surrogate(it: HostileIssuer) -> str:
    return it.token() + "\udcff"


def nothing(_: HostileIssuer) -> str:
    return ""


def too_large(it: HostileIssuer) -> str:
    return it.token(padding="x" * 70_000)


def logout_token(it: HostileIssuer) -> str:
    return it.token(header={"kid": "ec", "typ": "logout+jwt"})


def proof_of_possession(it: HostileIssuer) -> str:
    return it.token(header={"kid": "ec", "typ": "dpop+jwt", "jwk": jwk(EC, None)})


def type_that_is_no_text(it: HostileIssuer) -> str:
    return f"{b64({'alg': 'ES256', 'kid': 'ec', 'typ': 7})}.{b64(it.claims())}.{b64(b'x' * 64)}"


FORGERIES: list[tuple[Forge, Reason, str]] = [
    (none_algorithm, Reason.ALGORITHM_NOT_ALLOWED, "28P01"),
    (none_in_capitals, Reason.ALGORITHM_NOT_ALLOWED, "28P01"),
    (none_with_a_signature, Reason.ALGORITHM_NOT_ALLOWED, "28P01"),
    (hs256_with_the_public_pem, Reason.ALGORITHM_NOT_ALLOWED, "28P01"),
    (hs256_with_the_public_modulus, Reason.ALGORITHM_NOT_ALLOWED, "28P01"),
    (encrypted_token, Reason.MALFORMED, "28P01"),
    (signed_by_a_stranger, Reason.BAD_SIGNATURE, "28P01"),
    (changed_after_signing, Reason.BAD_SIGNATURE, "28P01"),
    (header_changed_after_signing, Reason.BAD_SIGNATURE, "28P01"),
    (key_brought_along, Reason.BAD_SIGNATURE, "28P01"),
    (key_pointed_to, Reason.UNKNOWN_KEY, "28P01"),
    (kid_of_another_key, Reason.ALGORITHM_NOT_ALLOWED, "28P01"),
    (kid_as_a_path, Reason.UNKNOWN_KEY, "28P01"),
    (kid_left_out, Reason.UNKNOWN_KEY, "28P01"),
    (kid_of_a_wrong_type, Reason.MALFORMED, "28P01"),
    (rs256_kid_with_ps256_only, Reason.ALGORITHM_NOT_ALLOWED, "28P01"),
    (encryption_key, Reason.UNKNOWN_KEY, "28P01"),
    (truncated_signature, Reason.BAD_SIGNATURE, "28P01"),
    (empty_signature, Reason.MALFORMED, "28P01"),
    (der_signature, Reason.BAD_SIGNATURE, "28P01"),
    (zero_signature, Reason.BAD_SIGNATURE, "28P01"),
    (critical_extension, Reason.MALFORMED, "28P01"),
    (unencoded_payload, Reason.MALFORMED, "28P01"),
    (token_in_a_token, Reason.MALFORMED, "28P01"),
    (content_type_of_a_token, Reason.MALFORMED, "28P01"),
    (signed_text_that_is_no_object, Reason.MALFORMED, "28P01"),
    (nesting_without_end, Reason.MALFORMED, "28P01"),
    (nested_claims_without_end, Reason.MALFORMED, "28P01"),
    (other_characters, Reason.MALFORMED, "28P01"),
    (standard_alphabet, Reason.MALFORMED, "28P01"),
    (not_a_token, Reason.MALFORMED, "28P01"),
    (beyond_ascii, Reason.MALFORMED, "28P01"),
    (lone_surrogate, Reason.MALFORMED, "28P01"),
    (nothing, Reason.MISSING_CREDENTIAL, "28P01"),
    (too_large, Reason.TOO_LARGE, "28P01"),
    (logout_token, Reason.WRONG_TYPE, "28000"),
    (proof_of_possession, Reason.WRONG_TYPE, "28000"),
    (type_that_is_no_text, Reason.WRONG_TYPE, "28000"),
]


@pytest.mark.parametrize(("forge", "reason", "sqlstate"), FORGERIES)
async def test_a_forgery_is_refused(
    hostile: HostileIssuer, gate: Gate, forge: Forge, reason: Reason, sqlstate: str
) -> None:
    refused = await refusal(gate, forge(hostile))
    assert (refused.reason, refused.sqlstate) == (reason, sqlstate)
    assert "/mine" not in hostile.requests


CLAIMS: list[tuple[dict[str, Any], Reason]] = [
    ({"iss": "https://localhost:1"}, Reason.WRONG_ISSUER),
    ({"iss": None}, Reason.MISSING_CLAIM),
    ({"iss": ["https://localhost:1"]}, Reason.WRONG_ISSUER),
    ({"aud": None}, Reason.MISSING_CLAIM),
    ({"aud": "other"}, Reason.WRONG_AUDIENCE),
    ({"aud": []}, Reason.WRONG_AUDIENCE),
    ({"aud": ["other", "gatebook2", "Gatebook"]}, Reason.WRONG_AUDIENCE),
    ({"aud": ["gatebook", 7]}, Reason.INVALID_CLAIM),
    ({"aud": {"gatebook": True}}, Reason.INVALID_CLAIM),
    ({"exp": None}, Reason.MISSING_CLAIM),
    ({"exp": int(NOW) - 6}, Reason.EXPIRED),
    ({"exp": int(NOW) - 5}, Reason.EXPIRED),
    ({"exp": -1}, Reason.EXPIRED),
    ({"exp": str(int(NOW) + 300)}, Reason.INVALID_CLAIM),
    ({"exp": True}, Reason.INVALID_CLAIM),
    ({"exp": [int(NOW) + 300]}, Reason.INVALID_CLAIM),
    ({"nbf": int(NOW) + 6}, Reason.NOT_YET_VALID),
    ({"nbf": "soon"}, Reason.INVALID_CLAIM),
    ({"iat": int(NOW) + 6}, Reason.NOT_YET_VALID),
    ({"iat": True}, Reason.INVALID_CLAIM),
    ({"sub": None}, Reason.MISSING_CLAIM),
    ({"sub": ""}, Reason.INVALID_CLAIM),
    ({"sub": 7}, Reason.INVALID_CLAIM),
    ({"sub": "x" * 256}, Reason.INVALID_CLAIM),
    ({"sub": "bob\n2026-01-01 admin signed in"}, Reason.INVALID_CLAIM),
    ({"sub": "bob\x00"}, Reason.INVALID_CLAIM),
    ({"preferred_username": "nimda\u202e"}, Reason.INVALID_CLAIM),
    ({"preferred_username": ["bob"]}, Reason.INVALID_CLAIM),
    ({"groups": "dba"}, Reason.INVALID_CLAIM),
    ({"groups": {"dba": True}}, Reason.INVALID_CLAIM),
    ({"groups": ["dba", 7]}, Reason.INVALID_CLAIM),
    ({"groups": [["dba"]]}, Reason.INVALID_CLAIM),
    ({"groups": [""]}, Reason.INVALID_CLAIM),
    ({"jti": 7}, Reason.INVALID_CLAIM),
    ({"act": "agent"}, Reason.INVALID_CLAIM),
    ({"act": {}}, Reason.INVALID_CLAIM),
    ({"act": {"sub": ["agent"]}}, Reason.INVALID_CLAIM),
    ({"cnf": {"jkt": "thumbprint"}}, Reason.SENDER_CONSTRAINED),
    (
        {"events": {"http://schemas.openid.net/event/backchannel-logout": {}}},
        Reason.WRONG_TYPE,
    ),
]


@pytest.mark.parametrize(("changes", "reason"), CLAIMS)
async def test_wrong_claims_are_refused_though_the_signature_is_right(
    hostile: HostileIssuer, gate: Gate, changes: dict[str, Any], reason: Reason
) -> None:
    payload = json.dumps(hostile.claims(**changes)).encode()
    refused = await refusal(gate, jwt.api_jws.encode(payload, EC, "ES256", headers={"kid": "ec"}))
    assert refused.reason == reason


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"1e999"])
async def test_an_expiry_that_is_no_number_never_outlives_time(
    hostile: HostileIssuer, gate: Gate, number: bytes
) -> None:
    payload = json.dumps(hostile.claims(exp=0)).encode().replace(b'"exp": 0', b'"exp": ' + number)
    refused = await refusal(gate, jwt.api_jws.encode(payload, EC, "ES256", headers={"kid": "ec"}))
    assert refused.reason == Reason.MALFORMED


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"aud": "gatebook"}, {}),
        ({"aud": ["other", "gatebook"]}, {}),
        ({"exp": int(NOW) - 4}, {"expires_at": NOW - 4}),
        ({"exp": NOW + 0.5}, {"expires_at": NOW + 0.5}),
        ({"nbf": None, "iat": None}, {}),
        ({"nbf": int(NOW) + 5}, {}),
        ({"groups": None}, {"groups": ()}),
        ({"groups": []}, {"groups": ()}),
        ({"groups": ["b", "a", "b"]}, {"groups": ("b", "a")}),
        ({"preferred_username": None}, {"name": "b7e6c1d4"}),
        ({"preferred_username": "Zoë"}, {"name": "Zoë"}),
        ({"jti": None}, {"token_id": None}),
        (
            {"act": {"sub": "reporter", "act": {"sub": "scheduler"}}},
            {"agent": "reporter", "actor_type": "agent"},
        ),
        ({"client_id": "b7e6c1d4"}, {"actor_type": "service"}),
        ({"azp": "b7e6c1d4"}, {"actor_type": "service"}),
        ({"client_id": "gatebook-cli"}, {"actor_type": "person"}),
        (
            {"client_id": "reporter", "preferred_username": "service-account-reporter"},
            {"actor_type": "service"},
        ),
        ({"preferred_username": "service-account-None"}, {"actor_type": "person"}),
    ],
)
async def test_what_a_principal_takes_from_the_claims(
    hostile: HostileIssuer, gate: Gate, changes: dict[str, Any], expected: dict[str, Any]
) -> None:
    principal = await gate.authenticator.authenticate(hostile.token(**changes))
    assert {name: getattr(principal, name) for name in expected} == expected


async def test_other_claims_can_be_named_in_the_settings(
    hostile: HostileIssuer, make_gate: MakeGate
) -> None:
    gate = make_gate(hostile.settings(groups_claim="https://example.com/roles", name_claim="email"))
    token = hostile.token(
        **{"https://example.com/roles": ["r1"], "email": "bob@example.com", "groups": "ignored"}
    )
    principal = await gate.authenticator.authenticate(token)
    assert (principal.name, principal.groups) == ("bob@example.com", ("r1",))


async def test_only_configured_algorithms_are_taken(
    hostile: HostileIssuer, make_gate: MakeGate
) -> None:
    gate = make_gate(hostile.settings(algorithms=["ES256"]))
    await gate.authenticator.authenticate(hostile.token())
    with pytest.raises(Refused) as caught:
        await gate.authenticator.authenticate(hostile.token(RSA, "RS256", {"kid": "rsa"}))
    assert caught.value.reason == Reason.ALGORITHM_NOT_ALLOWED


async def test_a_token_without_kid_is_taken_when_only_one_key_can_be_meant(
    hostile: HostileIssuer, gate: Gate
) -> None:
    hostile.publish(jwk(RSA, "rsa"), jwk(EC, None))
    assert (await gate.authenticator.authenticate(hostile.token(header={}))).name == "bob"


async def test_keys_that_share_a_kid_are_all_tried(hostile: HostileIssuer, gate: Gate) -> None:
    hostile.publish(jwk(OTHER_EC, "ec"), jwk(EC, "ec"), jwk(OTHER_RSA, "ec"), jwk(EC, "ec"))
    assert (await gate.authenticator.authenticate(hostile.token())).name == "bob"
    assert (await gate.authenticator.authenticate(hostile.token(OTHER_EC))).name == "bob"
    rsa_token = hostile.token(OTHER_RSA, "RS256", {"kid": "ec"})
    assert (await gate.authenticator.authenticate(rsa_token)).name == "bob"
    with pytest.raises(Refused):
        await gate.authenticator.authenticate(hostile.token(RSA, "RS256", {"kid": "ec"}))


async def test_a_stranger_with_wrong_issuer_causes_no_fetch(
    hostile: HostileIssuer, gate: Gate
) -> None:
    await refusal(gate, hostile.token(iss="https://localhost:1", header={"kid": "unheard of"}))
    assert hostile.requests == []


async def test_the_token_is_in_no_message_log_or_chain(
    hostile: HostileIssuer, make_gate: MakeGate, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    printed = io.StringIO()
    structlog.configure(logger_factory=structlog.WriteLoggerFactory(file=printed))
    keys = hostile.pages["/jwks"]
    try:
        accepted = hostile.token()
        principal = await make_gate(hostile.settings()).authenticator.authenticate(accepted)
        seen = [repr(principal)]
        presented = [accepted]
        for forge, _, _ in FORGERIES:
            hostile.pages["/jwks"] = keys
            token = forge(hostile)
            with pytest.raises(Refused) as caught:
                await make_gate(hostile.settings()).authenticator.authenticate(token)
            seen.append("".join(traceback.format_exception(caught.value)))
            seen.append(f"{caught.value!r} {caught.value.message}")
            assert caught.value.__cause__ is None
            assert caught.value.__context__ is None
            presented.append(token)
    finally:
        structlog.reset_defaults()
    everything = "\n".join([*seen, printed.getvalue(), caplog.text])
    assert "jwks_changed" in everything
    for token in presented:
        for part in token.split("."):
            assert len(part) < 20 or part not in everything


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
async def test_no_change_of_a_token_is_accepted(
    hostile: HostileIssuer, gate: Gate, data: st.DataObject
) -> None:
    token = hostile.token()
    at = data.draw(st.integers(0, len(token) - 1))
    width = data.draw(st.integers(0, 3))
    patch = data.draw(st.text("AZaz09-_.= \n\u00e9", max_size=3))
    changed = token[:at] + patch + token[at + width :]
    if changed == token:
        await gate.authenticator.authenticate(changed)
    else:
        with pytest.raises(Refused):
            await gate.authenticator.authenticate(changed)
