"""One set of targets takes another's place, whole or not at all, and after it is in the book."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateway.catalog import Change
from gateway.journal import NotDurable
from gateway.target_files import Known, Load
from gateway.targets import Said, Targets
from gateway.veils import token_key
from schemas.codec import Archive
from schemas.settings import Target

MAIL, SSN = {"s.t.mail": {"class": "pii"}}, {"s.t.ssn": {"class": "pii", "mask": "partial"}}


class Book:
    """A house whose journal can be out of reach or full; `lines` is what is in the book."""

    def __init__(self) -> None:
        self.durable = self.reachable = self.room = True
        self.lines: list[Any] = []
        self.records: dict[bytes, bytes] = {}

    async def publish(self, digest: bytes, value: bytes) -> None:
        await asyncio.sleep(0)
        if not self.reachable:
            raise NotDurable("gatebook.classifications")
        self.records[digest] = value
        self.lines.append(digest)

    def changed(self, change: Change) -> None:
        self.lines.append(change)

    def record(self, said: Said) -> bool:
        if self.room:
            self.lines.append(said)
        return self.room

    def tell(self) -> None:
        self.lines.append("told")

    def columns(self, digest: bytes) -> dict[str, str]:
        found = Archive().decode_classification(self.records[digest])
        return {each.column: each.mask for each in found.columns}


class Place:
    """Targets, by name, that nothing answers at, and the book they are in."""

    def __init__(self, **classified: dict[str, Any]) -> None:
        self.book = Book()
        self.targets = Targets([target(n, c) for n, c in classified.items()], 600.0, self.book)
        self.targets.start()

    async def take(self, **classified: dict[str, Any]) -> bool:
        made = [target(name, columns) for name, columns in classified.items()]
        return await self.targets.take(Load({t.name: Known(t, token_key(t)) for t in made}))

    def since(self) -> list[Any]:
        """What is in the book, in other words, since this was last asked."""
        lines, self.book.lines = self.book.lines, []
        return lines

    def audited(self, name: str) -> dict[str, str]:
        digest = self.targets.now[name].catalog.classification
        return self.book.columns(digest) if digest else {}


def target(name: str, classified: dict[str, Any]) -> Target:
    return Target.model_validate(
        {
            "name": name, "host": "127.0.0.1", "port": 1, "database": "d", "user": "u",
            "password": {"env": "PASSWORD"}, "sslmode": "disable", "classified": classified,
        }
    )  # fmt: skip


@pytest.fixture
async def place(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Place]:
    monkeypatch.setenv("PASSWORD", "geheim")
    made = Place(shop={}, crm=MAIL)
    made.book.records |= dict(made.targets.documents())
    yield made
    await made.targets.close()


async def test_at_the_start_the_set_is_in_the_book(place: Place) -> None:
    (said,) = place.since()
    assert (said.number, said.difference, said.reason) == (2, ((), (), ()), "")
    assert await place.take(crm=MAIL, shop={})
    assert place.since() == []


async def test_it_is_in_the_book_before_anybody_is_told_and_its_classification_before_that(
    place: Place,
) -> None:
    first, before = place.since()[0], place.targets.now
    assert await place.take(shop=SSN, crm=MAIL, new=SSN)
    *records, said, told = place.since()
    assert set(records) == {
        place.targets.now[name].catalog.classification for name in ("shop", "new")
    }
    assert (said.number, said.difference) == (3, (("new",), ("shop",), ()))
    assert said.digest != first.digest and told == "told"
    now = place.targets.now
    assert now["crm"] is before["crm"] and not now["crm"].over
    assert now["shop"] is not before["shop"]
    assert before["shop"].over and before.keys() == {"shop", "crm"}
    assert place.audited("shop") == place.audited("new") == {"s.t.ssn": "partial"}


async def test_what_is_classified_for_the_audit_copy_only_grows_also_for_who_is_at_the_old_one(
    place: Place,
) -> None:
    old = place.targets.now["crm"]
    assert await place.take(shop={}, crm=SSN)
    assert place.audited("crm") == {"s.t.mail": "full", "s.t.ssn": "partial"}
    assert old.catalog.classification == place.targets.now["crm"].catalog.classification
    assert await place.take(shop={})
    assert await place.take(shop={}, crm={})
    assert place.audited("crm") == {"s.t.mail": "full", "s.t.ssn": "partial"}
    assert await place.take(shop={}, crm={"s.t.ssn": {"class": "pii", "mask": "full"}})
    assert place.audited("crm") == {"s.t.mail": "full", "s.t.ssn": "full"}
    # A journal that begins anew is given all of it.
    assert {digest for digest, _ in place.targets.documents()} == {
        place.targets.now["crm"].catalog.classification
    }


async def test_what_the_old_one_did_is_looked_at_by_the_new_one_and_nobody_waits_for_ever(
    place: Place,
) -> None:
    crm, shop = place.targets.now["crm"], place.targets.now["shop"]
    waiting = crm.catalog.look()
    assert await place.take(crm=SSN)
    await asyncio.wait_for(waiting, 20)
    looked = crm.catalog.look()
    assert place.targets.now["crm"].catalog.settling is looked
    await asyncio.wait_for(looked, 20)
    await asyncio.wait_for(shop.catalog.look(), 20)


@pytest.mark.parametrize("lacks", ["reachable", "durable", "room"])
async def test_what_the_journal_does_not_take_is_not_in_force_and_is_tried_again(
    place: Place, lacks: str
) -> None:
    place.since()
    before = place.targets.now
    setattr(place.book, lacks, False)
    for _ in range(2):
        assert not await place.take(crm=SSN)
        assert place.targets.now is before and not before["shop"].over
    assert "told" not in place.since()
    setattr(place.book, lacks, True)
    assert await place.take(crm=SSN)
    assert [line for line in place.since() if not isinstance(line, bytes)][-1] == "told"
    assert place.audited("crm") == {"s.t.mail": "full", "s.t.ssn": "partial"}


async def test_a_set_that_cannot_be_used_is_recorded_once_and_so_is_the_next_that_can(
    place: Place,
) -> None:
    (first,), before = place.since(), place.targets.now
    assert await place.targets.take(Load(None, "crm.yaml: why"))
    assert await place.targets.take(Load(None, "crm.yaml: why"))
    assert place.since() == [first._replace(reason="crm.yaml: why")]
    place.book.room = False
    assert not await place.targets.take(Load(None, "another"))
    place.book.room = True
    # A mask `token` without a key is found when a catalog is made of it.
    assert await place.take(shop={"s.t.c": {"class": "pii", "mask": "token"}}, crm=SSN)
    (failed,) = place.since()
    assert "shop: the mask `token` needs a token_key" in failed.reason
    assert place.targets.now is before
    assert await place.take(shop={}, crm=MAIL)
    assert place.since() == [first, "told"]
    assert place.targets.now == before
