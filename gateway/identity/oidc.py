"""The authenticator for tokens of an OpenID issuer."""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable

from prometheus_client import REGISTRY, CollectorRegistry, Counter

from gateway.identity import claims, jws
from gateway.identity.key_source import KeySource
from gateway.identity.keys import KeySet
from gateway.identity.principal import Principal, Reason, Refused
from schemas.settings import Oidc

__all__ = ["OidcAuthenticator", "Principal", "Reason", "Refused"]

_CACHE_MAX = 10_000


class OidcAuthenticator:
    """Verifies access and ID tokens presented as a password.

    `clock` gives Unix seconds, `monotonic` seconds that never run backwards. One instance
    serves all sessions of an event loop and never blocks it; nothing is fetched before the
    first token, so the issuer may be down when the gateway starts.
    """

    def __init__(
        self,
        settings: Oidc,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        registry: CollectorRegistry = REGISTRY,
    ) -> None:
        """Raises SettingsError."""
        self._settings = settings
        self._clock = clock
        self._source = KeySource(settings, monotonic=monotonic, registry=registry)
        self._authentications = Counter(
            "gatebook_authentications",
            "Presented credentials, by result.",
            ["result"],
            registry=registry,
        )
        self._verified: OrderedDict[bytes, Principal] = OrderedDict()
        self._verified_under: KeySet | None = None

    async def authenticate(self, token: str) -> Principal:
        """Who presents `token`. Raises Refused; never holds the token in what it raises."""
        try:
            principal = await self._authenticate(token)
        except Refused as refused:
            self._authentications.labels(result=refused.reason.value).inc()
            raise
        self._authentications.labels(result="ok").inc()
        return principal

    async def recheck(self, principal: Principal) -> None:
        """Whether a session may go on: its token unexpired, its key not withdrawn.

        Raises Refused.
        """
        claims.check_time(principal.expires_at, self._settings.leeway_s, self._clock())
        keys = await self._source.keys()
        if keys is None:
            raise Refused(Reason.ISSUER_UNREACHABLE)
        if principal.key_id is None or not keys.holds(principal.key_id):
            raise Refused(Reason.UNKNOWN_KEY)

    async def aclose(self) -> None:
        """Stop fetching keys."""
        await self._source.aclose()

    async def _authenticate(self, token: str) -> Principal:
        asked_at = self._source.now()
        unverified = jws.read(token, self._settings.algorithms)
        # Before any fetch: tokens of strangers must not make us call our issuer.
        if unverified.issuer is None:
            raise Refused(Reason.MISSING_CLAIM, "iss")
        if unverified.issuer != self._settings.issuer:
            raise Refused(Reason.WRONG_ISSUER)
        keys = await self._source.keys()
        if keys is not None and not keys.knows(unverified.kid):
            keys = await self._source.keys(since=asked_at)
            if keys is not None and not keys.knows(unverified.kid):
                # While the issuer is away, a key it has just added cannot be told from a forgery.
                raise Refused(
                    Reason.ISSUER_UNREACHABLE if self._source.failing else Reason.UNKNOWN_KEY
                )
        if keys is None:
            raise Refused(Reason.ISSUER_UNREACHABLE)
        return self._verify(token, unverified, keys)

    def _verify(self, token: str, unverified: jws.Unverified, keys: KeySet) -> Principal:
        now = self._clock()
        if keys != self._verified_under:
            self._verified.clear()
            self._verified_under = keys
        digest = hashlib.sha256(token.encode()).digest()
        known = self._verified.get(digest)
        if known is not None:
            claims.check_time(known.expires_at, self._settings.leeway_s, now)
            return known
        candidates = keys.candidates(unverified.kid, unverified.algorithm)
        if not candidates:
            # The key is there, but for another algorithm; or no kid says which one is meant.
            raise Refused(
                Reason.UNKNOWN_KEY if unverified.kid is None else Reason.ALGORITHM_NOT_ALLOWED
            )
        document, key = jws.verified_claims(token, unverified.algorithm, candidates)
        principal = claims.principal(document, self._settings, key.thumbprint, now)
        self._verified[digest] = principal
        if len(self._verified) > _CACHE_MAX:
            self._verified.popitem(last=False)
        return principal
