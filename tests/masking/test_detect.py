from __future__ import annotations

import itertools
import time

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from stdnum import iban, luhn
from stdnum.us import ssn

from schemas.masking import detect


def scrubbed(text: str, *, whole: bool = False) -> str:
    return detect.scrub(text, whole=whole)[0]


@pytest.mark.parametrize(
    ("text", "masked", "kind"),
    [
        ("to bob.smith+x@mail.example.com now", "to b***@mail.example.com now", "email"),
        ("BOB@EXAMPLE.COM", "B***@EXAMPLE.COM", "email"),
        ("jürgen@müller.example", "j***@müller.example", "email"),
        ("<bob@example.com>,", "<b***@example.com>,", "email"),
        ("4111111111111111", "************1111", "card"),
        ("4111 1111 1111 1111", "**** **** **** 1111", "card"),
        ("3782-822463-10005", "****-******-*0005", "card"),
        ("pan=5555555555554444;", "pan=************4444;", "card"),
        ("4111 1111 1111 1111 123", "**** **** **** 1111 123", "card"),
        ("ssn 123-45-6789.", "ssn ***-**-****.", "ssn"),
        ("123 45 6789", "*** ** ****", "ssn"),
        ("itin 912-70-1234", "itin ***-**-****", "ssn"),
        ("123\u201145\u20116789", "***\u2011**\u2011****", "ssn"),
        ("\uff11\uff12\uff13-\uff14\uff15-\uff16\uff17\uff18\uff19", "***-**-****", "ssn"),
        ("GB82 WEST 1234 5698 7654 32 and more", "**** **** **** **** **54 32 and more", "iban"),
        ("de89370400440532013000", "******************3000", "iban"),
        ("call +1 212 555 0187", "call +* *** *** ****", "phone"),
        ("(212) 555-0187", "(***) ***-****", "phone"),
        ("212.555.0187", "***.***.****", "phone"),
        ("+49 (0)30 1234567", "+** (*)** *******", "phone"),
        ("001-581-896-0013x3890", "***-***-***-*********", "phone"),
    ],
)
def test_finds_and_masks(text: str, masked: str, kind: str) -> None:
    assert detect.scrub(text) == (masked, (kind,))


@pytest.mark.parametrize(
    "text",
    [
        "SELECT abalance FROM pgbench_accounts WHERE aid = 123456789",
        "2024-11-24 07:00:00.123456+00",
        "550e8400-e29b-41d4-a716-446655440000",
        "1732431600000000",
        "0.6823459128374655",
        "192.168.100.100:5432",
        "4111111111111112",
        "000-12-3456",
        "666-12-3456",
        "a @> b and c @ d",
        "1111111111111111",
        "version 8.4.2.1-10-11",
        "",
    ],
)
def test_leaves_what_only_resembles(text: str) -> None:
    assert detect.scrub(text) == (text, ())


@pytest.mark.parametrize(
    ("value", "kinds"), [("123456789", ("ssn",)), ("2125550187", ("phone",)), ("000000001", ())]
)
def test_bare_digits_count_only_as_a_whole_value(value: str, kinds: tuple[str, ...]) -> None:
    assert detect.scrub(value, whole=True)[1] == kinds
    assert detect.scrub(f"id {value} of", whole=True)[1] == ()
    assert detect.scrub(value)[1] == ()


def test_two_cards_in_a_row_are_two() -> None:
    found = detect.find("4111 1111 1111 1111 5555 5555 5555 4444")
    assert [(f.kind, f.end - f.start) for f in found] == [("card", 19), ("card", 19)]


def test_overlapping_findings_hide_their_union() -> None:
    text = "+1 212 555 0187 4111 1111 1111 1111"
    masked = scrubbed(text)
    assert "0187" not in masked
    assert "4111" not in masked


def cards() -> st.SearchStrategy[str]:
    return st.from_regex(r"[2-6][0-9]{11,17}", fullmatch=True).map(
        lambda head: head + luhn.calc_check_digit(head)
    )


@given(cards(), st.sampled_from(["", " ", "-"]), st.text(alphabet="abc,;:'\"()= \n", max_size=5))
def test_every_card_is_found_in_any_grouping(card: str, separator: str, around: str) -> None:
    assume(len(set(card)) > 1)
    shown = separator.join(card[at : at + 4] for at in range(0, len(card), 4))
    text = f"x{around}{shown}{around}y"
    assert shown not in scrubbed(text)
    assert "card" in detect.scrub(text)[1]


@given(st.from_regex(r"[0-8][0-9]{2}-[0-9]{2}-[0-9]{4}", fullmatch=True))
def test_every_ssn_that_can_exist_is_found(number: str) -> None:
    assume(ssn.is_valid(number))
    assert number not in scrubbed(f"where x = '{number}'")
    assert scrubbed(number.replace("-", ""), whole=True) == "*********"


@given(st.sampled_from(["GB82WEST12345698765432", "DE89370400440532013000", "NO9386011117947"]))
def test_ibans_are_found_compact_and_formatted(number: str) -> None:
    assert number not in scrubbed(f"to {number} please")
    assert iban.format(number) not in scrubbed(f"to {iban.format(number)} please")


@given(
    st.from_regex(r"[a-z0-9._%+-]{1,20}@[a-z0-9-]{1,10}\.(com|org|co\.uk)", fullmatch=True),
    st.sampled_from(["", " ", "'", '"', "(", ","]),
)
def test_every_address_is_found(address: str, around: str) -> None:
    assert address not in scrubbed(f"{around}{address}{around}")


@given(st.text())
def test_the_cheap_check_is_never_wrong_with_no(text: str) -> None:
    assert detect.suspicious(text) or detect.find(text) == []


@given(st.text(alphabet="0123456789 -+().@abxGB,'", max_size=80))
@example("0@0.BB")
def test_findings_are_ordered_disjoint_and_masking_settles(text: str) -> None:
    found = detect.find(text)
    assert all(a.end <= b.start for a, b in itertools.pairwise(found))
    assert all(0 <= f.start < f.end <= len(text) for f in found)
    assert scrubbed(scrubbed(text)) == scrubbed(text)


def test_hostile_texts_take_linear_time() -> None:
    """Half a megabyte of what each expression begins to match, and never finishes."""
    hostile = ["@", "a@", "1 ", "GB82", "+1-", "(212) ", "a.", "1-", "9" * 40 + " ", "x@y."]
    for unit in hostile:
        text = unit * (200_000 // len(unit))
        began = time.process_time()
        detect.find(text)
        assert time.process_time() - began < 2, unit
