"""The history over ClickHouse's HTTP interface, for readers only.

The embedded engine belongs to one process, so this one answers for it: clickhouse-connect,
curl, `gatebook sql` and Grafana's ClickHouse data source ask as they would ask a server. What is
refused and where: writes, DDL, remote and file table functions by the engine (grants, readonly);
files and this process's objects by sinks/guard.py; everything without the token here. A handle
of its own for each query: settings and the current database never leak into the next one.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import json
import re
import secrets
import threading
import time
import uuid
import zlib
from base64 import b64decode
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Final

import chdb
import structlog
import zstandard
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from schemas.settings import ClickHouseSink, SettingsError
from sinks import guard, migrate, native
from sinks.store import VAULT, data_path, write_grants

log = structlog.get_logger(__name__)

_THREADS: Final = 4
_OPEN: Final = 64
"""Queries that wait, run or are being read; further ones are refused."""
_MAX_QUERY_BYTES: Final = 1024 * 1024
_MAX_RESULT_BYTES: Final = 128 * 1024 * 1024
"""Of formats that have a head or a foot and cannot be streamed."""
_MAX_MEMORY_BYTES: Final = 2 * 1024 * 1024 * 1024
_SPILL_BYTES: Final = 512 * 1024 * 1024
"""State of one operator beyond which it goes to disk: a question about the whole of a long
history becomes slow, not impossible."""

_AUTHENTICATION_FAILED: Final = 516
_TOO_MANY_QUERIES: Final = 202
_BAD_ARGUMENTS: Final = 36
_NOT_IMPLEMENTED: Final = 48
_STD_EXCEPTION: Final = 1001
_TOO_MANY_BYTES: Final = 396
_STATUS: Final = {
    _AUTHENTICATION_FAILED: 401,
    guard.ACCESS_DENIED: 403,
    guard.READONLY: 403,
    36: 400, 42: 400, 43: 400, 46: 404, 47: 404, 48: 501, 53: 400, 60: 404, 62: 400, 63: 400,
    73: 400, 81: 404, 115: 404, 159: 408, 202: 503, 396: 413, 456: 400, 457: 400,
}  # fmt: skip
_NAMES: Final = {
    _AUTHENTICATION_FAILED: "AUTHENTICATION_FAILED",
    guard.ACCESS_DENIED: "ACCESS_DENIED",
    guard.READONLY: "READONLY",
    _TOO_MANY_QUERIES: "TOO_MANY_SIMULTANEOUS_QUERIES",
    _BAD_ARGUMENTS: "BAD_ARGUMENTS",
    _NOT_IMPLEMENTED: "NOT_IMPLEMENTED",
    _STD_EXCEPTION: "STD_EXCEPTION",
    _TOO_MANY_BYTES: "TOO_MANY_ROWS_OR_BYTES",
}

# The engine gives a stream block by block, each encoded on its own: right where a result is the
# concatenation of its blocks.
_STREAMED: Final = frozenset(
    {"Native", "TabSeparated", "TSV", "CSV", "RowBinary", "JSONEachRow", "JSONCompactEachRow"}
)
_CONTENT_TYPES: Final = {
    "JSON": "application/json; charset=UTF-8",
    "JSONCompact": "application/json; charset=UTF-8",
    "JSONStrings": "application/json; charset=UTF-8",
    "JSONEachRow": "application/x-ndjson; charset=UTF-8",
    "JSONCompactEachRow": "application/x-ndjson; charset=UTF-8",
    "CSV": "text/csv; charset=UTF-8; header=absent",
    "CSVWithNames": "text/csv; charset=UTF-8; header=present",
    "TabSeparated": "text/tab-separated-values; charset=UTF-8",
    "TabSeparatedWithNames": "text/tab-separated-values; charset=UTF-8",
    "Native": "application/octet-stream",
    "RowBinary": "application/octet-stream",
    "RowBinaryWithNamesAndTypes": "application/octet-stream",
    "Arrow": "application/octet-stream",
    "ArrowStream": "application/octet-stream",
    "Parquet": "application/octet-stream",
}

# Settings a reader may choose; clients send many more, which are of no consequence here. None
# names a file, raises a limit or changes what a grant covers.
_CHOSEN: Final = re.compile(
    r"output_format_(?:json|csv|tsv|pretty|arrow|parquet|native|decimal)_\w+"
    r"|date_time_output_format|session_timezone|join_use_nulls|extremes|limit|offset"
    r"|max_block_size|max_result_rows"
)

_FORMAT: Final = re.compile(r"\bFORMAT (\w+)$")
_ERROR: Final = re.compile(r"Code: (\d+)\. DB::Exception: ")
_NUMBER: Final = re.compile(r"\d{1,9}(?:\.\d{1,9})?")
_FORMAT_NAME: Final = re.compile(r"\w{1,64}")


class NotLoopback(Exception):
    """The reading endpoint speaks clear text: it may be bound to a loopback address only."""


class QueryError(Exception):
    """An answer in ClickHouse's own words, with its error number."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


