"""The docker command, as far as building images takes it."""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path

CONTENT = "gatebook.content"
"""Label that holds the digest of what an image was made from."""


class DockerFailed(Exception):
    """The docker command failed. Has its last words."""


@dataclass(frozen=True, slots=True)
class Docker:
    """An engine, spoken to with the docker command; `host` of None leaves it to DOCKER_HOST."""

    executable: str
    host: str | None = None

    @classmethod
    def find(cls) -> Docker:
        """The docker command on PATH. Raises DockerFailed."""
        executable = shutil.which("docker")
        if executable is None:
            raise DockerFailed("there is no docker command")
        return cls(executable)

    def answers(self, timeout_s: float = 10) -> bool:
        """Whether the engine does."""
        try:
            self.run("version", "--format", "{{.Server.Version}}", timeout_s=timeout_s)
        except DockerFailed:
            return False
        return True

    def content(self, image: str) -> str | None:
        """Digest of what a local image was made from, "" when it has none; None: no such image."""
        try:
            return self.run(
                "image", "inspect", "--format", f'{{{{index .Config.Labels "{CONTENT}"}}}}', image
            )
        except DockerFailed:
            return None

    def id(self, image: str) -> str:
        """Id of a local image. Raises DockerFailed."""
        return self.run("image", "inspect", "--format", "{{.Id}}", image)

    def pull(self, image: str, timeout_s: float) -> None:
        """Fetch an image. Raises DockerFailed, also when it takes longer."""
        self.run("pull", "--quiet", image, timeout_s=timeout_s)

    def load(self, root: Path, image: str) -> None:
        """Make an image of a root file system. Raises DockerFailed."""
        with subprocess.Popen(
            self._command("import", "-", image),
            env=self._environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        ) as process:
            assert process.stdin is not None  # noqa: S101 (asked for above)
            try:
                with tarfile.open(fileobj=process.stdin, mode="w|") as archive:
                    archive.add(root, arcname=".")
                process.stdin.close()
            except BrokenPipeError:
                pass  # Its own words say why.
            assert process.stderr is not None  # noqa: S101 (asked for above)
            said = process.stderr.read().decode(errors="replace")
        if process.returncode != 0:
            raise DockerFailed(_last_line(said))

    def build(self, context: Path, base: str, image: str, content: str) -> None:
        """Build a context on `base`, without a network. Raises DockerFailed."""
        self.run(
            "build", "--quiet", "--network", "none",
            *("--build-arg", f"BASE={base}"),
            *("--label", f"{CONTENT}={content}"),
            *("--tag", image),
            str(context),
        )  # fmt: skip

    def run(self, *arguments: str, timeout_s: float | None = None) -> str:
        """What a docker command prints. Raises DockerFailed."""
        try:
            done = subprocess.run(
                self._command(*arguments),
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=timeout_s,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise DockerFailed(f"docker {arguments[0]}: {error}") from error
        if done.returncode != 0:
            raise DockerFailed(f"docker {arguments[0]}: {_last_line(done.stderr or done.stdout)}")
        return done.stdout.strip()

    def _command(self, *arguments: str) -> list[str]:
        return [self.executable, *(("--host", self.host) if self.host else ()), *arguments]

    @staticmethod
    def _environment() -> dict[str, str]:
        # Nothing in a build asks for a proxy, and docker would write one into the image.
        return {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}


def _last_line(text: str) -> str:
    lines = [line for line in text.strip().splitlines() if line.strip()]
    return lines[-1].strip() if lines else "no reason given"
