"""HTTP: routes, and what protects them from other web pages on the same machine."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from secrets import token_urlsafe
from typing import Any
from urllib.parse import parse_qsl

import structlog
from authlib.oauth2.rfc6749.errors import OAuth2Error
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from infra.devstack.certificates import write_private
from infra.devstack.issuer import pages
from infra.devstack.issuer.clients import DEVICE_CODE, SCOPES, load_clients
from infra.devstack.issuer.grants import Grants
from infra.devstack.issuer.keyring import ALGORITHM, Keyring, UnknownKey
from infra.devstack.issuer.people import PEOPLE
from infra.devstack.issuer.server import Answer, Call, Server
from infra.devstack.issuer.tokens import AUDIENCE, LIFETIME_S, Minter

_BODY_MAX = 64 * 1024
_FIELDS_MAX = 50
_HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": pages.CONTENT_SECURITY_POLICY,
}


class _BadBody(Exception):
    """A body that is too large or is no form."""


@dataclass(frozen=True, slots=True)
class Issuer:
    """Everything the routes use."""

    url: str
    keyring: Keyring
    minter: Minter
    grants: Grants
    server: Server
    demo_secret: str

    @classmethod
    def open(cls, url: str, folder: Path, clock: Callable[[], float] = time.time) -> Issuer:
        """The issuer whose state is in `folder`, which is made, private, when it is missing."""
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.chmod(0o700)
        secret_file = folder / "demo-secret"
        if not secret_file.exists():
            write_private(secret_file, token_urlsafe(32).encode())
        keyring = Keyring(folder)
        minter = Minter(url, keyring, clock)
        grants = Grants(clock)
        server = Server(minter, load_clients(folder), grants, clock)
        return cls(url, keyring, minter, grants, server, secret_file.read_text().strip())


def create_app(issuer: Issuer) -> ASGIApp:
    """The ASGI application."""
    routes = _Routes(issuer)
    app = Starlette(
        routes=[
            Route("/healthz", routes.healthz),
            Route("/.well-known/openid-configuration", routes.discovery),
            Route("/jwks", routes.jwks),
            Route("/authorize", routes.authorize, methods=["GET"]),
            Route("/authorize", routes.authorize_answer, methods=["POST"]),
            Route("/token", routes.token, methods=["POST"]),
            Route("/device_authorization", routes.device_authorization, methods=["POST"]),
            Route("/device", routes.device, methods=["GET"]),
            Route("/device", routes.device_answer, methods=["POST"]),
            Route("/demo/token", routes.demo_token, methods=["POST"]),
            Route("/demo/rotate", routes.demo_rotate, methods=["POST"]),
            Route("/demo/revoke", routes.demo_revoke, methods=["POST"]),
        ],
        exception_handlers={_BadBody: _bad_body},
    )
    return _Guard(app, issuer.url)


class _Routes:
    def __init__(self, issuer: Issuer) -> None:
        self._issuer = issuer

    async def healthz(self, _request: Request) -> Response:
        return JSONResponse({"status": "ok", "issuer": self._issuer.url})

    async def discovery(self, _request: Request) -> Response:
        url = self._issuer.url
        return JSONResponse(
            {
                "issuer": url,
                "authorization_endpoint": f"{url}/authorize",
                "token_endpoint": f"{url}/token",
                "device_authorization_endpoint": f"{url}/device_authorization",
                "jwks_uri": f"{url}/jwks",
                "response_types_supported": ["code"],
                "response_modes_supported": ["query"],
                "grant_types_supported": [
                    "authorization_code",
                    "client_credentials",
                    "refresh_token",
                    DEVICE_CODE,
                ],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": [ALGORITHM],
                "token_endpoint_auth_methods_supported": [
                    "none",
                    "client_secret_basic",
                    "client_secret_post",
                ],
                "code_challenge_methods_supported": ["S256"],
                "scopes_supported": list(SCOPES),
                "claims_supported": [
                    "iss", "sub", "aud", "exp", "iat", "nbf", "jti", "auth_time", "nonce", "azp",
                    "at_hash", "preferred_username", "groups", "email",
                ],
            }
        )  # fmt: skip

    async def jwks(self, _request: Request) -> Response:
        return JSONResponse(self._issuer.keyring.published())

    async def authorize(self, request: Request) -> Response:
        call = await _read(request)
        try:
            self._issuer.server.check_authorization(call)
        except OAuth2Error as error:
            return _authorization_error(error)
        except ValueError:
            return _page(400, "Not a valid request", "The request holds characters it may not.")
        client_id = dict(call.query)["client_id"]
        return HTMLResponse(pages.choose(client_id, call.query))

    async def authorize_answer(self, request: Request) -> Response:
        call = await _read(request)
        username = dict(call.form).get("user", "")
        if username and username not in PEOPLE:
            return _page(400, "Unknown person", "Nobody of that name can sign in here.")
        parameters = [(name, value) for name, value in call.form if name != "user"]
        asked = Call(call.method, call.path, call.headers, parameters, [])
        try:
            return _respond(self._issuer.server.authorize(asked, PEOPLE.get(username)))
        except OAuth2Error as error:
            return _authorization_error(error)
        except ValueError:
            return _page(400, "Not a valid request", "The request holds characters it may not.")

    async def token(self, request: Request) -> Response:
        return _respond(self._issuer.server.token(await _read(request)))

    async def device_authorization(self, request: Request) -> Response:
        return _respond(self._issuer.server.device_authorization(await _read(request)))

    async def device(self, request: Request) -> Response:
        return HTMLResponse(pages.device(request.query_params.get("user_code", "")))

    async def device_answer(self, request: Request) -> Response:
        form = dict((await _read(request)).form)
        username = form.get("user", "")
        if username and username not in PEOPLE:
            return _page(400, "Unknown person", "Nobody of that name can sign in here.")
        device = self._issuer.grants.device_by_user_code(form.get("user_code", ""))
        if device is None:
            return _page(400, "Unknown code", "No program waits for this code, or it has expired.")
        person = PEOPLE.get(username)
        device.answer = (person, person is not None)
        if person is None:
            return _page(200, "Declined", "The program gets no access.")
        return _page(200, "Signed in", f"The program is signed in as {person.username}.")

    async def demo_token(self, request: Request) -> Response:
        if not self._is_authorized(request):
            return _unauthorized()
        form = dict((await _read(request)).form)
        person = PEOPLE.get(form.get("user", ""))
        if person is None:
            return _error(400, "invalid_request", "user must be one of " + ", ".join(PEOPLE))
        try:
            expires_in = int(form.get("expires_in", LIFETIME_S))
        except ValueError:
            return _error(400, "invalid_request", "expires_in must be whole seconds")
        if abs(expires_in) > 10 * 365 * 86400:
            return _error(400, "invalid_request", "expires_in must lie within ten years")
        audience = form.get("audience", AUDIENCE)
        minter = self._issuer.minter
        access_token = minter.person_access_token(person, audience=audience, expires_in=expires_in)
        id_token = minter.id_token(
            person, access_token=access_token, audience=audience, expires_in=expires_in
        )
        return JSONResponse(
            {"access_token": access_token, "id_token": id_token, "expires_in": expires_in}
        )

    async def demo_rotate(self, request: Request) -> Response:
        if not self._is_authorized(request):
            return _unauthorized()
        return JSONResponse({"kid": self._issuer.keyring.rotate()})

    async def demo_revoke(self, request: Request) -> Response:
        if not self._is_authorized(request):
            return _unauthorized()
        kid = dict((await _read(request)).form).get("kid", "")
        try:
            return JSONResponse({"revoked": self._issuer.keyring.revoke(kid)})
        except UnknownKey:
            return _error(404, "unknown_key", "no published key has this kid")

    def _is_authorized(self, request: Request) -> bool:
        scheme, _, presented = request.headers.get("authorization", "").partition(" ")
        # Hashes have one length, so the comparison's time says nothing about the secret's.
        return scheme.lower() == "bearer" and hmac.compare_digest(
            hashlib.sha256(presented.encode()).digest(),
            hashlib.sha256(self._issuer.demo_secret.encode()).digest(),
        )


class _Guard:
    """Refuses other hosts' names and other sites' forms, adds headers, writes the access log.

    A page on the internet that a developer visits can post forms to loopback addresses, and
    its host name can be made to resolve to them.
    """

    def __init__(self, app: ASGIApp, url: str) -> None:
        self._app = app
        self._origin = url
        port = url.rpartition(":")[2]
        self._hosts = {f"{host}:{port}" for host in ("localhost", "127.0.0.1", "[::1]")}
        self._log = structlog.get_logger("issuer")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)

        async def send_with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message["headers"],
                    *((k.lower().encode(), v.encode()) for k, v in _HEADERS.items()),
                ]
                # The path alone: a query can hold a state, a nonce or a user code.
                self._log.info(
                    "request",
                    method=request.method,
                    path=request.url.path[:200],
                    status=message["status"],
                )
            await send(message)

        refusal = self._refusal(request)
        await (refusal or self._app)(scope, receive, send_with_headers)

    def _refusal(self, request: Request) -> Response | None:
        if request.headers.get("host") not in self._hosts:
            return _error(421, "misdirected_request", "this issuer has another name")
        origin = request.headers.get("origin")
        if request.method == "POST" and origin is not None and origin != self._origin:
            return _error(403, "forbidden", "another site may not post here")
        return None


async def _read(request: Request) -> Call:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _BODY_MAX:
            raise _BadBody
    try:
        return Call(
            method=request.method,
            path=request.url.path,
            headers=request.headers,
            query=_pairs(request.url.query),
            form=_pairs(body.decode("ascii")),
        )
    except ValueError:
        raise _BadBody from None


def _pairs(encoded: str) -> list[tuple[str, str]]:
    return parse_qsl(encoded, keep_blank_values=True, max_num_fields=_FIELDS_MAX, errors="strict")


def _respond(answer: Answer) -> Response:
    response = Response(answer.text(), status_code=answer.status)
    for name, value in answer.headers:
        if name.lower() != "cache-control":
            response.headers[name] = value
    return response


def _authorization_error(error: OAuth2Error) -> Response:
    """To the client when its address is known to be its own, else to the person alone."""
    status, body, headers = error()
    if status == 302:
        return _respond(Answer(status, body, headers))
    return _page(400, "Not a valid request", f"{error.error}: {error.get_error_description()}")


def _page(status: int, title: str, text: str) -> Response:
    return HTMLResponse(pages.message(title, text), status_code=status)


def _error(status: int, code: str, description: str) -> Response:
    return JSONResponse({"error": code, "error_description": description}, status_code=status)


def _unauthorized() -> Response:
    response = _error(401, "invalid_token", "present the content of demo-secret as bearer")
    response.headers["WWW-Authenticate"] = "Bearer"
    return response


_Handler = Callable[[Request, Exception], Awaitable[Response]]


async def _bad_body(_request: Request, _error_: Exception) -> Response:
    return _error(400, "invalid_request", "the body is too large or is no form")
