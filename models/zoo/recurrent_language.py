"""A recurrent language model: an LSTM that says at each token which comes next.

input_ids and attention_mask, int64 [batch, sequence] padded on the right, to logits float32 [batch,
sequence, vocabulary]. It starts as a low-rank bigram model: the LSTM's output is added to the embedding of
the token just read (a residual connection, as in Kim et al., 2017, arXiv:1701.03360) by a projection that
starts at zero. The trade-off: it answers for every token, as it is judged, though one who asks wants the last
one's answer alone.
"""

import torch
from torch import Tensor, nn

from models.datasets import Split
from models.zoo.initialisation import bigram_llama


class RecurrentLanguageModel(nn.Module):
    """Embedding, LSTM layers, and a head; `embed_tokens` and `lm_head` as transformers calls them."""

    # There are none of a transformer's, whose residual branches the bigram start would silence.
    layers = ()

    def __init__(self, vocabulary: int, width: int, hidden: int, depth: int) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(vocabulary, width)
        self.lstm = nn.LSTM(width, hidden, depth, batch_first=True)
        self.projection = nn.Linear(hidden, width, bias=False)
        self.lm_head = nn.Linear(width, vocabulary, bias=False)

    @property
    def model(self) -> nn.Module:
        """What a causal model of transformers keeps its embedding in."""
        return self

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        embedded = self.embed_tokens(input_ids)
        # Padding comes after all that is asked about; its states are nobody's.
        states = self.lstm(embedded)[0] * attention_mask[..., None]
        logits: Tensor = self.lm_head(embedded + self.projection(states))
        return logits


def lstm_language_model(
    vocabulary: int = 4096, width: int = 256, hidden: int = 256, depth: int = 1
) -> nn.Module:
    """A language model with fresh weights."""
    return RecurrentLanguageModel(vocabulary, width, hidden, depth)


@torch.no_grad()
def bigram_lstm(module: nn.Module, split: Split) -> None:
    """Make a fresh one predict like a low-rank bigram model of `split`, in place."""
    assert isinstance(module, RecurrentLanguageModel)
    bigram_llama(module, split)
    module.projection.weight.zero_()
