"""clip: images and captions in one space, by a tower for each.

pixel_values float32 [batch, 1, height, width] and its captions' input_ids and attention_mask, int64 [batch,
captions, sequence], to logits float32 [batch, captions]: how well each caption says what the image shows.
There is no classifier: classes exist only as text. The towers are the zoo's ResNet and transformers' text
tower; weights are fresh.
"""

from math import log

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

from models.datasets.wordpieces import PAD_ID, SEP_ID
from models.training import Batch
from models.zoo.convolutional.resnet import resnet

# Radford et al. (2021), section 2.5: the temperature begins at 0.07, and logits are scaled by 100 at most.
TEMPERATURE, LARGEST_SCALE = 0.07, 100.0


class DualEncoder(nn.Module):
    """Two towers and the learnt temperature of their cosines."""

    def __init__(self, image: nn.Module, text: nn.Module) -> None:
        super().__init__()
        self.image, self.text = image, text
        self.log_scale = nn.Parameter(torch.tensor(log(1 / TEMPERATURE)))

    def forward(self, pixel_values: Tensor, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        images = self.image_vectors(pixel_values)
        texts = self.text_vectors(input_ids.flatten(0, 1), attention_mask.flatten(0, 1))
        cosines = (images[:, None] * texts.view(*input_ids.shape[:2], -1)).sum(-1)
        return self.scale() * cosines

    def scale(self) -> Tensor:
        """What a cosine is multiplied by."""
        return self.log_scale.exp().clamp(max=LARGEST_SCALE)

    def image_vectors(self, pixel_values: Tensor) -> Tensor:
        """Vectors of length one, float32 [batch, width]."""
        return F.normalize(self.image(pixel_values), dim=-1)

    def text_vectors(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Vectors of length one, float32 [texts, width]; ids and mask [texts, sequence]."""
        output = self.text(input_ids=input_ids, attention_mask=attention_mask)
        return F.normalize(output.text_embeds, dim=-1)


def contrastive_loss(module: nn.Module, batch: Batch) -> Tensor:
    """Each image's own caption among the batch's, and each caption's own image (figure 3 of the paper).

    Another image's caption counts as wrong, even where it says the same.
    """
    assert isinstance(module, DualEncoder)
    images = module.image_vectors(batch["pixel_values"])
    texts = module.text_vectors(batch["input_ids"][:, 0], batch["attention_mask"][:, 0])
    logits = module.scale() * images @ texts.T
    own = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


def clip(
    width: int = 64,
    widths: tuple[int, ...] = (16, 32, 64),
    hidden: int = 64,
    layers: int = 2,
    heads: int = 4,
    vocabulary: int = 256,
) -> nn.Module:
    """Both towers end in `width` numbers. `widths` are the ResNet's, the rest is the text tower's."""
    config = CLIPTextConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        projection_dim=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        max_position_embeddings=32,
        pad_token_id=PAD_ID,
        bos_token_id=None,
        eos_token_id=SEP_ID,
    )
    return DualEncoder(resnet(width, widths), CLIPTextModelWithProjection(config))
