"""Recurrent text classifiers: an embedding, recurrent layers in both directions, max-pooling, one layer.

input_ids and attention_mask, int64 [batch, sequence], to logits float32 [batch, classes]. Padding is on the
right and is pooled over by no one; the backward direction does read it first, which it learns to ignore. The
trade-off: no packed sequences, which ONNX has no word for.
"""

import torch
from torch import Tensor, nn

CELLS: dict[str, type[nn.RNNBase]] = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}


class RecurrentClassifier(nn.Module):
    """`cell` is "rnn" (Elman, 1990), "lstm" (Hochreiter and Schmidhuber, 1997) or "gru" (Cho et al., 2014).

    Max-pooling over time is Conneau et al.'s (2017, arXiv:1705.02364).
    """

    def __init__(
        self,
        cell: str,
        classes: int,
        vocabulary: int,
        embedding: int,
        hidden: int,
        layers: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, embedding)
        self.dropout = nn.Dropout(dropout)
        self.recurrent = CELLS[cell](embedding, hidden, layers, batch_first=True, bidirectional=True)
        self.head = nn.Linear(2 * hidden, classes)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        states, _ = self.recurrent(self.dropout(self.embedding(input_ids)))
        padding = attention_mask[..., None] == 0
        pooled = torch.where(padding, torch.finfo(states.dtype).min, states).amax(1)
        logits: Tensor = self.head(self.dropout(pooled))
        return logits


def recurrent(
    cell: str,
    classes: int = 10,
    vocabulary: int = 4096,
    embedding: int = 128,
    hidden: int = 128,
    layers: int = 1,
    dropout: float = 0.3,
) -> nn.Module:
    """A classifier of that cell with fresh weights."""
    return RecurrentClassifier(cell, classes, vocabulary, embedding, hidden, layers, dropout)
