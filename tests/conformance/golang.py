"""Suites in Go: a module carries its tests, and `go.sum` pins what they need."""

from __future__ import annotations

import json
import re
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from infra.devstack.conninfo import Conninfo
from tests.conformance import sources
from tests.conformance.sources import Unavailable
from tests.conformance.suites import (
    AUTHENTICATION,
    FAILED,
    PASSED,
    SKIPPED,
    SUITE_TIMEOUT_S,
    Outcome,
    Outcomes,
    Suite,
    libpq,
    prepare,
    printed,
)

_KINDS = {"pass": PASSED, "fail": FAILED, "skip": SKIPPED}


@dataclass(frozen=True, slots=True)
class Module:
    """A module at a version; `sum` is its hash as go.sum has it."""

    path: str
    version: str
    sum: str

    def folder(self) -> Path:
        """Its content, what its tests need built. Raises Unavailable."""
        return sources.made(f"{self.path.replace('/', '-')}-{self.version}", self._make)

    def _make(self, folder: Path) -> None:
        command = ("go", "mod", "download", "-json", f"{self.path}@{self.version}")
        try:
            # Outside of any module: nobody's go.mod takes part.
            with tempfile.TemporaryDirectory() as nowhere:
                done = subprocess.run(command, cwd=nowhere, capture_output=True, check=False)
        except OSError as error:
            raise Unavailable(f"go cannot be started: {error.strerror}") from error
        if done.returncode != 0:
            raise Unavailable(f"go cannot fetch {self.path} {self.version}")
        found = json.loads(done.stdout)
        if found["Sum"] != self.sum:
            raise Unavailable(f"{self.path} {self.version} has {found['Sum']}, not {self.sum}")
        shutil.copytree(found["Dir"], folder, dirs_exist_ok=True)
        # The module cache is read-only, and some tests write beside themselves.
        for each in (folder, *folder.rglob("*")):
            each.chmod(each.stat().st_mode | stat.S_IWUSR)
        # Built, not run: some need a server to begin with.
        sources.run("go", "test", "-vet=off", "-exec=true", "./...", cwd=folder)


@dataclass(frozen=True, slots=True)
class GoSuite:
    """A module's tests, package after package.

    `variables` name the server beside libpq's own variables; `prepare` is run against it first.
    Tests are named `FOLDER:TEST`. `excluded` gives reasons by the test's name alone.
    """

    module: Module
    variables: Callable[[Conninfo], Mapping[str, str]]
    prepare: tuple[str, ...] = ()
    excluded: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Name and version."""
        return f"{self.module.path} {self.module.version}"

    def run(self, server: Conninfo, only: frozenset[str] | None = None) -> Outcomes:
        """See Suite.run. Of a subtest its whole test is run."""
        folder = self.module.folder()
        prepare(server, server.database, *self.prepare)
        return printed(
            self.name,
            [
                *("go", "test", "-json", "-vet=off", "-count=1", "-p=1"),
                *(f"-timeout={SUITE_TIMEOUT_S // 2}s", f"-skip={pattern(self.excluded)}"),
                *chosen(only),
            ],
            folder,
            {**libpq(server), **self.variables(server)},
            lambda lines: collected(lines, self.module.path),
        )


def pattern(tests: Iterable[str]) -> str:
    """What `-run` and `-skip` take for exactly these. Nothing is named by a name of no test."""
    return "|".join(
        "/".join(f"^{re.escape(part)}$" for part in test.split("/")) for test in sorted(tests)
    ) or ("^$")


def chosen(only: frozenset[str] | None) -> list[str]:
    """The arguments by which `go test` runs at least these."""
    if only is None:
        return ["./..."]
    folders = sorted({test.partition(":")[0] for test in only})
    tests = {name.partition("/")[0] for test in only if (name := test.partition(":")[2])}
    return [*([f"-run={pattern(tests)}"] if tests else []), *(f"./{each}" for each in folders)]


def collected(lines: str, module: str) -> dict[str, Outcome]:
    """How each test ended, from what `go test -json` prints."""
    found: dict[str, Outcome] = {}
    texts: dict[str, list[str]] = {}
    for line in lines.splitlines():
        if not line.startswith("{"):
            continue
        event = json.loads(line)
        if "Test" not in event:
            continue
        folder = event["Package"].removeprefix(module).removeprefix("/") or "."
        test = f"{folder}:{event['Test']}"
        match event["Action"]:
            case "run":
                # What is not told ended with the whole program: a panic, or the time was up.
                found[test] = Outcome(FAILED, "it did not end")
            case "output":
                texts.setdefault(test, []).append(event["Output"])
            case "pass" | "fail" | "skip" as how:
                text = "" if how == "pass" else "".join(texts.get(test, []))[-4000:]
                found[test] = Outcome(_KINDS[how], text)
    return found


def _pgx(server: Conninfo) -> dict[str, str]:
    words = (
        f"host={server.host} port={server.port} user={server.user} password={server.password} "
        f"dbname={server.database} sslmode={server.sslmode}"
    )
    return {"PGX_TEST_DATABASE": words, "PGX_TEST_TCP_CONN_STRING": words}


_PGX = GoSuite(
    Module("github.com/jackc/pgx/v5", "v5.12.0", "h1:hWwax8YiGT0YiN50U1oIDn5kgR7KC2tG3rmavwpPkxY="),
    _pgx,
    # As its testsetup/postgresql_setup.sql, without the roles for tests of authentication.
    prepare=(
        "create extension hstore",
        "create extension ltree",
        "create domain uint64 as numeric(20,0)",
        """create user " tricky, ' } "" \\ test user " superuser""",
    ),
    excluded={
        "TestConnectInvalidUser": AUTHENTICATION,
        "TestParseConfigSSLCertMode": "names its tests after a temporary folder, asks no server",
    },
)
_PQ = GoSuite(
    Module("github.com/lib/pq", "v1.12.3", "h1:tTWxr2YLKwIvK90ZXEw8GP7UFHtcbTtty8zsI+YjrfQ="),
    lambda _: {},
    excluded={
        **dict.fromkeys(
            (
                "TestAuth/end_to_end",
                "TestErrorDuringStartup",
                "TestErrorDuringStartupClosesConn",
            ),
            AUTHENTICATION,
        ),
        **dict.fromkeys(
            (
                "TestSSLClientCertificateIntermediate",
                "TestSSLClientCertificates",
                "TestSSLDefaults",
            ),
            "signs in with certificates of the suite",
        ),
    },
)

ALL: Mapping[str, Suite] = {"pgx": _PGX, "pq": _PQ}
