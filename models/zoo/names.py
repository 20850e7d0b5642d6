"""How an encoder-decoder learns to answer with words of its source, from a few thousand pairs.

First it is shown which words to say by counting alone: of each source those that answers often take over, in
order. Then it learns from the pairs, in which tokens are renamed at random, on both sides alike (as entities
are in Hermann et al., arXiv:1506.03340): a token that is seen for the first time is then nothing new, and
where it stands says whether it is to be said. The trade-off: an example loses what its renamed words meant.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from models.datasets import Dataset, Split
from models.datasets.dataset import IGNORED
from models.datasets.encoding import source_tokens
from models.datasets.subwords import END_ID, PAD_ID, SPECIAL
from models.training import Batch, Objective
from models.zoo.encoder_decoders import smoothed

# Shares of a source's tokens that are renamed: where words are learnt to be carried over, and from the pairs.
RENAMED_FIRST, RENAMED = 0.3, 0.15
# Said are tokens that at least this share of the answers to sources with them take over, with so many sources
# more in which the share is that of the rare tokens.
SHARE, PRIOR = 0.15, 2
RARE = 4
# No counted answer is longer.
LONGEST = 8


def renaming(module: nn.Module, batch: Batch) -> Tensor:
    """The smoothed cross-entropy of a batch in which some tokens are renamed; in evaluation mode, of none."""
    if not module.training:
        return smoothed(module, batch)
    return smoothed(module, renamed(batch, _vocabulary(module), RENAMED))


def counted_words(module: nn.Module, dataset: Dataset, seed: int) -> tuple[nn.Module, Objective]:
    """The pretext: answer a source with those of its words that answers often have, by counting."""
    said = taken_over(dataset.train, _vocabulary(module)) >= SHARE

    def loss(module: nn.Module, batch: Batch) -> Tensor:
        changed = renamed(batch, _vocabulary(module), RENAMED_FIRST)
        return smoothed(module, changed | counted_answers(changed, said.to(changed["input_ids"].device)))

    return module, loss


def renamed(batch: Batch, vocabulary: int, share: float) -> Batch:
    """`batch` with a `share` of each source's tokens become others, drawn from all, here and in the answer.

    Special tokens stay as they are.
    """
    sources, targets = batch["input_ids"], batch["targets"]
    chosen = (torch.rand(sources.shape, device=sources.device) < share) & (sources >= len(SPECIAL))
    others = torch.randint_like(sources, len(SPECIAL), vocabulary)
    names = torch.arange(vocabulary, device=sources.device).repeat(len(sources), 1)
    names.scatter_(1, sources, torch.where(chosen, others, sources))
    return batch | {
        "input_ids": names.gather(1, sources),
        "decoder_input_ids": names.gather(1, batch["decoder_input_ids"]),
        "targets": torch.where(targets == IGNORED, IGNORED, names.gather(1, targets.clamp(min=0))),
    }


def counted_answers(batch: Batch, said: Tensor) -> Batch:
    """Decoder inputs and targets, int64 [batch, LONGEST + 1]: each source's tokens that are `said`, once.

    `said` is bool [vocabulary]. They stand in the source's order, and what follows the last is the end.
    """
    sources, mask = batch["input_ids"], batch["attention_mask"].bool()
    repeated = (sources[:, None] == sources[:, :, None]).tril(-1).any(-1)
    chosen = said[sources] & mask & ~repeated & (sources >= len(SPECIAL))
    places = chosen.logical_not().int().argsort(dim=1, stable=True)[:, :LONGEST]
    kept = chosen.gather(1, places)
    words = torch.where(kept, sources.gather(1, places), IGNORED)
    targets = nn.functional.pad(words, (0, LONGEST + 1 - words.shape[1]), value=IGNORED)
    targets.scatter_(1, kept.sum(1, keepdim=True), END_ID)
    given = nn.functional.pad(targets[:, :-1].clamp(min=PAD_ID), (1, 0), value=PAD_ID)
    return {"decoder_input_ids": given, "targets": targets}


def taken_over(split: Split, vocabulary: int) -> Tensor:
    """Of the sources that have a token, the share whose answer has it too, smoothed; float32 [vocabulary]."""
    assert split.targets is not None
    sources, both = np.zeros(vocabulary), np.zeros(vocabulary)
    for source, answer in zip(source_tokens(split.inputs), split.targets, strict=True):
        read = np.unique(source)
        sources[read] += 1
        both[np.intersect1d(read, answer)] += 1
    rare = (sources > 0) & (sources <= RARE)
    usual = both[rare].sum() / max(sources[rare].sum(), 1)
    return torch.from_numpy((both + PRIOR * usual) / (sources + PRIOR)).float()


def _vocabulary(module: Any) -> int:
    return int(module.config.vocab_size)
