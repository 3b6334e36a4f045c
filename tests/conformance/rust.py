"""Suites in Rust: crates that carry their tests, and a Cargo.lock for what these need."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
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
    Outcome,
    Outcomes,
    Suite,
    libpq,
    prepare,
    printed,
)

_KINDS = {"ok": PASSED, "FAILED": FAILED, "ignored": SKIPPED}
_PROGRAM = "conformance-tests"

_HERE = """
fn here(text: &str) -> String {
    let with_password = format!("user=postgres password={}", std::env::var("PGPASSWORD").unwrap());
    text.replace("5433", &std::env::var("PGPORT").unwrap())
        .replace("user=postgres", &with_password)
}
"""
"""For tests that name their server in their text: the same, where ours is."""


@dataclass(frozen=True, slots=True)
class Edit:
    """A change to a test's text by which it finds the server; `append` goes behind the rest."""

    file: str
    pattern: str
    replacement: str
    append: str = ""

    def apply(self, folder: Path) -> None:
        """Raises Unavailable when there is nothing to change."""
        path = folder / self.file
        text, found = re.subn(self.pattern, self.replacement, path.read_text())
        if not found:
            raise Unavailable(f"{self.file} has no {self.pattern}")
        path.write_text(text + self.append)


@dataclass(frozen=True, slots=True)
class Crate:
    """A crate at a version; `sha256` is its checksum as Cargo.lock has it.

    `tests` are the arguments by which cargo builds its one program of tests.
    """

    name: str
    version: str
    sha256: str
    tests: tuple[str, ...]
    edits: tuple[Edit, ...] = ()

    def program(self) -> Path:
        """The built tests. Raises Unavailable."""
        return sources.made(f"{self.name}-{self.version}", self._make) / _PROGRAM

    def _make(self, folder: Path) -> None:
        wanted, vendored = folder / "wanted", folder / "vendored"
        (wanted / "src").mkdir(parents=True)
        (wanted / "src" / "lib.rs").touch()
        (wanted / "Cargo.toml").write_text(
            '[package]\nname = "wanted"\nversion = "0.0.0"\nedition = "2021"\n'
            f'[dependencies]\n{self.name} = "={self.version}"\n'
        )
        sources.run("cargo", "vendor", "--quiet", "--versioned-dirs", vendored, cwd=wanted)
        crate = vendored / f"{self.name}-{self.version}"
        found = json.loads((crate / ".cargo-checksum.json").read_text())["package"]
        if found != self.sha256:
            raise Unavailable(f"{self.name} {self.version} has SHA-256 {found}, not {self.sha256}")
        # Away from `wanted`, whose workspace it would be taken for.
        source = folder / "source"
        crate.rename(source)
        shutil.rmtree(wanted)
        shutil.rmtree(vendored)
        for edit in self.edits:
            edit.apply(source)
        self._build(source).rename(folder / _PROGRAM)
        shutil.rmtree(source)

    def _build(self, source: Path) -> Path:
        done = subprocess.run(
            [
                *("cargo", "test", "--quiet", "--locked", "--all-features", "--no-run"),
                *("--message-format=json", *self.tests),
            ],
            cwd=source,
            env=sources.environment(CARGO_PROFILE_DEV_DEBUG="0", CARGO_PROFILE_TEST_DEBUG="0"),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            check=False,
        )
        if done.returncode != 0:
            raise Unavailable(f"cargo cannot build the tests of {self.name} {self.version}")
        for line in done.stdout.splitlines():
            message = json.loads(line)
            if message.get("executable") and message["profile"]["test"]:
                return Path(message["executable"])
        raise Unavailable(f"{self.name} {self.version} has no tests")


