"""Which veil a person looks through: what they may see clear, and what is known of the target."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import Final

from gateway.masking.comments import NONE, Comments, judge
from gateway.masking.copies import UNKNOWN, WRITING, Copies
from gateway.masking.hidden import Equality, Mask, Part
from gateway.masking.knowledge import Knowledge, hidden_from, lineage
from gateway.masking.veil import Veil
from schemas.settings import Classified, SettingsError, Target, Treatment

_KEY_BYTES: Final = 32
_REMEMBERED: Final = 256


class Veils:
    """The veils of one target. Raises SettingsError for a `token` mask without a key."""

    def __init__(self, target: Target) -> None:
        self._functions = tuple(target.functions)
        self._classified = {
            source: _mask(column.classification, column)
            for source, column in target.classified.items()
        }
        self._classes = {name: _mask(name, column) for name, column in target.classes.items()}
        self._classifiers = frozenset(target.classifiers)
        self._keys: dict[str, bytes] = {}
        self.token_key = token_key(target)
        masks = _with_parts(self._classified.values())
        if self.token_key is None and any(mask.name == "token" for mask in masks):
            raise SettingsError(f"targets.{target.name}: the mask `token` needs a token_key")
        self._masks: dict[int, dict[str, Mask]] = {}
        self._of: Knowledge | None = None
        self._copies: Copies | None = None
        self._copies_freely = all(mask.copies == "allow" for mask in self._classified.values())
        self._veils: OrderedDict[frozenset[str], Veil] = OrderedDict()

    @property
    def hides(self) -> bool:
        """Whether anything may be classified there."""
        return bool(self._classified or self._classifiers)

    @property
    def by_comments(self) -> bool:
        """Whether comments may classify."""
        return bool(self._classifiers)

    def comments(self, knowledge: Knowledge | None) -> Comments:
        """What comments classify there."""
        if knowledge is None or not knowledge.comments:
            return NONE
        return judge(
            knowledge,
            self._classifiers,
            self._classes,
            self._classified,
            tokens=self.token_key is not None,
        )

    def columns(self, comments: Comments) -> tuple[str, ...]:
        """All that are classified, by configuration or by a comment."""
        return (*self._classified, *comments.masks)

    def of(
        self, knowledge: Knowledge | None, comments: Comments, seen: frozenset[str]
    ) -> Veil | None:
        """For who may see these of the classified columns clear; None where nothing is hidden."""
        if knowledge is None:
            # Comments that nobody has read yet may classify anything.
            sees_all = seen >= self._classified.keys() and not self._classifiers
            return None if sees_all else Veil(None)
        if seen >= {*self._classified, *comments.masks}:
            return None
        self._follow(knowledge, comments)
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
        comments: Comments,
        kinds: frozenset[str],
        relations: tuple[str, ...],
        text: str,
    ) -> tuple[str, ...]:
        """The classified columns that a statement would copy to where nothing is classified."""
        if not kinds & WRITING:
            return ()
        if knowledge is None:
            if self._all_copy_freely(comments) and not self._classifiers:
                return ()
            names = {part for source in self._classified for part in source.split(".")[1:]}
            found = bool(self._classifiers) or any(name in text for name in names)
            return (UNKNOWN,) if found else ()
        copies = self.copies(knowledge, comments)
        return copies.of(kinds, relations, text) if copies is not None else ()

    def copies(self, knowledge: Knowledge | None, comments: Comments) -> Copies | None:
        """What may not be copied; None where all may be, or nothing is known."""
        if knowledge is None or self._all_copy_freely(comments):
            return None
        self._follow(knowledge, comments)
        if self._copies is None:
            everything = hidden_from(knowledge, self._masks, lambda mask: False, self._functions)
            self._copies = Copies(everything)
        return self._copies

    def _all_copy_freely(self, comments: Comments) -> bool:
        masks = comments.masks.values()
        return self._copies_freely and all(mask.copies == "allow" for mask in masks)

    def _follow(self, knowledge: Knowledge, comments: Comments) -> None:
        if knowledge is not self._of:
            self._of = knowledge
            self._masks = lineage(knowledge, self._classified, self._functions, comments.seeds)
            if self.token_key is not None:
                masks = _with_parts((*self._classified.values(), *comments.masks.values()))
                self._keys = {mask.classification: self.token_key for mask in masks}
            self._veils.clear()
            self._copies = None


def _mask(classification: str, said: Treatment) -> Mask:
    equality, given = said.equality, said.parts if isinstance(said, Classified) else {}
    return Mask(
        classification,
        said.mask,
        said.text,
        said.size,
        Equality(equality.reason, equality.budget) if equality is not None else None,
        use=said.use,
        copies=said.copies,
        parts=tuple(
            Part(
                tuple(key.replace("~1", "/").replace("~0", "~") for key in pointer.split("/")[1:]),
                Mask(part.classification or classification, part.mask, part.text, part.size),
            )
            for pointer, part in given.items()
        ),
    )


def _with_parts(masks: Iterable[Mask]) -> Iterator[Mask]:
    for mask in masks:
        yield mask
        yield from (part.mask for part in mask.parts)


def token_key(target: Target) -> bytes | None:
    """Key of a target's mask `token`, as it is now. Raises SettingsError."""
    if target.token_key is None:
        return None
    key = target.token_key.read().encode()
    if len(key) < _KEY_BYTES:
        raise SettingsError(f"targets.{target.name}: token_key has less than {_KEY_BYTES} bytes")
    return key
