"""The start of encoder-decoders from what their pairs say, and the loss that they are trained by."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from models import registry
from models.datasets.dataset import IGNORED, Split
from models.datasets.subwords import END_ID, PAD_ID
from models.zoo.encoder_decoders import smoothed
from models.zoo.lexical_start import lexical_start, lexical_vectors
from models.zoo.member import build

MEMBERS = [name for name in registry.names() if registry.get(name).family == "encoder-decoder"]
# More than the widest tiny network has columns.
VOCABULARY = 48
# Token `t` of a source is token `t + SAID` of its answer, in whatever order.
READ, SAID = range(3, 13), 10


@pytest.fixture
def split() -> Split:
    """Answers that are their sources, token by token, in another order and in other words."""
    random = np.random.default_rng(0)
    sources = np.stack([random.choice(READ, 4, replace=False) for _ in range(60)])
    answers = random.permuted(sources, axis=1) + SAID
    start, end = np.full((60, 1), PAD_ID), np.full((60, 1), END_ID)
    inputs = {
        "input_ids": np.hstack([sources, end]),
        "attention_mask": np.ones((60, 5), np.int64),
        "decoder_input_ids": np.hstack([start, answers]),
    }
    return Split(inputs, np.hstack([answers, end]))


def network(name: str) -> Any:
    spec = registry.get(name)
    torch.manual_seed(0)
    own = {"vocab_size": VOCABULARY, "init_std": 0.02}
    return build(replace(spec, config={**spec.config, **spec.tiny, **own})).eval()


def tensors(split: Split) -> dict[str, torch.Tensor]:
    arrays = {**split.inputs, "targets": split.targets}
    return {name: torch.from_numpy(array) for name, array in arrays.items() if array is not None}


def test_what_is_said_for_a_token_is_near_it() -> None:
    torch.manual_seed(0)
    counts = torch.zeros(6, 6)
    counts[1, 4], counts[2, 5], counts[1, 5] = 20.0, 20.0, 1.0
    vectors = lexical_vectors(counts, 4)
    near = vectors @ vectors.T
    assert near[1, 4] > 0.9
    assert near[2, 5] > 0.9
    assert near[1, 5] < 0.5
    assert torch.allclose(vectors.norm(dim=1)[[1, 2, 4, 5]], torch.ones(4), atol=0.4)


@pytest.mark.parametrize("name", MEMBERS)
def test_a_fresh_answer_is_likely_of_its_sources_words(name: str, split: Split) -> None:
    module = network(name)
    lexical_start(module, split)
    batch = tensors(split)
    with torch.inference_mode():
        names = ("input_ids", "attention_mask", "decoder_input_ids")
        logits = module(*(batch[each][:, :1] if "decoder" in each else batch[each] for each in names)).logits
    said = slice(READ[0] + SAID, READ[-1] + SAID + 1)
    # Less what the place alone says, which is the same for all.
    own = logits[:, 0, said] - logits[:, 0, said].mean(0)
    likeliest = own.topk(4).indices + said.start
    found = (likeliest[:, :, None] == batch["targets"][:, None, :4]).sum((1, 2))
    # Four of ten by chance would be 1.6.
    assert found.double().mean() > 2.5


@pytest.mark.parametrize("name", MEMBERS)
def test_padding_changes_no_loss(name: str, split: Split) -> None:
    module, batch = network(name), tensors(split)
    batch["attention_mask"][0, 3:] = 0
    padded = {
        each: functional.pad(value, (0, 3), value=IGNORED if each == "targets" else 0)
        for each, value in batch.items()
    }
    padded["input_ids"][0, 3:] = 7
    with torch.inference_mode():
        wanted, loss = smoothed(module, batch), smoothed(module, padded)
    assert float(loss) == pytest.approx(float(wanted), rel=1e-5)
