"""Connections whose people are not known yet.

Anyone who reaches the port can open thousands and say nothing. They have a bound of their own, so
that they take no place of somebody who has signed in; and beyond it the one that has waited
longest goes, so that they do not keep out who comes to sign in.
"""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import Counter, Gauge

_WAITING = Gauge("gatebook_logins", "Connections that have not signed in yet.")
_DISPLACED = Counter(
    "gatebook_logins_displaced_total", "Connections closed for newer ones: see max_logins."
)


class Login:
    """One connection on its way in. `send_away` ends it; `deadline` is by the loop's clock."""

    __slots__ = ("_logins", "deadline", "send_away")

    def __init__(self, logins: Logins, deadline: float, send_away: Callable[[], object]) -> None:
        self._logins = logins
        self.deadline = deadline
        self.send_away = send_away

    def over(self) -> None:
        """It is signed in, or gone."""
        self._logins.forget(self)


class Logins:
    """All of one process, oldest first."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._waiting: dict[Login, None] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def begin(self, deadline: float, send_away: Callable[[], object]) -> Login:
        """One more. Where there are too many, the oldest is sent away."""
        login = Login(self, deadline, send_away)
        self._waiting[login] = None
        if len(self._waiting) > self._most:
            oldest = next(iter(self._waiting))
            _DISPLACED.inc()
            self.forget(oldest)
            oldest.send_away()
        _WAITING.set(len(self._waiting))
        return login

    def forget(self, login: Login) -> None:
        """See Login.over."""
        self._waiting.pop(login, None)
        _WAITING.set(len(self._waiting))
