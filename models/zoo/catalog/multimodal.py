"""Images and text in one space: handwritten digits, told apart by captions alone.

The captions that the floor is measured with are of a template that training never saw.
"""

from types import MappingProxyType

from models.registry import ModelSpec, TrainingRecipe, register

register(
    ModelSpec(
        name="clip",
        family="multimodal",
        task="zero-shot-image-classification",
        build="models.zoo.multimodal:clip",
        objective="models.zoo.multimodal:contrastive_loss",
        dataset="captions",
        metric="accuracy",
        floor=0.95,
        training=TrainingRecipe(
            steps=600,
            batch_size=64,
            learning_rate=2e-3,
            weight_decay=0.05,
            warmup=0.1,
            max_seconds=120.0,
            threads=1,
            augment=("affine",),
        ),
        parameters=268_081,
        source="Radford et al., Learning transferable visual models, arXiv:2103.00020, 2021",
        tiny=MappingProxyType({"widths": (4, 4), "width": 8, "hidden": 16, "layers": 1, "heads": 2}),
    )
)
