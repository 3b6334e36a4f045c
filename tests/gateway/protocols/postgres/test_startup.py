"""From the first byte to a permitted connection."""

from __future__ import annotations

import struct

import pytest

from gateway.machine import (
    Abort,
    Ask,
    Authenticate,
    Authenticated,
    CancelStatement,
    Close,
    Command,
    ConnectTarget,
    Ended,
    Expired,
    Record,
    Refused,
    Request,
    Send,
    Shutdown,
    StartTls,
    TargetConnected,
    TargetUnreachable,
    TlsStarted,
    Withdrawn,
)
from gateway.protocols.postgres.startup import MAX_CREDENTIAL, Door
from gateway.protocols.postgres.upstream import Credential
from tests.gateway.protocols.postgres import messages as pg
from tests.gateway.protocols.postgres.dialogue import (
    ALICE,
    CLIENT,
    DENY,
    KEY,
    TARGET,
    Dialogue,
    facts,
    ident,
    outcome,
    outcomes,
    over_tls,
    sent,
)

SHOP = frozenset({"shop"})
HELLO = pg.startup(user="alice", database="shop", application_name="psql")
ASK_PASSWORD = Send(CLIENT, pg.AUTH_CLEARTEXT)


def failed(commands: list[Command]) -> tuple[str, str]:
    """(SQLSTATE, message) of the FATAL that ends a connection here."""
    assert isinstance(commands[-1], Close)
    said = pg.fields(sent(commands, CLIENT))
    assert said["S"] == said["V"] == "FATAL"
    return said["C"], said["M"]


def verifying(**options: object) -> Dialogue:
    """Waits for the authenticator."""
    talk = Dialogue(**options)  # type: ignore[arg-type]
    talk.client(HELLO, pg.password("token"))
    return talk


def deciding(**options: object) -> Dialogue:
    """Waits for the decision on `connect`, whose statement has id 1."""
    talk = verifying(**options)
    talk.handle(Authenticated(ALICE))
    return talk


# --- encryption ---


def test_tls_begins_after_the_answer_and_then_the_start_up_packet_comes() -> None:
    talk = Dialogue(Door(tls=True, cleartext=False, targets=SHOP))
    assert talk.client(pg.SSL_REQUEST) == [Send(CLIENT, b"S"), StartTls()]
    assert talk.handle(TlsStarted("TLSv1.3")) == []
    assert talk.client(HELLO) == [ASK_PASSWORD]


def test_without_a_certificate_tls_is_declined() -> None:
    talk = Dialogue(Door(tls=False, cleartext=True, targets=SHOP))
    assert talk.client(pg.SSL_REQUEST) == [Send(CLIENT, b"N")]
    assert talk.client(HELLO) == [ASK_PASSWORD]


def test_gss_encryption_is_declined_once_and_tls_may_follow() -> None:
    talk = Dialogue()
    assert talk.client(pg.GSSENC_REQUEST) == [Send(CLIENT, b"N")]
    assert talk.client(pg.SSL_REQUEST) == [Send(CLIENT, b"S"), StartTls()]


@pytest.mark.parametrize("twice", [pg.GSSENC_REQUEST, pg.SSL_REQUEST])
def test_encryption_is_not_negotiated_in_circles(twice: bytes) -> None:
    talk = over_tls() if twice == pg.SSL_REQUEST else Dialogue()
    first = talk.client(twice)
    again = first if twice == pg.SSL_REQUEST else talk.client(twice)
    assert failed(again)[0] == "08P01"


def test_bytes_in_clear_after_an_ssl_request_are_not_the_clients() -> None:
    """Or an attacker in the middle could speak before the handshake (CVE-2021-23214)."""
    assert failed(Dialogue().client(pg.SSL_REQUEST, HELLO))[0] == "08P01"


