"""`gatebook policy check`, `test` and `explain`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import replay
from cli.problems import Problem
from cli.running import PoliciesOption, StateDirOption, state_at

if TYPE_CHECKING:
    from gateway.catalog import Catalog
    from gateway.policy.catalog import Snapshot
    from gateway.policy.explain import Explanation
    from gateway.policy.facts import Facts
    from schemas.settings import Settings, Target

_FOLDER_HELP = "Folder of policies; the one of the settings when absent."
_WIDTH = 70
FolderArgument = Annotated[
    Path | None, typer.Argument(metavar="[DIR]", help=_FOLDER_HELP, file_okay=False)
]
WhoOption = Annotated[str, typer.Option("--as", help="Name of who runs it.")]
GroupOption = Annotated[
    list[str] | None, typer.Option("--group", "-g", help="A group of theirs; repeatable.")
]
ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        help="Settings with the targets.",
        show_default="those of the stack in --state-dir",
        dir_okay=False,
    ),
]


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    group = typer.Typer(
        help="Check, test and explain policies.", no_args_is_help=True, rich_markup_mode="rich"
    )
    group.command(epilog="[bold]Example[/bold]\n\n  gatebook policy check policies/")(check)
    group.command(
        epilog="[bold]Examples[/bold]\n\n  gatebook policy test policies/"
        "\n\n  gatebook policy test gateway/policy/packs"
    )(test)
    group.command(
        epilog="[bold]Example[/bold]\n\n"
        '  gatebook policy explain --as alice --group support "delete from orders"'
    )(explain)
    replay.register(group)
    app.add_typer(group, name="policy")


def settings_of(config: Path | None, state_dir: Path | None) -> Settings | None:
    """The settings named, or those of a stack; None where there are none. Raises Problem."""
    from schemas.settings import SettingsError, load

    path = config or state_at(state_dir).config_file
    if config is None and not path.exists():
        return None
    try:
        return load(path)
    except SettingsError as error:
        raise Problem(str(error), 2) from None


def named(target: str, settings: Settings | None) -> Target | None:
    """The target of that name, where the settings have one."""
    return (
        next((each for each in settings.targets if each.name == target), None) if settings else None
    )


def of_target(target: str, config: Path | None, state_dir: Path | None) -> tuple[Settings, Target]:
    """The settings as `settings_of` finds them, and a target of theirs. Raises Problem."""
    settings = settings_of(config, state_dir)
    if settings is None:
        raise Problem("name the settings with --config FILE", 2)
    chosen = named(target, settings)
    if chosen is None:
        raise Problem(f"{target} is not among the settings' targets", 2)
    return settings, chosen


def folder_of(folder: Path | None, settings: Settings | None) -> Path:
    """The folder named, or the one of the settings. Raises Problem."""
    chosen = folder or (settings.gateway.policies if settings else None)
    if chosen is None:
        raise Problem("name the folder of policies, or --config FILE whose settings do", 2)
    return chosen


def files_of(folder: Path) -> list[tuple[str, str]]:
    """Its Cedar files. Raises Problem."""
    from gateway import policy_files
    from gateway.policy.decide import PolicyError

    try:
        return policy_files.read(folder)
    except PolicyError as error:
        raise Problem(str(error)) from None


def check(
    folder: FolderArgument = None,
    config: ConfigOption = None,
    state_dir: StateDirOption = None,
    strict: Annotated[bool, typer.Option("--strict", help="Fail at warnings, too.")] = False,
) -> None:
    """Find what is wrong with policies: names, types, rules that say nothing; and with files of
    targets. Exit code 1 if so.
    """
    from gateway.policy.check import Known, errors, findings

    broken = _broken_targets(folder)
    for text in broken:
        print(f"error: {text}")
    if broken:
        raise typer.Exit(1)
    settings = settings_of(config, state_dir)
    chosen = folder_of(folder, settings)
    known = None
    if settings is not None:
        known = Known({t.name: frozenset(t.classified) for t in settings.targets})
    files = files_of(chosen)
    found = findings(files, known)
    for finding in found:
        print(f"{chosen / finding.file}:{str(finding).partition(':')[2]}")
    doubtful = [] if settings is None else _doubtful(settings)
    for text in doubtful:
        print(f"warning: {text}")
    wrong = errors(found)
    rest = len(found) - len(wrong) + len(doubtful)
    if known is None:
        print("(no settings: names of targets and columns are not checked; see --config)")
    print(f"{_count(len(files), 'file')}: {_count(len(wrong), 'error')}, {_count(rest, 'warning')}")
    if wrong or (strict and rest):
        raise typer.Exit(1)


def _broken_targets(folder: Path | None) -> list[str]:
    """What is wrong with the files of targets of a folder that is named; in the folder of the
    settings, they are read with these.
    """
    from schemas.settings import SettingsError, read_target, target_files

    said, names = list[str](), set[str]()
    for path in target_files(folder) if folder else ():
        try:
            target = read_target(path)
        except SettingsError as error:
            said.append(str(error))
            continue
        if target.name in names:
            said.append(f"{path}: two targets are named {target.name}")
        names.add(target.name)
    return said


def _doubtful(settings: Settings) -> list[str]:
    from gateway.recipients import recipients_of, warnings
    from schemas.settings import SettingsError

    try:
        return warnings(recipients_of(settings)) if settings.recipients else []
    except SettingsError as error:
        # Policies are written on other machines than those that have the keys.
        print(f"({error}: recipients are not checked)")
        return []


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def test(
    folder: FolderArgument = None,
    config: ConfigOption = None,
    state_dir: StateDirOption = None,
) -> None:
    """Run the cases beside the policies. Exit code 1 when one comes out otherwise.

    NAME.tests.yaml is tried with all policies of the folder; NAME.yaml beside NAME.cedar with
    these alone, and everything permitted that they do not forbid.
    """
    import time

    from gateway import policy_files

    chosen = folder_of(folder, settings_of(config, state_dir))
    files = files_of(chosen)
    whole = sorted(chosen.glob(policy_files.TESTS))
    alone = [
        path
        for path in sorted(chosen.glob("*.yaml"))
        if path not in whole and path.with_suffix(".cedar").exists()
    ]
    if not whole and not alone:
        raise Problem(f"{chosen} holds no {policy_files.TESTS}", 2)
    began = time.monotonic()
    passed, failed = 0, list[str]()
    for path in [*whole, *alone]:
        given = files
        if path in alone:
            name = f"{path.stem}.cedar"
            given = [policy_files.EVERYTHING, *(file for file in files if file[0] == name)]
        ran, wrong = _run_cases(path, given)
        passed += ran - len(wrong)
        failed += wrong
    if failed:
        print("\n" + " FAILURES ".center(_WIDTH, "="))
        print("\n".join(failed))
    said = [_count(len(failed), "case") + " failed"] if failed else []
    said.append(f"{passed} passed")
    print(f"\n {', '.join(said)} in {time.monotonic() - began:.2f} s ".center(_WIDTH, "="))
    if failed or not passed:
        raise typer.Exit(1)


def _run_cases(path: Path, files: list[tuple[str, str]]) -> tuple[int, list[str]]:
    """How many ran, and what is to be said of those that failed."""
    import yaml

    from gateway.policy import cases
    from gateway.policy.decide import PolicyError, checked

    try:
        text = path.read_text()
        document = yaml.safe_load(text)
        if not isinstance(document, dict) or not document.get("cases"):
            raise Problem(f"{path}: holds no `cases`")
        lines = _case_lines(text)
        marks, wrong = "", []
        for result in cases.run(document, checked(files)):
            marks += "F" if result.wrong else "."
            if result.wrong:
                case = document["cases"][result.number - 1]
                expected = {k: case[k] for k in ("allow", "deny", "hold", "message") if k in case}
                said = " ".join(f"{key}: {value}" for key, value in expected.items())
                wrong.append(
                    f"{path}:{lines[result.number - 1]}: {result.statement}\n"
                    f"    expected  {said}\n    got       {result.wrong}"
                )
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise Problem(f"{path}: {error}") from None
    except (cases.CaseError, PolicyError) as error:
        raise Problem(f"{path}: {error}") from None
    print(f"{path.name} {marks}")
    return len(marks), wrong


def _case_lines(text: str) -> list[int]:
    import yaml

    node: Any = yaml.compose(text, Loader=yaml.SafeLoader)
    (cases,) = (value for key, value in node.value if key.value == "cases")
    return [case.start_mark.line + 1 for case in cases.value]


def explain(
    statement: Annotated[str, typer.Argument(help="What would be run.")],
    *,
    who: WhoOption,
    group: GroupOption = None,
    target: Annotated[str, typer.Option(help="Where.")] = "shop",
    agent: Annotated[str, typer.Option(help="The agent that acts for them.")] = "",
    application: Annotated[str, typer.Option(help="application_name.")] = "psql",
    address: Annotated[str, typer.Option("--from", help="Client address.")] = "127.0.0.1",
    at: Annotated[str, typer.Option(help="When, as 2026-11-24T10:00:00Z.")] = "",
    policies: PoliciesOption = None,
    config: ConfigOption = None,
    state_dir: StateDirOption = None,
) -> None:
    """Say what the analysis sees in a statement, how it is decided, and what would change that."""
    import time
    from datetime import datetime

    from gateway.identity.principal import Principal
    from gateway.policy.cases import requests
    from gateway.policy.decide import Moment, Policies, PolicyError
    from gateway.policy.explain import explain as explained
    from gateway.policy.resolve import Resolver

    settings = settings_of(config, state_dir)
    files = files_of(folder_of(policies, settings))
    try:
        now = datetime.fromisoformat(at).timestamp() if at else time.time()
    except ValueError as error:
        raise Problem(f"--at: {error}", 2) from None
    snapshot, about = _catalog(target, settings)
    print(about)
    issuer = settings.oidc.issuer if settings and settings.oidc else "https://issuer"
    principal = Principal(
        issuer,
        who,
        who,
        tuple(group or ()),
        agent or None,
        "agent" if agent else "person",
        float("inf"),
        signed_in_at=now,
    )
    moment = Moment(address, now)
    try:
        for request in requests(statement, Resolver(snapshot)):

            def ask(given: Policies, request: Any = request) -> Any:
                return given.execute(principal, target, application, request, moment)

            print()
            _print_facts(request.kind, request.facts, request.refusal)
            _print_explanation(explained(files, ask))
    except PolicyError as error:
        raise Problem(f"{error}; see gatebook policy check", 1) from None


def _catalog(target: str, settings: Settings | None) -> tuple[Snapshot, str]:
    """The target's catalog as it is now, or an empty one; and which it is, in words."""
    import asyncio

    from gateway.policy.catalog import EMPTY

    without = "judged without a catalog: names are not known, views and functions not looked into"
    chosen = named(target, settings)
    if chosen is None:
        return EMPTY, f"({target} is not among the settings' targets; {without})"
    snapshot = asyncio.run(read_catalog(chosen))
    if not snapshot.known:
        return EMPTY, f"({target} does not answer; {without})"
    return snapshot, f"(judged by the catalog of {target} as it is now)"


