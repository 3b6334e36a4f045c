"""Asking the history over ClickHouse's HTTP interface."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from cli.problems import Problem

if TYPE_CHECKING:
    import ssl

DATABASE = "audit"


def query(
    document: dict[str, Any],
    sql: str,
    output_format: str,
    timeout_s: float = 60,
    *,
    vault: bool = False,
) -> str:
    """Text of the answer in one of ClickHouse's formats. Raises Problem with its message.

    `output_format` is the default: a FORMAT clause in `sql` wins. `vault`: with the token to which
    sealed originals show.
    """
    import httpx

    request, url = _request(document, sql, output_format, vault=vault)
    try:
        answer = httpx.post(url, timeout=timeout_s, trust_env=False, verify=_trust(), **request)
    except httpx.HTTPError as error:
        raise Problem(f"ClickHouse at {url} does not answer: {error}") from None
    if not answer.is_success:
        raise Problem(_message(answer.text) or f"ClickHouse answers HTTP {answer.status_code}")
    return answer.text


def lines(document: dict[str, Any], sql: str, *, vault: bool = False) -> Iterator[list[Any]]:
    """Rows of an answer of any size, as they come. Raises Problem."""
    return map(row, texts(document, sql, vault=vault))


def row(text: bytes) -> list[Any]:
    """A row from its JSON. Raises Problem."""
    try:
        made: list[Any] = orjson.loads(text)
    except orjson.JSONDecodeError:
        if not text.startswith(b"["):
            raise Problem("ClickHouse broke off its answer") from None
        # A text that is not Unicode can only have been put there.
        made = orjson.loads(text.decode(errors="replace"))
    return made


def texts(document: dict[str, Any], sql: str, *, vault: bool = False) -> Iterator[bytes]:
    """The JSON of each row of an answer of any size, as they come. Raises Problem."""
    import httpx

    request, url = _request(document, sql, "JSONCompactEachRow", vault=vault)
    request["params"] |= {
        "output_format_json_quote_64bit_integers": "0",
        "output_format_json_escape_forward_slashes": "0",
        "output_format_json_named_tuples_as_objects": "0",
    }
    try:
        with httpx.stream(
            "POST", url, timeout=300, trust_env=False, verify=_trust(), **request
        ) as answer:
            if not answer.is_success:
                answer.read()
                said = _message(answer.text)
                raise Problem(said or f"ClickHouse answers HTTP {answer.status_code}")
            rest = b""
            for chunk in answer.iter_bytes():
                *whole, rest = (rest + chunk).split(b"\n")
                yield from whole
            if rest:
                raise Problem("ClickHouse broke off its answer")
    except httpx.HTTPError as error:
        raise Problem(f"ClickHouse at {url} does not answer: {error}") from None


@cache
def _trust() -> ssl.SSLContext:
    # Reading the certificates takes 40 ms of every question, also of one in clear.
    import httpx

    return httpx.create_ssl_context(trust_env=False)


def _request(
    document: dict[str, Any], sql: str, output_format: str, *, vault: bool
) -> tuple[dict[str, Any], str]:
    """What to post, and where."""
    endpoint = document["clickhouse"]
    try:
        token = Path(endpoint["vault_token_file" if vault else "token_file"]).read_text().strip()
    except OSError as error:
        raise Problem(f"cannot read {error.filename}: {error.strerror}") from None
    return {
        "params": {"database": DATABASE, "default_format": output_format},
        "headers": {"X-ClickHouse-User": endpoint["user"], "X-ClickHouse-Key": token},
        "content": sql.encode(),
    }, endpoint["url"]


def rows(document: dict[str, Any], sql: str, timeout_s: float = 60) -> list[dict[str, Any]]:
    """The answer as objects. Raises Problem."""
    answer = rows_or_text(document, sql, timeout_s)
    if isinstance(answer, str):
        raise Problem("the query has a FORMAT clause of its own; leave it out")
    return answer


def rows_or_text(
    document: dict[str, Any], sql: str, timeout_s: float = 60
) -> list[dict[str, Any]] | str:
    """The answer as objects, or its text where `sql` asks for another format. Raises Problem."""
    import json

    text = query(document, sql, "JSON", timeout_s)
    try:
        data = json.loads(text)["data"]
    except (ValueError, KeyError, TypeError):
        return text
    if not isinstance(data, list) or not all(isinstance(row, dict) for row in data):
        return text
    return data


def _message(text: str) -> str:
    """ClickHouse's error text without the trace and the version it ends with."""
    first = text.strip().partition("Stack trace:")[0].strip()
    return first.rpartition(" (version ")[0] or first
