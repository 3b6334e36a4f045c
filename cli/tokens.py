"""Tokens of people: from the stack's issuer, kept in the state folder."""

from __future__ import annotations

import base64
import json
import re
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.problems import Problem

if TYPE_CHECKING:
    import httpx

    from infra.devstack.state import StateDir

CLIENT_ID = "gatebook-cli"
DEVICE_CODE = "urn:ietf:params:oauth:grant-type:device_code"
MARGIN_S = 30
"""A stored token that ends sooner than this is not handed out."""


def demo_token(
    state: StateDir, document: dict[str, Any], user: str, expires_in: int | None = None
) -> str:
    """An access token of a demo person, without a browser. Raises Problem.

    Only whoever can read the state folder has the secret this takes.
    """
    try:
        secret = (state.root / "issuer" / "demo-secret").read_text().strip()
    except OSError as error:
        raise Problem(f"cannot read the issuer's demo secret: {error.strerror}") from None
    form = {"user": user, **({} if expires_in is None else {"expires_in": str(expires_in)})}
    with _client(document) as client:
        answer = _post(client, "/demo/token", form, {"Authorization": f"Bearer {secret}"})
    return str(_accepted(answer)["access_token"])


def device_token(document: dict[str, Any], show: Callable[[str, str], None]) -> str:
    """An access token through the device flow (RFC 8628); `show` gets the URL and the code.

    Waits until the person has answered in a browser. Raises Problem.
    """
    with _client(document) as client:
        asked = _accepted(
            _post(
                client, "/device_authorization", {"client_id": CLIENT_ID, "scope": "openid groups"}
            )
        )
        show(
            asked.get("verification_uri_complete") or asked["verification_uri"], asked["user_code"]
        )
        interval = float(asked.get("interval", 5))
        deadline = time.monotonic() + float(asked["expires_in"])
        form = {
            "grant_type": DEVICE_CODE,
            "device_code": asked["device_code"],
            "client_id": CLIENT_ID,
        }
        while time.monotonic() < deadline:
            time.sleep(interval)
            answer = _post(client, "/token", form)
            if answer.is_success:
                return str(answer.json()["access_token"])
            error = _error(answer)
            if error == "slow_down":
                interval += 5
            elif error != "authorization_pending":
                raise Problem(f"not signed in: {_description(answer)}")
    raise Problem("not signed in: the code has expired")


def _client(document: dict[str, Any]) -> httpx.Client:
    import httpx

    return httpx.Client(
        base_url=document["issuer"]["url"],
        verify=ssl.create_default_context(cafile=document["ca_file"]),
        # The issuer is on this machine; a proxy for the internet is not asked.
        trust_env=False,
        timeout=10,
    )


def _post(
    client: httpx.Client, path: str, form: dict[str, str], headers: dict[str, str] | None = None
) -> httpx.Response:
    import httpx

    try:
        return client.post(path, data=form, headers=headers or {})
    except httpx.HTTPError as error:
        raise Problem(f"the issuer at {client.base_url} does not answer: {error}") from None


def _accepted(answer: httpx.Response) -> dict[str, Any]:
    if not answer.is_success:
        raise Problem(f"the issuer refuses: {_description(answer)}")
    document: dict[str, Any] = answer.json()
    return document


def _error(answer: httpx.Response) -> str:
    try:
        return str(answer.json().get("error", ""))
    except ValueError:
        return ""


def _description(answer: httpx.Response) -> str:
    try:
        body = answer.json()
        return str(body.get("error_description") or body.get("error"))
    except ValueError:
        return f"HTTP {answer.status_code}"


def claims(token: str) -> dict[str, Any]:
    """The claims of a JWT, unverified: for showing, never for deciding."""
    try:
        payload = token.split(".")[1]
        document = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (IndexError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


def _file(state: StateDir, user: str) -> Path:
    # A name becomes a file name.
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,99}", user):
        raise Problem("a user's name has letters, digits, dots, dashes, @ and underscores only", 2)
    return state.sessions / f"{user}.jwt"


def store(state: StateDir, user: str, token: str) -> Path:
    """Keep a person's token, readable by the owner of the state folder alone."""
    from infra.devstack.certificates import write_private

    path = _file(state, user)
    write_private(path, token.encode() + b"\n")
    return path


def stored(state: StateDir, user: str) -> str | None:
    """A person's stored token; None when there is none that still holds for a while."""
    try:
        token = _file(state, user).read_text().strip()
    except OSError:
        return None
    return token if float(claims(token).get("exp", 0)) > time.time() + MARGIN_S else None


def signed_in(state: StateDir) -> list[str]:
    """Names of people with a token that still holds."""
    names = sorted(path.stem for path in state.sessions.glob("*.jwt"))
    return [name for name in names if stored(state, name)]
