"""The OAuth 2.0 server: Authlib's grants on our clients, people and keys.

Authlib leaves several things to whoever adapts it, and each would be a hole: PKCE is optional
and `plain` by default, a code survives a failed redemption, a refresh token does not rotate,
a device code can be redeemed twice, and its debug log prints tokens (see `__main__`).
"""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from authlib.oauth2.rfc6749 import AuthorizationServer, OAuth2Payload, OAuth2Request
from authlib.oauth2.rfc6749 import grants as rfc6749
from authlib.oauth2.rfc6749.errors import InvalidGrantError, InvalidRequestError, OAuth2Error
from authlib.oauth2.rfc6750 import BearerTokenGenerator
from authlib.oauth2.rfc7636 import CodeChallenge
from authlib.oauth2.rfc8628 import DeviceAuthorizationEndpoint, DeviceCodeGrant
from authlib.oidc.core import OpenIDCode

from infra.devstack.issuer.clients import SCOPES, Client
from infra.devstack.issuer.grants import (
    CODE_LIFETIME_S,
    DEVICE_INTERVAL_S,
    DEVICE_LIFETIME_S,
    REFRESH_LIFETIME_S,
    Code,
    Device,
    Grants,
    Refresh,
)
from infra.devstack.issuer.people import Person
from infra.devstack.issuer.tokens import LIFETIME_S, Minter

# `log.debug("Issue token %r to %r", token, client)`: no log level may turn that on.
logging.getLogger("authlib").setLevel(logging.INFO)


@dataclass(frozen=True, slots=True)
class Call:
    """One HTTP request, read completely."""

    method: str
    path: str
    headers: Mapping[str, str]
    query: list[tuple[str, str]]
    form: list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP response. `body` is text, or what becomes a JSON object."""

    status: int
    body: str | dict[str, Any]
    headers: list[tuple[str, str]]

    def text(self) -> str:
        """The body as it is sent."""
        return self.body if isinstance(self.body, str) else json.dumps(self.body)


class _Payload(OAuth2Payload):
    def __init__(self, pairs: list[tuple[str, str]]) -> None:
        self._data = dict(pairs)
        self._datalist: dict[str, list[str]] = {}
        for name, value in pairs:
            self._datalist.setdefault(name, []).append(value)

    @property
    def data(self) -> dict[str, str]:
        return self._data

    @property
    def datalist(self) -> dict[str, list[str]]:
        return self._datalist


class _Request(OAuth2Request):
    def __init__(self, issuer: str, call: Call) -> None:
        super().__init__(call.method, issuer + call.path, headers=call.headers)
        self.payload = _Payload(call.query + call.form)
        self._arguments = dict(call.query)
        self._fields = dict(call.form)

    @property
    def args(self) -> dict[str, str]:
        return self._arguments

    @property
    def form(self) -> dict[str, str]:
        return self._fields


class Server(AuthorizationServer):
    """Authlib's server, answering a Call with an Answer.

    `clock` gives Unix seconds.
    """

    def __init__(
        self,
        minter: Minter,
        clients: Mapping[str, Client],
        pending: Grants,
        clock: Callable[[], float],
    ) -> None:
        super().__init__(scopes_supported=list(SCOPES))
        self.minter = minter
        self.pending = pending
        self.clock = clock
        self._clients = clients
        self.register_token_generator(
            "default", BearerTokenGenerator(self._access_token, _refresh_token, LIFETIME_S)
        )
        self.register_grant(_AuthorizationCode, [_Pkce(), _IdToken()])
        self.register_grant(_DeviceCode, [_IdToken()])
        self.register_grant(_RefreshToken, [_IdToken()])
        self.register_grant(_ClientCredentials)
        self.register_endpoint(_DeviceAuthorization)

    def token(self, call: Call) -> Answer:
        """The token endpoint."""
        return self._answer(call, self.create_token_response)

    def device_authorization(self, call: Call) -> Answer:
        """The device authorization endpoint."""
        return self._answer(
            call, lambda it: self.create_endpoint_response("device_authorization", it)
        )

    def check_authorization(self, call: Call) -> None:
        """Whether a person may be asked. Raises OAuth2Error; then nobody is."""
        _refuse_repeated(call)
        self.get_consent_grant(call)

    def authorize(self, call: Call, person: Person | None) -> Answer:
        """The person's answer (None: they declined) as a redirect to the client.

        Raises OAuth2Error when the request itself is not valid.
        """
        _refuse_repeated(call)
        request = self.create_oauth2_request(call)
        grant = self.get_consent_grant(call)
        answer: Answer = self.create_authorization_response(request, person, grant)
        return answer

    def _answer(self, call: Call, respond: Callable[[Call], Any]) -> Answer:
        try:
            _refuse_repeated(call)
            answer: Answer = respond(call)
        except OAuth2Error as error:
            answer = self.handle_response(*error())
        except ValueError:
            # Authlib refuses to quote some characters back, and does so with a ValueError.
            answer = self.handle_response(*InvalidRequestError()())
        return answer

    def _access_token(
        self, client: Client, grant_type: str, user: Person | None, scope: str
    ) -> str:
        if user is None:
            return self.minter.client_access_token(client, scope=scope)
        return self.minter.person_access_token(user, client.client_id, scope=scope)

    # What Authlib asks for.

    def query_client(self, client_id: str) -> Client | None:
        return self._clients.get(client_id)

    def save_token(self, token: dict[str, Any], request: Any) -> None:
        if "refresh_token" not in token:
            return
        origin = request.refresh_token or request.authorization_code
        self.pending.add_refresh(
            Refresh(
                token=token["refresh_token"],
                client_id=request.client.client_id,
                person=request.user,
                scope=token.get("scope", ""),
                family=origin.family if origin else self.pending.new_family(),
                expires_at=self.clock() + REFRESH_LIFETIME_S,
            )
        )

    def create_oauth2_request(self, request: Any) -> Any:
        if isinstance(request, OAuth2Request):
            return request
        return _Request(self.minter.issuer, request)

    def handle_response(
        self, status: int, body: str | dict[str, Any] | list[tuple[str, Any]], headers: Any
    ) -> Answer:
        return Answer(status, dict(body) if isinstance(body, list) else body, list(headers))

    def send_signal(self, name: str, *args: Any, **kwargs: Any) -> None:
        """Nobody listens."""


class _Pkce(CodeChallenge):
    """RFC 7636, required of everyone, and S256 alone (RFC 9700 section 2.1.1)."""

    DEFAULT_CODE_CHALLENGE_METHOD = "S256"
    SUPPORTED_CODE_CHALLENGE_METHOD = ("S256",)

    def validate_code_challenge(self, grant: Any, redirect_uri: str) -> None:
        # Left out it means `plain`, which protects nothing; with it, Authlib wants a challenge.
        if grant.request.payload.data.get("code_challenge_method") != "S256":
            raise InvalidRequestError("'code_challenge_method' must be S256")
        super().validate_code_challenge(grant, redirect_uri)


class _IdToken(OpenIDCode):
    def encode_id_token(self, token: dict[str, Any], request: Any) -> str:
        code: Code | None = request.authorization_code
        minter: Minter = request.server.minter
        return minter.id_token(
            request.user,
            request.client.client_id,
            access_token=token["access_token"],
            nonce=code.nonce if code else None,
        )

    def process_token(self, grant: Any, response: Any) -> None:
        grant.request.server = grant.server
        super().process_token(grant, response)

    def exists_nonce(self, nonce: str, request: Any) -> bool:
        """False: a nonce is the client's to check, in the ID token that carries it."""
        return False