@dataclass(frozen=True, slots=True)
class RustSuite:
    """A crate's tests. `prepare` is run against the server first; `excluded` gives reasons."""

    crate: Crate
    variables: Callable[[Conninfo], Mapping[str, str]] = libpq
    prepare: tuple[str, ...] = ()
    excluded: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Name and version."""
        return f"{self.crate.name} {self.crate.version}"

    def run(self, server: Conninfo, only: frozenset[str] | None = None) -> Outcomes:
        """See Suite.run."""
        program = self.crate.program()
        prepare(server, server.database, *self.prepare)
        return printed(
            self.name,
            [
                *(program, "--test-threads=2", "--exact"),
                *(word for test in self.excluded for word in ("--skip", test)),
                *sorted(only or ()),
            ],
            program.parent,
            self.variables(server),
            collected,
        )


def collected(output: str) -> dict[str, Outcome]:
    """How each test ended, from what a program of Rust's test harness prints."""
    texts = {
        match[1]: match[2]
        for match in re.finditer(
            r"^---- (\S+) stdout ----\n(.*?)(?=^---- |^failures:|\Z)", output, re.M | re.S
        )
    }
    return {
        match[1]: Outcome(_KINDS[match[2]], texts.get(match[1], "").strip()[-4000:])
        for match in re.finditer(
            r"^test (\S+)(?: - should panic)? \.\.\. (ok|FAILED|ignored)\b", output, re.M
        )
    }


_EXTENSIONS = ("create extension hstore", "create extension citext", "create extension ltree")


def _deadpool(server: Conninfo) -> dict[str, str]:
    return {
        "PG__HOST": server.host,
        "PG__PORT": str(server.port),
        "PG__USER": server.user,
        "PG__PASSWORD": server.password,
        "PG__DBNAME": server.database,
    }


_TOKIO_POSTGRES = RustSuite(
    Crate(
        "tokio-postgres",
        "0.7.18",
        "a528f7d280f6d5b9cd149635c8705b0dd049754bc67d81d31fa25169a93809d3",
        ("--test", "test"),
        (
            Edit("tests/test/main.rs", r'"127\.0\.0\.1:5433"', r"here(\g<0>)", _HERE),
            Edit("tests/test/main.rs", r"\bs\.parse::<Config>", "here(s).parse::<Config>"),
            Edit(
                "tests/test/runtime.rs",
                r'tokio_postgres::connect\(\s*(s|"[^"]*"),',
                r"tokio_postgres::connect(&crate::here(\1),",
            ),
        ),
    ),
    prepare=_EXTENSIONS,
    excluded=dict.fromkeys(
        (
            "plain_password_missing",
            "plain_password_wrong",
            "plain_password_ok",
            "md5_password_missing",
            "md5_password_wrong",
            "md5_password_ok",
            "scram_password_missing",
            "scram_password_wrong",
            "scram_password_ok",
            "runtime::host_only_ok",
            "runtime::hostaddr_only_ok",
            "runtime::hostaddr_and_host_ok",
        ),
        AUTHENTICATION,
    ),
)
_POSTGRES = RustSuite(
    Crate(
        "postgres",
        "0.19.14",
        "33ad20e0aa0b24f5a394eab4f78c781d248982b22b25cecc7e3aa46a681605bd",
        ("--lib",),
        (
            Edit(
                "src/test.rs", r'Client::connect\(("[^"]*"),', r"Client::connect(&here(\1),", _HERE
            ),
            Edit("src/test.rs", r'Config::from_str\(("[^"]*")\)', r"Config::from_str(&here(\1))"),
        ),
    ),
    prepare=_EXTENSIONS,
)
_DEADPOOL_POSTGRES = RustSuite(
    Crate(
        "deadpool-postgres",
        "0.14.2",
        "65a536565624b97fc19f758cd01b15d12908d3344425066efc8162236fbd3749",
        ("--test", "postgres"),
    ),
    _deadpool,
)

ALL: Mapping[str, Suite] = {
    "tokio-postgres": _TOKIO_POSTGRES,
    "postgres": _POSTGRES,
    "deadpool-postgres": _DEADPOOL_POSTGRES,
}
