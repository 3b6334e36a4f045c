"""The blind verifier's judgement, on events as a gateway writes them."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import msgspec
import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from msgspec.structs import replace

from cli.blind import (
    FOUND,
    UNDECIDED,
    Expected,
    Finding,
    HistoryRows,
    Judge,
    Keys,
    MaskedCopies,
    NotOpenable,
    Scope,
    uuid,
)
from cli.problems import Problem
from cli.quorums import shares
from processors.mask import Masker
from schemas import chain
from schemas.codec import Archive, encode_classification, encode_context, encode_masked
from schemas.events import Masked
from schemas.masking.applied import Applied, document
from schemas.masking.columns import Classification, ColumnMask
from schemas.quorum import Quorum
from schemas.sealing import Recipients
from sinks.rows import COLUMNS
from tests.processors.recording import Pen, Session, column, data_row, new_id

AUDITOR = X25519PrivateKey.generate()
RECIPIENTS = Recipients(
    (("mask", X25519PrivateKey.generate().public_key()), ("carol", AUDITOR.public_key()))
)
SSN = "078-05-1120"
SHOP = {"public.customers.ssn": ColumnMask("pii", "full")}
ALL = Scope(0, 1 << 60)
NAMES = tuple(COLUMNS)


class Case:
    """A statement's events, and a judge of their copies."""

    def __init__(
        self,
        *classified: dict[str, ColumnMask],
        private: Any = AUDITOR,
        masker: Masker | None = None,
        classification: bytes = b"",
        recipients: Recipients = RECIPIENTS,
    ) -> None:
        pen = Pen(recipients)
        self.session: Session = pen.session(classification=classification)
        self.statement_id = new_id()
        ssn = column("ssn", source="public.customers.ssn")
        self.values = [
            pen.requested(self.session, self.statement_id, "select ssn from customers"),
            pen.decided(self.session, self.statement_id),
            pen.responded(self.session, self.statement_id, [ssn], [data_row(SSN.encode())]),
            pen.completed(self.session, self.statement_id),
        ]
        self.keys = Keys(private)
        self.keys.add(self.session.wraps)
        self.maskers = (
            [masker]
            if masker
            else [
                Masker(Applied({"shop": Classification(columns)}))
                for columns in classified or (SHOP,)
            ]
        )
        self.judge = Judge(self.maskers, self.keys, ALL)

    def expected(self, judge: Judge | None = None) -> list[Expected]:
        made = [(judge or self.judge).expect(chain.read(value)) for value in self.values]
        assert all(made)
        return [each for each in made if each]

    def another(self) -> Judge:
        """A judge of the same, whose counts do not matter."""
        return Judge(self.maskers, self.keys, ALL)

    def found(self) -> list[str]:
        return [str(finding) for finding in self.judge.verdict.found]


def record(copy: Masked, **changes: Any) -> bytes:
    changed = msgspec.structs.replace(copy, **changes)
    return encode_masked(changed, encode_context(changed.context))


def no_excuse(_: Expected) -> str:
    return ""


def copies(case: Case, *values: bytes, early: bool = False) -> None:
    """Judge records of gatebook.masked, read before or after their events."""
    made = MaskedCopies(case.judge, lambda _: True)
    expected = case.expected()
    for value in values if early else ():
        made.found(value)
    for each in expected:
        made.expect(each)
    for value in () if early else values:
        made.found(value)
    made.finish(no_excuse)


@pytest.mark.parametrize("early", [False, True])
def test_honest_copies_are_alike_also_when_they_come_twice(early: bool) -> None:
    case = Case()
    honest = [each.value for each in case.expected(case.another())]
    copies(case, *honest, honest[2], early=early)
    assert case.judge.verdict.exit_code == 0
    assert case.judge.verdict.counts["masked: alike"] == 4
    assert case.judge.verdict.counts["masked: repeated"] == 1


@pytest.mark.parametrize("early", [False, True])
def test_a_copy_that_shows_the_value_is_named_without_it(early: bool) -> None:
    case = Case()
    honest = case.expected(case.another())
    shown = record(
        honest[2].masked,
        response_rows=honest[2].masked.response_rows.replace("***", SSN),
        masks=[],
    )
    copies(case, *(honest[i].value for i in (0, 1, 3)), shown, early=early)
    (line,) = case.found()
    assert line.startswith("ALTERED  masked copy")
    assert line.endswith("response_rows, masks")
    assert uuid(honest[2].event_id.hex()) in line and uuid(case.statement_id.hex()) in line
    assert SSN not in line
    assert case.judge.verdict.exit_code == FOUND


