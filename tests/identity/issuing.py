"""A certificate authority and the real development issuer, as its own process over TLS."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import sys
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

import httpx

from infra.devstack.certificates import ensure_server_certificate

REPOSITORY = Path(__file__).parents[2]


@dataclass(frozen=True)
class Authority:
    """Files of a CA and of one certificate it signed for localhost."""

    ca: Path
    certificate: Path
    private_key: Path

    @classmethod
    def create(cls, folder: Path) -> Authority:
        files = cls(folder / "ca.pem", folder / "localhost.pem", folder / "localhost.key")
        ensure_server_certificate(files.ca, files.certificate, files.private_key, datetime.now(UTC))
        return files

    def client_context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.ca)

    def server_context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, self.private_key)
        return context


class IssuerProcess:
    """`python -m infra.devstack.issuer`, with everything it printed."""

    def __init__(self, authority: Authority, state_dir: Path, port: int = 0) -> None:
        self.authority = authority
        self.folder = state_dir / "issuer"
        self.output: list[str] = []
        self._started = threading.Event()
        self.process = subprocess.Popen(
            [
                sys.executable, "-m", "infra.devstack.issuer",
                "--state-dir", str(state_dir), "--port", str(port),
                "--certificate", str(authority.certificate),
                "--private-key", str(authority.private_key),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=REPOSITORY,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        assert self._started.wait(20), "the issuer printed nothing"
        assert self.output, f"the issuer ended with {self.process.wait(5)}"
        listening = json.loads(self.output[0])
        assert listening["event"] == "listening", self.output
        self.url: str = listening["issuer"]
        self.port = int(self.url.rpartition(":")[2])

    def client(self) -> httpx.Client:
        return httpx.Client(
            base_url=self.url, verify=self.authority.client_context(), trust_env=False, timeout=10
        )

    def demo(self, action: str, **form: str) -> dict[str, object]:
        secret = (self.folder / "demo-secret").read_text()
        with self.client() as client:
            response = client.post(
                f"/demo/{action}", data=form, headers={"Authorization": f"Bearer {secret}"}
            )
        response.raise_for_status()
        document: dict[str, object] = response.json()
        return document

    def token(self, user: str, **form: str) -> str:
        return str(self.demo("token", user=user, **form)["access_token"])

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(10)
        self._reader.join(5)

    def __enter__(self) -> IssuerProcess:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.output.append(line)
            self._started.set()
        self._started.set()
