"""`python -m infra.devstack`: the supervisor as a process of its own.

Options come as JSON on standard input, since some hold passwords. Progress goes to
`--progress-fd`, one JSON object per line: {"say": TEXT}, then {"ready": true} or
{"failed": TEXT}; it is closed when the stack is ready.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path

from infra.devstack.options import from_json
from infra.devstack.run import run
from infra.devstack.stack import Unusable
from infra.devstack.state import AlreadyRunning, BadStateDir, StateDir
from infra.devstack.supervisor import StartFailed


class Progress:
    """Tells whoever started us, until the stack is ready or nobody listens."""

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor

    def tell(self, **message: object) -> None:
        """Write one message."""
        if self._descriptor is None:
            return
        with contextlib.suppress(BrokenPipeError):
            os.write(self._descriptor, json.dumps(message).encode() + b"\n")

    def close(self) -> None:
        """No more messages follow."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def main() -> int:
    """0 after an orderly stop, 1 when the stack did not start."""
    parser = argparse.ArgumentParser(prog="python -m infra.devstack")
    parser.add_argument("--state-dir", type=Path, required=True)
    parser.add_argument("--progress-fd", type=int)
    arguments = parser.parse_args()
    options = from_json(sys.stdin.read())
    progress = Progress(arguments.progress_fd)

    def say(text: str) -> None:
        print(f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} {text}", flush=True)
        progress.tell(say=text)

    def ready(_stack: object) -> None:
        progress.tell(ready=True)
        progress.close()

    try:
        run(StateDir.at(arguments.state_dir), options, say, ready)
    except (AlreadyRunning, BadStateDir, Unusable, StartFailed) as error:
        print(error, flush=True)
        progress.tell(failed=str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
