"""A compact JWS: what may be read before its signature is verified, and what only after."""

from __future__ import annotations

import base64
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

import jwt
import orjson

from gateway.identity.keys import Key
from gateway.identity.principal import Reason, Refused

TOKEN_MAX_BYTES = 64 * 1024
_COMPACT = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_TYPES = frozenset({"jwt", "at+jwt"})


@dataclass(frozen=True, slots=True)
class Unverified:
    """What a token says of itself. It chooses the key and the refusal; it proves nothing."""

    algorithm: str
    kid: str | None
    issuer: object


def read(token: str, algorithms: Collection[str]) -> Unverified:
    """The header and the issuer of a token that has not been verified yet.

    A key that the token brings along or points to (`jwk`, `jku`, `x5c`, `x5u`) is never used.
    Raises Refused.
    """
    if not token:
        raise Refused(Reason.MISSING_CREDENTIAL)
    if len(token) > TOKEN_MAX_BYTES:
        raise Refused(Reason.TOO_LARGE)
    # `none` is named before the form is judged: such a token has an empty signature.
    parts = token.split(".")
    header = _json_object(parts[0])
    if header is None or len(parts) != 3:
        raise Refused(Reason.MALFORMED)
    algorithm = header.get("alg")
    if not isinstance(algorithm, str) or algorithm not in algorithms:
        raise Refused(Reason.ALGORITHM_NOT_ALLOWED)
    kid = header.get("kid")
    payload = _json_object(parts[1])
    if payload is None or not isinstance(kid, str | None) or not _COMPACT.fullmatch(token):
        raise Refused(Reason.MALFORMED)
    # `crit` names extensions that must be understood, and we understand none; `cty` says that
    # the payload is not the claims but another token.
    if "crit" in header or "cty" in header or "b64" in header:
        raise Refused(Reason.MALFORMED)
    kind = header.get("typ", "JWT")
    if not isinstance(kind, str) or kind.lower().removeprefix("application/") not in _TYPES:
        # Logout tokens, DPoP proofs and security events are signed by the same keys.
        raise Refused(Reason.WRONG_TYPE)
    return Unverified(algorithm, kid, payload.get("iss"))


def verified_claims(
    token: str, algorithm: str, candidates: Iterable[Key]
) -> tuple[dict[str, Any], Key]:
    """The claims, and the key among `candidates` that signed them. Raises Refused."""
    for key in candidates:
        payload = _verify(token, algorithm, key)
        if payload is not None:
            claims = _load_object(payload)
            if claims is None:
                raise Refused(Reason.MALFORMED)
            return claims, key
    raise Refused(Reason.BAD_SIGNATURE)


def _verify(token: str, algorithm: str, key: Key) -> bytes | None:
    try:
        payload = jwt.api_jws.decode(token, key.public, algorithms=[algorithm])
    except (jwt.PyJWTError, ValueError, TypeError):
        return None
    return payload if isinstance(payload, bytes) else None


def _json_object(segment: str) -> dict[str, Any] | None:
    try:
        padded = segment.encode("ascii") + b"=" * (-len(segment) % 4)
        return _load_object(base64.b64decode(padded, altchars=b"-_", validate=True))
    except ValueError:
        return None


def _load_object(document: bytes) -> dict[str, Any] | None:
    # orjson bounds the nesting; the standard parser would exhaust the stack.
    try:
        value = orjson.loads(document)
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None
