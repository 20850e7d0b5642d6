"""Sentence embeddings learnt from sentences alone: SimCSE (Gao et al., 2021, arXiv:2104.08821), unsupervised.

input_ids and attention_mask, int64 [batch, sequence], to token vectors float32 [batch, sequence, width],
whose mean over a sentence's tokens is its embedding. A sentence that is read twice under two dropout masks
should be nearer to itself than to the others of its batch. The paper starts from BERT, this one from random
weights, for which that is no question at all; so whole tokens are dropped too, and what is learnt is above
all which of them tell sentences apart.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.training import Batch

# Of the paper (its table D.1), and the share of a sentence's tokens that a reading leaves out.
TEMPERATURE, DROPPED = 0.05, 0.5


class SentenceEncoder(nn.Module):
    """Token vectors, what self-attention adds to them, and how much each token counts.

    Attention is a residual branch that begins at zero: at first a sentence is the mean of its tokens alone.
    """

    def __init__(self, vocabulary: int, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.embedding, self.importance = nn.Embedding(vocabulary, width), nn.Embedding(vocabulary, 1)
        self.norm, self.dropout, self.heads = nn.LayerNorm(width), nn.Dropout(dropout), heads
        self.projections, self.output = nn.Linear(width, 3 * width), nn.Linear(width, width)
        for start_at_zero in (self.importance.weight, self.output.weight, self.output.bias):
            nn.init.zeros_(start_at_zero)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        embedded = self.dropout(self.embedding(input_ids))
        hidden: Tensor = embedded + self.dropout(self._attended(self.norm(embedded), attention_mask))
        weight: Tensor = self.importance(input_ids).exp()
        return hidden * weight

    def _attended(self, hidden: Tensor, attention_mask: Tensor) -> Tensor:
        parts = self.projections(hidden).unflatten(-1, (3, self.heads, -1)).unbind(2)
        query, key, value = (part.transpose(1, 2) for part in parts)
        mixed = F.scaled_dot_product_attention(query, key, value, attention_mask[:, None, None] > 0)
        attended: Tensor = self.output(mixed.transpose(1, 2).flatten(2))
        return attended


def sentence_encoder(
    vocabulary: int = 4096, width: int = 256, heads: int = 4, dropout: float = 0.1
) -> nn.Module:
    """An encoder with fresh weights."""
    return SentenceEncoder(vocabulary, width, heads, dropout)


def contrastive_loss(module: nn.Module, batch: Batch) -> Tensor:
    """Cross-entropy of finding each sentence's second reading among the batch's, by cosine (equation 1)."""
    longest = int(batch["attention_mask"].sum(1).max())
    ids, mask = batch["input_ids"][:, :longest], batch["attention_mask"][:, :longest]
    first, second = (_embedded(module, ids, _without_some(mask)) for _ in range(2))
    wanted = torch.arange(len(ids), device=ids.device)
    return F.cross_entropy(first @ second.T / TEMPERATURE, wanted)


def _without_some(mask: Tensor) -> Tensor:
    """`mask` with a share of the tokens left out at random; each sentence's first stays."""
    kept = torch.rand(mask.shape, device=mask.device) >= DROPPED
    kept[:, 0] = True
    return mask * kept


def _embedded(module: nn.Module, ids: Tensor, mask: Tensor) -> Tensor:
    """Mean token vectors of length one, float32 [batch, width]."""
    summed = (module(ids, mask).float() * mask[..., None]).sum(1)
    return F.normalize(summed, dim=-1)
