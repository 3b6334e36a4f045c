"""libpq's two ways to name a database: a URI and `key=value` pairs."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from urllib.parse import parse_qs, quote, unquote, urlsplit


class BadConninfo(Exception):
    """A connection string that cannot be used. Never quotes it: it may hold a password."""


@dataclass(frozen=True, slots=True, repr=False)
class Conninfo:
    """Where a database is and who signs in. No `repr`: it holds the password."""

    host: str
    port: int
    database: str
    user: str
    password: str
    sslmode: str
    sslrootcert: str | None = None

    def uri(self) -> str:
        """The same as a URI that libpq takes."""
        query = f"sslmode={self.sslmode}"
        if self.sslrootcert:
            query += f"&sslrootcert={quote(self.sslrootcert, safe='')}"
        return (
            f"postgresql://{quote(self.user, safe='')}:{quote(self.password, safe='')}"
            f"@{self.host}:{self.port}/{quote(self.database, safe='')}?{query}"
        )


def parse(text: str) -> Conninfo:
    """Read a conninfo; a missing password comes from PGPASSWORD. Raises BadConninfo."""
    fields = _uri(text) if re.match(r"postgres(ql)?://", text) else _pairs(text)
    unknown = set(fields) - {
        "host",
        "hostaddr",
        "port",
        "dbname",
        "user",
        "password",
        "sslmode",
        "sslrootcert",
    }
    if unknown:
        raise BadConninfo(f"--target does not know {', '.join(sorted(unknown))}")
    user = fields.get("user")
    if not user:
        raise BadConninfo("--target needs a user: the role the gateways sign in as")
    host = fields.get("hostaddr") or fields.get("host") or "127.0.0.1"
    if host.startswith("/") or "," in host:
        raise BadConninfo("--target needs one TCP host")
    password = fields.get("password") or os.environ.get("PGPASSWORD")
    if not password:
        raise BadConninfo("--target needs a password; give it in PGPASSWORD to keep it out of argv")
    port = fields.get("port") or "5432"
    if not port.isdecimal() or not 0 < int(port) < 65536:
        raise BadConninfo("--target's port is not a port")
    return Conninfo(
        host=host,
        port=int(port),
        database=fields.get("dbname") or user,
        user=user,
        password=password,
        sslmode=_sslmode(fields.get("sslmode"), host),
        sslrootcert=fields.get("sslrootcert"),
    )


def _sslmode(asked: str | None, host: str) -> str:
    if asked in ("disable", "require", "verify-full"):
        return asked
    if asked is None or asked in ("prefer", "allow"):
        # Neither of libpq's opportunistic modes protects anything: in clear on this machine,
        # verified anywhere else.
        return "disable" if host in ("127.0.0.1", "::1", "localhost") else "verify-full"
    raise BadConninfo("--target's sslmode must be disable, require or verify-full")


def _uri(text: str) -> dict[str, str]:
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise BadConninfo("--target is not a valid URI") from None
    fields = {
        "host": parts.hostname or "",
        "port": str(port or ""),
        "dbname": unquote(parts.path.lstrip("/")),
        "user": unquote(parts.username or ""),
        "password": unquote(parts.password or ""),
    }
    fields |= {key: values[-1] for key, values in parse_qs(parts.query).items()}
    return {key: value for key, value in fields.items() if value}


_PAIR = re.compile(r"\s*(\w+)\s*=\s*(?:'((?:[^'\\]|\\.)*)'|((?:[^\s'\\]|\\.)*))(?=\s|$)")


def _pairs(text: str) -> dict[str, str]:
    fields, position = {}, 0
    text = text.rstrip()
    while position < len(text):
        found = _PAIR.match(text, position)
        if found is None:
            raise BadConninfo("--target is neither a postgresql:// URI nor key=value pairs")
        value = found[2] if found[2] is not None else found[3]
        fields[found[1]] = re.sub(r"\\(.)", r"\1", value)
        position = found.end()
    return fields
