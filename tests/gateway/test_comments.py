"""A catalog's comments, against the real server: who could have made them, and what counts."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from gateway.catalog import Catalog, Change
from gateway.journal import NotDurable
from schemas import codec
from schemas.codec import Archive
from schemas.settings import Target
from tests.conftest import PostgresServer

pytestmark = pytest.mark.integration


class Book:
    """Where a catalog's changes go; it can be out of reach."""

    def __init__(self) -> None:
        self.records: dict[bytes, bytes] = {}
        self.changes: list[Change] = []
        self.reachable = True

    async def publish(self, digest: bytes, value: bytes) -> None:
        if not self.reachable:
            raise NotDurable("gatebook.classifications")
        self.records[digest] = value

    def changed(self, change: Change) -> None:
        assert change.digests[1] in self.records, "used before it was in the book"
        self.changes.append(change)

    def columns(self, digest: bytes) -> dict[str, tuple[str, str]]:
        found = Archive().decode_classification(self.records[digest])
        return {each.column: (each.classification, each.mask) for each in found.columns}

    def told(self) -> list[tuple[str, str, str]]:
        """(column, change, reason) of the last change, without the schema."""
        return [
            (each.column.partition(".")[2], each.change, each.reason)
            for each in self.changes[-1].changes
        ]


class Place:
    """A database of this test's own, with roles of its own."""

    def __init__(self, admin: Any, owner: str, target: dict[str, Any]) -> None:
        self.admin = admin
        self.owner = owner
        self.book = Book()
        self._target = target

    def catalog(self, **settings: Any) -> Catalog:
        chosen = {"classifiers": [self.owner], **settings}
        return Catalog(Target.model_validate({**self._target, **chosen}), 600.0, self.book)

    async def run(self, *statements: str) -> None:
        for statement in statements:
            await self.admin.execute(statement)


@pytest.fixture
async def place(postgres: PostgresServer, tmp_path: Path) -> AsyncIterator[Place]:
    name = f"comments_{uuid.uuid4().hex[:12]}"
    owner, stranger = f"{name}_owner", f"{name}_stranger"
    server = await asyncpg.connect(postgres.dsn)
    await server.execute(f"create database {name}")
    for role in (owner, stranger):
        await server.execute(f"create role {role}")
    admin = await asyncpg.connect(postgres.dsn, database=name)
    (tmp_path / "password").write_text(postgres.password)
    made = Place(
        admin,
        owner,
        {
            "name": "shop", "host": postgres.host, "port": postgres.port, "database": name,
            "user": postgres.user, "password": {"file": str(tmp_path / "password")},
            "sslmode": "disable",
        },
    )  # fmt: skip
    await made.run(
        "create table people (id int, ssn text, mail text)",
        "create table log (id int, note text) partition by range (id)",
        "create table log_1 partition of log for values from (0) to (9)",
        "create view seen as select ssn as tag, id from people",
        "create table theirs (id int, word text)",
        *(f"alter table {table} owner to {owner}" for table in ("people", "log", "log_1", "seen")),
        f"alter table theirs owner to {stranger}",
    )
    try:
        yield made
    finally:
        await admin.close()
        await server.execute(f"drop database {name} with (force)")
        for role in (owner, stranger):
            await server.execute(f"drop role {role}")
        await server.close()


async def read(catalog: Catalog) -> Catalog:
    """As it is once it has looked."""
    done = catalog.look()
    catalog.start()
    await asyncio.wait_for(done, 30)
    return catalog


async def looked(catalog: Catalog) -> None:
    await asyncio.wait_for(catalog.look(), 30)


