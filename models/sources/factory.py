"""`py:package.module:factory`: a torch module from the user's own code, which is imported and run.

The factory takes no arguments and returns a module; the task and the example inputs come from the data. What
it reads cannot be known, so the fingerprint is of what it returns: weights, buffers and the files that define
the classes of its layers. The trade-off: the module is made once more, also where all else is cached. A
function that a layer calls in yet another file is not seen.
"""

from __future__ import annotations

import copy
import inspect
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
from models.sources.reloading import imported_anew
from models.sources.source import SourceModel, bundle_name
from models.storage import arrays_digest, digest, file_digest, versions

if TYPE_CHECKING:
    from torch import nn


def fingerprint(place: str, seed: int, full: bool) -> str:
    """The factory's source file, the module that it returns, and torch's version. Raises SourceError."""
    module, _ = _parts(place)
    made = build(place, seed)
    # Not the state's: buffers that are not saved count as well.
    arrays = {name: each.detach().numpy() for name, each in (*made.named_parameters(), *made.named_buffers())}
    code = [file_digest(path) for path in (Path(_found(module, place)), *defining_files(made))]
    return digest(*code, arrays_digest(arrays), str(seed), repr(versions(["torch"])))


def defining_files(module: nn.Module) -> list[Path]:
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
    dataset, module = _single_precision(load_dataset(data)), build(place, seed)
    name = _parts(place)[1]
    return SourceModel(
        name=bundle_name(name),
        reference=f"py:{place}",
        task=dataset.task,
        processing=dataset.processing,
        labels=dataset.labels,
        module=module,
        graph=None,
        input_names=_in_order(module, tuple(dataset.validation.inputs), place),
        output_names=("output",) if dataset.task == "tensor" else ("logits",),
        dataset=dataset,
        files=dataset.files,
    )


def _in_order(module: nn.Module, names: tuple[str, ...], place: str) -> tuple[str, ...]:
    """`names` as the module's forward takes them by position, where it knows them; else as they come.

    Raises SourceError where it wants another one between them.
    """
    try:
        taken = inspect.signature(module.forward).parameters.values()
    except (TypeError, ValueError):
        return names
    known = [each.name for each in taken if each.kind is each.POSITIONAL_OR_KEYWORD]
    if not set(names) <= set(known):
        return names
    last = max(known.index(name) for name in names)
    if missing := [name for name in known[:last] if name not in names]:
        raise SourceError(
            f"py:{place} takes '{missing[0]}' before '{known[last]}', and the data has none; "
            "add it, or let its forward take first what the data has"
        )
    return tuple(known[: last + 1])


def _single_precision(dataset: Dataset) -> Dataset:
    """`dataset` with float32 in place of other floats, such as numpy's usual float64: the weights' own."""

    def load(split: SplitName) -> Split:
        loaded = dataset.load(split)
        cast = {n: a.astype(np.float32) if a.dtype.kind == "f" else a for n, a in loaded.inputs.items()}
        return replace(loaded, inputs=cast)

    return replace(dataset, load=load)


def build(place: str, seed: int) -> nn.Module:
    """The factory's module, float32 in evaluation mode, its random weights by `seed`. Raises SourceError.

    It is a copy: a factory may give the same module each time, and compression changes what it gets.
    """
    import torch

    # In evaluation torch's transformer layers read the weights of their layers instead of calling them.
    torch.backends.mha.set_fastpath_enabled(False)
    with imported_anew():
        factory = _factory(place)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            with _named(place):
                module = factory()
    if not isinstance(module, torch.nn.Module):
        raise SourceError(f"py:{place} returned a {type(module).__name__}; it must return a module")
    _check_tensors(module, place)
    with _named(place):
        return _learning(_replaceable(_copied(module)).float().cpu()).eval()


def _check_tensors(module: nn.Module, place: str) -> None:
    """Raises SourceError for a state that is not made of tensors alone: it would not be stored."""
    from torch import Tensor
    from torch.nn.parameter import is_lazy

    for name, value in module.state_dict(keep_vars=True).items():
        if is_lazy(value):
            raise SourceError(
                f"py:{place}: '{name}' has no shape yet; call the module once before the factory returns it"
            )
        if not isinstance(value, Tensor):
            raise SourceError(f"py:{place}: '{name}' is no tensor; leave get_extra_state out")


def _copied(module: nn.Module) -> nn.Module:
    """A copy; the module itself where torch has none, as of weights that torch's old weight_norm computes."""
    try:
        return copy.deepcopy(module)
    except RuntimeError:
        return module


def _replaceable(module: nn.Module) -> nn.Module:
    """`module`, in a Sequential where it is a single layer: steps put other layers in a layer's place."""
    from torch import nn

    return nn.Sequential(module) if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d) else module


def _learning(module: nn.Module) -> nn.Module:
    """`module`, whose parameters learn where all are frozen, as those of a model for inference may be."""
    if not any(parameter.requires_grad for parameter in module.parameters()):
        for parameter in module.parameters():
            parameter.requires_grad_(parameter.is_floating_point())
    return module


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