def test_missing_added_and_second_copies_are_named() -> None:
    case = Case()
    honest = case.expected(case.another())
    other = record(honest[0].masked, statement="select 1")
    foreign = record(honest[0].masked, event_id=new_id(), stream="nobody/1/0")
    copies(case, *(each.value for each in honest[:3]), other, foreign, b"noise")
    assert sorted(line.split("  ")[0] for line in case.found()) == [
        "ADDED", "ADDED", "ALTERED", "MISSING",
    ]  # fmt: skip


def test_the_same_values_in_other_bytes_are_not_what_our_writer_wrote() -> None:
    case = Case()
    honest = case.expected(case.another())
    odd = bytearray(honest[1].value)
    assert odd[-1:] != b"\0"
    # Length 64 as a number of one more byte.
    at = len(odd) - 66
    assert bytes(odd[at : at + 2]) == b"\x80\x01"
    odd[at : at + 2] = b"\x80\x81\x00"
    copies(case, honest[0].value, bytes(odd), honest[2].value, honest[3].value)
    (line,) = case.found()
    assert line.endswith("encoding")


def history(case: Case, rows: list[list[Any]]) -> list[list[Any]]:
    made = HistoryRows(case.judge, orjson.loads)
    others = made.compare(case.expected(), map(orjson.dumps, rows))
    made.finish(no_excuse)
    return others


def honest_rows(case: Case) -> list[list[Any]]:
    return [list(each.row) for each in case.expected(case.another())]


def test_honest_rows_are_alike() -> None:
    case = Case()
    assert history(case, honest_rows(case)) == []
    assert case.judge.verdict.exit_code == 0
    assert case.judge.verdict.counts["history: alike"] == 4


@pytest.mark.parametrize("name", NAMES)
def test_every_column_is_compared(name: str) -> None:
    case = Case()
    rows = honest_rows(case)
    value = rows[2][NAMES.index(name)]
    other = (
        ["x"] if isinstance(value, list) else value + 1 if isinstance(value, int) else value + "A"
    )
    rows[2][NAMES.index(name)] = other
    others = history(case, rows)
    if name == "event_id":
        assert len(others) == 1
        assert case.found()[0].startswith("MISSING  history")
    elif name == "classification":
        # Said to be masked by what nobody knows: nothing of its content was compared.
        assert case.found() == []
        assert case.judge.verdict.exit_code == UNDECIDED
    else:
        (line,) = case.found()
        assert line.startswith("ALTERED  history") and line.endswith(f"  {name}")


def test_a_second_row_of_an_event_is_added() -> None:
    case = Case()
    rows = honest_rows(case)
    history(case, [*rows, rows[0]])
    (line,) = case.found()
    assert line.startswith("ADDED  history") and line.endswith("a second row")


def test_an_earlier_classification_is_taken_when_it_is_given() -> None:
    later = {**SHOP, "public.customers.name": ColumnMask("pii", "full")}
    then, now, both = Case(SHOP), Case(later), Case(later, SHOP)
    now.values, both.values = then.values, then.values
    for case in (now, both):
        case.keys.add(then.session.wraps)
    rows = honest_rows(then)
    history(now, rows)
    assert (now.found(), now.judge.verdict.exit_code) == ([], UNDECIDED)
    # What nobody can mask again is compared outside of what is masked.
    rows[1][NAMES.index("decision")] = "DENY"
    history(now, rows)
    assert now.found()[0].endswith("decision")
    rows[1][NAMES.index("decision")] = "ALLOW"
    history(both, rows)
    assert (both.found(), both.judge.verdict.exit_code) == ([], 0)
    rows[2][NAMES.index("response_rows")] = f'[{{"ssn":"{SSN}"}}]'
    history(both, rows)
    assert both.found()[0].endswith("response_rows")


def test_a_member_of_a_quorum_judges_what_others_gave_him_shares_for_and_no_more() -> None:
    dave = X25519PrivateKey.generate()
    board = Quorum("board", 2, (("carol", AUDITOR.public_key()), ("dave", dave.public_key())))
    case = Case(recipients=Recipients((), (board,)))
    rows = honest_rows(case)
    assert case.another().verdict.counts["not openable"] == 0
    history(case, rows)
    assert case.judge.verdict.counts["not openable"] == 2
    assert case.judge.verdict.exit_code == UNDECIDED
    requested, _, responded, _ = case.expected(case.another())
    for given, closed in (([requested, responded], 0), ([responded], 1)):
        ids = [UUID(bytes=each.event_id) for each in given]
        share = shares([case.session.wraps], dave, AUDITOR.public_key(), ids)
        case.keys = Keys(AUDITOR, given=[share])
        case.keys.add(case.session.wraps)
        judge = case.judge = case.another()
        rows = honest_rows(case)
        history(case, rows)
        assert (judge.verdict.counts["not openable"], case.found()) == (closed, [])
        rows[2][NAMES.index("response_rows")] = f'[{{"ssn":"{SSN}"}}]'
        history(case, rows)
        assert case.found()[0].endswith("response_rows")
    # Whoever is given to understand something else than he was given is told so.
    case.keys = Keys(AUDITOR, given=[replace(share, giver="carol")])
    case.keys.add(case.session.wraps)
    with pytest.raises(Problem, match="does not open"):
        honest_rows(case)


