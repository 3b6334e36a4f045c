"""Debian packages without installing them: fetched and verified by apt, unpacked into a folder."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

SUITE = "bookworm"
_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


class NoDebian(Exception):
    """This machine has no apt, or its apt cannot fetch a package."""


def unpacked(packages: tuple[str, ...], folder: Path) -> Path:
    """`folder` with these packages' files in it, fetched once. Raises NoDebian."""
    if folder.is_dir():
        return folder
    if shutil.which("apt-get") is None:
        raise NoDebian("this machine has no apt")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as work:
        archives, root = Path(work) / "archives", Path(work) / "root"
        archives.mkdir()
        root.mkdir()
        try:
            _run(["apt-get", "download", "--quiet", *packages], archives)
        except NoDebian:
            # The list of packages may be missing, or name versions that are gone.
            _run(["apt-get", "update", "--quiet"], archives)
            _run(["apt-get", "download", "--quiet", *packages], archives)
        for archive in archives.glob("*.deb"):
            _run(["dpkg-deb", "--extract", str(archive), str(root)], archives)
        try:
            root.rename(folder)
        except OSError:
            # Another process was faster.
            if not folder.is_dir():
                raise
    return folder


def root_file_system(folder: Path, tools: Path, include: tuple[str, ...]) -> None:
    """A minimal Debian in `folder`, with packages from where apt takes them. Raises NoDebian."""
    if not _KEYRING.exists():
        raise NoDebian(f"{_KEYRING} is missing, so that packages cannot be verified")
    debootstrap = unpacked(("debootstrap",), tools)
    _run(
        [
            # In a mount namespace of its own: whatever it mounts goes with it.
            *("unshare", "--mount", "--propagation", "private"),
            *("env", f"DEBOOTSTRAP_DIR={debootstrap}/usr/share/debootstrap"),
            str(debootstrap / "usr/sbin/debootstrap"),
            *("--variant=minbase", "--force-check-gpg", f"--keyring={_KEYRING}"),
            f"--include={','.join(include)}",
            SUITE,
            str(folder),
            *_mirror(folder.parent),
        ],
        folder.parent,
    )
    shutil.rmtree(folder / "var/cache/apt", ignore_errors=True)
    shutil.rmtree(folder / "var/lib/apt/lists", ignore_errors=True)


def _mirror(folder: Path) -> list[str]:
    """Where this machine's apt takes the suite from; empty leaves it to debootstrap."""
    asked = ["apt-get", "indextargets", "--format", "$(RELEASE) $(REPO_URI)"]
    for line in _run([*asked, "Created-By: Packages"], folder).splitlines():
        release, _, uri = line.partition(" ")
        if release == SUITE and uri.startswith(("http://", "https://")):
            return [uri]
    return []


def _run(command: list[str], folder: Path) -> str:
    """What a command prints, run in `folder`. Raises NoDebian with apt's own reason."""
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
        )
    except OSError as error:
        raise NoDebian(f"{command[0]}: {error.strerror}") from error
    if done.returncode != 0:
        lines = [line for line in done.stdout.splitlines() if line.startswith("E:")]
        raise NoDebian(f"{Path(command[0]).name}: {(lines or ['failed'])[-1]}")
    return done.stdout
