"""The graph that takes adapters: a low-rank branch beside each adapted layer of a finished decoder graph.

It is made from the plain graph after whatever was done to that (fused, quantized), so both compute the same
base; the adapted one holds no weights but refers to the plain one's file. It does not train or merge.
"""

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper

from compress.artifact import GraphArtifact
from compress.errors import ExportError
from compress.export.graph import save_model, stored_at
from compress.quantize.blockwise import Floats
from compress.quantize.graph import Use, stored_weights, table, weight_uses
from runtime.adapters import GATES, factor_names
from runtime.manifest import AdapterSite, DecoderGraph

# Smaller initializers are copied: onnxruntime reads shapes and axes while it loads a graph.
BORROWED_BYTES = 1024


def find_sites(path: Path, weights: Mapping[str, Floats]) -> tuple[AdapterSite, ...]:
    """Where the layers of `weights` (name -> float32 [out, in]) are in the float32 graph at `path`.

    A layer is known by its weight, which may be some rows of one that the exporter packed. Raises ExportError
    for a layer that the graph does not have.
    """
    model = onnx.load(path)
    stored = stored_weights(model)
    uses = [(use, table(stored, use)) for use in weight_uses(model, stored) if not use.looks_up]
    taken: set[tuple[str, int]] = set()
    return tuple(_site(name, weight, uses, taken) for name, weight in weights.items())


def attach(graph: GraphArtifact) -> None:
    """Write the graph that takes adapters beside the plain one. Raises ExportError where a layer is gone."""
    assert isinstance(graph.graph, DecoderGraph)
    adapters = graph.graph.adapters
    assert adapters is not None
    model = onnx.load(graph.path)
    _add_input(model, GATES, ["batch", 1, "adapter_rank"])
    for site in adapters.sites:
        _add_branch(model, site)
    _borrow(model, graph.path)
    save_model(model, graph.folder / adapters.file)


def carry_adapters(before: GraphArtifact, after: GraphArtifact) -> None:
    """Adapters over the graph `after` that a step made of `before`: their files, and its adapted graph."""
    if isinstance(after.graph, DecoderGraph) and after.graph.adapters:
        for file in after.graph.adapters.files.values():
            shutil.copyfile(before.folder / file, after.folder / file)
        attach(after)


def _site(
    name: str, weight: Floats, uses: list[tuple[Use, Floats]], taken: set[tuple[str, int]]
) -> AdapterSite:
    for use, whole in uses:
        offset = _offset(weight, whole)
        place = (use.node.output[0], offset)
        # Layers of equal weights follow one another in both lists.
        if offset >= 0 and place not in taken:
            taken.add(place)
            return AdapterSite(
                name=name,
                inputs=weight.shape[1],
                outputs=weight.shape[0],
                reads=use.activation,
                writes=use.node.output[0],
                width=len(whole),
                offset=offset,
            )
    raise ExportError(f"lora: '{name}' is not a layer of the exported graph; list it in 'exclude', or merge")


def _offset(weight: Floats, whole: Floats) -> int:
    """The first row of `whole` at which all of `weight` stands; -1 for none."""
    if whole.shape[1] != weight.shape[1]:
        return -1
    rows = np.flatnonzero((whole == weight[0]).all(1))
    found = (row for row in rows if np.array_equal(whole[row : row + len(weight)], weight))
    return int(next(found, -1))


def _add_branch(model: ModelProto, site: AdapterSite) -> None:
    """`writes` becomes what it was plus ((reads A) * gates) B."""
    a, b = factor_names(site)
    producer = next((node for node in model.graph.node if site.writes in node.output), None)
    known = {name for node in model.graph.node for name in node.output}
    if producer is None or site.reads not in known:
        raise ExportError(f"lora: the graph has no '{site.name}' to adapt any more; use 'merge: true'")
    _add_input(model, a, [site.inputs, "adapter_rank"])
    _add_input(model, b, ["adapter_rank", site.outputs])
    plain = f"{site.writes}.{site.name}.plain"
    producer.output[list(producer.output).index(site.writes)] = plain
    at = list(model.graph.node).index(producer) + 1
    for node in reversed(list(_branch(site, plain))):
        model.graph.node.insert(at, node)


def _branch(site: AdapterSite, plain: str) -> Iterator[NodeProto]:
    a, b = factor_names(site)
    yield helper.make_node("MatMul", [site.reads, a], [f"{a}.product"])
    yield helper.make_node("Mul", [f"{a}.product", GATES], [f"{a}.gated"])
    yield helper.make_node("MatMul", [f"{a}.gated", b], [f"{b}.product"])
    added = f"{b}.product"
    if site.width != site.outputs:
        added = f"{b}.padded"
        pads = [0, 0, site.offset, 0, 0, site.width - site.offset - site.outputs]
        yield helper.make_node(
            "Constant", [], [f"{b}.pads"], value=helper.make_tensor("", TensorProto.INT64, [6], pads)
        )
        yield helper.make_node("Pad", [f"{b}.product", f"{b}.pads"], [added])
    yield helper.make_node("Add", [plain, added], [site.writes])


def _add_input(model: ModelProto, name: str, shape: list[int | str]) -> None:
    model.graph.input.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))


def _borrow(model: ModelProto, path: Path) -> None:
    """Let large initializers stand in the file at `path`, whose own bytes hold them, instead of here."""
    offsets = stored_at(model, path)
    for tensor in model.graph.initializer:
        length = len(tensor.raw_data)
        if length < BORROWED_BYTES:
            continue
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", path.name), ("offset", offsets[tensor.name]), ("length", length)):
            tensor.external_data.add(key=key, value=str(value))
