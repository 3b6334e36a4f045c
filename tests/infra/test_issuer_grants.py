"""What waits to be redeemed, against a clock that the test moves."""

from __future__ import annotations

import pytest

from infra.devstack.issuer.grants import (
    CODE_LIFETIME_S,
    DEVICE_LIFETIME_S,
    REFRESH_LIFETIME_S,
    Code,
    Device,
    Grants,
    Refresh,
)
from infra.devstack.issuer.people import PEOPLE


class Clock:
    now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def grants(clock: Clock) -> Grants:
    return Grants(clock)


def code(clock: Clock, name: str = "code", family: str = "f") -> Code:
    return Code(
        code=name,
        client_id="cli",
        person=PEOPLE["bob"],
        redirect_uri="http://127.0.0.1:1/callback",
        scope="openid",
        nonce=None,
        code_challenge="challenge",
        code_challenge_method="S256",
        expires_at=clock() + CODE_LIFETIME_S,
        family=family,
    )


def refresh(clock: Clock, name: str = "refresh", family: str = "f") -> Refresh:
    return Refresh(name, "cli", PEOPLE["bob"], "openid", family, clock() + REFRESH_LIFETIME_S)


def device(clock: Clock, name: str = "device", user_code: str = "BCDF-GHJK") -> Device:
    return Device(name, user_code, "cli", "openid", clock() + DEVICE_LIFETIME_S, clock)


def test_a_code_lives_for_a_minute(clock: Clock, grants: Grants) -> None:
    grants.add_code(code(clock, "early"))
    grants.add_code(code(clock, "late"))
    clock.now += CODE_LIFETIME_S - 1
    assert grants.take_code("early", "cli") is not None
    clock.now += 1
    assert grants.take_code("late", "cli") is None


def test_a_code_is_for_the_client_it_was_issued_to(clock: Clock, grants: Grants) -> None:
    grants.add_code(code(clock))
    assert grants.take_code("code", "other") is None
    assert grants.take_code("code", "cli") is not None


def test_a_code_used_twice_ends_the_tokens_of_its_family_alone(
    clock: Clock, grants: Grants
) -> None:
    grants.add_code(code(clock))
    grants.take_code("code", "cli")
    grants.add_refresh(refresh(clock, "same", "f"))
    grants.add_refresh(refresh(clock, "other", "g"))
    # Long after it expired, and after others came and went.
    clock.now += 3600
    grants.add_code(code(clock, "another", "h"))
    assert grants.take_code("code", "cli") is None
    assert grants.take_refresh("same", "cli") is None
    assert grants.take_refresh("other", "cli") is not None
    # A redemption that was under way when the family ended adds nothing to it.
    grants.add_refresh(refresh(clock, "late", "f"))
    assert grants.take_refresh("late", "cli") is None


def test_a_refresh_token_expires(clock: Clock, grants: Grants) -> None:
    grants.add_refresh(refresh(clock))
    clock.now += REFRESH_LIFETIME_S
    assert grants.take_refresh("refresh", "cli") is None


def test_a_refresh_token_is_for_the_client_it_was_issued_to(clock: Clock, grants: Grants) -> None:
    grants.add_refresh(refresh(clock))
    assert grants.take_refresh("refresh", "other") is None
    assert grants.take_refresh("refresh", "cli") is not None


def test_a_device_expires(clock: Clock, grants: Grants) -> None:
    waiting = device(clock)
    grants.add_device(waiting)
    clock.now += DEVICE_LIFETIME_S - 1
    assert grants.device_by_user_code("bcdf ghjk") is waiting
    clock.now += 1
    assert grants.device_by_user_code("BCDF-GHJK") is None
    assert waiting.is_expired()


def test_polling_too_fast_makes_the_interval_longer(clock: Clock, grants: Grants) -> None:
    waiting = device(clock)
    grants.add_device(waiting)
    polls = [(0, False), (5, False), (4, True), (9, True), (14, True), (20, False)]
    for seconds, early in polls:
        clock.now += seconds
        assert grants.polls_too_fast(waiting) is early, seconds


def test_what_waits_is_bounded(clock: Clock, grants: Grants) -> None:
    for number in range(10_010):
        grants._devices[str(number)] = device(clock, str(number), str(number))
    grants.add_device(device(clock, "newest"))
    assert len(grants._devices) == 10_000
    assert grants.device("newest") is not None
    assert grants.device("0") is None
