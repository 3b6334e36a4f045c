"""The blind verifier's judgement: is a copy what the masks make of its original? Pure.

It opens originals with an auditor's key, masks them again with the mask processor's own code, and
compares. What it says of them are ids and names of fields, never a value.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal
from uuid import UUID

import msgspec
import orjson
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from cli import problems, quorums
from cli.quorums import ShareFile
from processors.mask import Masker, audit_copy
from schemas import codec
from schemas.chain import Envelope
from schemas.codec import Archive, CodecError
from schemas.events import NONE_ID, ORIGINALS, Context, Event, KeyWraps, Masked
from schemas.sealing import Opener, SealingError, unwrap_any
from sinks import rows

Place = Literal["original", "masked", "history"]
Problem = Literal["altered", "missing", "added"]

FOUND: Final = 3
"""Exit code: a copy is not what it must be."""
UNDECIDED: Final = 4
"""Exit code: nothing is wrong with what could be compared, but not all could be."""

_BOXED: Final = frozenset({"statement", "parameters", "response_rows", "error", "details", "masks"})
"""Fields that are made of what is in a box."""
_BOXED_KINDS: Final = frozenset(kind.__name__ for kind in ORIGINALS)
_ALWAYS_BOXED: Final = frozenset({"SessionOpened", "Requested", "RequestData", "Responded"})
_EMPTY_WITHOUT: Final = ("statement", "parameters", "response_rows", "error", "masks")
_COLUMNS: Final = tuple(rows.COLUMNS)
_AT: Final = {name: number for number, name in enumerate(_COLUMNS)}
_CONTEXT: Final = len(_COLUMNS) - len(rows.MASKED_FIELDS)
_BYTES: Final = tuple(
    _AT[name] for name, kind in rows.COLUMNS.items() if str(kind).startswith("fixed_size_binary")
)
_BYTES_OF_CONTEXT: Final = tuple(number for number in _BYTES if number < _CONTEXT)
_BYTES_OF_EVENT: Final = tuple(number - _CONTEXT for number in _BYTES if number >= _CONTEXT)
_EVENT_ID: Final = _AT["event_id"]
_STATEMENT_ID: Final = _AT["statement_id"]
_CLASSIFICATION: Final = _AT["classification"]
_LISTED: Final = 1000
"""Findings that are named; the others are counted."""
_OPENED: Final = 20_000

Row = list[Any]


class Erased(Exception):
    """The data key was destroyed, and an event says so."""


class NotOpenable(Exception):
    """No wrap of the data key opens with this private key, or too few have shared it; says why."""


class Keys:
    """Data keys, as far as one private key opens them, with what others gave its owner."""

    def __init__(
        self,
        private: X25519PrivateKey,
        erased: Iterable[bytes] = (),
        given: Sequence[ShareFile] = (),
    ) -> None:
        self._private = private
        self._given = given
        self._erased = frozenset(erased)
        self._wraps: dict[bytes, KeyWraps] = {}
        self._opened: dict[bytes, Opener] = {}
        self._mine = ""

    def add(self, wraps: KeyWraps) -> None:
        """A wrapped key; the newest counts."""
        self._wraps[wraps.key_id] = wraps

    def drop(self, key_id: bytes) -> None:
        """A key's tombstone."""
        self._wraps.pop(key_id, None)

    def opener(self, key_id: bytes) -> Opener:
        """Raises Erased, NotOpenable; Problem for a share that is false, or too few of them."""
        opener = self._opened.get(key_id)
        if opener is None:
            if len(self._opened) >= _OPENED:
                self._opened.clear()
            opener = self._opened[key_id] = self._open(key_id)
        return opener

    def _open(self, key_id: bytes) -> Opener:
        wraps = self._wraps.get(key_id)
        if wraps is None or not (wraps.wraps or wraps.quorums):
            if key_id in self._erased:
                raise Erased("its key was destroyed")
            raise NotOpenable("it was erased, or its key is not there yet")
        # Whose key it is was found out with the first one.
        opened = unwrap_any(wraps, self._private, self._mine)
        if opened is None:
            return self._together(wraps)
        self._mine, key = opened
        return Opener(key)

    def _together(self, wraps: KeyWraps) -> Opener:
        key_id = UUID(bytes=wraps.key_id)
        given = [file for file in self._given if key_id in {part.key for part in file.parts}]
        # Who was given shares for one event was not given them for others of its session.
        events = frozenset(given[0].events if given else ()).intersection(
            *(file.events for file in given)
        )
        try:
            key = quorums.data_key(wraps, self._private, events, given)
        except problems.Problem as problem:
            if given:
                raise
            raise NotOpenable(str(problem)) from None
        if key is None:
            raise NotOpenable("it was not wrapped to this key")
        return Opener(key, frozenset(event.bytes for event in events))


