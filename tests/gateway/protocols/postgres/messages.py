"""PostgreSQL protocol 3 messages as bytes, written independently of the gateway's own code."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

PROTOCOL_3_0 = 196608
PROTOCOL_3_2 = 196610


def message(kind: str, body: bytes = b"") -> bytes:
    return kind.encode() + struct.pack(">I", len(body) + 4) + body


def text(value: str | bytes) -> bytes:
    return (value.encode() if isinstance(value, str) else value) + b"\0"


def split(data: bytes) -> list[bytes]:
    """Whole messages; what is left over at the end is an error."""
    found = list(_split(data))
    assert sum(map(len, found)) == len(data), "not whole messages"
    return found


def _split(data: bytes) -> Iterator[bytes]:
    at = 0
    while len(data) - at >= 5:
        end = at + 1 + struct.unpack_from(">I", data, at + 1)[0]
        if end > len(data):
            return
        yield data[at:end]
        at = end


def kinds(data: bytes) -> str:
    """The types of the messages, such as "TDCZ"."""
    return "".join(chr(one[0]) for one in split(data))


def fields(error: bytes) -> dict[str, str]:
    """The fields of one ErrorResponse or NoticeResponse."""
    assert error[:1] in b"EN", error[:1]
    return {chr(part[0]): part[1:].decode() for part in error[5:].split(b"\0") if part}


# --- client ---

SSL_REQUEST = struct.pack(">II", 8, 80877103)
GSSENC_REQUEST = struct.pack(">II", 8, 80877104)


def cancel_request(process_id: int, secret: bytes) -> bytes:
    return struct.pack(">III", 12 + len(secret), 80877102, process_id) + secret


def startup(protocol: int = PROTOCOL_3_0, **parameters: str) -> bytes:
    body = b"".join(text(name) + text(value) for name, value in parameters.items()) + b"\0"
    return struct.pack(">II", len(body) + 8, protocol) + body


def password(token: str | bytes) -> bytes:
    return message("p", text(token))


def query(sql: str | bytes) -> bytes:
    return message("Q", text(sql))


def parse(sql: str | bytes, name: str = "", oids: Sequence[int] = ()) -> bytes:
    types = b"".join(struct.pack(">I", oid) for oid in oids)
    return message("P", text(name) + text(sql) + struct.pack(">H", len(oids)) + types)


def bind(
    values: Sequence[bytes | None] = (),
    name: str = "",
    portal: str = "",
    formats: Sequence[int] = (),
    results: Sequence[int] = (),
) -> bytes:
    body = text(portal) + text(name) + struct.pack(">H", len(formats))
    body += b"".join(struct.pack(">H", one) for one in formats) + struct.pack(">H", len(values))
    for value in values:
        body += struct.pack(">i", -1) if value is None else struct.pack(">i", len(value)) + value
    body += struct.pack(">H", len(results)) + b"".join(struct.pack(">H", one) for one in results)
    return message("B", body)


def describe_statement(name: str = "") -> bytes:
    return message("D", b"S" + text(name))


def describe_portal(name: str = "") -> bytes:
    return message("D", b"P" + text(name))


def execute(portal: str = "", rows: int = 0) -> bytes:
    return message("E", text(portal) + struct.pack(">I", rows))


def close_statement(name: str = "") -> bytes:
    return message("C", b"S" + text(name))


def close_portal(name: str = "") -> bytes:
    return message("C", b"P" + text(name))


def copy_data(data: bytes) -> bytes:
    return message("d", data)


def copy_fail(why: str) -> bytes:
    return message("f", text(why))


def extended(sql: str, *values: bytes | None, name: str = "") -> bytes:
    """Parse, Bind, Describe, Execute: one statement without its Sync."""
    return parse(sql, name) + bind(values, name) + describe_portal() + execute()


SYNC = message("S")
FLUSH = message("H")
TERMINATE = message("X")
COPY_DONE = message("c")


def function_call(oid: int, *values: bytes | None) -> bytes:
    """With binary values and result, as libpq sends it."""
    body = struct.pack(">IHHH", oid, 1, 1, len(values))
    for value in values:
        body += struct.pack(">i", -1) if value is None else struct.pack(">i", len(value)) + value
    return message("F", body + struct.pack(">H", 1))


def function_result(value: bytes | None) -> bytes:
    return message("V", struct.pack(">i", -1) if value is None else row(value)[7:])


# --- server ---

AUTH_OK = message("R", struct.pack(">I", 0))
AUTH_CLEARTEXT = message("R", struct.pack(">I", 3))
PARSED = message("1")
BOUND = message("2")
CLOSED = message("3")
NO_DATA = message("n")
SUSPENDED = message("s")
EMPTY = message("I")
COPY_IN = message("G", struct.pack(">BHH", 0, 1, 0))
COPY_OUT = message("H", struct.pack(">BHH", 0, 1, 0))
COPY_BOTH = message("W", struct.pack(">BH", 0, 0))


def auth_md5(salt: bytes) -> bytes:
    return message("R", struct.pack(">I", 5) + salt)


def auth_sasl(*mechanisms: str) -> bytes:
    return message("R", struct.pack(">I", 10) + b"".join(map(text, mechanisms)) + b"\0")


def auth_sasl_continue(data: bytes) -> bytes:
    return message("R", struct.pack(">I", 11) + data)


def auth_sasl_final(data: bytes) -> bytes:
    return message("R", struct.pack(">I", 12) + data)


def status(name: str, value: str) -> bytes:
    return message("S", text(name) + text(value))


def key(process_id: int, secret: bytes) -> bytes:
    return message("K", struct.pack(">I", process_id) + secret)


def ready(transaction: str = "I") -> bytes:
    return message("Z", transaction.encode())


def columns(*names: str, table: int = 0, kind: int = 25, shown: int = 0) -> bytes:
    """RowDescription; each column is number 1, 2, ... of `table`."""
    body = struct.pack(">H", len(names))
    for number, name in enumerate(names, 1):
        attnum = number if table else 0
        body += text(name) + struct.pack(">IHIhiH", table, attnum, kind, -1, -1, shown)
    return message("T", body)


def parameter_types(*oids: int) -> bytes:
    return message("t", struct.pack(">H", len(oids)) + b"".join(struct.pack(">I", o) for o in oids))


def row(*values: bytes | None) -> bytes:
    body = struct.pack(">H", len(values))
    for value in values:
        body += struct.pack(">i", -1) if value is None else struct.pack(">i", len(value)) + value
    return message("D", body)


def done(tag: str) -> bytes:
    return message("C", text(tag))


def error(sqlstate: str, what: str, severity: str = "ERROR") -> bytes:
    return _report("E", sqlstate, what, severity)


def notice(what: str, sqlstate: str = "00000") -> bytes:
    return _report("N", sqlstate, what, "NOTICE")


def _report(kind: str, sqlstate: str, what: str, severity: str) -> bytes:
    parts = [b"S" + text(severity), b"V" + text(severity), b"C" + text(sqlstate), b"M" + text(what)]
    return message(kind, b"".join(parts) + b"\0")


def notification(channel: str, payload: str) -> bytes:
    return message("A", struct.pack(">I", 1) + text(channel) + text(payload))
