"""`gatebook targets add`, `list` and `test`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from cli.policy import ConfigOption, folder_of, named, of_target, read_catalog, settings_of
from cli.problems import Problem
from cli.running import PoliciesOption, StateDirOption

if TYPE_CHECKING:
    from gateway.policy.catalog import Snapshot
    from schemas.settings import Settings, Target

# What no role of a gateway needs: each would reach past every policy about tables.
_EXCESS: Final = """
SELECT rolname::text, 'superuser' FROM pg_catalog.pg_roles
 WHERE rolname = current_user AND rolsuper
UNION ALL SELECT rolname, 'createrole' FROM pg_catalog.pg_roles
 WHERE rolname = current_user AND rolcreaterole
UNION ALL SELECT rolname, 'replication' FROM pg_catalog.pg_roles
 WHERE rolname = current_user AND rolreplication
UNION ALL SELECT rolname, 'bypassrls' FROM pg_catalog.pg_roles
 WHERE rolname = current_user AND rolbypassrls
UNION ALL SELECT current_user, rolname FROM pg_catalog.pg_roles
 WHERE rolname LIKE 'pg\\_%' AND rolname <> 'pg_database_owner'
   AND pg_catalog.pg_has_role(current_user, oid, 'member')
   AND NOT (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user)
"""
_LACKING: Final = """
SELECT pg_catalog.quote_ident(n.nspname),
       pg_catalog.has_schema_privilege(n.oid, 'USAGE'),
       count(*) FILTER (WHERE NOT pg_catalog.has_table_privilege(c.oid, 'SELECT'))
  FROM pg_catalog.pg_namespace n JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid
 WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname NOT LIKE 'pg\\_%'
   AND n.nspname <> 'information_schema'
 GROUP BY n.oid, n.nspname ORDER BY 1
"""
_ABOUT: Final = """
SELECT pg_catalog.current_setting('server_version'),
       coalesce((SELECT version FROM pg_catalog.pg_stat_ssl WHERE pid = pg_backend_pid()), ''),
       pg_catalog.quote_ident(current_user), pg_catalog.quote_ident(current_database())
