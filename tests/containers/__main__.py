"""`python -m tests.containers [PYTEST ARGUMENTS]`: tests against containers (docs/containers.md).

Finds or starts a Docker engine, builds the images, runs pytest, and stops what it started.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from infra.devstack.supervisor import LAUNCH
from infra.images import base
from infra.images.build import build
from infra.images.docker import DockerFailed
from infra.images.locked import CannotInstall
from infra.kafka.jars import JarsUnavailable
from tests.containers import environment
from tests.containers.engine import NoEngine, engine

# Tests that take Kafka and PostgreSQL as they come, and those of the containers themselves. Those
# marked `faults` kill processes by their ids; tests/containers kills containers.
DEFAULT = [
    *("-m", "(integration or containers) and not e2e and not faults"),
    "tests/containers",
    "tests/processors",
    "tests/sinks",
    "tests/gateway",
    "tests/integration",
    "tests/cli/test_parts.py",
]


def say(line: str) -> None:
    """A line of progress."""
    print(f"containers: {line}", flush=True)


def pytest(arguments: list[str], variables: dict[str, str]) -> int:
    """pytest's exit status."""
    process = subprocess.Popen(
        [
            # It ends with this process: without the engine it could only fail.
            *(sys.executable, "-I", "-S", str(LAUNCH), str(os.getpid()), "-1", "-1"),
            *(sys.executable, "-m", "pytest", "-rs", *arguments),
        ],
        env={**os.environ, **variables},
    )
    try:
        return process.wait()
    except KeyboardInterrupt:
        # It reached pytest as well, whose fixtures still need the engine.
        return process.wait()
    except SystemExit:
        process.terminate()
        process.wait()
        raise


def main() -> int:
    """0 when the tests passed or no container can be run here, which they then say."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    arguments = sys.argv[1:] or [
        word for word in DEFAULT if not word.startswith("tests/") or Path(word).exists()
    ]
    try:
        with engine(say) as docker:
            own = docker.host is not None
            # An engine of our own has no account with any registry, and no reason to ask one.
            foundation = os.environ.get("GATEBOOK_TEST_BASE") or base.ensure(
                docker, say, pull=not own
            )
            images = build(docker, foundation, say)
            return pytest(arguments, environment.for_tests(images, docker.host))
    except (NoEngine, base.NoBase) as error:
        say(str(error))
        return pytest(["-m", "containers", "tests/containers"], {environment.UNUSABLE: str(error)})
    except (CannotInstall, DockerFailed, JarsUnavailable, OSError) as error:
        sys.exit(f"containers: {error}")


if __name__ == "__main__":
    sys.exit(main())
