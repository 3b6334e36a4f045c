from __future__ import annotations

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import commitments, statements
from schemas.commitments import CommitmentError, leaves
from tests.processors.recording import data_row

KEY, NONCE = commitments.salt_key(b"k" * 32), bytes(12)
VALUES = st.none() | st.binary(max_size=40)
COLUMNS = (("ssn", 16_400, 1, 25, 0, "public.customers.ssn"), ("n", 0, 0, 23, 1, ""))


def rfc6962(hashes: list[bytes]) -> bytes:
    """MTH of RFC 6962, section 2.1, over hashes of leaves, as it is written there."""
    if len(hashes) == 1:
        return hashes[0]
    split = 1
    while split * 2 < len(hashes):
        split *= 2
    return sha256(b"\1" + rfc6962(hashes[:split]) + rfc6962(hashes[split:])).digest()


@given(st.lists(st.binary(max_size=8), min_size=1, max_size=40), st.data())
def test_the_root_is_rfc_6962s_and_every_leaf_has_a_proof(
    values: list[bytes], data: st.DataObject
) -> None:
    fields = [(b"f/%d" % number, value) for number, value in enumerate(values)]
    root = commitments.root(KEY, NONCE, fields)
    proofs = [commitments.proof(KEY, NONCE, fields, number) for number in range(len(fields))]
    hashes = [
        sha256(b"\0commit/v1" + salt + bytes((len(path),)) + path + value).digest()
        for (salt, _), (path, value) in zip(proofs, fields, strict=True)
    ]
    assert root == rfc6962(hashes)
    assert len({salt for salt, _ in proofs}) == len(fields)
    number = data.draw(st.integers(0, len(fields) - 1))
    (path, value), (salt, way) = fields[number], proofs[number]
    assert commitments.holds(root, path, value, salt, way)
    assert not commitments.holds(root, path, value + b"x", salt, way)
    assert not commitments.holds(root, b"g", value, salt, way)


def test_what_somebody_wrote_into_a_field_does_not_pass_for_another_field() -> None:
    """The one leaf's bytes, cut elsewhere: a salt that ends within the statement."""
    path, value = b"rows/0/0", b"\0\0\0\x05guilt"
    typed = b"select 1 -- " + bytes((len(path),)) + path + value
    root = commitments.root(KEY, NONCE, [(b"statement", typed)])
    salt, way = commitments.proof(KEY, NONCE, [(b"statement", typed)], 0)
    longer = salt + bytes((9,)) + b"statement" + b"select 1 -- "
    assert commitments.holds(root, b"statement", typed, salt, way)
    assert not commitments.holds(root, path, value, longer, way)
    assert not commitments.holds(root, b"p" * 256, value, salt, way)
    assert not commitments.holds(root, b"statement", typed, salt, [("left", b"short")])


def test_a_length_without_an_end_is_no_length() -> None:
    with pytest.raises(CommitmentError):
        leaves(commitments.REQUESTED, 0, b"\xff" * 2_000_000)


def test_salts_are_of_the_key_and_the_nonce() -> None:
    fields = [(b"a", b"1"), (b"b", b"2")]
    roots = {
        commitments.root(key, nonce, fields)
        for key in (KEY, commitments.salt_key(b"l" * 32))
        for nonce in (NONCE, b"1" * 12)
    }
    assert len(roots) == 4


@given(st.text(max_size=50), st.lists(VALUES, max_size=6), st.text(max_size=20))
def test_a_request_has_a_leaf_for_each_of_its_parts(
    statement: str, values: list[bytes | None], ran: str
) -> None:
    parameters = tuple((25, number & 1, value) for number, value in enumerate(values))
    original = statements.requested_original(statement, parameters, ran)
    found = dict(leaves(commitments.REQUESTED, 0, original))
    assert found.pop(b"statement") == statement.encode()
    assert found.pop(b"executed", b"") == ran.encode()
    assert list(found) == [b"parameters/%d" % number for number in range(len(values))]
    for value, leaf in zip(values, found.values(), strict=True):
        assert leaf.endswith(value or b"\0")


@given(st.lists(st.lists(VALUES, min_size=2, max_size=2), min_size=1, max_size=9))
def test_a_small_result_has_a_leaf_for_each_value(rows: list[list[bytes | None]]) -> None:
    described = statements.described("rows", COLUMNS, classified=True)
    data = b"".join(data_row(*row) for row in rows)
    original = statements.responded_original(described, data)
    found = dict(leaves(commitments.FIELDS, len(described), original))
    assert found.pop(b"description") == described
    assert found == {
        b"rows/%d/%d" % (r, c): b"\xff" * 4 if v is None else len(v).to_bytes(4, "big") + v
        for r, row in enumerate(rows)
        for c, v in enumerate(row)
    }


@given(st.integers(0, 70_000))
def test_a_large_result_has_a_leaf_for_each_block(size: int) -> None:
    described = statements.described("rows", COLUMNS, classified=False)
    data = bytes(range(256)) * (size // 256 + 1)
    original = statements.responded_original(described, data[:size])
    (first, *blocks) = leaves(commitments.BLOCKS, len(described), original)
    assert first == (b"description", described)
    assert b"".join(value for _, value in blocks) == data[:size]
    assert all(len(value) <= 16 * 1024 for _, value in blocks)


@given(st.sampled_from([1, 2, 3, 4, 255]), st.integers(0, 60), st.binary(max_size=60))
def test_noise_is_a_commitment_error_or_cut_without_loss(
    layout: int, split: int, noise: bytes
) -> None:
    try:
        found = leaves(layout, split, noise)
    except CommitmentError:
        return
    assert all(value in noise for _, value in found)
    assert len({path for path, _ in found}) == len(found)


@pytest.mark.parametrize("layout", [commitments.REQUESTED, commitments.FIELDS, commitments.BLOCKS])
def test_nothing_may_follow_or_lack(layout: int) -> None:
    described = statements.described("rows", COLUMNS, classified=False)
    originals = {
        commitments.REQUESTED: statements.requested_original("select 1", ((1, 0, b"x"),), "y"),
        commitments.FIELDS: statements.responded_original(described, data_row(b"a", None)),
        commitments.BLOCKS: statements.responded_original(described, data_row(b"a", None)),
    }
    original = originals[layout]
    assert leaves(layout, len(described), original)
    for broken in (original + b"x", original[:-1]):
        with pytest.raises(CommitmentError):
            leaves(layout, len(described), broken)
