"""The `quantize` step: picks the scheme and hands it the graph.

steps:
  - method: quantize
    scheme: int8-static            # one of the classes in `config`
    calibration: {samples: 256, observer: entropy}
"""

from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress.artifact import GraphArtifact
from compress.errors import StepError
from compress.lora.config import LoraConfig
from compress.order import rounded_already
from compress.quantize.config import (
    Bnb4,
    Fp16,
    Int8Dynamic,
    Int8Static,
    LlmInt8,
    Mixed,
    QuantizeConfig,
    Scheme,
    SmoothConfig,
    WeightOnly,
)
from compress.step import Calibration, Figures, GraphMethod, StepConfig, register
from runtime.manifest import DecoderGraph, FeedForwardGraph, Task

if TYPE_CHECKING:
    from onnx import ModelProto

_NO_CALIBRATION = "quantize: an encoder-decoder takes schemes without calibration; leave that out"


def run(
    config: Scheme, graph: GraphArtifact, folder: Path, calibration: Calibration
) -> tuple[GraphArtifact, Figures]:
    """Quantize `graph` into `folder`; of an encoder-decoder, both graphs."""
    target = graph.at(folder)
    if isinstance(graph.graph, DecoderGraph) and graph.graph.encoder:
        return target, _both(config, graph, target, calibration)
    return target, _one(config, graph, target, calibration)


def _both(config: Scheme, graph: GraphArtifact, target: GraphArtifact, calibration: Calibration) -> Figures:
    """An encoder-decoder's graphs, one by one. Raises StepError for schemes that want real inputs."""
    if samples(config):
        raise StepError(_NO_CALIBRATION)
    figures: Figures = {}
    for name, file in zip(("decoder", "encoder"), graph.graph.files, strict=True):
        described = FeedForwardGraph(file=file)
        alone = replace(graph, graph=described), replace(target, graph=described)
        figures[name] = _one(config, *alone, calibration)
    return {**figures, "bytes_before": graph.size_bytes, "bytes_after": target.size_bytes}


def _one(config: Scheme, graph: GraphArtifact, target: GraphArtifact, calibration: Calibration) -> Figures:
    if isinstance(config, Int8Dynamic | Int8Static):
        figures = _int8(config, graph, target, calibration)
    elif isinstance(config, LlmInt8):
        figures = _llm_int8(config, graph, target, calibration)
    else:
        figures = _rewrite(config, graph, target, calibration)
    return {**figures, "bytes_before": graph.size_bytes, "bytes_after": target.size_bytes}


def samples(config: Scheme) -> int:
    """How many real inputs the scheme looks at."""
    of_its_own = getattr(config, "samples", 0)
    static = config.calibration.samples if isinstance(config, Int8Static) else 0
    smooth = getattr(config, "smooth", None)
    return max(of_its_own, static, smooth.samples if smooth else 0)


def check(config: Scheme, task: Task) -> None:
    """Refuse what the scheme cannot do, before anything is trained."""
    if task == "text2text-generation" and samples(config):
        raise StepError(_NO_CALIBRATION)
    if isinstance(config, Int8Static) and task in ("text-generation", "text2text-generation"):
        raise StepError("int8-static does not take a decoder with a KV cache; use int8-dynamic or int4")
    if isinstance(config, Bnb4) and find_spec("bitsandbytes") is None:
        raise StepError(f"{config.scheme} needs bitsandbytes; pip install 'modelpress[compress]'")


def conflict(config: Scheme, early: StepConfig) -> str | None:
    """Why this scheme cannot come after `early`: its rounding is done, or settled, already."""
    if isinstance(early, LoraConfig):
        return _other_base(config, early)
    if isinstance(config, Fp16) and early.method == "qat":
        return None
    return rounded_already(config, early)


def _other_base(config: Scheme, lora: LoraConfig) -> str | None:
    """An adapter that was trained beside 4-bit weights, and stays there, is served beside the very same."""
    base = lora.quantized_base
    if base is None or lora.merge:
        return None
    if isinstance(config, Bnb4) and (config.scheme, config.block_size) == (base.scheme, base.block_size):
        return None
    return (
        f"the adapter of 'lora' was trained beside {base.scheme} weights in blocks of {base.block_size}, and "
        f"'quantize: {config.scheme}' makes others; use that scheme and block_size, or 'merge: true'"
    )


