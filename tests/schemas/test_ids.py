from __future__ import annotations

import os
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from schemas.ids import Ids, derived, uuid7


@given(st.integers(0, 2**48 - 1), st.binary(min_size=10, max_size=10))
def test_uuid7_holds_its_time_and_sorts_by_it(unix_ms: int, random: bytes) -> None:
    made = UUID(bytes=uuid7(unix_ms, random))
    assert made.version == 7
    assert made.variant == "specified in RFC 4122"
    assert int.from_bytes(made.bytes[:6], "big") == unix_ms
    assert made.bytes[8:] != uuid7(unix_ms, bytes(b ^ 1 for b in random))[8:]
    if unix_ms:
        assert UUID(bytes=uuid7(unix_ms - 1, b"\xff" * 10)) < made


def test_the_example_of_the_rfc() -> None:
    random = bytes.fromhex("0cc3") + bytes.fromhex("18c4dc0c0c07398f")
    made = UUID(bytes=uuid7(0x017F22E279B0, random))
    assert made == UUID("017f22e2-79b0-7cc3-98c4-dc0c0c07398f")


def test_ids_follow_their_clock_and_none_comes_twice() -> None:
    now = 1_700_000_000_000_000_000
    made = Ids(lambda: now, os.urandom)
    first = [made() for _ in range(1000)]
    now += 5_000_000
    later = [made() for _ in range(1000)]
    assert len({*first, *later}) == 2000
    assert max(first) < min(later)
    for one in (*first, *later):
        read = UUID(bytes=one)
        assert (read.version, read.variant) == (7, "specified in RFC 4122")
    assert int.from_bytes(later[0][:6], "big") == now // 1_000_000


def test_derived_ids_are_the_same_at_every_replay() -> None:
    event = UUID("017f22e2-79b0-7cc3-98c4-dc0c0c07398f")
    assert derived(event, "ocsf") == derived(event, "ocsf")
    assert derived(event, "ocsf") != derived(event, "anomalies")
    assert derived(event, "ocsf").version == 5