@dataclass(frozen=True, slots=True)
class Query:
    """What a client asks for."""

    sql: str
    database: str
    format: str
    parameters: Mapping[str, str]
    settings: Mapping[str, str]
    query_id: str
    vault: bool = False
    """Whether rows of the vault are there for it."""
    revision: int = 0
    """Protocol revision of the client, which decides what the Native format looks like."""


class Reader:
    """Serves reads of the embedded engine, which the sink must have opened before."""

    def __init__(self, settings: ClickHouseSink) -> None:
        """Raises NotLoopback, SettingsError."""
        require_loopback(settings.http_host)
        if settings.http_token is None:
            raise ValueError("a reader needs a token")
        self._token = settings.http_token.read().encode()
        self._vault_token = settings.vault_token.read().encode() if settings.vault_token else b""
        if hmac.compare_digest(self._token, self._vault_token):
            raise SettingsError("clickhouse.vault_token must not be clickhouse.http_token")
        self._database = settings.database
        self._timeout_s = settings.query_timeout_s
        config = write_grants(settings.path, settings.database)
        self._connection = f"{data_path(settings.path).resolve()}?config-file={config}"
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="reader")
        self._open = 0

    def app(self) -> Starlette:
        """The ASGI application."""
        return Starlette(
            routes=[
                Route("/ping", _ping, methods=["GET", "HEAD"]),
                Route("/", self._query, methods=["GET", "POST"]),
            ]
        )

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _query(self, request: Request) -> Response:
        try:
            vault = self._authenticated(request, self._vault_token)
            if not vault and not self._authenticated(request, self._token):
                raise QueryError(
                    _AUTHENTICATION_FAILED,
                    "Authentication failed: the password is the token of this endpoint",
                )
            query = replace(await self._parsed(request), vault=vault)
            if not query.sql.strip():
                return PlainTextResponse("Ok.\n")
            return await self._answer(query, _encoding(request))
        except QueryError as error:
            return _failure(error)
        except Exception as error:
            log.error("reader failed", error=type(error).__name__)
            return _failure(QueryError(_STD_EXCEPTION, "The query could not be answered"))

    def _authenticated(self, request: Request, token: bytes) -> bool:
        given = _credential(request)
        # Compared in constant time, also when there is none.
        return hmac.compare_digest((given or "").encode(), token) and bool(given)

    async def _parsed(self, request: Request) -> Query:
        parameters = dict(request.query_params)
        sql = parameters.get("query", "")
        if request.method == "POST":
            body = await _body(request)
            sql = f"{sql}\n{body}" if sql and body else sql or body
        if len(sql) > _MAX_QUERY_BYTES:
            raise QueryError(_BAD_ARGUMENTS, "The query is too large")
        if parameters.get("compress") == "1" or parameters.get("decompress") == "1":
            raise QueryError(
                _NOT_IMPLEMENTED,
                "Blocks are not compressed here: use gzip or zstd (enable_http_compression=1)",
            )
        revision = parameters.get("client_protocol_version", "")[:9]
        chosen = parameters.get("default_format") or request.headers.get("x-clickhouse-format")
        if chosen is not None and not _FORMAT_NAME.fullmatch(chosen):
            raise QueryError(_BAD_ARGUMENTS, "Not the name of a format")
        return Query(
            sql=sql,
            database=parameters.get("database")
            or request.headers.get("x-clickhouse-database")
            or self._database,
            format=chosen or "TabSeparated",
            parameters={
                name.removeprefix("param_"): value
                for name, value in parameters.items()
                if name.startswith("param_")
            },
            settings={
                name: value
                for name, value in parameters.items()
                if _CHOSEN.fullmatch(name) or name == "max_execution_time"
            },
            query_id=parameters.get("query_id") or str(uuid.uuid4()),
            revision=int(revision) if revision.isascii() and revision.isdigit() else 0,
        )

    async def _answer(self, query: Query, encoding: str | None) -> Response:
        if self._open >= _OPEN:
            raise QueryError(_TOO_MANY_QUERIES, "Too many simultaneous queries")
        self._open += 1
        started = time.monotonic()
        making = asyncio.ensure_future(self._in_thread(lambda: _Execution(self, query)))
        try:
            execution = await asyncio.shield(making)
        except BaseException:
            self._open -= 1
            # Nobody waits for it any more, and it may still begin.
            making.add_done_callback(_close_unwanted)
            raise

        async def close() -> None:
            self._open -= 1
            await self._in_thread(execution.close)

        tag = secrets.token_hex(8)
        headers = {
            "X-ClickHouse-Query-Id": _header(query.query_id),
            "X-ClickHouse-Format": execution.format,
            "X-ClickHouse-Exception-Tag": tag,
            "X-ClickHouse-Server-Display-Name": "gatebook",
            "X-ClickHouse-Timezone": _header(query.settings.get("session_timezone", "UTC")),
            "X-ClickHouse-Summary": json.dumps(
                {"elapsed_ns": str(int((time.monotonic() - started) * 1e9))}
            ),
        }
        if encoding is not None:
            headers["Content-Encoding"] = encoding
        return _Answer(
            self._chunks(execution, _compressor(encoding), tag),
            headers=headers,
            media_type=_CONTENT_TYPES.get(execution.format, "text/plain; charset=UTF-8"),
            close=close,
            limit_s=2 * self._timeout_s,
        )

    async def _chunks(
        self, execution: _Execution, compress: _Compressor, tag: str
    ) -> AsyncIterator[bytes]:
        try:
            while (chunk := await self._in_thread(execution.next)) is not None:
                if packed := compress.add(chunk):
                    yield packed
        except QueryError as error:
            # The status is long sent. A server says it in the body, between marks that only the
            # response's head could announce, so that no data can be taken for them.
            text = f"{_message(error)}\n".encode()
            yield compress.add(
                b"\r\n__exception__\r\n%s\r\n%s%d %s\r\n__exception__\r\n"
                % (tag.encode(), text, len(text), tag.encode())
            )
        if packed := compress.end():
            yield packed

    async def _in_thread(self, work: Callable[[], Any]) -> Any:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except RuntimeError as error:  # the engine's ChdbError is one
            raise _translated(str(error)) from None

    def handle(self, query: Query) -> Any:
        """A connection with this query's database, limits and settings; not yet read-only."""
        connection = chdb.connect(self._connection)
        try:
            connection.query(f"USE {migrate.quoted(query.database)}")
            for name, value in self._limits(query).items():
                connection.query(f"SET {name} = {_literal(value)}")
        except BaseException:
            connection.close()
            raise
        return connection

    def _limits(self, query: Query) -> dict[str, str]:
        chosen = dict(query.settings)
        limit = self._timeout_s
        wanted = chosen.pop("max_execution_time", "")
        if _NUMBER.fullmatch(wanted) and float(wanted) > 0:
            limit = min(limit, float(wanted))
        return {
            "session_timezone": "UTC",
            **chosen,
            "max_execution_time": str(limit),
            "timeout_overflow_mode": "throw",
            "result_overflow_mode": "throw",
            "max_memory_usage": str(_MAX_MEMORY_BYTES),
            "max_bytes_before_external_group_by": str(_SPILL_BYTES),
            "max_bytes_before_external_sort": str(_SPILL_BYTES),
            "max_bytes_before_external_join": str(_SPILL_BYTES),
            "log_comment": VAULT if query.vault else "",
            "allow_ddl": "0",
            "allow_introspection_functions": "0",
            # Leave a core to the writer.
            "max_threads": "1",
        }