"""


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    group = typer.Typer(
        help="Databases behind the gateway.", no_args_is_help=True, rich_markup_mode="rich"
    )
    group.command(
        epilog="[bold]Example[/bold]\n\n  gatebook targets add crm.yaml --policies policies/"
    )(add)
    group.command("list")(list_targets)
    group.command(epilog="[bold]Examples[/bold]\n\n  gatebook targets test shop")(test)
    app.add_typer(group, name="targets")


def add(
    file: Annotated[Path, typer.Argument(help="YAML file of the target.", dir_okay=False)],
    policies: PoliciesOption = None,
    config: ConfigOption = None,
    state_dir: StateDirOption = None,
) -> None:
    """Check a target and put its file into the folder of policies, as targets/NAME.yaml."""
    settings = settings_of(config, state_dir)
    folder = folder_of(policies, settings) / "targets"
    target = _of_file(file)
    path = folder / f"{target.name}.yaml"
    if path.exists() or named(target.name, settings):
        raise Problem(f"there is a target {target.name} already")
    if not _tested(target):
        raise Problem(f"{target.name} cannot be used; nothing was added")
    folder.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(file.read_text())
    partial.replace(path)
    print(f"added {path}; gateways that read this folder offer it within seconds")


def list_targets(config: ConfigOption = None, state_dir: StateDirOption = None) -> None:
    """The targets of the settings."""
    for target in _settings(config, state_dir).targets:
        classified = f"{len(target.classified)} classified columns"
        where = f"{target.host}:{target.port}/{target.database}"
        print(f"{target.name}  {where} as {target.user}, {target.sslmode}, {classified}")


def test(
    name: Annotated[str, typer.Argument(help="Name of a target, or its YAML file.")],
    config: ConfigOption = None,
    state_dir: StateDirOption = None,
) -> None:
    """Connect to a target as the gateway does. Exit code 1 when it cannot be used."""
    if name.endswith((".yaml", ".yml")):
        target = _of_file(Path(name))
    else:
        _, target = of_target(name, config, state_dir)
    if not _tested(target):
        raise typer.Exit(1)


def _settings(config: Path | None, state_dir: Path | None) -> Settings:
    settings = settings_of(config, state_dir)
    if settings is None:
        raise Problem("name the settings with --config FILE", 2)
    return settings


def _of_file(path: Path) -> Target:
    from schemas.settings import SettingsError, read_target

    try:
        return read_target(path)
    except SettingsError as error:
        raise Problem(str(error), 2) from None


def _tested(target: Target) -> bool:
    """Whether it can be used; says what was seen."""
    try:
        for line in asyncio.run(_seen(target)):
            print(line)
    except _Unusable as error:
        print(f"failed   {error}")
        return False
    return True


class _Unusable(Exception):
    """Why a target cannot be used, in words that hold no password."""


async def _seen(target: Target) -> list[str]:
    import ssl

    import asyncpg

    from gateway.catalog import connect
    from gateway.introspection import OWN_NAMES
    from schemas.settings import SettingsError

    where = f"{target.host}:{target.port}"
    try:
        connection = await connect(
            target,
            timeout=10,
            command_timeout=30,
            server_settings={"application_name": "gatebook-targets-test"},
        )
    except ssl.SSLError as error:
        raise _Unusable(f"TLS to {where} ({target.sslmode}): {error.reason or error}") from None
    except asyncpg.PostgresError as error:
        raise _Unusable(f"{where} refuses {target.user}: {error}") from None
    except SettingsError as error:
        raise _Unusable(f"password: {error}") from None
    except (OSError, TimeoutError, asyncpg.InterfaceError, ValueError) as error:
        raise _Unusable(f"{where} does not answer: {error or type(error).__name__}") from None
    try:
        async with connection.transaction(readonly=True):
            await connection.execute(OWN_NAMES)
            version, tls, role, database = await connection.fetchrow(_ABOUT)
            excess = [tuple(row) for row in await connection.fetch(_EXCESS)]
            lacking = [tuple(row) for row in await connection.fetch(_LACKING)]
    finally:
        await connection.close(timeout=5)
    snapshot = await read_catalog(target)
    if not snapshot.known:
        raise _Unusable(f"the catalog of {target.database} cannot be read by {target.user}")
    missing = [name for name in target.classified if not _is_there(snapshot, name)]
    unused = target.classes.keys() - {each.classification for each in target.classified.values()}
    return [
        f"connects {where} as {role}, PostgreSQL {version}",
        f"tls      {tls or 'none: keep the socket on this host'}",
        f"catalog  read; {sum(1 for _ in lacking)} schemas with tables",
        *(f"warning  there is no column {name}, which is classified" for name in missing),
        *(f"warning  no column is of class {name}" for name in sorted(unused)),
        *_about_rights(role, database, excess, lacking),
    ]


def _is_there(snapshot: Snapshot, column: str) -> bool:
    from gateway.policy.catalog import parts_of

    parts = parts_of(column)
    return len(parts) == 3 and any(
        parts[2] == known.name
        for relation in snapshot.named(parts[1])
        if relation.schema == parts[0]
        for known in relation.columns
    )


def _about_rights(
    role: str, database: str, excess: list[tuple[str, str]], lacking: list[tuple[str, bool, int]]
) -> Iterator[str]:
    for _, right in excess:
        yield f"warning  {role} has more than it needs: {right}"
        if right.startswith("pg_"):
            yield f"           REVOKE {right} FROM {role};"
        else:
            yield f"           ALTER ROLE {role} NO{right.upper()};"
    needed = [f"GRANT CONNECT ON DATABASE {database} TO {role};"]
    for schema, used, unread in lacking:
        if not used:
            needed.append(f"GRANT USAGE ON SCHEMA {schema} TO {role};")
        if unread:
            needed.append(f"GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO {role};")
    if len(needed) == 1:
        yield "rights   it can read every table"
        return
    yield "rights   to let people read every table, its owner runs:"
    for line in needed:
        yield f"           {line}"
