"""Decoder-only language models, of transformers' own classes, so that exporting one is exporting them all.

Nothing is loaded here: weights are fresh.
"""

from typing import Any

from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM


def llama(**config: Any) -> nn.Module:
    """A Llama-style decoder (Touvron et al., arXiv:2302.13971). `config` is LlamaConfig's.

    input_ids int64 [batch, sequence] to logits float32 [batch, sequence, vocabulary].
    """
    module: nn.Module = LlamaForCausalLM(LlamaConfig(**config))
    return module