def test_nor_are_those_that_come_a_moment_later() -> None:
    talk = Dialogue()
    talk.client(pg.SSL_REQUEST)
    assert failed(talk.client(HELLO))[0] == "08P01"
    assert talk.handle(TlsStarted("TLSv1.3")) == []
    assert talk.client(pg.password("token")) == []


def test_a_listener_with_tls_takes_no_token_in_clear() -> None:
    talk = Dialogue(Door(tls=True, cleartext=False, targets=SHOP))
    code, text = failed(talk.client(HELLO))
    assert code == "28000" and "TLS" in text


# --- the start-up packet ---


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        struct.pack(">II", 4, 196608),
        struct.pack(">II", 7, 196608),
        struct.pack(">II", 10_001, 196608),
        struct.pack(">II", 0xFFFFFFFF, 196608),
        struct.pack(">II", 12, 196608) + b"user",
        struct.pack(">II", 14, 196608) + b"user\0\0",
        struct.pack(">II", 20, 196608) + b"\xff\xfe\xfd\0al\0dat\0\0\0"[:12],
    ],
)
def test_what_is_no_start_up_packet_is_refused(garbage: bytes) -> None:
    assert failed(Dialogue().client(garbage))[0] == "08P01"


@pytest.mark.parametrize("version", [0x00020000, 0x00040000, 1234 << 16])
def test_other_protocols_are_refused(version: int) -> None:
    code, text = failed(Dialogue().client(pg.startup(version, user="alice")))
    assert code == "0A000" and "server supports 3.0" in text


@pytest.mark.parametrize(("asked", "spoken"), [(0, 0), (2, 2), (9, 2)])
def test_newer_protocols_and_unknown_options_are_negotiated_down(asked: int, spoken: int) -> None:
    options = {"_pq_.compress": "zstd", "_pq_.a": "1"}
    start_up = pg.startup(pg.PROTOCOL_3_0 + asked, **{"user": "alice", **options})
    negotiate, password = pg.split(sent(Dialogue().client(start_up), CLIENT))
    assert password == pg.AUTH_CLEARTEXT
    assert negotiate == pg.message(
        "v", struct.pack(">II", pg.PROTOCOL_3_0 + spoken, 2) + b"_pq_.a\0_pq_.compress\0"
    )


def test_protocol_3_2_needs_no_negotiation() -> None:
    commands = Dialogue().client(pg.startup(pg.PROTOCOL_3_2, user="alice"))
    assert sent(commands, CLIENT) == pg.AUTH_CLEARTEXT


def test_a_user_is_needed_and_is_the_database_by_default() -> None:
    assert failed(Dialogue().client(pg.startup(database="shop")))[0] == "28000"
    (ask,) = Dialogue().client(pg.startup(user="shop"), pg.password("t"))[1:]
    assert isinstance(ask, Authenticate) and ask.database == "shop"


def test_a_start_up_packet_may_trickle_in() -> None:
    talk = Dialogue()
    for byte in HELLO[:-1]:
        assert talk.client(bytes([byte])) == []
    assert talk.client(HELLO[-1:]) == [ASK_PASSWORD]


# --- the credential ---


def test_the_password_is_the_token() -> None:
    talk = Dialogue()
    talk.client(HELLO)
    assert talk.client(pg.password("head.body.signature")) == [
        Authenticate("head.body.signature", "alice", "shop", "psql", {"application_name": "psql"})
    ]


def test_a_token_does_not_show_in_a_command() -> None:
    talk = Dialogue()
    talk.client(HELLO)
    assert "secret" not in repr(talk.client(pg.password("secret")))


def test_a_long_token_passes_and_a_longer_one_does_not() -> None:
    talk = Dialogue()
    talk.client(HELLO)
    (authenticate,) = talk.client(pg.password("x" * (MAX_CREDENTIAL - 5)))
    assert isinstance(authenticate, Authenticate)
    talk = Dialogue()
    talk.client(HELLO)
    assert failed(talk.client(pg.password("x" * (MAX_CREDENTIAL - 4))[:5]))[0] == "28P01"


