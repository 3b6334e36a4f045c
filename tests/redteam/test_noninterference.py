"""Nothing that a person receives depends on what they may not see.

The same statements go to databases that differ in classified values alone; every byte of the
answers must be the same. GATEBOOK_GENERATED sets how many statements are made by chance (300),
GATEBOOK_SEED what begins them.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final

import psycopg
import pytest
import yaml

from infra.devstack.plan import Options
from tests.conftest import SMALL, PostgresServer, running
from tests.e2e.stack import Stack, until
from tests.gateway.protocols.postgres import messages as pg
from tests.integration.wire_client import WireClient
from tests.redteam.conftest import POLICIES
from tests.redteam.dialogues import DIALOGUES
from tests.redteam.generated import Generator
from tests.redteam.interference import scripts
from tests.redteam.twins import CLASSIFIED, MASKED, SCHEMA, TWINS, VIRTUAL, data
from tests.redteam.watching import (
    WAYS,
    Script,
    Watcher,
    comparable,
    described,
    extended,
    failed,
    simple,
)

pytestmark = pytest.mark.integration

_GENERATED: Final = int(os.environ.get("GATEBOOK_GENERATED", "300"))
_SEED: Final = int(os.environ.get("GATEBOOK_SEED", "1"))
_VIEWS: Final = max(60, _GENERATED // 20)
_EVERYDAY: Final = Path(__file__).with_name("everyday.txt")
_EVERY: Final = (*TWINS, MASKED)
_PART: Final = re.compile(rb"(?=D\0)|(?=C[A-Z]{2})")


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, postgres: PostgresServer) -> Iterator[Stack]:
    """A gateway before the twins; alice may see nothing clear, bob everything."""
    root, folder = tmp_path_factory.mktemp("twins"), tmp_path_factory.mktemp("twins-policies")
    (folder / "policies").mkdir()
    policies = POLICIES.replace('== Target::"shop"', "").replace('in Target::"shop"', "")
    (folder / "policies" / "all.cedar").write_text(policies)
    (folder / "password").write_text(postgres.password)
    (folder / "token").write_text("k" * 40)
    _make(postgres)
    targets = [
        {
            "name": twin, "host": postgres.host, "port": postgres.port, "database": twin,
            "user": postgres.user, "password": {"file": str(folder / "password")},
            "sslmode": "disable", "classified": CLASSIFIED,
            "token_key": {"file": str(folder / "token")},
        }
        for twin in _EVERY
    ]  # fmt: skip
    config = folder / "over.yaml"
    gateway = {"policies": str(folder / "policies")}
    config.write_text(yaml.safe_dump({"gateway": gateway, "targets": targets}))
    kinds = ("kafka", "postgres", "issuer", "gateway")
    for _ in running(root, Options(gateways=1, only=kinds, size=SMALL, config=config)):
        stack = Stack(root)
        for twin in _EVERY:
            with stack.connect("alice", dbname=twin) as session:
                until(lambda session=session: _known(session))
        yield stack


# What the planner knows of one database before it knows it of another makes other plans, and other
# orders of rows: which of them were looked at first, chance says.
_UNWATCHED: Final = """
DO $$ DECLARE it record; BEGIN
FOR it IN SELECT oid::regclass AS name, relkind FROM pg_class
 WHERE relkind IN ('r', 'm') AND relnamespace = 'public'::regnamespace LOOP
    EXECUTE format('ALTER %s %s SET (autovacuum_enabled = off)',
        CASE it.relkind WHEN 'm' THEN 'MATERIALIZED VIEW' ELSE 'TABLE' END, it.name);
