"""The `quantize` step: picks the scheme and hands it the graph.

steps:
  - method: quantize
    scheme: int8-static            # int8-dynamic | int8-static | int4 | nf4 | fp4 | fp16
    calibration: {samples: 256, observer: entropy}
"""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from compress.artifact import GraphArtifact
from compress.errors import StepError
from compress.quantize.config import Bnb4, Fp16, Int4, Int8Dynamic, Int8Static, QuantizeConfig, Scheme
from compress.step import Calibration, Figures, GraphMethod, register
from runtime.manifest import Task


def run(
    config: Scheme, graph: GraphArtifact, folder: Path, calibration: Calibration
) -> tuple[GraphArtifact, Figures]:
    """Quantize `graph` into `folder`."""
    target = graph.at(folder)
    figures: Figures = {}
    if isinstance(config, Int8Dynamic | Int8Static):
        _int8(config, graph.path, target.path, calibration)
    else:
        figures = _rewrite(config, graph, target, calibration)
    return target, {**figures, "bytes_before": graph.size_bytes, "bytes_after": target.size_bytes}


def check(config: Scheme, task: Task) -> None:
    """Refuse what the scheme cannot do, before anything is trained."""
    if isinstance(config, Int8Static) and task == "text-generation":
        raise StepError("int8-static does not take a decoder with a KV cache; use int8-dynamic or int4")
    if isinstance(config, Bnb4) and find_spec("bitsandbytes") is None:
        raise StepError(f"{config.scheme} needs bitsandbytes; pip install 'modelpress[compress]'")


def _int8(config: Int8Dynamic | Int8Static, source: Path, target: Path, calibration: Calibration) -> None:
    from compress.quantize import int8

    if isinstance(config, Int8Dynamic):
        int8.dynamic(config, source, target)
    else:
        int8.static(config, source, target, calibration.draw(config.calibration.samples))


def _rewrite(
    config: Int4 | Bnb4 | Fp16, graph: GraphArtifact, target: GraphArtifact, calibration: Calibration
) -> Figures:
    import onnx

    from compress.export.graph import save_model

    model = onnx.load(graph.path)
    figures = _stored(config, model, graph, target.folder, calibration)
    save_model(model, target.path)
    return figures


def _stored(
    config: Int4 | Bnb4 | Fp16, model: Any, graph: GraphArtifact, folder: Path, calibration: Calibration
) -> Figures:
    if isinstance(config, Int4):
        from compress.quantize.hessians import input_products
        from compress.quantize.int4 import quantize_weights

        batches = calibration.draw(config.gptq.samples) if config.algorithm == "gptq" else None
        hessians = input_products(model, graph.graph, batches, folder) if batches else {}
        return dict(quantize_weights(model, config, hessians))
    if isinstance(config, Bnb4):
        from compress.quantize.bnb4 import store_bnb4

        return dict(store_bnb4(model, config))
    from compress.quantize.fp16 import store_half

    return dict(store_half(model))


register(GraphMethod("quantize", QuantizeConfig, run, check))
