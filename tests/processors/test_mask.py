"""The pure core, from an envelope to its audit copy."""

from __future__ import annotations

import json
from typing import Any
from uuid import uuid4

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from processors import mask
from processors.mask import Masker
from schemas import chain, codec
from schemas.codec import Archive, CodecError
from schemas.events import NONE_ID, Masked, Parameter, StreamBegan
from schemas.masking.applied import Applied
from schemas.masking.columns import Classification, ColumnMask
from schemas.sealing import Opener, Recipients, unwrap
from tests.processors.recording import Pen, Session, column, data_row

MASK = X25519PrivateKey.generate()
RECIPIENTS = Recipients((("mask", MASK.public_key()),))
SHOP = Classification(
    {
        "public.customers.ssn": ColumnMask("pii", "full"),
        "public.customers.email": ColumnMask("pii", "email"),
    }
)
T = b"T" * 16


@pytest.fixture
def pen() -> Pen:
    return Pen(RECIPIENTS)


@pytest.fixture
def session(pen: Pen) -> Session:
    return pen.session()


def audit_copy(value: bytes, session: Session, masker: Masker | None = None) -> Masked:
    """What the processor makes of a record, step by step."""
    archive = Archive()
    masked, context = mask.audit_copy(
        archive,
        masker or Masker(Applied({"shop": SHOP})),
        lambda _: Opener(unwrap(session.wraps, "mask", MASK)),
        chain.read(value),
    )
    assert context == session.encoded
    # What cannot be encoded and read again is no audit copy.
    assert archive.decode_masked(codec.encode_masked(masked, session.encoded)) == masked
    return masked


def test_an_audit_copy_says_by_what_it_was_masked(pen: Pen, session: Session) -> None:
    value = pen.decided(session, T)
    other = Classification({**SHOP.by_source, "public.customers.name": ColumnMask("pii", "full")})
    assert audit_copy(value, session).classification == SHOP.digest
    assert (
        audit_copy(value, session, Masker(Applied({"shop": other}))).classification == other.digest
    )
    assert other.digest != SHOP.digest
    # Another order is the same classification, another class or mask is not.
    turned = Classification(dict(reversed(SHOP.by_source.items())))
    assert turned.digest == SHOP.digest
    ssn = "public.customers.ssn"
    for changed in (ColumnMask("pci", "full"), ColumnMask("pii", "partial")):
        assert Classification({**SHOP.by_source, ssn: changed}).digest != SHOP.digest


def test_an_audit_copy_says_where_its_event_stands(pen: Pen, session: Session) -> None:
    pen.decided(session, T)
    value = pen.decided(session, T, "DENY")
    envelope, masked = chain.read(value), audit_copy(value, session)
    assert (masked.stream, masked.seq) == (pen.chain.stream, 1)
    assert (masked.prev_hash, masked.event_hash) == (envelope.prev_hash, envelope.event_hash)
    assert masked.context == session.context
    assert (masked.event_type, masked.statement_id, masked.decision) == ("Decided", T, "DENY")
    assert (masked.policies, masked.reason) == (["support-reads"], "permitted")
    assert masked.masks == []


def test_a_request(pen: Pen, session: Session) -> None:
    masked = audit_copy(
        pen.requested(
            session,
            T,
            "select id from customers where ssn = $1 and id = 12345",
            [Parameter(25, 0, b"Miller"), Parameter(23, 1, b"\0\0\0\7"), Parameter(0, 0, None)],
        ),
        session,
    )
    assert masked.statement == "select id from customers where ssn = $1 and id = ***"
    assert json.loads(masked.parameters) == ["***", 7, None]
    assert masked.masks == ["pii:statement", "classified:parameters"]
    assert (masked.action, masked.kind, masked.relations) == ("execute", "select", ["customers"])


@pytest.mark.parametrize(
    ("parameter", "shown"),
    [
        (Parameter(25, 0, b"plain"), "plain"),
        (Parameter(25, 0, b"bob@example.com"), "b***@example.com"),
        (Parameter(0, 0, b"bob@example.com"), "b***@example.com"),
        (Parameter(0, 1, b"bob@example.com"), "b***@example.com"),
        (Parameter(25, 1, b"123456789"), "*********"),
        (Parameter(23, 0, b"17"), 17),
        (Parameter(23, 1, b"\0\0\0\x11"), 17),
        (Parameter(0, 1, b"\0\0\0\x11"), "\\x00000011"),
        (Parameter(0, 1, (4111111111111111).to_bytes(8, "big")), "***"),
        (Parameter(16, 1, b"\1"), True),
        (Parameter(1700, 0, b"12.50"), "12.50"),
        (Parameter(25, 0, b"\xff"), "\\xff"),
        (Parameter(25, 0, None), None),
    ],
)
def test_bind_values_of_a_harmless_statement(
    pen: Pen, session: Session, parameter: Parameter, shown: Any
) -> None:
    value = pen.requested(session, T, "select 1 from orders where x = $1", [parameter])
    assert json.loads(audit_copy(value, session).parameters) == [shown]


