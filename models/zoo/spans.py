"""Extractive question answering: which token of a context begins the answer, and which ends it.

Devlin et al. (arXiv:1810.04805), section 4.2. input_ids, attention_mask and token_type_ids (0 for the
question, 1 for its context), int64 [batch, sequence], to logits float32 [batch, sequence, 2]. Begin and end
are learnt apart; that an end comes after its begin is for whoever reads them (`runtime.spans`).
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import BertConfig, BertForQuestionAnswering

from models.objectives import forward
from models.training import Batch


class SpanReader(nn.Module):
    """transformers' network as a function of its three inputs by position."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        found = self.model(input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids)
        return torch.stack([found.start_logits, found.end_logits], -1)


def reader(**config: Any) -> nn.Module:
    """A BERT with fresh weights; `config` is BertConfig's."""
    return SpanReader(BertForQuestionAnswering(BertConfig(**config)))


def ends(module: nn.Module, batch: Batch) -> Tensor:
    """Mean cross-entropy of the first and of the last token, each among all of the sequence's."""
    logits = forward(module, batch)
    return F.cross_entropy(logits.transpose(1, 2).flatten(0, 1).float(), batch["targets"].flatten())
