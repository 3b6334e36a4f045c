"""Suites in JavaScript: what node-postgres' packages publish, and scenarios of our own.

node-postgres and Postgres.js publish no tests of the drivers themselves. Two companions of
node-postgres did once: their tests are run with the present versions. The scenarios (`node/pg.js`,
`node/postgres.js`) tell what they saw, and must tell the same through a gateway.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from infra.devstack.conninfo import Conninfo
from tests.conformance import sources
from tests.conformance.suites import (
    PASSED,
    Outcome,
    Outcomes,
    Suite,
    libpq,
    logged,
)

FILES = Path(__file__).with_name("node")
_TEST_TIMEOUT_MS = 60_000
_PUBLISHED = {
    "pg-cursor": ("close.js", "error-handling.js", "index.js", "no-data-handling.js", "pool.js"),
    # The others want packages that no registry has any more, or say how long an older buffer was.
    "pg-query-stream": ("error.js", "fast-reader.js", "helper.js", "issue-3.js"),
}
"""Tests in the packages of these names at their last version that had any."""


@dataclass(frozen=True, slots=True)
class Mocha:
    """Tests that mocha runs. `package` is one whose published tests they are, else `file` is."""

    name: str
    file: str = ""
    package: str = ""

    def run(self, server: Conninfo, only: frozenset[str] | None = None) -> Outcomes:
        """See Suite.run."""
        with tempfile.TemporaryDirectory(prefix="conformance-") as name:
            work = Path(name)
            (work / "node_modules").symlink_to(_modules() / "node_modules")
            for file in FILES.glob("*.js"):
                shutil.copy(file, work)
            chosen = [self._published(work)] if self.package else [self.file]
            if only is not None:
                names = "|".join(re.escape(test).replace("/", r"\/") for test in sorted(only))
                chosen += ["--grep", f"^({names})"]
            return logged(
                self.name,
                [
                    *("node", work / "node_modules" / "mocha" / "bin" / "mocha.js", "--exit"),
                    *("--timeout", str(_TEST_TIMEOUT_MS), "--reporter", work / "reporter.js"),
                    *chosen,
                ],
                work,
                libpq(server),
                told,
            )

    def _published(self, work: Path) -> str:
        """A folder with the package's own tests beside what they call `../`, its newest version."""
        tests = work / self.package / "test"
        tests.mkdir(parents=True)
        (tests.parent / "index.js").write_text(f"module.exports = require('{self.package}')\n")
        for file in _PUBLISHED[self.package]:
            shutil.copy(work / "node_modules" / f"{self.package}-tests" / "test" / file, tests)
        return f"{self.package}/test"


def _modules() -> Path:
    """A folder with exactly what package-lock.json lists. Raises Unavailable."""
    lock = FILES / "package-lock.json"
    digest = hashlib.sha256(lock.read_bytes()).hexdigest()[:12]

    def make(folder: Path) -> None:
        for file in (FILES / "package.json", lock):
            shutil.copy(file, folder)
        sources.run("npm", "ci", "--ignore-scripts", "--silent", cwd=folder)

    return sources.made(f"node-{digest}", make)


def told(lines: str) -> dict[str, Outcome]:
    """How each test ended, and what it said."""
    found: dict[str, Outcome] = {}
    for line in lines.splitlines():
        report = json.loads(line)
        said = report["output"]
        text = report["text"] or f"it said {said}"
        outcome = Outcome(report["outcome"], text[-4000:], said)
        # A test may fail once more behind its end, by an error that nothing awaits.
        before = found.get(report["test"])
        if before is None or before.kind == PASSED:
            found[report["test"]] = outcome
    return found


ALL: Mapping[str, Suite] = {
    "node-postgres": Mocha("node-postgres, own scenarios", file="pg.js"),
    "postgres.js": Mocha("Postgres.js, own scenarios", file="postgres.js"),
    "pg-cursor": Mocha("pg-cursor", package="pg-cursor"),
    "pg-query-stream": Mocha("pg-query-stream", package="pg-query-stream"),
}