@dataclass(frozen=True, slots=True)
class Scope:
    """Which events are looked at. Times are microseconds; `until` is not within."""

    since: int
    until: int
    session: bytes = b""
    statement: bytes = b""

    def holds(self, event: Event | Masked) -> bool:
        return (
            self.since <= event.at < self.until
            and self.session in (b"", event.context.session_id)
            and self.statement in (b"", getattr(event, "statement_id", NONE_ID))
        )


class Expected(msgspec.Struct, frozen=True):
    """What the copies of an event must be. `closed`: its box did not open, for one of the reasons
    `erased`, `not openable`; then what is outside of it is compared."""

    envelope: Envelope
    masked: Masked
    value: bytes
    text: bytes
    """Its row, as the history writes it in JSON."""
    closed: str = ""
    source: str = ""
    """Its record, as a dead letter would name it."""

    @property
    def event_id(self) -> bytes:
        return self.masked.event_id

    @property
    def row(self) -> Row:
        made: Row = orjson.loads(self.text)
        return made


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it must be."""

    place: Place
    problem: Problem
    event_id: str
    statement_id: str
    fields: tuple[str, ...] = ()

    def __str__(self) -> str:
        where = {"original": "original", "masked": "masked copy", "history": "history"}[self.place]
        said = f"{self.problem.upper()}  {where}  event {self.event_id}"
        if self.statement_id.strip("0"):
            said += f"  statement {self.statement_id}"
        said += f"  {', '.join(self.fields)}" if self.fields else ""
        # A stream's name is whatever was written there: no terminal is to obey it.
        return "".join(letter if letter.isprintable() else "?" for letter in said)


@dataclass
class Verdict:
    """Counts, and the findings."""

    counts: Counter[str] = field(default_factory=Counter)
    found: list[Finding] = field(default_factory=list)
    more: int = 0
    unwitnessed: bool = False
    """Nothing but the history itself says what was erased: who writes there could say it of what
    he altered."""

    def find(self, finding: Finding) -> None:
        """Note a finding."""
        self.counts[f"{finding.place}: {finding.problem}"] += 1
        if len(self.found) < _LISTED:
            self.found.append(finding)
        else:
            self.more += 1

    @property
    def exit_code(self) -> int:
        if self.found:
            return FOUND
        undecided = ["not openable", "unreadable", "otherwise classified", "dead-lettered"]
        if self.unwitnessed:
            undecided.append("erased")
        return UNDECIDED if any(self.counts[what] for what in undecided) else 0


class Judge:
    """Makes what copies must be, and says in which fields they are not."""

    def __init__(self, maskers: Sequence[Masker], keys: Keys, scope: Scope) -> None:
        """`maskers`: by the present classification first, then by those that were in force."""
        self.archive = Archive()
        self.verdict = Verdict()
        self.scope = scope
        self._maskers = maskers
        self._keys = keys
        self._contexts: dict[bytes, tuple[Context, bytes]] = {}

    def expect(self, envelope: Envelope, source: str = "") -> Expected | None:
        """What the copies of an event must be; None where it is not in scope or not readable."""
        counts = self.verdict.counts
        closed = ""
        try:
            if self.scope.session not in (b"", envelope.payload[:16]):
                return None
            masked, context = self._masked(self._maskers[0], envelope)
        except Erased:
            closed = "erased"
        except (NotOpenable, SealingError):
            closed = "not openable"
        except CodecError:
            counts["unreadable"] += 1
            return None
        if closed:
            masked, context = self._unopened(self._maskers[0], envelope)
        if not self.scope.holds(masked):
            return None
        counts["events"] += 1
        if closed:
            counts[closed] += 1
        return Expected(
            envelope,
            masked,
            codec.encode_masked(masked, context),
            self.text(masked),
            closed,
            source,
        )

    def _masked(self, masker: Masker, envelope: Envelope) -> tuple[Masked, bytes]:
        return audit_copy(self.archive, masker, self._keys.opener, envelope)

    def _unopened(self, masker: Masker, envelope: Envelope) -> tuple[Masked, bytes]:
        event, context = self.archive.decode(envelope.schema_sha256, envelope.payload)
        assert not isinstance(event, Masked)  # noqa: S101 (narrowing: `audit_copy` refuses it)
        return masker.mask(envelope, event, None), context

    def text(self, masked: Masked) -> bytes:
        """A copy as the history holds it, in JSON; ids and hashes in hexadecimal."""
        known = self._contexts.get(masked.context.session_id)
        if known is None or known[0] is not masked.context:
            head = list(rows.context_values(masked.context))
            for number in _BYTES_OF_CONTEXT:
                head[number] = _hexadecimal(head[number])
            if len(self._contexts) >= _OPENED:
                self._contexts.clear()
            begun = orjson.dumps(head)[:-1] + b","
            known = self._contexts[masked.context.session_id] = (masked.context, begun)
        rest = list(rows.event_values(masked))
        for number in _BYTES_OF_EVENT:
            rest[number] = _hexadecimal(rest[number])
        return known[1] + orjson.dumps(rest)[1:]

    def row(self, masked: Masked) -> Row:
        """The same, as a list."""
        made: Row = orjson.loads(self.text(masked))
        return made

    def differing(self, expected: Expected, found: Row) -> tuple[str, ...]:
        """Names of the fields in which a copy is not what it must be."""
        wanted = expected.row
        if found == wanted:
            return ()
        if len(found) != len(wanted):
            return ("number of columns",)
        said = found[_CLASSIFICATION]
        if said in ("", wanted[_CLASSIFICATION]):
            # Before it said so, a copy must have been masked as it would be now.
            skipped = {"classification"} if not said else set()
        else:
            other = self._otherwise(expected, said)
            if other is not None:
                self.verdict.counts["masked by an earlier classification"] += 1
                wanted, skipped = other, set()
            elif self._maskers[0].possible(expected.masked.context, said):
                self.verdict.counts["otherwise classified"] += 1
                skipped = {"classification", *_BOXED}
            else:
                skipped = set()
        if expected.closed and expected.masked.event_type in _BOXED_KINDS:
            skipped |= _BOXED
        return tuple(
            name
            for name, want, have in zip(_COLUMNS, wanted, found, strict=True)
            if want != have and name not in skipped
        )

    def _otherwise(self, expected: Expected, digest: Any) -> Row | None:
        """The copy by an earlier classification of that digest, if it is known."""
        make = self._unopened if expected.closed else self._masked
        for masker in self._maskers[1:]:
            masked, _ = make(masker, expected.envelope)
            if masked.classification == digest:
                return self.row(masked)
        return None

    def find(
        self, place: Place, problem: Problem, expected: Expected, fields: tuple[str, ...] = ()
    ) -> None:
        """Note what is wrong with the copy of an event."""
        self.verdict.find(
            Finding(
                place,
                problem,
                uuid(expected.event_id.hex()),
                uuid(expected.masked.statement_id.hex()),
                fields,
            )
        )

    def find_row(self, problem: Problem, row: Row, fields: tuple[str, ...] = ()) -> None:
        """Note what is wrong with a row of the history that is of no event."""
        self.verdict.find(
            Finding("history", problem, uuid(row[_EVENT_ID]), uuid(row[_STATEMENT_ID]), fields)
        )


def _hexadecimal(data: bytes) -> str:
    return data.hex().upper()


def uuid(digits: Any) -> str:
    """An id as people write it; what is none, as that: it may be anything."""
    text = str(digits).lower()
    if len(text) != 32 or set(text) - set("0123456789abcdef"):
        return "(not an id)"
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


class MaskedCopies:
    """Records of gatebook.masked against what they must be, in whatever order both come."""

    def __init__(self, judge: Judge, fits: Callable[[Masked], bool]) -> None:
        """`fits`: whether a copy whose event was not read ought to have been among those read."""
        self._judge = judge
        self._fits = fits
        self._waiting: dict[bytes, Expected] = {}
        self._ahead: dict[bytes, int] = {}
        self.bytes_ahead = 0
        self.bytes_waiting = 0
        # Of every event that was read: tells a repeated copy from one that was altered.
        self._known: dict[tuple[str, int], int] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def expect(self, expected: Expected) -> None:
        """An event was read."""
        masked = expected.masked
        self._known[masked.stream, masked.seq] = hash(expected.value)
        if self._take(expected.value):
            self._judge.verdict.counts["masked: alike"] += 1
        else:
            self._waiting[expected.value] = expected
            self.bytes_waiting += len(expected.value)

    def found(self, value: bytes) -> None:
        """A copy was read."""
        expected = self._waiting.pop(value, None)
        if expected is not None:
            self.bytes_waiting -= len(value)
            self._judge.verdict.counts["masked: alike"] += 1
        elif self._judge.scope.session in (b"", value[35:51]):
            self._ahead[value] = self._ahead.get(value, 0) + 1
            self.bytes_ahead += len(value)

    def _take(self, value: bytes) -> bool:
        if value not in self._ahead:
            return False
        self._ahead[value] -= 1
        self.bytes_ahead -= len(value)
        if not self._ahead[value]:
            del self._ahead[value]
        return True

    def settle(self) -> None:
        """Bring together what is of one event and not alike. What has no partner stays."""
        waiting = {expected.event_id: value for value, expected in self._waiting.items()}
        for value in list(self._ahead):
            try:
                masked = self._judge.archive.decode_masked(value)
            except CodecError:
                continue
            known = self._known.get((masked.stream, masked.seq))
            if known == hash(value):
                while self._take(value):
                    self._judge.verdict.counts["masked: repeated"] += 1
            elif masked.event_id in waiting:
                self._take(value)
                mine = waiting.pop(masked.event_id)
                self.bytes_waiting -= len(mine)
                self._compare(self._waiting.pop(mine), value, masked)

    def _compare(self, expected: Expected, value: bytes, masked: Masked) -> None:
        fields = self._judge.differing(expected, self._judge.row(masked))
        if not fields and not expected.closed:
            sha256, _ = codec.unframe(value)
            if sha256 == codec.CURRENT[Masked].sha256 and self._judge.row(masked) == expected.row:
                # The same values written in other bytes: not what our writer writes.
                fields = ("encoding",)
        if fields:
            self._judge.find("masked", "altered", expected, fields)
        else:
            self._judge.verdict.counts["masked: alike"] += 1
            self._known[masked.stream, masked.seq] = hash(value)

    def finish(self, excused: Callable[[Expected], str]) -> None:
        """Name what has no partner. `excused`: why an event may have no copy, or nothing."""
        self.settle()
        for expected in self._waiting.values():
            if reason := excused(expected):
                self._judge.verdict.counts[reason] += 1
            else:
                self._judge.find("masked", "missing", expected)
        for value, times in self._ahead.items():
            try:
                masked = self._judge.archive.decode_masked(value)
            except CodecError:
                # Whose it would be cannot be told.
                self._judge.verdict.find(Finding("masked", "added", "(not an id)", ""))
                continue
            if not self._judge.scope.holds(masked) or not self._fits(masked):
                continue
            seen = (masked.stream, masked.seq) in self._known
            finding = Finding(
                "masked",
                "altered" if seen else "added",
                uuid(masked.event_id.hex()),
                uuid(masked.statement_id.hex()),
                ("another copy",) if seen else (),
            )
            for _ in range(times):
                self._judge.verdict.find(finding)
        self._waiting.clear()
        self._ahead.clear()


class HistoryRows:
    """Rows of the history against what they must be, one stretch of events after another."""

    def __init__(self, judge: Judge, read: Callable[[bytes], Row]) -> None:
        """`read`: a row from its JSON."""
        self._judge = judge
        self._read = read
        self.missing: dict[bytes, Expected] = {}
        """Events whose row was not among those of their stretch."""

    def compare(self, expected: Sequence[Expected], found: Iterable[bytes]) -> list[Row]:
        """Compare rows in JSON; returns those that are of none of these events."""
        waiting = {each.text: each for each in expected}
        # What has the same bytes needs no reading.
        unlike = [text for text in found if waiting.pop(text, None) is None]
        alike = len(expected) - len(waiting)
        others = []
        if unlike:
            ids = {_hexadecimal(each.event_id) for each in expected}
            without = {_hexadecimal(each.event_id): each for each in waiting.values()}
            for row in map(self._read, unlike):
                event_id = row[_EVENT_ID]
                match = without.pop(event_id, None)
                if match is not None:
                    del waiting[match.text]
                    alike += self._like(match, row)
                elif event_id in ids:
                    self._judge.find_row("added", row, ("a second row",))
                else:
                    others.append(row)
        self._judge.verdict.counts["history: alike"] += alike
        for each in waiting.values():
            self.missing[each.event_id] = each
        return others

    def _like(self, expected: Expected, row: Row) -> bool:
        fields = self._judge.differing(expected, row)
        if fields:
            self._judge.find("history", "altered", expected, fields)
        return not fields

    def again(self, found: Iterable[Row]) -> None:
        """Rows of missing events, wherever they were found."""
        for row in found:
            try:
                match = self.missing.pop(bytes.fromhex(row[_EVENT_ID]))
            except (KeyError, ValueError):
                continue
            self._judge.verdict.counts["history: alike"] += self._like(match, row)

    def finish(self, excused: Callable[[Expected], str]) -> None:
        """Name what has no row. `excused`: why an event may have none, or nothing."""
        for expected in self.missing.values():
            if reason := excused(expected):
                self._judge.verdict.counts[reason] += 1
            else:
                self._judge.find("history", "missing", expected)
        self.missing.clear()

    def without_original(self, row: Row) -> None:
        """A row of which the vault has no original: of a kind that has none, or added."""
        if row[_AT["event_type"]] in _ALWAYS_BOXED or any(
            row[_AT[name]] for name in _EMPTY_WITHOUT
        ):
            self._judge.find_row("added", row, ("no original",))
        else:
            self._judge.verdict.counts["no original (chain and Kafka alone show these)"] += 1
