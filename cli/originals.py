"""`gatebook unseal` and `erase`: originals opened by those who can, or by nobody ever again."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer

from cli.problems import Problem
from cli.running import StateDirOption, running

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

_COLUMNS = (
    "toString(event_id) AS id, toString(key_id) AS key, hex(session_id) AS session, kind, stream,"
    " seq, hex(prev_hash) AS prev_hash, hex(event_hash) AS event_hash,"
    " hex(schema_sha256) AS digest, base64Encode(payload) AS payload"
)

_AT_ONCE = 5000
"""Keys of one erasure at most."""

ReasonOption = Annotated[str, typer.Option("--reason", help="Why; recorded for good.")]
UserOption = Annotated[
    str | None, typer.Option("--user", "-u", help="Who asks, when several are signed in.")
]


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command(
        epilog="[bold]Examples[/bold]\n\n  gatebook unseal 0199f3c2-... --reason 'case 4711'"
        " --key carol.pem"
    )(unseal)
    app.command(
        epilog="[bold]Examples[/bold]\n\n  gatebook erase --session 0199f3c2-... --reason 'GDPR 17'"
        "\n\n  gatebook erase --principal alice --reason 'GDPR 17' --yes"
    )(erase)


def unseal(
    identifier: Annotated[str, typer.Argument(metavar="ID", help="Of an event or a statement.")],
    reason: ReasonOption,
    key: Annotated[Path, typer.Option("--key", help="Your private key (X25519, PEM).")],
    state_dir: StateDirOption = None,
    user: UserOption = None,
) -> None:
    """Show what was really typed and returned, as JSON. Recorded before anything is shown.

    Your key stays on this machine: sealed originals come here and are opened here.
    """
    from cli import clickhouse, desk, opening

    state, document = running(state_dir)
    wanted = uuid(identifier)
    private = private_of(key)
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
    keys = sorted({row["key"] for row in rows})
    wraps = _rows(
        clickhouse.query(
            document,
            "SELECT toString(key_id) AS key, recipient, base64Encode(ciphertext) AS ciphertext"
            f" FROM vault_wraps FINAL WHERE key_id IN ({_quoted(keys)})",
            "JSONEachRow",
            vault=True,
        )
    )
    sealed = opening.Sealed(rows, wraps, private)
    recorded = desk.record(
        state,
        document,
        user,
        "/unsealings",
        {"events": [row["id"] for row in rows], "reason": reason},
    )
    print(f"recorded as {recorded}", file=sys.stderr)
    print(json.dumps(sealed.shown(), ensure_ascii=False, indent=2))


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


def private_of(path: Path) -> X25519PrivateKey:
    """An auditor's key. Raises Problem."""
    from schemas.sealing import SealingError, private_key

    try:
        return private_key(path.read_bytes())
    except OSError as error:
        raise Problem(f"cannot read {path}: {error.strerror}") from None
    except SealingError as error:
        raise Problem(f"{path}: {error}") from None
