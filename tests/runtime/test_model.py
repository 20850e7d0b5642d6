from typing import Any

import numpy as np
import pytest
import torch

from runtime.bundle import Bundle
from runtime.errors import InputError, PromptTooLong
from runtime.model import TextModel, load_model
from runtime.sampling import SamplingParams

GREEDY = SamplingParams(max_tokens=24, temperature=0)


@pytest.fixture(scope="module")
def model(text_bundle: Bundle) -> TextModel:
    loaded = load_model(text_bundle, threads=1)
    assert isinstance(loaded, TextModel)
    return loaded


@pytest.mark.parametrize("prompt", [[5], [1, 2, 3], list(range(30))])
def test_greedy_text_is_what_transformers_generates(llama: Any, model: TextModel, prompt: list[int]) -> None:
    with torch.inference_mode():
        expected = llama.generate(
            torch.tensor([prompt]), max_new_tokens=24, do_sample=False, eos_token_id=None
        )
    text = "".join(model.generate(prompt, GREEDY))
    assert text == model.tokenizer.decode(expected[0, len(prompt) :].tolist())


def test_a_seed_gives_the_same_text_twice(model: TextModel) -> None:
    params = SamplingParams(max_tokens=20, temperature=1.0, seed=3)
    first, second = ("".join(model.generate("abc", params)) for _ in range(2))
    assert first == second


def test_generation_ends_at_a_stop_string(model: TextModel) -> None:
    text = "".join(model.generate([1, 2, 3], GREEDY))
    stop = text[4:7]
    assert "".join(model.generate([1, 2, 3], GREEDY, stop=(stop,))) == text[: text.index(stop)]


def test_an_empty_prompt_is_refused(model: TextModel) -> None:
    with pytest.raises(InputError, match="the prompt is empty"):
        list(model.generate("", GREEDY))


def test_a_prompt_that_cannot_fit_is_refused_before_it_is_tokenized(model: TextModel) -> None:
    # A context of 64 tokens, the longest of which has five characters.
    assert len(model.encode("a" * 64 * 5)) > 64
    for encode in (model.encode, lambda text: model.encode_chat([{"role": "user", "content": text}])):
        with pytest.raises(PromptTooLong, match="characters and the context holds 64 tokens"):
            encode("a" * (64 * 5 + 1))


def test_score_is_of_the_graph_that_generates(model: TextModel) -> None:
    logits = model.score(np.array([[1, 2, 3]]))
    assert model.tokenizer.decode([int(logits[0, -1].argmax())]) == next(
        iter(model.generate([1, 2, 3], GREEDY))
    )
