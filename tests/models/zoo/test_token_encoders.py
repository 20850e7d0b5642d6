from dataclasses import replace
from typing import Any

import torch

from models.datasets import Split
from models.registry import get
from models.zoo.member import build
from models.zoo.token_encoders import AMPLITUDE, sinusoidal_start, sinusoids


def test_sinusoids_are_equally_alike_at_equal_distances() -> None:
    rows = sinusoids(40, 16)
    near = (rows[:-3] * rows[3:]).sum(-1)
    assert torch.allclose(near, near[:1].expand_as(near), atol=1e-4)


def test_an_encoder_starts_with_sinusoidal_positions_and_keeps_its_words() -> None:
    spec = get("bert-tokens")
    module: Any = build(replace(spec, config={**spec.config, **spec.tiny}))
    embeddings = module.model.base_model.embeddings
    words = embeddings.word_embeddings.weight.clone()
    sinusoidal_start(module, Split({}, None))
    positions = embeddings.position_embeddings.weight
    assert torch.allclose(positions, AMPLITUDE * sinusoids(*positions.shape))
    assert torch.equal(embeddings.word_embeddings.weight, words)
