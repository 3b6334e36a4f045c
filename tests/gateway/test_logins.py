"""Connections on their way in."""

from __future__ import annotations

from gateway.logins import Login, Logins


def begin(logins: Logins, away: list[str], name: str) -> Login:
    return logins.begin(0.0, lambda: away.append(name))


def test_beyond_the_bound_the_one_that_has_waited_longest_goes() -> None:
    logins, away = Logins(2), list[str]()
    for name in "abcd":
        begin(logins, away, name)
    assert away == ["a", "b"]
    assert len(logins) == 2


def test_who_has_signed_in_is_sent_away_no_more() -> None:
    logins, away = Logins(2), list[str]()
    begin(logins, away, "a").over()
    for name in "bcd":
        begin(logins, away, name)
    assert away == ["b"]


def test_who_takes_a_connection_over_keeps_its_place() -> None:
    logins, away = Logins(1), list[str]()
    login = begin(logins, away, "socket")
    login.send_away = lambda: away.append("connection")
    begin(logins, away, "other")
    assert away == ["connection"]
    login.over()
    assert len(logins) == 1