class _Answer(StreamingResponse):
    """Streams a result and closes its query, whatever becomes of the client."""

    def __init__(
        self,
        content: AsyncIterator[bytes],
        *,
        headers: Mapping[str, str],
        media_type: str,
        close: Callable[[], Awaitable[None]],
        limit_s: float,
    ) -> None:
        super().__init__(content, headers=headers, media_type=media_type)
        self._close = close
        self._limit_s = limit_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            # A client that stops reading would hold its query for ever.
            async with asyncio.timeout(self._limit_s):
                await super().__call__(scope, receive, send)
        finally:
            await asyncio.shield(self._close())


def _close_unwanted(making: asyncio.Future[_Execution]) -> None:
    if not making.cancelled() and making.exception() is None:
        making.result().close()


class _Execution:
    """A query under way. Made, advanced and closed in the reader's threads.

    The engine dies of a stream that one thread cancels while another fetches from it, and a
    client that leaves does not stop the thread that fetches for it: what is closed under way is
    freed by the thread that has it.
    """

    def __init__(self, reader: Reader, query: Query) -> None:
        self._turn = threading.Lock()
        self._busy = self._closed = False
        self._connection = reader.handle(query)
        self._stream: Any = None
        self._first: bytes | None = None
        self._revision = query.revision
        try:
            sql = self._formatted(query.sql)
            stated = _FORMAT.search(sql)
            self.format = stated[1] if stated else query.format
            streamed = self.format in _STREAMED
            if not streamed:
                self._connection.query(f"SET max_result_bytes = {_MAX_RESULT_BYTES}")
            self._connection.query("SET readonly = 1")
            parameters = dict(query.parameters)
            if streamed:
                self._stream = self._connection.send_query(sql, self.format, params=parameters)
                # The first block shows most errors, while there is still a status to send.
                self._first = self._fetch()
                if self._first is None and self.format == "Native":
                    self._first = self._head(sql, parameters)
            else:
                result = self._connection.query(sql, self.format, params=parameters)
                # The engine's own limit counts a constant column once, whatever it is written as.
                if result.size() > _MAX_RESULT_BYTES:
                    raise QueryError(_TOO_MANY_BYTES, "The result is too large for this format")
                self._first = result.bytes()
        except BaseException:
            self.close()
            raise

    def _formatted(self, sql: str) -> str:
        text: bytes = self._connection.query(
            "SELECT formatQuerySingleLine({q:String})", "RawBLOB", params={"q": _escaped(sql)}
        ).bytes()
        formatted = text.decode()
        try:
            guard.check(formatted)
        except guard.Refused as error:
            raise QueryError(error.code, str(error)) from None
        return formatted

    def _head(self, sql: str, parameters: dict[str, str]) -> bytes | None:
        """The block without rows by which a server names the columns of an empty result."""
        if not sql.startswith(("SELECT", "WITH")):
            return None
        description = self._connection.query(
            f"DESCRIBE ({_FORMAT.sub('', sql)})", "JSONCompact", params=parameters
        ).bytes()
        columns = [(name, kind) for name, kind, *_ in json.loads(description)["data"]]
        block = bytearray(_varint(len(columns)) + _varint(0))
        for text in (text for column in columns for text in column):
            encoded = text.encode()
            block += _varint(len(encoded)) + encoded
        return bytes(block)

    def _fetch(self) -> bytes | None:
        for chunk in self._stream:
            data: bytes = chunk.bytes()
            if data:
                return data
        return None

    def next(self) -> bytes | None:
        """The next bytes of the result; None at its end."""
        with self._turn:
            if self._closed:
                return None
            self._busy = True
        try:
            data, self._first = self._first, None
            if data is None and self._stream is not None:
                data = self._fetch()
            return data if data is None else self._framed(data)
        finally:
            self._settle()

    def _framed(self, data: bytes) -> bytes:
        if not self._revision or self.format != "Native":
            return data
        try:
            return native.framed(data, self._revision)
        except native.UnsupportedType as error:
            raise QueryError(_NOT_IMPLEMENTED, str(error)) from None

    def close(self) -> None:
        """End the query, at the latest when the block that is being fetched has come."""
        with self._turn:
            first, self._closed = not self._closed, True
            if self._busy or not first:
                return
        self._free()

    def _settle(self) -> None:
        with self._turn:
            self._busy, closed = False, self._closed
        if closed:
            self._free()

    def _free(self) -> None:
        if self._stream is not None:
            self._stream.close()
        self._connection.close()


