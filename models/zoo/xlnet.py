"""XLNet (Yang et al., arXiv:1906.08237): a text classifier of transformers' class, and its pretext.

The pretext predicts tokens from those before them in an order drawn at random. Two-stream attention, as
transformers' own class has it: the query stream knows where a token stands and not what it is. Only the last
sixth of an order is predicted (section 2.3). Orders are drawn from torch's global generator, which the
training loop seeds and saves.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import XLNetConfig, XLNetForSequenceClassification

from models.datasets import Dataset
from models.datasets.wordpieces import SPECIAL
from models.training import Batch
from models.zoo.pretraining import Pretext

# Section 2.3 and appendix A.4: a token in K is predicted.
K = 6


class XLNetClassifier(nn.Module):
    """input_ids and attention_mask, int64 [batch, sequence], to logits float32 [batch, classes].

    The text's vector is the first token's: texts are padded on the right here, and on the left in the paper.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        # transformers turns the mask round by `1.0 - mask`, which torch 2.13 does not export.
        padding = (attention_mask == 0).to(torch.float32)
        logits: Tensor = self.model(input_ids=input_ids, input_mask=padding).logits
        return logits


def classifier(classes: int = 10, **config: Any) -> nn.Module:
    """A classifier with fresh weights; `config` is XLNetConfig's."""
    # Neither states of earlier segments nor their cache: a text is one segment.
    settings = XLNetConfig(
        num_labels=classes, summary_type="first", use_mems_eval=False, use_mems_train=False, **config
    )
    return XLNetClassifier(XLNetForSequenceClassification(settings))


class PermutationModel(nn.Module):
    """The encoder of a fresh classifier, with a head over its vocabulary (its own embedding, tied)."""

    def __init__(self, classifier: Any) -> None:
        super().__init__()
        self.classifier = classifier
        self.encoder = classifier.model.base_model
        self.bias = nn.Parameter(torch.zeros(self.encoder.config.vocab_size))

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Mean cross-entropy of the predicted tokens, for tokens int64 [batch, sequence]."""
        hidden_from, targets, real = factorization(input_ids, attention_mask)
        place = F.one_hot(targets, input_ids.shape[1]).to(self.bias.dtype)
        hidden = self.encoder(
            input_ids=input_ids,
            attention_mask=attention_mask,
            perm_mask=hidden_from.to(self.bias.dtype),
            target_mapping=place,
        ).last_hidden_state
        logits = F.linear(hidden[real], self.encoder.word_embedding.weight, self.bias)
        return F.cross_entropy(logits.float(), input_ids.gather(1, targets)[real])


def permuted(classifier: nn.Module, dataset: Dataset, seed: int) -> Pretext:
    """Permutation language modelling over the encoder of a fresh classifier."""
    return PermutationModel(classifier), _loss


def factorization(ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """An order for each row of `ids` [batch, sequence], and what of it is predicted.

    Gives `hidden_from`, bool [batch, sequence, sequence] (true: the first may not see the second); the
    positions that come last, int64 [batch, sequence // K]; and which of those are words. Special tokens and
    padding come first in any order, so that every token sees the former, and none is predicted.
    """
    words = mask.bool() & (ids >= len(SPECIAL))
    order = torch.where(words, torch.rand(ids.shape, device=ids.device), -1.0)
    targets = order.topk(max(1, ids.shape[1] // K), dim=1).indices
    # The content stream sees itself; transformers takes that back out of this mask.
    hidden_from = (order[:, :, None] <= order[:, None, :]) & words[:, None, :]
    return hidden_from, targets, words.gather(1, targets)


def _loss(module: nn.Module, batch: Batch) -> Tensor:
    loss: Tensor = module(batch["input_ids"], batch["attention_mask"])
    return loss
