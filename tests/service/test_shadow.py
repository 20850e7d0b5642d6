"""Texts read a second time by a shadow: how many of their tokens it would have chosen, too."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import REGISTRY

from runtime.bundle import Bundle
from runtime.sampling import SamplingParams
from runtime.scheduler import Request
from service import context, shadow
from service.alias import Alias
from service.catalog import Catalog
from service.completion import Answer, answers, complete
from service.context import RequestContext
from service.generation import Generation
from service.served import load
from service.settings import Settings
from service.shadow import agreement
from tests.service.conftest import write_chatter, write_digits

LABELS = {"model": "chatter-tiny", "shadow": "twin-tiny"}
PROMPT, TOKENS = [5, 6, 7], 6


def counted(name: str) -> float:
    return REGISTRY.get_sample_value(f"modelpress_shadow_{name}_total", LABELS) or 0.0


@asynccontextmanager
async def shadowed(folder: Path) -> AsyncIterator[Catalog]:
    """A catalog where `chat` is a model whose twin reads what it answers."""
    settings = Settings()
    bundles = write_chatter(folder / "chatter"), write_chatter(folder / "twin", "twin")
    loaded = [load(Bundle.open(bundle.path), settings) for bundle in bundles]
    async with Catalog(loaded, settings) as catalog:
        alias = {"targets": [{"model": "chatter-tiny"}], "shadow": {"model": "twin-tiny"}}
        catalog.set_alias("chat", Alias.model_validate(alias))
        yield catalog


async def answered(catalog: Catalog, params: SamplingParams) -> tuple[float, float]:
    """How many tokens of one answer were compared, and how many agreed."""
    before = counted("compared"), counted("agreed")
    context.enter(RequestContext("test"))
    engine = catalog.text("chat")
    await answers(complete(engine, [Request("", PROMPT, params)]), 1)
    assert engine.manifest.tag == "chatter-tiny"
    while counted("compared") == before[0]:
        await asyncio.sleep(0.001)
    return counted("compared") - before[0], counted("agreed") - before[1]


def test_a_twin_agrees_on_every_greedy_token_and_on_none_that_was_forced(tmp_path: Path):
    greedy = SamplingParams(max_tokens=TOKENS, temperature=0)

    async def main() -> None:
        async with shadowed(tmp_path) as catalog:
            assert await answered(catalog, greedy) == (TOKENS, TOKENS)
            token = catalog.text("chatter-tiny").model.tokenizer.token_to_id("z")
            forced = SamplingParams(max_tokens=TOKENS, temperature=0, logit_bias={token: 100})
            assert await answered(catalog, forced) == (TOKENS, 0)

    asyncio.run(asyncio.wait_for(main(), 60))


def test_what_a_stop_string_ends_is_compared_too_and_nobody_has_left(tmp_path: Path):
    def left() -> float:
        name = "modelpress_cancellations_total"
        return REGISTRY.get_sample_value(name, {"model": "chatter-tiny"}) or 0.0

    async def answer(catalog: Catalog, stop: list[str]) -> Answer:
        context.enter(RequestContext("test"))
        asked = [Request("", PROMPT, SamplingParams(max_tokens=TOKENS, temperature=0))]
        (whole,) = await answers(complete(catalog.text("chat"), asked, stop), 1)
        return whole

    async def main() -> None:
        async with shadowed(tmp_path) as catalog:
            text = (await answer(catalog, [])).text
            while shadow._tasks:
                await asyncio.sleep(0.001)
            before, departed = counted("compared"), left()
            # Each token is a letter: the answer ends with the first that is like its third.
            stopped = await answer(catalog, [text[2]])
            assert (stopped.finish_reason, stopped.tokens) == ("stop", text.index(text[2]) + 1)
            while counted("compared") == before:
                await asyncio.sleep(0.001)
            assert counted("compared") - before == stopped.tokens
            assert left() == departed

    asyncio.run(asyncio.wait_for(main(), 60))


def test_of_an_answer_that_ended_before_the_model_did_only_its_own_tokens_are_compared(tmp_path: Path):
    async def main() -> None:
        async with shadowed(tmp_path) as catalog:
            context.enter(RequestContext("test"))
            asked = Request("", PROMPT, SamplingParams(max_tokens=TOKENS, temperature=0))
            before = counted("compared")
            async with Generation(catalog.text("chat"), [asked]) as generation:
                # The model's last token may come together with the one that ends the answer.
                said = [event async for found in generation for event in found[0]]
                assert len(said) >= TOKENS
                generation.end(0, 2)
            while counted("compared") == before:
                await asyncio.sleep(0.001)
            assert counted("compared") - before == 2

    asyncio.run(asyncio.wait_for(main(), 60))


@pytest.mark.parametrize(
    ("logits", "same"), [([[0, 1], [1, 0]], [True, True]), ([[1, 0], [3, 0]], [False, True])]
)
def test_labels_agree_or_do_not(tmp_path: Path, logits, same):
    manifest = write_digits(tmp_path / "digits").manifest
    one = {"logits": np.array([[0, 5], [2, 1]], np.float32)}
    assert agreement(manifest, one, {"logits": np.array(logits, np.float32)}).tolist() == same