async def read_catalog(target: Target) -> Snapshot:
    """Of a target; not `known` where it does not answer."""
    return (await read_target(target)).now.resolve.snapshot


async def read_target(target: Target) -> Catalog:
    """A target's catalog, read once."""
    import structlog

    from gateway.catalog import Catalog

    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    catalog = Catalog(target, 30.0)
    first = catalog.look()
    catalog.start()
    await first
    await catalog.close()
    return catalog


def _print_facts(kind: str, facts: Facts, refusal: str) -> None:
    print(f"statement   {kind}")
    shown = {
        "kinds": facts.kinds,
        "reads": facts.columns_read or facts.tables_read,
        "writes": facts.columns_written or facts.tables_written,
        "calls": facts.functions,
        "ddl": facts.ddl,
        "files": facts.files,
        "links": facts.links,
        "unknown": facts.unknown,
    }
    for name, values in shown.items():
        if values:
            print(f"{name:11} {', '.join(sorted(values))}")
    where = "restricts" if facts.has_where else "none that restricts"
    print(f"where       {where}")
    if facts.has_limit:
        print(f"limit       {facts.limit if facts.limit >= 0 else 'not a number'}")
    print(f"risk        {facts.risk}{': ' if facts.risks else ''}{'; '.join(facts.risks)}")
    if refusal:
        print(f"refused     {refusal}")


def _print_explanation(found: Explanation) -> None:
    decision = found.decision
    said = f": {decision.reason}" if decision.reason else ""
    print(f"decision    {decision.verdict.value}{said}")
    if decision.hint:
        print(f"hint        {decision.hint}")
    if decision.limit is not None:
        print(f"rows        at most {decision.limit.rows}: {decision.limit.reason}")
        print(f"hint        {decision.limit.hint}")
    for rule in found.deciding:
        print(f"by          {rule.effect} {rule.name} ({rule.file}:{rule.line})")
    if found.otherwise is not None:
        other = found.otherwise
        by = ", ".join(other.policies) or other.reason
        print(f"without it  {other.verdict.value} ({by})")
    for rule in found.permits:
        where = f"permit {rule.name} ({rule.file}:{rule.line})"
        if rule.fails:
            print(f"{where} would apply, but for")
            for part in rule.fails:
                print(f"            {part}")
        elif not found.deciding:
            print(f'{where} applies to what is understood: it does not say @unknown("permitted")')
