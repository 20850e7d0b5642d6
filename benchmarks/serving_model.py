"""The bundle that `serving.py` serves: a digits classifier of 9,610 parameters."""

from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper, save

from runtime.bundle import Bundle, write_bundle
from runtime.manifest import FeedForwardGraph, Lineage, Manifest, Signature, TensorSpec

PIXELS = 64


def write_mlp(
    target: Path, widths: tuple[int, ...] = (128, 10), name: str = "digits", seed: int = 0
) -> Bundle:
    """A multilayer perceptron over 64 pixels with random weights: its cost is real, its answers are not."""
    rng, nodes, weights, last = np.random.default_rng(seed), [], [], "pixels"
    for layer, (inner, outer) in enumerate(zip((PIXELS, *widths), widths, strict=False)):
        scale = 1 / np.sqrt(inner)
        matrix = rng.normal(0, scale, (inner, outer)).astype("f4")
        weights.append(numpy_helper.from_array(matrix, f"w{layer}"))
        weights.append(numpy_helper.from_array(np.zeros(outer, "f4"), f"b{layer}"))
        final = layer == len(widths) - 1
        output = "logits" if final else f"h{layer}"
        product = output if final else f"g{layer}"
        nodes.append(helper.make_node("Gemm", [last, f"w{layer}", f"b{layer}"], [product]))
        if not final:
            nodes.append(helper.make_node("Relu", [f"g{layer}"], [output]))
        last = output
    ports = [("pixels", PIXELS), ("logits", widths[-1])]
    infos = [helper.make_tensor_value_info(port, TensorProto.FLOAT, ["batch", size]) for port, size in ports]
    graph = helper.make_graph(nodes, name, infos[:1], infos[1:], weights)
    target.parent.mkdir(parents=True, exist_ok=True)
    path = target.parent / "model.onnx"
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    specs = [TensorSpec(name=port, dtype="float32", shape=("batch", size)) for port, size in ports]
    manifest = Manifest(
        name=name,
        variant="fp32",
        task="tensor",
        signature=Signature(inputs=(specs[0],), outputs=(specs[1],)),
        graph=FeedForwardGraph(),
        lineage=Lineage(source="benchmarks/serving_model.py"),
    )
    return write_bundle(target, manifest, {"model.onnx": path})
