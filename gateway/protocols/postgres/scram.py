"""SCRAM-SHA-256, the client's side (RFC 5802, RFC 7677), to sign in to a target. Pure."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac

_MIN_ITERATIONS = 4096
# A million cost a third of a second, in which nobody else is served.
_MAX_ITERATIONS = 1_000_000


class ScramError(Exception):
    """The server's side does not follow the exchange, or does not know the password."""


class Client:
    """One exchange. `nonce` is printable and random; channel binding is not used."""

    def __init__(self, password: str, nonce: str) -> None:
        self._password = password.encode()
        self._nonce = nonce
        # PostgreSQL takes the user from the start-up packet and ignores this one.
        self._first_bare = f"n=,r={nonce}"
        self._signature = b""

    def first(self) -> bytes:
        """client-first-message."""
        return f"n,,{self._first_bare}".encode()

    def final(self, server_first: bytes) -> bytes:
        """client-final-message. Raises ScramError."""
        try:
            text = server_first.decode("ascii")
            values = dict(part.split("=", 1) for part in text.split(","))
            nonce, salt, iterations = values["r"], base64.b64decode(values["s"]), int(values["i"])
        except (ValueError, KeyError, binascii.Error):
            raise ScramError("malformed server-first-message") from None
        if not nonce.startswith(self._nonce) or len(nonce) == len(self._nonce):
            raise ScramError("the server's nonce does not extend ours")
        if not _MIN_ITERATIONS <= iterations <= _MAX_ITERATIONS:
            raise ScramError("unacceptable iteration count")
        salted = hashlib.pbkdf2_hmac("sha256", self._password, salt, iterations)
        client_key = hmac.digest(salted, b"Client Key", "sha256")
        stored_key = hashlib.sha256(client_key).digest()
        without_proof = f"c=biws,r={nonce}"
        signed = f"{self._first_bare},{text},{without_proof}".encode()
        proof = bytes(
            a ^ b
            for a, b in zip(client_key, hmac.digest(stored_key, signed, "sha256"), strict=True)
        )
        server_key = hmac.digest(salted, b"Server Key", "sha256")
        self._signature = hmac.digest(server_key, signed, "sha256")
        return f"{without_proof},p={base64.b64encode(proof).decode()}".encode()

    def verify(self, server_final: bytes) -> None:
        """The server must know the password, too. Raises ScramError."""
        try:
            claimed = base64.b64decode(dict([server_final.decode("ascii").split("=", 1)])["v"])
        except (ValueError, KeyError, binascii.Error):
            raise ScramError("malformed server-final-message") from None
        if not self._signature or not hmac.compare_digest(claimed, self._signature):
            raise ScramError("the server does not know the password")
