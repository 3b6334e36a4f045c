"""The suites: what each is made of, how it is run, and what is left out on both sides."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import psycopg

from infra.devstack.conninfo import Conninfo
from tests.conformance import postgresql, sources
from tests.conformance.sources import Sdist, Unavailable

PASSED, SKIPPED, FAILED = "passed", "skipped", "failed"
_TIMEOUT_S = 90
SUITE_TIMEOUT_S = 3600


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one test ended. `kind` is passed, skipped, or failed with a word about how; `said` is
    what it saw, where it tells.
    """

    kind: str
    text: str = field(default="", compare=False)
    said: str = ""

    @property
    def failed(self) -> bool:
        """Whether it neither passed nor was skipped."""
        return self.kind not in (PASSED, SKIPPED)


Outcomes = Mapping[str, Outcome]


class Suite(Protocol):
    """A suite that can be pointed at a server."""

    @property
    def name(self) -> str:
        """Name and version."""

    def run(self, server: Conninfo, only: frozenset[str] | None = None) -> Outcomes:
        """Outcomes by test id, of all tests or those in `only`. Raises Unavailable."""


@dataclass(frozen=True, slots=True)
class PytestSuite:
    """A driver's suite under its own pytest.

    `excluded` names tests that say nothing about a gateway, each with the reason; `beside` what of
    the source the tests need beside them.
    """

    source: Sdist
    tests: str
    excluded: Mapping[str, str] = field(default_factory=dict)
    beside: tuple[str, ...] = ("README.md",)

    @property
    def name(self) -> str:
        """Name and version."""
        return f"{self.source.name} {self.source.version}"

    def run(self, server: Conninfo, only: frozenset[str] | None = None) -> Outcomes:
        """See Suite.run."""
        folder = self.source.folder()
        python = sources.python(self.source.name)
        with tempfile.TemporaryDirectory(prefix="conformance-") as name:
            # A copy without the sources of the driver itself, which would hide the built one.
            work = Path(name)
            shutil.copytree(folder / self.tests, work / self.tests)
            for extra in self.beside:
                if (folder / extra).is_dir():
                    shutil.copytree(folder / extra, work / extra)
                elif (folder / extra).exists():
                    shutil.copy(folder / extra, work / extra)
            listed = work / "only.txt"
            listed.write_text("".join(f"{test}\n" for test in self.chosen(only)))
            return logged(
                self.name,
                [
                    *(python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "outcomes"),
                    *("--rootdir", work, "--tb=short", f"--timeout={_TIMEOUT_S}"),
                    *self.arguments(server),
                    *(word for test in self.excluded for word in ("--deselect", test)),
                    f"@{listed}",
                ],
                work,
                {**libpq(server), "PYTHONPATH": str(Path(__file__).parent)},
                collected,
            )

    def chosen(self, only: frozenset[str] | None) -> list[str]:
        """What pytest is asked for."""
        return [self.tests] if only is None else sorted(only)

    def arguments(self, server: Conninfo) -> tuple[str, ...]:
        """More words for pytest."""
        return ()


def printed(
    name: str,
    command: Sequence[str | Path],
    folder: Path,
    variables: Mapping[str, str],
    collect: Callable[[str], Outcomes],
) -> Outcomes:
    """Outcomes that a suite's program prints, run in `folder`. Raises Unavailable."""
    text = _ran(command, folder, variables)
    return _some(name, collect(text), text)


def logged(
    name: str,
    command: Sequence[str | Path],
    folder: Path,
    variables: Mapping[str, str],
    collect: Callable[[str], Outcomes],
) -> Outcomes:
    """Outcomes that a suite's program writes to the file it is told, run in `folder`.

    Raises Unavailable.
    """
    log = folder / "outcomes.jsonl"
    log.touch()
    text = _ran(command, folder, {**variables, "CONFORMANCE_OUTCOMES": str(log)})
    return _some(name, collect(log.read_text()), text)


