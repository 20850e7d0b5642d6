"""A torch module's weights between stages: safetensors, tied tensors stored once."""

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_model, save_model

from models.errors import StorageError
from models.sources.source import SourceModel

FILE = "model.safetensors"


def save_weights(source: SourceModel, folder: Path) -> None:
    """Write every parameter and buffer of the module. Raises StorageError when the disk is full."""
    assert source.module is not None
    try:
        save_model(source.module, str(folder / FILE))
    except SafetensorError as error:  # what its Rust makes of an OSError
        raise StorageError(f"{folder.parent}: {error}; free some space or set MODELPRESS_HOME") from None


def load_weights(source: SourceModel, folder: Path) -> None:
    """Read them back into a module of the same structure."""
    assert source.module is not None
    load_model(source.module, str(folder / FILE))


def stored_shapes(folder: Path) -> Mapping[str, tuple[int, ...]]:
    """The shape of every stored tensor by name, without reading the tensors."""
    with safe_open(folder / FILE, framework="np") as stored:
        return {name: tuple(stored.get_slice(name).get_shape()) for name in stored.keys()}  # noqa: SIM118
