"""ELECTRA's pretext: tell which tokens a small masked language model has put in the place of others.

Clark et al., arXiv:2003.10555. Every position is learnt from, not just the masked 15%. The generator is a
narrower encoder that shares the discriminator's embeddings, and is dropped afterwards. Sampling draws from
torch's global generator, which the training loop seeds and saves.
"""

from copy import deepcopy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import ElectraForMaskedLM
from transformers.models.electra.modeling_electra import ElectraDiscriminatorPredictions

from models.datasets import Dataset
from models.training import Batch
from models.zoo.pretraining import Pretext, corrupt

# Section 3.1: the weight of the discriminator's loss.
LAMBDA = 50.0
# Section 3.2: generators a quarter to half the discriminator's size do best.
NARROWER = 2


class Electra(nn.Module):
    """A discriminator (the encoder of a fresh classifier, and a head over two answers) and its generator."""

    def __init__(self, classifier: Any) -> None:
        super().__init__()
        self.classifier = classifier
        self.discriminator = classifier.model.base_model
        self.replaced = ElectraDiscriminatorPredictions(classifier.model.config)
        self.generator = ElectraForMaskedLM(_narrower(classifier.model.config))
        self.generator.electra.embeddings = self.discriminator.embeddings
        self.generator.tie_weights()

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """The generator's loss and `LAMBDA` times the discriminator's, for tokens int64 [batch, sequence]."""
        masked, chosen = corrupt(input_ids, attention_mask, self.generator.config.vocab_size)
        logits = self.generator(input_ids=masked, attention_mask=attention_mask).logits[chosen].float()
        guessed = input_ids.masked_scatter(chosen, _drawn(logits.detach()))
        hidden = self.discriminator(input_ids=guessed, attention_mask=attention_mask).last_hidden_state
        told, kept = self.replaced(hidden).float(), attention_mask.bool()
        # A guess that is right is the original (section 2).
        replaced = (guessed != input_ids).float()
        discriminator = F.binary_cross_entropy_with_logits(told[kept], replaced[kept])
        return F.cross_entropy(logits, input_ids[chosen]) + LAMBDA * discriminator


def replaced_tokens(classifier: nn.Module, dataset: Dataset, seed: int) -> Pretext:
    """Replaced-token detection over the encoder of a fresh classifier."""
    return Electra(classifier), _loss


def _loss(module: nn.Module, batch: Batch) -> Tensor:
    loss: Tensor = module(batch["input_ids"], batch["attention_mask"])
    return loss


def _narrower(config: Any) -> Any:
    """The generator's configuration: as deep, and `NARROWER` times less wide behind the same embeddings."""
    narrow = deepcopy(config)
    for name in ("hidden_size", "intermediate_size", "num_attention_heads"):
        setattr(narrow, name, max(1, getattr(config, name) // NARROWER))
    return narrow


def _drawn(logits: Tensor) -> Tensor:
    """A token for each row of `logits`, drawn from their softmax: the largest after Gumbel noise."""
    noise = -torch.empty_like(logits).exponential_().log()
    return (logits + noise).argmax(-1)
