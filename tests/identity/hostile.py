"""An issuer that does whatever a test wants: bytes for each path, and any token."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import Awaitable, Callable
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from schemas.settings import Oidc
from tests.identity.issuing import Authority

NOW = 1_800_000_000.0
PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
Responder = Callable[[asyncio.StreamWriter], Awaitable[None]]

# Making RSA keys is slow, and none of the tests needs a fresh one.
RSA = rsa.generate_private_key(65537, 2048)
OTHER_RSA = rsa.generate_private_key(65537, 2048)
SHORT_RSA = rsa.generate_private_key(65537, 1024)  # noqa: S505 (it must be refused)
EC = ec.generate_private_key(ec.SECP256R1())
OTHER_EC = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()


def jwk(key: PrivateKey, kid: str | None, **members: Any) -> dict[str, Any]:
    """The public half as a JWK."""
    algorithm: Any = {
        rsa.RSAPrivateKey: RSAAlgorithm,
        ec.EllipticCurvePrivateKey: ECAlgorithm,
        ed25519.Ed25519PrivateKey: OKPAlgorithm,
    }[next(kind for kind in PrivateKey.__args__ if isinstance(key, kind))]
    body: dict[str, Any] = json.loads(algorithm.to_jwk(key.public_key()))
    body.pop("key_ops", None)
    return body | ({"kid": kid} if kid is not None else {}) | members


def public_pem(key: PrivateKey) -> bytes:
    return key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def b64(data: bytes | str | dict[str, Any]) -> str:
    if isinstance(data, dict):
        data = json.dumps(data)
    if isinstance(data, str):
        data = data.encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def hmac_token(header: dict[str, Any], claims: dict[str, Any], secret: bytes) -> str:
    """HS256 over any secret: PyJWT itself refuses to misuse a public key so."""
    signing_input = f"{b64(header)}.{b64(claims)}"
    return f"{signing_input}.{b64(hmac.digest(secret, signing_input.encode(), hashlib.sha256))}"


class HostileIssuer:
    """A TLS server on localhost. `pages` maps a path to a document, or to what writes raw bytes."""

    def __init__(self, authority: Authority) -> None:
        self._authority = authority
        self._tasks: set[asyncio.Task[Any]] = set()
        self.pages: dict[str, Any] = {}
        self.requests: list[str] = []
        self.url = ""

    async def start(self) -> None:
        self._server = await asyncio.start_server(
            self._serve, "127.0.0.1", 0, ssl=self._authority.server_context()
        )
        self.url = f"https://localhost:{self._server.sockets[0].getsockname()[1]}"
        self.pages["/.well-known/openid-configuration"] = {
            "issuer": self.url,
            "jwks_uri": f"{self.url}/jwks",
        }
        self.publish(jwk(RSA, "rsa"), jwk(EC, "ec"), jwk(ED, "ed"))

    async def stop(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def publish(self, *keys: dict[str, Any]) -> None:
        self.pages["/jwks"] = {"keys": list(keys)}

    def fetches(self) -> int:
        return self.requests.count("/jwks")

    def settings(self, **overrides: Any) -> Oidc:
        return Oidc(
            **{
                "issuer": self.url,
                "ca_file": self._authority.ca,
                "algorithms": ["RS256", "PS256", "ES256", "EdDSA"],
                **overrides,
            }
        )

    def claims(self, **overrides: Any) -> dict[str, Any]:
        """Valid ones; an override of None leaves the claim out."""
        claims = {
            "iss": self.url,
            "sub": "b7e6c1d4",
            "aud": ["gatebook"],
            "iat": int(NOW),
            "nbf": int(NOW),
            "exp": int(NOW) + 300,
            "jti": "one",
            "preferred_username": "bob",
            "groups": ["dba"],
        } | overrides
        return {name: value for name, value in claims.items() if value is not None}

    def token(
        self,
        key: PrivateKey = EC,
        algorithm: str = "ES256",
        header: dict[str, Any] | None = None,
        **claims: Any,
    ) -> str:
        return jwt.encode(
            self.claims(**claims),
            key,
            algorithm,
            headers={"kid": "ec"} if header is None else header,
        )

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                path = head.split(b" ", 2)[1].decode()
                self.requests.append(path)
                page = self.pages.get(path)
                if callable(page):
                    await page(writer)
                    return
                body = page if isinstance(page, bytes) else json.dumps(page).encode()
                status = "404 Not Found" if page is None else "200 OK"
                writer.write(
                    f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\n"
                    f"Content-Length: {len(body)}\r\n\r\n".encode()
                )
                writer.write(body)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            if task.cancelling():
                # As a killed process would: without the goodbye of TLS.
                writer.transport.abort()
            writer.close()


def responding(head: str, body: bytes = b"") -> Responder:
    """Answers with these very bytes and closes."""

    async def respond(writer: asyncio.StreamWriter) -> None:
        writer.write(head.replace("\n", "\r\n").encode() + b"\r\n\r\n" + body)
        await writer.drain()

    return respond
