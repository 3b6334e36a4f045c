"""`gatebook mask explain`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli import policy
from cli.policy import ConfigOption, GroupOption, WhoOption
from cli.problems import Problem
from cli.running import StateDirOption

if TYPE_CHECKING:
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
    policies: Annotated[
        Path | None, typer.Option("--policies", help="Folder of policies.", file_okay=False)
    ] = None,
    config: ConfigOption = None,
    state_dir: StateDirOption = None,
) -> None:
    """Say what of a statement is masked for somebody, how and why, and what would run."""
    import asyncio

    from gateway.identity.principal import Principal
    from gateway.masking.copies import said
    from gateway.policy.decide import Policies, PolicyError
    from gateway.policy.sql import analyse
    from gateway.veils import Veils
    from schemas.settings import SettingsError

    settings = policy.settings_of(config, state_dir)
    chosen = [each for each in (settings.targets if settings else ()) if each.name == target]
    if settings is None or not chosen:
        raise Problem(f"{target} is not among the settings' targets", 2)
    issuer = settings.oidc.issuer if settings.oidc else "https://issuer"
    principal = Principal(issuer, who, who, tuple(group or ()), None, "person", float("inf"))
    try:
        veils = Veils(chosen[0])
        rules = Policies(policy.files_of(policy.folder_of(policies, settings)))
    except (PolicyError, SettingsError) as error:
        raise Problem(str(error), 1) from None
    seen = rules.see_clear(principal, target, application, veils.columns)
    catalog = asyncio.run(policy.read_target(chosen[0]))
    if veils.columns and catalog.now.knowledge is None:
        raise Problem(f"{target} does not answer; what it holds decides what is hidden", 1)
    veil = veils.of(catalog.now.knowledge, seen)
    if veil is None:
        print(f"{who} sees everything at {target}: nothing is masked")
    own: frozenset[str] = frozenset()
    for part in analyse(statement):
        if veil is not None:
            found = veil.plan(part.text, own)
            own |= {found.creates} - {""}
            _print(part.text, found, veil)
        copied = veils.copied(catalog.now.knowledge, part.kinds, part.relations, part.text)
        if copied:
            print(f"statement   {part.text.strip()}\n            is refused: {said(copied)}\n")


def _print(text: str, found: Plan, veil: Veil) -> None:
    print(f"statement   {text.strip()}")
    print(f"            {_WHAT[found.action]}" + (f": {found.reason}" if found.reason else ""))
    for name in found.columns:
        print(f"hidden      {name}: {veil.masks.get(name, '')}")
    for name, reason, budget in sorted({(p.origin, p.reason, p.budget) for p in found.probes}):
        print(f"compared    {name}, in clear, {budget} distinct values an hour: {reason}")
    if found.edits:
        print(f"runs        {found.apply(text).strip()}")
    print()
