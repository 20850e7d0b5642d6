"""Loading, replacing and unloading while requests come; canaries, shadows, fallbacks, and the way back."""

import asyncio
import gc
import weakref
from collections.abc import Awaitable, Callable
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import REGISTRY

from runtime.bundle import Bundle, write_bundle
from runtime.errors import BundleDamaged, BundleNotFound
from runtime.sampling import SamplingParams
from service import context
from service.alias import Alias
from service.catalog import PROBATION, Catalog
from service.completion import complete, requests
from service.context import RequestContext
from service.errors import Draining, InvalidRequest, ModelFailed, UnknownModel
from service.served import load
from service.settings import Settings
from tests.service.conftest import write_chatter, write_digits

PIXELS = {"pixels": np.ones((1, 1, 8, 8), np.float32)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a bundle that is this test's own, to be replaced."""
    write_digits(tmp_path / "digits")
    return tmp_path / "digits"


def run(folder: Path, test: Callable[[Catalog], Awaitable[None]]) -> None:
    async def main() -> None:
        settings = Settings()
        others = write_digits(folder.parent / "other", "other")
        async with Catalog(
            [load(Bundle.open(folder), settings), load(others, settings)], settings
        ) as catalog:
            await asyncio.wait_for(test(catalog), 120)

    asyncio.run(main())


def publish_again(folder: Path) -> str:
    """Another version of the bundle, in its place; its version."""
    old = Bundle.open(folder).manifest
    changed = old.model_copy(update={"labels": ("night", "day")})
    copies = {name: folder.parent / f"copy of {name}" for name in old.files}
    for name, copy in copies.items():
        copy.write_bytes((folder / name).read_bytes())
    return write_bundle(folder, changed, copies).manifest.version


def counted(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(f"modelpress_{name}_total", labels) or 0.0


async def ask(catalog: Catalog, name: str) -> RequestContext:
    """One request in a context of its own, as the middleware makes it."""

    async def work() -> RequestContext:
        request = RequestContext("r")
        context.enter(request)
        number = catalog.traffic.enter()
        try:
            await catalog.tensor(name).run(PIXELS)
        finally:
            catalog.traffic.leave(number)
        return request

    return await asyncio.create_task(work())


def test_a_replacement_takes_over_without_a_dropped_request(folder):
    async def test(catalog: Catalog) -> None:
        # Each client's own: two that asked at once may be answered in any order.
        seen: list[list[str]] = [[] for _ in range(4)]
        stop = asyncio.Event()

        async def client(versions: list[str]) -> None:
            while not stop.is_set():
                versions.append((await ask(catalog, "digits-tiny")).manifest.version)
                await asyncio.sleep(0)

        clients = [asyncio.create_task(client(versions)) for versions in seen]
        old = catalog.find("digits-tiny").manifest.version
        new = publish_again(folder)
        await catalog.load("digits-tiny")
        while sum(versions.count(new) for versions in seen) < 2 * PROBATION:
            await asyncio.sleep(0.001)
        stop.set()
        await asyncio.gather(*clients)
        assert all(versions == sorted(versions, key=[old, new].index) for versions in seen)
        # It goes once whoever had found it has been answered.
        async with asyncio.timeout(120):
            while "digits-tiny" in serving(catalog, old):
                await asyncio.sleep(0.001)

    run(folder, test)


def serving(catalog: Catalog, version: str) -> list[str]:
    try:
        return [catalog.find("digits-tiny", version).manifest.tag]
    except UnknownModel:
        return []


def test_a_bundle_that_is_damaged_changes_nothing(folder):
    async def test(catalog: Catalog) -> None:
        (folder / "model.onnx").write_bytes(b"")
        with pytest.raises(BundleDamaged):
            await catalog.load("digits-tiny")
        await ask(catalog, "digits-tiny")

    run(folder, test)


def test_a_replacement_that_breaks_is_taken_back(folder):
    async def test(catalog: Catalog) -> None:
        old, before = catalog.find("digits-tiny"), counted("rollbacks", model="digits-tiny")
        publish_again(folder)
        await catalog.load("digits-tiny")
        broken = catalog.tensor("digits-tiny")
        assert broken is not old
        broken.model._session = None
        for _ in range(3):
            with pytest.raises(ModelFailed):
                await ask(catalog, "digits-tiny")
        assert catalog.find("digits-tiny") is old
        await ask(catalog, "digits-tiny")
        assert counted("rollbacks", model="digits-tiny") == before + 1

    run(folder, test)


def test_what_was_replaced_is_gone_without_the_garbage_collector(folder):
    async def test(catalog: Catalog) -> None:
        publish_again(folder)
        old = weakref.ref(catalog.find("digits-tiny"))
        gc.disable()
        try:
            await catalog.load("digits-tiny")
            for _ in range(PROBATION):
                await ask(catalog, "digits-tiny")
            while old() is not None:
                await asyncio.sleep(0.001)
        finally:
            gc.enable()

    run(folder, test)


def test_unloading_waits_for_who_has_found_it(folder):
    async def test(catalog: Catalog) -> None:
        number, model = catalog.traffic.enter(), catalog.tensor("digits-tiny")
        await catalog.unload("digits-tiny")
        with pytest.raises(UnknownModel):
            catalog.find("digits-tiny")
        await model.run(PIXELS)
        catalog.traffic.leave(number)

    run(folder, test)


def test_a_version_can_stand_beside_and_be_chosen_by_weight(folder):
    async def test(catalog: Catalog) -> None:
        old = catalog.find("digits-tiny").manifest.version
        new = publish_again(folder)
        await catalog.load("digits-tiny", take_over=False)
        assert catalog.find("digits-tiny").manifest.version == old
        targets = [{"model": f"digits-tiny:{version}"} for version in (old, new)]
        catalog.set_alias("digits", Alias.model_validate({"targets": targets}))
        seen = {(await ask(catalog, "digits")).manifest.version for _ in range(60)}
        assert seen == {old, new}
        await catalog.unload(f"digits-tiny:{new}")
        assert {(await ask(catalog, "digits")).manifest.version for _ in range(20)} == {old}
        with pytest.raises(InvalidRequest, match="load another version first"):
            await catalog.unload(f"digits-tiny:{old}")

    run(folder, test)


def test_a_version_that_stands_beside_is_promoted_and_goes_back_by_hand(folder):
    async def test(catalog: Catalog) -> None:
        old = catalog.find("digits-tiny").manifest.version
        new = publish_again(folder)
        await catalog.load("digits-tiny", take_over=False)
        for version in (new, old, new):
            assert (await catalog.load(f"digits-tiny:{version}")).version == version
            assert catalog.find("digits-tiny").manifest.version == version
        for _ in range(PROBATION):
            await ask(catalog, "digits-tiny")
        assert not serving(catalog, old)

    run(folder, test)


def test_what_was_replaced_may_stay_beside(folder):
    async def test(catalog: Catalog) -> None:
        old = catalog.find("digits-tiny").manifest.version
        publish_again(folder)
        await catalog.load("digits-tiny")
        await catalog.load(f"digits-tiny:{old}", take_over=False)
        for _ in range(PROBATION):
            await ask(catalog, "digits-tiny")
        assert catalog.entries["digits-tiny"].previous is None
        assert (await ask(catalog, f"digits-tiny:{old}")).manifest.version == old
        await catalog.unload(f"digits-tiny:{old}")
        assert not serving(catalog, old)

    run(folder, test)


def test_a_replacement_that_breaks_goes_back_to_what_stays_beside(folder):
    async def test(catalog: Catalog) -> None:
        old = catalog.find("digits-tiny")
        publish_again(folder)
        await catalog.load("digits-tiny")
        await catalog.load(f"digits-tiny:{old.manifest.version}", take_over=False)
        catalog.tensor("digits-tiny").model._session = None
        for _ in range(3):
            with pytest.raises(ModelFailed):
                await ask(catalog, "digits-tiny")
        assert catalog.entries["digits-tiny"].models == [old]

    run(folder, test)


def test_a_folder_gives_no_version_and_no_bundle_but_its_own(folder):
    async def test(catalog: Catalog) -> None:
        old = catalog.find("digits-tiny")
        new = publish_again(folder)
        with pytest.raises(BundleNotFound, match=f"holds 'digits-tiny:{new}' and not 'digits-tiny:v9'"):
            await catalog.load("digits-tiny:v9")
        write_digits(folder, "elephants")
        with pytest.raises(BundleNotFound, match="holds 'elephants-tiny:"):
            await catalog.load("digits-tiny")
        assert catalog.find("digits-tiny") is old

    run(folder, test)


def test_a_text_model_that_cannot_run_takes_no_place(tmp_path):
    write_chatter(tmp_path / "chatter")

    async def main() -> None:
        settings = Settings()
        model = load(Bundle.open(tmp_path / "chatter"), settings)
        async with Catalog([model], settings) as catalog:
            old = catalog.text("chatter-tiny")
            publish_again(tmp_path / "chatter")
            # Less than a token takes.
            catalog.settings = Settings(kv_bytes=1)
            with pytest.raises(ModelFailed, match="cannot generate a token"):
                await catalog.load("chatter-tiny")
            assert catalog.text("chatter-tiny") is old
            assert catalog.ready
            catalog.settings = settings
            new = await catalog.load("chatter-tiny")
            assert catalog.text("chatter-tiny").manifest.version == new.version
            # It has answered once already: nobody waits for its first scheduler.
            assert catalog.text("chatter-tiny").health.successes == 1

    asyncio.run(asyncio.wait_for(main(), 120))


def test_a_text_of_an_unloaded_model_is_cut_off_in_words_too(tmp_path):
    write_chatter(tmp_path / "chatter")

    async def main() -> None:
        settings = Settings()
        async with Catalog([load(Bundle.open(tmp_path / "chatter"), settings)], settings) as catalog:
            number, engine = catalog.traffic.enter(), catalog.text("chatter-tiny")
            pieces = complete(engine, requests([[1]], SamplingParams(max_tokens=10_000)))
            await anext(pieces)
            await catalog.unload("chatter-tiny")
            catalog.cut_off()
            with pytest.raises(Draining, match="send this to another one"):
                async for _ in pieces:
                    pass
            assert not engine.health.broken
            catalog.traffic.leave(number)

    asyncio.run(asyncio.wait_for(main(), 120))


def test_what_is_loaded_takes_no_aliass_name(folder):
    async def test(catalog: Catalog) -> None:
        catalog.set_alias("digits", Alias.model_validate({"targets": [{"model": "digits-tiny"}]}))
        with pytest.raises(InvalidRequest, match="'digits' is an alias"):
            await catalog.load("digits")

    run(folder, test)


def test_a_shadow_answers_unseen_and_its_agreement_is_counted(folder):
    labels = {"model": "digits-tiny", "shadow": "other-tiny"}

    async def test(catalog: Catalog) -> None:
        alias = {"targets": [{"model": "digits-tiny"}], "shadow": {"model": "other-tiny"}}
        catalog.set_alias("digits", Alias.model_validate(alias))
        before = counted("shadow_compared", **labels), counted("shadow_agreed", **labels)
        request = await ask(catalog, "digits")
        assert request.manifest.tag == "digits-tiny"
        while counted("shadow_compared", **labels) == before[0]:
            await asyncio.sleep(0.001)
        assert counted("shadow_agreed", **labels) == before[1] + 1

    run(folder, test)


def test_under_pressure_the_declared_cheaper_variant_answers(folder):
    async def test(catalog: Catalog) -> None:
        alias = {"targets": [{"model": "digits-tiny"}], "fallback": {"model": "other-tiny", "above": 0.0}}
        catalog.set_alias("digits", Alias.model_validate(alias))
        assert (await ask(catalog, "digits")).manifest.tag == "digits-tiny"
        model, here = catalog.tensor("digits-tiny"), [catalog.traffic.enter() for _ in range(2)]
        waiting = [asyncio.create_task(model.run(PIXELS)) for _ in range(5)]
        await asyncio.sleep(0)
        assert catalog.find("digits").manifest.tag == "other-tiny"
        await asyncio.gather(*waiting)
        for number in here:
            catalog.traffic.leave(number)

    run(folder, test)


@pytest.mark.parametrize("name", ["digits-tiny", "a:b", "a/b", ""])
def test_an_alias_cannot_take_a_models_name_or_be_a_path(folder, name):
    async def test(catalog: Catalog) -> None:
        with pytest.raises(InvalidRequest):
            catalog.set_alias(name, Alias.model_validate({"targets": [{"model": "digits-tiny"}]}))

    run(folder, test)


def test_an_alias_of_a_model_that_is_not_served_names_the_nearest(folder):
    async def test(catalog: Catalog) -> None:
        with pytest.raises(UnknownModel, match="did you mean 'digits-tiny'"):
            catalog.set_alias("digits", Alias.model_validate({"targets": [{"model": "digit-tiny"}]}))

    run(folder, test)


@pytest.mark.parametrize("path", ["/etc/passwd", "../digits", "./other"])
def test_no_path_from_a_request_is_opened(folder, path):
    async def test(catalog: Catalog) -> None:
        with pytest.raises(InvalidRequest, match="is no tag"):
            await catalog.load(path)

    run(folder, test)
