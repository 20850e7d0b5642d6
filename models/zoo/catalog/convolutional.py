"""Convolutional networks (and a perceptron) on handwritten digits at 32 x 32."""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from models.registry import ModelSpec, TrainingRecipe, register

# 22 steps an epoch: 1,437 images are few, so what they could have looked like is most of what is learnt from.
_PLAIN = TrainingRecipe(steps=330, batch_size=64, learning_rate=3e-3, threads=1, augment=("affine",))
_DEEP = replace(_PLAIN, steps=260, learning_rate=4e-3, augment=("affine", "mixup"))
# In (expansion, channels, blocks, stride, kernel).
_TINY_STAGES = ((1, 8, 1, 1, 3), (2, 8, 1, 2, 3))


def _digits(
    name: str, build: str, parameters: int, training: TrainingRecipe, source: str, **tiny: Any
) -> None:
    config: Mapping[str, Any] = MappingProxyType(tiny)
    register(
        ModelSpec(
            name=name,
            family="convolutional",
            task="image-classification",
            build=f"models.zoo.convolutional.{build}",
            dataset="digits",
            metric="accuracy",
            floor=0.97,
            training=training,
            parameters=parameters,
            source=source,
            tiny=config,
        )
    )


_digits(
    "lenet5",
    "lenet:lenet5",
    61_706,
    TrainingRecipe(steps=300, batch_size=64, learning_rate=8e-3, threads=1),
    "LeCun et al., Gradient-based learning applied to document recognition, 1998",
    channels=(2, 4),
    hidden=(16, 8),
)
_digits(
    "mlp",
    "mlp:mlp",
    296_586,
    replace(_PLAIN, steps=600, learning_rate=2e-3),
    "Rumelhart et al., Learning representations by back-propagating errors, 1986",
    hidden=(16, 8),
)
_digits(
    "alexnet",
    "alexnet:alexnet",
    238_042,
    _PLAIN,
    "Krizhevsky et al., ImageNet classification with deep convolutional neural networks, 2012",
    channels=(4, 4, 4, 4, 4),
    hidden=8,
)
_digits(
    "vgg",
    "vgg:vgg",
    217_338,
    _PLAIN,
    "Simonyan and Zisserman, Very deep convolutional networks, arXiv:1409.1556, 2014",
    stages=((4,), (4,), (4,), (4,), (4,)),
    hidden=8,
)
_digits(
    "resnet",
    "resnet:resnet",
    174_970,
    _DEEP,
    "He et al., Deep residual learning for image recognition, arXiv:1512.03385, 2015",
    widths=(4, 8),
    blocks=1,
)
_digits(
    "resnet-bottleneck",
    "resnet:resnet_bottleneck",
    56_746,
    replace(_DEEP, steps=440),
    "He et al., Deep residual learning for image recognition, arXiv:1512.03385, 2015",
    widths=(8, 16),
    blocks=1,
)
_digits(
    "resnext",
    "resnet:resnext",
    64_042,
    _DEEP,
    "Xie et al., Aggregated residual transformations, arXiv:1611.05431, 2016",
    widths=(8, 16),
    blocks=1,
    groups=2,
)
_digits(
    "inception",
    "inception:inception",
    78_794,
    _DEEP,
    "Szegedy et al., Going deeper with convolutions, arXiv:1409.4842, 2014",
    stem=4,
    modules=((4, 4, 4, 4, 4, 4),),
)
_digits(
    "squeezenet",
    "squeezenet:squeezenet",
    25_866,
    _PLAIN,
    "Iandola et al., SqueezeNet, arXiv:1602.07360, 2016",
    stem=8,
    fires=((4, 8), (4, 8)),
)
_digits(
    "mobilenet-v2",
    "mobilenet:mobilenet_v2",
    272_218,
    replace(_DEEP, steps=400),
    "Sandler et al., MobileNetV2: inverted residuals and linear bottlenecks, arXiv:1801.04381, 2018",
    stages=_TINY_STAGES,
    head=16,
)
_digits(
    "efficientnet-b0",
    "mobilenet:efficientnet_b0",
    515_176,
    _DEEP,
    "Tan and Le, EfficientNet: rethinking model scaling, arXiv:1905.11946, 2019",
    stages=_TINY_STAGES,
    head=16,
)
