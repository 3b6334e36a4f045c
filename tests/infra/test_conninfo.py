"""Connection strings as libpq reads them."""

from __future__ import annotations

import pytest

from infra.devstack.conninfo import BadConninfo, Conninfo, parse


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://gate:s%40cret@db.example:5433/shop?sslmode=require",
        "postgres://gate:s%40cret@db.example:5433/shop?sslmode=require",
        "host=db.example port=5433 dbname=shop user=gate password=s@cret sslmode=require",
        "host = 'db.example' port=5433 dbname='shop' user=gate password='s@cret' sslmode=require ",
    ],
)
def test_both_forms_say_the_same(text: str) -> None:
    assert parse(text) == Conninfo("db.example", 5433, "shop", "gate", "s@cret", "require")


@pytest.mark.parametrize("password", ["plain", "a b", "it's", "back\\slash", "@:/?#[]%", "päss"])
def test_a_uri_of_ours_reads_back(password: str) -> None:
    conninfo = Conninfo("127.0.0.1", 5432, "shop", "gate", password, "disable")
    assert parse(conninfo.uri()) == conninfo


def test_quotes_and_backslashes_in_pairs() -> None:
    assert parse(r"user=gate password='it\'s a \\ secret'").password == r"it's a \ secret"


def test_the_password_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPASSWORD", "from outside")
    assert parse("postgresql://gate@localhost/shop").password == "from outside"


def test_tls_is_verified_unless_the_socket_stays_on_the_host(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PGPASSWORD", "x")
    assert parse("host=db.example user=gate").sslmode == "verify-full"
    assert parse("host=127.0.0.1 user=gate").sslmode == "disable"
    assert parse("host=db.example user=gate sslmode=prefer").sslmode == "verify-full"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("postgresql://:hunter2@db.example/shop", "user"),
        ("user=gate", "password"),
        ("user=gate password=hunter2 port=99999", "port"),
        ("user=gate password=hunter2 sslmode=sometimes", "sslmode"),
        ("user=gate password=hunter2 colour=blue", "colour"),
        ("user=gate password='hunter2", "key=value"),
        ("hunter2", "key=value"),
        ("host=a,b user=gate password=hunter2", "one TCP host"),
        ("postgresql://gate:hunter2@db.example:port/shop", "URI"),
    ],
)
def test_what_is_wrong_is_said_without_the_password(
    text: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PGPASSWORD", raising=False)
    with pytest.raises(BadConninfo, match=reason) as refused:
        parse(text)
    assert "hunter2" not in str(refused.value)


def test_its_repr_holds_no_password() -> None:
    assert "hunter2" not in repr(Conninfo("h", 1, "d", "u", "hunter2", "disable"))
