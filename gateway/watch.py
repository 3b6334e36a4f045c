"""Files that are taken again when they have changed.

They are looked at again and again, not watched: folders that are mounted over a network or replaced
by a link (as Kubernetes does) tell nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Final, Generic, TypeVar

import structlog

Stamp = tuple[tuple[str, int, int, int], ...]
Loaded = TypeVar("Loaded")

_NEVER: Final[Stamp] = (("", 0, 0, 0),)

log = structlog.get_logger("watch")


def stamp(files: Iterable[Path]) -> Stamp:
    """Differs whenever one was written, replaced, added or removed."""
    found = []
    for path in files:
        try:
            about = path.stat()
        except OSError:
            # It is about to be replaced, or leads nowhere; reading it will tell.
            found.append((str(path), -1, -1, -1))
        else:
            found.append((str(path), about.st_ino, about.st_size, about.st_mtime_ns))
    return tuple(found)


class Watch(Generic[Loaded]):
    """Loads files whenever they have changed, whole or not at all.

    Somebody who saves three files saves them one after the other: a change is taken once the files
    have been the same twice, and were so while they were read. `load` says in its result what is
    wrong with them; `take` is told of every attempt, and says whether it is done with it: else
    they are loaded again. `files` and `load` run in a thread, since a large set takes long and
    nobody waits for it.
    """

    def __init__(
        self,
        every_s: float,
        files: Callable[[], Iterable[Path]],
        load: Callable[[], Loaded],
        take: Callable[[Loaded], Awaitable[bool]],
    ) -> None:
        self._every_s = every_s
        self._files = files
        self._load = load
        self._take = take
        self._seen = self._taken = _NEVER
        self._task: asyncio.Task[None] | None = None

    def first(self) -> Loaded:
        """What they hold now; the caller takes it."""
        self._seen = self._taken = stamp(self._files())
        return self._load()

    def start(self) -> None:
        """Go on looking; without a `first`, what they hold is a change."""
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Stop looking."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._every_s)
            try:
                await self._look()
            except Exception as error:
                # A watch that has ended without a word would leave what is in force there for ever.
                log.error("watch_failed", error=type(error).__name__)

    async def _look(self) -> None:
        before, self._seen = self._seen, await asyncio.to_thread(self._stamp)
        if self._seen == self._taken or self._seen != before:
            return
        loaded = await asyncio.to_thread(self._load)
        if await asyncio.to_thread(self._stamp) != self._seen:
            return
        seen = self._seen
        if await self._take(loaded):
            self._taken = seen

    def _stamp(self) -> Stamp:
        return stamp(self._files())
