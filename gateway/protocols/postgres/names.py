"""What the names of prepared statements and portals mean, now and once the target has answered."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, Generic, Protocol, TypeVar

T = TypeVar("T", bound="Meaning")

_SIGNIFICANT: Final = 63
"""PostgreSQL tells names apart by their first NAMEDATALEN - 1 bytes."""


class Effect(Protocol):
    """What a message or a statement on its way does to names, if the target accepts it."""

    def settle(self, tag: str = "") -> None:
        """The target did it, and said so in this command tag."""
        ...

    def drop(self) -> None:
        """The target refused or skipped it: the names mean what they meant without it."""
        ...


class Ledger:
    """What the names of one session cost in memory, in bytes."""

    __slots__ = ("total",)

    def __init__(self) -> None:
        self.total = 0

    def add(self, meaning: Meaning) -> None:
        """It is remembered from now on."""
        meaning.ledger = self
        self.total += meaning.size

    def remove(self, meaning: Meaning) -> None:
        """It is remembered no longer."""
        meaning.ledger = None
        self.total -= meaning.size


class Meaning:
    """What a name can mean. `size` is what it costs in memory, in bytes, roughly."""

    __slots__ = ("ledger", "size")

    def __init__(self, size: int) -> None:
        self.size = size
        self.ledger: Ledger | None = None

    def grow(self, by: int) -> None:
        """More is known of it, or less."""
        self.size += by
        if self.ledger is not None:
            self.ledger.total += by


class Change(Generic[T]):
    """What one message does to names, if the target accepts it. None forgets them."""

    __slots__ = ("_names", "keys", "segment", "value")

    def __init__(self, names: Names[T], keys: tuple[bytes, ...], value: T | None, segment: int):
        self._names = names
        self.keys = keys
        self.value = value
        self.segment = segment

    def settle(self, tag: str = "") -> None:
        """See Effect."""
        self._names.settle(self)

    def drop(self) -> None:
        """See Effect."""
        self._names.drop(self)


class Together:
    """What one statement does to names of several kinds. See Effect."""

    def __init__(self, *effects: Effect) -> None:
        self._effects = effects

    def settle(self, tag: str = "") -> None:
        """The target did it."""
        for effect in self._effects:
            effect.settle(tag)

    def drop(self) -> None:
        """The target refused or skipped it."""
        for effect in self._effects:
            effect.drop()


class Names(Generic[T]):
    """One kind of names of one session.

    A client may send a name's new meaning and its use in one packet, before the target has
    accepted the new meaning. Within a segment (up to the next Sync or Query) that is safe: when
    the first fails, the target skips the second. Beyond it, the target would go on with the old
    meaning, so that whoever judges by the new one judges something else than what runs.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._settled: dict[bytes, T] = {}
        self._pending: dict[bytes, list[Change[T]]] = {}

    def __iter__(self) -> Iterator[bytes]:
        return iter({**self._settled, **self._pending})

    def get(self, name: bytes) -> T | None:
        """What the name means if everything sent so far is accepted."""
        key = name[:_SIGNIFICANT]
        pending = self._pending.get(key)
        return pending[-1].value if pending else self._settled.get(key)

    def given_in(self, name: bytes, segment: int) -> bool | None:
        """Whether that segment gave the name its meaning, so that the target skips the use of it
        if it refuses that; None when no meaning is pending.
        """
        pending = self._pending.get(name[:_SIGNIFICANT])
        return pending[-1].segment == segment if pending else None

    def change(self, names: Iterable[bytes], value: T | None, segment: int) -> Change[T]:
        """Register a message's effect; settle or drop it when its answer comes."""
        change = Change(self, tuple([name[:_SIGNIFICANT] for name in names]), value, segment)
        for key in change.keys:
            pending = self._pending.get(key)
            if pending is None:
                self._pending[key] = [change]
            else:
                pending.append(change)
        if value is not None:
            self._ledger.add(value)
        return change

    def settle(self, change: Change[T]) -> None:
        """See Change.settle."""
        self.drop(change)
        for key in change.keys:
            before = self._settled.pop(key, None)
            if before is not None:
                self._ledger.remove(before)
            if change.value is not None:
                self._settled[key] = change.value
                self._ledger.add(change.value)

    def drop(self, change: Change[T]) -> None:
        """See Change.drop."""
        for key in change.keys:
            pending = self._pending.get(key)
            if pending is None:
                continue
            if pending[0] is change:
                # The usual case, since answers come in order.
                del pending[0]
            elif change in pending:
                pending.remove(change)
            else:
                continue
            if change.value is not None:
                self._ledger.remove(change.value)
            if not pending:
                del self._pending[key]

    def settled(self, key: bytes) -> T | None:
        """What the name means by what the target has confirmed."""
        return self._settled.get(key)

    def unsettle(self, key: bytes) -> None:
        """What the target had confirmed is gone."""
        gone = self._settled.pop(key, None)
        if gone is not None:
            self._ledger.remove(gone)
