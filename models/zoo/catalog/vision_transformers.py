"""Vision transformers on handwritten digits at 32 x 32."""

from types import MappingProxyType
from typing import Any

from models.registry import ModelSpec, TrainingRecipe, register

_RECIPE = TrainingRecipe(
    steps=1200,
    batch_size=64,
    learning_rate=2e-3,
    weight_decay=0.05,
    warmup=0.1,
    max_seconds=150.0,
    threads=1,
    augment=("affine",),
)


def _vision(
    name: str, design: str, parameters: int, source: str, config: dict[str, Any], tiny: dict[str, Any]
) -> None:
    register(
        ModelSpec(
            name=name,
            family="vision transformer",
            task="image-classification",
            build="models.zoo.vision_transformers:vision_transformer",
            dataset="digits",
            metric="accuracy",
            floor=0.97,
            training=_RECIPE,
            parameters=parameters,
            source=source,
            config=MappingProxyType({"design": design, **config}),
            tiny=MappingProxyType(tiny),
        )
    )


_vision(
    "vit",
    "ViT",
    139_978,
    "Dosovitskiy et al., An image is worth 16x16 words, arXiv:2010.11929, 2020",
    {
        "patch_size": 8,
        "hidden_size": 64,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "intermediate_size": 128,
    },
    {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8},
)
_vision(
    "swin",
    "Swin",
    223_550,
    "Liu et al., Swin transformer: hierarchical and with shifted windows, arXiv:2103.14030, 2021",
    {
        "patch_size": 2,
        "embed_dim": 24,
        "depths": (2, 2, 2),
        "num_heads": (2, 4, 8),
        "window_size": 4,
        "mlp_ratio": 2.0,
        "drop_path_rate": 0.05,
    },
    {"embed_dim": 8, "depths": (2, 1), "num_heads": (1, 2)},
)
