"""A gateway's desk, where what an auditor is about to do is recorded first."""

from __future__ import annotations

import json
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.problems import Problem

if TYPE_CHECKING:
    from infra.devstack.state import StateDir


def record(
    state: StateDir, document: dict[str, Any], user: str | None, path: str, what: Any
) -> str:
    """The id of the event that is now durable. Raises Problem when it is not."""
    import httpx

    token = _token(state, user)
    url = _url(state, document)
    try:
        answer = httpx.post(
            url + path,
            json=what,
            headers={"Authorization": f"Bearer {token}"},
            verify=ssl.create_default_context(cafile=document["ca_file"]),
            trust_env=False,
            timeout=30,
        )
        said = answer.json()
    except (httpx.HTTPError, ValueError) as error:
        raise Problem(f"not recorded: the desk at {url} does not answer: {error}") from None
    if answer.status_code != 201:
        raise Problem(f"not recorded: {said.get('error', f'HTTP {answer.status_code}')}")
    return str(said["recorded"])


def _url(state: StateDir, document: dict[str, Any]) -> str:
    """The first gateway that has a desk. Raises Problem."""
    for gateway in document["gateways"]:
        try:
            bound = json.loads((Path(state.run) / f"{gateway['name']}.json").read_text())
        except (OSError, ValueError):
            continue
        if bound.get("desk_url"):
            return str(bound["desk_url"])
    raise Problem("no gateway has a desk (gateway.desk.unsealers, gateway.desk.erasers)")


def _token(state: StateDir, user: str | None) -> str:
    from cli import tokens

    if user is None:
        people = tokens.signed_in(state)
        if len(people) != 1:
            raise Problem(f"say who asks with --user; signed in: {', '.join(people) or 'nobody'}")
        user = people[0]
    token = tokens.stored(state, user)
    if token is None:
        raise Problem(f"{user} is not signed in: gatebook login --user {user}")
    return token
