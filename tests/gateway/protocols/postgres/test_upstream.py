"""Signing in to the target, which may be an impostor."""

from __future__ import annotations

import struct

import pytest

from gateway.machine import Close, Command, Outcome, Send, TargetConnected
from gateway.protocols.postgres.scram import Client, ScramError
from gateway.protocols.postgres.upstream import Credential, TargetRefused, Upstream, with_person
from tests.gateway.protocols.postgres import messages as pg
from tests.gateway.protocols.postgres.dialogue import CLIENT, TARGET, facts, outcomes, sent
from tests.gateway.protocols.postgres.scram_server import ScramServer
from tests.gateway.protocols.postgres.test_startup import connecting, failed

PASSWORD = "p@sswörd"
IN_CLEAR = Credential("shop_db", "gate", PASSWORD, encrypted=False)
IN_TLS = Credential("shop_db", "gate", PASSWORD, encrypted=True)
DONE = pg.AUTH_OK + pg.key(7, b"secr") + pg.ready()
SASL = pg.auth_sasl("SCRAM-SHA-256-PLUS", "SCRAM-SHA-256")


def upstream(credential: Credential = IN_CLEAR) -> Upstream:
    made = Upstream(credential, {"application_name": "psql"}, "clientnonce")
    made.start()
    return made


def scram(server: ScramServer, client: Upstream) -> bytes:
    """The exchange up to the server's last word."""
    first = client.feed(SASL)
    assert first[:1] == b"p" and first[5:].startswith(b"SCRAM-SHA-256\0")
    final = client.feed(pg.auth_sasl_continue(server.first(first[5 + 14 + 4 :])))
    assert final[:1] == b"p"
    return server.final(final[5:])


def test_the_gateway_signs_in_as_itself() -> None:
    parameters = {
        "application_name": "psql",
        "user": "alice",
        "database": "shop",
        "replication": "off",
    }
    assert Upstream(IN_CLEAR, parameters, "n").start() == pg.startup(
        application_name="psql", user="gate", database="shop_db"
    )


def test_scram() -> None:
    client = upstream()
    last = scram(ScramServer(PASSWORD), client)
    assert client.feed(pg.auth_sasl_final(last) + DONE) == b""
    assert client.ready and client.key == (7, b"secr")


