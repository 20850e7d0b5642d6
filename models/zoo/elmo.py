"""ELMo: a language model in both directions, and a learnt mix of its layers to tag tokens by.

Peters et al., Deep contextualized word representations, arXiv:1802.05365, 2018. input_ids and attention_mask,
int64 [batch, sequence] padded on the right, to logits float32 [batch, sequence, classes]. The trade-offs:
pieces of words are looked up in a table, where the paper runs convolutions over characters; the tagger on top
is one layer; and the language model goes on learning with it.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.datasets import Dataset
from models.training import Batch, Objective
from models.zoo.recurrent import last_first


class Elmo(nn.Module):
    """Two stacks of LSTM layers, one reading each text forwards and one backwards, under a tagger."""

    def __init__(self, classes: int, vocabulary: int, width: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.dropout = nn.Dropout(dropout)
        self.forwards, self.backwards = (
            nn.ModuleList(nn.LSTM(width, width, batch_first=True) for _ in range(layers)) for _ in "fb"
        )
        self.mix = nn.Parameter(torch.zeros(layers + 1))
        self.scale = nn.Parameter(torch.ones(()))
        self.head = nn.Linear(2 * width, classes)

    def layers(self, input_ids: Tensor, attention_mask: Tensor) -> list[tuple[Tensor, Tensor]]:
        """What each layer says of each token, from the left and from the right; the embedding is the first.

        Each float32 [batch, sequence, width].
        """
        embedded = self.dropout(self.embedding(input_ids))
        found = [(embedded, embedded)]
        ahead, behind = embedded, last_first(embedded, attention_mask)
        for forwards, backwards in zip(self.forwards, self.backwards, strict=True):
            ahead, behind = self.dropout(forwards(ahead)[0]), self.dropout(backwards(behind)[0])
            found.append((ahead, last_first(behind, attention_mask)))
        return found

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        layers = [torch.cat(both, -1) for both in self.layers(input_ids, attention_mask)]
        # Equation 1 of the paper: a softmax over the layers, and one scale for the task.
        weights = torch.softmax(self.mix, 0)
        mixed = sum((weight * layer for weight, layer in zip(weights, layers, strict=True)), layers[0] * 0)
        logits: Tensor = self.head(self.scale * mixed)
        return logits


class LanguageModel(nn.Module):
    """An Elmo with a layer that says, from a state of either direction, which token comes next in it."""

    def __init__(self, elmo: Elmo) -> None:
        super().__init__()
        self.elmo = elmo
        self.transform = nn.Linear(elmo.embedding.embedding_dim, elmo.embedding.embedding_dim)
        self.bias = nn.Parameter(torch.zeros(elmo.embedding.num_embeddings))

    def loss(self, states: Tensor, following: Tensor) -> Tensor:
        """Cross-entropy of `following` int64 [tokens] after `states` float32 [tokens, width]."""
        logits = F.linear(self.transform(states), self.elmo.embedding.weight, self.bias)
        return F.cross_entropy(logits.float(), following)


def both_directions(elmo: nn.Module, dataset: Dataset, seed: int) -> tuple[nn.Module, Objective]:
    """The token that follows, and the one before, each from the last layer that has not seen it."""
    assert isinstance(elmo, Elmo)
    return LanguageModel(elmo), _both_losses


def _both_losses(module: nn.Module, batch: Batch) -> Tensor:
    assert isinstance(module, LanguageModel)
    ids, mask = batch["input_ids"], batch["attention_mask"]
    ahead, behind = module.elmo.layers(ids, mask)[-1]
    # A pair of neighbours counts where its right one is a token of the text.
    pairs = mask[:, 1:].bool()
    return module.loss(ahead[:, :-1][pairs], ids[:, 1:][pairs]) + module.loss(
        behind[:, 1:][pairs], ids[:, :-1][pairs]
    )


def elmo(
    classes: int = 10, vocabulary: int = 4096, width: int = 128, layers: int = 2, dropout: float = 0.1
) -> nn.Module:
    """A tagger over an untrained language model."""
    return Elmo(classes, vocabulary, width, layers, dropout)
