"""What waits to be redeemed: authorization codes, device codes, refresh tokens.

In memory: a restart of a development issuer signs people out of their refresh tokens, while
access tokens stay valid because the signing keys are kept. Everything here is bounded, and
every credential is redeemed once.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from infra.devstack.issuer.people import Person

CODE_LIFETIME_S = 60.0
DEVICE_LIFETIME_S = 600.0
DEVICE_INTERVAL_S = 5.0
REFRESH_LIFETIME_S = 12 * 3600.0
_WAITING_MAX = 10_000

_T = TypeVar("_T")


@dataclass(slots=True)
class Code:
    """An authorization code. `family` ties the refresh tokens that came of it together."""

    code: str = field(repr=False)
    client_id: str
    person: Person
    redirect_uri: str
    scope: str
    nonce: str | None
    code_challenge: str
    code_challenge_method: str
    expires_at: float
    family: str
    used: bool = False

    def get_redirect_uri(self) -> str:
        """Where the code went."""
        return self.redirect_uri

    def get_scope(self) -> str:
        """What was granted."""
        return self.scope


@dataclass(slots=True)
class Device:
    """A device authorization (RFC 8628): pending until a person answers, then redeemed once."""

    device_code: str = field(repr=False)
    user_code: str = field(repr=False)
    client_id: str
    scope: str
    expires_at: float
    now: Callable[[], float]
    interval_s: float = DEVICE_INTERVAL_S
    polled_at: float | None = None
    answer: tuple[Person | None, bool] | None = None

    def get_client_id(self) -> str:
        """Whose device it is."""
        return self.client_id

    def get_scope(self) -> str:
        """What was asked for."""
        return self.scope

    def get_user_code(self) -> str:
        """What the person types."""
        return self.user_code

    def is_expired(self) -> bool:
        """Whether the person took too long."""
        return self.now() >= self.expires_at


@dataclass(slots=True)
class Refresh:
    """A refresh token. Presenting one twice ends its family: one of the two was a thief."""

    token: str = field(repr=False)
    client_id: str
    person: Person
    scope: str
    family: str
    expires_at: float
    used: bool = False

    def check_client(self, client: object) -> bool:
        """Whether it was issued to this client."""
        return getattr(client, "client_id", None) == self.client_id

    def get_scope(self) -> str:
        """What was granted."""
        return self.scope


class Grants:
    """All of them. `clock` gives Unix seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._codes: dict[str, Code] = {}
        self._devices: dict[str, Device] = {}
        self._refresh: dict[str, Refresh] = {}
        self._ended: dict[str, float] = {}

    def add_code(self, code: Code) -> None:
        """Keep a code until it expires."""
        self._sweep()
        self._codes[code.code] = code

    def take_code(self, code: str, client_id: str) -> Code | None:
        """The code, if it is this client's, is unexpired and was never presented before.

        A first presentation uses it up even if the request then fails, so that a verifier
        cannot be guessed. A second one ends the refresh tokens that came of the first.
        """
        found = self._codes.get(code)
        if found is None or found.client_id != client_id:
            return None
        if found.used:
            self._end(found.family)
            return None
        found.used = True
        return found if self._clock() < found.expires_at else None

    def add_device(self, device: Device) -> None:
        """Keep a device authorization until it expires."""
        self._sweep()
        self._devices[device.device_code] = device

    def device(self, device_code: str) -> Device | None:
        """By the code that the device polls with."""
        return self._devices.get(device_code)

    def device_by_user_code(self, user_code: str) -> Device | None:
        """An unanswered, unexpired one by the code that the person types (case and dash free)."""
        wanted = _plain(user_code)
        for device in self._devices.values():
            if _plain(device.user_code) == wanted and device.answer is None:
                return None if device.is_expired() else device
        return None

    def remove_device(self, device: Device) -> None:
        """After its tokens were issued."""
        self._devices.pop(device.device_code, None)

    def polls_too_fast(self, device: Device) -> bool:
        """Note a poll; True, and a longer interval from now on, if it came too early."""
        now = self._clock()
        early = device.polled_at is not None and now - device.polled_at < device.interval_s
        device.polled_at = now
        if early:
            device.interval_s += 5.0
        return early

    def add_refresh(self, refresh: Refresh) -> None:
        """Keep a refresh token until it expires, unless its family was ended meanwhile."""
        self._sweep()
        if refresh.family not in self._ended:
            self._refresh[refresh.token] = refresh

    def take_refresh(self, token: str, client_id: str) -> Refresh | None:
        """The refresh token, if it is this client's, is unexpired and never was presented."""
        found = self._refresh.get(token)
        if found is None or found.client_id != client_id:
            return None
        if found.used:
            self._end(found.family)
            return None
        if self._clock() >= found.expires_at:
            return None
        found.used = True
        return found

    def new_family(self) -> str:
        """A name for the tokens that one sign-in leads to."""
        return secrets.token_hex(16)

    def _end(self, family: str) -> None:
        self._ended[family] = self._clock() + REFRESH_LIFETIME_S
        self._refresh = {k: v for k, v in self._refresh.items() if v.family != family}

    def _sweep(self) -> None:
        """Drop what has expired, then the oldest, so that nobody can fill the memory."""
        now = self._clock()
        # A used code is remembered for as long as what it led to can be ended.
        self._codes = _newest(
            {
                k: v
                for k, v in self._codes.items()
                if now < v.expires_at + (REFRESH_LIFETIME_S if v.used else 0.0)
            }
        )
        self._devices = _newest(
            {k: v for k, v in self._devices.items() if now < v.expires_at + DEVICE_LIFETIME_S}
        )
        self._refresh = _newest({k: v for k, v in self._refresh.items() if now < v.expires_at})
        self._ended = {k: until for k, until in self._ended.items() if now < until}


def _newest(waiting: dict[str, _T]) -> dict[str, _T]:
    if len(waiting) < _WAITING_MAX:
        return waiting
    return dict(list(waiting.items())[-_WAITING_MAX + 1 :])


def _plain(user_code: str) -> str:
    return user_code.replace("-", "").replace(" ", "").upper()
