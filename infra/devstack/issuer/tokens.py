"""Claims -> signed JWT."""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import Callable
from typing import Any

from joserfc import jwt

from infra.devstack.issuer.clients import CLI, Client
from infra.devstack.issuer.keyring import ALGORITHM, Keyring, kid_of
from infra.devstack.issuer.people import Person

AUDIENCE = "gatebook"
LIFETIME_S = 3600


class Minter:
    """Signs access tokens (RFC 9068) and ID tokens with the keyring's current key.

    `clock` gives Unix seconds.
    """

    def __init__(self, issuer: str, keyring: Keyring, clock: Callable[[], float]) -> None:
        self.issuer = issuer
        self._keyring = keyring
        self._clock = clock

    def person_access_token(
        self,
        person: Person,
        client_id: str = CLI,
        *,
        scope: str = "openid",
        audience: str = AUDIENCE,
        expires_in: int = LIFETIME_S,
    ) -> str:
        """An access token for a person; a negative `expires_in` gives one that has expired."""
        claims = self._claims(person.subject, [audience], expires_in) | _profile(person)
        return self._sign("at+jwt", claims | {"client_id": client_id, "scope": scope})

    def client_access_token(self, client: Client, *, scope: str) -> str:
        """An access token for a program that acts for itself: its subject is its client id."""
        claims = self._claims(client.client_id, [AUDIENCE], LIFETIME_S)
        return self._sign(
            "at+jwt",
            claims
            | {
                "client_id": client.client_id,
                "scope": scope,
                "preferred_username": client.client_id,
                "groups": list(client.groups),
            },
        )

    def id_token(
        self,
        person: Person,
        client_id: str = CLI,
        *,
        access_token: str,
        nonce: str | None = None,
        audience: str = AUDIENCE,
        expires_in: int = LIFETIME_S,
    ) -> str:
        """An ID token for the client and for Gatebook, which takes either kind of token."""
        claims = self._claims(person.subject, [client_id, audience], expires_in)
        claims |= _profile(person) | {"azp": client_id, "at_hash": _half_hash(access_token)}
        claims["auth_time"] = claims["iat"]
        if nonce is not None:
            claims["nonce"] = nonce
        return self._sign("JWT", claims)

    def _claims(self, subject: str, audience: list[str], expires_in: int) -> dict[str, Any]:
        now = int(self._clock())
        # An expired token was valid once: its issue lies before its expiry.
        issued = min(now, now + expires_in - 60) if expires_in <= 0 else now
        return {
            "iss": self.issuer,
            "sub": subject,
            "aud": audience,
            "iat": issued,
            "nbf": issued,
            "exp": now + expires_in,
            "jti": secrets.token_urlsafe(16),
        }

    def _sign(self, typ: str, claims: dict[str, Any]) -> str:
        key = self._keyring.current
        header = {"alg": ALGORITHM, "typ": typ, "kid": kid_of(key)}
        return jwt.encode(header, claims, key, [ALGORITHM])


def _profile(person: Person) -> dict[str, Any]:
    return {
        "preferred_username": person.username,
        "groups": list(person.groups),
        "email": person.email,
    }


def _half_hash(access_token: str) -> str:
    """OpenID Connect Core section 3.1.3.6, for the hash of ES256."""
    digest = hashlib.sha256(access_token.encode()).digest()
    return base64.urlsafe_b64encode(digest[:16]).rstrip(b"=").decode()