@pytest.mark.parametrize(
    "message",
    [
        pg.query("select 1"),
        pg.message("p"),
        pg.message("p", b"token"),
        pg.message("p", b"token\0more\0"),
        b"p\0\0\0\3",
        b"p\xff\xff\xff\xff",
        pg.TERMINATE,
    ],
)
def test_anything_but_a_password_is_refused(message: bytes) -> None:
    talk = Dialogue()
    talk.client(HELLO)
    assert failed(talk.client(message))[0] == "28P01"


def test_a_refused_credential_ends_the_connection_with_the_authenticators_words() -> None:
    talk = verifying()
    assert failed(talk.handle(Refused("28P01", "the token has expired"))) == (
        "28P01",
        "the token has expired",
    )
    assert talk.client(HELLO) == []


def test_a_client_that_leaves_before_it_is_verified_is_not_asked_about() -> None:
    talk = verifying()
    assert talk.closed(CLIENT) == [Close()]
    assert talk.handle(Authenticated(ALICE)) == []
    assert talk.decided(1) == []


# --- cancel ---


def test_a_cancel_request_is_passed_on_and_says_nothing() -> None:
    assert Dialogue().client(pg.cancel_request(*KEY)) == [CancelStatement(*KEY), Close()]


def test_cancel_requests_work_over_tls_and_with_long_keys() -> None:
    assert over_tls().client(pg.cancel_request(7, b"k" * 256)) == [
        CancelStatement(7, b"k" * 256),
        Close(),
    ]


@pytest.mark.parametrize("secret", [b"", b"abc", b"k" * 257])
def test_a_cancel_request_of_another_size_is_no_cancel_request(secret: bytes) -> None:
    commands = Dialogue().client(pg.cancel_request(7, secret))
    assert failed(commands)[0] == "08P01"
    assert not any(isinstance(command, CancelStatement) for command in commands)


# --- may this person connect? ---


def test_a_verified_person_is_asked_about_and_then_connected() -> None:
    talk = verifying()
    request = Request(ident(1), "connect", "connect", frozenset({"connect"}), (), "connect shop")
    assert talk.handle(Authenticated(ALICE)) == [Ask(1, (request,))]
    assert talk.decided(1) == [ConnectTarget()]


def test_a_denial_is_told_once_it_is_recorded() -> None:
    talk = deciding()
    (record,) = talk.decided(1, DENY)
    assert isinstance(record, Record)
    assert outcomes([record]) == [(1, "denied", "42501")]
    assert isinstance(record.facts[1], Ended) and record.facts[1].reason == "denied"
    said = talk.recorded(record.ticket)
    assert failed(said) == ("42501", 'permission denied for database "shop"')
    detail = pg.fields(sent(said, CLIENT))
    assert (detail["D"], detail["H"]) == ("support changes nothing (policy support)", "Ask a DBA.")


def refused_by_itself(**parameters: str) -> str:
    """What a start-up packet is refused for, whatever the policies say."""
    talk = Dialogue()
    talk.client(pg.startup(**{"user": "alice", "database": "shop", **parameters}))
    talk.client(pg.password("token"))
    (ask,) = talk.handle(Authenticated(ALICE))
    assert isinstance(ask, Ask)
    return ask.requests[0].refusal


def test_an_unknown_target_is_refused_as_an_unknown_database() -> None:
    talk = Dialogue()
    talk.client(pg.startup(user="alice", database="nope"), pg.password("token"))
    (ask,) = talk.handle(Authenticated(ALICE))
    assert isinstance(ask, Ask) and ask.requests[0].refusal == "there is no such target"
    talk.decided(1, DENY)
    assert failed(talk.recorded(2)) == ("3D000", 'database "nope" does not exist')


