"""Where models come from: `zoo:NAME`, `hf:FOLDER_OR_ID`, `py:package.module:factory`, `onnx:FILE`.

One module a kind, each with `fingerprint` (without torch, but for `py:`) and `load`. Code that a model brings
along is never run, except a `py:` factory, which the user names for that very purpose.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

from models.datasets import dataset_fingerprint
from models.errors import SourceError
from models.storage import digest

if TYPE_CHECKING:
    from models.sources.source import SourceModel

_KINDS = {
    "zoo": "models.sources.zoo",
    "hf": "models.sources.huggingface",
    "py": "models.sources.factory",
    "onnx": "models.sources.graph",
}


def source_fingerprint(reference: str, data: str | None, seed: int, full: bool = False) -> str:
    """sha256 over everything that decides what `load_source` returns, found without loading it.

    zoo: spec, code, data and library versions; hf: the folder's files; py: the factory's file and the module
    that it makes; onnx: the file. Raises SourceError.
    """
    module, place = _kind(reference)
    found: str = module.fingerprint(place, seed, full)
    return digest(reference, found, dataset_fingerprint(data) if data else "")


def source_module(reference: str) -> str:
    """The name of the module of this package that loads `reference`. Raises SourceError."""
    return _kind(reference)[0].__name__


def load_source(reference: str, data: str | None = None, *, seed: int = 0, full: bool = False) -> SourceModel:
    """The model that `reference` names, with `data` (a registered set or a file) as its data set.

    A zoo member brings its own data set, which `data` replaces for calibration and judging, not for training.
    `seed` and `full` (train to completion) concern the zoo alone. Raises SourceError, UnknownModel,
    DataError.
    """
    module, place = _kind(reference)
    source: SourceModel = module.load(place, data, seed, full)
    return source


def load_untrained(
    reference: str, data: str | None = None, *, seed: int = 0, full: bool = False
) -> SourceModel:
    """As `load_source`, but a member of the zoo comes with random weights, whether or not it was trained."""
    module, place = _kind(reference)
    load = getattr(module, "load_untrained", module.load)
    source: SourceModel = load(place, data, seed, full)
    return source


def _kind(reference: str) -> tuple[ModuleType, str]:
    kind, _, place = reference.partition(":")
    if kind not in _KINDS or not place:
        raise SourceError(
            f"model '{reference}' names no source; write zoo:NAME, hf:FOLDER_OR_ID, "
            "py:package.module:factory or onnx:FILE"
        )
    return import_module(_KINDS[kind]), place
