from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.masking.columns import Classification, ColumnMask
from schemas.masking.sql import mask_statement

SHOP = Classification(
    {
        "public.customers.ssn": ColumnMask("pii", "full"),
        "public.customers.name": ColumnMask("pii", "full"),
        "public.customers.email": ColumnMask("pii", "email"),
        "public.cards.cvv": ColumnMask("pci", "full"),
    }
)
NOTHING = Classification({})


def masked(text: str, classification: Classification = SHOP) -> str:
    return mask_statement(text, classification).text


@pytest.mark.parametrize(
    "text",
    [
        "SELECT abalance FROM pgbench_accounts WHERE aid = 123456;",
        "UPDATE pgbench_accounts SET abalance = abalance + -1234 WHERE aid = 98765;",
        "select * from customers where id = 12345 and city = 'Boston' limit 100",
        "select 'O''Brien', E'a\\tb', $$x$$, U&'d\\0061t'",
        "select now() at time zone 'Europe/Berlin' -- daily report",
        "BEGIN",
        "",
    ],
)
def test_statements_without_classified_values_stay_as_they_are(text: str) -> None:
    assert mask_statement(text, SHOP).text == text
    assert mask_statement(text, SHOP).masks == ()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "select * from t where a = 'x' and b = '123-45-6789' limit 5000",
            "select * from t where a = 'x' and b = '***-**-****' limit 5000",
        ),
        (
            "select 'bob@example.com is it' -- ask bob@example.com",
            "select 'b***@example.com is it' -- ask b***@example.com",
        ),
        (
            "select * from t where pan = 4111111111111111",
            "select * from t where pan = ************1111",
        ),
        ("select '123456789', 123456789", "select '***', 123456789"),
        ("select $a$tel 212-555-0187$a$", "select $a$tel ***-***-****$a$"),
        ('select "bob@example.com" from t', 'select "b***@example.com" from t'),
        ("select 'O''Brien bob@example.com'", "select 'O''Brien b***@example.com'"),
    ],
)
def test_what_looks_classified_is_masked_in_place(text: str, expected: str) -> None:
    assert masked(text, NOTHING) == expected


@pytest.mark.parametrize(
    "text",
    [
        r"select E'\x31\x32\x33-45-6789'",
        r"select E'\061\062\063-45-6789'",
        r"select E'\u0031\u0032\u0033-45-6789'",
        r"select E'bob\x40example.com'",
        r"select U&'\0031\0032\0033-45-6789'",
        r"select U&'\+000031\+0000323-45-6789'",
        r"select '\x3132332d34352d36373839'::bytea",
        "select x'3132332d34352d36373839'",
        "select '123-45' || '-6789'",
        "select '123-45'::text || '-6789'",
        "select '123-45'\n'-6789'",
        "select concat('123', '-45-', '6789')",
        "select 'bob' || '@' || 'example.com'",
    ],
)
def test_escapes_and_concatenation_do_not_hide_it(text: str) -> None:
    result = mask_statement(text, NOTHING)
    assert "***" in result.text
    for part in ("31", "123", "6789", "bob", "061"):
        assert part not in result.text
    assert result.masks[0].endswith(":statement")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "select id from customers where ssn = 'unusual' and id > 1000 limit 5000",
            "select id from customers where ssn = '***' and id > *** limit 5000",
        ),
        (
            "update customers set name = 'Al' where id = 7",
            "update customers set name = '***' where id = 7",
        ),
        ("select 1 where \"SSN\" like 'a%'", "select 1 where \"SSN\" like '***'"),
        (
            "select 1 where SSN in ('a','b') and st = 'CA'",
            "select 1 where SSN in ('***','***') and st = 'CA'",
        ),
        (r"""select 1 where U&"\0073sn" = 'ab'""", r"""select 1 where U&"\0073sn" = '***'"""),
        (
            "insert into customers values (1, 'Al', 'x')",
            "insert into customers values (***, '***', '***')",
        ),
        (
            "select 1 from customers c(a, b) where b = 'Miller'",
            "select 1 from customers c(a, b) where b = '***'",
        ),
        (
            "with c(a) as (select * from customers) select 1 from c where a='Miller'",
            "with c(a) as (select * from customers) select 1 from c where a='***'",
        ),
        ("execute find('Miller')", "execute find('***')"),
        ("do $$ begin update customers set ssn = 'ab'; end $$", "do '***'"),
        ("select cvv where cvv = 123 /* was 321 */", "select cvv where cvv = *** /* *** */"),
        ("select name from customers -- Miller?", "select name from customers -- ***"),
    ],
)
def test_statements_that_touch_something_classified_lose_their_literals(
    text: str, expected: str
) -> None:
    assert masked(text) == expected


def test_bind_values_follow_the_statement() -> None:
    select = mask_statement("select 1 from customers where id = $1 and ssn = $2", SHOP)
    assert [select.hides(1, 3), select.hides(1, 4), select.hides(2, 1)] == [False, True, True]
    insert = mask_statement("insert into customers(id, ssn) values ($1, $2)", SHOP)
    assert insert.hides(1, 1)
    other = mask_statement("select 1 from orders where id = $1", SHOP)
    assert not other.hides(1, 100)


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("select 'abc', ssn 'Miller", "Miller"),
        (r"select 'a\'b', 'Miller'", "Miller"),
        (r"select 'a\'b', 'c\'Miller'", "Miller"),
        ("select ssn $x$Miller", "Miller"),
        ("select ssn \x00 'Miller'", "Miller"),
        ("select ssn 'a' \udc80 'Miller'", "Miller"),
        ("select ssn /* never closed 'Miller'", "Miller"),
        ("select 12a3 from customers where ssn = 98765", "98765"),
        ("select ssn E'unfinished \\", "unfinished"),
        ("select 'unfinished 123-45-6789", "123-45"),
    ],
)
def test_what_postgresql_does_not_scan_loses_every_quoted_string(text: str, secret: str) -> None:
    assert secret not in masked(text)


@given(st.text())
def test_no_text_makes_it_fail(text: str) -> None:
    mask_statement(text, SHOP)
    mask_statement(f"select ssn from customers where x = {text}", SHOP)


@given(
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=6).filter(
        lambda s: s.strip() and "***" not in s
    )
)
def test_no_value_compared_with_a_classified_column_survives(value: str) -> None:
    canary = f"canary{value}"
    quoted = canary.replace("'", "''")
    assert quoted not in masked(f"select * from customers where ssn = '{quoted}' and id = 1")
    escaped = canary.replace("\\", "\\\\").replace("'", "\\'")
    assert "canary" not in masked(f"select * from customers where ssn = E'{escaped}'")


@given(st.text(alphabet="'\"\\$-/*;\n Eabx0123U&", max_size=60))
def test_quoting_games_do_not_uncover_a_literal(noise: str) -> None:
    """Whatever stands before it, a number that looks like a card is masked."""
    assert "4111111111111111" not in masked(f"{noise} '4111111111111111' {noise}", NOTHING)
