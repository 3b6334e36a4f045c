"""A JWKS document -> the keys that may verify a token. Pure."""

from __future__ import annotations

import hashlib
from base64 import urlsafe_b64encode
from dataclasses import dataclass, field
from typing import Any, Final

import jwt
import orjson
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt.algorithms import AllowedPublicKeys, ECAlgorithm, OKPAlgorithm, RSAAlgorithm

KEYS_MAX = 100
_RSA_BITS = range(2048, 8193)
_RSA_ALGORITHMS = frozenset({"RS256", "RS384", "RS512", "PS256"})
_EC_ALGORITHMS: Final = {
    "P-256": frozenset({"ES256"}),
    "P-384": frozenset({"ES384"}),
}
_PRIVATE_MEMBERS = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
_THUMBPRINT_MEMBERS: Final = {
    "RSA": ("e", "kty", "n"),
    "EC": ("crv", "kty", "x", "y"),
    "OKP": ("crv", "kty", "x"),
}


class BadKeySet(Exception):
    """A document that is no JWKS, or holds more keys than we take."""


@dataclass(frozen=True, slots=True)
class Key:
    """A public key. `algorithms` are those it may verify; `thumbprint` identifies it (RFC 7638)."""

    kid: str | None
    algorithms: frozenset[str]
    thumbprint: str
    public: AllowedPublicKeys = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class KeySet:
    """An issuer's usable keys. Equal when they are the same keys under the same ids."""

    keys: frozenset[Key]

    def knows(self, kid: str | None) -> bool:
        """Whether any key has this id; without an id, whether there is any key."""
        return any(kid is None or key.kid == kid for key in self.keys)

    def holds(self, thumbprint: str) -> bool:
        """Whether this very key is published."""
        return any(key.thumbprint == thumbprint for key in self.keys)

    def candidates(self, kid: str | None, algorithm: str) -> list[Key]:
        """The keys that may have signed a token with this header.

        Ids need not be unique (RFC 7517 section 4.5). A token without an id is only accepted
        where there is just one key that it can mean.
        """
        fitting = [key for key in self.keys if algorithm in key.algorithms]
        if kid is None:
            return fitting if len(fitting) == 1 else []
        return [key for key in fitting if key.kid == kid]


def parse(document: bytes) -> KeySet:
    """The keys of a JWKS document.

    Keys that cannot verify a signature of ours are left out, as RFC 7517 section 5 asks:
    symmetric ones (a token could be "signed" with a published secret), those published with
    their private half, short RSA keys, other uses, unknown types and damaged ones.
    Raises BadKeySet.
    """
    entries = _entries(document)
    if len(entries) > KEYS_MAX:
        raise BadKeySet(f"more than {KEYS_MAX} keys")
    return KeySet(frozenset(key for entry in entries if (key := _key(entry)) is not None))


def _entries(document: bytes) -> list[Any]:
    try:
        body = orjson.loads(document)
    except orjson.JSONDecodeError:
        raise BadKeySet("not JSON") from None
    entries = body.get("keys") if isinstance(body, dict) else None
    if not isinstance(entries, list):
        raise BadKeySet("no list of keys")
    return entries


def _key(entry: Any) -> Key | None:
    if not isinstance(entry, dict) or not _PRIVATE_MEMBERS.isdisjoint(entry):
        return None
    kid = entry.get("kid")
    operations = entry.get("key_ops", ["verify"])
    if (
        not isinstance(kid, str | None)
        or entry.get("use", "sig") != "sig"
        or not isinstance(operations, list)
        or "verify" not in operations
    ):
        return None
    loaded = _load(entry)
    if loaded is None:
        return None
    public, algorithms = loaded
    named = entry.get("alg")
    if named is not None:
        if not isinstance(named, str) or named not in algorithms:
            return None
        algorithms = frozenset({named})
    return Key(kid, algorithms, _thumbprint(entry), public)


def _load(entry: dict[str, Any]) -> tuple[AllowedPublicKeys, frozenset[str]] | None:
    """The public key and what its type can verify."""
    try:
        match entry.get("kty"), entry.get("crv"):
            case "RSA", _:
                public: Any = RSAAlgorithm.from_jwk(entry)
                if isinstance(public, RSAPublicKey) and public.key_size in _RSA_BITS:
                    return public, _RSA_ALGORITHMS
            case "EC", str() as curve if curve in _EC_ALGORITHMS:
                public = ECAlgorithm.from_jwk(entry)
                return public, _EC_ALGORITHMS[curve]
            case "OKP", "Ed25519":
                public = OKPAlgorithm.from_jwk(entry)
                return public, frozenset({"EdDSA"})
    except (jwt.PyJWTError, ValueError, TypeError, KeyError):
        return None
    return None


def _thumbprint(entry: dict[str, Any]) -> str:
    members = {name: entry[name] for name in _THUMBPRINT_MEMBERS[entry["kty"]]}
    digest = hashlib.sha256(orjson.dumps(members, option=orjson.OPT_SORT_KEYS)).digest()
    return urlsafe_b64encode(digest).rstrip(b"=").decode()
