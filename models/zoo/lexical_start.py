"""Initial weights of an encoder-decoder from the pairs it is taught: answers start as their sources' words.

Which token of a source says which token of its answer is what IBM's Model 1 finds by counting (Brown et al.,
The mathematics of statistical machine translation, 1993). Its counts become vectors whose products are their
mutual information (as Levy, Sogaard and Goldberg, arXiv:1608.05426, do across languages), and cross-attention
starts by handing vectors on as they are, so that what is likely to be said is near what was read.
It touches fresh weights only. The trade-off: the start is tied to the training split, so it counts as
training.
"""

import math
import re
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from models.datasets import Split
from models.datasets.dataset import IGNORED, Array
from models.datasets.encoding import source_tokens
from models.zoo.token_encoders import sinusoids

ROUNDS = 5
# Absolute discount of the counts, and the power of a token's probability that the factorisation weights it by
# (as in `initialisation`): rare tokens' mutual information is the largest and the least certain.
DISCOUNT, WEIGHT_POWER = 0.5, 0.35
# Shorter vectors are of tokens that no pair has: they keep the noise that every vector of length 1 gets.
SHORTEST, NOISE = 0.01, 0.1
# The two projections that carry a source over to its answer, and the last of each other residual branch.
_CARRIED = re.compile(r"(encoder_attn\.(v_proj|out_proj)|EncDecAttention\.[vo])\.weight$")
_BRANCH = re.compile(r"(self_attn\.out_proj|fc2|SelfAttention\.o|DenseReluDense\.wo)\.weight$")
# What an answer has said is seen by the first self-attention of its decoder, and more than taken off.
_SEEN = re.compile(r"decoder\.(layers|block)\.0\..*(self_attn\.[qkv]_proj|SelfAttention\.[qkv])\.weight$")
_TAKEN_OFF = re.compile(r"decoder\.(layers|block)\.0\..*(self_attn\.out_proj|SelfAttention\.o)\.weight$")
SAID = -1.5
_POSITIONS = re.compile(r"embed_positions\.weight$")


@torch.no_grad()
def lexical_start(module: Any, split: Split) -> None:
    """Make a fresh encoder-decoder with one embedding answer with its source's likeliest words, in place.

    Cross-attention averages what it reads and carries it over unchanged (a start near the identity, as in
    Trockman and Kolter, arXiv:2305.09828). With one embedding on both sides what goes through unchanged says
    the last token again, so the decoder's first self-attention starts as its negative. The other residual
    branches start at zero, learned positions as sinusoids.
    """
    embedding = module.get_input_embeddings().weight
    vectors = lexical_vectors(_expected_counts(split, len(embedding)), embedding.shape[1])
    # T5 does not scale its embedding up where it reads, but down where it answers.
    scale = 1.0 if getattr(module.config, "scale_embedding", False) else math.sqrt(embedding.shape[1])
    embedding.copy_(vectors * scale)
    for name, weight in module.named_parameters():
        if _CARRIED.search(name) or _SEEN.search(name):
            nn.init.eye_(weight)
        elif _TAKEN_OFF.search(name):
            nn.init.eye_(weight).mul_(SAID)
        elif _BRANCH.search(name):
            weight.zero_()
        elif _POSITIONS.search(name):
            weight.copy_(sinusoids(*weight.shape))


def lexical_vectors(counts: Tensor, width: int) -> Tensor:
    """Unit vectors, float32 [vocabulary, width], of `counts` [read, said], both [vocabulary].

    A token's vector is the sum of that as which it is read and that as which it is said.
    """
    total, read, said = counts.sum(), counts.sum(1), counts.sum(0)
    expected = (read[:, None] + 1) * (said + 1) / total
    information = ((counts - DISCOUNT).clamp(min=1e-9) / expected).log().clamp(min=0)
    rows, columns = (((each + 0.5) / total) ** WEIGHT_POWER for each in (read, said))
    left, sizes, right = torch.svd_lowrank(rows[:, None] * information * columns, q=width, niter=3)
    vectors = left * sizes.sqrt() / rows[:, None] + right * sizes.sqrt() / columns[:, None]
    noise = torch.randn_like(vectors) * NOISE / math.sqrt(width)
    return nn.functional.normalize(vectors, dim=1, eps=SHORTEST) + noise


def _expected_counts(split: Split, vocabulary: int) -> Tensor:
    """How often each token read is where each token said comes from, float32 [vocabulary, vocabulary]."""
    pairs, place, read, said = _pairs(split, vocabulary)
    probability = np.ones(len(read))
    for _ in range(ROUNDS):
        given = probability[pairs]
        counts = np.bincount(pairs, given / np.bincount(place, given)[place])
        probability = counts / np.bincount(read, counts)[read]
    table = torch.zeros(vocabulary, vocabulary)
    table[torch.from_numpy(read), torch.from_numpy(said)] = torch.from_numpy(counts).float()
    return table


def _pairs(split: Split, vocabulary: int) -> tuple[Array, Array, Array, Array]:
    """Of all examples, each token read beside each token said: which pair it is, and the place of the latter.

    Then, of each pair there is, the token read and the token said.
    """
    assert split.targets is not None
    pairs, places, begun = [], [], 0
    for source, row in zip(source_tokens(split.inputs), split.targets, strict=True):
        answer = row[row != IGNORED]
        pairs.append((np.array(source)[:, None] * vocabulary + answer).ravel())
        places.append(np.tile(np.arange(begun, begun + len(answer)), len(source)))
        begun += len(answer)
    found, which = np.unique(np.concatenate(pairs), return_inverse=True)
    return which, np.concatenate(places), found // vocabulary, found % vocabulary
