"""Word vectors: word2vec (skip-gram and CBOW), glove, fasttext.

word_ids int64 [batch], or subword_ids int64 [batch, most] where 0 is padding, to the cosines of each word and
every word of the vocabulary, float32 [batch, vocabulary], and the word's own vector, float32 [batch, width].
A second vector for each word, as something beside others, is there for training. The trade-off: the words
that a batch is told apart from are drawn once and shared by all of its rows, which makes products of
matrices out of gathers.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.datasets import IGNORED, Split
from models.training import Batch

# Mikolov et al. (2013, arXiv:1310.4546), section 2.2: words to tell a pair apart from, 5 to 20 for a small
# corpus, drawn by frequency to this power.
NEGATIVES, NOISE_POWER = 5, 0.75
# How many are drawn for a batch to share, which stand for NEGATIVES each.
SHARED_NEGATIVES = 256
# Pennington et al. (2014), section 4.2, whose 100 is for a corpus a thousand times as large and more.
GLOVE_POWER, GLOVE_FROM = 0.75, 10.0


class Lookup(nn.Module):
    """A vector for each word."""

    def __init__(self, vocabulary: int, width: int) -> None:
        super().__init__()
        self.vectors = _embedding(vocabulary, width)

    def forward(self, word_ids: Tensor) -> Tensor:
        vectors: Tensor = self.vectors(word_ids)
        return vectors

    def table(self) -> Tensor:
        """Every word's vector, [vocabulary, width]."""
        return self.vectors.weight


class SubwordMean(nn.Module):
    """The mean of the vectors of a word's pieces, itself one of them (Bojanowski et al., arXiv:1607.04606).

    `subwords` int64 [vocabulary, most] has the pieces of every word; before `initialise_subwords`, each is
    its only piece.
    """

    subwords: Tensor

    def __init__(self, vocabulary: int, width: int, buckets: int, most: int) -> None:
        super().__init__()
        self.first = buckets + 1
        self.vectors = _embedding(self.first + vocabulary, width, padding_idx=0)
        own = self.first + torch.arange(vocabulary)
        self.register_buffer("subwords", F.pad(own[:, None], (0, most - 1)))

    def forward(self, subword_ids: Tensor) -> Tensor:
        there = (subword_ids > 0).sum(-1, keepdim=True).clamp(min=1)
        vectors: Tensor = self.vectors(subword_ids).sum(-2) / there
        return vectors

    def table(self) -> Tensor:
        """Every word's vector, [vocabulary, width]."""
        vectors: Tensor = self(self.subwords)
        return vectors


