"""`gatebook disclose`: one field of an original, with the proof that it is what was recorded.

The proof holds the event's own bytes, sealed as they are, one value, and the hashes that lead from
it to the root in the event. Who has the file can check it without a key, a network or us.
"""

from __future__ import annotations

import json
import sys
from base64 import b64decode, b64encode
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final
from uuid import UUID

import typer

from cli.originals import (
    KeyOption,
    ReasonOption,
    ShareOption,
    UserOption,
    private_of,
    shares_of,
    uuid,
)
from cli.problems import Problem
from cli.running import StateDirOption, running

if TYPE_CHECKING:
    from schemas.chain import Envelope
    from schemas.sealing import Proof

_FORMAT: Final = "gatebook-disclosure/1"


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(
        epilog="[bold]Examples[/bold]\n\n"
        "  gatebook disclose EVENT_ID --field statement --reason 'case 4711' --key carol.pem"
        " > proof.json\n\n  gatebook verify --proof proof.json"
    )(disclose)


def disclose(  # noqa: PLR0917 (a command line's options are its parameters)
    event: Annotated[str, typer.Argument(metavar="EVENT_ID", help="Of an event with an original.")],
    field: Annotated[
        str,
        typer.Option(help="statement, executed, parameters/0, rows/0/2 (row, column), bytes/0 ..."),
    ],
    reason: ReasonOption,
    key: KeyOption,
    share: ShareOption = None,
    state_dir: StateDirOption = None,
    user: UserOption = None,
) -> None:
    """Write one field of an original as JSON, with a proof that others can check by themselves.

    Recorded as an unsealing before anything is shown. Everything else of the original stays sealed.
    """
    from cli import desk, vault
    from cli.blind import Erased, Keys, NotOpenable, Scope
    from cli.blind_tables import Tables
    from schemas.codec import Archive, CodecError
    from schemas.sealing import SealingError

    state, document = running(state_dir)
    wanted = uuid(event)
    tables = Tables(document, Scope(0, 0))
    envelope = tables.original(wanted.bytes)
    if envelope is None:
        raise Problem(f"the vault holds no original of {wanted}, or its hash does not match")
    keys = Keys(private_of(key), given=shares_of(share))
    try:
        made, _ = Archive().decode(envelope.schema_sha256, envelope.payload)
        for wraps in vault.wraps(document, [made.context.key_id]):
            keys.add(wraps)
        opener = keys.opener(made.context.key_id)
        box: bytes = getattr(made, "box", b"")
        proof = opener.prove(made.context.session_id, made.event_id, box, field.encode())
    except (CodecError, SealingError) as error:
        raise Problem(f"event {wanted}: {error}") from None
    except (Erased, NotOpenable) as error:
        raise Problem(f"event {wanted} does not open: {error}") from None
    recorded = desk.record(
        state,
        document,
        user,
        "/unsealings",
        {"events": [str(wanted)], "reason": f"{reason} (field {field})"},
    )
    print(f"recorded as {recorded}", file=sys.stderr)
    print(json.dumps(written(envelope, wanted, proof), indent=2))


def written(envelope: Envelope, event_id: UUID, proof: Proof) -> dict[str, Any]:
    """A disclosure, as JSON says it."""
    return {
        "format": _FORMAT,
        "event": {
            "id": str(event_id),
            "stream": envelope.stream,
            "seq": envelope.seq,
            "prev_hash": envelope.prev_hash.hex(),
            "schema_sha256": envelope.schema_sha256.hex(),
            "event_hash": envelope.event_hash.hex(),
            "payload": b64encode(envelope.payload).decode(),
        },
        "root": proof.root.hex(),
        "path": proof.path.decode(),
        "salt": proof.salt.hex(),
        "value": b64encode(proof.value).decode(),
        "way": [[side, beside.hex()] for side, beside in proof.way],
    }


def checked(file: Path) -> dict[str, Any]:
    """What a disclosure shows, once it is found to hold. Raises Problem."""
    from schemas.chain import event_hash
    from schemas.codec import Archive, CodecError
    from schemas.sealing import Proof, root_of

    try:
        said = json.loads(file.read_text())
        if said["format"] != _FORMAT:
            raise Problem(f"{file} is not a disclosure of this version")
        event = said["event"]
        stream, seq, payload = event["stream"], int(event["seq"]), b64decode(event["payload"])
        previous, schema, claimed = (
            bytes.fromhex(event[name]) for name in ("prev_hash", "schema_sha256", "event_hash")
        )
        proof = Proof(
            bytes.fromhex(said["root"]),
            said["path"].encode(),
            b64decode(said["value"]),
            bytes.fromhex(said["salt"]),
            [(str(side), bytes.fromhex(beside)) for side, beside in said["way"]],
        )
        holds = proof.holds()
        event_is = event_hash(stream, seq, previous, schema, payload)
    except OSError as error:
        raise Problem(f"cannot read {file}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise Problem(f"{file} is not a disclosure") from None
    try:
        made, _ = Archive().decode(schema, payload)
    except CodecError as error:
        raise Problem(f"the event in {file} cannot be read: {error}") from None
    if event_is != claimed:
        raise Problem("NOT PROVEN: the event's hash is not that of its content", 3)
    if UUID(bytes=made.event_id) != UUID(str(event["id"])):
        raise Problem("NOT PROVEN: the event has another id", 3)
    if root_of(getattr(made, "box", b"")) != proof.root or not proof.root:
        raise Problem("NOT PROVEN: the event has another root", 3)
    if not holds:
        raise Problem("NOT PROVEN: the root does not bind this value at this path", 3)
    return {
        "event": event["id"],
        "kind": type(made).__name__,
        "actor": made.context.principal.name,
        "chain": f"{stream} #{seq}",
        "event_hash": claimed.hex(),
        "path": said["path"],
        "value": proof.value.decode(errors="backslashreplace"),
    }
