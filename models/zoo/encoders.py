"""Text encoders with a classifier on top, of transformers' own classes at small sizes.

input_ids and attention_mask, int64 [batch, sequence], to logits float32 [batch, classes]. Nothing is loaded
here: weights are fresh. How they are pretrained is `models.zoo.pretraining`.
"""

from typing import Any

import transformers
from torch import nn

from models.sources.wrappers import EncoderModule


def encoder(design: str, classes: int = 10, **config: Any) -> nn.Module:
    """`design` is transformers' name of the family, such as "Bert"; `config` is that family's."""
    settings = getattr(transformers, f"{design}Config")(num_labels=classes, **config)
    network = getattr(transformers, f"{design}ForSequenceClassification")(settings)
    return EncoderModule(network, "logits")
