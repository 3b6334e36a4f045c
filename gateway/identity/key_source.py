"""When an issuer's keys are fetched, and how long they serve while it cannot be reached."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog
from prometheus_client import CollectorRegistry, Counter

from gateway.identity.fetch import Fetcher, FetchFailed
from gateway.identity.keys import KeySet
from schemas.settings import Oidc

WAIT_S = 2.0
"""How long one sign-in waits for the issuer before it makes do with what is known."""

_BRIEF_WAIT_S = 0.2
"""The same after a failed fetch: enough for an issuer that is back, little for one that hangs."""

_INTERVAL_S = 1.0
"""Least time between two fetches: key ids in tokens are chosen by whoever presents them."""


class KeySource:
    """The current keys of one issuer. All its methods belong to one event loop.

    `monotonic` gives seconds that never run backwards. The age of a key set counts from the
    start of its fetch: a key withdrawn meanwhile must not gain time from a slow answer.
    """

    def __init__(
        self,
        settings: Oidc,
        *,
        monotonic: Callable[[], float],
        registry: CollectorRegistry,
    ) -> None:
        """Raises SettingsError."""
        self._fetcher = Fetcher(settings)
        self._fresh_s = min(settings.jwks_refresh_s, settings.jwks_max_age_s)
        self._interval_s = min(_INTERVAL_S, self._fresh_s)
        self._max_age_s = settings.jwks_max_age_s
        self._monotonic = monotonic
        self._log = structlog.get_logger("identity").bind(issuer=settings.issuer)
        self._fetches = Counter(
            "gatebook_jwks_fetches",
            "Fetches of the identity provider's keys, by result.",
            ["result"],
            registry=registry,
        )
        self._keys: KeySet | None = None
        self._fetched_at = float("-inf")
        self._started_at = float("-inf")
        self._failing = False
        self._task: asyncio.Task[None] | None = None

    @property
    def failing(self) -> bool:
        """Whether the last fetch failed."""
        return self._failing

    def now(self) -> float:
        """The time `keys` measures by, for its `since`."""
        return self._monotonic()

    async def keys(self, *, since: float | None = None) -> KeySet | None:
        """Keys fetched recently, or after `since` (then because a key id is unknown).

        When the issuer does not answer in time, the keys known from before, up to the age that
        the settings allow; None when there are none.
        """
        asked_at = self._monotonic()
        makes_do = since is None and self._failing and self._usable() is not None
        wait_s = _BRIEF_WAIT_S if makes_do else WAIT_S
        while not self._serves(since, asked_at):
            now = self._monotonic()
            if self._task is None:
                if self._failing and now < self._started_at + self._interval_s:
                    break
                self._started_at = max(now, self._started_at + self._interval_s)
                self._task = asyncio.create_task(self._refresh(self._started_at - now))
            # Whoever comes to a fetch that hangs already does not wait for it anew.
            remaining = min(asked_at, self._started_at) + wait_s - now
            if remaining <= 0:
                break
            # The fetch is everyone's: one waiter that gives up must not cancel it.
            done, _ = await asyncio.wait({self._task}, timeout=remaining)
            if not done or self._failing:
                break
        return self._usable()

    async def aclose(self) -> None:
        """Stop fetching and close the connections."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        await self._fetcher.aclose()

    def _usable(self) -> KeySet | None:
        is_usable = self._monotonic() - self._fetched_at <= self._max_age_s
        return self._keys if is_usable else None

    def _serves(self, since: float | None, asked_at: float) -> bool:
        if since is not None:
            return self._fetched_at >= since
        # What was fetched for this very question serves it, however long that took.
        return self._fetched_at >= asked_at or self._monotonic() - self._fetched_at < self._fresh_s

    async def _refresh(self, delay_s: float) -> None:
        try:
            await asyncio.sleep(delay_s)
            keys = await self._fetcher.fetch()
        except FetchFailed as failure:
            self._fetches.labels(result=failure.error.value).inc()
            self._log.warning("jwks_fetch_failed", error=failure.error.value)
            self._failing = True
        except Exception:
            self._failing = True
            raise
        else:
            self._fetches.labels(result="ok").inc()
            if keys != self._keys:
                kids = sorted(key.kid or "" for key in keys.keys)
                self._log.info("jwks_changed", kids=kids)
                self._keys = keys
            self._fetched_at = self._started_at
            self._failing = False
        finally:
            self._task = None
