"""The cache of wrapped keys: nothing in it is needed, nothing wrong in it survives."""

from __future__ import annotations

import multiprocessing
import os
import signal
from dataclasses import dataclass
from pathlib import Path

import pytest

from processors.keyring import WrapStore, checksum


@dataclass
class Record:
    offset: int
    key: bytes
    value: bytes | None
    timestamp: int = 0


@pytest.fixture
def store(tmp_path: Path) -> WrapStore:
    return WrapStore(tmp_path)


def test_it_remembers_across_restarts(tmp_path: Path, store: WrapStore) -> None:
    store.cluster = "C"
    store.apply([Record(0, b"a", b"1"), Record(1, b"b", b"2")])
    store.close()
    again = WrapStore(tmp_path)
    assert (again.get(b"a"), again.get(b"b"), again.get(b"c")) == (b"1", b"2", None)
    assert again.cluster == "C"
    assert again.last == (1, checksum(Record(1, b"b", b"2")))
    assert len(again) == 2


def test_an_erased_key_is_forgotten(store: WrapStore) -> None:
    store.apply([Record(0, b"a", b"1"), Record(1, b"b", b"2")])
    store.apply([Record(2, b"a", None)])
    assert store.get(b"a") is None
    assert store.get(b"b") == b"2"
    store.apply([Record(3, b"b", None), Record(4, b"b", b"3"), Record(5, b"c", None)])
    assert store.get(b"b") == b"3"
    assert len(store) == 1


def test_clear_forgets_everything(store: WrapStore) -> None:
    store.cluster = "C"
    store.apply([Record(7, b"a", b"1")])
    store.clear()
    assert (store.cluster, store.last, len(store)) == ("", (-1, 0), 0)


def test_records_at_one_offset_are_told_apart() -> None:
    one = Record(3, b"a", b"1", 5)
    assert checksum(one) == checksum(Record(3, b"a", b"1", 5))
    for other in (Record(3, b"b", b"1", 5), Record(3, b"a", b"2", 5), Record(3, b"a", None, 5)):
        assert checksum(one) != checksum(other)


@pytest.mark.parametrize(
    "content", [b"not a database", b"", b"SQLite format 3\0" + b"\xff" * 5000, b"\0" * 8192]
)
def test_a_broken_file_is_replaced(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "wraps.sqlite").write_bytes(content)
    store = WrapStore(tmp_path)
    store.apply([Record(0, b"a", b"1")])
    assert store.get(b"a") == b"1"


def test_a_file_damaged_in_the_middle_is_replaced(tmp_path: Path) -> None:
    store = WrapStore(tmp_path)
    store.apply([Record(n, b"%d" % n, os.urandom(200)) for n in range(1_000)])
    store.close()
    file = tmp_path / "wraps.sqlite"
    content = bytearray(file.read_bytes())
    for at in range(8192, len(content), 4096):
        content[at : at + 64] = os.urandom(64)
    file.write_bytes(content)
    again = WrapStore(tmp_path)
    assert again.last == (-1, 0)


def test_a_file_of_another_layout_is_replaced(tmp_path: Path, store: WrapStore) -> None:
    store.apply([Record(0, b"a", b"1")])
    store._set(layout="0")
    store.close()
    assert WrapStore(tmp_path).last == (-1, 0)


def _apply_for_ever(folder: Path, started: multiprocessing.synchronize.Event) -> None:
    store = WrapStore(folder)
    offset = 0
    while True:
        store.apply([Record(offset + n, b"%d" % (offset + n), b"x" * 100) for n in range(10)])
        offset += 10
        if offset == 100:
            started.set()


def test_killed_at_any_moment_it_holds_what_its_offset_says(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    started = spawn.Event()
    process = spawn.Process(target=_apply_for_ever, args=(tmp_path, started))
    process.start()
    assert started.wait(60)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    store = WrapStore(tmp_path)
    offset, _ = store.last
    assert offset >= 99
    assert len(store) == offset + 1
