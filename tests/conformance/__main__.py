"""`python -m tests.conformance [SUITE...]`: drivers' own suites, direct and through a gateway.

Exits with 1 when a test ends otherwise through the gateway than direct and differences.toml does
not say why, or says so of one that does not.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from pathlib import Path

from infra.devstack.conninfo import Conninfo
from tests.conformance import postgresql
from tests.conformance.catalogue import ALL
from tests.conformance.compare import counts, differences, judge, read_listed, settled
from tests.conformance.gateway import gateway
from tests.conformance.sources import Unavailable
from tests.conformance.suites import Outcomes, Suite

LISTED = Path(__file__).with_name("differences.toml")


def say(line: str) -> None:
    """A line of the report."""
    print(line, flush=True)


class Sides:
    """The two ways to one server, which is new for each run."""

    def __init__(self, server: postgresql.Server, through: Conninfo) -> None:
        self._server = server
        self._through = through

    def direct(self, suite: Suite, only: frozenset[str] | None = None) -> Outcomes:
        """A run without the gateway."""
        self._server.renew()
        return suite.run(self._server.address(), only)

    def through(self, suite: Suite, only: frozenset[str] | None = None) -> Outcomes:
        """A run through it."""
        self._server.renew()
        return suite.run(self._through, only)


def compare(
    suite: Suite,
    sides: Sides,
    listed: dict[str, str],
    only: frozenset[str] | None = None,
    full: bool = False,
) -> bool:
    """Run one suite on both sides and report. Whether it says the same of both."""
    begun = time.monotonic()
    direct, through = sides.direct(suite, only), sides.through(suite, only)
    say(f"\n{suite.name}: {time.monotonic() - begun:.0f} s")
    say(f"  direct               {counts(direct)}")
    say(f"  through the gateway  {counts(through)}")
    first = differences(direct, through)
    found = settled(
        first,
        lambda only: sides.direct(suite, only),
        lambda only: sides.through(suite, only),
    )
    verdict = judge(found, listed)
    for each in first:
        if each.test not in {still.test for still in found}:
            say(
                f"  flaky: {each.test}: {each.direct.kind} direct, {each.through.kind} through, "
                "alike when run again"
            )
            say("".join(f"      {line}\n" for line in each.through.text.splitlines()[-10:]))
    for each in found:
        word = "listed" if each.test in listed else "DIFFERS"
        say(f"  {word}: {each.test}: {each.direct.kind} direct, {each.through.kind} through")
        if full or word == "DIFFERS":
            text = each.through.text or each.direct.text
            say("".join(f"      {line}\n" for line in text.splitlines()[-60:]))
    for test in verdict.stale:
        say(f"  STALE: {test} is listed in {LISTED.name} and does not differ")
    if not found:
        say("  the same tests fail")
    return verdict.alike


def main() -> int:
    """0 when every suite says the same of both, 1 when not, 2 when one could not be run."""
    # What was started is stopped, whoever ends the run.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    parser = argparse.ArgumentParser(prog="python -m tests.conformance", description=__doc__)
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=", ".join(ALL))
    parser.add_argument("--full", action="store_true", help="show how listed tests fail, too")
    parser.add_argument(
        "--only", action="append", metavar="TEST", help="only this test (or file, or class)"
    )
    arguments = parser.parse_args()
    unknown = [name for name in arguments.suites if name not in ALL]
    if unknown:
        parser.error(f"there is no suite {unknown[0]}; there are {', '.join(ALL)}")
    only = frozenset(arguments.only) if arguments.only else None
    # What is listed of other tests is not stale for not having been run.
    listed = {} if only else read_listed(LISTED)
    alike = True
    try:
        with (
            tempfile.TemporaryDirectory(prefix="conformance-") as root,
            postgresql.serving() as server,
            gateway(Path(root), server.address()) as through,
        ):
            sides = Sides(server, through)
            for name in arguments.suites or ALL:
                alike &= compare(ALL[name], sides, listed.get(name, {}), only, arguments.full)
    except Unavailable as error:
        say(f"conformance: {error}")
        return 2
    return 0 if alike else 1


if __name__ == "__main__":
    sys.exit(main())
