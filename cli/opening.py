"""Opening originals with an auditor's key, on the auditor's machine."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

from cli import quorums
from cli.problems import Problem
from processors import pgtypes
from schemas import events
from schemas.chain import event_hash
from schemas.codec import Archive, CodecError
from schemas.sealing import Opener, SealingError, unwrap_any

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    from schemas.events import Original


class Sealed:
    """Rows of the vault and the data keys to them. Opens no box before `shown`."""

    def __init__(
        self,
        rows: list[dict[str, Any]],
        wraps: Iterable[events.KeyWraps],
        private: X25519PrivateKey,
        given: Sequence[quorums.ShareFile] = (),
    ) -> None:
        """Raises Problem: erased, not wrapped to this key, too few shares, or altered."""
        self._rows = rows
        self._archive = Archive()
        self._openers: dict[str, Opener] = {}
        known = {str(UUID(bytes=each.key_id)): each for each in wraps}
        for key in {row["key"] for row in rows}:
            ids = [UUID(row["id"]) for row in rows if row["key"] == key]
            if key not in known:
                raise Problem(f"key {key} was erased: nobody can open this any more")
            self._openers[key] = _opener(known[key], private, ids, given)
        unaltered(rows)

    def shown(self) -> list[dict[str, Any]]:
        """Each event's original. Raises Problem."""
        return [self._shown(row) for row in self._rows]

    def _shown(self, row: dict[str, Any]) -> dict[str, Any]:
        digest = bytes.fromhex(row["digest"])
        try:
            event, _ = self._archive.decode(digest, b64decode(row["payload"]))
            box: bytes = getattr(event, "box", b"")
            opener = self._openers[row["key"]]
            plain = opener.open(event.context.session_id, event.event_id, box)
            original = readable(self._archive.decode_original(digest, plain))
        except (CodecError, SealingError) as error:
            raise Problem(f"event {row['id']}: {error}") from None
        return {
            "event": row["id"],
            "kind": row["kind"],
            "actor": event.context.principal.name,
            "chain": f"{row['stream']} #{row['seq']}",
            **original,
        }


def _opener(
    wraps: events.KeyWraps,
    private: X25519PrivateKey,
    ids: list[UUID],
    given: Sequence[quorums.ShareFile],
) -> Opener:
    opened = unwrap_any(wraps, private)
    if opened is not None:
        return Opener(opened[1])
    shared = quorums.data_key(wraps, private, ids, given)
    if shared is not None:
        return Opener(shared)
    names = [wrap.recipient for wrap in wraps.wraps]
    names += [
        f"{member.recipient} in {board.name}" for board in wraps.quorums for member in board.members
    ]
    raise Problem(f"this key opens none of the wraps; they are for: {', '.join(names)}")


def unaltered(rows: list[dict[str, Any]]) -> None:
    """Raise Problem for an event that is not the one its hash was made of."""
    for row in rows:
        if _hash(row) != row["event_hash"].lower():
            raise Problem(f"event {row['id']} was altered: its hash does not match")


def _hash(row: dict[str, Any]) -> str:
    return event_hash(
        row["stream"],
        int(row["seq"]),
        bytes.fromhex(row["prev_hash"]),
        bytes.fromhex(row["digest"]),
        b64decode(row["payload"]),
    ).hex()


def readable(original: Original) -> dict[str, Any]:
    """What was in a box, for people: values as PostgreSQL prints them."""
    match original:
        case events.RequestedOriginal():
            return {
                "statement": original.statement,
                # Empty where what was typed ran as it was.
                "executed": original.executed or original.statement,
                "parameters": [
                    _value(given.type_oid, given.format == 1, given.value)
                    for given in original.parameters
                ],
            }
        case events.RespondedOriginal() if original.encoding == "rows":
            names = [column.name for column in original.columns]
            return {"columns": names, "rows": data_rows(original.data, original.columns)}
        case events.RespondedOriginal() | events.RequestDataOriginal():
            return {
                "encoding": original.encoding,
                "data": original.data.decode(errors="backslashreplace"),
            }
        case events.CompletedOriginal():
            return {"error": original.error, "notices": original.notices}
        case events.SessionOpenedOriginal():
            return {"user": original.user, "parameters": original.parameters}
        case events.AuthenticationFailedOriginal():
            return {
                "user": original.user,
                "database": original.database,
                "parameters": original.parameters,
            }


def data_rows(data: bytes, columns: list[events.Column]) -> list[list[str | None]]:
    """DataRow messages as the server sent them, each value as text. Raises CodecError."""
    rows = []
    at = 0
    while at < len(data):
        end = at + 1 + int.from_bytes(data[at + 1 : at + 5], "big")
        count = int.from_bytes(data[at + 5 : at + 7], "big")
        if data[at : at + 1] != b"D" or end > len(data) or (columns and count != len(columns)):
            raise CodecError("not whole DataRows of these columns")
        at += 7
        row = []
        for number in range(count):
            length = int.from_bytes(data[at : at + 4], "big", signed=True)
            at += 4
            raw = None if length < 0 else data[at : at + length]
            at += max(length, 0)
            column = columns[number] if columns else None
            row.append(
                _value(column.type_oid, column.format == 1, raw)
                if column
                else _value(0, False, raw)
            )
        if at != end:
            raise CodecError("a DataRow's length is not that of its values")
        rows.append(row)
    return rows


def _value(type_oid: int, binary: bool, raw: bytes | None) -> str | None:
    return None if raw is None else pgtypes.text(type_oid, binary, raw)[0]
