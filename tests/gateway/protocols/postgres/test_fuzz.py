"""However packets are cut and whenever the journal answers: the same conversation, the same book.

`GATEBOOK_FUZZ=20000` runs that many examples of each test instead of a few hundred.
"""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.machine import Abort, Closed, Expired, Received, Shutdown
from tests.gateway.protocols.postgres import fuzzing
from tests.gateway.protocols.postgres import messages as pg
from tests.gateway.protocols.postgres.conversations import (
    CUTS,
    PLAIN,
    REFUSED,
    SETTING,
    conversation,
    pieces,
)
from tests.gateway.protocols.postgres.dialogue import CLIENT, TARGET, Dialogue, sent
from tests.gateway.protocols.postgres.rig import Rig, directly

EXAMPLES = int(os.environ.get("GATEBOOK_FUZZ", "250"))
fuzz = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
long = pytest.mark.timeout(3600 if EXAMPLES > 1000 else 120)


def at_once(data: bytes) -> Rig:
    """Everything is sent before anything is decided."""
    rig = Rig()
    rig.say(data)
    rig.settle()
    return rig


def in_pieces(data: bytes, cuts: list[int], seed: int, **options: object) -> Rig:
    """Cut here and there, with decisions, records and answers coming in between."""
    rig = Rig(seed, **options)
    for number, piece in enumerate(pieces(data, cuts)):
        rig.say(piece)
        for _ in range((seed >> number) % 4):
            rig.step(cut=True)
    rig.settle(cut=True)
    return rig


def step_by_step(data: bytes) -> Rig:
    """Byte by byte, each time until nothing is under way."""
    rig = Rig()
    for byte in data:
        rig.say(bytes([byte]))
        rig.settle()
    return rig


@long
@fuzz
@given(data=conversation(PLAIN), cuts=CUTS, seed=st.integers(0, 1 << 30))
def test_a_client_hears_what_it_would_hear_without_a_gateway(
    data: bytes, cuts: list[int], seed: int
) -> None:
    expected = directly(data)
    for rig in (at_once(data), in_pieces(data, cuts, seed)):
        assert bytes(rig.to_client) == expected
        assert rig.idle()
        rig.finish()


@long
@fuzz
@given(data=conversation([*PLAIN, *REFUSED, *SETTING]), cuts=CUTS, seed=st.integers(0, 1 << 30))
def test_cutting_the_input_anywhere_changes_nothing(
    data: bytes, cuts: list[int], seed: int
) -> None:
    once, cut = at_once(data), in_pieces(data, cuts, seed)
    assert bytes(cut.to_client) == bytes(once.to_client)
    assert cut.server.executed == once.server.executed
    assert cut.server.copied == once.server.copied
    assert cut.book() == once.book()
    for rig in (once, cut):
        assert rig.idle()
        rig.finish()


