"""Discovery and JWKS over HTTP, with every answer bounded in size and time."""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
from enum import StrEnum
from typing import Any

import httpx
import orjson

from gateway.identity.keys import BadKeySet, KeySet, parse
from schemas.settings import Oidc, SettingsError

_DOCUMENT_MAX_BYTES = 1024 * 1024
_TIMEOUT_S = 5.0


class FetchError(StrEnum):
    """Why the keys could not be fetched: a stable code for metrics and logs."""

    TIMEOUT = "timeout"
    CONNECTION = "connection"
    STATUS = "status"
    TOO_LARGE = "too_large"
    BAD_DISCOVERY = "bad_discovery"
    WRONG_ISSUER = "wrong_issuer"
    INSECURE_URL = "insecure_url"
    BAD_KEY_SET = "bad_key_set"


class FetchFailed(Exception):
    """The keys could not be fetched."""

    def __init__(self, error: FetchError) -> None:
        self.error = error
        super().__init__(error.value)


class Fetcher:
    """Fetches one issuer's keys."""

    def __init__(self, settings: Oidc) -> None:
        """Raises SettingsError for an issuer URL or a CA file that cannot be used."""
        url = _url(settings.issuer)
        if url is None or url.query or url.fragment or url.userinfo:
            raise SettingsError("oidc.issuer must be an https URL, or http on a loopback address")
        try:
            context = ssl.create_default_context(cafile=settings.ca_file)
        except (OSError, ssl.SSLError) as error:
            raise SettingsError(f"cannot use oidc.ca_file {settings.ca_file}: {error}") from error
        self._issuer = settings.issuer
        self._client = httpx.AsyncClient(
            verify=context,
            timeout=_TIMEOUT_S,
            # An idle connection that the issuer is just closing would fail a sign-in.
            limits=httpx.Limits(max_keepalive_connections=0),
            # Whoever can redirect us could choose our keys.
            follow_redirects=False,
            # A proxy from the environment is for the internet, not for this machine.
            trust_env=not _is_loopback(url),
            headers={"Accept": "application/json", "Accept-Encoding": "identity"},
        )

    async def fetch(self) -> KeySet:
        """The keys the issuer publishes now. Raises FetchFailed."""
        failed: FetchError
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                return await self._fetch()
        except (TimeoutError, httpx.TimeoutException):
            failed = FetchError.TIMEOUT
        except (httpx.HTTPError, httpx.StreamError, OSError):
            failed = FetchError.CONNECTION
        except BadKeySet:
            failed = FetchError.BAD_KEY_SET
        raise FetchFailed(failed)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _fetch(self) -> KeySet:
        discovery = _discovery(
            await self._get(self._issuer.rstrip("/") + "/.well-known/openid-configuration")
        )
        # OpenID Connect Discovery section 4.3: else one issuer could answer for another.
        if discovery.get("issuer") != self._issuer:
            raise FetchFailed(FetchError.WRONG_ISSUER)
        jwks_uri = discovery.get("jwks_uri")
        if not isinstance(jwks_uri, str):
            raise FetchFailed(FetchError.BAD_DISCOVERY)
        if _url(jwks_uri) is None:
            raise FetchFailed(FetchError.INSECURE_URL)
        return parse(await self._get(jwks_uri))

    async def _get(self, url: str) -> bytes:
        async with self._client.stream("GET", url) as response:
            if response.status_code != 200:
                raise FetchFailed(FetchError.STATUS)
            # Not decompressed: a megabyte of it could become a gigabyte.
            body = bytearray()
            async for chunk in response.aiter_raw():
                body += chunk
                if len(body) > _DOCUMENT_MAX_BYTES:
                    raise FetchFailed(FetchError.TOO_LARGE)
            return bytes(body)


def _discovery(document: bytes) -> dict[str, Any]:
    try:
        value = orjson.loads(document)
    except orjson.JSONDecodeError:
        value = None
    if not isinstance(value, dict):
        raise FetchFailed(FetchError.BAD_DISCOVERY)
    return value


def _url(text: str) -> httpx.URL | None:
    """The URL if keys may be fetched from it: TLS, or a socket that stays on this host."""
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL:
        return None
    is_local = url.scheme == "http" and _is_loopback(url)
    if not url.host or not (url.scheme == "https" or is_local):
        return None
    return url if url.port is None or 0 < url.port < 65536 else None


def _is_loopback(url: httpx.URL) -> bool:
    if url.host == "localhost":
        return True
    try:
        return ipaddress.ip_address(url.host).is_loopback
    except ValueError:
        return False
