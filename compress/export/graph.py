"""Writing ONNX files: what both exporters and the steps that rewrite graphs share."""

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any

import onnx

from compress.errors import ExportError, first_line
from compress.export.names import weighted_paths
from runtime.errors import ModelpressError


def save_program(program: Any, path: Path, axes: Mapping[str, Sequence[str]] | None = None) -> None:
    """Write an exported program to one file, without the exporter's traces of the source code.

    Nodes that read weights are named by their modules.

    `axes` names the first symbolic axes of inputs, and of outputs wherever the same symbol comes out again.
    """
    model = program.model_proto
    _name_axes(model, axes or {})
    paths = weighted_paths(model)
    strip(model)
    for number, name in paths:
        model.graph.node[number].name = name
    save_model(model, path)


def save_model(model: onnx.ModelProto, path: Path) -> None:
    """Write `model` with its weights inside, to a temporary name first."""
    staging = path.with_suffix(".partial")
    onnx.save_model(model, str(staging))
    staging.rename(path)


def stored_at(model: onnx.ModelProto, path: Path) -> dict[str, int]:
    """Where the file at `path`, which holds `model`, has the bytes of each initializer, by its name."""
    at, found = 0, {}
    with path.open("rb") as stream, mmap(stream.fileno(), 0, access=ACCESS_READ) as content:
        for tensor in model.graph.initializer:
            at = content.find(tensor.raw_data, at)
            assert at >= 0, "the model is what the file holds"
            found[tensor.name] = at
            at += len(tensor.raw_data)
    return found


def strip(model: onnx.ModelProto) -> None:
    """Remove what only a debugger reads: it is larger than the weights of a small model."""
    model.doc_string = ""
    del model.metadata_props[:]
    graph = model.graph
    graph.doc_string = ""
    del graph.value_info[:], graph.metadata_props[:]
    for node in graph.node:
        node.name = node.doc_string = ""
        del node.metadata_props[:]
    for value in (*graph.input, *graph.output, *graph.initializer):
        value.doc_string = ""
        del value.metadata_props[:]


@contextmanager
def quiet_exporter() -> Iterator[None]:
    """Silence the exporter's warnings about itself (absent torchvision, deprecated internals), and the graphs
    and traces that torch logs and prints of a module before it raises."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


@contextmanager
def tracing(name: str, hint: str) -> Iterator[None]:
    """The exporter at work on the model called `name`: nothing of it is heard but an ExportError."""
    with exporting(name, hint), quiet_exporter():
        yield


@contextmanager
def exporting(name: str, hint: str) -> Iterator[None]:
    """Raises ExportError, with what to do, for what the model called `name`, torch or onnxruntime raises."""
    try:
        yield
    except ModelpressError:
        raise
    except Exception as error:  # each of the three has kinds of its own; all mean that it does not export
        raise ExportError(f"{name} does not export to ONNX ({reason(error)}); {hint}") from error


def reason(error: BaseException) -> str:
    """What the exporter failed at: the first line of the error that began it, not of the guide around it."""
    while cause := error.__cause__:
        error = cause
    return first_line(error)[:300]


def _name_axes(model: onnx.ModelProto, axes: Mapping[str, Sequence[str]]) -> None:
    renamed: dict[str, str] = {}
    for value in model.graph.input:
        for name, dim in zip(axes.get(value.name, ()), value.type.tensor_type.shape.dim, strict=False):
            if dim.dim_param:
                renamed.setdefault(dim.dim_param, name)
    for value in (*model.graph.input, *model.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in renamed:
                dim.dim_param = renamed[dim.dim_param]
