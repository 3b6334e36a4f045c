"""Targets as files: the settings' `targets`, and `targets/*.yaml` in the folder of policies."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from gateway.veils import token_key
from schemas import settings as described
from schemas.settings import Settings, SettingsError, Target

_REASON_CHARS: Final = 1000


class Difference(NamedTuple):
    """Names, in their order."""

    added: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]


def between(before: Mapping[str, object], now: Mapping[str, object]) -> Difference:
    """What is new, otherwise and gone."""
    return Difference(
        tuple(sorted(now.keys() - before.keys())),
        tuple(sorted(name for name in now.keys() & before.keys() if now[name] != before[name])),
        tuple(sorted(before.keys() - now.keys())),
    )


def digest(targets: Iterable[Target]) -> str:
    """SHA-256 of what they say, whatever their order. Secrets are in it by reference alone."""
    said = {target.name: target.model_dump(mode="json", by_alias=True) for target in targets}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Known:
    """A target, and the secret that is read when it is begun with."""

    target: Target
    token_key: bytes | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class Load:
    """Targets to be offered, by name, or why there are none (`reason`). `others` are settings that
    have changed as well, and are not taken.
    """

    targets: Mapping[str, Known] | None
    reason: str = ""
    others: tuple[str, ...] = ()


class TargetFiles:
    """The targets as they are now of a process that began with `settings`, read from `config`."""

    def __init__(self, config: Path, settings: Settings) -> None:
        self._config = config
        self._began = self._latest = settings

    def files(self) -> list[Path]:
        """See gateway.watch."""
        return described.files(self._config, self._latest)

    def load(self) -> Load:
        """See gateway.watch."""
        try:
            settings = self._latest = described.load(self._config)
            known = {target.name: _known(target) for target in settings.targets}
        except SettingsError as error:
            return Load(None, str(error)[:_REASON_CHARS])
        return Load(known, others=_others(self._began, settings))


def _known(target: Target) -> Known:
    try:
        target.password.read()
        return Known(target, token_key(target))
    except SettingsError as error:
        raise SettingsError(f"target {target.name}: {error}") from None


def _others(began: Settings, now: Settings) -> tuple[str, ...]:
    names = [name for name in Settings.model_fields if name != "targets"]
    return tuple(name for name in names if getattr(began, name) != getattr(now, name))