def test_a_response(pen: Pen, session: Session) -> None:
    masked = audit_copy(
        pen.responded(
            session,
            T,
            [
                column("id", 23, source="public.customers.id"),
                column("ssn", source="public.customers.ssn"),
                column("email", source="public.customers.email"),
                column("note", source="public.customers.note"),
                column("first", source="?"),
            ],
            [
                data_row(b"1", b"123-45-6789", b"bob@example.com", b"call 212-555-0187", b"B"),
                data_row(b"2", None, None, b"", None),
            ],
            classified=True,
        ),
        session,
    )
    assert json.loads(masked.response_rows) == [
        {
            "id": 1,
            "ssn": "***",
            "email": "b***@example.com",
            "note": "call ***-***-****",
            "first": "***",
        },
        {"id": 2, "ssn": None, "email": None, "note": "", "first": None},
    ]
    assert masked.masks == [
        "computed:first",
        "pii:public.customers.email",
        "pii:public.customers.ssn",
        "phone:response_rows",
    ]
    assert (masked.rows, masked.chunk) == (2, 0)


def test_copies_both_ways(pen: Pen, session: Session) -> None:
    out = audit_copy(
        pen.responded(session, T, [], [b"1\tBob\n"], classified=True, encoding="copy"), session
    )
    assert json.loads(out.response_rows) == [["***", "***"]]
    open_ = audit_copy(pen.responded(session, T, [], [b"1\tBob\n"], encoding="copy"), session)
    assert json.loads(open_.response_rows) == [["1", "Bob"]]
    into = audit_copy(pen.request_data(session, T, b"1\tBob\n"), session)
    assert json.loads(into.parameters) == [["***", "***"]]
    assert into.masks == ["classified:parameters"]


def test_rows_that_were_never_described(pen: Pen, session: Session) -> None:
    rows = [data_row(b"1", None, b"bob@example.com"), data_row(b"\0\0\0\7", b"", b"x")]
    masked = audit_copy(pen.responded(session, T, [], rows), session)
    assert json.loads(masked.response_rows) == [
        ["1", None, "b***@example.com"],
        ["\\x00000007", "", "x"],
    ]
    hidden = audit_copy(pen.responded(session, T, [], rows, classified=True), session)
    assert json.loads(hidden.response_rows) == [["***", None, "***"], ["***", "***", "***"]]
    empty = audit_copy(pen.responded(session, T, [], [data_row(), data_row()]), session)
    assert json.loads(empty.response_rows) == [[], []]


def test_pieces_of_a_large_row_are_hidden(pen: Pen, session: Session) -> None:
    value = pen.responded(session, T, [], [b"D\0\0Miller"], encoding="fragment")
    masked = audit_copy(value, session)
    assert json.loads(masked.response_rows) == [["***"]]
    assert masked.masks == ["fragment:response_rows"]


def test_rows_in_an_encoding_of_the_future_are_refused(pen: Pen, session: Session) -> None:
    with pytest.raises(CodecError, match="unknown encoding"):
        audit_copy(pen.responded(session, T, [], [b"x"], encoding="arrow"), session)


def test_an_outcome(pen: Pen, session: Session) -> None:
    masked = audit_copy(pen.completed(session, T), session)
    assert (masked.outcome, masked.command_tag, masked.error) == ("completed", "SELECT 1", "")
    failed = audit_copy(
        pen.completed(
            session, T, {"C": "23505", "M": "duplicate", "D": "Key (ssn)=(123) already exists."}
        ),
        session,
    )
    assert (failed.outcome, failed.error_code) == ("failed", "23505")
    assert json.loads(failed.error)["D"] == "Key (ssn)=(***) already exists."
    assert failed.masks == ["quoted:error"]