@pytest.mark.parametrize(
    "options",
    [
        "-c role=postgres",
        "-crole=postgres",
        "--role=postgres",
        r"-c ro\le=postgres",
        r"-c\ role=postgres",
        r"\-\-role=postgres",
        "-c ROLE=postgres",
        "-c session-authorization=x",
        "--session_authorization=x",
        # Switches without an argument may share a dash with the one that has it.
        "-ecrole=postgres",
        "-E-role=postgres",
        "-e -c work_mem=1MB -crole=postgres",
        "-c backslash_quote=on",
        "-c\trole=postgres",
        "-c role = postgres",
    ],
)
def test_options_that_change_who_we_are_or_how_we_read_are_refused(options: str) -> None:
    assert refused_by_itself(options=options).startswith("the start-up setting ")


@pytest.mark.parametrize("name", ["role", "ROLE", "Session_Authorization", "backslash_quote"])
def test_so_are_they_as_parameters(name: str) -> None:
    assert refused_by_itself(**{name: "x"}) == f"the start-up setting {name.lower()} is refused"


@pytest.mark.parametrize(
    "options",
    [
        "",
        "-c search_path=app,public",
        "-c statement_timeout=5s --work_mem=64MB",
        "-c geqo=off",
        "-c standard_conforming_strings=off",
        "-c plugin.role=auditor",
        "-c createrole_self_grant=set",
        "-c application_name=the\\ role\\ of\\ tea",
    ],
)
def test_other_options_pass(options: str) -> None:
    assert refused_by_itself(options=options) == ""


# --- however it ends, the request to connect ends once ---


WITHDRAWN = Withdrawn("the target has changed", "target_changed")
ENDINGS = [
    ("client gone", lambda talk: talk.closed(CLIENT), "lost", "08006", "client_lost"),
    ("not durable", lambda talk: talk.not_durable(1), "failed", "58030", "not_durable"),
    ("shutdown", lambda talk: talk.handle(Shutdown()), "failed", "57P01", "shutdown"),
    ("expired", lambda talk: talk.handle(Expired()), "failed", "28000", "token_expired"),
    ("withdrawn", lambda talk: talk.handle(WITHDRAWN), "failed", "57P01", "target_changed"),
    ("flood", lambda talk: talk.client(b"x" * 20_000), "failed", "08P01", "protocol_error"),
]


@pytest.mark.parametrize(("name", "end", "how", "code", "reason"), ENDINGS)
def test_while_deciding(name: str, end: object, how: str, code: str, reason: str) -> None:
    talk = deciding()
    assert callable(end)
    commands = end(talk)
    assert outcomes(commands) == [(1, how, code)]
    (ended,) = [fact for fact in facts(commands) if isinstance(fact, Ended)]
    assert ended.reason == reason
    assert isinstance(commands[-1], Close)
    # Nothing that is still on its way wakes it up.
    assert talk.decided(1) == talk.closed(CLIENT) == talk.not_durable(1) == []


@pytest.mark.parametrize(("name", "end", "how", "code", "reason"), ENDINGS)
def test_while_a_denial_is_recorded(
    name: str, end: object, how: str, code: str, reason: str
) -> None:
    talk = deciding()
    talk.decided(1, DENY)
    assert callable(end)
    commands = end(talk)
    assert outcomes(commands) == []
    assert isinstance(commands[-1], Close)
    assert talk.recorded(2) == talk.closed(CLIENT) == []


def connecting(**options: object) -> Dialogue:
    talk = deciding(**options)
    talk.decided(1)
    return talk


@pytest.mark.parametrize(
    ("event", "code"),
    [
        (TargetUnreachable("ConnectionRefusedError"), "08001"),
        (Shutdown(), "57P01"),
        (Expired(), "28000"),
        (WITHDRAWN, "57P01"),
    ],
)
def test_while_connecting(event: object, code: str) -> None:
    talk = connecting()
    commands = talk.handle(event)  # type: ignore[arg-type]
    assert outcomes(commands) == [(1, "failed", code)]
    assert failed(talk.recorded(3))[0] == code
    assert talk.closed(CLIENT) == []