def require_loopback(host: str) -> None:
    """Raises NotLoopback."""
    try:
        if ipaddress.ip_address(host).is_loopback:
            return
    except ValueError:
        if host == "localhost":
            return
    raise NotLoopback(
        f"clickhouse.http_host is {host}: the reading endpoint has no TLS and serves loopback "
        "addresses only; put a TLS proxy before it, or use a ClickHouse server"
    )


def _credential(request: Request) -> str | None:
    """Whatever way a ClickHouse client has to say a password; the user's name is free."""
    key = request.headers.get("x-clickhouse-key")
    if key is not None:
        return key
    scheme, _, value = request.headers.get("authorization", "").partition(" ")
    match scheme.lower():
        case "bearer":
            return value.strip()
        case "basic":
            try:
                return b64decode(value, validate=True).decode().partition(":")[2]
            except ValueError:
                return None
    return request.query_params.get("password")


async def _body(request: Request) -> str:
    encoding = request.headers.get("content-encoding", "identity").lower()
    received = bytearray()
    try:
        async for chunk in request.stream():
            received += chunk
            if len(received) > _MAX_QUERY_BYTES:
                raise QueryError(_BAD_ARGUMENTS, "The query is too large")
    except ClientDisconnect:
        raise QueryError(_BAD_ARGUMENTS, "The request is incomplete") from None
    try:
        return _decompressed(bytes(received), encoding).decode()
    except (zlib.error, zstandard.ZstdError, EOFError, UnicodeDecodeError):
        raise QueryError(_BAD_ARGUMENTS, f"The body is no {encoding} text") from None


