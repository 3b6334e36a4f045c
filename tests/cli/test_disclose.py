"""Single fields that were disclosed, checked by whoever has the file alone."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from cli.disclose import checked, written
from cli.problems import Problem
from schemas import chain, commitments
from schemas.codec import Archive
from schemas.sealing import Opener, Recipients, Sealer, public_key
from tests.processors.recording import Pen, new_id, public_pem
from tests.schemas.test_sealing import MASK

SECRET = b"Miller"


@pytest.fixture
def disclosed() -> dict[str, Any]:
    """The statement of a Requested, whose bind value stays sealed."""
    from schemas.events import Parameter

    pen = Pen(Recipients((("mask", public_key(public_pem(MASK))),)))
    session = pen.session()
    session.sealer = Sealer(session.context.key_id, b"k" * 32)
    value = pen.requested(
        session, new_id(), "select * from t where name = $1", [Parameter(25, 0, SECRET)]
    )
    envelope = chain.read(value)
    event, _ = Archive().decode(envelope.schema_sha256, envelope.payload)
    box: bytes = event.box  # type: ignore[union-attr]
    assert box[2] == commitments.REQUESTED
    proof = Opener(b"k" * 32).prove(session.id, event.event_id, box, b"statement")
    return json.loads(json.dumps(written(envelope, UUID(bytes=event.event_id), proof)))  # type: ignore[no-any-return]


def test_a_field_is_shown_and_nothing_else(disclosed: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "proof.json"
    file.write_text(json.dumps(disclosed))
    shown = checked(file)
    assert shown["value"] == "select * from t where name = $1"
    assert (shown["path"], shown["kind"], shown["actor"]) == ("statement", "Requested", "alice")
    assert shown["event_hash"] == disclosed["event"]["event_hash"]
    for text in (json.dumps(disclosed), *map(str, shown.values())):
        assert SECRET.decode() not in text
        assert base64.b64encode(SECRET).decode() not in text


def _payload(said: dict[str, Any]) -> None:
    payload = bytearray(base64.b64decode(said["event"]["payload"]))
    payload[-1] ^= 1
    said["event"]["payload"] = base64.b64encode(payload).decode()


@pytest.mark.parametrize(
    "change",
    [
        lambda said: said.update(value=base64.b64encode(b"select 1").decode()),
        lambda said: said.update(path="executed"),
        lambda said: said.update(salt="00" * 16),
        lambda said: said.update(root="00" * 32),
        lambda said: said.update(way=said["way"][1:]),
        lambda said: said["event"].update(id=str(UUID(int=7))),
        lambda said: said["event"].update(seq=7),
        lambda said: said["event"].update(stream="gateway-2/x/0"),
        lambda said: said["event"].update(prev_hash="11" * 32),
        _payload,
    ],
)
def test_whatever_is_changed_is_not_proven(
    disclosed: dict[str, Any], tmp_path: Path, change: Callable[[dict[str, Any]], None]
) -> None:
    change(disclosed)
    file = tmp_path / "proof.json"
    file.write_text(json.dumps(disclosed))
    with pytest.raises(Problem, match="NOT PROVEN") as caught:
        checked(file)
    assert caught.value.exit_code == 3


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "null",
        '{"format": "gatebook-disclosure/1"}',
        '{"format": "gatebook-disclosure/2"}',
        '{"format": "gatebook-disclosure/1", "event": 7}',
    ],
)
def test_what_is_no_disclosure_is_refused(text: str, tmp_path: Path) -> None:
    file = tmp_path / "proof.json"
    file.write_text(text)
    with pytest.raises(Problem, match="not a disclosure"):
        checked(file)
