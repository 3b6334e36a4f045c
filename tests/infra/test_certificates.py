"""The stack's own CA."""

from __future__ import annotations

import ssl
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from infra.devstack.certificates import LIFETIME, ensure_recipient, ensure_server_certificate

NOW = datetime(2026, 11, 24, tzinfo=UTC)


def make(folder: Path, now: datetime) -> tuple[Path, Path, Path]:
    files = folder / "ca.pem", folder / "server.pem", folder / "server.key"
    ensure_server_certificate(*files, now)
    return files


def shake_hands(ca: Path, certificate: Path, key: Path, name: str) -> None:
    """A TLS handshake in memory; raises when the client does not trust the server."""
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.load_cert_chain(certificate, key)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = ssl.create_default_context(cafile=str(ca)).wrap_bio(
        to_client, to_server, server_hostname=name
    )
    server = server_side.wrap_bio(to_server, to_client, server_side=True)
    waiting = [client, server]
    for _ in range(10):
        for side in list(waiting):
            try:
                side.do_handshake()
                waiting.remove(side)
            except ssl.SSLWantReadError:
                pass
        if not waiting:
            return
    raise AssertionError("the handshake does not end")


def test_clients_trust_the_server_under_each_loopback_name(tmp_path: Path) -> None:
    ca, certificate, key = make(tmp_path, datetime.now(UTC))
    for name in ("localhost", "127.0.0.1", "::1"):
        shake_hands(ca, certificate, key, name)


def test_keys_are_private_and_the_ca_key_is_not_kept(tmp_path: Path) -> None:
    _, _, key = make(tmp_path, NOW)
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    private = [path for path in tmp_path.iterdir() if b"PRIVATE" in path.read_bytes()]
    assert private == [key]


def test_the_same_certificate_serves_until_it_runs_out(tmp_path: Path) -> None:
    _, certificate, _ = make(tmp_path, NOW)
    before = certificate.read_bytes()
    make(tmp_path, NOW + timedelta(days=200))
    assert certificate.read_bytes() == before
    make(tmp_path, NOW + LIFETIME - timedelta(days=10))
    renewed = x509.load_pem_x509_certificate(certificate.read_bytes())
    assert certificate.read_bytes() != before
    assert renewed.not_valid_after_utc > NOW + LIFETIME


def test_recipients_are_x25519_pairs_made_once(tmp_path: Path) -> None:
    private, public = tmp_path / "mask.pem", tmp_path / "mask.pub.pem"
    ensure_recipient(private, public)
    content = private.read_bytes()
    ensure_recipient(private, public)
    assert private.read_bytes() == content
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    key = serialization.load_pem_private_key(content, None)
    known = serialization.load_pem_public_key(public.read_bytes())
    assert isinstance(key, X25519PrivateKey)
    assert isinstance(known, X25519PublicKey)
    assert key.public_key() == known
