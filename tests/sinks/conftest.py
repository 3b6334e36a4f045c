"""The embedded engine for one test, and rows written into it as the sink writes them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from schemas.events import Masked
from schemas.settings import ClickHouseSink
from sinks.rows import Decoder, table
from sinks.store import Store
from tests.sinks.recorded import records

TOKEN = "the reading token"
VAULT_TOKEN = "the vault's token"
TOPIC = "gatebook.masked"
TOPIC_ID = bytes(range(16))

Write = Callable[..., None]
Ask = Callable[[str], list[tuple[Any, ...]]]


def settings_in(folder: Path) -> ClickHouseSink:
    """Settings of a sink with a folder of its own."""
    token = folder / "token"
    token.write_text(TOKEN + "\n")
    vault_token = folder / "vault-token"
    vault_token.write_text(VAULT_TOKEN + "\n")
    return ClickHouseSink.model_validate(
        {
            "path": folder / "ch",
            "http_port": 0,
            "http_token": {"file": token},
            "vault_token": {"file": vault_token},
        }
    )


def insert(
    store: Store,
    events: Sequence[Masked],
    first: int = 0,
    partition: int = 0,
    token: str | None = None,
) -> None:
    """Write events as the sink writes the records of one partition."""
    made = records(list(events), first)
    rows, poison = Decoder().decode((record.offset, record.value) for record in made)
    assert poison == []
    name = token or f"{partition}:{first}-{first + len(made) - 1}"
    store.insert(table(rows, TOPIC, TOPIC_ID, partition), name)


@pytest.fixture
def chosen(tmp_path: Path) -> ClickHouseSink:
    return settings_in(tmp_path)


@pytest.fixture
def store(chosen: ClickHouseSink) -> Iterator[Store]:
    """The history, empty."""
    made = Store.open(chosen)
    yield made
    made.close()


@pytest.fixture
def write(store: Store) -> Write:
    return partial(insert, store)


@pytest.fixture
def ask(store: Store) -> Ask:
    """Rows of a query."""
    return lambda sql: list(store._client.query(sql).result_rows)
