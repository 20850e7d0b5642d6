"""Segmentation of scenes of digits: the background and ten classes."""

from types import MappingProxyType

from models.registry import ModelSpec, TrainingRecipe, register

_RECIPE = TrainingRecipe(
    steps=1200, batch_size=16, learning_rate=4e-3, warmup=0.05, max_seconds=150.0, threads=1
)


def _segmentation(name: str, parameters: int, source: str) -> None:
    register(
        ModelSpec(
            name=name,
            family="segmentation",
            task="segmentation",
            build=f"models.zoo.segmentation:{name}",
            dataset="scenes",
            metric="mean-iou",
            floor=0.8,
            training=_RECIPE,
            parameters=parameters,
            source=source,
            tiny=MappingProxyType({"widths": (4, 4, 4)}),
        )
    )


_segmentation(
    "unet",
    66_143,
    "Ronneberger et al., U-Net: convolutional networks for segmentation, arXiv:1505.04597, 2015",
)
_segmentation("fcn", 73_281, "Long et al., Fully convolutional networks, arXiv:1411.4038, 2014")
_segmentation(
    "deeplab",
    137_531,
    "Chen et al., Encoder-decoder with atrous separable convolution, arXiv:1802.02611, 2018",
)
