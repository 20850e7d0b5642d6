"""Detection of the digits in scenes: ten classes, boxes at three scales."""

from types import MappingProxyType

from models.registry import ModelSpec, TrainingRecipe, register

_RECIPE = TrainingRecipe(
    steps=2500, batch_size=16, learning_rate=3e-3, clip_norm=5.0, max_seconds=160.0, threads=1
)


def _detector(name: str, parameters: int, source: str) -> None:
    register(
        ModelSpec(
            name=name,
            family="detection",
            task="object-detection",
            build=f"models.zoo.detection:{name}",
            objective="models.zoo.detection:detection_loss",
            dataset="scenes",
            metric="mean-average-precision-50",
            also=("mean-average-precision", "box-iou"),
            floor=0.8,
            training=_RECIPE,
            parameters=parameters,
            source=source,
            outputs=("detections",),
            tiny=MappingProxyType({"width": 4}),
        )
    )


_detector("yolo", 100_118, "Redmon et al., You only look once, arXiv:1506.02640, 2015")
_detector("ssd", 139_136, "Liu et al., SSD: single shot multibox detector, arXiv:1512.02325, 2015")
