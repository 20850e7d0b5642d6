"""Vision transformers, of transformers' own classes at sizes for 32 x 32 grey images.

pixel_values float32 [batch, 1, 32, 32] to logits float32 [batch, classes]. Nothing is loaded here: weights
are fresh.
"""

from typing import Any

import transformers
from torch import nn

from models.sources.wrappers import ImageModule


def vision_transformer(design: str, classes: int = 10, **config: Any) -> nn.Module:
    """`design` is transformers' name of the family, "ViT" or "Swin"; `config` is that family's."""
    sizes = {"image_size": 32, "num_channels": 1, "num_labels": classes, **config}
    settings = getattr(transformers, f"{design}Config")(**sizes)
    return ImageModule(getattr(transformers, f"{design}ForImageClassification")(settings))
