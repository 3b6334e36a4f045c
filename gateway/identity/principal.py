"""The outcomes of authentication: a Principal, or Refused."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal

ActorType = Literal["person", "service", "agent"]
Sqlstate = Literal["28000", "28P01"]


@dataclass(frozen=True, slots=True)
class Principal:
    """A verified identity.

    `issuer` and `subject` together identify it; `name` is for people to read and may change.
    `agent` is the acting party's subject when someone acts for this person (RFC 8693 `act`).
    `expires_at` is in Unix seconds. `token_id` is the token's `jti`, and `key_id` the RFC 7638
    thumbprint of the key that verified it, by which a session can be re-checked without its
    token being kept (`OidcAuthenticator.recheck`). `signed_in_at` is when the person proved who
    they are (`auth_time`, else `iat`), where the token says so.
    """

    issuer: str
    subject: str
    name: str
    groups: tuple[str, ...]
    agent: str | None
    actor_type: ActorType
    expires_at: float
    token_id: str | None = None
    key_id: str | None = None
    signed_in_at: float | None = None


class Reason(StrEnum):
    """Why a credential was refused: a stable code for events, metrics and tests."""

    MISSING_CREDENTIAL = "missing_credential"
    MALFORMED = "malformed"
    TOO_LARGE = "too_large"
    WRONG_TYPE = "wrong_type"
    ALGORITHM_NOT_ALLOWED = "algorithm_not_allowed"
    WRONG_ISSUER = "wrong_issuer"
    UNKNOWN_KEY = "unknown_key"
    BAD_SIGNATURE = "bad_signature"
    WRONG_AUDIENCE = "wrong_audience"
    MISSING_CLAIM = "missing_claim"
    INVALID_CLAIM = "invalid_claim"
    EXPIRED = "expired"
    NOT_YET_VALID = "not_yet_valid"
    SENDER_CONSTRAINED = "sender_constrained"
    ISSUER_UNREACHABLE = "issuer_unreachable"


# 28P01 says "that password is wrong": try another token. 28000 says that this token would not
# do, or could not be judged, however often it is presented.
_OUTCOMES: Final[dict[Reason, tuple[Sqlstate, str]]] = {
    Reason.MISSING_CREDENTIAL: ("28P01", "no token was presented as the password"),
    Reason.MALFORMED: ("28P01", "the password is not a well-formed token"),
    Reason.TOO_LARGE: ("28P01", "the token is too large"),
    Reason.WRONG_TYPE: ("28000", "the token is neither an access token nor an ID token"),
    Reason.ALGORITHM_NOT_ALLOWED: ("28P01", "the token's signature algorithm is not allowed"),
    Reason.WRONG_ISSUER: ("28000", "the token comes from an issuer that is not trusted here"),
    Reason.UNKNOWN_KEY: ("28P01", "the token is signed by a key the issuer does not publish"),
    Reason.BAD_SIGNATURE: ("28P01", "the token's signature does not verify"),
    Reason.WRONG_AUDIENCE: ("28000", "the token is meant for another audience"),
    Reason.MISSING_CLAIM: ("28000", "the token lacks a required claim"),
    Reason.INVALID_CLAIM: ("28000", "the token holds a claim of the wrong form"),
    Reason.EXPIRED: ("28P01", "the token has expired; sign in again"),
    Reason.NOT_YET_VALID: ("28P01", "the token is not valid yet; check the clocks"),
    Reason.SENDER_CONSTRAINED: (
        "28000",
        "the token is bound to a key that a password cannot prove",
    ),
    Reason.ISSUER_UNREACHABLE: ("28000", "the identity provider cannot be reached; try again"),
}


class Refused(Exception):
    """A credential that was not accepted.

    `sqlstate` and `message` are for the client, `reason` for events and metrics. None of them,
    nor the exception's causes, holds any part of the credential.
    """

    def __init__(self, reason: Reason, claim: str | None = None) -> None:
        self.reason: Final = reason
        self.sqlstate: Final[Sqlstate] = _OUTCOMES[reason][0]
        self.message: Final = _OUTCOMES[reason][1] + (f" ({claim})" if claim else "")
        super().__init__(f"{reason.value}: {self.message}")
