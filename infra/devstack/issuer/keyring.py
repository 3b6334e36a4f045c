"""Signing keys: one signs, all the others stay published until they are revoked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from joserfc.jwk import ECKey

from infra.devstack.certificates import write_private

ALGORITHM = "ES256"
"""Short signatures: psql 15 takes 5,000 bytes of password, pgjdbc 1,100 (docs/identity.md)."""

_PUBLISHED_MAX = 20
"""A verifier bounds the size of a key set, so rotating for ever must not let it grow for ever."""


class UnknownKey(Exception):
    """No published key has this id."""


class Keyring:
    """The issuer's keys, in `folder`/keys.json. The last one signs."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "keys.json"
        self._keys: list[ECKey] = []
        if self._path.exists():
            document = json.loads(self._path.read_text())
            self._keys = [ECKey.import_key(key) for key in document["keys"]]
        if not self._keys:
            self.rotate()

    @property
    def current(self) -> ECKey:
        """The key that signs."""
        return self._keys[-1]

    def rotate(self) -> str:
        """Make a new signing key; the old one stays published. Returns the new kid."""
        key = ECKey.generate_key("P-256", parameters={"use": "sig", "alg": ALGORITHM})
        self._keys = [*self._keys, key][-_PUBLISHED_MAX:]
        self._save()
        return kid_of(key)

    def revoke(self, kid: str) -> str:
        """Withdraw a key at once and return its kid; `current` names the one that signs.

        Raises UnknownKey. When the signing key goes, a new one takes over.
        """
        wanted = kid_of(self.current) if kid == "current" else kid
        rest = [key for key in self._keys if kid_of(key) != wanted]
        if len(rest) == len(self._keys):
            raise UnknownKey
        signing_key_went = kid_of(self.current) == wanted
        self._keys = rest
        if signing_key_went:
            self.rotate()
        else:
            self._save()
        return wanted

    def published(self) -> dict[str, list[dict[str, Any]]]:
        """The JWKS document: public halves only."""
        return {"keys": [{**key.as_dict(private=False), "kid": kid_of(key)} for key in self._keys]}

    def _save(self) -> None:
        keys = [key.as_dict(private=True) for key in self._keys]
        write_private(self._path, json.dumps({"keys": keys}).encode())


def kid_of(key: ECKey) -> str:
    """The key id: its RFC 7638 thumbprint."""
    key.ensure_kid()
    kid = key.kid
    assert kid is not None  # noqa: S101 (ensured on the line before)
    return kid
