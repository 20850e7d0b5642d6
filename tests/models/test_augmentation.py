import pytest
import torch
from torch import Tensor

from models.augmentation import AUGMENTATIONS, affine, cutmix, mixup
from models.training import Batch

CLASSES = 3


def batch() -> Batch:
    images = torch.zeros(4, 1, 16, 16)
    images[:, :, 6:10, 6:10] = torch.arange(1.0, 5.0)[:, None, None, None]
    return {"pixel_values": images, "targets": torch.tensor([0, 1, 2, 0])}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_the_generator_alone_decides(name: str) -> None:
    augment, before = AUGMENTATIONS[name], batch()
    first, again = (augment(batch(), CLASSES, generator())["pixel_values"] for _ in range(2))
    assert torch.equal(first, again)
    others = [augment(batch(), CLASSES, generator(seed))["pixel_values"] for seed in range(1, 9)]
    assert not all(torch.equal(other, first) for other in others)
    assert torch.equal(before["pixel_values"], batch()["pixel_values"])


def test_an_affine_change_keeps_size_targets_and_most_of_the_ink() -> None:
    before, after = batch(), affine(batch(), CLASSES, generator())
    assert torch.equal(after["targets"], before["targets"])
    assert after["pixel_values"].shape == before["pixel_values"].shape
    ink = [images.sum((1, 2, 3)) for images in (before["pixel_values"], after["pixel_values"])]
    assert torch.allclose(ink[0], ink[1], rtol=0.35)


@pytest.mark.parametrize("augment", [mixup, cutmix])
def test_targets_are_mixed_in_the_share_of_the_pixels(augment) -> None:  # type: ignore[no-untyped-def]
    before = batch() | {"pixel_values": torch.eye(4)[:, :, None, None].expand(4, 4, 16, 16).clone()}
    before["targets"] = torch.arange(4)
    after = augment(before, 4, generator(1))
    shares: Tensor = after["pixel_values"].mean((2, 3))
    assert torch.allclose(after["targets"], shares, atol=1e-6)
    assert torch.allclose(after["targets"].sum(1), torch.ones(4))