def test_the_vector_of_rfc_7677() -> None:
    """With the RFC's user name, since PostgreSQL's empty one changes the signature."""
    client = Client("pencil", "rOprNGfwEbeRWgbNEkqO")
    client._first_bare = "n=user,r=rOprNGfwEbeRWgbNEkqO"
    assert client.final(
        b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
    ) == (
        b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
        b"p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
    )
    client.verify(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=")


def test_md5() -> None:
    answer = upstream().feed(pg.auth_md5(b"salt"))
    # concat('md5', md5(concat(md5(concat('p@sswörd', 'gate')), 'salt')))
    assert answer == pg.password("md588075f2b594feda7bc0f51c4a7040eea")


def test_a_password_goes_in_clear_only_where_the_socket_is_encrypted() -> None:
    assert upstream(IN_TLS).feed(pg.AUTH_CLEARTEXT) == pg.password(PASSWORD)
    with pytest.raises(TargetRefused):
        upstream(IN_CLEAR).feed(pg.AUTH_CLEARTEXT)


def test_a_server_may_trust() -> None:
    client = upstream()
    assert client.feed(DONE) == b"" and client.ready


# --- servers that lie ---


def test_a_server_that_skips_its_own_proof_is_no_server_of_ours() -> None:
    client = upstream()
    scram(ScramServer(PASSWORD), client)
    with pytest.raises(TargetRefused, match="ready before it authenticated"):
        client.feed(DONE)


def test_a_server_that_stops_in_the_middle_of_the_exchange_is_none_either() -> None:
    client = upstream()
    client.feed(SASL)
    with pytest.raises(TargetRefused):
        client.feed(DONE)


def test_a_server_that_is_ready_before_it_authenticated() -> None:
    with pytest.raises(TargetRefused, match="ready before it authenticated"):
        upstream().feed(pg.ready())


def test_a_server_with_another_signature() -> None:
    client = upstream()
    scram(ScramServer(PASSWORD), client)
    with pytest.raises(TargetRefused, match="does not know the password"):
        client.feed(pg.auth_sasl_final(b"v=" + b"A" * 43 + b"="))


def test_a_signature_before_the_exchange_proves_nothing() -> None:
    with pytest.raises(TargetRefused):
        upstream().feed(pg.auth_sasl_final(b"v="))


@pytest.mark.parametrize(
    ("first", "why"),
    [
        (b"r=other,s=YWJj,i=4096", "does not extend ours"),
        (b"r=clientnonce,s=YWJj,i=4096", "does not extend ours"),
        (b"r=clientnonceX,s=YWJj,i=1", "iteration"),
        (b"r=clientnonceX,s=YWJj,i=1000001", "iteration"),
        (b"r=clientnonceX,s=YWJj,i=99999999999", "iteration"),
        (b"r=clientnonceX,s=YWJj,i=-5", "iteration"),
        (b"r=clientnonceX,s=YWJj", "malformed"),
        (b"r=clientnonceX,s=!!!,i=abc", "malformed"),
        (b"r=clientnonceX,s=Y,i=4096", "malformed"),
        (b"", "malformed"),
        (b"\xff", "malformed"),
        (b"e=other-error", "malformed"),
    ],
)
def test_a_first_message_that_is_wrong(first: bytes, why: str) -> None:
    client = upstream()
    client.feed(SASL)
    with pytest.raises(TargetRefused, match=why):
        client.feed(pg.auth_sasl_continue(first))


@pytest.mark.parametrize("final", [b"", b"v", b"x=abc", b"v=%%%", b"\xff", b"v=", b"e=bad"])
def test_a_last_message_that_is_wrong(final: bytes) -> None:
    client = Client(PASSWORD, "n")
    client.final(b"r=nX,s=YWJj,i=4096")
    with pytest.raises(ScramError):
        client.verify(final)


@pytest.mark.parametrize(
    "message",
    [
        pg.auth_sasl("SCRAM-SHA-256-PLUS"),
        pg.auth_sasl("OAUTHBEARER"),
        pg.message("R", struct.pack(">I", 7)),
        pg.message("R", struct.pack(">I", 99)),
        pg.message("R"),
        pg.message("R", struct.pack(">I", 10) + b"unterminated"),
        pg.message("R", struct.pack(">I", 5) + b"ab"),
        pg.row(b"1"),
        b"X\0\0\0\4",
        b"R\0\0\0\3",
        b"R\xff\xff\xff\xff",
        b"HTTP/1.1 400 Bad Request",
        pg.message("K", b"ab"),
        pg.message("S", b"name"),
    ],
)
def test_messages_that_do_not_belong(message: bytes) -> None:
    with pytest.raises(TargetRefused):
        upstream().feed(message)


def test_split_anywhere_the_exchange_is_the_same() -> None:
    server, client = ScramServer(PASSWORD), upstream()

    def feed(data: bytes) -> bytes:
        return b"".join(client.feed(bytes([byte])) for byte in data)

    first = feed(SASL)
    final = feed(pg.auth_sasl_continue(server.first(first[5 + 14 + 4 :])))
    feed(pg.auth_sasl_final(server.final(final[5:])))
    feed(pg.notice("hello") + pg.status("server_version", "17") + DONE)
    assert client.ready and client.statuses == {"server_version": "17"}


# --- what the client learns of it ---


def refusal(message: bytes) -> list[Command]:
    """What comes of a target's answer to the start-up packet."""
    talk = connecting()
    talk.handle(TargetConnected())
    commands = talk.target(message)
    return [*commands, *talk.record(commands)]


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("28P01", "08004"),
        ("28000", "08004"),
        ("42501", "08004"),
        ("XX000", "08004"),
        ("53300", "53300"),
        ("57P03", "57P03"),
        ("3D000", "3D000"),
    ],
)
def test_a_refused_sign_in_says_nothing_of_our_role(code: str, told: str) -> None:
    secret = 'password authentication failed for user "gate"'
    commands = refusal(pg.error(code, secret, "FATAL"))
    assert failed(commands) == (told, 'target "shop" refused the gateway')
    assert outcomes(commands) == [(1, "failed", told)]
    assert b'gate"' not in sent(commands, CLIENT)


