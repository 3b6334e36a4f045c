"""`gatebook unseal`, `share` and `erase`: originals for those who can open them, or for nobody."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar
from uuid import UUID

import typer

from cli.problems import Problem
from cli.running import StateDirOption, running

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.x25519 import (
        X25519PrivateKey,
        X25519PublicKey,
    )

    from cli.quorums import ShareFile
    from schemas.events import KeyWraps

T = TypeVar("T")

_COLUMNS = (
    "toString(event_id) AS id, toString(key_id) AS key, hex(session_id) AS session, kind, stream,"
    " seq, hex(prev_hash) AS prev_hash, hex(event_hash) AS event_hash,"
    " hex(schema_sha256) AS digest, base64Encode(payload) AS payload"
)

_AT_ONCE = 5000
"""Keys of one erasure at most."""

ReasonOption = Annotated[str, typer.Option("--reason", help="Why; recorded for good.")]
KeyOption = Annotated[Path, typer.Option("--key", help="Your private key (X25519, PEM).")]
ShareOption = Annotated[
    list[Path] | None,
    typer.Option("--share", help="What another member of your quorum gave you; repeatable."),
]
UserOption = Annotated[
    str | None, typer.Option("--user", "-u", help="Who asks, when several are signed in.")
]


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command(
        epilog="[bold]Examples[/bold]\n\n  gatebook unseal 0199f3c2-... --reason 'case 4711'"
        " --key carol.pem"
        "\n\n  gatebook unseal 0199f3c2-... --reason 'case 4711' --key carol.pem --share dave.share"
    )(unseal)
    app.command(
        epilog="[bold]Examples[/bold]\n\n  gatebook share 0199f3c2-... --reason 'case 4711'"
        " --key dave.pem --for carol.pub.pem"
    )(share)
    app.command(
        epilog="[bold]Examples[/bold]\n\n  gatebook erase --session 0199f3c2-... --reason 'GDPR 17'"
        "\n\n  gatebook erase --principal alice --reason 'GDPR 17' --yes"
    )(erase)


def unseal(  # noqa: PLR0917 (a command line's options are its parameters)
    identifier: Annotated[str, typer.Argument(metavar="ID", help="Of an event or a statement.")],
    reason: ReasonOption,
    key: KeyOption,
    share: ShareOption = None,
    state_dir: StateDirOption = None,
    user: UserOption = None,
) -> None:
    """Show what was really typed and returned, as JSON. Recorded before anything is shown.

    Your key stays on this machine: sealed originals come here and are opened here.
    """
    from cli import desk, opening

    state, document = running(state_dir)
    wanted = uuid(identifier)
    private = private_of(key)
    given = shares_of(share)
    rows, wraps = _sealed(document, wanted)
    sealed = opening.Sealed(rows, wraps, private, given)
    recorded = desk.record(
        state,
        document,
        user,
        "/unsealings",
        {"events": [row["id"] for row in rows], "reason": reason},
    )
    print(f"recorded as {recorded}", file=sys.stderr)
    print(json.dumps(sealed.shown(), ensure_ascii=False, indent=2))


def share(  # noqa: PLR0917 (a command line's options are its parameters)
    identifier: Annotated[str, typer.Argument(metavar="ID", help="Of an event or a statement.")],
    reason: ReasonOption,
    key: KeyOption,
    receiver: Annotated[
        Path, typer.Option("--for", help="Public key of the member who is to open it.")
    ],
    out: Annotated[
        Path | None, typer.Option("--out", help="File to write; GIVER.share by default.")
    ] = None,
    state_dir: StateDirOption = None,
    user: UserOption = None,
) -> None:
    """Give another member of your quorum your share of the keys to an original, in a file.

    Only that member can use it, and only for this. Recorded before the file is written.
    """
    from cli import desk, opening, quorums

    state, document = running(state_dir)
    wanted = uuid(identifier)
    private, public = private_of(key), _public(receiver)
    if public == private.public_key():
        raise Problem("--for is your own key: a share is given to another member")
    rows, wraps = _sealed(document, wanted)
    opening.unaltered(rows)
    ids = [UUID(row["id"]) for row in rows]
    made = quorums.shares(wraps, private, public, ids)
    path = out or Path(f"{made.giver}.share")
    if path.exists():
        raise Problem(f"{path} is there already")
    recorded = desk.record(
        state,
        document,
        user,
        "/shares",
        {
            "events": [row["id"] for row in rows],
            "keys": [str(part.key) for part in made.parts],
            "quorum": made.quorum,
            "giver": made.giver,
            "receiver": made.receiver,
            "reason": reason,
        },
    )
    print(f"recorded as {recorded}", file=sys.stderr)
    made.write(path)
    print(f"{path}: the share of {made.giver} in {made.quorum}, for {made.receiver} alone")


def _sealed(document: dict[str, Any], wanted: UUID) -> tuple[list[dict[str, Any]], list[KeyWraps]]:
    """Rows of the vault: sealed events, and the wraps of their keys. Raises Problem."""
    from cli import clickhouse, vault

    rows = _rows(
        clickhouse.query(
            document,
            f"SELECT {_COLUMNS} FROM vault_boxes WHERE event_id = '{wanted}'"
            f" OR statement_id = '{wanted}' ORDER BY stream, seq",
            "JSONEachRow",
            vault=True,
        )
    )
    if not rows:
        raise Problem(f"the vault holds no original of {wanted}")
    return rows, list(vault.wraps(document, {UUID(row["key"]).bytes for row in rows}))


def erase(  # noqa: PLR0917 (a command line's options are its parameters)
    reason: ReasonOption,
    principal: Annotated[
        str | None, typer.Option("--principal", help="All sessions of this actor.")
    ] = None,
    session: Annotated[str | None, typer.Option("--session", help="One session's id.")] = None,
    state_dir: StateDirOption = None,
    user: UserOption = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Destroy the keys of originals, so that nobody can ever open them again.

    The masked history stays, and so do the chains; what was erased, by whom and why is an event.
    """
    from cli import clickhouse, desk

    if (principal is None) == (session is None):
        raise Problem("name either --principal or --session", 2)
    state, document = running(state_dir)
    if session is not None:
        condition = f"session_id = '{uuid(session)}'"
    else:
        escaped = (principal or "").replace("\\", "\\\\").replace("'", "\\'")
        condition = f"actor = '{escaped}'"
    found = _rows(
        clickhouse.query(
            document,
            "SELECT toString(session_id) AS session, outcome = 'open' AS open FROM sessions"
            f" WHERE {condition} AND outcome != 'login_failed'",
            "JSONEachRow",
        )
    )
    sessions = [row["session"] for row in found]
    if not sessions:
        raise Problem("no such session is in the history")
    still_open = [row["session"] for row in found if row["open"]]
    if still_open:
        # What it seals from now on would be lost to everyone, the audit copy included.
        raise Problem(f"end these sessions first: {', '.join(still_open)}")
    # A session has a data key of its own.
    pairs = _rows(
        clickhouse.query(
            document,
            "SELECT DISTINCT toString(key_id) AS key, toString(session_id) AS session"
            f" FROM vault_boxes WHERE session_id IN ({_quoted(sessions)})",
            "JSONEachRow",
            vault=True,
        )
    )
    if not pairs:
        raise Problem("the vault holds nothing of them")
    if not yes and not typer.confirm(f"Destroy the keys of {len(pairs)} session(s) for good?"):
        raise Problem("nothing was erased")
    for start in range(0, len(pairs), _AT_ONCE):
        some = pairs[start : start + _AT_ONCE]
        recorded = desk.record(
            state,
            document,
            user,
            "/erasures",
            {
                "person": principal or "",
                "sessions": [pair["session"] for pair in some],
                "keys": [pair["key"] for pair in some],
                "reason": reason,
            },
        )
        print(f"recorded as {recorded}", file=sys.stderr)
    print(f"{len(pairs)} key(s) destroyed")


def uuid(text: str) -> UUID:
    """An id that was typed. Raises Problem."""
    try:
        return UUID(text)
    except ValueError:
        raise Problem(f"{text!r} is not an id", 2) from None


def _quoted(ids: list[str]) -> str:
    return ",".join(f"'{UUID(value)}'" for value in ids)


def _rows(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines() if line]


def shares_of(paths: list[Path] | None) -> list[ShareFile]:
    """What others gave. Raises Problem."""
    from cli.quorums import ShareFile

    return [ShareFile.read(path) for path in paths or []]


def private_of(path: Path) -> X25519PrivateKey:
    """An auditor's key. Raises Problem."""
    from schemas.sealing import private_key

    return _key(path, private_key)


def _public(path: Path) -> X25519PublicKey:
    from schemas.sealing import public_key

    return _key(path, public_key)


def _key(path: Path, parse: Callable[[bytes], T]) -> T:
    from schemas.sealing import SealingError

    try:
        return parse(path.read_bytes())
    except OSError as error:
        raise Problem(f"cannot read {path}: {error.strerror}") from None
    except SealingError as error:
        raise Problem(f"{path}: {error}") from None
