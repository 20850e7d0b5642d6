"""Takes a decoder's large embedding out of its graphs: the last thing done to them, whatever the steps were.

The node that looks tokens up goes, and the graph is given its result instead. The rows stay where they are
in the graph's file: as the output head's, or as a tensor that no node reads any more, which onnxruntime
drops. So a bundle has no more files or bytes than before; `runtime.embedding` reads rows from it.
The trade-off: small tables stay inside, since a look-up takes microseconds more outside; so do those of
encoder-decoders.
"""

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper

from compress.artifact import LARGE_EMBEDDING, GraphArtifact
from compress.errors import ExportError
from compress.export.graph import save_model, stored_at
from compress.lora.attach import carry_adapters
from compress.quantize.blockwise import Floats
from compress.quantize.graph import read_tensors, replace_node, stored_weights
from runtime.decoder import INPUT_IDS, INPUTS_EMBEDS, POSITION_IDS
from runtime.embedding import Embedding
from runtime.manifest import DecoderGraph, EmbeddingTable, TablePart
from runtime.processing import Array
from runtime.session import open_session

# Tokens whose rows are compared, from the first to the last.
CHECKED = 64
# Bits of a value, by the type that a look-up's table is stored in.
FLOAT_BITS = {TensorProto.FLOAT: 32, TensorProto.FLOAT16: 16}
TYPES = {"Gather": tuple(FLOAT_BITS), "GatherBlockQuantized": (TensorProto.UINT8,)}
# What may stand between the stored table and its look-up.
LAYOUT = ("Cast", "Reshape", "Slice")


@dataclass(frozen=True, slots=True)
class _LookUp:
    """The node that looks tokens up, those before it back to the stored table, and the table's tensors."""

    nodes: tuple[NodeProto, ...]
    values: TensorProto
    scales: TensorProto | None = None
    zero_points: TensorProto | None = None

    def describe(self, offsets: Mapping[str, int], width: int) -> EmbeddingTable:
        """The table as it stands in a file whose initializers begin at `offsets`."""
        tokens = self.values.dims[0]

        def part(tensor: TensorProto) -> TablePart:
            return TablePart(offset=offsets[tensor.name], row_bytes=len(tensor.raw_data) // tokens)

        integers = {each.name: each.i for each in self.nodes[0].attribute}
        bits: Any = FLOAT_BITS.get(self.values.data_type) or integers["bits"]
        return EmbeddingTable(
            tokens=tokens,
            width=width,
            bits=bits,
            values=part(self.values),
            group_size=integers.get("block_size"),
            scales=part(self.scales) if self.scales else None,
            zero_points=part(self.zero_points) if self.zero_points else None,
        )


def take_out(graph: GraphArtifact, folder: Path, least: int = LARGE_EMBEDDING) -> GraphArtifact | None:
    """Write a decoder and its adapters into `folder`, tables of `least` bytes and more outside its graphs.

    None, and nothing written, where no graph has one. Raises ExportError for rows that come out differently.
    """
    assert isinstance(graph.graph, DecoderGraph)
    tables = {file: _take_out(graph.folder / file, folder / file, least) for file in graph.graph.files}
    if not any(tables.values()):
        return None
    for file in (file for file, table in tables.items() if table is None):
        shutil.copyfile(graph.folder / file, folder / file)
    phases = tuple(phase.model_copy(update={"embedding": tables[phase.file]}) for phase in graph.graph.phases)
    described = graph.graph.model_copy(update={"embedding": tables[graph.graph.file], "phases": phases})
    after = replace(graph, folder=folder, graph=described)
    carry_adapters(graph, after)
    return after


def _take_out(source: Path, target: Path, least: int) -> EmbeddingTable | None:
    model = onnx.load(source)
    found = _find(model)
    if found is None or len(found.values.raw_data) < least:
        return None
    tokens = np.linspace(0, found.values.dims[0] - 1, CHECKED).astype(np.int64)[None]
    wanted = _looked_up(model, found, tokens, target)
    _cut(model, found, wanted.shape[-1])
    save_model(model, target)
    table = found.describe(stored_at(model, target), wanted.shape[-1])
    got = np.empty_like(wanted)
    Embedding(target, table).look_up(tokens, got)
    if not np.array_equal(got, wanted, equal_nan=True):
        raise ExportError(f"{target.name}: its embedding, read from the file, is not what the graph looks up")
    return table


def _find(model: ModelProto) -> _LookUp | None:
    """What looks up `input_ids`, where nothing else needs them and the table is stored as such."""
    readers = [node for node in _readers(model) if node.op_type != "Shape"]
    if len(readers) != 1 or readers[0].op_type not in TYPES:
        return None
    nodes, weights = (*readers, *_before(model, readers[0])), stored_weights(model)
    parts = [weights.get(name) for name in (nodes[-1].input[0], *readers[0].input[2:])]
    found = [part for part in parts if part is not None and part.raw_data]
    if len(found) < len(parts) or found[0].data_type not in TYPES[readers[0].op_type]:
        return None
    return _LookUp(nodes, *found)


def _readers(model: ModelProto) -> list[NodeProto]:
    return [node for node in model.graph.node if INPUT_IDS in node.input]


def _before(model: ModelProto, node: NodeProto) -> Iterator[NodeProto]:
    """What lays the table out that `node` looks up in, the last first."""
    producers = {name: each for each in model.graph.node for name in each.output}
    while (node := producers.get(node.input[0])) is not None and node.op_type in LAYOUT:
        yield node


def _looked_up(model: ModelProto, found: _LookUp, tokens: Array, target: Path) -> Floats:
    """The rows of `tokens` [1, tokens] as the graph looks them up: float32 [1, tokens, width]."""
    read = {name for node in found.nodes for name in node.input}
    graph = helper.make_graph(
        list(reversed(found.nodes)),
        "rows",
        [value for value in model.graph.input if value.name == INPUT_IDS],
        [helper.make_empty_tensor_value_info(found.nodes[0].output[0])],
        [tensor for tensor in model.graph.initializer if tensor.name in read],
    )
    scratch = target.with_suffix(".rows.onnx")
    imports = {"opset_imports": model.opset_import, "ir_version": model.ir_version}
    try:
        save_model(helper.make_model(graph, **imports), scratch)
        rows: Floats = open_session(scratch).run(None, {INPUT_IDS: tokens})[0]
    finally:
        scratch.unlink(missing_ok=True)
    return rows


def _cut(model: ModelProto, found: _LookUp, width: int) -> None:
    """Let the graph take the rows, and drop what laid the table out and is read by nothing else."""
    # Adapters name the tensor, which may be a layer's input: it keeps its name.
    given = helper.make_node("Identity", [INPUTS_EMBEDS], [found.nodes[0].output[0]])
    replace_node(model, found.nodes[0], [given])
    for shape in _readers(model):
        shape.input[0] = POSITION_IDS  # which are as many
    (value,) = (value for value in model.graph.input if value.name == INPUT_IDS)
    value.CopyFrom(
        helper.make_tensor_value_info(INPUTS_EMBEDS, TensorProto.FLOAT, ["batch", "sequence", width])
    )
    for node in found.nodes[1:]:
        if not any(node.output[0] in each.input for each in model.graph.node):
            model.graph.node.remove(node)
    kept = {part.name for part in (found.values, found.scales, found.zero_points) if part}
    kept |= read_tensors(model)
    for tensor in [tensor for tensor in model.graph.initializer if tensor.name not in kept]:
        model.graph.initializer.remove(tensor)
