"""From a loaded source to a graph in a folder: picks the exporter, and proves that nothing changed.

The one place that knows which exporter a task wants.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from compress.artifact import GraphArtifact
from compress.errors import ExportError
from compress.export.graph import exporting
from models.sources.source import SourceModel
from runtime.manifest import (
    CaptionedProcessing,
    DecoderGraph,
    FeedForwardGraph,
    GenerationProcessing,
    GraphProcessing,
    ImageProcessing,
    Processing,
    Signature,
    TensorSpec,
    TextProcessing,
)
from runtime.processing import Array, encode_texts, load_tokenizer
from runtime.session import open_session, tensor_specs

# Of different lengths, so that padding and masks are part of what parity checks.
TEXTS = (
    "The quick brown fox jumps over the lazy dog.",
    "Yes.",
    "A longer sentence, with commas, numbers such as 42, and a clause that goes on for a while.",
)
# What does not fit is said of decoders whatever raises: their layers, torch's exporter, onnxruntime.
CACHED = "its layers must attend by transformers' interface, and keep nothing but keys and values"
PARITY_ROWS = 5
PARITY_TOKENS = 64


def export(source: SourceModel, folder: Path) -> tuple[GraphArtifact, dict[str, Any]]:
    """Write the graph of `source` into `folder`; the artifact and the parity figures. Raises ExportError."""
    if source.graph is not None:
        return _adopt(source.graph, folder), {}
    if source.task == "text-generation":
        return _export_decoder(source, folder)
    if source.task == "text2text-generation":
        return _export_encoder_decoder(source, folder)
    return _export_feedforward(source, folder)


def _adopt(path: Path, folder: Path) -> GraphArtifact:
    """Take a ready ONNX file, its external weights brought inside."""
    target = folder / "model.onnx"
    onnx.save_model(onnx.load(path), str(target))
    return GraphArtifact(folder, FeedForwardGraph(file=target.name), _signature(target))


def _export_feedforward(source: SourceModel, folder: Path) -> tuple[GraphArtifact, dict[str, Any]]:
    from compress.export.feedforward import export_feedforward
    from compress.export.parity import check_feedforward

    assert source.module is not None
    inputs, target = example_inputs(source), folder / "model.onnx"
    ragged = _ragged(source.processing)
    graph = export_feedforward(source.module, inputs, source.output_names, target, ragged=ragged)
    parity = check_feedforward(source.module, target, inputs, source.output_names)
    return GraphArtifact(folder, graph, _signature(target)), {"parity": parity}


def _ragged(processing: Processing) -> bool | Mapping[str, str]:
    """Which inputs have a second axis of any length: texts, captions, and the nodes and edges of graphs."""
    if isinstance(processing, GraphProcessing):
        return {"features": "nodes", "edges": "edges"}
    if isinstance(processing, CaptionedProcessing):
        return {"input_ids": "captions", "attention_mask": "captions"}
    return isinstance(processing, TextProcessing)


def _export_decoder(source: SourceModel, folder: Path) -> tuple[GraphArtifact, dict[str, Any]]:
    from compress.export.decoder import export_decoder
    from compress.export.parity import check_decoder
    from compress.lora.export import export_adapter
    from compress.lora.layers import adapted_layers, without_adapters

    assert source.module is not None
    target, tokens, layers = folder / "decoder.onnx", _example_tokens(source), adapted_layers(source.module)
    with without_adapters(source.module), exporting(type(source.module).__name__, CACHED):
        graph = export_decoder(source.module, target)
        parity = check_decoder(source.module, target, graph, tokens)
    artifact = GraphArtifact(folder, graph, _decoder_signature(graph))
    if not layers:
        return artifact, {"parity": parity}
    artifact, adapted = export_adapter(source.module, layers, artifact, tokens)
    return artifact, {"parity": parity, "adapter_parity": adapted}


def _export_encoder_decoder(source: SourceModel, folder: Path) -> tuple[GraphArtifact, dict[str, Any]]:
    from compress.export.encoder_decoder import export_encoder_decoder
    from compress.export.parity import check_encoder_decoder

    assert source.module is not None
    assert isinstance(source.processing, GenerationProcessing)
    target = folder / "decoder.onnx"
    start = source.processing.start_ids
    with exporting(type(source.module).__name__, CACHED):
        graph = export_encoder_decoder(source.module, target)
        parity = check_encoder_decoder(source.module, target, graph, _example_tokens(source), start)
    return GraphArtifact(folder, graph, _decoder_signature(graph)), {"parity": parity}


def example_inputs(source: SourceModel) -> Mapping[str, Array]:
    """A few real inputs by name, from the source's data; else texts of ours, or seeded noise."""
    if source.dataset is not None:
        split = source.dataset.validation
        return {name: split.inputs[name][:PARITY_ROWS] for name in source.input_names}
    if isinstance(source.processing, TextProcessing):
        tokenizer = load_tokenizer(source.files[source.processing.tokenizer])
        encoded = encode_texts(tokenizer, TEXTS, source.processing)
        return {name: encoded[name] for name in source.input_names}
    if isinstance(source.processing, ImageProcessing):
        size = (len(source.processing.mean), source.processing.height, source.processing.width)
        noise = np.random.default_rng(0).standard_normal((PARITY_ROWS, *size))
        return {source.input_names[0]: noise.astype(np.float32)}
    if isinstance(source.processing, GenerationProcessing):
        return {"input_ids": _example_tokens(source)[None]}
    if source.graph is not None:
        specs = tensor_specs(open_session(source.graph).get_inputs())
        return {spec.name: _noise(spec) for spec in specs}
    raise ExportError(f"{source.reference}: its inputs are unknown; give 'data' with an example of each")


def _noise(spec: TensorSpec) -> Array:
    """Seeded values of a tensor's shape, symbolic axes filled in; integers are zero, the one safe index."""
    shape = [axis if isinstance(axis, int) else PARITY_ROWS for axis in spec.shape]
    if spec.dtype.startswith("float"):
        return np.random.default_rng(0).standard_normal(shape).astype(spec.dtype)
    return np.zeros(shape, spec.dtype)


def _example_tokens(source: SourceModel) -> Array:
    if source.dataset is not None:
        return np.asarray(source.dataset.validation.inputs["input_ids"]).ravel()[:PARITY_TOKENS]
    assert isinstance(source.processing, GenerationProcessing)
    tokenizer = load_tokenizer(source.files[source.processing.tokenizer])
    tokens = [token for text in TEXTS for token in tokenizer.encode(text, add_special_tokens=False).ids]
    return np.resize(np.array(tokens, np.int64), PARITY_TOKENS)


def _signature(path: Path) -> Signature:
    session = open_session(path)
    return Signature(inputs=tensor_specs(session.get_inputs()), outputs=tensor_specs(session.get_outputs()))


def _decoder_signature(graph: DecoderGraph) -> Signature:
    """What a decoder is from outside: tokens in, logits out; the cache is the runtime's own affair."""
    tokens = TensorSpec(name="input_ids", dtype="int64", shape=("batch", "sequence"))
    logits = TensorSpec(name="logits", dtype="float32", shape=("batch", "sequence", graph.vocab_size))
    return Signature(inputs=(tokens,), outputs=(logits,))
