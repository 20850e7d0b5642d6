"""Writing ONNX files: what both exporters share."""

from pathlib import Path
from typing import Any

import onnx


def save_program(program: Any, path: Path) -> None:
    """Write an exported program to one file, without the exporter's traces of the source code."""
    model = program.model_proto
    strip(model)
    save_model(model, path)


def save_model(model: onnx.ModelProto, path: Path) -> None:
    """Write `model` with its weights inside, to a temporary name first."""
    staging = path.with_suffix(".partial")
    onnx.save_model(model, str(staging))
    staging.rename(path)


def strip(model: onnx.ModelProto) -> None:
    """Remove what only a debugger reads: it is larger than the weights of a small model."""
    model.doc_string = ""
    del model.metadata_props[:]
    graph = model.graph
    graph.doc_string = ""
    del graph.value_info[:], graph.metadata_props[:]
    for node in graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    for value in (*graph.input, *graph.output, *graph.initializer):
        value.doc_string = ""
        del value.metadata_props[:]