@pytest.mark.parametrize("code", ["42704", "22023", "42601"])
def test_what_the_target_says_of_a_start_up_setting_is_passed_on(code: str) -> None:
    words = pg.error(code, 'unrecognized configuration parameter "x"', "FATAL")
    commands = refusal(pg.AUTH_OK + words)
    assert outcomes(commands) == [(1, "failed", code)]
    assert sent(commands, CLIENT) == words
    assert commands[-1] == Close(drain=True)


@pytest.mark.parametrize(
    "answer",
    [
        pg.error("42704", "who knows what an impostor says", "FATAL"),
        pg.AUTH_OK + pg.error("42501", 'permission denied for role "gate"', "FATAL"),
        pg.AUTH_OK + pg.error("XX000", "internal", "FATAL"),
    ],
)
def test_nothing_else_is(answer: bytes) -> None:
    commands = refusal(answer)
    assert failed(commands) == ("08004", 'target "shop" refused the gateway')


def test_what_the_target_notices_at_the_start_is_recorded_and_passed_on() -> None:
    told = pg.notice("identifier will be truncated", "42622") + pg.notice("hello", "00000")
    talk = connecting()
    talk.handle(TargetConnected())
    commands = talk.target(
        pg.notice("who knows who says so", "00000")
        + pg.AUTH_OK
        + told
        + pg.notice("the password of gate expires", "01000")
        + pg.key(4711, b"abcd")
        + pg.message("Z", b"I")
    )
    [outcome] = [fact for fact in facts(commands) if isinstance(fact, Outcome)]
    assert [notice["M"] for notice in outcome.notices] == ["identifier will be truncated", "hello"]
    assert sent(commands, CLIENT) == b""
    welcome = sent(talk.record(commands), CLIENT)
    assert welcome.startswith(pg.AUTH_OK + told)
    assert b"gate expires" not in welcome and b"who" not in welcome


def test_notices_at_the_start_have_a_bound() -> None:
    client = upstream()
    client.feed(pg.AUTH_OK)
    for _ in range(300):
        client.feed(pg.notice("n" * 50_000, "00000"))
    assert len(client.notices) == 20


def test_an_impostor_gets_no_password() -> None:
    commands = refusal(pg.AUTH_CLEARTEXT)
    assert failed(commands)[0] == "08004"
    assert sent(commands, TARGET) == b""


def test_a_target_that_closes_in_the_middle_is_told() -> None:
    talk = connecting()
    assert isinstance(talk.handle(TargetConnected())[0], Send)
    commands = talk.closed(TARGET)
    assert outcomes(commands) == [(1, "failed", "08001")]
    assert failed(talk.record(commands))[0] == "08001"


@pytest.mark.parametrize(
    ("person", "settings"),
    [
        ("setting", {"gatebook.principal": "alice", "gatebook.session": "s-1"}),
        ("application_name", {"application_name": "psql (alice s-1)"}),
        ("none", {}),
    ],
)
def test_the_target_learns_whose_session_it_is(person: str, settings: dict[str, str]) -> None:
    theirs = {"application_name": "psql", "GATEBOOK.Principal": "mallory"}
    expected = {"application_name": "psql", **settings}
    assert with_person(theirs, person, "alice", "s-1") == expected
