"""TLS to targets."""

from __future__ import annotations

import os
import shutil
import ssl
from pathlib import Path

import certifi
import pytest

from gateway.catalog import tls_context
from schemas.settings import Target


def target(**changes: object) -> Target:
    return Target.model_validate(
        {
            "name": "shop",
            "host": "db.example",
            "database": "shop",
            "user": "gatebook",
            "password": {"env": "PASSWORD"},
            **changes,
        }
    )


@pytest.fixture
def authorities(tmp_path: Path) -> Path:
    return Path(shutil.copy(certifi.where(), tmp_path / "ca.pem"))


def test_no_tls_where_it_is_disabled() -> None:
    assert tls_context(target(sslmode="disable")) is None


def test_a_name_is_verified_unless_only_encryption_is_asked_for(authorities: Path) -> None:
    verified = tls_context(target(sslmode="verify-full", ca_file=authorities))
    assert verified is not None
    assert (verified.check_hostname, verified.verify_mode) == (True, ssl.CERT_REQUIRED)
    encrypted = tls_context(target(sslmode="require", ca_file=authorities))
    assert encrypted is not None
    assert (encrypted.check_hostname, encrypted.verify_mode) == (False, ssl.CERT_NONE)


def test_authorities_are_read_once_until_they_change(authorities: Path) -> None:
    chosen = target(sslmode="verify-full", ca_file=authorities)
    first = tls_context(chosen)
    assert tls_context(chosen) is first
    os.utime(authorities, ns=(1, 1))
    assert tls_context(chosen) is not first


def test_authorities_that_are_gone_are_an_error_of_the_connection(authorities: Path) -> None:
    chosen = target(sslmode="verify-full", ca_file=authorities)
    tls_context(chosen)
    authorities.unlink()
    with pytest.raises(OSError):
        tls_context(chosen)
