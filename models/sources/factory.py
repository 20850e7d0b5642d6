"""`py:package.module:factory`: a torch module from the user's own code, which is imported and run.

The factory takes no arguments and returns a module; the task and the example inputs come from the data. What
it reads cannot be known, so the fingerprint is of what it returns: weights, buffers and the files that define
the classes of its layers. The trade-off: the module is made once more, also where all else is cached. A
function that a layer calls in yet another file is not seen.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from models.datasets import Dataset, Split, load_dataset
from models.datasets.dataset import SplitName
from models.errors import SourceError, one_line
from models.sources.source import SourceModel, bundle_name
from models.storage import arrays_digest, digest, file_digest, versions

if TYPE_CHECKING:
    from torch import nn


def fingerprint(place: str, seed: int, full: bool) -> str:
    """The factory's source file, the module that it returns, and torch's version. Raises SourceError."""
    module, _ = _parts(place)
    made = build(place, seed)
    arrays = {name: tensor.numpy() for name, tensor in made.state_dict().items()}
    code = [file_digest(path) for path in (Path(_found(module, place)), *_defining(made))]
    return digest(*code, arrays_digest(arrays), str(seed), repr(versions(["torch"])))


def _defining(module: nn.Module) -> list[Path]:
    """The source files of the module's classes, but for torch's own."""
    names = sorted({type(part).__module__ for part in module.modules()})
    own = [sys.modules[name] for name in names if name.partition(".")[0] != "torch" and name in sys.modules]
    return [
        Path(each.__file__) for each in own if each.__file__ is not None and Path(each.__file__).is_file()
    ]


def load(place: str, data: str | None, seed: int, full: bool) -> SourceModel:
    """What the factory returns, in evaluation mode. Raises SourceError for no such factory, or no data."""
    if data is None:
        raise SourceError(f"py:{place} needs data, to know its task and inputs; name a data set or a file")
    dataset = _single_precision(load_dataset(data))
    name = _parts(place)[1]
    return SourceModel(
        name=bundle_name(name),
        reference=f"py:{place}",
        task=dataset.task,
        processing=dataset.processing,
        labels=dataset.labels,
        module=build(place, seed),
        graph=None,
        input_names=tuple(dataset.validation.inputs),
        output_names=("output",) if dataset.task == "tensor" else ("logits",),
        dataset=dataset,
        files=dataset.files,
    )


def _single_precision(dataset: Dataset) -> Dataset:
    """`dataset` with float32 in place of numpy's usual float64, since the module's weights are float32."""

    def load(split: SplitName) -> Split:
        loaded = dataset.load(split)
        cast = {n: a.astype(np.float32) if a.dtype == np.float64 else a for n, a in loaded.inputs.items()}
        return replace(loaded, inputs=cast)

    return replace(dataset, load=load)


def build(place: str, seed: int) -> nn.Module:
    """The factory's module, float32 in evaluation mode, its random weights by `seed`. Raises SourceError."""
    import torch

    factory = _factory(place)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        with _named(place):
            module = factory()
    if not isinstance(module, torch.nn.Module):
        raise SourceError(f"py:{place} returned a {type(module).__name__}; it must return a module")
    with _named(place):
        return module.float().cpu().eval()


def _factory(place: str) -> Callable[[], Any]:
    module, name = _parts(place)
    _found(module, place)
    with _named(place):
        imported = import_module(module)
    if not callable(factory := getattr(imported, name, None)):
        raise SourceError(f"py:{place}: the module has no attribute '{name}' to call; give a function's name")
    return cast("Callable[[], Any]", factory)


@contextmanager
def _named(place: str) -> Iterator[None]:
    """Raises SourceError, in one line, for whatever the user's code raises, or where it would end us."""
    try:
        yield
    except (Exception, SystemExit) as error:
        reason = f"{type(error).__name__}: {one_line(error, 300)}"
        raise SourceError(f"py:{place} failed: {reason}") from error


def _found(module: str, place: str) -> str:
    """The module's source file. The working folder counts as on Python's path, after everything else."""
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)
    try:
        spec = find_spec(module)
    except (ImportError, ValueError):
        spec = None
    if spec is None or spec.origin is None or not Path(spec.origin).is_file():
        raise SourceError(f"py:{place}: there is no module '{module}' on Python's path or in {here}")
    return spec.origin


def _parts(place: str) -> tuple[str, str]:
    module, separator, factory = place.partition(":")
    if not (module and separator and factory):
        raise SourceError(f"py:{place}: write py:package.module:factory")
    return module, factory
