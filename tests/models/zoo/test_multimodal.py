"""clip tells digits apart by text alone: the captions decide, whatever their order and wording."""

from typing import Any

import pytest
import torch
from torch import nn

from models import registry
from models.datasets.captions import HELD_OUT, captions_of
from models.datasets.dataset import Split
from models.evaluation import evaluate, torch_predict
from models.zoo.member import Member
from models.zoo.multimodal import DualEncoder, clip, contrastive_loss
from runtime.captions import Captioned, encode_captioned
from runtime.manifest import CaptionedProcessing
from runtime.processing import load_tokenizer


@pytest.fixture
def network() -> DualEncoder:
    torch.manual_seed(0)
    network = clip(width=8, widths=(4, 4), hidden=16, layers=1, heads=2).eval()
    assert isinstance(network, DualEncoder)
    return network


def batch() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(5, 200, (3, 4, 6), generator=generator)
    ids[..., -1] = 3
    images = torch.randn(3, 1, 32, 32, generator=generator)
    return {"pixel_values": images, "input_ids": ids, "attention_mask": torch.ones_like(ids)}


def test_logits_follow_their_captions(network: DualEncoder) -> None:
    inputs, order = batch(), torch.tensor([2, 0, 3, 1])
    turned = {name: value[:, order] if value.ndim == 3 else value for name, value in inputs.items()}
    assert torch.allclose(network(**turned), network(**inputs)[:, order], atol=1e-5)
    assert network(**inputs).abs().max() <= network.scale()


class Vectors(nn.Module):
    """A tower that knows the vector of everything, [batch, width]."""

    def __init__(self, vectors: torch.Tensor) -> None:
        super().__init__()
        self.text_embeds = vectors

    def forward(self, *pixels: torch.Tensor, **texts: torch.Tensor) -> Any:
        return self if texts else self.text_embeds


def test_the_loss_is_least_where_every_image_is_nearest_to_its_own_caption() -> None:
    vectors = torch.eye(3, 8)
    matched, crossed = (
        contrastive_loss(DualEncoder(Vectors(vectors), Vectors(texts)), batch()).item()
        for texts in (vectors, vectors.roll(1, 0))
    )
    assert matched < 1e-5 < 10 < crossed


@pytest.mark.slow
@pytest.mark.parametrize("template", HELD_OUT)
def test_every_held_out_wording_tells_the_digits_apart(template: str) -> None:
    module, dataset, _ = Member(registry.get("clip")).obtain()
    assert isinstance(dataset.processing, CaptionedProcessing)
    assert dataset.validation.raw is not None
    items = [Captioned(image, captions_of(template)) for image in dataset.validation.raw]
    tokenizer = load_tokenizer(dataset.files["tokenizer.json"])
    inputs = encode_captioned(items, dataset.processing, tokenizer, dataset.labels)
    predict = torch_predict(module, tuple(inputs), ("logits",))
    judged = evaluate(predict, Split(inputs, dataset.validation.targets), "accuracy", 40)
    assert judged.value() >= 0.95
