"""Recurrent text classifiers: an embedding, recurrent layers in both directions, max-pooling, one layer.

input_ids and attention_mask, int64 [batch, sequence] padded on the right, to logits float32 [batch, classes].
The backward layers read each text from its own last token on, so that an answer does not depend on how far
its neighbours in the batch made it be padded. The trade-off: two layers of one direction in place of torch's
one of both, since ONNX has no packed sequences.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn


class Elman(nn.RNN):
    """torch's plain recurrent layer, of one layer and direction, exported as ONNX's own operator.

    torch 2.13's exporter unrolls `nn.RNN`, and takes the length of the example's texts for a constant; LSTM
    and GRU it translates itself. Raises ValueError for more than one layer.
    """

    weight_ih_l0: Tensor
    weight_hh_l0: Tensor
    bias_ih_l0: Tensor
    bias_hh_l0: Tensor

    def __init__(self, width: int, hidden: int, layers: int, batch_first: bool) -> None:
        if layers != 1:
            raise ValueError(f"an Elman network has one layer here, not {layers}")
        super().__init__(width, hidden, batch_first=batch_first)

    def forward(self, input: Tensor, hx: Tensor | None = None) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """[batch, sequence, width] to the states after each step, and the last one."""
        if not torch.compiler.is_exporting():
            states, last = super().forward(input, hx)
            return states, last
        weights = (self.weight_ih_l0, self.weight_hh_l0, torch.cat([self.bias_ih_l0, self.bias_hh_l0]))
        batch, length, _ = input.shape
        states = torch.onnx.ops.symbolic(
            "RNN",
            [input.transpose(0, 1), *(weight[None] for weight in weights)],
            {"hidden_size": self.hidden_size},
            dtype=input.dtype,
            shape=(length, 1, batch, self.hidden_size),
        )[:, 0]
        return states.transpose(0, 1), states[-1:]


CELLS: Mapping[str, Callable[..., nn.Module]] = {"rnn": Elman, "lstm": nn.LSTM, "gru": nn.GRU}


class RecurrentClassifier(nn.Module):
    """`cell` is "rnn" (Elman, 1990), "lstm" (Hochreiter and Schmidhuber, 1997) or "gru" (Cho et al., 2014).

    "rnn" has one layer. Max-pooling over time is Conneau et al.'s (2017, arXiv:1705.02364).
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
        self.forwards, self.backwards = (
            CELLS[cell](embedding, hidden, layers, batch_first=True) for _ in "fb"
        )
        self.head = nn.Linear(2 * hidden, classes)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        embedded = self.dropout(self.embedding(input_ids))
        states = (self.forwards(embedded)[0], self.backwards(last_first(embedded, attention_mask))[0])
        kept, said = attention_mask[..., None] > 0, torch.cat(states, -1)
        # In mixed precision a GPU's cells answer in another dtype than they are asked in.
        pooled = torch.where(kept, said, torch.finfo(said.dtype).min).amax(1)
        logits: Tensor = self.head(self.dropout(pooled))
        return logits


def last_first(embedded: Tensor, attention_mask: Tensor) -> Tensor:
    """Each text [sequence, width] from its last token to its first; what follows is of no account."""
    places = torch.arange(attention_mask.shape[1], device=embedded.device)
    order = (attention_mask.sum(1, keepdim=True) - 1 - places).clamp(min=0)
    return embedded.gather(1, order[..., None].expand(-1, -1, embedded.shape[2]))


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