class Predictive(nn.Module):
    """Vectors that tell the words around a word from noise.

    `noise` float32 [vocabulary] is how often each word is drawn as such, up to a factor; all are alike before
    `initialise_noise`.
    """

    noise: Tensor

    def __init__(self, words: Lookup | SubwordMean, vocabulary: int, width: int) -> None:
        super().__init__()
        self.words, self.context = words, _embedding(vocabulary, width)
        self.register_buffer("noise", torch.ones(vocabulary))

    def forward(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        vectors = self.words(ids)
        return _cosines(vectors, self.words.table()), vectors

    def told_apart(self, vectors: Tensor) -> Tensor:
        """The loss of a word of noise beside each of `vectors` [rows, width], times NEGATIVES: [rows]."""
        drawn = torch.multinomial(self.noise, SHARED_NEGATIVES, replacement=True)
        return -F.logsigmoid(-vectors @ self.context(drawn).T).mean(1) * NEGATIVES


class Glove(nn.Module):
    """Vectors whose products are logarithms of co-occurrence counts; a word's is the sum of its two."""

    def __init__(self, vocabulary: int, width: int) -> None:
        super().__init__()
        self.main, self.context = _embedding(vocabulary, width), _embedding(vocabulary, width)
        self.main_bias, self.context_bias = (nn.Parameter(torch.zeros(vocabulary)) for _ in range(2))

    def forward(self, word_ids: Tensor) -> tuple[Tensor, Tensor]:
        vectors = self.main(word_ids) + self.context(word_ids)
        return _cosines(vectors, self.main.weight + self.context.weight), vectors


def skip_gram_loss(module: nn.Module, batch: Batch) -> Tensor:
    """Each word around the asked one told from noise; the mean over such pairs."""
    assert isinstance(module, Predictive)
    (ids,) = (value for name, value in batch.items() if name != "targets")
    vectors, near = module.words(ids), batch["targets"] != IGNORED
    around = module.context(batch["targets"].clamp(min=0))
    pairs = -F.logsigmoid((around @ vectors[:, :, None])[..., 0])
    losses = pairs + module.told_apart(vectors)[:, None]
    return losses[near].mean()


def cbow_loss(module: nn.Module, batch: Batch) -> Tensor:
    """The asked word told from noise by the mean of the words around it."""
    assert isinstance(module, Predictive)
    near = (batch["targets"] != IGNORED).float()
    around = module.words(batch["targets"].clamp(min=0))
    vectors = (near[:, None] @ around)[:, 0] / near.sum(1, keepdim=True).clamp(min=1)
    pairs = -F.logsigmoid((vectors * module.context(batch["word_ids"])).sum(1))
    return (pairs + module.told_apart(vectors)).mean()


def glove_loss(module: nn.Module, batch: Batch) -> Tensor:
    """Squared error of the logarithms of the counts [rows, vocabulary] that are not zero, rare ones for less.

    Pennington et al. (2014), equations 8 and 9; the mean over the counts.
    """
    assert isinstance(module, Glove)
    rows, counts = batch["word_ids"], batch["targets"]
    weights = (counts / GLOVE_FROM).clamp(max=1) ** GLOVE_POWER
    said = module.main(rows) @ module.context.weight.T + module.main_bias[rows, None] + module.context_bias
    errors = weights * (said - counts.clamp(min=torch.finfo(counts.dtype).tiny).log()) ** 2
    loss: Tensor = errors.sum() / (counts > 0).sum().clamp(min=1)
    return loss


@torch.no_grad()
def initialise_noise(module: Predictive, split: Split) -> None:
    """Noise by the frequency of the words around others."""
    assert split.targets is not None
    targets = torch.from_numpy(split.targets)
    counts = torch.bincount(targets[targets != IGNORED], minlength=len(module.noise))
    module.noise.copy_(counts.float() ** NOISE_POWER)


@torch.no_grad()
def initialise_subwords(module: Predictive, split: Split) -> None:
    """Noise as above, and the pieces of every word that the split asks for; a word is its own first piece."""
    initialise_noise(module, split)
    assert isinstance(module.words, SubwordMean)
    pieces = torch.from_numpy(split.inputs["subword_ids"])
    module.words.subwords[pieces[:, 0] - module.words.first] = pieces


def word2vec(vocabulary: int = 4000, width: int = 64) -> nn.Module:
    """A vector for each word, learnt by `skip_gram_loss` or by `cbow_loss`."""
    return Predictive(Lookup(vocabulary, width), vocabulary, width)


def glove(vocabulary: int = 4000, width: int = 64) -> nn.Module:
    """Two vectors and two biases for each word."""
    return Glove(vocabulary, width)


def fasttext(vocabulary: int = 4000, width: int = 64, buckets: int = 8192, most: int = 20) -> nn.Module:
    """Skip-gram over the pieces of words; `buckets` and `most` are those of the processing."""
    return Predictive(SubwordMean(vocabulary, width, buckets, most), vocabulary, width)


def _embedding(rows: int, width: int, padding_idx: int | None = None) -> nn.Embedding:
    """Vectors of about length one half."""
    embedding = nn.Embedding(rows, width, padding_idx=padding_idx)
    with torch.no_grad():
        embedding.weight.mul_(0.5 * width**-0.5)
    return embedding


def _cosines(vectors: Tensor, table: Tensor) -> Tensor:
    return F.normalize(vectors, dim=-1) @ F.normalize(table, dim=-1).T