def test_a_client_that_leaves_while_its_target_fails_is_recorded_once() -> None:
    talk = connecting()
    assert len(outcomes(talk.handle(TargetUnreachable("OSError")))) == 1
    assert talk.closed(CLIENT) == [Close()]


def test_a_client_that_leaves_while_connecting_was_lost() -> None:
    talk = connecting()
    commands = talk.closed(CLIENT)
    assert outcomes(commands) == [(1, "lost", "08006")]
    assert commands[-1] == Close()


def test_a_credential_that_cannot_be_read_is_our_fault_and_is_recorded() -> None:
    def missing(name: str) -> Credential:
        raise OSError("no such file")

    talk = connecting(credential=missing)
    commands = talk.handle(TargetConnected())
    assert outcomes(commands) == [(1, "failed", "XX000")]
    assert pg.fields(sent(commands, CLIENT))["M"] == "internal error"
    assert commands[-1] == Abort("OSError in the PostgreSQL machine")
    assert sent(commands, TARGET) == b""


# --- welcome ---


def welcomed() -> Dialogue:
    """The target is ready; that is being recorded."""
    talk = connecting()
    talk.handle(TargetConnected())
    talk.target(pg.AUTH_OK, pg.status("server_version", "17.2"), pg.key(9, b"dead"), pg.ready())
    return talk


def test_the_client_learns_the_targets_process_id_and_settings_and_a_secret_of_ours() -> None:
    talk = connecting()
    (start,) = talk.handle(TargetConnected())
    assert start == Send(
        TARGET, pg.startup(application_name="psql", user="gate", database="shop_db")
    )
    commands = talk.target(
        pg.AUTH_OK, pg.status("server_version", "17.2"), pg.key(KEY[0], b"dead"), pg.ready()
    )
    opened = facts(commands)
    assert opened[0] == outcome(1)
    assert talk.recorded(3) == [
        Send(
            CLIENT,
            pg.AUTH_OK + pg.status("server_version", "17.2") + pg.key(*KEY) + pg.ready(),
        )
    ]
    assert talk.machine.target_key == (KEY[0], b"dead")
    assert talk.machine.cancel_key == KEY


def test_what_the_client_sends_early_waits_for_the_session() -> None:
    talk = connecting()
    assert talk.client(pg.query("select 1")) == []
    talk.handle(TargetConnected())
    talk.target(pg.AUTH_OK, pg.ready())
    commands = talk.recorded(3)
    assert [type(command) for command in commands] == [Send, Ask]


def test_a_target_that_closes_meanwhile_ends_the_session() -> None:
    talk = welcomed()
    assert talk.closed(TARGET) == []
    commands = talk.recorded(3)
    said = sent(commands + talk.record(commands), CLIENT)
    assert pg.kinds(said) == "RSKZE"
    assert pg.fields(pg.split(said)[-1])["C"] == "08006"


def test_a_targets_last_words_meanwhile_reach_the_client() -> None:
    talk = welcomed()
    words = pg.error("57P01", "terminating connection due to administrator command", "FATAL")
    assert talk.target(words) == talk.closed(TARGET) == []
    commands = talk.recorded(3)
    assert sent(commands + talk.record(commands), CLIENT).endswith(words)


@pytest.mark.parametrize(("name", "end", "how", "code", "reason"), ENDINGS)
def test_while_the_welcome_is_recorded(
    name: str, end: object, how: str, code: str, reason: str
) -> None:
    talk = welcomed()
    assert callable(end)
    commands = end(talk)
    later = talk.recorded(3)
    everything = [*commands, *later, *talk.record(later)]
    assert outcomes(everything) == []
    assert [fact.reason for fact in facts(everything) if isinstance(fact, Ended)] == [reason]
    assert everything[-1] == Close(drain=code != "08006")