class _AuthorizationCode(rfc6749.AuthorizationCodeGrant):
    TOKEN_ENDPOINT_AUTH_METHODS = ("none",)

    def save_authorization_code(self, code: str, request: Any) -> None:
        server: Server = self.server
        data = request.payload.data
        server.pending.add_code(
            Code(
                code=code,
                client_id=request.client.client_id,
                person=request.user,
                redirect_uri=request.payload.redirect_uri,
                scope=request.scope,
                nonce=data.get("nonce"),
                code_challenge=data["code_challenge"],
                code_challenge_method=data["code_challenge_method"],
                expires_at=server.clock() + CODE_LIFETIME_S,
                family=server.pending.new_family(),
            )
        )

    def query_authorization_code(self, code: str, client: Client) -> Code | None:
        server: Server = self.server
        return server.pending.take_code(code, client.client_id)

    def delete_authorization_code(self, authorization_code: Code) -> None:
        """Used up already, by having been asked for."""

    def authenticate_user(self, authorization_code: Code) -> Person:
        return authorization_code.person


class _RefreshToken(rfc6749.RefreshTokenGrant):
    TOKEN_ENDPOINT_AUTH_METHODS = ("none",)
    INCLUDE_NEW_REFRESH_TOKEN = True

    def authenticate_refresh_token(self, refresh_token: str) -> Refresh | None:
        server: Server = self.server
        return server.pending.take_refresh(refresh_token, self.request.client.client_id)

    def authenticate_user(self, refresh_token: Refresh) -> Person:
        return refresh_token.person

    def revoke_old_credential(self, refresh_token: Refresh) -> None:
        """Used up already, by having been presented."""


class _ClientCredentials(rfc6749.ClientCredentialsGrant):
    TOKEN_ENDPOINT_AUTH_METHODS = ("client_secret_basic", "client_secret_post")


class _DeviceCode(DeviceCodeGrant):
    TOKEN_ENDPOINT_AUTH_METHODS = ("none",)

    def query_device_credential(self, device_code: str) -> Device:
        server: Server = self.server
        device = server.pending.device(device_code)
        if device is None:
            raise InvalidGrantError("Unknown 'device_code'")
        return device

    def query_user_grant(self, user_code: str) -> tuple[Person | None, bool] | None:
        server: Server = self.server
        device = server.pending.device(self.request.payload.data["device_code"])
        return device.answer if device else None

    def should_slow_down(self, credential: Device) -> bool:
        server: Server = self.server
        return server.pending.polls_too_fast(credential)

    def save_token(self, token: dict[str, Any]) -> None:
        server: Server = self.server
        server.pending.remove_device(self.request.credential)
        super().save_token(token)


class _DeviceAuthorization(DeviceAuthorizationEndpoint):
    CLIENT_AUTH_METHODS = ("none",)
    EXPIRES_IN = int(DEVICE_LIFETIME_S)
    INTERVAL = int(DEVICE_INTERVAL_S)

    def get_verification_uri(self) -> str:
        server: Server = self.server
        return f"{server.minter.issuer}/device"

    def save_device_credential(self, client_id: str, scope: str | None, data: Any) -> None:
        server: Server = self.server
        client = server.query_client(client_id)
        assert client is not None  # noqa: S101 (Authlib has just authenticated it)
        server.pending.add_device(
            Device(
                device_code=data["device_code"],
                user_code=data["user_code"],
                client_id=client_id,
                scope=client.get_allowed_scope(scope),
                expires_at=server.clock() + DEVICE_LIFETIME_S,
                now=server.clock,
            )
        )


def _refresh_token(**_request: object) -> str:
    return secrets.token_urlsafe(36)


def _refuse_repeated(call: Call) -> None:
    """RFC 6749 section 3.1: two readers of a repeated parameter may see two different requests."""
    names = [name for name, _ in call.query + call.form]
    if len(names) != len(set(names)):
        raise InvalidRequestError("A parameter is repeated")
