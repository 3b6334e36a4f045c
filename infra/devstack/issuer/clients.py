"""The programs that may ask for tokens."""

from __future__ import annotations

import json
import re
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from infra.devstack.certificates import write_private

CLI = "gatebook-cli"
AGENT = "gatebook-agent"
SCOPES = ("openid", "profile", "email", "groups", "offline_access")
DEVICE_CODE = "urn:ietf:params:oauth:grant-type:device_code"

# RFC 8252 section 7.3: a native program listens on a port it cannot choose beforehand, so the
# port is free and everything else is exact. `localhost` is left out: it may be resolved to
# someone else's address (section 8.3).
_LOOPBACK_CALLBACK = re.compile(r"http://127\.0\.0\.1:([1-9][0-9]{0,4})/callback")


@dataclass(frozen=True, slots=True)
class Client:
    """A registered client, with the questions Authlib asks of one.

    `secret` is None for a public client, which then has to prove itself with PKCE.
    """

    client_id: str
    grant_types: frozenset[str]
    response_types: frozenset[str] = frozenset()
    groups: tuple[str, ...] = ()
    secret: str | None = field(default=None, repr=False)

    def get_client_id(self) -> str:
        """The identifier."""
        return self.client_id

    def get_default_redirect_uri(self) -> None:
        """None: a client has to name where the code goes."""

    def get_allowed_scope(self, scope: str | None) -> str:
        """The known scopes among those asked for; every scope but offline_access by default."""
        if not scope:
            return " ".join(SCOPES[:-1])
        return " ".join(name for name in scope.split() if name in SCOPES)

    def check_redirect_uri(self, redirect_uri: str) -> bool:
        """Whether a code may be sent there; never, for a client that gets no codes."""
        if not self.response_types:
            return False
        match = _LOOPBACK_CALLBACK.fullmatch(redirect_uri)
        return match is not None and int(match.group(1)) <= 65535

    def check_client_secret(self, client_secret: str) -> bool:
        """Constant-time comparison; bytes, because compare_digest refuses non-ASCII text."""
        return self.secret is not None and secrets.compare_digest(
            self.secret.encode(), client_secret.encode()
        )

    def check_endpoint_auth_method(self, method: str, _endpoint: str) -> bool:
        """A client with a secret must use it; one without cannot."""
        if self.secret is None:
            return method == "none"
        return method in ("client_secret_basic", "client_secret_post")

    def check_response_type(self, response_type: str) -> bool:
        """Whether the authorization endpoint may answer so."""
        return response_type in self.response_types

    def check_grant_type(self, grant_type: str) -> bool:
        """Whether the token endpoint may be asked so."""
        return grant_type in self.grant_types


def load_clients(folder: Path) -> dict[str, Client]:
    """The registered clients; the agent's secret is made on the first call and kept in `folder`."""
    path = folder / "clients.json"
    if not path.exists():
        secret = {"client_secret": secrets.token_urlsafe(32)}
        write_private(path, json.dumps({AGENT: secret}, indent=2).encode())
    secret_of_agent: str = json.loads(path.read_text())[AGENT]["client_secret"]
    return {
        CLI: Client(
            CLI,
            grant_types=frozenset({"authorization_code", "refresh_token", DEVICE_CODE}),
            response_types=frozenset({"code"}),
        ),
        AGENT: Client(
            AGENT,
            grant_types=frozenset({"client_credentials"}),
            groups=("agents",),
            secret=secret_of_agent,
        ),
    }
