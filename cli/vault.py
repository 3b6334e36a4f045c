"""Wrapped data keys, as the vault in ClickHouse holds them."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Iterable, Iterator
from itertools import groupby
from operator import itemgetter
from typing import Any
from uuid import UUID

from cli import clickhouse
from schemas.events import KeyWraps, MemberWrap, QuorumWraps, Wrap


def wraps(document: dict[str, Any], key_ids: Iterable[bytes] | None = None) -> Iterator[KeyWraps]:
    """The wraps of these keys, or of all; those that were erased are not there. Raises Problem."""
    where = ""
    if key_ids is not None:
        where = f" WHERE key_id IN ({','.join(repr(str(UUID(bytes=key))) for key in key_ids)})"
    found = clickhouse.lines(
        document,
        "SELECT hex(key_id), quorum, version, position, threshold, recipient,"
        " base64Encode(public_key), base64Encode(commitment), base64Encode(ciphertext)"
        f" FROM vault_wraps FINAL{where} ORDER BY key_id, quorum, version, position",
        vault=True,
    )
    for key_id, rows in groupby(found, key=itemgetter(0)):
        yield of_rows(bytes.fromhex(key_id), rows)


def of_rows(key_id: bytes, rows: Iterable[list[Any]]) -> KeyWraps:
    """From rows of one key, as `wraps` asks for them."""
    made = KeyWraps(key_id, [], [])
    boards: dict[str, QuorumWraps] = {}
    for (quorum, _, threshold), some in groupby(rows, key=itemgetter(1, 2, 4)):
        if not quorum:
            made.wraps.extend(Wrap(row[5], b64decode(row[8])) for row in some)
            continue
        # A key that was wrapped again was shared out anew: shares of two times do not fit, and the
        # newest count. Whether any is missing, HPKE says: every member's wrap is bound to all.
        members = [MemberWrap(row[5], *map(b64decode, row[6:9])) for row in some]
        boards[quorum] = QuorumWraps(quorum, threshold, members)
    made.quorums.extend(boards.values())
    return made
