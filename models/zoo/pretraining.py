"""What encoders learn from text alone, before anyone labels it.

Each pretext takes a fresh classifier of `models.zoo.encoders`, and gives a module around its encoder with
the heads that the pretext needs, and the loss to train that by. The heads are dropped afterwards. Masking
draws from torch's global generator, which the training loop seeds and saves.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.datasets import Dataset
from models.datasets.wordpieces import MASK_ID, SPECIAL
from models.training import Batch, Objective

Pretext = tuple[nn.Module, Objective]

# Devlin et al. (2018), section 3.1: of 15% of the tokens, 80% are masked, 10% replaced, 10% kept.
CHOSEN, MASKED, REPLACED = 0.15, 0.8, 0.1


class MaskedModel(nn.Module):
    """An encoder with a head over the vocabulary (its own embedding, tied) and one over two classes.

    `hidden` float32 [tokens, width] to logits [tokens, vocabulary].
    """

    def __init__(self, classifier: Any) -> None:
        super().__init__()
        self.classifier = classifier
        self.encoder = classifier.model.base_model
        embedding = self.encoder.get_input_embeddings()
        width = self.encoder.config.hidden_size
        self.transform = nn.Sequential(
            nn.Linear(width, embedding.embedding_dim), nn.GELU(), nn.LayerNorm(embedding.embedding_dim)
        )
        self.bias = nn.Parameter(torch.zeros(embedding.num_embeddings))
        self.pair = nn.Linear(width, 2)

    def hidden(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Token vectors, float32 [batch, sequence, width]."""
        output: Tensor = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return output

    def vocabulary(self, hidden: Tensor) -> Tensor:
        """Logits over the vocabulary of each row of `hidden`."""
        embedding: Tensor = self.encoder.get_input_embeddings().weight
        return F.linear(self.transform(hidden), embedding, self.bias)


def masked(classifier: nn.Module, dataset: Dataset, seed: int) -> Pretext:
    """Masked tokens alone, masked anew at each step, as RoBERTa is trained (Liu et al., arXiv:1907.11692)."""
    return MaskedModel(classifier), lambda module, batch: _masked_loss(module, *_inputs(batch))[0]


def masked_and_next(classifier: nn.Module, dataset: Dataset, seed: int) -> Pretext:
    """Masked tokens, and whether the second half of a text follows its first (BERT's two losses)."""

    def loss(module: nn.Module, batch: Batch) -> Tensor:
        ids, mask, follows = _swapped_halves(*_inputs(batch))
        masked_loss, hidden = _masked_loss(module, ids, mask)
        return masked_loss + F.cross_entropy(_parts(module).pair(hidden[:, 0]), follows)

    return MaskedModel(classifier), loss


def masked_and_order(classifier: nn.Module, dataset: Dataset, seed: int) -> Pretext:
    """Masked tokens, and whether two halves are in order (ALBERT's losses, Lan et al., arXiv:1909.11942)."""

    def loss(module: nn.Module, batch: Batch) -> Tensor:
        ids, mask, ordered = _turned(*_inputs(batch))
        masked_loss, hidden = _masked_loss(module, ids, mask)
        return masked_loss + F.cross_entropy(_parts(module).pair(hidden[:, 0]), ordered)

    return MaskedModel(classifier), loss


def _masked_loss(module: nn.Module, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy at the chosen tokens, and the hidden vectors of all."""
    model = _parts(module)
    corrupted, chosen = corrupt(ids, mask, model.bias.numel())
    hidden = model.hidden(corrupted, mask)
    return F.cross_entropy(model.vocabulary(hidden[chosen]), ids[chosen]), hidden


def corrupt(ids: Tensor, mask: Tensor, vocabulary: int) -> tuple[Tensor, Tensor]:
    """`ids` [batch, sequence] with chosen tokens masked or replaced, and which were chosen, as bool.

    Special tokens and padding are never chosen.
    """
    draw, how = torch.rand(ids.shape, device=ids.device), torch.rand(ids.shape, device=ids.device)
    chosen = (draw < CHOSEN) & mask.bool() & (ids >= len(SPECIAL))
    random = torch.randint_like(ids, len(SPECIAL), vocabulary)
    corrupted = torch.where(chosen & (how < MASKED), MASK_ID, ids)
    return torch.where(chosen & (how >= 1 - REPLACED), random, corrupted), chosen


def _swapped_halves(ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Half of the rows get another row's second half; 1 where it is their own. int64 [batch]."""
    follows = torch.randint(2, ids.shape[:1], device=ids.device)
    half, others = ids.shape[1] // 2, torch.arange(len(ids), device=ids.device).roll(1)
    source = torch.where(follows.bool(), torch.arange(len(ids), device=ids.device), others)
    swapped = [torch.cat([rows[:, :half], rows[source, half:]], 1) for rows in (ids, mask)]
    return swapped[0], swapped[1], follows


def _turned(ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Half of the rows have their first and second quarter exchanged; 1 where all is in order.

    Quarters, because texts are padded on the right and both must be full.
    """
    ordered, size = torch.randint(2, ids.shape[:1], device=ids.device), ids.shape[1] // 4
    turned = torch.cat([ids[:, :1], ids[:, 1 + size : 1 + 2 * size], ids[:, 1 : 1 + size]], 1)
    turned = torch.cat([turned, ids[:, 1 + 2 * size :]], 1)
    return torch.where(ordered.bool()[:, None], ids, turned), mask, ordered


def _inputs(batch: Batch) -> tuple[Tensor, Tensor]:
    return batch["input_ids"], batch["attention_mask"]


def _parts(module: nn.Module) -> MaskedModel:
    assert isinstance(module, MaskedModel)
    return module