def test_a_row_that_names_a_classification_that_never_was_is_altered() -> None:
    applied = Applied({"shop": Classification(SHOP)})
    earlier, named = (
        encode_classification(document("shop", {column: ("pii", "full")}))
        for column in ("public.customers.email", "public.customers.ssn")
    )
    for key, value in (earlier, named):
        applied.learn(key, value, Archive())
    case = Case(masker=Masker(applied), classification=named[0])
    rows = honest_rows(case)
    at = NAMES.index("classification")
    both = {**SHOP, "public.customers.email": ColumnMask("pii", "full")}
    rows[2][at] = Classification(both).digest
    history(case, rows)
    assert (case.found(), case.judge.verdict.exit_code) == ([], UNDECIDED)
    rows[2][at] = "ab" * 32
    rows[2][NAMES.index("response_rows")] = f'[{{"ssn":"{SSN}"}}]'
    history(case, rows)
    (line,) = case.found()
    assert line.endswith("response_rows, classification")
    assert SSN not in line
    assert case.judge.verdict.exit_code == FOUND


def test_what_was_erased_is_said_and_what_does_not_open_is_not_called_erased() -> None:
    erased, closed = Case(), Case(private=X25519PrivateKey.generate())
    rows = honest_rows(erased)
    erased.keys = Keys(AUDITOR, [erased.session.context.key_id])
    erased.judge = Judge(erased.maskers, erased.keys, ALL)
    history(erased, rows)
    assert (erased.found(), erased.judge.verdict.exit_code) == ([], 0)
    assert erased.judge.verdict.counts["erased"] == 2
    erased.judge.verdict.unwitnessed = True
    assert erased.judge.verdict.exit_code == UNDECIDED
    rows[2][NAMES.index("rows")] += 1
    history(erased, rows)
    assert erased.found()[0].endswith("  rows")
    history(closed, honest_rows(closed))
    assert closed.judge.verdict.exit_code == UNDECIDED
    assert closed.judge.verdict.counts["not openable"] == 2
    # A key that is nowhere is not erased because nobody has it.
    lost = Case()
    lost.keys.drop(lost.session.context.key_id)
    with pytest.raises(NotOpenable):
        lost.keys.opener(lost.session.context.key_id)


def test_no_finding_speaks_to_a_terminal() -> None:
    finding = Finding("original", "missing", "gw\x1b[1A\x1b[2K\r\n\x9b2K #7", "")
    assert str(finding) == "MISSING  original  event gw?[1A?[2K???2K #7"


def test_rows_without_an_original_are_of_kinds_that_have_none() -> None:
    case = Case()
    rows = honest_rows(case)
    made = HistoryRows(case.judge, orjson.loads)
    made.without_original(rows[1])
    made.without_original(rows[3])
    assert case.found() == []
    rows[1][NAMES.index("statement")] = SSN
    for row in (rows[0], rows[1], rows[2]):
        made.without_original(row)
    assert len(case.found()) == 3
    assert SSN not in "".join(case.found())


def test_only_what_is_in_scope_is_looked_at() -> None:
    case = Case()
    (first, *_) = case.expected()
    at = first.masked.at
    for scope, events in (
        (Scope(at, 1 << 60), 4),
        (Scope(0, at), 0),
        (Scope(0, 1 << 60, session=case.session.id), 4),
        (Scope(0, 1 << 60, session=b"x" * 16), 0),
        (Scope(0, 1 << 60, statement=case.statement_id), 4),
        (Scope(0, 1 << 60, statement=b"x" * 16), 0),
    ):
        judge = Judge(case.maskers, case.keys, scope)
        made = [judge.expect(chain.read(value)) for value in case.values]
        assert sum(each is not None for each in made) == events


@pytest.mark.parametrize("text", [SSN, "", None, "x" * 32, "07805112007805112007805112007805112"])
def test_what_is_no_id_is_not_shown(text: Any) -> None:
    assert uuid(text) == "(not an id)"
