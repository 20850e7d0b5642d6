"""Changes of what is served, which every worker follows: a journal in a file that the workers share.

A change is made in the worker that was asked, under the journal's lock and after every earlier one, and
written down if it succeeded. The others read it a moment later and do the same, and one that is started
later begins with all of them, so that any two workers mean the same by a name. The answer waits for the
others. With one process there is no file, and a change is only made, one after another all the same: what is
loaded must not be for a name that is gone meanwhile. A model that breaks in one worker is
taken back there at once, and then in the others as well. The trade-off: a worker in which it had proved
itself long since keeps it, and says so.
"""

import asyncio
import fcntl
import logging
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from runtime.errors import ModelpressError
from service import adapters
from service.alias import Alias
from service.catalog import Catalog

logger = logging.getLogger("modelpress.service")

# How soon the other workers look.
LOOK_SECONDS = 0.2
FILE = "changes"
# A worker that takes longer to load a model follows later.
PATIENCE_SECONDS = 30.0


class Change(BaseModel):
    """A change, as it is written down."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    action: Literal[
        "load", "unload", "roll_back", "set_alias", "drop_alias", "load_adapter", "unload_adapter"
    ]
    name: str
    take_over: bool = True
    alias: Alias | None = None
    # Of an adapter: the text model under it, where it is, and whether it may take another one's place.
    model: str | None = None
    path: str = ""
    replace: bool = False

    async def apply(self, catalog: Catalog) -> "Change":
        """Make it. The same change, naming the version that was found. Raises what the catalog raises."""
        if self.action == "load":
            manifest = await catalog.load(self.name, take_over=self.take_over)
            return self.model_copy(update={"name": f"{manifest.tag}:{manifest.version}"})
        if self.action == "unload":
            await catalog.unload(self.name)
        elif self.action == "roll_back":
            catalog.roll_back(self.name)
        elif self.action == "load_adapter":
            engine = adapters.base_of(catalog, self.model)
            await adapters.load(catalog, engine, self.name, self.path, replace=self.replace)
        elif self.action == "unload_adapter":
            adapters.unload(adapters.base_of(catalog, self.model), self.name)
        elif self.alias:
            catalog.set_alias(self.name, self.alias)
        else:
            catalog.drop_alias(self.name)
        return self


class Journal:
    """The door by which a running catalog is changed. `folder` is shared by the workers, if there are any."""

    def __init__(self, catalog: Catalog, folder: Path | None) -> None:
        self._catalog, self._folder = catalog, folder
        self._position = 0
        self._mutex = asyncio.Lock()
        self._telling: set[asyncio.Task[Change]] = set()

    async def load(self, name: str, *, take_over: bool = True) -> str:
        """`Catalog.load`, in every worker; what was loaded, as `tag:version`."""
        return (await self._commit(Change(action="load", name=name, take_over=take_over))).name

    async def unload(self, name: str) -> None:
        """`Catalog.unload`, in every worker."""
        await self._commit(Change(action="unload", name=name))

    async def set_alias(self, name: str, alias: Alias) -> None:
        """`Catalog.set_alias`, in every worker."""
        await self._commit(Change(action="set_alias", name=name, alias=alias))

    async def drop_alias(self, name: str) -> None:
        """`Catalog.drop_alias`, in every worker."""
        await self._commit(Change(action="drop_alias", name=name))

    async def load_adapter(self, model: str, name: str, path: str, *, replace: bool) -> None:
        """`adapters.load` over the text model of that tag, in every worker."""
        change = Change(action="load_adapter", name=name, model=model, path=path, replace=replace)
        await self._commit(change)

    async def unload_adapter(self, model: str, name: str) -> None:
        """`adapters.unload` from the text model of that tag, in every worker."""
        await self._commit(Change(action="unload_adapter", name=name, model=model))

    @asynccontextmanager
    async def followed(self) -> AsyncIterator["Journal"]:
        """Make every change there is, and from then on those of the other workers."""
        if self._folder is None:
            yield self
            return
        await self._catch_up(self._folder)
        task = asyncio.create_task(self._follow(self._folder))
        self._catalog.on_rollback = self._tell_of_rollback
        try:
            yield self
        finally:
            self._catalog.on_rollback = None
            for each in (task, *self._telling):
                each.cancel()
            await asyncio.gather(task, *self._telling, return_exceptions=True)
            _mark(self._folder, os.getpid()).unlink(missing_ok=True)

    async def _commit(self, change: Change) -> Change:
        if self._folder is None:
            async with self._mutex:
                return await change.apply(self._catalog)
        async with self._mutex:
            with (self._folder / FILE).open("ab") as file:
                # Let go when the file is closed, or by the kernel when this process dies.
                await asyncio.to_thread(fcntl.flock, file, fcntl.LOCK_EX)
                await self._read(self._folder)
                made = await change.apply(self._catalog)
                file.write(made.model_dump_json().encode() + b"\n")
                file.flush()
                self._note(self._folder, file.tell())
            position = self._position
        await self._wait_for_others(self._folder, position)
        return made

    def _tell_of_rollback(self, tag: str, version: str) -> None:
        task = asyncio.create_task(self._commit(Change(action="roll_back", name=f"{tag}:{version}")))
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    async def _follow(self, folder: Path) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            await self._catch_up(folder)

    async def _catch_up(self, folder: Path) -> None:
        async with self._mutex:
            await self._read(folder)

    async def _read(self, folder: Path) -> None:
        """Make the changes that were written down since the last look."""
        path = folder / FILE
        if path.exists() and path.stat().st_size > self._position:
            with path.open("rb") as file:
                file.seek(self._position)
                # A line that is being written has no end yet.
                whole, _, _ = file.read().rpartition(b"\n")
            for line in whole.splitlines():
                await self._repeat(Change.model_validate_json(line))
            self._note(folder, self._position + (len(whole) + 1 if whole else 0))
        else:
            self._note(folder, self._position)

    async def _repeat(self, change: Change) -> None:
        try:
            await change.apply(self._catalog)
        except ModelpressError as error:
            logger.error("this worker cannot follow '%s %s': %s", change.action, change.name, error)
        except Exception:
            # Memory that ran out, say. Whoever gave up here would follow no later change either.
            logger.exception("this worker cannot follow '%s %s'", change.action, change.name)

    def _note(self, folder: Path, position: int) -> None:
        """Tell the others how far this worker is."""
        mark = _mark(folder, os.getpid())
        if position == self._position and mark.exists():
            return
        self._position = position
        staging = mark.with_suffix(".new")
        staging.write_text(str(position))
        staging.replace(mark)

    async def _wait_for_others(self, folder: Path, position: int) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE_SECONDS):
                while min(_positions(folder), default=position) < position:
                    await asyncio.sleep(LOOK_SECONDS / 4)


def forget(folder: Path, pid: int) -> None:
    """Wait no more for a worker that is dead."""
    _mark(folder, pid).unlink(missing_ok=True)


def _mark(folder: Path, pid: int) -> Path:
    return folder / f"followed_{pid}"


def _positions(folder: Path) -> Iterator[int]:
    for path in folder.glob("followed_*"):
        with suppress(FileNotFoundError):
            if not path.suffix:
                yield int(path.read_text())
