"""The `quantize` step: picks the scheme and hands it the graph.

steps:
  - method: quantize
    scheme: int8-static            # int8-dynamic | int8-static | int4 | fp16
    calibration: {samples: 256, observer: entropy}
"""

from pathlib import Path

from compress.artifact import GraphArtifact
from compress.errors import StepError
from compress.quantize.config import Fp16, Int4, Int8Dynamic, Int8Static, QuantizeConfig
from compress.step import Calibration, Figures, GraphMethod, register
from runtime.manifest import Task


def run(
    config: Int8Dynamic | Int8Static | Int4 | Fp16,
    graph: GraphArtifact,
    folder: Path,
    calibration: Calibration,
) -> tuple[GraphArtifact, Figures]:
    """Quantize `graph` into `folder`."""
    target = graph.at(folder)
    figures: Figures = {}
    if isinstance(config, Int8Dynamic | Int8Static):
        _int8(config, graph.path, target.path, calibration)
    else:
        figures = _rewrite(config, graph.path, target.path)
    return target, {**figures, "bytes_before": graph.size_bytes, "bytes_after": target.size_bytes}


def check(config: Int8Dynamic | Int8Static | Int4 | Fp16, task: Task) -> None:
    """Refuse what the scheme cannot do, before anything is trained."""
    if isinstance(config, Int8Static) and task == "text-generation":
        raise StepError("int8-static does not take a decoder with a KV cache; use int8-dynamic or int4")


def _int8(config: Int8Dynamic | Int8Static, source: Path, target: Path, calibration: Calibration) -> None:
    from compress.quantize import int8

    if isinstance(config, Int8Dynamic):
        int8.dynamic(config, source, target)
    else:
        int8.static(config, source, target, calibration.draw(config.calibration.samples))


def _rewrite(config: Int4 | Fp16, source: Path, target: Path) -> Figures:
    import onnx

    from compress.export.graph import save_model
    from compress.quantize.fp16 import store_half
    from compress.quantize.int4 import quantize_weights

    model = onnx.load(source)
    if isinstance(config, Int4):
        figures = quantize_weights(
            model,
            bits=4,
            head_bits=config.head_bits,
            group_size=config.group_size,
            accuracy_level=config.accuracy_level,
        )
    else:
        figures = store_half(model)
    save_model(model, target)
    return dict(figures)


register(GraphMethod("quantize", QuantizeConfig, run, check))
