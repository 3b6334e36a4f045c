"""What `gatebook policy check` finds, and where."""

from __future__ import annotations

import pytest

from gateway.policy.check import ERROR, WARNING, Known, findings
from gateway.policy.source import pieces

KNOWN = Known({"shop": frozenset({"public.people.email"})})
SAYS = '@message("no") @how_to_ask("ask")'


def said(*texts: str) -> list[tuple[int, str, str]]:
    found = findings(((f"{number}.cedar", text) for number, text in enumerate(texts)), KNOWN)
    return [(finding.line, finding.level, finding.text) for finding in found]


def test_policies_are_told_apart_where_semicolons_end_nothing() -> None:
    text = '// a; b\n@id("x;\\"y") permit (principal, action, resource); // c;\n\n@id("z")\npermit;'
    assert [(piece.line, piece.text[:6]) for piece in pieces("f", text)] == [
        (2, '@id("x'),
        (4, '@id("z'),
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("permit (principal, action, resource);", (1, ERROR, "every policy needs an @id")),
        ('@id("a")\npermit (principal, action\nresource);', (3, ERROR, "unexpected token")),
        (
            '@id("a") permit (principal, action == Action::"execute", resource)\n'
            'when { context.kindz.contains("x") };',
            (2, ERROR, "`kindz`"),
        ),
        (
            '@id("a") permit (principal in Grp::"x", action == Action::"connect", resource);',
            (1, ERROR, "unrecognized entity type `Grp`"),
        ),
        (
            '@id("a") permit (principal, action == Action::"execute",\nresource in Target::"shp");',
            (2, ERROR, 'no target "shp"'),
        ),
        (
            '@id("a") permit (principal, action == Action::"execute",\n resource in Schema::"hr");',
            (2, ERROR, "not written as target.schema"),
        ),
        (
            '@id("a") permit (principal, action == Action::"see_clear",\n'
            ' resource == Column::"shop.public.people.name");',
            (2, WARNING, "is not classified"),
        ),
        (
            '@id("a") permit (principal, action == Action::"execute", resource)\n'
            'when { context.ddl.contains("droop") };',
            (2, ERROR, '"droop" is never in ddl'),
        ),
        (
            '@id("a") permit (principal, action == Action::"execute", resource) when { false };',
            (1, ERROR, "never holds"),
        ),
        (
            '@id("a") permit (principal, action == Action::"execute", resource is Column);',
            (1, ERROR, "permits nothing"),
        ),
        (
            '@id("a") @mesage("x") permit (principal, action, resource);',
            (1, WARNING, "@mesage has no meaning"),
        ),
        (
            f'@id("a") @unknown("permitted") {SAYS} forbid (principal, action, resource);',
            (1, ERROR, '@unknown is "permitted", on a permit'),
        ),
        ('@id("a") forbid (principal, action, resource);', (1, WARNING, "whom to ask")),
        ("permit (principal == ?principal, action, resource);", (1, ERROR, "template")),
    ],
)
def test_it_is_found(text: str, expected: tuple[int, str, str]) -> None:
    line, level, words = expected
    assert any(found[:2] == (line, level) and words in found[2] for found in said(text)), said(text)


def test_an_id_twice_is_an_error_that_names_both() -> None:
    policy = '@id("a") permit (principal in Group::"x", action == Action::"connect", resource);'
    other = policy.replace("Group", "User")
    assert (1, ERROR, "a: has the same @id as the policy at 0.cedar:1") in said(policy, other)


PERMIT = 'permit (principal in Group::"x", action == Action::"execute", resource {});'
FORBID = f"{SAYS} forbid (principal, action, resource {{}});"


@pytest.mark.parametrize(
    ("broad", "narrow"),
    [
        ("", '== Target::"shop"'),
        ('in Target::"shop"', 'in Schema::"shop.hr"'),
        ('== Target::"shop"', 'in Schema::"shop.hr"'),
        ("is Target", '== Target::"shop"'),
        ('in Schema::"shop.hr"', 'in Schema::"shop.hr"'),
    ],
)
def test_a_permit_of_what_is_always_forbidden_is_an_error(broad: str, narrow: str) -> None:
    forbid, permit = f'@id("f") {FORBID.format(broad)}', f'@id("p") {PERMIT.format(narrow)}'
    ((line, level, words),) = said(forbid, permit)
    assert (line, level) == (1, ERROR)
    assert "f (0.cedar:1) forbids all of it" in words


@pytest.mark.parametrize(
    ("broad", "narrow"),
    [
        ('in Schema::"shop.hr"', 'in Target::"shop"'),
        ('in Schema::"shop.hr"', 'in Schema::"shop.pay"'),
        ("is Table", '== Target::"shop"'),
    ],
)
def test_a_permit_of_which_something_is_left_is_not(broad: str, narrow: str) -> None:
    assert said(f'@id("f") {FORBID.format(broad)}', f'@id("p") {PERMIT.format(narrow)}') == []


def test_a_forbid_with_a_condition_leaves_something() -> None:
    forbid = f'@id("f") {FORBID.format("")}'.replace(";", ' when { context.name == "x" };')
    assert said(forbid, f'@id("p") {PERMIT.format("")}') == []


def test_what_another_says_already_adds_nothing_and_is_said_once() -> None:
    one, two = f'@id("a") {PERMIT.format("")}', f'@id("b") {PERMIT.format("")}'
    (found,) = said(one, two)
    assert found == (1, WARNING, "b: adds nothing: a (0.cedar:1) permits all of it already")
    assert said(one, two.replace("Group", "User")) == []
    assert said(one, two.replace(";", " when { context.has_where };")) != []
    # It lets pass what the other does not.
    assert said(one, f'@unknown("permitted") {two}')[-1][2].startswith("a: adds nothing")
