"""Verified claims -> Principal. Pure: the time is an argument."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.identity.principal import ActorType, Principal, Reason, Refused
from schemas.settings import Oidc

_TEXT_MAX = 255
_GROUPS_MAX = 1000


def principal(claims: Mapping[str, Any], settings: Oidc, key_id: str, now: float) -> Principal:
    """Who the claims of a verified token speak of. `now` is in Unix seconds. Raises Refused."""
    if _required(claims, "iss") != settings.issuer:
        raise Refused(Reason.WRONG_ISSUER)
    _check_audience(_required(claims, "aud"), settings.audience)
    expires_at = _date(claims, "exp")
    if expires_at is None:
        raise Refused(Reason.MISSING_CLAIM, "exp")
    starts = [at for name in ("nbf", "iat") if (at := _date(claims, name)) is not None]
    check_time(expires_at, settings.leeway_s, now)
    if any(at > now + settings.leeway_s for at in starts):
        raise Refused(Reason.NOT_YET_VALID)
    if "cnf" in claims:
        # RFC 7800: whoever holds only the token is not who it was given to.
        raise Refused(Reason.SENDER_CONSTRAINED)
    if "events" in claims:
        # A logout token or security event (RFC 8417): it tells of a person, it is not theirs.
        raise Refused(Reason.WRONG_TYPE)
    subject = _text(_required(claims, "sub"), "sub")
    name = claims.get(settings.name_claim)
    token_id = claims.get("jti")
    agent = _acting_party(claims)
    return Principal(
        issuer=settings.issuer,
        subject=subject,
        name=subject if name is None else _text(name, settings.name_claim),
        groups=_groups(claims.get(settings.groups_claim), settings.groups_claim),
        agent=agent,
        actor_type=_actor_type(claims, subject, agent),
        expires_at=expires_at,
        token_id=None if token_id is None else _text(token_id, "jti"),
        key_id=key_id,
        signed_in_at=_date(claims, "auth_time" if "auth_time" in claims else "iat"),
    )


def check_time(expires_at: float, leeway_s: float, now: float) -> None:
    """Raises Refused once the token has expired. All in Unix seconds."""
    if now >= expires_at + leeway_s:
        raise Refused(Reason.EXPIRED)


def _required(claims: Mapping[str, Any], name: str) -> Any:
    value = claims.get(name)
    if value is None:
        raise Refused(Reason.MISSING_CLAIM, name)
    return value


def _check_audience(audience: Any, expected: str) -> None:
    audiences = [audience] if isinstance(audience, str) else audience
    if not isinstance(audiences, list) or not all(isinstance(name, str) for name in audiences):
        raise Refused(Reason.INVALID_CLAIM, "aud")
    if expected not in audiences:
        raise Refused(Reason.WRONG_AUDIENCE)


def _date(claims: Mapping[str, Any], name: str) -> float | None:
    value = claims.get(name)
    if value is None:
        return None
    # True is an int in Python. JSON has no NaN or infinity, and the parser takes none.
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Refused(Reason.INVALID_CLAIM, name)
    return float(value)


def _text(value: Any, name: str) -> str:
    # The text goes into logs, terminals and other people's screens: no control characters, no
    # change of writing direction.
    if not isinstance(value, str) or not 0 < len(value) <= _TEXT_MAX or not value.isprintable():
        raise Refused(Reason.INVALID_CLAIM, name)
    return value


def _groups(value: Any, name: str) -> tuple[str, ...]:
    if value is None:
        return ()
    # A single string could be meant as one group or as a list with separators: do not guess.
    if not isinstance(value, list) or len(value) > _GROUPS_MAX:
        raise Refused(Reason.INVALID_CLAIM, name)
    return tuple(dict.fromkeys(_text(group, name) for group in value))


def _acting_party(claims: Mapping[str, Any]) -> str | None:
    """RFC 8693 section 4.1: the outermost `act` is who acts now; inner ones are history."""
    if "act" not in claims:
        return None
    act = claims["act"]
    if not isinstance(act, dict):
        raise Refused(Reason.INVALID_CLAIM, "act")
    return _text(act.get("sub"), "act")


def _actor_type(claims: Mapping[str, Any], subject: str, agent: str | None) -> ActorType:
    if agent is not None:
        return "agent"
    client = claims.get("client_id")
    # RFC 9068 section 2.2: without a person, the subject is the client itself.
    if subject in (client, claims.get("azp")):
        return "service"
    # Keycloak gives a client an account of its own, and only then names `client_id`.
    account = claims.get("preferred_username")
    is_service_account = isinstance(client, str) and account == f"service-account-{client}"
    return "service" if is_service_account else "person"
