"""The issuer away, slow, broken or hostile; keys added, withdrawn and rotated."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest
from jwt.algorithms import ECAlgorithm

from gateway.identity.fetch import Fetcher, FetchError
from gateway.identity.oidc import OidcAuthenticator
from gateway.identity.principal import Principal, Reason, Refused
from schemas.settings import Oidc, SettingsError
from tests.identity.conftest import Gate, MakeGate
from tests.identity.hostile import (
    EC,
    ED,
    OTHER_EC,
    RSA,
    SHORT_RSA,
    HostileIssuer,
    b64,
    jwk,
    responding,
)
from tests.identity.issuing import Authority

DISCOVERY = "/.well-known/openid-configuration"


async def refused(gate: Gate, token: str) -> Reason:
    with pytest.raises(Refused) as caught:
        await gate.authenticator.authenticate(token)
    return caught.value.reason


async def fetched(gate: Gate) -> None:
    """Wait for the fetch that is under way, if one is."""
    task = gate.authenticator._source._task
    if task is not None:
        await asyncio.wait({task})


async def test_keys_are_fetched_once_for_many_sessions(
    hostile: HostileIssuer, make_gate: MakeGate
) -> None:
    gate = make_gate(hostile.settings())
    tokens = [hostile.token(jti=str(number)) for number in range(50)]
    await asyncio.gather(*(gate.authenticator.authenticate(token) for token in tokens))
    assert hostile.fetches() == 1
    assert gate.count("jwks_fetches", "ok") == 1


async def test_keys_are_fetched_again_when_they_are_old(
    hostile: HostileIssuer, make_gate: MakeGate
) -> None:
    gate = make_gate(hostile.settings(jwks_refresh_s=10))
    for seconds, fetches in [(0, 1), (9, 1), (1, 2), (5, 2), (100, 3)]:
        gate.clocks.advance(seconds)
        await gate.authenticator.authenticate(hostile.token())
        assert hostile.fetches() == fetches


async def test_a_refresh_shorter_than_a_fetch_takes_one_fetch_per_sign_in(
    hostile: HostileIssuer, make_gate: MakeGate
) -> None:
    gate = make_gate(hostile.settings(jwks_refresh_s=0.0001))
    gate.authenticator._source._monotonic = time.monotonic
    await gate.authenticator.authenticate(hostile.token())
    assert hostile.fetches() == 1


async def test_the_age_of_keys_counts_from_when_they_were_asked_for(
    hostile: HostileIssuer, make_gate: MakeGate
) -> None:
    gate = make_gate(hostile.settings(jwks_refresh_s=10))
    document = hostile.pages["/jwks"]

    async def slow(writer: asyncio.StreamWriter) -> None:
        gate.clocks.advance(9)
        hostile.pages["/jwks"] = document
        body = json.dumps(document).encode()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        await writer.drain()

    hostile.pages["/jwks"] = slow
    await gate.authenticator.authenticate(hostile.token())
    gate.clocks.advance(1)
    await gate.authenticator.authenticate(hostile.token())
    assert hostile.fetches() == 2


async def test_a_withdrawn_key_is_refused_from_the_next_fetch_on(
    hostile: HostileIssuer, make_gate: MakeGate
) -> None:
    gate = make_gate(hostile.settings(jwks_refresh_s=10))
    token = hostile.token()
    principal = await gate.authenticator.authenticate(token)
    hostile.publish(jwk(RSA, "rsa"))
    gate.clocks.advance(9)
    await gate.authenticator.authenticate(token)
    await gate.authenticator.recheck(principal)
    gate.clocks.advance(1)
    assert await refused(gate, token) == Reason.UNKNOWN_KEY
    with pytest.raises(Refused) as caught:
        await gate.authenticator.recheck(principal)
    assert caught.value.reason == Reason.UNKNOWN_KEY


async def test_a_key_replaced_under_its_own_kid_no_longer_verifies(
    hostile: HostileIssuer, make_gate: MakeGate
) -> None:
    gate = make_gate(hostile.settings())
    token = hostile.token()
    principal = await gate.authenticator.authenticate(token)
    hostile.publish(jwk(OTHER_EC, "ec"))
    gate.clocks.advance(10)
    assert await refused(gate, token) == Reason.BAD_SIGNATURE
    with pytest.raises(Refused):
        await gate.authenticator.recheck(principal)


async def test_all_keys_withdrawn_refuses_everything(
    hostile: HostileIssuer, make_gate: MakeGate
) -> None:
    gate = make_gate(hostile.settings())
    await gate.authenticator.authenticate(hostile.token())
    hostile.publish()
    gate.clocks.advance(10)
    assert await refused(gate, hostile.token()) == Reason.UNKNOWN_KEY
    assert await refused(gate, hostile.token(header={})) == Reason.UNKNOWN_KEY


async def test_a_new_key_is_fetched_at_once(hostile: HostileIssuer, make_gate: MakeGate) -> None:
    gate = make_gate(hostile.settings(jwks_refresh_s=3600))
    await gate.authenticator.authenticate(hostile.token())
    hostile.publish(jwk(EC, "ec"), jwk(OTHER_EC, "new"))
    gate.clocks.advance(2)
    await gate.authenticator.authenticate(hostile.token(OTHER_EC, header={"kid": "new"}))
    assert hostile.fetches() == 2


async def test_a_new_key_is_found_even_right_after_another_fetch(
    hostile: HostileIssuer, authority: Authority, make_gate: MakeGate
) -> None:
    gate = make_gate(hostile.settings())
    # Time must run here: the fetch waits for its turn.
    started = time.monotonic()
    gate.authenticator._source._monotonic = time.monotonic
    await gate.authenticator.authenticate(hostile.token())
    hostile.publish(jwk(EC, "ec"), jwk(OTHER_EC, "new"))
    await gate.authenticator.authenticate(hostile.token(OTHER_EC, header={"kid": "new"}))
    assert 0.5 < time.monotonic() - started < 5
    assert hostile.fetches() == 2


async def test_invented_kids_do_not_flood_the_issuer(
    hostile: HostileIssuer, make_gate: MakeGate
) -> None:
    gate = make_gate(hostile.settings(jwks_refresh_s=3600))
    await gate.authenticator.authenticate(hostile.token())
    gate.clocks.advance(5)
    forged = [hostile.token(header={"kid": f"invented-{number}"}) for number in range(200)]
    reasons = await asyncio.gather(*(refused(gate, token) for token in forged))
    assert set(reasons) == {Reason.UNKNOWN_KEY}
    assert hostile.fetches() == 2


async def test_an_invented_kid_on_first_contact_costs_one_fetch(
    hostile: HostileIssuer, make_gate: MakeGate
) -> None:
    gate = make_gate(hostile.settings())
    assert await refused(gate, hostile.token(header={"kid": "invented"})) == Reason.UNKNOWN_KEY
    assert hostile.fetches() == 1


async def test_known_keys_serve_while_the_issuer_is_away_but_not_for_ever(
    hostile: HostileIssuer, make_gate: MakeGate
) -> None:
    gate = make_gate(hostile.settings(jwks_refresh_s=10, jwks_max_age_s=3600))
    token = hostile.token(exp=int(gate.clocks.wall) + 86400)
    principal = await gate.authenticator.authenticate(token)
    await hostile.stop()
    gate.clocks.advance(3600)
    assert await gate.authenticator.authenticate(token) == principal
    await gate.authenticator.recheck(principal)
    fresh = hostile.token(jti="two", exp=int(gate.clocks.wall) + 86400)
    assert (await gate.authenticator.authenticate(fresh)).token_id == "two"
    assert gate.count("jwks_fetches", "connection") >= 1
    # A key that was added meanwhile cannot be told from a forgery.
    assert await refused(gate, hostile.token(OTHER_EC, header={"kid": "new"})) == (
        Reason.ISSUER_UNREACHABLE
    )
    gate.clocks.advance(1)
    assert await refused(gate, token) == Reason.ISSUER_UNREACHABLE
    with pytest.raises(Refused) as caught:
        await gate.authenticator.recheck(principal)
    assert (caught.value.reason, caught.value.sqlstate) == (Reason.ISSUER_UNREACHABLE, "28000")


async def test_an_issuer_that_is_away_delays_nobody(
    hostile: HostileIssuer, make_gate: MakeGate
) -> None:
    gate = make_gate(hostile.settings())
    token = hostile.token()
    await gate.authenticator.authenticate(token)
    await hostile.stop()
    gate.clocks.advance(20)
    started = time.monotonic()
    for _ in range(100):
        await gate.authenticator.authenticate(token)
    assert time.monotonic() - started < 1
    assert gate.count("jwks_fetches", "connection") == 1


def silence(seconds: float) -> Any:
    async def respond(_writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(seconds)

    return respond


async def test_an_issuer_that_hangs_delays_a_sign_in_by_a_bound(
    hostile: HostileIssuer, make_gate: MakeGate
) -> None:
    gate = make_gate(hostile.settings())
    token = hostile.token()
    await gate.authenticator.authenticate(token)
    hostile.pages[DISCOVERY] = silence(60)
    gate.clocks.advance(20)
    started = time.monotonic()
    await asyncio.gather(*(gate.authenticator.authenticate(token) for _ in range(20)))
    waited = time.monotonic() - started
    assert 1.5 < waited < 3.5
    # The fetch still hangs; who comes now does not wait for it again.
    gate.clocks.advance(3)
    started = time.monotonic()
    await gate.authenticator.authenticate(token)
    assert time.monotonic() - started < 0.5
    # Nor does anyone wait long for the fetches after it.
    await fetched(gate)
    assert gate.count("jwks_fetches", FetchError.TIMEOUT) == 1
    gate.clocks.advance(3)
    started = time.monotonic()
    await gate.authenticator.authenticate(token)
    assert 0.1 < time.monotonic() - started < 1


async def test_giving_up_on_a_sign_in_does_not_cancel_the_fetch_of_others(
    hostile: HostileIssuer, make_gate: MakeGate
) -> None:
    gate = make_gate(hostile.settings())
    is_asked, may_answer = asyncio.Event(), asyncio.Event()
    document = json.dumps(hostile.pages["/jwks"]).encode()

    async def late(writer: asyncio.StreamWriter) -> None:
        is_asked.set()
        await may_answer.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(document) + document)
        await writer.drain()

    hostile.pages["/jwks"] = late
    first = asyncio.create_task(gate.authenticator.authenticate(hostile.token()))
    second = asyncio.create_task(gate.authenticator.authenticate(hostile.token()))
    await is_asked.wait()
    first.cancel()
    may_answer.set()
    assert isinstance(await second, Principal)
    assert hostile.fetches() == 1


async def test_down_at_start_then_up(authority: Authority, make_gate: MakeGate) -> None:
    hostile = HostileIssuer(authority)
    await hostile.start()
    token = hostile.token()
    port = int(hostile.url.rpartition(":")[2])
    await hostile.stop()
    gate = make_gate(hostile.settings())
    with pytest.raises(Refused) as caught:
        await gate.authenticator.authenticate(token)
    assert (caught.value.reason, caught.value.sqlstate) == (Reason.ISSUER_UNREACHABLE, "28000")
    hostile._server = await asyncio.start_server(
        hostile._serve, "127.0.0.1", port, ssl=authority.server_context()
    )
    gate.clocks.advance(1)
    assert (await gate.authenticator.authenticate(token)).name == "bob"
    await hostile.stop()


def discovery(**changes: Any) -> Any:
    return lambda it: it.pages[DISCOVERY] | {k: v(it) for k, v in changes.items()}


def drip(writer_seconds: float) -> Any:
    async def respond(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        while True:
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(writer_seconds)

    return respond


BROKEN: list[tuple[str, Any, FetchError]] = [
    ("/jwks", b"<html>It works!</html>", FetchError.BAD_KEY_SET),
    ("/jwks", b"", FetchError.BAD_KEY_SET),
    ("/jwks", b"[]", FetchError.BAD_KEY_SET),
    ("/jwks", {"keys": "ec"}, FetchError.BAD_KEY_SET),
    ("/jwks", {"keys": [{"kty": "EC"}] * 101}, FetchError.BAD_KEY_SET),
    ("/jwks", b'{"keys":[' + b"[" * 100_000, FetchError.BAD_KEY_SET),
    ("/jwks", b'{"keys":[],"x":"' + b"x" * 2_000_000 + b'"}', FetchError.TOO_LARGE),
    ("/jwks", responding("HTTP/1.1 500 Oh no\nContent-Length: 0"), FetchError.STATUS),
    ("/jwks", responding("HTTP/1.1 204 No Content"), FetchError.STATUS),
    ("/jwks", responding("SSH-2.0-OpenSSH_9.6"), FetchError.CONNECTION),
    ("/jwks", responding("HTTP/1.1 200 OK\nContent-Length: 500", b"{"), FetchError.CONNECTION),
    (
        "/jwks",
        responding("HTTP/1.1 200 OK\nContent-Encoding: gzip\nContent-Length: 2", b"{}"),
        FetchError.BAD_KEY_SET,
    ),
    ("/jwks", drip(0.2), FetchError.TIMEOUT),
    (DISCOVERY, b"\xff\xfe", FetchError.BAD_DISCOVERY),
    (DISCOVERY, b"[1]", FetchError.BAD_DISCOVERY),
    (DISCOVERY, discovery(issuer=lambda _: "https://localhost:1"), FetchError.WRONG_ISSUER),
    (DISCOVERY, discovery(issuer=lambda it: it.url + "/"), FetchError.WRONG_ISSUER),
    (DISCOVERY, discovery(issuer=lambda it: [it.url]), FetchError.WRONG_ISSUER),
    (DISCOVERY, discovery(jwks_uri=lambda _: None), FetchError.BAD_DISCOVERY),
    (DISCOVERY, discovery(jwks_uri=lambda _: "/jwks"), FetchError.INSECURE_URL),
    (DISCOVERY, discovery(jwks_uri=lambda _: "file:///etc/passwd"), FetchError.INSECURE_URL),
    (DISCOVERY, discovery(jwks_uri=lambda _: "http://192.0.2.1/jwks"), FetchError.INSECURE_URL),
    (DISCOVERY, discovery(jwks_uri=lambda _: "https://[::1/jwks"), FetchError.INSECURE_URL),
    (DISCOVERY, discovery(jwks_uri=lambda _: "https://"), FetchError.INSECURE_URL),
    (DISCOVERY, discovery(jwks_uri=lambda _: "https://h\u0000st/"), FetchError.INSECURE_URL),
    (DISCOVERY, discovery(jwks_uri=lambda _: "https://localhost:1/"), FetchError.CONNECTION),
    (DISCOVERY, discovery(jwks_uri=lambda _: "https://localhost:99999/"), FetchError.INSECURE_URL),
    (
        DISCOVERY,
        responding("HTTP/1.1 302 Found\nLocation: https://localhost:1/\nContent-Length: 0"),
        FetchError.STATUS,
    ),
    ("/jwks", responding("HTTP/1.1 307 To\nLocation: /mine\nContent-Length: 0"), FetchError.STATUS),
]


@pytest.mark.parametrize(("path", "page", "error"), BROKEN)
async def test_a_broken_issuer_is_as_good_as_away(
    hostile: HostileIssuer, make_gate: MakeGate, path: str, page: Any, error: FetchError
) -> None:
    gate = make_gate(hostile.settings())
    token = hostile.token()
    await gate.authenticator.authenticate(token)
    good = hostile.pages[path]
    hostile.pages["/mine"] = {"keys": [jwk(OTHER_EC, "ec")]}
    is_written_by_test = not callable(page) or asyncio.iscoroutinefunction(page)
    hostile.pages[path] = page if is_written_by_test else page(hostile)
    gate.clocks.advance(10)
    assert (await gate.authenticator.authenticate(token)).name == "bob"
    await fetched(gate)
    assert gate.count("jwks_fetches", error) == 1
    assert "/mine" not in hostile.requests
    # It works again by itself.
    hostile.pages[path] = good
    gate.clocks.advance(10)
    await gate.authenticator.authenticate(token)
    await fetched(gate)
    assert gate.count("jwks_fetches", "ok") == 2


async def test_an_issuer_with_a_certificate_of_another_ca_is_not_believed(
    hostile: HostileIssuer, make_gate: MakeGate, tmp_path: Any
) -> None:
    gate = make_gate(hostile.settings(ca_file=Authority.create(tmp_path).ca))
    assert await refused(gate, hostile.token()) == Reason.ISSUER_UNREACHABLE
    assert hostile.requests == []


async def test_unusable_keys_are_left_out(hostile: HostileIssuer, make_gate: MakeGate) -> None:
    private = json.loads(ECAlgorithm.to_jwk(OTHER_EC)) | {"kid": "private", "key_ops": ["verify"]}
    assert "d" in private
    hostile.publish(
        jwk(EC, "ec"),
        private,
        jwk(SHORT_RSA, "short"),
        {"kty": "oct", "kid": "shared", "k": b64(b"k" * 32)},
        {"kty": "EC", "kid": "off-curve", "crv": "P-256", "x": b64(b"x" * 32), "y": b64(b"y" * 32)},
        {"kty": "EC", "kid": "no-point", "crv": "P-256"},
        {"kty": "EC", "kid": "numbers", "crv": "P-256", "x": 1, "y": 2},
        {"kty": "RSA", "kid": "even", "n": b64(b"\x00" * 256), "e": "AQAB"},
        {"kty": "AKP", "kid": "new"},
        {"kty": ["EC"], "kid": "list"},
        jwk(ED, "ed", key_ops=["sign"]),
        jwk(RSA, "mismatch", alg="ES256"),
        jwk(RSA, "strange", alg=["RS256"]),
        jwk(OTHER_EC, None) | {"kid": 7},
        "text",  # type: ignore[arg-type]
    )
    gate = make_gate(hostile.settings())
    await gate.authenticator.authenticate(hostile.token())
    keys = await gate.authenticator._source.keys()
    assert keys is not None
    assert [key.kid for key in keys.keys] == ["ec"]


@pytest.mark.parametrize(
    "issuer",
    ["http://issuer.example.com", "ftp://localhost", "localhost", "", "https://", "https://[::1",
     "https://user:secret@localhost", "https://localhost?tenant=1", "https://localhost#x"],
)  # fmt: skip
def test_an_issuer_url_that_cannot_be_trusted_is_a_settings_error(issuer: str) -> None:
    with pytest.raises(SettingsError):
        Fetcher(Oidc(issuer=issuer))


def test_a_missing_ca_file_is_a_settings_error(tmp_path: Any) -> None:
    with pytest.raises(SettingsError, match="ca_file"):
        OidcAuthenticator(Oidc(issuer="https://localhost", ca_file=tmp_path / "none.pem"))
