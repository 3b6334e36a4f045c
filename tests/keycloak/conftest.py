from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.identity.issuing import Authority
from tests.keycloak import distribution

HERE = Path(__file__).parent
START_S = 180


class Keycloak:
    """A running server with the realms of this folder, and its administrator."""

    def __init__(self, home: Path, authority: Authority) -> None:
        self.authority = authority
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.url = f"https://localhost:{port}"
        self._log = home / "server.log"
        self._password = secrets.token_urlsafe(24)
        distribution.copy_to(home)
        (home / "data" / "import").mkdir(parents=True)
        for realm in HERE.glob("realm-*.json"):
            shutil.copy(realm, home / "data" / "import")
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [
                    home / "bin" / "kc.sh", "start", "--optimized", "--import-realm",
                    f"--hostname={self.url}", f"--https-port={port}", "--http-host=127.0.0.1",
                    f"--https-certificate-file={authority.certificate}",
                    f"--https-certificate-key-file={authority.private_key}",
                ],
                env={
                    **distribution.environment(),
                    "KC_BOOTSTRAP_ADMIN_USERNAME": "admin",
                    "KC_BOOTSTRAP_ADMIN_PASSWORD": self._password,
                },
                stdout=log,
                stderr=subprocess.STDOUT,
                # The script starts Java as its child; both have to end.
                start_new_session=True,
            )  # fmt: skip
        self.client = httpx.Client(
            verify=authority.client_context(), trust_env=False, timeout=30, base_url=self.url
        )

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            assert self._process.poll() is None, self._log.read_text()[-3000:]
            try:
                if self.client.get("/realms/elsewhere").status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.2)
        raise AssertionError(self._log.read_text()[-3000:])

    def issuer(self, realm: str = "gatebook") -> str:
        return f"{self.url}/realms/{realm}"

    def sign_in(
        self, user: str, client_id: str = "gatebook-cli", realm: str = "gatebook"
    ) -> dict[str, str]:
        """The realm's answer to a person who gives their password."""
        return self._token(
            realm,
            grant_type="password",
            client_id=client_id,
            username=user,
            password=f"{user}-password",
            scope="openid",
        )

    def agent(self) -> str:
        return self._token(
            "gatebook",
            grant_type="client_credentials",
            client_id="gatebook-agent",
            client_secret="agent-secret",
        )["access_token"]

    def sign_with(self, algorithm: str) -> None:
        """Which of its keys the realm signs with."""
        self._admin("PUT", "", json={"defaultSignatureAlgorithm": algorithm})

    def add_key(self, priority: int, algorithm: str) -> str:
        """Make a new signing key; the highest priority signs. Returns the component's id."""
        kind = {"RS256": "rsa-generated", "ES256": "ecdsa-generated"}[algorithm]
        realm = self._admin("GET", "").json()["id"]
        config = {"priority": [str(priority)], "enabled": ["true"], "active": ["true"]}
        if algorithm == "ES256":
            config["ecdsaEllipticCurveKey"] = ["P-256"]
        created = self._admin(
            "POST",
            "/components",
            json={
                "name": f"{algorithm}-{priority}",
                "providerId": kind,
                "providerType": "org.keycloak.keys.KeyProvider",
                "parentId": realm,
                "config": config,
            },
        )
        return created.headers["location"].rpartition("/")[2]

    def remove_key(self, component: str) -> None:
        self._admin("DELETE", f"/components/{component}")

    def stop(self) -> None:
        self.client.close()
        os.killpg(self._process.pid, signal.SIGTERM)
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)

    def _admin(self, method: str, path: str, **arguments: object) -> httpx.Response:
        token = self._token(
            "master",
            grant_type="password",
            client_id="admin-cli",
            username="admin",
            password=self._password,
        )["access_token"]
        response = self.client.request(
            method,
            f"/admin/realms/gatebook{path}",
            headers={"Authorization": f"Bearer {token}"},
            **arguments,  # type: ignore[arg-type]
        )
        response.raise_for_status()
        return response

    def _token(self, realm: str, **form: str) -> dict[str, str]:
        response = self.client.post(f"/realms/{realm}/protocol/openid-connect/token", data=form)
        assert response.status_code == 200, response.text
        document: dict[str, str] = response.json()
        return document


@pytest.fixture(scope="session")
def keycloak(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keycloak]:
    folder = tmp_path_factory.mktemp("keycloak")
    server = Keycloak(folder / "home", Authority.create(folder))
    try:
        server.wait_until_ready()
        yield server
    finally:
        server.stop()
