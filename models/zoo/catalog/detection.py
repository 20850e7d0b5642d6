"""Detection of the digits in scenes: ten classes, boxes at three scales."""

from types import MappingProxyType

from models.registry import ModelSpec, TrainingRecipe, register

_RECIPE = TrainingRecipe(
    steps=2500, batch_size=16, learning_rate=3e-3, clip_norm=5.0, max_seconds=160.0, threads=1
)


def _detector(
    name: str,
    parameters: int,
    source: str,
    module: str = "detection",
    loss: str = "detection_loss",
    training: TrainingRecipe = _RECIPE,
) -> None:
    register(
        ModelSpec(
            name=name,
            family="detection",
            task="object-detection",
            build=f"models.zoo.{module}:{name.replace('-', '_')}",
            objective=f"models.zoo.{module}:{loss}",
            dataset="scenes",
            metric="mean-average-precision-50",
            also=("mean-average-precision", "box-iou"),
            floor=0.8,
            training=training,
            parameters=parameters,
            source=source,
            outputs=("detections",),
            tiny=MappingProxyType({"width": 4}),
        )
    )


def _region_detector(name: str, parameters: int, source: str, steps: int, batch_size: int = 16) -> None:
    training = TrainingRecipe(
        steps=steps, batch_size=batch_size, learning_rate=3e-3, clip_norm=5.0, max_seconds=150.0, threads=1
    )
    _detector(name, parameters, source, "region_detection", "region_loss", training)


_detector("yolo", 100_118, "Redmon et al., You only look once, arXiv:1506.02640, 2015")
_detector("ssd", 139_136, "Liu et al., SSD: single shot multibox detector, arXiv:1512.02325, 2015")
_region_detector(
    *("r-cnn", 123_359, "Girshick et al., Rich feature hierarchies, arXiv:1311.2524, 2014"),
    steps=700,
    batch_size=8,
)
_region_detector("fast-r-cnn", 250_167, "Girshick, Fast R-CNN, arXiv:1504.08083, 2015", steps=700)
_region_detector("faster-r-cnn", 271_734, "Ren et al., Faster R-CNN, arXiv:1506.01497, 2015", steps=900)
