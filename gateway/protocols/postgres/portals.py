"""Portals and cursors, which share their names: what each is, and how long it lives."""

from __future__ import annotations

from itertools import count
from typing import Final

from gateway.protocols.postgres.names import Change, Ledger, Names
from gateway.protocols.postgres.pipeline import Portal

_COMMITTED: Final = 0
_ENDS: Final = frozenset({"COMMIT", "ROLLBACK", "PREPARE", "ROLLBACK_TO"})


class Portals(Names[Portal]):
    """The portals of one session, those made by Bind and those made by DECLARE.

    They go with the transaction or the savepoint that they were made in; a cursor WITH HOLD stays
    once its transaction has committed. A name whose portal is gone is unknown, not what it was:
    a function may open another cursor under it.
    """

    def __init__(self, ledger: Ledger) -> None:
        super().__init__(ledger)
        self._numbers = count(_COMMITTED + 1)
        self._made: dict[bytes, int] = {}
        self._savepoints: list[tuple[str, int]] = []

    def settle(self, change: Change[Portal]) -> None:
        """See Change.settle."""
        super().settle(change)
        for key in change.keys:
            if change.value is None:
                self._made.pop(key, None)
            else:
                self._made[key] = next(self._numbers)

    def declared(self) -> list[bytes]:
        """Names of cursors that SQL declared."""
        return [name for name in self if (portal := self.get(name)) is not None and portal.declared]

    def step(self, step: str, savepoint: str, segment: int) -> Step:
        """What a statement that controls the transaction does to them."""
        # Until the target says which cursors it ended, those of this segment are unknown.
        names = self.declared() if step in _ENDS else []
        pending = [name for name in names if self.given_in(name, segment)]
        return Step(self, self.change(pending, None, segment), step, savepoint)

    def take(self, step: str, savepoint: str, tag: str) -> None:
        """A statement that controls the transaction has succeeded, with this command tag."""
        if step == "SAVEPOINT":
            self._savepoints.append((savepoint, next(self._numbers)))
        elif step == "RELEASE":
            self._leave(savepoint)
        elif step == "ROLLBACK_TO":
            made = self._leave(savepoint)
            self._forget_since(made)
            self._savepoints.append((savepoint, made))
        elif step in _ENDS:
            # A COMMIT of a transaction that has failed is a ROLLBACK.
            self.ended(committed=tag != "ROLLBACK")

    def ended(self, *, committed: bool) -> None:
        """No transaction is open any more."""
        if self._savepoints:
            self._savepoints.clear()
        if not committed:
            self._forget_since(_COMMITTED)
            return
        for key in list(self._made):
            portal = self.settled(key)
            if portal is not None and portal.held:
                self._made[key] = _COMMITTED
            else:
                self._forget(key)

    def _leave(self, savepoint: str) -> int:
        """Leave that savepoint and those within it: when it began."""
        for index in range(len(self._savepoints) - 1, -1, -1):
            name, made = self._savepoints[index]
            if name == savepoint:
                del self._savepoints[index:]
                return made
        return _COMMITTED

    def _forget_since(self, number: int) -> None:
        for key, made in list(self._made.items()):
            if made > number:
                self._forget(key)

    def _forget(self, key: bytes) -> None:
        del self._made[key]
        self.unsettle(key)


class Step:
    """A statement that controls the transaction, on its way. See names.Effect."""

    def __init__(
        self, portals: Portals, unknown: Change[Portal], step: str, savepoint: str
    ) -> None:
        self._portals = portals
        self._unknown = unknown
        self._step = step
        self._savepoint = savepoint

    def settle(self, tag: str = "") -> None:
        """The target did it."""
        self._unknown.drop()
        self._portals.take(self._step, self._savepoint, tag)

    def drop(self) -> None:
        """The target refused or skipped it."""
        self._unknown.drop()
