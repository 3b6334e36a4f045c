"""Classified values that occur nowhere else, and the search for them."""

from __future__ import annotations

import os
import random
import string
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from stdnum import luhn

_SHORTEST = 9
"""Shorter values would be found by chance."""


@dataclass(frozen=True, slots=True)
class Canary:
    """One of each kind, for one way that a value can take."""

    ssn: str
    card: str
    email: str
    phone: str

    def __iter__(self) -> Iterator[str]:
        yield from (self.ssn, self.card, self.email, self.phone)

    def __str__(self) -> str:
        return f"{self.ssn} {self.card} {self.email} {self.phone}"


class Cage:
    """Makes canaries, and remembers them by the way they took."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._made: dict[str, str] = {}

    def make(self, way: str) -> Canary:
        """Four values of their own for one way."""
        choose = self._random
        number = f"{choose.choice('45')}{choose.randrange(10**14):014}"
        canary = Canary(
            ssn=f"{choose.randint(100, 665)}-{choose.randint(10, 99)}-{choose.randint(1000, 9999)}",
            card=number + luhn.calc_check_digit(number),
            email=f"{''.join(choose.choices(string.ascii_lowercase, k=12))}@aviary.example.com",
            phone=f"+1-212-{choose.randint(220, 899)}-{choose.randint(0, 9999):04}",
        )
        self.add(way, canary)
        return canary

    def add(self, way: str, values: Iterable[str]) -> None:
        """Values that exist already, to be looked for as well."""
        for value in values:
            assert len(value) >= _SHORTEST
            self._made[value] = way

    def __len__(self) -> int:
        return len(self._made)

    def escaped(self, places: Iterable[tuple[str, bytes]]) -> list[tuple[str, str]]:
        """(way, what is around it in that place) of each canary that is in clear in one of them."""
        needles = [(value.encode(), way) for value, way in self._made.items()]
        return sorted(
            (f"{way}, in {place}", _around(data, data.index(needle), len(needle)))
            for place, data in places
            for needle, way in needles
            if needle in data
        )


def _around(data: bytes, at: int, size: int) -> str:
    return data[max(0, at - 60) : at + size + 20].decode("utf-8", "backslashreplace")


def contents(files: Iterable[Path]) -> Iterator[tuple[str, bytes]]:
    """(name, content) of files; the holes of sparse ones are left out."""
    for path in files:
        if path.is_file() and not path.is_symlink():
            with path.open("rb", buffering=0) as file:
                yield str(path), b"".join(_written(file.fileno()))


def _written(descriptor: int) -> Iterator[bytes]:
    at, end = 0, os.fstat(descriptor).st_size
    while at < end:
        try:
            start = os.lseek(descriptor, at, os.SEEK_DATA)
        except OSError:
            # Nothing but a hole is left.
            return
        at = os.lseek(descriptor, start, os.SEEK_HOLE)
        yield os.pread(descriptor, at - start, start)
