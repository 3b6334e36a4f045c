"""`codec.encode` is the oracle."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import codec, events, statements
from tests.schemas.events_strategy import records


def any_of(kind: type[Any]) -> st.SearchStrategy[Any]:
    return records(kind, codec.CURRENT[kind].parsed)


def original_of(kind: type[Any]) -> st.SearchStrategy[Any]:
    return records(events.ORIGINALS[kind], codec.CURRENT[kind].original)


def head(event: Any) -> bytes:
    return statements.head(
        codec.encode_context(event.context),
        event.event_id,
        statements.moment(event.at, event.monotonic_ns),
        event.statement_id,
    )


def expected(event: Any) -> bytes:
    return codec.encode(event, codec.encode_context(event.context))


@given(any_of(events.Requested))
def test_requested(event: events.Requested) -> None:
    what = statements.asked(event.action, event.kind, event.kinds, event.relations)
    assert statements.requested(head(event), event.prepared_id, what, event.box) == expected(event)


@given(any_of(events.Decided))
def test_decided(event: events.Decided) -> None:
    judged = statements.judged(
        event.decision,
        event.policies,
        event.policy_digest,
        event.reason,
        event.masks,
        max_rows=event.max_rows,
    )
    assert head(event) + judged == expected(event)


@given(any_of(events.Responded))
def test_responded(event: events.Responded) -> None:
    written = statements.responded(
        head(event), event.chunk, event.rows, event.byte_count, event.box
    )
    assert written == expected(event)


@given(any_of(events.Completed))
def test_completed(event: events.Completed) -> None:
    written = statements.completed(
        head(event),
        event.outcome,
        event.command_tag,
        event.error_code,
        rows=event.rows,
        byte_count=event.byte_count,
        duration_us=event.duration_us,
        box=event.box,
    )
    assert written == expected(event)


@given(original_of(events.Requested))
def test_what_a_requests_box_holds(original: events.RequestedOriginal) -> None:
    parameters = tuple((each.type_oid, each.format, each.value) for each in original.parameters)
    written = statements.requested_original(original.statement, parameters, original.executed)
    assert written == codec.encode_original(original)


@given(original_of(events.Responded))
def test_what_a_responses_box_holds(original: events.RespondedOriginal) -> None:
    columns = tuple(
        (each.name, each.table_oid, each.attnum, each.type_oid, each.format, each.source)
        for each in original.columns
    )
    described = statements.described(original.encoding, columns, original.classified)
    written = statements.responded_original(described, original.data)
    assert written == codec.encode_original(original)


@pytest.mark.parametrize("wrong", [b"", bytes(15), bytes(17)])
def test_an_id_of_another_size_would_move_every_field_behind_it(wrong: bytes) -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        statements.head(b"", wrong, b"", bytes(16))
    with pytest.raises(ValueError, match="16 bytes"):
        statements.head(b"", bytes(16), b"", wrong)
    with pytest.raises(ValueError, match="16 bytes"):
        statements.requested(b"", wrong, b"", b"")
