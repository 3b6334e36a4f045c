"""Talks to a machine: what each side says, and what was decided and recorded.

Ids count up from 1; times stand still unless a test moves them.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable, Sequence

from gateway.identity.principal import Principal
from gateway.large import LARGE, Reading
from gateway.machine import (
    Analyse,
    Analysed,
    Ask,
    Authenticate,
    Authenticated,
    CatalogView,
    Closed,
    Command,
    Decided,
    Decision,
    Fact,
    Input,
    NotDurable,
    Outcome,
    Receipt,
    Received,
    Record,
    Recorded,
    Request,
    Rows,
    Send,
    Side,
    TargetConnected,
    TlsStarted,
    Verdict,
)
from gateway.masking.veil import Veil
from gateway.policy import sql
from gateway.policy.facts import UNKNOWN
from gateway.policy.sql import analyse
from gateway.protocols.postgres import aside
from gateway.protocols.postgres.machine import PostgresMachine, Surroundings
from gateway.protocols.postgres.startup import Door
from gateway.protocols.postgres.upstream import Credential
from tests.gateway.protocols.postgres import messages as pg

CLIENT, TARGET = Side.CLIENT, Side.TARGET
RECEIPT = Receipt()
ALLOW = Decision(Verdict.ALLOW, ("dba",), "")
DENY = Decision(Verdict.DENY, ("support",), "support changes nothing", "Ask a DBA.")
ALICE = Principal("https://issuer", "a1", "alice", ("support",), None, "person", 2_000_000_000.0)
NO_CATALOG = CatalogView({}, frozenset(), frozenset())
GATE = Credential("shop_db", "gate", "hunter2", encrypted=False)
KEY = (4242, b"\x01\x02\x03\x04")


def ident(number: int) -> bytes:
    """The number-th id a machine asked for."""
    return number.to_bytes(16, "big")


def token(number: int) -> bytes:
    """What poison carries in place of that statement."""
    return b"gatebook_refused_" + ident(number).hex().encode()


class Dialogue:
    """One machine on a listener with TLS, with one target `shop` that wants no password."""

    def __init__(
        self,
        door: Door | None = None,
        catalog: CatalogView = NO_CATALOG,
        credential: Callable[[str], Credential] = lambda name: GATE,
        chunk_bytes: int = 256 * 1024,
        prepared_max_bytes: int = 64 * 1024 * 1024,
        *,
        veil: Callable[[], Veil | None] = lambda: None,
        large: int = LARGE,
    ) -> None:
        ids = itertools.count(1)
        self.reads = True
        self.facts = UNKNOWN
        self.veil = veil
        self.now = 1_000
        self.catalog = catalog
        self.machine = PostgresMachine(
            Surroundings(
                door=door or Door(tls=True, cleartext=True, targets=frozenset({"shop"})),
                credential=credential,
                catalog=lambda name: self.catalog,
                analyse=analyse,
                new_id=lambda: ident(next(ids)),
                chunk_bytes=chunk_bytes,
                prepared_max_bytes=prepared_max_bytes,
                cancel_secret=KEY[1],
                nonce="rOprNGfwEbeRWgbNEkqO",
                large=large,
                resolve=lambda _, statement, *given: given[-1].get(statement.text, self.facts),
                veil=lambda: self.veil(),  # noqa: PLW0108 (a test may lift it)
            )
        )

    def handle(self, event: Input) -> list[Command]:
        """Its commands. Large texts are read at once, unless `reads` is off."""
        commands = self.machine.handle(event, self.now)
        for command in list(commands) if self.reads else ():
            if isinstance(command, Analyse):
                commands.remove(command)
                commands += self.handle(self.reading(command))
        return commands

    def reading(self, analyse: Command, why: str = "", sqlstate: str = "") -> Analysed:
        """What is found of a large text, or why nothing is."""
        assert isinstance(analyse, Analyse)
        veil = self.veil()
        found = () if why else aside.find(analyse.wanted, lambda *_: self.facts, veil, None)
        read = Reading(analyse.wanted, tuple(found), self.catalog, veil, why, sqlstate)
        return Analysed(analyse.ticket, read)

    def client(self, *data: bytes) -> list[Command]:
        return self.handle(Received(CLIENT, b"".join(data)))

    def target(self, *data: bytes) -> list[Command]:
        return self.handle(Received(TARGET, b"".join(data)))

    def closed(self, side: Side) -> list[Command]:
        return self.handle(Closed(side))

    def decided(self, ticket: int, *decisions: Decision) -> list[Command]:
        return self.handle(Decided(ticket, decisions or (ALLOW,), RECEIPT))

    def recorded(self, ticket: int) -> list[Command]:
        return self.handle(Recorded(ticket, RECEIPT))

    def not_durable(self, ticket: int) -> list[Command]:
        return self.handle(NotDurable(ticket))

    def allow(self, commands: list[Command]) -> list[Command]:
        """Allow everything these commands ask."""
        return [
            answer
            for command in commands
            if isinstance(command, Ask)
            for answer in self.decided(command.ticket, *[ALLOW] * len(command.requests))
        ]

    def record(self, commands: list[Command]) -> list[Command]:
        """Make durable everything these commands record, and what that leads to."""
        pending, said = list(commands), []
        while pending:
            command = pending.pop(0)
            if isinstance(command, Record) and command.ticket:
                more = self.recorded(command.ticket)
                said += more
                pending += more
        return said


def signed_in(
    strings: str = "on", startup: dict[str, str] | None = None, **options: object
) -> Dialogue:
    """A session of alice's, idle; the next statement has id 2, the next ticket is 1000.

    `strings` is the target's standard_conforming_strings; `startup` more of the client's packet.
    """
    talk = Dialogue(**options)  # type: ignore[arg-type]
    talk.client(pg.startup(**{"user": "alice", "database": "shop", **(startup or {})}))
    assert isinstance(talk.client(pg.password("token"))[0], Authenticate)
    talk.handle(Authenticated(ALICE))
    talk.decided(1)
    talk.handle(TargetConnected())
    hello = (
        pg.AUTH_OK
        + pg.status("client_encoding", "UTF8")
        + pg.status("standard_conforming_strings", strings)
        + pg.key(7, b"\x09\x09\x09\x09")
        + pg.ready()
    )
    assert [type(command) for command in talk.target(hello)] == [Record]
    assert pg.kinds(sent(talk.recorded(3), CLIENT)) == "RSSKZ"
    return talk


def over_tls() -> Dialogue:
    talk = Dialogue(Door(tls=True, cleartext=False, targets=frozenset({"shop"})))
    talk.client(pg.SSL_REQUEST)
    talk.handle(TlsStarted("TLSv1.3"))
    return talk


def sent(commands: Sequence[Command], side: Side) -> bytes:
    """All bytes these commands send to a side."""
    return b"".join(c.data for c in commands if isinstance(c, Send) and c.side is side)


def facts(commands: Sequence[Command]) -> list[Fact]:
    return [fact for c in commands if isinstance(c, Record) for fact in c.facts]


def outcomes(commands: Sequence[Command]) -> list[tuple[int, str, str]]:
    """(statement number, outcome, error code)."""
    return [
        (int.from_bytes(fact.statement_id, "big"), fact.outcome, fact.error_code)
        for fact in facts(commands)
        if isinstance(fact, Outcome)
    ]


def rows(commands: Sequence[Command]) -> list[tuple[int, str, bytes]]:
    """(statement number, encoding, data)."""
    return [
        (int.from_bytes(fact.statement_id, "big"), fact.encoding, fact.data)
        for fact in facts(commands)
        if isinstance(fact, Rows)
    ]


def requests(commands: Sequence[Command]) -> list[Request]:
    return [request for c in commands if isinstance(c, Ask) for request in c.requests]


def statements(commands: Sequence[Command]) -> list[str]:
    """The texts these commands ask about."""
    return [request.statement for request in requests(commands)]


def asked(ticket: int, number: int, text: str, action: str = "execute", **more: object) -> Ask:
    """The Ask for one statement without parameters."""
    (statement,) = analyse(text)
    return Ask(ticket, (request(number, statement, action, **more),))


def request(
    number: int, statement: sql.Statement, action: str = "execute", **more: object
) -> Request:
    return Request(
        statement_id=ident(number),
        action=action,
        kind=statement.kind,
        kinds=statement.kinds,
        relations=statement.relations,
        statement=statement.recorded,
        refusal=statement.error,
        **more,  # type: ignore[arg-type]
    )


def outcome(
    number: int,
    tag: str = "",
    *,
    result: str = "completed",
    code: str = "",
    rows: int = 0,
    byte_count: int = 0,
    error: dict[str, str] | None = None,
    notices: tuple[dict[str, str], ...] = (),
    duration_ns: int = 0,
) -> Outcome:
    return Outcome(
        ident(number), result, tag, code, rows, byte_count, duration_ns, error or {}, notices
    )


def column(name: str, table: int = 0, attnum: int = 0, source: str = "") -> tuple[object, ...]:
    """How Rows describes a text column."""
    return (name, table, attnum, 25, 0, source)


def big_message(kind: str, size: int) -> bytes:
    """A message of which `size` bytes of body are to come."""
    return kind.encode() + struct.pack(">I", size + 4)
