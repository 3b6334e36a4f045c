"""Which veil a person looks through: what they may see clear, and what is known of the target."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from gateway.masking.hidden import Equality, Mask
from gateway.masking.knowledge import Knowledge, hidden_from, lineage
from gateway.masking.veil import Veil
from schemas import settings
from schemas.settings import SettingsError, Target

_KEY_BYTES: Final = 32
_REMEMBERED: Final = 256


class Veils:
    """The veils of one target. Raises SettingsError for a `token` mask without a key."""

    def __init__(self, target: Target) -> None:
        self._functions = tuple(target.functions)
        self._classified = {
            source: Mask(
                column.classification,
                column.mask,
                column.text,
                column.size,
                _equality(column.equality),
                use=column.use,
            )
            for source, column in target.classified.items()
        }
        self.columns = tuple(self._classified)
        self._keys: dict[str, bytes] = {}
        if any(mask.name == "token" for mask in self._classified.values()):
            self._keys = _token_keys(target, self._classified)
        self._masks: dict[int, dict[str, Mask]] = {}
        self._of: Knowledge | None = None
        self._veils: OrderedDict[frozenset[str], Veil] = OrderedDict()

    def of(self, knowledge: Knowledge | None, seen: frozenset[str]) -> Veil | None:
        """For who may see these of the classified columns clear; None where nothing is hidden."""
        if seen >= self._classified.keys():
            return None
        if knowledge is None:
            return Veil(None)
        if knowledge is not self._of:
            self._of, self._masks = knowledge, lineage(knowledge, self._classified, self._functions)
            self._veils.clear()
        veil = self._veils.get(seen)
        if veil is None:
            veil = Veil(
                hidden_from(
                    knowledge,
                    self._masks,
                    lambda mask: mask.origin in seen,
                    self._functions,
                    self._keys,
                )
            )
            self._veils[seen] = veil
            if len(self._veils) > _REMEMBERED:
                self._veils.popitem(last=False)
        return veil


def _equality(given: settings.Equality | None) -> Equality | None:
    return Equality(given.reason, given.budget) if given is not None else None


def _token_keys(target: Target, classified: dict[str, Mask]) -> dict[str, bytes]:
    if target.token_key is None:
        raise SettingsError(f"targets.{target.name}: the mask `token` needs a token_key")
    key = target.token_key.read().encode()
    if len(key) < _KEY_BYTES:
        raise SettingsError(f"targets.{target.name}: token_key has less than {_KEY_BYTES} bytes")
    return {mask.classification: key for mask in classified.values()}
