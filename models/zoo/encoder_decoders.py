"""Encoder-decoders, of transformers' own classes, whose attention the export replaces.

input_ids, attention_mask and decoder_input_ids, int64 [batch, sequence], to logits float32 [batch, sequence,
vocabulary]. Nothing is loaded here: weights are fresh. Padding is the data sets' <pad>, after which answers
begin, as Marian and T5 have it. One vocabulary is embedded once for both sides and the head.
"""

from typing import Any

import transformers
from torch import Tensor, nn

from models.datasets.dataset import IGNORED
from models.datasets.subwords import END_ID, PAD_ID
from models.objectives import cross_entropy, forward
from models.training import Batch

# Vaswani et al. (2017), section 5.4.
LABEL_SMOOTHING = 0.1
_SOURCE = ("input_ids", "attention_mask")
_SETTINGS = {
    "pad_token_id": PAD_ID,
    "bos_token_id": None,
    "eos_token_id": END_ID,
    "decoder_start_token_id": PAD_ID,
    "forced_eos_token_id": None,
    "tie_word_embeddings": True,
    # At these lengths the fused kernel costs a CPU twice the products that it is made of.
    "attn_implementation": "eager",
}


def marian(**config: Any) -> nn.Module:
    """The original transformer (Vaswani et al., arXiv:1706.03762): sinusoidal positions, post-norm, ReLU.

    `config` is MarianConfig's.
    """
    settings = transformers.MarianConfig(
        activation_function="relu", scale_embedding=True, **_SETTINGS, **config
    )
    module: nn.Module = transformers.MarianMTModel(settings)
    return module


def bart(**config: Any) -> nn.Module:
    """BART (Lewis et al., arXiv:1910.13461): learned positions, post-norm, GELU. `config` is BartConfig's."""
    settings = transformers.BartConfig(scale_embedding=True, **_SETTINGS, **config)
    module: nn.Module = transformers.BartForConditionalGeneration(settings)
    return module


def t5(**config: Any) -> nn.Module:
    """T5 (Raffel et al., arXiv:1910.10683): relative positions, RMSNorm first. `config` is T5Config's."""
    module: nn.Module = transformers.T5ForConditionalGeneration(transformers.T5Config(**_SETTINGS, **config))
    return module


def smoothed(module: nn.Module, batch: Batch) -> Tensor:
    """Cross-entropy with label smoothing; columns that are padding in the whole batch are left out."""
    read = int(batch["attention_mask"].sum(1).max())
    said = int((batch["targets"] != IGNORED).sum(1).max())
    short = {name: value[:, : read if name in _SOURCE else said] for name, value in batch.items()}
    return cross_entropy(forward(module, short), short["targets"], LABEL_SMOOTHING)
