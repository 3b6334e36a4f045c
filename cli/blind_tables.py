"""The history's and the vault's tables, as the blind verifier reads them."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from cli import clickhouse
from cli.blind import Row, Scope
from schemas.chain import Envelope
from sinks.rows import COLUMNS

_IDS_AT_ONCE: Final = 1000
_PAGE: Final = 20_000
_PAGE_BYTES: Final = 32 * 1024 * 1024

Ranges = Mapping[str, tuple[int, int]]
"""First and last number of some events, by stream."""


def _column(name: str) -> str:
    kind = str(COLUMNS[name])
    if kind.startswith("fixed_size_binary"):
        return f"hex({name})"
    return f"toUnixTimestamp64Micro({name})" if kind.startswith("timestamp") else name


_SELECTED: Final = ", ".join(map(_column, COLUMNS))


def _moment(at: int) -> str:
    return f"fromUnixTimestamp64Micro({at}, 'UTC')"


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _within(ranges: Ranges) -> str:
    return (
        " OR ".join(
            f"(stream = {_quoted(stream)} AND seq BETWEEN {first} AND {last})"
            for stream, (first, last) in ranges.items()
        )
        or "0"
    )


@dataclass(frozen=True, slots=True)
class Tables:
    """One ClickHouse."""

    document: dict[str, Any]
    scope: Scope

    def _where(self, since: int | None = None, last: int | None = None) -> str:
        scope = self.scope
        conditions = [
            f"ts >= {_moment(scope.since if since is None else since)}",
            f"ts < {_moment(scope.until)}" if last is None else f"ts <= {_moment(last)}",
        ]
        for name, value in (("session_id", scope.session), ("statement_id", scope.statement)):
            if value:
                conditions.append(f"{name} = '{UUID(bytes=value)}'")
        return " AND ".join(conditions)

    def _texts(self, condition: str) -> Iterator[bytes]:
        # As one tuple: between columns ClickHouse writes blanks, between a tuple's elements none.
        found = clickhouse.texts(
            self.document, f"SELECT tuple({_SELECTED}) FROM audit_events WHERE {condition}"
        )
        return (text[1:-1] for text in found)

    def _rows(self, condition: str) -> Iterator[Row]:
        return map(clickhouse.row, self._texts(condition))

    def of(self, ranges: Ranges) -> Iterator[bytes]:
        """Rows in scope of events with these numbers, in JSON."""
        return self._texts(f"{self._where()} AND ({_within(ranges)})")

    def others(self, ranges: Ranges, at_most: int) -> Iterator[Row]:
        """Rows in scope of no event with one of these numbers."""
        return self._rows(f"{self._where()} AND NOT ({_within(ranges)}) LIMIT {at_most}")

    def named(self, event_ids: Sequence[bytes]) -> Iterator[Row]:
        """Rows of these events, wherever and whenever they stand."""
        for start in range(0, len(event_ids), _IDS_AT_ONCE):
            some = event_ids[start : start + _IDS_AT_ONCE]
            ids = ",".join(f"'{UUID(bytes=event_id)}'" for event_id in some)
            yield from self._rows(f"event_id IN ({ids})")

    def between(self, since: int, last: int | None) -> Iterator[bytes]:
        """Rows in scope of this time, up to and with `last`, in JSON."""
        return self._texts(self._where(since, last))

    def gaps(self) -> list[tuple[str, int]]:
        """(stream, numbers that are not there) of the rows in scope."""
        found = clickhouse.lines(
            self.document,
            "SELECT stream, max(seq) - min(seq) + 1 - uniqExact(seq) AS missing FROM audit_events"
            f" WHERE {self._where()} GROUP BY stream HAVING missing > 0",
        )
        return [(stream, missing) for stream, missing in found]

    def erased(self) -> set[bytes]:
        """Data keys that were destroyed, as events of the history say."""
        keys: set[bytes] = set()
        for (details,) in clickhouse.lines(
            self.document, "SELECT details FROM audit_events WHERE event_type = 'Erased'"
        ):
            try:
                keys.update(UUID(key).bytes for key in json.loads(details)["keys"])
            except (ValueError, KeyError, TypeError):
                continue
        return keys

    def stretches(self) -> Iterator[tuple[int, int]]:
        """Times, first and last, that divide the vault's boxes in scope into pieces to hold."""
        since = self.scope.since
        while True:
            size, last, count = 0, None, 0
            for at, length in clickhouse.lines(
                self.document,
                "SELECT toUnixTimestamp64Micro(ts), length(payload) FROM vault_boxes"
                f" WHERE {self._where(since)} ORDER BY ts LIMIT {_PAGE}",
                vault=True,
            ):
                size, last, count = size + length, at, count + 1
                if size > _PAGE_BYTES:
                    break
            if last is None or (count < _PAGE and size <= _PAGE_BYTES):
                yield since, self.scope.until - 1
                return
            yield since, last
            since = last + 1

    def boxes(self, since: int, last: int) -> Iterator[tuple[str, Envelope | None]]:
        """(event id, envelope) of the vault's rows; None for one that does not have its hash."""
        return self._boxes(f"{self._where(since, last)} ORDER BY stream, seq")

    def original(self, event_id: bytes) -> Envelope | None:
        """The event of that id, with its box, if the vault has it as it was."""
        found = self._boxes(f"event_id = '{UUID(bytes=event_id)}'")
        return next((envelope for _, envelope in found), None)

    def _boxes(self, condition: str) -> Iterator[tuple[str, Envelope | None]]:
        for event_id, stream, seq, previous, claimed, digest, payload in clickhouse.lines(
            self.document,
            "SELECT hex(event_id), stream, seq, hex(prev_hash), hex(event_hash),"
            " hex(schema_sha256), base64Encode(payload) FROM vault_boxes"
            f" WHERE {condition}",
            vault=True,
        ):
            envelope = Envelope(
                stream, seq, bytes.fromhex(previous), bytes.fromhex(digest),
                bytes.fromhex(claimed), b64decode(payload),
            )  # fmt: skip
            yield event_id, envelope if envelope.intact else None
