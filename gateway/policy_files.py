"""A folder of policies: `*.cedar`, and beside them `*.tests.yaml` with cases."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from gateway.policy.decide import PolicyError

_LARGEST: Final = 64 * 1024 * 1024
TESTS: Final = "*.tests.yaml"
EVERYTHING: Final = (
    "everything.cedar",
    '@id("everything") @unknown("permitted") permit (principal, action, resource);',
)
"""Beside it, what a file forbids is seen alone."""


def read(folder: Path) -> list[tuple[str, str]]:
    """(file name, text) of its Cedar files. Raises PolicyError."""
    files = []
    size = 0
    try:
        for path in sorted(folder.glob("*.cedar")):
            size += path.stat().st_size
            if size > _LARGEST:
                raise PolicyError(f"{folder} holds more than {_LARGEST} bytes")
            files.append((path.name, path.read_text()))
    except (OSError, UnicodeDecodeError) as error:
        raise PolicyError(f"{folder}: {error}") from None
    if not files:
        raise PolicyError(f"{folder} holds no .cedar file")
    return files
