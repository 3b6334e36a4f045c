"""`gatebook mask explain`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from cli import policy
from cli.policy import ConfigOption, GroupOption, WhoOption
from cli.problems import Problem
from cli.running import PoliciesOption, StateDirOption

if TYPE_CHECKING:
    from gateway.masking.comments import Comments
    from gateway.masking.hidden import Mask
    from gateway.masking.plan import Plan
    from gateway.masking.veil import Veil

_WHAT = {
    "pass": "passes as it is: it mentions nothing hidden",
    "pump": "runs as it is, and its rows are masked as they pass",
    "rewrite": "is rewritten, so that no expression in it sees what is hidden",
    "refuse": "is refused",
}


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    group = typer.Typer(
        help="What people see instead of classified values.",
        no_args_is_help=True,
        rich_markup_mode="rich",
    )
    group.callback()(lambda: None)
    group.command(
        epilog="[bold]Example[/bold]\n\n"
        '  gatebook mask explain --as alice --group support "select upper(ssn) from customers"'
    )(explain)
    app.add_typer(group, name="mask")


def explain(
    statement: Annotated[str, typer.Argument(help="What would be run.")],
    *,
    who: WhoOption,
    group: GroupOption = None,
    target: Annotated[str, typer.Option(help="Where.")] = "shop",
    application: Annotated[str, typer.Option(help="application_name.")] = "psql",
    policies: PoliciesOption = None,
    config: ConfigOption = None,
    state_dir: StateDirOption = None,
) -> None:
    """Say what of a statement is masked for somebody, how and why, and what would run."""
    import asyncio

    from gateway.identity.principal import Principal
    from gateway.masking.copies import said
    from gateway.policy.decide import Policies, PolicyError
    from gateway.policy.sql import analyse
    from schemas.settings import SettingsError

    settings, chosen = policy.of_target(target, config, state_dir)
    issuer = settings.oidc.issuer if settings.oidc else "https://issuer"
    principal = Principal(issuer, who, who, tuple(group or ()), None, "person", float("inf"))
    try:
        rules = Policies(policy.files_of(policy.folder_of(policies, settings)))
        catalog = asyncio.run(policy.read_target(chosen))
    except (PolicyError, SettingsError) as error:
        raise Problem(str(error), 1) from None
    veils, comments = catalog.veils, catalog.now.comments
    if veils.hides and catalog.knowledge is None:
        raise Problem(f"{target} does not answer; what it holds decides what is hidden", 1)
    seen = rules.see_clear(principal, target, application, veils.columns(comments))
    for name, (classification, makers) in sorted(comments.ignored.items()):
        print(f"ignored     comment {classification} on {name}: {makers} could have made it")
    for name, fault in sorted(comments.faults.items()):
        print(f"faulty      comment on {name}, masked in full: {fault}")
    veil = veils.of(catalog.knowledge, comments, seen)
    if veil is None:
        print(f"{who} sees everything at {target}: nothing is masked")
    own: frozenset[str] = frozenset()
    for part in analyse(statement):
        if veil is not None:
            found = veil.plan(part.text, own)
            own |= {found.creates} - {""}
            _print(part.text, found, veil, comments)
        copied = veils.copied(catalog.knowledge, comments, part.kinds, part.relations, part.text)
        if copied:
            print(f"statement   {part.text.strip()}\n            is refused: {said(copied)}\n")


def _print(text: str, found: Plan, veil: Veil, comments: Comments) -> None:
    print(f"statement   {text.strip()}")
    print(f"            {_WHAT[found.action]}" + (f": {found.reason}" if found.reason else ""))
    for name in found.columns:
        print(f"hidden      {name}: {_how(name, veil.masks.get(name), comments)}")
    for name, reason, budget in sorted({(p.origin, p.reason, p.budget) for p in found.probes}):
        print(f"compared    {name}, in clear, {budget} distinct values an hour: {reason}")
    if found.edits:
        print(f"runs        {found.apply(text).strip()}")
    print()


def _how(name: str, mask: Mask | None, comments: Comments) -> str:
    """How it is masked, and where its class comes from."""
    if mask is None:
        return ""
    parts = (
        f"/{'/'.join(part.pointer)} {part.mask.classification}, {part.mask.name}"
        for part in mask.parts
    )
    shown = "; ".join(parts) or f"{mask.classification}, {mask.name}"
    if not mask.origin:
        return shown
    by = "comment" if mask.origin in comments.masks else "configuration"
    return f"{shown}; by {by}" + (f" of {mask.origin}" if mask.origin != name else "")