END LOOP; END $$
"""


def _session(
    postgres: PostgresServer, database: str, user: str = ""
) -> psycopg.Connection[tuple[object, ...]]:
    more = {"user": user, "password": postgres.password} if user else {}
    dsn = psycopg.conninfo.make_conninfo(postgres.dsn, dbname=database, **more)
    return psycopg.connect(dsn, autocommit=True)


@pytest.fixture
def tidy(postgres: PostgresServer, stack: Stack) -> None:
    """Tables without what was rolled back: who sees everything writes other things to each twin,
    and plans, and with them orders of rows, are by how large tables are.
    """
    for twin in TWINS:
        with _session(postgres, twin) as admin:
            tables = admin.execute(
                "SELECT oid::regclass::text FROM pg_class"
                " WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
            ).fetchall()
            for (table,) in tables:
                admin.execute(f"VACUUM FULL {table}")


def _make(postgres: PostgresServer) -> None:
    session = partial(_session, postgres)
    with session("postgres") as admin:
        admin.execute(f"create database {TWINS[0]} owner {postgres.user}")
        with session(TWINS[0], postgres.user) as owner:
            owner.execute(SCHEMA)
            if owner.info.server_version >= 180000:
                owner.execute(VIRTUAL)
            _make_views(owner)
            owner.execute(_UNWATCHED)
        # Everything has the same OID in all of them.
        for twin in _EVERY[1:]:
            admin.execute(f"create database {twin} template {TWINS[0]} owner {postgres.user}")
    for twin in _EVERY:
        with session(twin, postgres.user) as owner:
            owner.execute(data(twin))


def _make_views(owner: psycopg.Connection[tuple[object, ...]]) -> None:
    generator, made = Generator(_SEED), 0
    while made < _VIEWS:
        with contextlib.suppress(psycopg.Error):
            owner.execute(f"create view made_{made} as {generator.view()}")
            made += 1


def _known(session: psycopg.Connection[tuple[object, ...]]) -> bool:
    try:
        return session.execute("select id from plain limit 0") is not None
    except psycopg.Error:
        return False


@pytest.fixture
def alice(stack: Stack) -> Iterator[Watcher]:
    watcher = Watcher(stack, "alice")
    yield watcher
    watcher.close()


@pytest.fixture
def bob(stack: Stack) -> Iterator[Watcher]:
    watcher = Watcher(stack, "bob")
    yield watcher
    watcher.close()


def test_no_place_of_the_language_tells_anything(alice: Watcher, bob: Watcher) -> None:
    every = scripts()
    assert alice.differences(every, WAYS) == []
    # The attacks are real, and so is the comparison.
    told = {found.script for found in bob.differences(every, (simple,))}
    assert len(told) > len(every) // 2


@pytest.mark.usefixtures("tidy")
def test_statements_made_by_chance_tell_nothing(alice: Watcher, bob: Watcher) -> None:
    generator = Generator(_SEED)
    made = [generator.script() for _ in range(_GENERATED)]
    assert alice.differences(made, WAYS[:2] if _GENERATED > 1000 else WAYS[:1]) == []
    told = {found.script for found in bob.differences(made[:200], (simple,))}
    assert len(told) > len(made[:200]) // 6


def test_tokens_tell_which_values_are_equal_and_nothing_else(alice: Watcher, bob: Watcher) -> None:
    read: list[Script] = [
        ("select id, name, ref, open from holders order by id",),
        ("select lpad(number::text, 10, '0'), id from holders order by id",),
        ("copy (select id, name, ref from holders order by id) to stdout",),
        ("select a.id, b.id from holders a join holders b on a.name = b.name order by 1, 2",),
        ("select count(*), array_agg(id order by id), name from holders group by name order by 2",),
        ("select min(id), ref, name from holders group by name, ref order by 1",),
        ("select count(distinct number), count(distinct ref) from holders",),
        ("select id, name = lag(name) over (order by id) from holders order by id",),
        ("select id, length(name), ref is null, number > 0 from holders order by id",),
        ("select id from holders where name = 'kestrel 1' or number = 1 order by id",),
        ("select id from holders where ref = '00000000-0000-0000-0000-000000000001'",),
        ("select id, name ~ '^[0-9a-f]*$', substr(name, 17) from holders order by id",),
        ("declare c cursor for select name, id from holders order by id", "fetch all from c"),
        ("prepare q as select name from holders order by id", "execute q"),
    ]
    in_text = (simple, described)
    assert alice.differences(read, in_text, told=_alike) == []
    assert len(bob.differences(read, (simple,), told=_alike)) > len(read) // 3


_TOKEN: Final = re.compile(rb"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{16}|[0-9]{10}")


def _alike(answer: bytes) -> bytes:
    """With each token by its place among them: it tells which values are equal."""
    places: dict[bytes, int] = {}

    def place(found: re.Match[bytes]) -> bytes:
        return b"token %d" % places.setdefault(found.group(), len(places))

    return _TOKEN.sub(place, answer)


@pytest.mark.usefixtures("tidy")
def test_views_made_by_chance_tell_nothing(alice: Watcher, bob: Watcher) -> None:
    # In the order of what is shown: in which order they are fetched, the planner says.
    read = [
        (f"select {what}",)
        for view in (f"made_{number}" for number in range(_VIEWS))
        for what in (
            f"v::text from {view} v order by 1",
            f"count(*) from {view}",
            f"count(*) from (select * from {view} offset 0) x",
        )
    ]
    assert alice.differences(read, (simple,)) == []
    assert len(bob.differences(read, (simple,))) > len(read) // 6


@pytest.mark.parametrize("name", sorted(DIALOGUES))
def test_no_order_of_messages_tells_anything(stack: Stack, name: str) -> None:
    def heard(user: str, twin: str) -> bytes:
        with WireClient.signed_in(stack, user, database=twin) as client:
            received = []
            with contextlib.suppress(EOFError, ConnectionError):
                for part in DIALOGUES[name]:
                    received += client.ask(part, times=part.count(pg.message("S")) or 1)
            return comparable(received)

    first, same, other = (heard("alice", twin) for twin in TWINS)
    assert first == same == other
    assert heard("bob", TWINS[0]) != heard("bob", TWINS[2])


def test_a_client_in_another_encoding_learns_nothing_of_letters(stack: Stack) -> None:
    watcher = Watcher(stack, "alice", client_encoding="LATIN1")
    read: list[Script] = [
        ("select id, label, code, email from people order by id",),
        ("set client_encoding to utf8", "select label from people order by id"),
        ("declare c cursor for select label from people order by id", "fetch all from c"),
        ("prepare x as select label from people order by id", "execute x"),
        ("set client_encoding to utf8", "prepare x as select label from people",
         "reset client_encoding", "execute x"),
        ("copy people to stdout",),
    ]  # fmt: skip
    assert watcher.differences(read, WAYS) == []
    (masked,) = watcher.answers(TWINS[2], [(read[0], simple)])
    assert not failed(masked)
    assert b"***" in masked
    watcher.close()


def _rows(script: Script, answer: bytes) -> list[bytes]:
    """What an answer holds from its first row on; in any order where the script asks for none."""
    parts = _PART.split(b"".join(answer.partition(b"D\0")[1:]))
    whole = " ".join(script).lower()
    ordered = "order by" in whole and "pg_" not in whole and "information_schema" not in whole
    return parts if ordered else sorted(parts)


def test_everyday_statements_answer_as_if_values_were_their_masks(
    alice: Watcher, bob: Watcher
) -> None:
    lines = _EVERYDAY.read_text().splitlines()
    every = [tuple(part.strip() for part in line.split(";;")) for line in lines]
    refused, wrong = [], []
    for way in (simple, extended):
        work = [(script, way) for script in every]
        answers = alice.answers(TWINS[0], work)
        for script, said, meant in zip(every, answers, bob.answers(MASKED, work), strict=True):
            assert not failed(meant), (script, meant)
            if failed(said):
                refused.append(script)
            elif _rows(script, said) != _rows(script, meant):
                wrong.append((script, said, meant))
    assert wrong == []
    assert len(refused) <= len(every) * 2 // 50, refused
