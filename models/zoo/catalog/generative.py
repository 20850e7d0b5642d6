"""Networks that draw handwritten digits, on request or again.

A floor is what must be got under. By this distance training digits are 2.3 from the held-out ones, and each
class's mean, drawn over and over, is 8.4 (tests/models/test_drawing.py): a model that draws no variety cannot
reach 6. A class's mean leaves much more than a tenth of an image's variance unexplained.
"""

from types import MappingProxyType
from typing import Any

from models.registry import ModelSpec, TrainingRecipe, register
from runtime.manifest import Diffusion, DrawingProcessing, Task


def _generative(
    name: str,
    loss: str,
    parameters: int,
    training: TrainingRecipe,
    source: str,
    task: Task = "image-generation",
    metric: str = "intra-class-frechet",
    floor: float = 6.0,
    processing: DrawingProcessing | None = None,
    build: str | None = None,
    **tiny: Any,
) -> None:
    register(
        ModelSpec(
            name=name,
            family="generative",
            task=task,
            build=f"models.zoo.{build or f'generative:{name}'}",
            objective=f"models.zoo.{loss}",
            dataset="drawings",
            metric=metric,
            also=("class-coverage",) if task == "image-generation" else (),
            floor=floor,
            training=training,
            parameters=parameters,
            source=source,
            processing=processing,
            outputs=("image",),
            tiny=MappingProxyType(tiny),
        )
    )


def _game(steps: int, rate: float, critics: float) -> TrainingRecipe:
    """Of a generator and its critic. Old gradients mislead where the other player has moved: hence betas.

    Clipping would tie one player's steps to the other's gradient.
    """
    return TrainingRecipe(
        steps=steps,
        batch_size=64,
        learning_rate=rate,
        rates=(("critic", critics),),
        betas=(0.5, 0.99),
        clip_norm=1000.0,
        max_seconds=150.0,
        threads=1,
        precision="float32",
    )


_generative(
    "autoencoder",
    "generative:reconstruction_loss",
    89_689,
    TrainingRecipe(steps=900, batch_size=64, learning_rate=4e-3, threads=1),
    "Hinton and Salakhutdinov, Reducing the dimensionality of data with neural networks, 2006",
    task="image-reconstruction",
    metric="reconstruction-error",
    floor=0.1,
    code=4,
    widths=(4, 4, 4),
)
_generative(
    "vae",
    "generative:variational_loss",
    100_809,
    TrainingRecipe(steps=1500, batch_size=64, learning_rate=3e-3, clip_norm=20.0, threads=1),
    "Kingma and Welling, Auto-encoding variational Bayes, arXiv:1312.6114, 2013",
    code=4,
    widths=(4, 4),
)
_generative(
    "diffusion",
    "generative:diffusion_loss",
    247_300,
    TrainingRecipe(
        steps=2500, batch_size=64, learning_rate=3e-3, betas=(0.9, 0.99), max_seconds=120.0, threads=1
    ),
    "Ho et al., Denoising diffusion probabilistic models, arXiv:2006.11239, 2020",
    processing=DrawingProcessing(noise=(1, 16, 16), diffusion=Diffusion(timesteps=200, steps=10)),
    width=8,
    blocks=1,
)
_generative(
    "gan",
    "adversarial:adversarial_loss",
    121_163,
    _game(1200, 2e-3, 2e-3),
    "Radford et al., Unsupervised representation learning with deep convolutional generative adversarial "
    "networks, arXiv:1511.06434, 2015",
    build="adversarial:gan",
    code=4,
    widths=(4, 4),
    seen=(4, 4),
)
_generative(
    "wgan-gp",
    "adversarial:wasserstein_loss",
    121_163,
    _game(1500, 2e-3, 4e-3),
    "Gulrajani et al., Improved training of Wasserstein GANs, arXiv:1704.00028, 2017",
    build="adversarial:gan",
    code=4,
    widths=(4, 4),
    seen=(4, 4),
)
_generative(
    "stylegan",
    "adversarial:adversarial_loss",
    124_837,
    _game(1200, 2e-3, 2e-3),
    "Karras et al., A style-based generator architecture for generative adversarial networks, "
    "arXiv:1812.04948, 2018",
    # 32 for the code, and one for each pixel of the maps of 4, 8 and 16 a side.
    processing=DrawingProcessing(noise=(32 + 4**2 + 8**2 + 16**2,)),
    build="stylegan:stylegan",
    style=4,
    depth=1,
    widths=(4, 4, 4),
    seen=(4, 4),
)