async def test_comments_of_the_owner_count_and_those_of_others_are_told(place: Place) -> None:
    await place.run(
        "comment on column people.ssn is 'the number. gatebook:pii mask=partial'",
        "comment on column people.mail is 'gatebook:pii mask=nonsense'",
        "comment on column theirs.word is 'gatebook:pii'",
        "comment on column people.id is 'the number of a row'",
        "create temp table mine (id int)",
        "comment on column mine.id is 'gatebook:pii'",
    )
    catalog = await read(place.catalog())
    try:
        masks = catalog.now.comments.masks
        assert {name: mask.name for name, mask in masks.items()} == {
            "public.people.ssn": "partial",
            "public.people.mail": "full",
        }
        assert place.book.columns(catalog.classification) == {
            "public.people.ssn": ("pii", "partial"),
            "public.people.mail": ("pii", "full"),
        }
        stranger = place.owner.replace("owner", "stranger")
        assert place.book.told() == [
            ("people.mail", "added", "there is no such mask"),
            ("people.ssn", "added", ""),
            ("theirs.word", "ignored", f"could have been made by {stranger}"),
        ]
        assert place.book.changes[0].digests == (b"", catalog.classification)
        # The view shows the column; what is recorded of it names no origin in clear.
        names = catalog.now.view.classified
        assert {"public.people", "public.seen"} <= names and "public.theirs" not in names
    finally:
        await catalog.close()


async def test_who_else_could_have_made_it_decides(place: Place) -> None:
    await place.run("comment on column people.ssn is 'gatebook:pii'")
    stranger = place.owner.replace("owner", "stranger")
    catalog = await read(place.catalog())
    both = await read(place.catalog(classifiers=[place.owner, stranger]))
    try:
        assert catalog.now.comments.masks
        # Whatever the grant is good for: it can be made good for more.
        await place.run(f"grant {place.owner} to {stranger}")
        await looked(catalog)
        await looked(both)
        assert not catalog.now.comments.masks and both.now.comments.masks
        assert ("people.ssn", "ignored", f"could have been made by {stranger}") in (
            place.book.told()
        )
        await place.run(f"revoke {place.owner} from {stranger}")
        await looked(catalog)
        assert catalog.now.comments.masks
        await place.run(f"alter table people owner to {stranger}")
        await looked(catalog)
        assert not catalog.now.comments.masks
    finally:
        await catalog.close()
        await both.close()


async def test_a_comment_follows_its_column_and_goes_with_it(place: Place) -> None:
    await place.run("comment on column people.ssn is 'gatebook:pii'")
    catalog = await read(place.catalog())
    try:
        await place.run("alter table people rename column ssn to number")
        await looked(catalog)
        assert catalog.now.comments.masks.keys() == {"public.people.number"}
        # Within one process the audit copy forgets nothing: old statements still come in.
        assert place.book.columns(catalog.classification).keys() == {
            "public.people.ssn",
            "public.people.number",
        }
        await place.run("comment on column people.number is null")
        await looked(catalog)
        assert not catalog.now.comments.masks
        assert place.book.told() == [("people.number", "removed", "")]
        assert place.book.columns(catalog.classification).keys() == {
            "public.people.ssn",
            "public.people.number",
        }
    finally:
        await catalog.close()


async def test_partitions_views_and_materialized_views(place: Place) -> None:
    await place.run(
        "create materialized view kept as select id, mail as address from people",
        f"alter table kept owner to {place.owner}",
        "comment on column kept.address is 'gatebook:pii mask=email'",
        "comment on column log_1.note is 'gatebook:secret'",
        "comment on column seen.id is 'gatebook:pii'",
    )
    catalog = await read(place.catalog())
    try:
        now = catalog.now
        assert now.comments.masks.keys() == {
            "public.kept.address",
            "public.log_1.note",
            "public.seen.id",
        }
        assert now.knowledge is not None
        veil = catalog.veils.of(now.knowledge, now.comments, frozenset())
        assert veil is not None
        assert veil.plan("select note from log").columns == ("public.log.note",)
        assert veil.plan("select id from seen").columns == ("public.seen.id",)
        assert veil.plan("select id from people").action == "pass"
        # What is read through the parent is the partition's.
        by_name = {each.name: each.oid for each in now.resolve.snapshot.relations.values()}
        assert now.view.columns[by_name["log"], 2] == "public.log_1.note"
        assert now.view.columns[by_name["log"], 1] == "public.log.id"
    finally:
        await catalog.close()


