"""Python packages of an image: those the locks pin, installed into a folder of a build context."""

from __future__ import annotations

import platform
import re
import subprocess
from collections.abc import Collection
from pathlib import Path

PYTHON = "3.11"
"""Version of the base image's Python. Compiled packages fit no other."""
GLIBC = "2_36"
"""Oldest C library a base may have: Debian 12's."""

_ARCHITECTURES = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64"}
_REQUIREMENT = re.compile(r"^([a-z0-9][a-z0-9.-]*)==", re.MULTILINE)
_VIA = re.compile(r"^ +# (?:via|  ) *([a-z0-9][a-z0-9.-]*)$", re.MULTILINE)


class CannotInstall(Exception):
    """The locked packages cannot be installed for the image."""


def requirements(lock: str) -> dict[str, str]:
    """A lock's text for each package: its version, markers, hashes and who needs it.

    A package that differs between Python versions has all its requirements in one text.
    """
    starts = [match.start() for match in _REQUIREMENT.finditer(lock)]
    found: dict[str, str] = {}
    for start, end in zip(starts, [*starts[1:], len(lock)], strict=True):
        text = lock[start:end]
        name = text[: text.index("==")]
        found[name] = found.get(name, "") + text
    return found


def closure(lock: str, roots: Collection[str]) -> frozenset[str]:
    """`roots` and all that they need, by the lock's own account. Raises CannotInstall."""
    texts = requirements(lock)
    if missing := set(roots) - texts.keys():
        raise CannotInstall(f"the lock does not pin {', '.join(sorted(missing))}")
    needed = set(roots)
    while more := {
        name
        for name, text in texts.items()
        if name not in needed and needed & set(_VIA.findall(text))
    }:
        needed |= more
    return frozenset(needed)


def select(lock: str, names: Collection[str]) -> str:
    """The part of a lock that pins `names`."""
    return "".join(text for name, text in requirements(lock).items() if name in names)


def install(lock: str, folder: Path) -> None:
    """Install what `lock` pins for the image's Python, whatever runs here. Raises CannotInstall."""
    from uv import find_uv_bin

    machine = _ARCHITECTURES.get(platform.machine().lower())
    if machine is None:
        raise CannotInstall(f"there are no packages for {platform.machine()}")
    done = subprocess.run(
        [
            find_uv_bin(), "pip", "install", "--quiet",
            *("--target", folder),
            *("--python-version", PYTHON),
            *("--python-platform", f"{machine}-manylinux_{GLIBC}"),
            # The lock is complete; a source package would run its author's code here.
            *("--require-hashes", "--no-deps", "--only-binary", ":all:"),
            *("--requirement", "-"),
        ],
        input=lock,
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise CannotInstall(f"uv: {(done.stderr or done.stdout).strip()}")
