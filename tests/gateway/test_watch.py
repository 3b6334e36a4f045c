"""Files are taken whole or not at all, once they are still, and again until somebody has them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from gateway.watch import Watch


class Reader:
    """Takes what one file holds; `during` is done while it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.taken: list[str] = []
        self.refuses = 0
        self.loads = 0
        self.during: Callable[[], object] = lambda: None
        self.read = asyncio.Event()
        self._more = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self.watch = Watch(0.02, lambda: [path], self.load, self.take)

    def load(self) -> str:
        self.loads += 1
        text = self.path.read_text() if self.path.exists() else "nothing"
        self.during()
        self._loop.call_soon_threadsafe(self.read.set)
        if text == "unexpected":
            raise KeyError(text)
        return text

    async def take(self, text: str) -> bool:
        self.taken.append(text)
        self._more.set()
        self.refuses -= 1
        return self.refuses < 0

    async def until(self, number: int) -> list[str]:
        async with asyncio.timeout(20):
            while len(self.taken) < number:
                self._more.clear()
                await self._more.wait()
        return self.taken


async def test_what_is_there_is_a_change_unless_it_was_asked_for_first(tmp_path: Path) -> None:
    reader = Reader(tmp_path / "a")
    reader.path.write_text("one")
    reader.watch.start()
    assert await reader.until(1) == ["one"]
    await reader.watch.close()
    again = Reader(reader.path)
    assert again.watch.first() == "one"
    again.watch.start()
    again.path.write_text("three")
    assert await again.until(1) == ["three"]
    await again.watch.close()


async def test_what_changes_while_it_is_read_is_read_again(tmp_path: Path) -> None:
    reader = Reader(tmp_path / "a")
    reader.path.write_text("hal")

    def rest() -> None:
        reader.during = lambda: None
        reader.path.write_text("whole")

    reader.during = rest
    reader.watch.start()
    assert await reader.until(1) == ["whole"]
    await reader.watch.close()


async def test_what_was_not_done_with_is_loaded_again(tmp_path: Path) -> None:
    reader = Reader(tmp_path / "a")
    reader.path.write_text("one")
    reader.refuses = 2
    reader.watch.start()
    assert await reader.until(3) == ["one"] * 3
    reader.path.unlink()
    assert (await reader.until(4))[3] == "nothing"
    assert reader.loads == 4
    await reader.watch.close()


async def test_an_error_that_nobody_expected_does_not_end_the_watch(tmp_path: Path) -> None:
    reader = Reader(tmp_path / "a")
    reader.path.write_text("unexpected")
    reader.watch.start()
    await asyncio.wait_for(reader.read.wait(), 20)
    reader.path.write_text("one")
    assert await reader.until(1) == ["one"]
    await reader.watch.close()