@long
@settings(fuzz, max_examples=max(EXAMPLES // 5, 20))
@given(data=conversation([*PLAIN, *REFUSED, *SETTING], length=6))
def test_a_client_that_waits_after_each_byte_gets_the_same(data: bytes) -> None:
    once, slowly = at_once(data), step_by_step(data)
    assert bytes(slowly.to_client) == bytes(once.to_client)
    assert slowly.book() == once.book()


@long
@fuzz
@given(
    data=conversation([*PLAIN, *REFUSED, *SETTING]),
    cuts=CUTS,
    seed=st.integers(0, 1 << 30),
    end=st.sampled_from([Closed(CLIENT), Closed(TARGET), Expired(), Shutdown(), None]),
    at=st.integers(0, 12),
)
def test_whenever_it_ends_and_whatever_the_journal_loses_every_request_ends_once(
    data: bytes, cuts: list[int], seed: int, end: object, at: int
) -> None:
    rig = Rig(seed, failing=0.1 if seed % 2 else 0.0)
    for number, piece in enumerate(pieces(data, cuts)):
        if rig.closed:
            break
        if number == at and end is not None:
            rig.give(end)  # type: ignore[arg-type]
        if not rig.closed:
            rig.say(piece)
        for _ in range((seed >> number) % 5):
            rig.step(cut=True)
    rig.finish()


MUTATIONS = st.lists(
    st.tuples(
        st.sampled_from(["flip", "insert", "delete", "length"]),
        st.integers(0, 1 << 16),
        st.integers(0, 255),
    ),
    min_size=1,
    max_size=4,
)


def mutated(data: bytes, mutations: list[tuple[str, int, int]]) -> bytes:
    changed = bytearray(data)
    for how, where, value in mutations:
        at = where % max(1, len(changed))
        match how:
            case "flip":
                changed[at : at + 1] = bytes([value])
            case "insert":
                changed[at:at] = bytes([value]) * (where % 7)
            case "delete":
                del changed[at : at + value % 9]
            case "length":
                changed[at : at + 4] = value.to_bytes(4, "big")
    return bytes(changed)


@long
@fuzz
@given(
    data=conversation([*PLAIN, *REFUSED]),
    mutations=MUTATIONS,
    cuts=CUTS,
    seed=st.integers(0, 1 << 30),
)
def test_garbage_from_a_client_breaks_no_promise(
    data: bytes, mutations: list[tuple[str, int, int]], cuts: list[int], seed: int
) -> None:
    """The server of the rig refuses to run what it was not asked for."""
    Rig(seed).endure(pieces(mutated(data, mutations), cuts))


@long
@fuzz
@given(data=conversation(PLAIN), cuts=CUTS, seed=st.integers(0, 1 << 30))
def test_garbage_from_a_target_breaks_no_promise(data: bytes, cuts: list[int], seed: int) -> None:
    rig = Rig(seed)
    for number, piece in enumerate(pieces(data, cuts)):
        if rig.closed:
            break
        rig.say(piece)
        for _ in range((seed >> number) % 4):
            if (seed >> number) % 3 == 0:
                rig.corrupt()
            rig.step(cut=True)
    rig.finish()


def test_the_rig_notices_a_statement_that_was_not_asked_for() -> None:
    rig = Rig()
    with pytest.raises(AssertionError, match="ran unasked"):
        rig._to_target(pg.query("select 1"))


def test_the_rig_notices_rows_that_are_not_recorded() -> None:
    rig = Rig()
    with pytest.raises(AssertionError, match="before they were durable"):
        rig._to_client(pg.row(b"1"))


@pytest.mark.parametrize("message", [pg.notice("secret"), pg.error("P0001", "secret")])
def test_the_rig_notices_words_that_are_not_recorded(message: bytes) -> None:
    rig = Rig()
    with pytest.raises(AssertionError, match="told before it was durable"):
        rig._to_client(message)


def test_the_rig_notices_a_request_that_never_ends() -> None:
    rig = Rig()
    rig.say(pg.query("select 1"))
    rig.outcomes.clear()
    rig.settle()
    rig.give(Received(CLIENT, pg.TERMINATE))
    rig.settle()
    rig.outcomes.clear()
    with pytest.raises(AssertionError, match="without an end"):
        rig._check_ends()


# --- before the session ---

GREETINGS = st.lists(
    st.sampled_from(
        [
            pg.GSSENC_REQUEST,
            pg.startup(user="alice", database="shop"),
            pg.startup(pg.PROTOCOL_3_2, user="alice", database="shop", options="-c role=x"),
            pg.startup(database="shop"),
            pg.password("token"),
            pg.cancel_request(7, b"abcd"),
            pg.query("select 1"),
            b"GET / HTTP/1.1\r\n\r\n",
        ]
    ),
    min_size=1,
    max_size=4,
).map(b"".join)


@long
@fuzz
@given(data=GREETINGS, cuts=CUTS, mutations=st.one_of(st.just([]), MUTATIONS))
def test_cutting_what_a_stranger_sends_changes_nothing(
    data: bytes, cuts: list[int], mutations: list[tuple[str, int, int]]
) -> None:
    data = mutated(data, mutations)
    once = Dialogue().client(data)
    talk, said = Dialogue(), []
    for piece in pieces(data, cuts):
        said += talk.client(piece)
    assert said == once
    assert not any(isinstance(command, Abort) for command in once)
    assert sent(once, TARGET) == b""


# --- `make fuzz`, for a moment ---


def test_mutated_sessions_of_real_clients() -> None:
    inputs, found = fuzzing.run(0, 600)
    assert found == []
    assert inputs > 10_000


def test_every_client_was_recorded() -> None:
    kinds = [{chr(one[0]) for one in session} for session in fuzzing.corpus()]
    assert len(kinds) == 5
    assert set.union(*kinds) >= set("QPBDECSHdcX")


@long
@fuzz
@given(data=conversation([*PLAIN, *REFUSED, *SETTING]), cuts=CUTS, seed=st.integers(0, 1 << 30))
def test_what_is_read_aside_means_what_it_means_when_it_is_read_at_once(
    data: bytes, cuts: list[int], seed: int
) -> None:
    once, read = at_once(data), in_pieces(data, cuts, seed, large=0)
    assert bytes(read.to_client) == bytes(once.to_client)
    assert read.server.executed == once.server.executed
    assert read.book() == once.book()
    assert read.idle()
    read.finish()