def test_sessions_and_refusals(pen: Pen, session: Session) -> None:
    opened = audit_copy(pen.opened(session, "bob@example.com", {"x": "123-45-6789"}), session)
    assert json.loads(opened.details) == {
        "protocol": "postgres/3.0",
        "tls": "TLSv1.3",
        "token_id": "jti-1",
        "user": "b***@example.com",
        "parameters": {"x": "***-**-****"},
    }
    assert opened.masks == ["email:details", "ssn:details"]
    refused = audit_copy(pen.refused(session), session)
    assert (refused.reason, refused.error_code) == ("expired", "28000")
    closed = audit_copy(pen.closed(session), session)
    assert (closed.reason, closed.rows, closed.duration_us) == ("client_closed", 2, 9_000)
    assert json.loads(closed.details) == {"bytes_in": 100, "bytes_out": 200, "statements": 3}


def test_the_beginning_of_a_stream(pen: Pen, session: Session) -> None:
    instance = uuid4()
    began = StreamBegan(session.context, NONE_ID, 1, 2, instance.bytes, "g/1/0", "0.1.0", "ab")
    copy = audit_copy(pen.write(session, began), session)
    assert (copy.event_type, copy.policy_digest) == ("StreamBegan", "ab")
    assert json.loads(copy.details) == {
        "follows": "g/1/0", "instance": str(instance), "version": "0.1.0",
    }  # fmt: skip


def test_a_set_of_policies_that_was_refused(pen: Pen, session: Session) -> None:
    copy = audit_copy(pen.policy_loaded(session), session)
    assert (copy.event_type, copy.outcome, copy.policy_digest) == (
        "PolicyLoaded", "failed", "ab" * 32,
    )  # fmt: skip
    assert copy.reason == "a.cedar:3: x"
    assert json.loads(copy.details) == {"files": 2, "policies": 7}


def test_targets_that_have_changed(pen: Pen, session: Session) -> None:
    copy = audit_copy(pen.targets_loaded(session), session)
    assert (copy.event_type, copy.outcome, copy.reason) == ("TargetsLoaded", "loaded", "")
    assert json.loads(copy.details) == {
        "added": ["a"], "changed": ["b", "c"], "digest": "ab" * 32, "removed": [], "targets": 3,
    }  # fmt: skip


def test_a_target_we_do_not_know_is_masked_by_all_names_we_know(pen: Pen) -> None:
    session = pen.session(target="elsewhere")
    masked = audit_copy(
        pen.responded(session, T, [column("ssn"), column("x")], [data_row(b"a", b"b")]), session
    )
    assert json.loads(masked.response_rows) == [{"ssn": "***", "x": "b"}]


def test_no_configuration_still_finds_what_looks_classified(pen: Pen, session: Session) -> None:
    value = pen.requested(session, T, "select '123-45-6789'")
    assert audit_copy(value, session, Masker(Applied({}))).statement == "select '***-**-****'"


def test_a_replay_is_the_same_byte_for_byte(pen: Pen, session: Session) -> None:
    """Whatever the processor has seen before: its caches must not show."""
    values = [
        *pen.pgbench(session, 4711),
        pen.requested(session, T, "select 1 where ssn = 'x' and mail = 'bob@example.com'"),
        pen.opened(session, "u", {"b": "1", "a": "bob@example.com 123-45-6789"}),
        pen.completed(session, T, {"M": "bob@example.com", "C": "22000", "D": "(a)=(b)"}),
    ]
    warm = Masker(Applied({"shop": SHOP}))
    for _ in range(2):
        again = [codec.encode_masked(audit_copy(v, session, warm), session.encoded) for v in values]
    once = [codec.encode_masked(audit_copy(v, session), session.encoded) for v in values]
    assert again == once


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=40)


@given(TEXT, st.lists(st.binary(max_size=20), max_size=3), st.dictionaries(TEXT, TEXT, max_size=3))
def test_anything_a_person_can_type_has_an_audit_copy(
    text: str, parameters: list[bytes], startup: dict[str, str]
) -> None:
    pen = Pen(RECIPIENTS)
    session = pen.session()
    binds = [Parameter(0, n % 2, raw) for n, raw in enumerate(parameters)]
    audit_copy(pen.requested(session, T, text, binds), session)
    audit_copy(pen.opened(session, text, startup), session)
    audit_copy(pen.completed(session, T, {"M": text, "C": text[:5]}), session)


def test_the_caches_are_bounded(pen: Pen, session: Session) -> None:
    target = Masker(Applied({"shop": SHOP}))._target(SHOP)
    for number in range(10_050):
        target.statement(f"select {number}")
    assert len(target._statements._entries) == 10_000
    target.statement("x" * 20_000)
    assert f"{'x' * 20_000}" not in target._statements._entries