def _decompressed(data: bytes, encoding: str) -> bytes:
    # Bounded: a kilobyte may say that it is a gigabyte.
    match encoding:
        case "identity" | "":
            return data
        case "gzip" | "deflate":
            unpacker = zlib.decompressobj(wbits=47)
            unpacked = unpacker.decompress(data, _MAX_QUERY_BYTES + 1)
            if not unpacker.eof and len(unpacked) <= _MAX_QUERY_BYTES:
                raise QueryError(_BAD_ARGUMENTS, "The body ends too early")
        case "zstd":
            with zstandard.ZstdDecompressor().stream_reader(data) as stream:
                unpacked = stream.read(_MAX_QUERY_BYTES + 1)
        case _:
            raise QueryError(_BAD_ARGUMENTS, f"Content-Encoding {encoding} is not supported")
    if len(unpacked) > _MAX_QUERY_BYTES:
        raise QueryError(_BAD_ARGUMENTS, "The query is too large")
    return unpacked


def _encoding(request: Request) -> str | None:
    """How to compress the answer: only when asked for in ClickHouse's own way, as a server does."""
    if request.query_params.get("enable_http_compression") not in ("1", "true"):
        return None
    accepted = {
        part.partition(";")[0].strip().lower()
        for part in request.headers.get("accept-encoding", "").split(",")
    }
    return next((name for name in ("zstd", "gzip") if name in accepted), None)


class _Compressor:
    """Bytes as they are."""

    def add(self, data: bytes) -> bytes:
        return data

    def end(self) -> bytes:
        return b""


class _Gzip(_Compressor):
    def __init__(self) -> None:
        self._packer = zlib.compressobj(level=3, wbits=31)

    def add(self, data: bytes) -> bytes:
        return self._packer.compress(data)

    def end(self) -> bytes:
        return self._packer.flush()


class _Zstd(_Compressor):
    def __init__(self) -> None:
        self._packer = zstandard.ZstdCompressor(level=1).compressobj()

    def add(self, data: bytes) -> bytes:
        packed: bytes = self._packer.compress(data)
        return packed

    def end(self) -> bytes:
        packed: bytes = self._packer.flush()
        return packed


def _compressor(encoding: str | None) -> _Compressor:
    match encoding:
        case "gzip":
            return _Gzip()
        case "zstd":
            return _Zstd()
    return _Compressor()


def _translated(text: str) -> QueryError:
    """The engine's innermost error: it wraps one in another of the same number."""
    found = list(_ERROR.finditer(text))
    if not found:
        return QueryError(1000, text)
    last = found[-1]
    return QueryError(int(last[1]), text[last.end() :])


def _message(error: QueryError) -> str:
    text = str(error)
    name = _NAMES.get(error.code)
    if name is not None and f"({name})" not in text:
        text = f"{text}. ({name})"
    return f"Code: {error.code}. DB::Exception: {text}"


def _failure(error: QueryError) -> Response:
    headers = {"X-ClickHouse-Exception-Code": str(error.code)}
    if error.code == _AUTHENTICATION_FAILED:
        headers["WWW-Authenticate"] = 'Basic realm="ClickHouse server HTTP API"'
    return PlainTextResponse(
        _message(error) + "\n", status_code=_STATUS.get(error.code, 500), headers=headers
    )


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _escaped(text: str) -> str:
    """A query parameter's text, as TabSeparated writes it."""
    return (
        text.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n")
        .replace("\r", "\\r").replace("\0", "\\0")
    )  # fmt: skip


def _literal(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _header(value: str) -> str:
    return re.sub(r"[^\x21-\x7e]", "_", value)[:128]


async def _ping(_: Request) -> Response:
    return PlainTextResponse("Ok.\n")
