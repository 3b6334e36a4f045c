"""Policies are taken whole or not at all, and while they change."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from gateway.policy_files import Load, PolicyWatch, load

GOOD = '@id("{}") permit (principal in Group::"x", action == Action::"connect", resource);'
BROKEN = '@id("a")\npermit (principal, action == Action::"connect", resource)\nwhen { context.x };'


def names(loaded: Load) -> set[str] | None:
    return None if loaded.policies is None else set(loaded.policies.rules)


class Taken(list[Load]):
    def __init__(self) -> None:
        super().__init__()
        self.more = asyncio.Event()

    def take(self, loaded: Load) -> None:
        self.append(loaded)
        self.more.set()


@asynccontextmanager
async def watching(folder: Path | None) -> AsyncIterator[Taken]:
    taken = Taken()
    watch = PolicyWatch(folder, 0.02, taken.take)
    watch.start()
    try:
        yield taken
    finally:
        await watch.close()


async def until(taken: Taken, number: int) -> None:
    async with asyncio.timeout(20):
        while len(taken) < number:
            taken.more.clear()
            await taken.more.wait()


def put(path: Path, text: str) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(text)
    partial.replace(path)


def metric(name: str) -> float:
    return REGISTRY.get_sample_value(name) or 0.0


async def test_a_change_a_new_file_and_a_file_removed_are_taken(tmp_path: Path) -> None:
    put(tmp_path / "a.cedar", GOOD.format("a"))
    async with watching(tmp_path) as taken:
        assert [names(loaded) for loaded in taken] == [{"a"}]
        put(tmp_path / "b.cedar", GOOD.format("b"))
        await until(taken, 2)
        put(tmp_path / "a.cedar", GOOD.format("c"))
        await until(taken, 3)
        (tmp_path / "b.cedar").unlink()
        await until(taken, 4)
    assert [names(loaded) for loaded in taken] == [{"a"}, {"a", "b"}, {"b", "c"}, {"c"}]
    assert metric("gatebook_policies_age_seconds") >= 0


async def test_a_broken_file_is_told_with_its_place_and_mended_later(tmp_path: Path) -> None:
    failures = metric("gatebook_policies_reload_failures_total")
    put(tmp_path / "a.cedar", GOOD.format("a"))
    async with watching(tmp_path) as taken:
        put(tmp_path / "a.cedar", BROKEN)
        await until(taken, 2)
        assert taken[1].policies is None
        assert taken[1].reason.startswith("a.cedar:3: error: a: attribute `x`")
        assert metric("gatebook_policies_reload_failures_total") == failures + 1
        assert metric("gatebook_policies_current") == 0
        put(tmp_path / "a.cedar", GOOD.format("b"))
        await until(taken, 3)
    assert names(taken[2]) == {"b"}
    assert metric("gatebook_policies_current") == 1


async def test_a_folder_that_is_replaced_by_a_link_is_taken(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        put(tmp_path / name / "a.cedar", GOOD.format(name))
    link = tmp_path / "now"
    link.symlink_to("one")
    async with watching(link) as taken:
        next_link = tmp_path / "next"
        next_link.symlink_to("two")
        next_link.replace(link)
        await until(taken, 2)
    assert [names(loaded) for loaded in taken] == [{"one"}, {"two"}]


async def test_a_folder_that_vanishes_is_a_failure_and_comes_back(tmp_path: Path) -> None:
    folder = tmp_path / "policies"
    folder.mkdir()
    put(folder / "a.cedar", GOOD.format("a"))
    async with watching(folder) as taken:
        folder.rename(tmp_path / "away")
        await until(taken, 2)
        assert taken[1].policies is None
        (tmp_path / "away").rename(folder)
        await until(taken, 3)
    assert names(taken[2]) == {"a"}


@pytest.mark.parametrize("content", [None, b"", b"\xff", b"permit (", BROKEN.encode()])
def test_what_cannot_be_used_says_why(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "a.cedar").write_bytes(content)
    loaded = load(tmp_path)
    assert loaded.policies is None or not loaded.policies.rules
    assert loaded.reason or content == b""


async def test_without_a_folder_there_is_nothing_to_take() -> None:
    async with watching(None) as taken:
        assert [(loaded.policies, bool(loaded.reason)) for loaded in taken] == [(None, True)]
