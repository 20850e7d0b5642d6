"""`onnx:FILE`: a graph from anywhere, checked and described but not changed."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from models.datasets import Dataset, Split, load_dataset
from models.datasets.dataset import SplitName
from models.errors import DataError, MissingExtra, SourceError
from models.sources.source import SourceModel, bundle_name
from models.storage import digest, file_digest
from runtime.manifest import TensorProcessing


def fingerprint(place: str, seed: int, full: bool) -> str:
    """sha256 over the graph and the files that hold its external weights. Raises SourceError."""
    path = _existing(place)
    tensors = _checked(path).graph.initializer
    places = {each.value for tensor in tensors for each in tensor.external_data if each.key == "location"}
    return digest(*(file_digest(file) for file in (path, *(path.parent / name for name in sorted(places)))))


def load(place: str, data: str | None, seed: int, full: bool) -> SourceModel:
    """The graph at `place`. Raises SourceError for a file that is missing, not ONNX, or not valid ONNX."""
    path = _existing(place)
    graph = _checked(path).graph
    stored = {tensor.name for tensor in graph.initializer}
    taken = [value for value in graph.input if value.name not in stored]
    if not taken:
        raise SourceError(f"onnx:{place}: the graph takes no input; export one that does")
    for value in taken:
        _check_rows(value, place)
    inputs = tuple(value.name for value in taken)
    dataset = matched(load_dataset(data), inputs, f"onnx:{place}") if data else None
    return SourceModel(
        name=bundle_name(path.stem),
        reference=f"onnx:{place}",
        task=dataset.task if dataset else "tensor",
        processing=dataset.processing if dataset else TensorProcessing(),
        labels=dataset.labels if dataset else (),
        module=None,
        graph=path,
        input_names=inputs,
        output_names=tuple(value.name for value in graph.output),
        dataset=dataset,
    )


def _check_rows(value: Any, place: str) -> None:
    """Raises SourceError for an input of a fixed number of rows: it is judged and timed in batches."""
    axes = value.type.tensor_type.shape.dim
    if axes and axes[0].HasField("dim_value"):
        raise SourceError(
            f"onnx:{place}: '{value.name}' takes {axes[0].dim_value} rows at a time and no other number; "
            "export it with a symbolic first axis (dynamic_axes or dynamic_shapes)"
        )


def matched(dataset: Dataset, inputs: tuple[str, ...], reference: str) -> Dataset:
    """`dataset` under the graph's input names; a single array takes a single input's name.

    Raises DataError when the graph wants an input that the data set does not have.
    """
    names = tuple(dataset.validation.inputs)
    chosen = {inputs[0]: names[0]} if len(inputs) == len(names) == 1 else {name: name for name in inputs}
    if missing := sorted(set(chosen.values()) - set(names)):
        raise DataError(f"{reference} takes '{missing[0]}', and data '{dataset.name}' has {', '.join(names)}")

    def load(split: SplitName) -> Split:
        loaded = dataset.train if split == "train" else dataset.validation
        return replace(loaded, inputs={name: loaded.inputs[stored] for name, stored in chosen.items()})

    return replace(dataset, load=load)


def _checked(path: Path) -> Any:
    try:
        import onnx
    except ImportError:
        raise MissingExtra(
            "onnx: sources need the onnx library; pip install 'modelpress[compress]'"
        ) from None
    try:
        onnx.checker.check_model(str(path))
        return onnx.load(str(path), load_external_data=False)
    except (onnx.checker.ValidationError, ValueError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise SourceError(f"{path}: not a valid ONNX graph ({reason}); export it again") from None


def _existing(place: str) -> Path:
    path = Path(place)
    if not path.is_file():
        raise SourceError(f"{path}: no such file; onnx:FILE names an .onnx file")
    return path
