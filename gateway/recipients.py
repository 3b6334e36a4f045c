"""Who can open what this gateway seals: from the settings and the files they name."""

from __future__ import annotations

from collections.abc import Sequence

from schemas.sealing import Recipients, SealingError
from schemas.settings import Member, Quorum, Recipient, Settings, SettingsError


def recipients_of(settings: Settings) -> Recipients:
    """Raises SettingsError."""
    alone = [one for one in settings.recipients if isinstance(one, Recipient)]
    quorums = [one for one in settings.recipients if isinstance(one, Quorum)]
    try:
        return Recipients.of(
            _named(alone), ((one.name, one.threshold, _named(one.members)) for one in quorums)
        )
    except OSError as error:
        raise SettingsError(f"recipients: cannot read {error.filename}") from None
    except SealingError as error:
        raise SettingsError(f"recipients: {error}") from None


def warnings(recipients: Recipients) -> list[str]:
    """What may be meant, and then protects nothing from the person it names."""
    return [
        f"recipients: {member} of {quorum} is a recipient, too, and opens everything alone"
        for quorum, member in recipients.also_alone()
    ]


def _named(people: Sequence[Recipient | Member]) -> list[tuple[str, bytes]]:
    return [(person.name, person.public_key.read_bytes()) for person in people]