def _ran(command: Sequence[str | Path], folder: Path, variables: Mapping[str, str]) -> str:
    done = subprocess.run(
        command,
        cwd=folder,
        env=sources.environment(**variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=SUITE_TIMEOUT_S,
        check=False,
    )
    return done.stdout.decode(errors="replace")


def _some(name: str, found: Outcomes, text: str) -> Outcomes:
    if not found:
        raise Unavailable(f"{name} ran no test:\n{text.strip()[-2000:]}")
    return found


def libpq(server: Conninfo) -> dict[str, str]:
    """How libpq, and clients that do as it does, find a server."""
    return {
        "PGHOST": server.host,
        "PGPORT": str(server.port),
        "PGUSER": server.user,
        "PGPASSWORD": server.password,
        "PGDATABASE": server.database,
        # Else a client would speak TLS to the one that offers it and not to the other.
        "PGSSLMODE": server.sslmode,
        "PSYCOPG2_TESTDB": server.database,
    }


def prepare(server: Conninfo, database: str, *statements: str) -> None:
    """Make in an empty server what a suite expects there."""
    with psycopg.connect(
        host=server.host,
        port=server.port,
        dbname=database,
        user=server.user,
        password=server.password,
        sslmode=server.sslmode,
        autocommit=True,
    ) as connection:
        for statement in statements:
            connection.execute(statement.encode())


def collected(lines: str) -> dict[str, Outcome]:
    """The worst of each test's phases."""
    found: dict[str, Outcome] = {}
    for line in lines.splitlines():
        report = json.loads(line)
        test, outcome = report["test"], Outcome(report["outcome"], report["text"])
        before = found.get(test)
        if before is None or outcome.failed or (outcome.kind == SKIPPED and not before.failed):
            found[test] = outcome
    return found


@dataclass(frozen=True, slots=True)
class Regress:
    """PostgreSQL's pg_regress with its core schedule.

    A test that fails on both sides counts as the same only if it fails with the same output.
    """

    schedule: str = "parallel_schedule"
    tests: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Name and version."""
        return f"pg_regress {postgresql.VERSION}"

    def run(self, server: Conninfo, only: frozenset[str] | None = None) -> Outcomes:
        """See Suite.run. The tests build on each other: all are run, whatever `only` says."""
        built = postgresql.build()
        inputs = postgresql.readable(built) / "regress"
        # The server writes files there too.
        with tempfile.TemporaryDirectory(dir=inputs.parent, prefix="output-") as name:
            output = Path(name)
            output.chmod(0o777)
            (output / "results").mkdir()
            (output / "results").chmod(0o777)
            chosen = list(self.tests) or [f"--schedule={inputs / self.schedule}"]
            text = _ran(
                [
                    built / "regress" / "pg_regress",
                    *(f"--inputdir={inputs}", f"--outputdir={output}", f"--dlpath={inputs}"),
                    *(f"--bindir={built / 'install' / 'bin'}", f"--host={server.host}"),
                    *(f"--port={server.port}", f"--user={server.user}"),
                    *("--max-connections=8", *chosen),
                ],
                output,
                {
                    "PGPASSWORD": server.password,
                    "LD_LIBRARY_PATH": str(built / "install" / "lib"),
                    "PGCONNECT_TIMEOUT": "30",
                },
            )
            diffs = output / "regression.diffs"
            found = _regressed(
                text,
                output / "results",
                _by_test(diffs.read_text(errors="replace") if diffs.exists() else ""),
            )
        return _some(self.name, found, text)


def _by_test(diffs: str) -> dict[str, str]:
    """What regression.diffs says of each test."""
    found: dict[str, str] = {}
    for part in re.split(r"(?m)^diff (?=-)", diffs)[1:]:
        head = re.search(r"/([^/\s]+)\.out", part)
        if head:
            # Its first three lines name folders and times.
            found[head.group(1)] = "\n".join(part.splitlines()[3:])
    return found


def _regressed(printed: str, results: Path, diffs: Mapping[str, str]) -> dict[str, Outcome]:
    found: dict[str, Outcome] = {}
    for line in printed.splitlines():
        match = re.match(r"^(?:test |\s+)(\w+)\s+\.\.\. (ok|FAILED|failed)", line)
        if not match:
            continue
        test, word = match.group(1), match.group(2)
        if word == "ok":
            found[test] = Outcome(PASSED)
            continue
        output = results / f"{test}.out"
        content = output.read_bytes() if output.exists() else b""
        digest = hashlib.sha256(content).hexdigest()[:12]
        found[test] = Outcome(f"{FAILED} with output {digest}", diffs.get(test, ""))
    return found


@dataclass(frozen=True, slots=True)
class LibpqPipeline:
    """PostgreSQL's own test of libpq's pipeline mode."""

    @property
    def name(self) -> str:
        """Name and version."""
        return f"libpq_pipeline {postgresql.VERSION}"

    def run(self, server: Conninfo, only: frozenset[str] | None = None) -> Outcomes:
        """See Suite.run."""
        built = postgresql.build()
        program = built / "libpq_pipeline"
        env = sources.environment(**libpq(server), LD_LIBRARY_PATH=str(built / "install" / "lib"))
        listed = subprocess.run(
            [program, "tests"], env=env, capture_output=True, text=True, check=True
        )
        found: dict[str, Outcome] = {}
        for test in listed.stdout.split():
            if only is not None and test not in only:
                continue
            try:
                done = subprocess.run(
                    [program, "-r", "700", test, f"host={server.host} dbname={server.database}"],
                    env=env,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    timeout=_TIMEOUT_S,
                    check=False,
                )
            except subprocess.TimeoutExpired:
                found[test] = Outcome(FAILED, f"not within {_TIMEOUT_S} s")
                continue
            text = done.stdout.decode(errors="replace")[-4000:]
            found[test] = Outcome(FAILED if done.returncode else PASSED, text)
        return found


AUTHENTICATION = "signs in as roles of the server with their passwords"
"""Why a test is left out: a gateway has another way to sign in."""

_CLUSTERS = "starts servers of its own, and is not about the one it is pointed at"

ASYNCPG = PytestSuite(
    Sdist("asyncpg", "0.32.0", "45e64e56714d888330b884aad1dfb363d0bf43fb343e3d1a8968525f3bade478"),
    "tests",
    excluded={
        **dict.fromkeys(
            (
                "tests/test_connect.py::TestAuthentication",
                "tests/test_connect.py::TestGssAuthentication",
                "tests/test_connect.py::TestSspiAuthentication",
            ),
            AUTHENTICATION,
        ),
        **dict.fromkeys(
            (
                "tests/test_connect.py::TestSSLConnection",
                "tests/test_connect.py::TestClientSSLConnection",
                "tests/test_connect.py::TestNoSSLConnection",
                "tests/test_connect.py::TestConnectionAttributes",
            ),
            _CLUSTERS,
        ),
        "tests/test_execute.py::TestExecuteMany::test_executemany_server_failure_during_writes": (
            "asserts that an error arrives before the client has written 4 MB, which depends on "
            "how fast both machines are"
        ),
    },
)
PG8000 = PytestSuite(
    Sdist("pg8000", "1.31.6", "553b240256d4b2d8f0ad2af28d07df1f9980247f74ac98d2c2b573762ec1ff1b"),
    "test",
    excluded={
        **dict.fromkeys(
            (
                "test/dbapi/auth",
                "test/legacy/auth",
                "test/native/auth",
                "test/dbapi/test_connection.py::test_password_bytes",
                "test/legacy/test_connection.py::testBytesPassword",
                "test/legacy/test_connection.py::test_scram_sha_256",
                "test/native/test_connection.py::test_bytes_password",
            ),
            AUTHENTICATION,
        ),
        **dict.fromkeys(
            (
                "test/dbapi/test_connection.py::test_broken_pipe_read",
                "test/legacy/test_connection.py::test_broken_pipe_read",
                "test/native/test_connection.py::test_broken_pipe_read",
            ),
            "fails direct, now and then: the end of a terminated session comes as an end of file "
            "or as a reset, whichever the kernel makes of it",
        ),
    },
)
PSYCOPG2 = PytestSuite(
    Sdist("psycopg2", "2.9.13", "d36784fc2dae69523ba4b79c7d1d1b4d6e83e87836874f111262f4db940b16a6"),
    "tests",
    excluded=dict.fromkeys(
        (
            "tests/test_async.py::AsyncTests::test_flush_on_write",
            "tests/test_green.py::GreenTestCase::test_flush_on_write",
        ),
        "sends larger and larger statements, up to 50 MB, until the kernel's buffers are full: "
        "whether it goes past the 16 MiB of the gateway depends on the load",
    ),
)

ALL: Mapping[str, Suite] = {
    "asyncpg": ASYNCPG,
    "pg8000": PG8000,
    "psycopg2": PSYCOPG2,
    "libpq_pipeline": LibpqPipeline(),
    "pg_regress": Regress(),
}
