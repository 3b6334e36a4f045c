"""m of n: enough open, too few do not, and a false share is known with its giver."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import os
from dataclasses import dataclass
from pathlib import Path

import fastavro
import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas import codec, quorum, shamir
from schemas.codec import Archive
from schemas.events import KeyWraps, QuorumWraps, Wrap
from schemas.quorum import Given, Quorum, QuorumError, Share
from schemas.sealing import Recipients

KEY_ID, KEY = b"i" * 16, bytes(range(32))
EARLIER = Path(codec.__file__).parent / "avro" / "earlier"
EVENTS = [b"e" * 16, b"f" * 16]
NAMES = ["carol", "dave", "erin", "frank", "grace"]


@dataclass
class Board:
    """A quorum whose members' keys are known here."""

    threshold: int
    count: int

    def __post_init__(self) -> None:
        self.keys = [X25519PrivateKey.generate() for _ in range(self.count)]
        self.quorum = Quorum(
            "audit-board",
            self.threshold,
            tuple((name, key.public_key()) for name, key in zip(NAMES, self.keys, strict=False)),
        )
        self.wraps = self.quorum.wrap(KEY_ID, KEY)

    def share(self, member: int) -> Share:
        found = quorum.own(KEY_ID, self.wraps, self.keys[member - 1])
        assert found is not None
        return found

    def gives(self, giver: int, to: int) -> bytes:
        return quorum.give(KEY_ID, self.wraps, self.share(giver), to, EVENTS)


SIZES = st.integers(2, 5).flatmap(lambda n: st.tuples(st.integers(2, n), st.just(n)))


@settings(max_examples=30, deadline=None)
@given(SIZES)
def test_every_m_open_and_no_fewer(size: tuple[int, int]) -> None:
    board = Board(*size)
    members = range(1, board.count + 1)
    for some in itertools.combinations(members, board.threshold):
        opener, *others = some
        private = board.keys[opener - 1]
        shares = {opener: board.share(opener)}
        for other in others:
            with pytest.raises(QuorumError, match="opens with"):
                quorum.open_with(board.wraps, shares)
            gift = Given(other, EVENTS, board.gives(other, opener))
            shares[other] = quorum.take(KEY_ID, board.wraps, gift, private)
        assert quorum.open_with(board.wraps, shares) == KEY
    for few in itertools.combinations(members, board.threshold - 1):
        # Whoever leaves out the check gets another key.
        assert shamir.combine({at: board.share(at).secret for at in few}) != KEY


