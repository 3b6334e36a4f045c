"""Finds values that look classified in free text: e-mail addresses, payment cards, US social
security numbers, IBANs and telephone numbers.

Most texts hold none. One regular expression rules them out in about a microsecond; check digits
and numbering plans (python-stdnum, phonenumbers) are asked about the few that remain.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal

import phonenumbers
from stdnum import iban, luhn
from stdnum.us import itin, ssn

from schemas.masking import masks

Kind = Literal["email", "card", "ssn", "iban", "phone"]


@dataclass(frozen=True, slots=True)
class Finding:
    """`text[start:end]` looks like a `kind`."""

    start: int
    end: int
    kind: Kind


# Begins with one character class, which lets `re` skip to the next digit or @. Then either an
# @, or seven digits with a little punctuation between them, or the head of an IBAN.
_CANDIDATE: Final = re.compile(
    r"[@0-9](?:(?<=@)"
    r"|(?:[ ().\-/]{0,3}[0-9]){6}"
    r"|(?<=[A-Za-z]{2}[0-9])[0-9][ -]?[A-Za-z0-9]{4})"
)

_EMAIL_DOMAIN: Final = re.compile(r"@(?:[\w-]{1,63}\.){1,8}[^\W\d_]{2,24}")
_EMAIL_LOCAL: Final = re.compile(r"[\w.%+*\-]{1,64}\Z")
# What a mask left, and would not leave so a second time.
_MASKED_EMAIL: Final = re.compile(r".?\*{3}@")
_DIGIT_RUN: Final = re.compile(r"(?<![0-9])(?<![0-9]\.)[0-9](?:[ -]?[0-9]){12,40}(?![0-9])")
_GROUP: Final = re.compile(r"[0-9]+")
_UUID: Final = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_SSN: Final = re.compile(r"(?<![0-9])[0-9]{3}([- ])[0-9]{2}\1[0-9]{4}(?![0-9])")
# In a lookahead: a word that happens to begin like an IBAN must not swallow the one after it.
_IBAN: Final = re.compile(r"(?<![0-9A-Za-z])(?=([A-Za-z]{2}[0-9]{2}(?:[ -]?[0-9A-Za-z]){11,30}))")
_EXTENSION: Final = r"(?:[ ]?(?:x|ext\.?)[ ]?[0-9]{1,6})?"
_PHONE: Final = re.compile(
    r"(?<![0-9A-Za-z])(?:\+|00(?=[ ().\-/]?[0-9]{1,3}[ ().\-/]))"
    r"[ ().\-/]?[1-9](?:[ ().\-/]{0,3}[0-9]){6,14}(?![0-9])" + _EXTENSION + "|"
    r"(?<![0-9])(?:1[ .\-])?(?:\([0-9]{3}\)[ .\-]?|[0-9]{3}[ .\-])[0-9]{3}[ .\-][0-9]{4}(?![0-9])"
    + _EXTENSION
)
_SHORTEST_PHONE: Final = 8
_LAST_GROUP: Final = re.compile(r"(?:[ ().\-/]+|\A.)[^ ().\-/]*\Z")
_NINE_DIGITS: Final = re.compile(r"\s*[0-9]{9}\s*")
_TEN_DIGITS: Final = re.compile(r"\s*1?[2-9][0-9]{9}\s*")

_NOT_ASCII_DIGIT: Final = re.compile(r"(?![0-9])\d")
_LOOKALIKES: Final = str.maketrans(
    dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2015\u2212\uff0d", "-")
    | dict.fromkeys("\u00a0\u2007\u2009\u202f", " ")
    | {"\uff20": "@", "\uff0b": "+", "\uff08": "(", "\uff09": ")", "\uff0e": "."}
)


def _plain(text: str) -> str:
    """Digits and punctuation of other scripts as ASCII; of the same length."""
    if text.isascii():
        return text
    text = text.translate(_LOOKALIKES)
    return _NOT_ASCII_DIGIT.sub(lambda match: str(unicodedata.digit(match[0])), text)


def suspicious(text: str) -> bool:
    """Whether `find` could find anything: cheap, never wrong with False."""
    return (not text.isascii() and _CANDIDATE.search(_plain(text)) is not None) or (
        _CANDIDATE.search(text) is not None
    )


def find(text: str, *, whole: bool = False) -> list[Finding]:
    """Findings in order, none overlapping another.

    `whole`: the text is one value (a field, a bind value, the inside of a quoted literal), so that
    nine bare digits are read as a social security number and ten as a telephone number. In running
    text and among numbers they would be anything.
    """
    text = _plain(text)
    if _CANDIDATE.search(text) is None:
        return []
    found: list[Finding] = []
    if "@" in text:
        found += _emails(text)
    for detector in (_ibans, _cards, _ssns, _phones):
        found += detector(text)
    if whole and not found:
        found += _bare(text)
    return _disjoint(found)


def _emails(text: str) -> Iterator[Finding]:
    for domain in _EMAIL_DOMAIN.finditer(text):
        at = domain.start()
        local = _EMAIL_LOCAL.search(text, max(0, at - 64), at)
        if local:
            yield Finding(local.start(), domain.end(), "email")


def _ibans(text: str) -> Iterator[Finding]:
    for match in _IBAN.finditer(text):
        start, candidate = match.start(), match[1]
        # The words that follow may look like more of it; each country has one length.
        for end in range(len(candidate), 14, -1):
            if candidate[end - 1] not in " -" and _is_iban(candidate[:end]):
                yield Finding(start, start + end, "iban")
                break


def _is_iban(text: str) -> bool:
    compact = text.replace(" ", "").replace("-", "").upper()
    if int("".join(str(int(c, 36)) for c in compact[4:] + compact[:4])) % 97 != 1:
        return False
    return bool(iban.is_valid(compact))


def _cards(text: str) -> Iterator[Finding]:
    uuids = None
    for run in _DIGIT_RUN.finditer(text):
        if uuids is None:
            uuids = [match.span() for match in _UUID.finditer(text)]
        if any(start < run.end() and run.start() < end for start, end in uuids):
            continue
        for start, end in _card_spans(run[0]):
            yield Finding(run.start() + start, run.start() + end, "card")


def _card_spans(run: str) -> Iterator[tuple[int, int]]:
    """Where in a run of digits and separators card numbers are."""
    groups = [match.span() for match in _GROUP.finditer(run)]
    if _is_card("".join(run[a:b] for a, b in groups)):
        yield 0, len(run)
        return
    # Other numbers may stand before or after it ("4111 1111 1111 1111 123").
    first = 0
    while first < len(groups):
        start, start_end = groups[first]
        lasts = range(len(groups), first, -1) if start_end - start >= 4 else ()
        first += 1
        for last in lasts:
            if _is_card("".join(run[a:b] for a, b in groups[first - 1 : last])):
                yield start, groups[last - 1][1]
                first = last
                break


def _is_card(digits: str) -> bool:
    # Numbers that begin with 0, and all with 1 but UATP's, are timestamps and identifiers.
    if not 13 <= len(digits) <= 19 or digits[0] == "0":
        return False
    if digits[0] == "1" and len(digits) != 15:
        return False
    return len(set(digits)) > 1 and bool(luhn.is_valid(digits))


def _ssns(text: str) -> Iterator[Finding]:
    for match in _SSN.finditer(text):
        if ssn.is_valid(match[0].replace(" ", "-")) or itin.is_valid(match[0].replace(" ", "-")):
            yield Finding(match.start(), match.end(), "ssn")


def _phones(text: str) -> Iterator[Finding]:
    at = 0
    while match := _PHONE.search(text, at):
        start, at = match.span()
        end = at
        # Other numbers may follow it with nothing but a space between.
        while end - start >= _SHORTEST_PHONE:
            if _is_phone(text[start:end]):
                yield Finding(start, end, "phone")
                at = end
                break
            end = start + len(_LAST_GROUP.sub("", text[start:end]))


@lru_cache(maxsize=16_384)
def _is_phone(text: str) -> bool:
    separated = not text.lstrip("+").isdigit()
    if text.startswith("00"):
        text = "+" + text[2:].lstrip(" .-/")
    try:
        number = phonenumbers.parse(text, "US")
    except phonenumbers.NumberParseException:
        return False
    # The punctuation already says telephone number; plain digits must belong to a real plan.
    if separated:
        return bool(phonenumbers.is_possible_number(number))
    return bool(phonenumbers.is_valid_number(number))


def _bare(text: str) -> Iterator[Finding]:
    value = text.strip()
    if _NINE_DIGITS.fullmatch(text) and ssn.is_valid(value):
        yield Finding(0, len(text), "ssn")
    elif _TEN_DIGITS.fullmatch(text) and _is_phone(value):
        yield Finding(0, len(text), "phone")


def _disjoint(found: list[Finding]) -> list[Finding]:
    if len(found) < 2:
        return found
    found.sort(key=lambda finding: (finding.start, -finding.end))
    result = [found[0]]
    for finding in found[1:]:
        last = result[-1]
        if finding.start >= last.end:
            result.append(finding)
        elif finding.end > last.end:
            result[-1] = Finding(last.start, finding.end, last.kind)
    return result


def mask(kind: Kind, value: str) -> str:
    """`value` with its shape left: `***-**-****`, `**** **** **** 1234`, `a***@example.com`."""
    match kind:
        case "email":
            return value if _MASKED_EMAIL.match(value) else masks.email(value)
        case "card" | "iban":
            return masks.shape(value, 4)
        case "ssn" | "phone":
            return masks.shape(value)


def scrub(text: str, *, whole: bool = False) -> tuple[str, tuple[Kind, ...]]:
    """(the text with every finding masked, their kinds); `whole` as in `find`."""
    found = find(text, whole=whole)
    if not found:
        return text, ()
    out: list[str] = []
    at = 0
    for finding in found:
        out += text[at : finding.start], mask(finding.kind, text[finding.start : finding.end])
        at = finding.end
    out.append(text[at:])
    return "".join(out), tuple(sorted({finding.kind for finding in found}))
