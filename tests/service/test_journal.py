"""What one worker finds out, the others do; here two catalogs of one process share the journal's folder."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import numpy as np
import pytest

from runtime.bundle import Bundle, write_bundle
from runtime.manifest import Manifest
from service.alias import Alias
from service.catalog import PROBATION, Catalog
from service.errors import InvalidRequest, ModelFailed
from service.journal import Journal
from service.served import load
from service.settings import Settings
from tests.service.conftest import write_digits

PIXELS = {"pixels": np.ones((1, 1, 8, 8), np.float32)}


def publish_again(folder: Path) -> str:
    old = Bundle.open(folder).manifest
    copy = folder.parent / "model.onnx"
    copy.write_bytes((folder / "model.onnx").read_bytes())
    changed = old.model_copy(update={"labels": ("night", "day")})
    return write_bundle(folder, changed, {"model.onnx": copy}).manifest.version


async def becomes(catalog: Catalog, version: str) -> None:
    async with asyncio.timeout(120):
        while catalog.find("digits-tiny").manifest.version != version:
            await asyncio.sleep(0.02)


async def break_it(catalog: Catalog) -> None:
    model = catalog.tensor("digits-tiny")
    model.model._session = None
    for _ in range(3):
        with pytest.raises(ModelFailed):
            await model.run(PIXELS)


def test_a_model_that_breaks_in_one_worker_is_taken_back_in_all(tmp_path):
    write_digits(tmp_path / "digits")
    shared = tmp_path / "shared"
    shared.mkdir()

    async def test() -> None:
        settings = Settings()
        async with AsyncExitStack() as stack:
            catalogs, journals = [], []
            for _ in range(2):
                model = load(Bundle.open(tmp_path / "digits"), settings)
                catalogs.append(await stack.enter_async_context(Catalog([model], settings)))
                journals.append(await stack.enter_async_context(Journal(catalogs[-1], shared).followed()))
            old = catalogs[0].find("digits-tiny").manifest.version
            new = publish_again(tmp_path / "digits")
            await journals[0].load("digits-tiny")
            await becomes(catalogs[1], new)
            await break_it(catalogs[0])
            await becomes(catalogs[0], old)
            await becomes(catalogs[1], old)
            await catalogs[1].tensor("digits-tiny").run(PIXELS)

    asyncio.run(asyncio.wait_for(test(), 120))


def test_what_has_proved_itself_stays_where_nothing_is_left_to_go_back_to(tmp_path):
    write_digits(tmp_path / "digits")

    async def test() -> None:
        settings = Settings()
        model = load(Bundle.open(tmp_path / "digits"), settings)
        async with Catalog([model], settings) as catalog:
            new = publish_again(tmp_path / "digits")
            await catalog.load("digits-tiny")
            for _ in range(PROBATION):
                await catalog.tensor("digits-tiny").run(PIXELS)
            with pytest.raises(InvalidRequest, match="for good"):
                catalog.roll_back(f"digits-tiny:{new}")
            catalog.roll_back("digits-tiny:unheard-of")
            assert catalog.find("digits-tiny").manifest.version == new

    asyncio.run(asyncio.wait_for(test(), 120))


def test_changes_are_made_one_after_another_in_one_process_too(tmp_path):
    write_digits(tmp_path / "digits")

    async def test() -> None:
        settings = Settings()
        model = load(Bundle.open(tmp_path / "digits"), settings)
        async with Catalog([model], settings) as catalog, Journal(catalog, None).followed() as journal:
            new = publish_again(tmp_path / "digits")
            entry = catalog.entries["digits-tiny"]
            loading = asyncio.create_task(journal.load("digits-tiny"))
            await asyncio.sleep(0)
            await journal.unload("digits-tiny")
            assert await loading == f"digits-tiny:{new}"
            assert not catalog.entries
            # What came for a name that goes is stopped with it: nobody would find it later.
            assert entry.current.manifest.version == new
            async with asyncio.timeout(120):
                while not entry.current._threads._shutdown:
                    await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(test(), 120))


def test_a_change_that_fails_here_alone_does_not_end_the_following(tmp_path):
    write_digits(tmp_path / "digits")

    class Exhausted(Catalog):
        async def load(self, name: str, *, take_over: bool = True) -> Manifest:
            raise MemoryError

    async def test() -> None:
        settings = Settings()
        async with AsyncExitStack() as stack:
            catalogs, journals = [], []
            for kind in (Catalog, Exhausted):
                model = load(Bundle.open(tmp_path / "digits"), settings)
                catalogs.append(await stack.enter_async_context(kind([model], settings)))
                journals.append(await stack.enter_async_context(Journal(catalogs[-1], tmp_path).followed()))
            publish_again(tmp_path / "digits")
            await journals[0].load("digits-tiny")
            alias = Alias.model_validate({"targets": [{"model": "digits-tiny"}]})
            await asyncio.wait_for(journals[0].set_alias("digits", alias), 120)
            async with asyncio.timeout(120):
                while "digits" not in catalogs[1].aliases:
                    await asyncio.sleep(0.02)

    asyncio.run(asyncio.wait_for(test(), 120))
