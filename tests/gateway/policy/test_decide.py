"""Decisions: silence denies, forbidding wins, and nobody gets another's answer."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.identity.principal import Principal
from gateway.machine import Decision, Request, Verdict
from gateway.policy.decide import NO_POLICY, NoPolicies, Policies, PolicyError
from gateway.policy.remembered import Remembered
from tests.gateway.policy.catalogs import request

ALICE = Principal("https://i", "a1", "alice", ("support",), None, "person", 2e9)
BOB = Principal("https://i", "b1", "bob", ("dba",), None, "person", 2e9)

SUPPORT = """
@id("support-connects")
permit (principal in Group::"support", action == Action::"connect", resource == Target::"shop");
@id("support-reads")
permit (principal in Group::"support", action == Action::"execute", resource == Target::"shop")
when { ["select", "explain"].containsAll(context.kinds) };
"""


def policies(*texts: str) -> Policies:
    return Policies((f"{number}.cedar", text) for number, text in enumerate(texts))


def execute(
    given: Policies,
    text: str = "select 1",
    who: Principal = ALICE,
    target: str = "shop",
    application: str = "psql",
) -> Decision:
    return given.execute(who, target, application, request(text))


def permit(when: str, name: str = "p") -> str:
    return f'@id("{name}") permit (principal, action, resource) when {{ {when} }};'


# --- by what is decided ---


def test_silence_denies() -> None:
    for decision in (
        execute(policies(SUPPORT), who=BOB),
        execute(policies(SUPPORT), target="other"),
        execute(policies(SUPPORT), "delete from orders"),
        policies(SUPPORT).connect(BOB, "shop", "psql"),
        policies("").connect(ALICE, "shop", "psql"),
    ):
        assert (decision.verdict, decision.policies) == (Verdict.DENY, ())
        assert decision.reason == NO_POLICY and decision.hint


def test_a_decision_names_the_policies_that_determined_it() -> None:
    assert execute(policies(SUPPORT)) == Decision(Verdict.ALLOW, ("support-reads",), "")
    assert policies(SUPPORT).connect(ALICE, "shop", "psql").policies == ("support-connects",)
    both = policies(SUPPORT, permit("true", "another"))
    assert execute(both).policies == ("another", "support-reads")


def test_forbidding_wins_and_speaks() -> None:
    forbid = """
    @id("no-drops") @message("tables are not dropped here") @how_to_ask("Open a ticket.")
    forbid (principal, action == Action::"execute", resource)
    when { context.kinds.contains("drop") };
    """
    decision = execute(policies(permit("true"), forbid), "drop table orders")
    assert decision == Decision(
        Verdict.DENY, ("no-drops",), "tables are not dropped here", "Open a ticket."
    )
    assert execute(policies(permit("true"), forbid)).verdict is Verdict.ALLOW


def test_a_silent_policy_is_named_as_the_reason() -> None:
    decision = execute(
        policies(permit("true"), '@id("quiet") forbid (principal, action, resource);')
    )
    assert (decision.policies, decision.reason) == (("quiet",), "forbidden by quiet")


def test_several_that_forbid_all_speak() -> None:
    text = """
    @id("a") @message("first") forbid (principal, action, resource);
    @id("b") @message("second") @how_to_ask("Ask b.") forbid (principal, action, resource);
    """
    decision = execute(policies(permit("true"), text))
    assert (decision.policies, decision.reason, decision.hint) == (
        ("a", "b"),
        "first; second",
        "Ask b.",
    )


def test_nested_kinds_count() -> None:
    given = policies(SUPPORT)
    assert (
        execute(given, "with d as (delete from orders returning 1) select 1").verdict
        is Verdict.DENY
    )
    assert execute(given, "explain analyze delete from orders").verdict is Verdict.DENY
    assert execute(given, "explain select 1").verdict is Verdict.ALLOW


@pytest.mark.parametrize(
    ("condition", "allowed"),
    [
        ('context.kind == "select"', True),
        ('context.kind == "drop"', False),
        ('context.name == "alice"', True),
        ('context.actor_type == "person"', True),
        ('context.actor_type == "agent"', False),
        ('context.application == "psql"', True),
        ('principal == User::"https://i|a1"', True),
        ('principal == User::"https://i|b1"', False),
        ('principal in Group::"support"', True),
        ('resource == Target::"shop"', True),
        ('action == Action::"execute"', True),
    ],
)
def test_what_a_policy_may_ask(condition: str, allowed: bool) -> None:
    assert (execute(policies(permit(condition))).verdict is Verdict.ALLOW) is allowed


def test_a_policy_that_cannot_be_evaluated_denies() -> None:
    given = policies(permit("true", "everyone"), permit("context.nothing == 1", "broken"))
    decision = execute(given)
    assert decision.verdict is Verdict.DENY
    assert decision.reason == "a policy could not be evaluated"
    forbidding = '@id("f") forbid (principal, action, resource) when { context.nothing == 1 };'
    assert execute(policies(permit("true"), forbidding)).verdict is Verdict.DENY


def test_what_is_not_understood_is_denied_whoever_asks_and_is_not_quoted() -> None:
    decision = execute(policies(permit("true")), "select * from c where ssn = '123-45-6789")
    assert decision.verdict is Verdict.DENY
    # Reasons are recorded in clear; the parser's message quotes what was typed.
    assert "123" not in decision.reason


def test_a_request_refused_for_what_it_is_is_denied_whoever_asks() -> None:
    refused = Request(
        bytes(16), "connect", "connect", frozenset({"connect"}), (), "connect x", refusal="no x"
    )
    decision = policies(permit("true")).execute(ALICE, "x", "psql", refused)
    assert (decision.verdict, decision.reason) == (Verdict.DENY, "no x")


def test_nothing_is_allowed_to_do_nothing() -> None:
    nothing = Request(bytes(16), "execute", "empty", frozenset({"empty"}), (), "")
    assert policies("").execute(ALICE, "shop", "psql", nothing).verdict is Verdict.ALLOW


# --- who is who ---


@pytest.mark.parametrize(
    "odd",
    [
        'quote"quote',
        "back\\slash",
        "new\nline",
        "semi;colon",
        '"; permit (principal, action, resource); //',
        '" || true || "',
        "ünï\u200bcode",
        "nul\0l",
        "",
        "*",
        'x"::y',
    ],
)
def test_names_are_values_never_syntax(odd: str) -> None:
    given = policies(SUPPORT)
    for stranger in (
        replace(ALICE, subject=odd, groups=()),
        replace(ALICE, issuer=odd, groups=(odd,)),
        replace(ALICE, name=odd, groups=(f'support"{odd}',)),
    ):
        assert execute(given, who=stranger).verdict is Verdict.DENY
    assert execute(given, who=replace(ALICE, subject=odd)).verdict is Verdict.ALLOW
    assert execute(given, target=odd).verdict is Verdict.DENY
    assert execute(given, application=odd).verdict is Verdict.ALLOW


def test_a_group_with_quotes_can_be_named_in_a_policy() -> None:
    text = r'@id("p") permit (principal in Group::"say \"hi\"\n", action, resource);'
    member = replace(ALICE, groups=('say "hi"\n',))
    assert execute(policies(text), who=member).verdict is Verdict.ALLOW
    assert execute(policies(text)).verdict is Verdict.DENY


def test_an_issuer_cannot_speak_for_another_by_its_subjects() -> None:
    """`issuer|subject` is one name for two pairs where an issuer may hold a bar."""
    text = '@id("p") permit (principal == User::"https://i|a|b", action, resource);'
    one = replace(ALICE, issuer="https://i", subject="a|b")
    other = replace(ALICE, issuer="https://i|a", subject="b")
    assert execute(policies(text), who=one).verdict is Verdict.ALLOW
    # Only the configured issuer's tokens are accepted, so that a second one never meets the first.
    assert execute(policies(text), who=other) == execute(policies(text), who=one)


def test_remembered_decisions_are_not_anothers() -> None:
    given = policies(
        SUPPORT,
        permit('context.name == "bob" && context.application == "psql"', "bob"),
        '@id("no-agents") forbid (principal, action, resource)'
        ' when { context.actor_type == "agent" };',
    )
    people = [
        ALICE,
        BOB,
        replace(ALICE, groups=("dba",)),
        replace(ALICE, groups=("dba", "support")),
        replace(ALICE, groups=()),
        replace(ALICE, name="bob", groups=()),
        replace(ALICE, actor_type="agent"),
        replace(ALICE, subject="zed", groups=()),
    ]
    asked = [
        (who, target, application, text)
        for who in people
        for target in ("shop", "other")
        for application in ("psql", "pgadmin")
        for text in (
            "select 1",
            "delete from orders",
            "with d as (delete from orders returning 1) table d",
        )
    ]
    fresh = [
        execute(
            policies(
                SUPPORT,
                permit('context.name == "bob" && context.application == "psql"', "bob"),
                '@id("no-agents") forbid (principal, action, resource)'
                ' when { context.actor_type == "agent" };',
            ),
            text,
            who,
            target,
            application,
        )
        for who, target, application, text in asked
    ]
    for _ in range(2):
        remembered = [execute(given, text, who, target, app) for who, target, app, text in asked]
        assert remembered == fresh
    assert len({decision.verdict for decision in fresh}) == 2


def test_connecting_and_executing_are_not_confused() -> None:
    given = policies('@id("c") permit (principal, action == Action::"connect", resource);')
    assert given.connect(ALICE, "shop", "psql").verdict is Verdict.ALLOW
    assert execute(given).verdict is Verdict.DENY


def test_replicating_needs_a_permission_of_its_own_beside_connecting() -> None:
    connects = 'permit(principal, action == Action::"connect", resource);'
    replicates = 'permit(principal, action == Action::"replicate", resource) '
    feeds = replicates + 'when { context.replication == "database" };'
    both = policies(f'@id("c") {connects}', f'@id("r") {feeds}')
    assert both.connect(ALICE, "shop", "psql", "database").policies == ("c", "r")
    assert both.connect(ALICE, "shop", "psql", "true").verdict is Verdict.DENY
    assert both.connect(ALICE, "shop", "psql").policies == ("c",)
    for alone in (connects, replicates + ";"):
        decision = policies(f'@id("a") {alone}').connect(ALICE, "shop", "psql", "database")
        assert (decision.verdict, decision.reason) == (Verdict.DENY, "no policy permits this")


def test_what_is_remembered_is_bounded() -> None:
    given = policies(SUPPORT)
    given._known = Remembered(10)
    for number in range(100):
        execute(given, application=str(number))
    assert len(given._known) == 10


# --- loading ---


@pytest.mark.parametrize(
    "text",
    [
        "permit (principal, action, resource)",
        "allow everything;",
        "permit (principal, action, resource);",
        '@id("") permit (principal, action, resource);',
        '@id("a") permit (principal, action, resource);'
        '@id("a") forbid (principal, action, resource);',
        '@id("a") permit (principal, action, resource) when { };',
        '@id("a") permit (principal == User::"unterminated, action, resource);',
    ],
)
def test_a_set_that_cannot_be_used_is_refused_whole(text: str) -> None:
    with pytest.raises(PolicyError):
        policies(SUPPORT, text)


def test_the_file_at_fault_is_named() -> None:
    with pytest.raises(PolicyError, match=r"^1\.cedar: "):
        policies(SUPPORT, "nonsense;")


def test_a_policy_id_in_two_files_is_refused() -> None:
    with pytest.raises(PolicyError, match="support-"):
        policies(SUPPORT, SUPPORT)


def test_the_digest_is_of_names_and_texts_in_any_order() -> None:
    files = [("a.cedar", permit("true", "a")), ("b.cedar", permit("true", "b"))]
    digest = Policies(files).digest
    assert digest == Policies(reversed(files)).digest
    assert len(digest) == 64
    assert digest != Policies([("a.cedar", files[0][1]), ("c.cedar", files[1][1])]).digest
    assert digest != Policies([files[0], ("b.cedar", files[1][1] + " ")]).digest
    assert digest != Policies(files[:1]).digest


def test_without_policies_everything_is_denied() -> None:
    given = NoPolicies()
    for decision in (
        given.connect(ALICE, "shop", "psql"),
        given.execute(ALICE, "shop", "psql", request("select 1")),
    ):
        assert decision.verdict is Verdict.DENY
        assert decision.reason == "the policies cannot be read"


@given(groups=st.lists(st.text(max_size=10), max_size=5).map(tuple), name=st.text(max_size=20))
def test_nobody_outside_the_group_is_let_in(groups: tuple[str, ...], name: str) -> None:
    who = replace(ALICE, groups=groups, name=name)
    allowed = execute(policies(SUPPORT), who=who).verdict is Verdict.ALLOW
    assert allowed is ("support" in groups)
