"""The server's side of SCRAM-SHA-256, to test the client's; it can lie in every step."""

from __future__ import annotations

import base64
import hashlib
import hmac


class ScramServer:
    def __init__(self, password: str, iterations: int = 4096) -> None:
        self._iterations = iterations
        self._salt = b"a salt of bytes."
        salted = hashlib.pbkdf2_hmac("sha256", password.encode(), self._salt, iterations)
        self._stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
        self._server_key = hmac.digest(salted, b"Server Key", "sha256")
        self._bare = self._first = b""

    def first(self, client_first: bytes, nonce: bytes = b"server") -> bytes:
        assert client_first.startswith(b"n,,")
        self._bare = client_first[3:]
        client_nonce = dict(p.split(b"=", 1) for p in self._bare.split(b","))[b"r"]
        salt = base64.b64encode(self._salt)
        self._first = b"r=%s%s,s=%s,i=%d" % (client_nonce, nonce, salt, self._iterations)
        return self._first

    def final(self, client_final: bytes) -> bytes:
        """server-final-message; fails when the client does not know the password."""
        without_proof, _, proof = client_final.rpartition(b",p=")
        signed = b",".join((self._bare, self._first, without_proof))
        signature = hmac.digest(self._stored, signed, "sha256")
        key = bytes(a ^ b for a, b in zip(base64.b64decode(proof), signature, strict=True))
        assert hashlib.sha256(key).digest() == self._stored, "wrong proof"
        return b"v=" + base64.b64encode(hmac.digest(self._server_key, signed, "sha256"))
