"""Which veil a person looks through: what they may see clear, and what is known of the target."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from gateway.masking.copies import UNKNOWN, WRITING, Copies
from gateway.masking.hidden import Equality, Mask, Part
from gateway.masking.knowledge import Knowledge, hidden_from, lineage
from gateway.masking.veil import Veil
from schemas.settings import Classified, SettingsError, Target

_KEY_BYTES: Final = 32
_REMEMBERED: Final = 256


class Veils:
    """The veils of one target. Raises SettingsError for a `token` mask without a key."""

    def __init__(self, target: Target) -> None:
        self._functions = tuple(target.functions)
        self._classified = {source: _mask(column) for source, column in target.classified.items()}
        self.columns = tuple(self._classified)
        self._keys: dict[str, bytes] = {}
        masks = [each for mask in self._classified.values() for each in (mask, *_parts(mask))]
        if any(mask.name == "token" for mask in masks):
            self._keys = _token_keys(target, masks)
        self._masks: dict[int, dict[str, Mask]] = {}
        self._of: Knowledge | None = None
        self._copies: Copies | None = None
        self._copies_freely = all(mask.copies == "allow" for mask in self._classified.values())
        self._veils: OrderedDict[frozenset[str], Veil] = OrderedDict()

    def of(self, knowledge: Knowledge | None, seen: frozenset[str]) -> Veil | None:
        """For who may see these of the classified columns clear; None where nothing is hidden."""
        if seen >= self._classified.keys():
            return None
        if knowledge is None:
            return Veil(None)
        self._follow(knowledge)
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

    def copied(
        self,
        knowledge: Knowledge | None,
        kinds: frozenset[str],
        relations: tuple[str, ...],
        text: str,
    ) -> tuple[str, ...]:
        """The classified columns that a statement would copy to where nothing is classified."""
        if self._copies_freely or not kinds & WRITING:
            return ()
        if knowledge is None:
            names = {part for source in self._classified for part in source.split(".")[1:]}
            return (UNKNOWN,) if any(name in text for name in names) else ()
        self._follow(knowledge)
        if self._copies is None:
            everything = hidden_from(knowledge, self._masks, lambda mask: False, self._functions)
            self._copies = Copies(everything)
        return self._copies.of(kinds, relations, text)

    def _follow(self, knowledge: Knowledge) -> None:
        if knowledge is not self._of:
            self._of, self._masks = knowledge, lineage(knowledge, self._classified, self._functions)
            self._veils.clear()
            self._copies = None


def _mask(column: Classified) -> Mask:
    equality = column.equality
    return Mask(
        column.classification,
        column.mask,
        column.text,
        column.size,
        Equality(equality.reason, equality.budget) if equality is not None else None,
        use=column.use,
        copies=column.copies,
        parts=tuple(
            Part(
                tuple(key.replace("~1", "/").replace("~0", "~") for key in pointer.split("/")[1:]),
                Mask(part.classification or column.classification, part.mask, part.text, part.size),
            )
            for pointer, part in column.parts.items()
        ),
    )


def _parts(mask: Mask) -> list[Mask]:
    return [part.mask for part in mask.parts]


def _token_keys(target: Target, masks: list[Mask]) -> dict[str, bytes]:
    if target.token_key is None:
        raise SettingsError(f"targets.{target.name}: the mask `token` needs a token_key")
    key = target.token_key.read().encode()
    if len(key) < _KEY_BYTES:
        raise SettingsError(f"targets.{target.name}: token_key has less than {_KEY_BYTES} bytes")
    return {mask.classification: key for mask in masks}
