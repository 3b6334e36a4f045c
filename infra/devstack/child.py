"""What the supervisor needs to know of a process it starts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Probe = Callable[[], Awaitable[bool]]
"""Whether the process really serves. May raise OSError; must not wait for long."""

Step = Callable[[], Coroutine[Any, Any, None]]
"""Work around a start. Raises StepFailed with one line that says what to do."""


class StepFailed(Exception):
    """Work before or after a start that could not be done."""


@dataclass(frozen=True, slots=True)
class Child:
    """One supervised process.

    It is started once every child named in `after` is ready. `prepare` runs before each
    start, `settle` once, after the first successful probe; only then is the child ready.
    `stop_signal` asks for a graceful end within `stop_timeout_s` seconds, after which its
    process group is killed. `user` is the uid and gid it runs as.
    """

    name: str
    argv: tuple[str, ...]
    log_file: Path
    probe: Probe
    after: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    prepare: Step | None = None
    settle: Step | None = None
    user: tuple[int, int] | None = None
    stop_signal: int = 15
    stop_timeout_s: float = 10.0
