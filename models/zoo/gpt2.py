"""GPT-2 (Radford et al., Language models are unsupervised multitask learners, 2019), of transformers' class.

Learned positions, LayerNorm before each branch, GELU. Nothing is loaded here: weights are fresh. Embedding
and head are two, unlike in the paper, so that both can start from bigram counts.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel

from models.datasets import Split
from models.zoo.initialisation import bigram_llama


def gpt2(**config: Any) -> nn.Module:
    """input_ids int64 [batch, sequence] to logits float32 [batch, sequence, vocabulary].

    `config` is GPT2Config's.
    """
    module: nn.Module = GPT2LMHeadModel(GPT2Config(**config))
    return module


class _EmbeddingAndHead(nn.Module):
    """What is left of a Llama without layers, under its names."""

    layers = ()

    def __init__(self, vocabulary: int, width: int) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(vocabulary, width)
        self.lm_head = nn.Linear(width, vocabulary, bias=False)

    @property
    def model(self) -> nn.Module:
        return self


@torch.no_grad()
def bigram_gpt2(module: Any, split: Split) -> None:
    """Make a fresh GPT2LMHeadModel with untied embeddings predict like a low-rank bigram model, in place.

    Embedding and head are `bigram_llama`'s, one column narrower, turned into the space of the vectors whose
    entries sum to zero: there LayerNorm does what RMSNorm does. Positions start at zero, and so do the
    outputs of attention and MLP.
    """
    embedding, head = module.transformer.wte.weight, module.lm_head.weight
    vocabulary, width = embedding.shape
    counted = _EmbeddingAndHead(vocabulary, width - 1)
    bigram_llama(counted, split)
    turned = _centred_basis(width)
    embedding.copy_(counted.embed_tokens.weight @ turned * math.sqrt(width / (width - 1)))
    head.copy_(counted.lm_head.weight @ turned * math.sqrt((width - 1) / width))
    module.transformer.wpe.weight.zero_()
    for block in module.transformer.h:
        block.attn.c_attn.weight.normal_(0, width**-0.5)
        block.mlp.c_fc.weight.normal_(0, width**-0.5)
        block.attn.c_proj.weight.zero_()
        block.mlp.c_proj.weight.zero_()


def _centred_basis(width: int) -> Tensor:
    """Orthonormal rows that each sum to zero, float32 [width - 1, width]: Helmert's."""
    rows = torch.arange(1, width, dtype=torch.float64)[:, None]
    columns = torch.arange(width)
    basis = (columns < rows).double() - rows * (columns == rows)
    return (basis / (rows * (rows + 1)).sqrt()).float()
