"""Asking the history over ClickHouse's HTTP interface."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cli.problems import Problem

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

    endpoint = document["clickhouse"]
    try:
        token = Path(endpoint["vault_token_file" if vault else "token_file"]).read_text().strip()
    except OSError as error:
        raise Problem(f"cannot read {error.filename}: {error.strerror}") from None
    try:
        answer = httpx.post(
            endpoint["url"],
            params={"database": DATABASE, "default_format": output_format},
            headers={"X-ClickHouse-User": endpoint["user"], "X-ClickHouse-Key": token},
            content=sql.encode(),
            timeout=timeout_s,
            trust_env=False,
        )
    except httpx.HTTPError as error:
        raise Problem(f"ClickHouse at {endpoint['url']} does not answer: {error}") from None
    if not answer.is_success:
        raise Problem(_message(answer.text) or f"ClickHouse answers HTTP {answer.status_code}")
    return answer.text


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
