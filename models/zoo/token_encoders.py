"""Text encoders with a head over each token, of transformers' own classes at small sizes.

input_ids and attention_mask, int64 [batch, sequence], to logits float32 [batch, sequence, classes]. Weights
are fresh. The trade-off: learnt positions begin as sinusoids, because what a token is depends on its
neighbours, and to find out where those are takes longer than we train.
"""

import math
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from models.datasets import Split
from models.sources.wrappers import EncoderModule

# Of the sinusoids: large beside the words' own vectors (0.05), which grow as they learn.
AMPLITUDE = 0.3


def tagger(design: str, classes: int = 10, **config: Any) -> nn.Module:
    """`design` is transformers' name of the family, such as "Bert"; `config` is that family's."""
    settings = getattr(transformers, f"{design}Config")(num_labels=classes, **config)
    network = getattr(transformers, f"{design}ForTokenClassification")(settings)
    return EncoderModule(network, "logits")


def sinusoidal_start(module: Any, train: Split) -> None:
    """Give an encoder's learnt positions the sinusoids of Vaswani et al. (arXiv:1706.03762), section 3.5."""
    positions = module.model.base_model.embeddings.position_embeddings.weight
    with torch.no_grad():
        positions.copy_(AMPLITUDE * sinusoids(*positions.shape))


def sinusoids(count: int, width: int) -> Tensor:
    """Sines and cosines of each position at falling frequencies, float32 [count, width]."""
    frequencies = torch.exp(-math.log(1e4) * torch.arange(0, width, 2) / width)
    angles = torch.arange(count)[:, None] * frequencies
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(1)