def _int8(
    config: Int8Dynamic | Int8Static, graph: GraphArtifact, target: GraphArtifact, calibration: Calibration
) -> Figures:
    from compress.quantize import int8

    source, figures = graph.path, Figures()
    if config.smooth:
        source = target.path.with_suffix(".smooth.onnx")
        figures = _smooth(config.smooth, graph, source, calibration)
    if isinstance(config, Int8Dynamic):
        int8.dynamic(config, source, target.path)
    else:
        int8.static(config, source, target.path, calibration.draw(config.calibration.samples))
    if config.smooth:
        source.unlink()
    return figures


def _llm_int8(
    config: LlmInt8, graph: GraphArtifact, target: GraphArtifact, calibration: Calibration
) -> Figures:
    import onnx

    from compress.export.graph import save_model
    from compress.quantize import int8
    from compress.quantize.outliers import separate_outliers
    from compress.quantize.statistics import input_peaks

    model, source = onnx.load(graph.path), target.path.with_suffix(".separated.onnx")
    peaks = input_peaks(model, graph.graph, calibration.draw(config.samples), source.parent)
    separated = separate_outliers(model, peaks, config.threshold)
    save_model(model, source)
    int8.dynamic(config, source, target.path, separated.in_float)
    source.unlink()
    return dict(separated.figures())


def _smooth(config: SmoothConfig, graph: GraphArtifact, path: Path, calibration: Calibration) -> Figures:
    """Write a smoothed copy of the graph to `path`."""
    import onnx

    from compress.export.graph import save_model
    from compress.quantize.scaling import smooth
    from compress.quantize.statistics import input_peaks

    model = onnx.load(graph.path)
    peaks = input_peaks(model, graph.graph, calibration.draw(config.samples), path.parent)
    figures = smooth(model, config, peaks)
    save_model(model, path)
    return dict(figures)


def _rewrite(
    config: WeightOnly | Mixed | Bnb4 | Fp16,
    graph: GraphArtifact,
    target: GraphArtifact,
    calibration: Calibration,
) -> Figures:
    import onnx

    from compress.export.graph import save_model

    model = onnx.load(graph.path)
    if isinstance(config, WeightOnly):
        figures = _weight_only(config, model, graph, target.folder, calibration)
    elif isinstance(config, Mixed):
        from compress.quantize.mixed import mix_precisions

        batches = calibration.draw(config.samples)
        drop = _drop(graph, target, calibration, config.budget.examples)
        figures = mix_precisions(model, config, graph.graph, batches, target.folder, drop)
    else:
        figures = _stored(config, model)
    save_model(model, target.path)
    return figures


def _drop(
    graph: GraphArtifact, target: GraphArtifact, calibration: Calibration, examples: int
) -> "Callable[[ModelProto], float]":
    """How much worse a model is than `graph`; each is written where the result will be."""
    from compress.export.graph import save_model

    def measured(model: "ModelProto") -> float:
        save_model(model, target.path)
        return calibration.drop(graph, target, examples)

    return measured


def _weight_only(
    config: WeightOnly, model: Any, graph: GraphArtifact, folder: Path, calibration: Calibration
) -> Figures:
    from compress.quantize.scaling import scale_for_rounding
    from compress.quantize.statistics import input_products
    from compress.quantize.weight_only import quantize_weights, rounding_error

    if not config.samples:
        return dict(quantize_weights(model, config, {}))
    products = input_products(model, graph.graph, calibration.draw(config.samples), folder)
    figures: Figures = {"output_error_by_rounding": rounding_error(model, config, products)}
    if config.algorithm == "awq":
        products, moved = scale_for_rounding(model, config, products)
        figures.update(moved)
    return {**quantize_weights(model, config, products), **figures}


def _stored(config: Bnb4 | Fp16, model: Any) -> Figures:
    if isinstance(config, Bnb4):
        from compress.quantize.bnb4 import store_bnb4

        return dict(store_bnb4(model, config))
    from compress.quantize.fp16 import store_half

    return dict(store_half(model, kind=config.scheme))


register(GraphMethod("quantize", QuantizeConfig, run, check, conflict=conflict, samples=samples))
