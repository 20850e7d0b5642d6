"""Initial weights taken from the statistics of the data, so that a short training starts where counting ends.

It touches fresh weights only. The trade-off: the start is tied to the training split, so it counts as
training.
"""

import math
from typing import Any

import torch
from torch import Tensor

from models.datasets import Split

# Absolute discount of the bigram counts (Ney, Essen and Kneser, 1994), near the best on text and code alike.
DISCOUNT = 0.75
# Rows and columns of the factorisation are weighted by unigram probability to this power: the fit should be
# best for frequent tokens, but an exponent of 1/2, the exact weighting, starves the rare ones.
WEIGHT_POWER = 0.35


@torch.no_grad()
def bigram_llama(module: Any, split: Split) -> None:
    """Make a fresh LlamaForCausalLM with untied embeddings predict like a low-rank bigram model, in place.

    Embedding and head become a factorisation of the smoothed log-probabilities; attention and MLP outputs are
    zero, so the residual stream carries the embedding through unchanged (the zero start of residual branches
    is Zhang et al., arXiv:1901.09321). One column of the embedding pads every row to the same norm, because
    the final RMSNorm divides by it.
    """
    embedding, head = module.model.embed_tokens.weight, module.lm_head.weight
    vocabulary, width = embedding.shape
    counts = _bigram_counts(split, vocabulary)
    left, right = _factorise(_log_probabilities(counts), counts.sum(1), width - 1)
    norms = left.norm(dim=1, keepdim=True)
    radius = (norms[:, 0] * _unigram(counts.sum(1))).sum()
    left = left * (radius / norms).clamp(max=1)
    padding = (radius**2 - left.norm(dim=1, keepdim=True) ** 2).clamp(min=0).sqrt()
    scale = math.sqrt(width) / radius
    embedding.copy_(torch.cat([left, padding], 1) * scale)
    head.copy_(torch.cat([right, torch.zeros_like(padding)], 1) / scale)
    _silence_residual_branches(module, width)


def _bigram_counts(split: Split, vocabulary: int) -> Tensor:
    """How often each token follows each other, float32 [vocabulary, vocabulary]."""
    assert split.targets is not None
    first = torch.from_numpy(split.inputs["input_ids"]).flatten()
    pairs = first * vocabulary + torch.from_numpy(split.targets).flatten()
    return torch.bincount(pairs, minlength=vocabulary**2).view(vocabulary, vocabulary).float()


def _log_probabilities(counts: Tensor) -> Tensor:
    """log P(next | token) by absolute discounting, backed off to how many tokens the next one follows."""
    seen = counts > 0
    lower = seen.sum(0) + 0.5
    lower = lower / lower.sum()
    totals = counts.sum(1, keepdim=True)
    kept = (counts - DISCOUNT).clamp(min=0) + DISCOUNT * seen.sum(1, keepdim=True) * lower
    return torch.where(totals > 0, kept / totals.clamp(min=1), lower).log()


def _factorise(logits: Tensor, totals: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """`left @ right.T`, [vocabulary, rank] each, near `logits` up to a constant a row (which softmax
    ignores).
    """
    weights = _unigram(totals) ** WEIGHT_POWER
    centred = logits - (logits @ weights**2)[:, None] / (weights**2).sum()
    u, s, v = torch.svd_lowrank(weights[:, None] * centred * weights, q=rank, niter=2)
    return u * s.sqrt() / weights[:, None], v * s.sqrt() / weights[:, None]


def _unigram(totals: Tensor) -> Tensor:
    smoothed = totals + 0.5
    return smoothed / smoothed.sum()


def _silence_residual_branches(module: Any, width: int) -> None:
    for layer in module.model.layers:
        attention, mlp = layer.self_attn, layer.mlp
        for projection in (attention.q_proj, attention.k_proj, attention.v_proj, mlp.gate_proj, mlp.up_proj):
            projection.weight.normal_(0, width**-0.5)
        attention.o_proj.weight.zero_()
        mlp.down_proj.weight.zero_()