async def test_nothing_is_used_before_it_is_in_the_book(place: Place) -> None:
    catalog = await read(place.catalog())
    try:
        before = catalog.now
        assert catalog.veils.of(catalog.knowledge, before.comments, frozenset()) is None
        place.book.reachable = False
        await place.run("comment on column people.ssn is 'gatebook:pii'")
        await looked(catalog)
        # Known to be out of date: nothing is shown to anybody who might not see it.
        assert catalog.now is before and catalog.knowledge is None
        veil = catalog.veils.of(catalog.knowledge, before.comments, frozenset())
        assert veil is not None and veil.plan("select ssn from people").action == "refuse"
        place.book.reachable = True
        await looked(catalog)
        assert catalog.knowledge is not None
        assert place.book.columns(catalog.classification) == {"public.people.ssn": ("pii", "full")}
    finally:
        await catalog.close()


async def test_what_another_session_waits_for_is_the_look_under_way(place: Place) -> None:
    catalog = await read(place.catalog())
    try:
        assert catalog.settling is None
        own = catalog.look(for_all=False)
        assert catalog.settling is None
        shared = catalog.look()
        assert catalog.settling is shared
        await asyncio.wait_for(asyncio.gather(own, shared), 30)
        assert catalog.settling is None
    finally:
        await catalog.close()


async def test_the_configuration_is_stronger_than_any_comment(place: Place) -> None:
    await place.run(
        "comment on column people.ssn is 'gatebook:public mask=partial'",
        "comment on column seen.tag is 'gatebook:public mask=partial'",
    )
    configured = {"public.people.ssn": {"class": "pii", "mask": "full"}}
    catalog = await read(place.catalog(classified=configured))
    try:
        now = catalog.now
        assert now.comments.masks.keys() == {"public.seen.tag"}
        veil = catalog.veils.of(now.knowledge, now.comments, frozenset({"public.seen.tag"}))
        assert veil is not None
        for text in ("select ssn from people", "select tag from seen"):
            plan = veil.plan(text)
            assert plan.action == "pump", text
            assert {veil.masks[name].name for name in plan.columns} == {"full"}
        document = place.book.columns(catalog.classification)
        assert document["public.people.ssn"] == ("pii", "full")
    finally:
        await catalog.close()


async def test_a_record_has_the_same_digest_at_every_gateway(place: Place) -> None:
    await place.run("comment on column people.ssn is 'gatebook:pii'")
    one, two = await read(place.catalog()), await read(place.catalog())
    try:
        assert one.classification == two.classification != b""
        assert len(place.book.records) == 1
        assert codec.encode_classification(
            Archive().decode_classification(place.book.records[one.classification])
        ) == (one.classification, place.book.records[one.classification])
    finally:
        await one.close()
        await two.close()


async def test_who_creates_functions_is_not_run_by_who_reads_the_catalog(place: Place) -> None:
    await place.run(
        "create table caught (who text)",
        "grant insert on caught to public",
        # It fits the call better than PostgreSQL's own, and says that nothing ever changes.
        "create function public.hashtextextended(said text, seed int) returns bigint"
        " language plpgsql as $$ begin"
        " insert into public.caught values (current_user); return 1; end $$",
        "create function public.same(a oid, b text) returns text"
        " language plpgsql as $$ begin return public.hashtextextended(b, 1)::text; end $$",
        "create operator public.|| (leftarg = oid, rightarg = text, function = public.same)",
    )
    catalog = await read(place.catalog())
    try:
        await place.run("comment on column people.ssn is 'gatebook:pii'")
        await looked(catalog)
        assert list(catalog.now.comments.masks) == ["public.people.ssn"]
        assert await place.admin.fetch("select who from caught") == []
    finally:
        await catalog.close()