def test_the_same_share_twice_is_one() -> None:
    board = Board(3, 4)
    shares = {2: board.share(2)}
    for _ in range(3):
        taken = quorum.take(KEY_ID, board.wraps, Given(1, EVENTS, board.gives(1, 2)), board.keys[1])
        shares[taken.position] = taken
    with pytest.raises(QuorumError, match="carol, dave will do with 1 more of erin, frank"):
        quorum.open_with(board.wraps, shares)
    with pytest.raises(QuorumError, match="not to oneself"):
        quorum.give(KEY_ID, board.wraps, board.share(1), 1, EVENTS)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_bit_of_a_given_share_can_be_changed(data: st.DataObject) -> None:
    board = Board(2, 3)
    altered = bytearray(board.gives(2, 1))
    bit = data.draw(st.integers(0, 8 * len(altered) - 1))
    altered[bit // 8] ^= 1 << bit % 8
    with pytest.raises(QuorumError, match="dave does not open"):
        quorum.take(KEY_ID, board.wraps, Given(2, EVENTS, bytes(altered)), board.keys[0])


@given(st.binary(max_size=100))
def test_noise_is_no_share(noise: bytes) -> None:
    board = Board(2, 2)
    with pytest.raises(QuorumError):
        quorum.take(KEY_ID, board.wraps, Given(2, EVENTS, noise), board.keys[0])


@pytest.mark.parametrize("lie", [os.urandom(32), b"", b"x" * 33])
def test_a_lying_giver_is_named(lie: bytes) -> None:
    board = Board(2, 3)
    false = quorum.give(KEY_ID, board.wraps, Share(3, lie), 1, EVENTS)
    with pytest.raises(QuorumError, match="erin is false"):
        quorum.take(KEY_ID, board.wraps, Given(3, EVENTS, false), board.keys[0])
    # Another's share passed off as one's own, which would count one person twice.
    passed_off = quorum.give(KEY_ID, board.wraps, Share(3, board.share(2).secret), 1, EVENTS)
    with pytest.raises(QuorumError, match="erin is false"):
        quorum.take(KEY_ID, board.wraps, Given(3, EVENTS, passed_off), board.keys[0])


def test_a_share_is_for_its_key_its_events_and_its_receiver() -> None:
    board = Board(2, 3)
    ciphertext = board.gives(2, 1)
    carol, erin = board.keys[0], board.keys[2]
    for key_id, giver, private, events in (
        (b"j" * 16, 2, carol, EVENTS),
        (KEY_ID, 3, carol, EVENTS),
        (KEY_ID, 2, erin, EVENTS),
        (KEY_ID, 2, carol, EVENTS[:1]),
    ):
        with pytest.raises(QuorumError, match="does not open"):
            quorum.take(key_id, board.wraps, Given(giver, events, ciphertext), private)
    with pytest.raises(QuorumError, match="no member"):
        stranger = X25519PrivateKey.generate()
        quorum.take(KEY_ID, board.wraps, Given(2, EVENTS, ciphertext), stranger)
    assert quorum.own(KEY_ID, board.wraps, X25519PrivateKey.generate()) is None


def test_what_everyone_sees_is_bound_into_every_share() -> None:
    board = Board(2, 3)
    members = board.wraps.members
    for altered in (
        QuorumWraps("another", 2, members),
        QuorumWraps("audit-board", 1, members),
        QuorumWraps("audit-board", 2, [*members[:2], members[1]]),
        QuorumWraps(
            "audit-board",
            2,
            [members[0], msgspec.structs.replace(members[1], commitment=bytes(32)), members[2]],
        ),
    ):
        with pytest.raises(QuorumError, match="does not open: it was altered"):
            quorum.own(KEY_ID, altered, board.keys[0])


@pytest.mark.parametrize(("threshold", "count"), [(1, 3), (4, 3)])
def test_a_quorum_of_one_or_of_too_many_is_refused(threshold: int, count: int) -> None:
    with pytest.raises(QuorumError, match="at least two"):
        Board(threshold, count)


def test_one_person_is_one_member() -> None:
    key = X25519PrivateKey.generate().public_key()
    other = X25519PrivateKey.generate().public_key()
    for members in ((("carol", key), ("dave", key)), (("carol", key), ("carol", other))):
        with pytest.raises(QuorumError, match="one name, or one key"):
            Quorum("audit-board", 2, members)


def test_wraps_of_both_kinds_survive_the_book() -> None:
    board = Board(2, 3)
    mask = X25519PrivateKey.generate()
    recipients = Recipients((("mask", mask.public_key()),), (board.quorum,))
    value = codec.encode_wraps(recipients.wrap(KEY_ID, KEY))
    read = Archive().decode_wraps(value)
    assert isinstance(read, KeyWraps)
    (of_quorum,) = read.quorums
    shares = {
        at: share
        for at, private in ((1, board.keys[0]), (3, board.keys[2]))
        if (share := quorum.own(KEY_ID, of_quorum, private))
    }
    assert quorum.open_with(of_quorum, shares) == KEY


def test_a_person_who_opens_alone_as_well_is_told() -> None:
    board = Board(2, 3)
    alone = (("mask", X25519PrivateKey.generate().public_key()), ("c", board.keys[0].public_key()))
    assert Recipients(alone, (board.quorum,)).also_alone() == [("audit-board", "carol")]
    assert Recipients(alone[:1], (board.quorum,)).also_alone() == []


def test_keys_of_before_there_were_quorums_are_read() -> None:
    [file] = EARLIER.glob("KeyWraps-*.avsc")
    text = file.read_text()
    schema = json.loads(text)
    buffer = io.BytesIO()
    wraps = {"key_id": KEY_ID, "wraps": [{"recipient": "mask", "ciphertext": b"sealed"}]}
    fastavro.schemaless_writer(buffer, schema, wraps)
    value = codec.frame(hashlib.sha256(text.encode()).digest(), buffer.getvalue())
    assert Archive().decode_wraps(value) == KeyWraps(KEY_ID, [Wrap("mask", b"sealed")], [])
